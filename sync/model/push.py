"""What goes to a push service and what comes back, without any vendor's library.

A `PushRequest` is complete: an adapter only frames and sends it. A `PushOutcome` says what is known about it
afterwards, in our own words: the vendor's codes are translated in one table (`sync.protocol.apns`). Neither may be
logged whole: the token is a secret, so its `repr` leaves it out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class PushType(StrEnum):
    """`apns-push-type`: what the receiving system does with a push."""

    ALERT = "alert"
    BACKGROUND = "background"
    VOIP = "voip"


class Vendor(StrEnum):
    """Whose push service it is."""

    APNS = "apns"
    FCM = "fcm"
    WEBPUSH = "webpush"
    UBUNTU = "ubuntu"
    WNS = "wns"


class Environment(StrEnum):
    """The two worlds of APNs; a token belongs to one of them."""

    PRODUCTION = "production"
    SANDBOX = "sandbox"


class Verdict(StrEnum):
    """What an answer, or its absence, means for the token and for the job."""

    ACCEPTED = "accepted"
    DEAD_TOKEN = "dead-token"  # never again to this token, unless it was registered after `dead_since_at`
    REJECTED = "rejected"  # our request was wrong: drop it, keep the token, alarm
    TOO_LARGE = "too-large"  # shrink and try once more
    CREDENTIALS = "credentials"  # our key or certificate was refused: stop sending, tell the operator, keep the tokens
    THROTTLED = "throttled"  # this device gets too much: back off, keep only the newest wake
    RETRY = "retry"  # the service had a bad moment and did not take it
    NOT_SENT = "not-sent"  # surely not accepted: no connection, or the service said that it did not process it
    UNCERTAIN = "uncertain"  # it left, and nobody knows: a wake may be sent again, a VoIP push never


@dataclass(frozen=True, slots=True, kw_only=True)
class PushRequest:
    """One push to one device.

    `app` names the configured app (its bundle id makes the topic), `token` is hexadecimal, `payload` a JSON object,
    `expiration` epoch seconds (0 = now or never), `collapse_id` at most 64 bytes, `apns_id` a lower-case UUID.
    """

    app: str
    environment: Environment
    token: str = field(repr=False)
    push_type: PushType
    priority: int
    expiration: int
    collapse_id: str | None
    apns_id: str
    payload: Mapping[str, object] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PushOutcome:
    """What became of one request.

    `status` and `reason` are the vendor's own, for the ledger; both are None when no answer came. `dead_since_at` is
    the instant from which the vendor knows the token to be dead (APNs 410 `timestamp`).
    """

    verdict: Verdict
    status: int | None = None
    reason: str | None = None
    dead_since_at: datetime | None = None
