"""A client of `urn:convsync:0` as a slixmpp plugin: what changed, what rings, what is unread, in one round trip.

Importing it registers the plugin: `xmpp.register_plugin("convsync")`. Reference and example: docs/clients/library.md.
Needs slixmpp, and nothing else of what Convsync needs.
"""

from slixmpp.plugins import register_plugin

from sync.client.cache import Cache, Step, apply
from sync.client.errors import (
    BadAnswer,
    BadRequest,
    Conflict,
    ConvsyncError,
    Forbidden,
    LimitExceeded,
    NoAnswer,
    NotConnected,
    NotFound,
    NotSupported,
    RequestFailed,
    TryLater,
)
from sync.client.events import (
    CallEnded,
    CallRings,
    ConversationChanged,
    ConversationRemoved,
    Event,
    Happened,
    QuietChanged,
    StartedOver,
    TotalsChanged,
)
from sync.client.plugin import Convsync
from sync.client.storage import dumps, loads
from sync.client.values import (
    Call,
    CallKey,
    Change,
    Conversation,
    Device,
    History,
    Key,
    Last,
    ListedDevice,
    Notice,
    Page,
    Quiet,
    Removed,
    Row,
    Settings,
    Totals,
)

register_plugin(Convsync)

__all__ = [
    "BadAnswer",
    "BadRequest",
    "Cache",
    "Call",
    "CallEnded",
    "CallKey",
    "CallRings",
    "Change",
    "Conflict",
    "Conversation",
    "ConversationChanged",
    "ConversationRemoved",
    "Convsync",
    "ConvsyncError",
    "Device",
    "Event",
    "Forbidden",
    "Happened",
    "History",
    "Key",
    "Last",
    "LimitExceeded",
    "ListedDevice",
    "NoAnswer",
    "NotConnected",
    "NotFound",
    "NotSupported",
    "Notice",
    "Page",
    "Quiet",
    "QuietChanged",
    "Removed",
    "RequestFailed",
    "Row",
    "Settings",
    "StartedOver",
    "Step",
    "Totals",
    "TotalsChanged",
    "TryLater",
    "apply",
    "dumps",
    "loads",
]
