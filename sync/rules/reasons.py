"""Why a device is left alone: the words that the ledger (`suppressed:<why>`) and the metrics keep, and the sentences
that an operator reads. Rules return members of `Why`, so that no word is without its sentence.
"""

from collections.abc import Mapping
from enum import StrEnum


class Why(StrEnum):
    """One reason each."""

    ANSWERED = "answered"
    ATTENTIVE = "attentive"
    BLOCKED = "blocked"
    CALL_OVER = "call-over"
    DEVICE_MUTED = "device-muted"
    DEVICE_ROOM = "device-room"
    EXPIRED = "expired"
    FETCHED = "fetched"
    IGNORE_UNKNOWN = "ignore-unknown"
    MUTED = "muted"
    NO_DEVICE = "no-device"
    NO_FILTER = "no-filter"
    NO_TOKEN = "no-token"
    NOT_MENTIONED = "not-mentioned"
    NOT_SHOWN = "not-shown"
    NOTIFY_NEVER = "notify-never"
    OWN_DEVICE = "own-device"
    QUIET = "quiet"
    REACTIONS_OFF = "reactions-off"
    READ = "read"
    RUNG_BEFORE = "rung-before"
    SHOWS_ALL = "shows-all"
    THROTTLED = "throttled"
    WOKEN_SINCE = "woken-since"


SENTENCES: Mapping[str, str] = {
    Why.ANSWERED: "it was answered meanwhile",
    Why.ATTENTIVE: "a session of the device was active: the user had it before the eyes",
    Why.BLOCKED: "the sender was blocked meanwhile",
    Why.CALL_OVER: "the call did not ring any more",
    Why.DEVICE_MUTED: "the device asked for nothing of this sender or room (its filter `muted`)",
    Why.DEVICE_ROOM: "the device asked for no such message of this room (its filter `groupchat`)",
    Why.EXPIRED: "its time was over before it could be sent",
    Why.FETCHED: "the device had asked meanwhile and was told",
    Why.IGNORE_UNKNOWN: "a stranger, and the device wants nothing of strangers (its filter `ignore-unknown`)",
    Why.MUTED: "the conversation was muted",
    Why.NO_DEVICE: "the device was not registered or not enabled any more",
    Why.NO_FILTER: "no VoIP push (no VoIP token, or a stranger called), and the app has no filtering entitlement",
    Why.NO_TOKEN: "the device had no VoIP token any more",
    Why.NOT_MENTIONED: "the conversation tells of mentions only, and this was none",
    Why.NOT_SHOWN: "the device shows nothing of it, so there was nothing to change",
    Why.NOTIFY_NEVER: "the conversation's notification setting is never",
    Why.OWN_DEVICE: "it was done on this very device",
    Why.QUIET: "quiet hours or do-not-disturb of the account",
    Why.REACTIONS_OFF: "reactions are not told: [push] reactions is off",
    Why.READ: "it was read before it could be sent",
    Why.RUNG_BEFORE: "a VoIP push of a call with this session id went out before, and there is one at most",
    Why.SHOWS_ALL: "the app has no filtering entitlement and would show it, though nobody asked to see it",
    Why.THROTTLED: "the push service had enough of the device for a while, and kept is the newest wake only",
    Why.WOKEN_SINCE: "a later wake had told the device all of it",
}
