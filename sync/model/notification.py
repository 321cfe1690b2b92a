"""What another server asks us to push (XEP-0357 §7): one publish to a node of ours, and what became of it.

Of what a publish tells, only how urgent it is comes in here: who wrote and what is nobody's business between the
user's server and the phone.
"""

from dataclasses import dataclass, field
from enum import StrEnum


class Urgency(StrEnum):
    """How soon a phone has to know."""

    CALL = "call"  # a call rings at the user's server
    MESSAGE = "message"  # something to read, or nothing is said of it
    REST = "rest"  # its server says that there is nothing to read: a receipt, a typing notice


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """A publish: by whom (a JID as the stream vouches for it), to which node; of the publish-options the secret, and
    fpush's `pushModule`, the name of an app.
    """

    publisher: str
    node: str = field(repr=False)  # a push token, perhaps
    secret: str | None = field(default=None, repr=False)
    module: str | None = None
    urgency: Urgency = Urgency.MESSAGE


class Published(StrEnum):
    """What became of a publish that was taken."""

    QUEUED = "queued"  # a push of its own
    JOINED = "joined"  # a push that is queued speaks for it
    REDUNDANT = "redundant"  # of a host that we have the feed of: its phones are pushed for that
    UNIMPORTANT = "unimportant"  # nothing to read, and the app would have to show something for it
