"""The roles that the service needs played, and nothing about who plays them.

Each role has one contract suite under `tests/contract` that every player passes, the in-memory ones included.
"""

from sync.ports.bootstrap import Bootstraps
from sync.ports.observer import Observer
from sync.ports.outside import Bus, Clock, Hint, Presence, ProviderTokens, PushGate, Sealer, Wire
from sync.ports.store import (
    DueJob,
    FeedMarks,
    Housekeeping,
    Leases,
    Retention,
    Rooms,
    Store,
    StreamMark,
    Trimmed,
)
from sync.ports.watch import Watcher, Watches

__all__ = [
    "Bootstraps",
    "Bus",
    "Clock",
    "DueJob",
    "FeedMarks",
    "Hint",
    "Housekeeping",
    "Leases",
    "Observer",
    "Presence",
    "ProviderTokens",
    "PushGate",
    "Retention",
    "Rooms",
    "Sealer",
    "Store",
    "StreamMark",
    "Trimmed",
    "Watcher",
    "Watches",
    "Wire",
]
