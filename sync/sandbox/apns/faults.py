"""Faults on demand: how `POST /faults` asks for them, and which request meets which.

A fault waits until `times` requests that match its `token` and `push_type` (left out = any) have met it, in the order
in which faults were posted; `tls` waits for connections. What a fault does to a connection is `http2`'s, or
`handshake`'s; this file reads, refuses and counts.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from sync.sandbox.apns.bodies import BadBody, fields, flag, seconds, text, whole

REFUSED_STREAM = 0x7  # RFC 9113 §7: "the request was not processed"
UNTRUSTED = "untrusted"  # the reason of a handshake that fails at the sender: the server's authority is a stranger's
_LARGEST_STREAM_ID = 2**31 - 1
# What Apple's list gives as the plain reason of a status.
_USUAL_REASON = {
    403: "InvalidProviderToken",
    404: "BadPath",
    405: "MethodNotAllowed",
    410: "Unregistered",
    413: "PayloadTooLarge",
    429: "TooManyRequests",
    500: "InternalServerError",
    503: "ServiceUnavailable",
}


class FaultKind(StrEnum):
    """What can go wrong on demand."""

    STATUS = "status"  # this answer, whatever the rules say
    RST_STREAM = "rst_stream"  # the stream is reset before any answer
    GOAWAY = "goaway"  # the connection ends: earlier streams are answered, this one is not
    CLOSE = "close"  # the connection is cut without a word
    SLOW = "slow"  # the answer comes `seconds` later
    SILENT = "silent"  # no answer to this request; the connection lives on
    EMPTY_BODY = "empty_body"  # an error without a body
    SPLIT_BODY = "split_body"  # an error whose body comes in two DATA frames
    NOT_JSON = "not_json"  # an error whose body is not JSON
    LONG_BODY = "long_body"  # an error whose body has that many `bytes`
    WINDOW = "window"  # before the answer: streams of this connection take no more than that many `bytes` at once
    MAX_STREAMS = "max_streams"  # before the answer: this connection takes no more than that many `streams` at once
    TLS = "tls"  # the next connection fails in its handshake


_WITH_STATUS = {FaultKind.EMPTY_BODY, FaultKind.SPLIT_BODY, FaultKind.NOT_JSON, FaultKind.LONG_BODY}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault; fields as in `POST /faults`. `status` None means: as the rules decide."""

    kind: FaultKind
    token: str | None = None
    push_type: str | None = None
    times: int = 1
    status: int | None = None
    reason: str | None = None
    timestamp: int | None = None
    seconds: float = 1.0
    last_stream_id: int | None = None
    error_code: int = REFUSED_STREAM
    streams: int | None = None
    bytes: int | None = None
    delivered: bool = True  # whether a push that gets no answer has reached its device all the same

    def meets(self, token: str, push_type: str) -> bool:
        """Whether a push to this token of this type is meant."""
        matches = self.token in {None, token.lower()} and self.push_type in {None, push_type}
        return matches and self.kind is not FaultKind.TLS


def read_fault(body: object) -> Fault:
    """The fault that this JSON value asks for. Raises BadBody."""
    told = fields(body, tuple(Fault.__dataclass_fields__))
    if told.get("kind") not in list(FaultKind):
        raise BadBody(f"kind: must be one of {', '.join(FaultKind)}")
    kind = FaultKind(told["kind"])
    status = whole(told, "status", 200, 599)
    if status is None and kind is FaultKind.STATUS:
        raise BadBody("status: must be given with kind status")
    if status is None and kind in _WITH_STATUS:
        status = 503
    reason = text(told, "reason")
    if reason is None and status is not None:
        reason = _USUAL_REASON.get(status)
    token, push_type = text(told, "token"), text(told, "push_type")
    if kind is FaultKind.TLS:
        _check_tls(token, push_type, reason)
    error_code = whole(told, "error_code", 0, 2**32 - 1)
    return Fault(
        kind=kind,
        token=None if token is None else token.lower(),
        push_type=push_type,
        times=whole(told, "times", 1, 1_000_000) or 1,
        status=status,
        reason=reason,
        timestamp=whole(told, "timestamp", 0, 10**15),
        seconds=seconds(told, "seconds", 1.0),
        last_stream_id=whole(told, "last_stream_id", 0, _LARGEST_STREAM_ID),
        error_code=REFUSED_STREAM if error_code is None else error_code,
        streams=_needed(told, kind, FaultKind.MAX_STREAMS, "streams", _LARGEST_STREAM_ID),
        bytes=_size(told, kind),
        delivered=flag(told, "delivered") is not False,
    )


def _check_tls(token: str | None, push_type: str | None, reason: str | None) -> None:
    if token is not None or push_type is not None:
        raise BadBody(f"{'token' if token is not None else 'push_type'}: a connection that fails has none yet")
    if reason not in {None, UNTRUSTED}:
        raise BadBody(f"reason: with tls it is left out, or {UNTRUSTED}")


def _needed(told: Mapping[str, object], kind: FaultKind, needing: FaultKind, name: str, most: int) -> int | None:
    value = whole(told, name, 0, most)
    if value is None and kind is needing:
        raise BadBody(f"{name}: must be given with kind {needing}")
    return value


def _size(told: Mapping[str, object], kind: FaultKind) -> int | None:
    if kind is FaultKind.LONG_BODY:
        return whole(told, "bytes", 0, 100_000_000) or 10_000_000
    return _needed(told, kind, FaultKind.WINDOW, "bytes", _LARGEST_STREAM_ID)


class Faults:
    """The faults that still wait for their requests, oldest first."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Fault, int]] = []

    def post(self, fault: Fault) -> None:
        """Wait for the requests that this fault is meant for."""
        self._waiting.append((fault, fault.times))

    def take(self, token: str, push_type: str) -> Fault | None:
        """The first fault that this request meets, counted; None when it meets none."""
        return self._first(lambda fault: fault.meets(token, push_type))

    def take_connection(self) -> Fault | None:
        """The first fault that this new connection meets, counted; None when it meets none."""
        return self._first(lambda fault: fault.kind is FaultKind.TLS)

    def forget(self) -> None:
        """No fault any more."""
        self._waiting.clear()

    @property
    def waiting(self) -> int:
        """How many requests and connections are still to meet a fault."""
        return sum(left for _, left in self._waiting)

    def _first(self, meets: Callable[[Fault], bool]) -> Fault | None:
        for index, (fault, left) in enumerate(self._waiting):
            if meets(fault):
                self._waiting[index : index + 1] = [(fault, left - 1)] if left > 1 else []
                return fault
        return None
