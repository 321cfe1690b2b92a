"""What APNs' answers mean: one table from (status, reason) to a verdict, and how its answer body is read.

Decides nothing about when to send again, which token to delete or which connection to use; it says what is known. It
does no I/O and knows no HTTP/2 library. Sources: Apple, "Handling notification responses from APNs" and "Sending
notification requests to APNs", read 2026; reasons that servers were seen to send besides are marked "seen".
"""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime

from sync.model.push import PushOutcome, PushType, Verdict

PAYLOAD_LIMIT_BYTES = 4096  # Apple: "Maximum payload size is 4 KB (4096 bytes)"
VOIP_PAYLOAD_LIMIT_BYTES = 5120  # Apple: "For VoIP notifications, the maximum payload size is 5 KB (5120 bytes)"
ANSWER_LIMIT_BYTES = 4096  # a real answer is below 100 bytes; what is longer did not come from APNs and is not read
_REASON = re.compile(r"[A-Za-z]{1,64}")  # a reason becomes a metric label and a ledger column: nothing else may pass
_YEAR_10000_MS = 253_402_300_800_000  # beyond what `datetime` can hold


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One answer. `reason` None stands for every reason of that status that has no row of its own."""

    status: int
    reason: str | None
    verdict: Verdict
    because: str
    reconnect: bool = False  # nothing more may be sent over the connection that brought this answer


def _row(status: int, reason: str | None, verdict: Verdict, because: str, *, reconnect: bool = False) -> Row:
    return Row(status=status, reason=reason, verdict=verdict, because=because, reconnect=reconnect)


TABLE: tuple[Row, ...] = (
    _row(200, None, Verdict.ACCEPTED, "APNs has it"),
    _row(400, "BadCollapseId", Verdict.REJECTED, "the collapse id is longer than 64 bytes"),
    _row(400, "BadExpirationDate", Verdict.REJECTED, "apns-expiration is no number of seconds"),
    _row(400, "BadMessageId", Verdict.REJECTED, "apns-id is no canonical UUID"),
    _row(400, "BadPriority", Verdict.REJECTED, "apns-priority is none of 10, 5, 1, or does not go with the type"),
    _row(400, "BadTopic", Verdict.REJECTED, "apns-topic has a form that no app can have"),
    _row(400, "DuplicateHeaders", Verdict.REJECTED, "a header came twice"),
    _row(400, "InvalidPushType", Verdict.REJECTED, "apns-push-type is unknown or does not go with the payload"),
    _row(400, "MissingTopic", Verdict.REJECTED, "apns-topic is missing"),
    _row(400, "PayloadEmpty", Verdict.REJECTED, "there is no payload"),
    _row(400, "TopicDisallowed", Verdict.REJECTED, "this team may not push to this app: not the device's fault"),
    _row(400, "MissingDeviceToken", Verdict.REJECTED, "the path names no device"),
    _row(404, "BadPath", Verdict.REJECTED, "the path is not /3/device/<token>"),
    _row(405, "MethodNotAllowed", Verdict.REJECTED, "only POST is known"),
    _row(400, "BadDeviceToken", Verdict.DEAD_TOKEN, "no device of this environment has it"),
    _row(400, "DeviceTokenNotForTopic", Verdict.DEAD_TOKEN, "the token is another app's"),
    _row(400, "IdleTimeout", Verdict.RETRY, "the connection was idle for too long", reconnect=True),
    # The gate has asked for a new token and tried again before anyone sees this. The key is good, only the token is
    # old, and time cures that (a new one may be minted 20 minutes after the last): no case for the breaker.
    _row(403, "ExpiredProviderToken", Verdict.RETRY, "the provider token is over an hour old"),
    _row(403, "InvalidProviderToken", Verdict.CREDENTIALS, "signature, kid or iss of the provider token is wrong"),
    _row(403, "MissingProviderToken", Verdict.CREDENTIALS, "no provider token, and no certificate either"),
    _row(403, "BadCertificate", Verdict.CREDENTIALS, "the client certificate is bad"),
    _row(403, "BadCertificateEnvironment", Verdict.CREDENTIALS, "the certificate is the other environment's"),
    _row(403, "Forbidden", Verdict.CREDENTIALS, "the action is not allowed"),
    _row(403, "UnrelatedKeyIdInToken", Verdict.CREDENTIALS, "the key is not that of this connection's earlier pushes"),
    _row(403, "BadEnvironmentKeyIdInToken", Verdict.CREDENTIALS, "the key is restricted to the other environment"),
    _row(403, "BadEnvironmentKeyInToken", Verdict.CREDENTIALS, "seen in place of the former"),
    _row(410, "Unregistered", Verdict.DEAD_TOKEN, "the app is gone since `timestamp`"),
    _row(410, "ExpiredToken", Verdict.DEAD_TOKEN, "the token has expired at `timestamp`"),
    _row(413, "PayloadTooLarge", Verdict.TOO_LARGE, "more than 4,096 bytes (VoIP 5,120)"),
    _row(429, "TooManyRequests", Verdict.THROTTLED, "too many pushes to this one device"),
    # Neither the device's fault nor the key's: the shared token goes on being used, on another connection.
    _row(429, "TooManyProviderTokenUpdates", Verdict.RETRY, "tokens change within 20 minutes", reconnect=True),
    _row(500, "InternalServerError", Verdict.RETRY, "APNs failed"),
    _row(503, "ServiceUnavailable", Verdict.RETRY, "APNs is busy"),
    _row(503, "Shutdown", Verdict.RETRY, "this APNs server is stopping", reconnect=True),
    # Answers without a reason, or with one that Apple added later: the status alone decides.
    _row(403, None, Verdict.CREDENTIALS, "403 is always about who we are"),
    _row(410, None, Verdict.DEAD_TOKEN, "410 is always about a token that was alive"),
    _row(413, None, Verdict.TOO_LARGE, "413 is always about size"),
    _row(429, None, Verdict.THROTTLED, "429 is about too much; slowing down is never wrong"),
)
_ROWS = {(row.status, row.reason): row for row in TABLE}


def row(status: int, reason: str | None) -> Row:
    """The row that decides for this answer; every status has one."""
    known = _ROWS.get((status, reason)) or _ROWS.get((status, None))
    if known is not None:
        return known
    if 400 <= status < 500:
        return _row(status, reason, Verdict.REJECTED, "the same request will not fare better")
    if status >= 500:
        return _row(status, reason, Verdict.RETRY, "a bad moment of theirs")
    # Not in Apple's list at all. It may have been taken, so a VoIP push must not follow it.
    return _row(status, reason, Verdict.UNCERTAIN, "APNs has no such answer")


def outcome(status: int, body: bytes) -> PushOutcome:
    """What an answer with this status and this (possibly cut, empty or foreign) body means. Never raises."""
    reason, dead_since_at = read_answer(body)
    return PushOutcome(verdict=row(status, reason).verdict, status=status, reason=reason, dead_since_at=dead_since_at)


def unprocessed(reason: str | None) -> PushOutcome:
    """What became of a push that APNs surely did not look at, because it ended the connection for this reason."""
    refused = (known := _ROWS.get((403, reason))) is not None and known.verdict is Verdict.CREDENTIALS
    return PushOutcome(verdict=Verdict.CREDENTIALS if reason and refused else Verdict.NOT_SENT, reason=reason)


def read_answer(body: bytes) -> tuple[str | None, datetime | None]:
    """`{"reason": …, "timestamp": ms}` as (reason, instant), each None where it is missing or makes no sense."""
    if not body or len(body) > ANSWER_LIMIT_BYTES:
        return None, None
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):  # not UTF-8, not JSON, or 4 kB of opening brackets
        return None, None
    if not isinstance(answer, dict):
        return None, None
    reason, timestamp = answer.get("reason"), answer.get("timestamp")
    if not (isinstance(reason, str) and _REASON.fullmatch(reason)):
        reason = None
    if isinstance(timestamp, bool) or not isinstance(timestamp, int) or not 0 < timestamp < _YEAR_10000_MS:
        return reason, None
    return reason, datetime.fromtimestamp(timestamp / 1000, UTC)


def topic(bundle_id: str, push_type: PushType) -> str:
    """`apns-topic`. Apple: for `voip` "use your app's bundle ID with .voip appended to the end"."""
    return f"{bundle_id}.voip" if push_type is PushType.VOIP else bundle_id


def payload_limit_bytes(push_type: PushType) -> int:
    """How long the JSON of a push of this type may be."""
    return VOIP_PAYLOAD_LIMIT_BYTES if push_type is PushType.VOIP else PAYLOAD_LIMIT_BYTES
