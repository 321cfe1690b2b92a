"""Faults on demand: how `POST /faults` asks for them, and which request meets which.

A fault waits until `times` requests that match its `token` and `push_type` (left out = any) have met it, in the order
in which faults were posted. What a fault does to a connection is `http2`'s; this file reads, refuses and counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

REFUSED_STREAM = 0x7  # RFC 9113 §7: "the request was not processed"
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


class BadFault(ValueError):
    """A fault that cannot be: the sentence names the field."""


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

    def meets(self, token: str, push_type: str) -> bool:
        """Whether a push to this token of this type is meant."""
        return self.token in {None, token.lower()} and self.push_type in {None, push_type}


def _text(body: Mapping[str, object], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise BadFault(f"{name}: must be text")
    return value


def _whole(body: Mapping[str, object], name: str, low: int, high: int) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise BadFault(f"{name}: must be a whole number from {low} to {high}")
    return value


def _seconds(body: Mapping[str, object]) -> float:
    value = body.get("seconds", 1.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 3600:
        raise BadFault("seconds: must be a number from 0 to 3600")
    return float(value)


def read_fault(body: object) -> Fault:
    """The fault that this JSON value asks for. Raises BadFault."""
    if not isinstance(body, dict):
        raise BadFault("the body must be a JSON object")
    unknown = sorted(str(name) for name in body.keys() - set(Fault.__dataclass_fields__))
    if unknown:
        raise BadFault(f"{unknown[0]}: no such field; there are {', '.join(Fault.__dataclass_fields__)}")
    kind = body.get("kind")
    if kind not in list(FaultKind):
        raise BadFault(f"kind: must be one of {', '.join(FaultKind)}")
    kind = FaultKind(kind)
    status = _whole(body, "status", 200, 599)
    if status is None and kind is FaultKind.STATUS:
        raise BadFault("status: must be given with kind status")
    if status is None and kind in {FaultKind.EMPTY_BODY, FaultKind.SPLIT_BODY, FaultKind.NOT_JSON}:
        status = 503
    reason = _text(body, "reason")
    if reason is None and status is not None:
        reason = _USUAL_REASON.get(status)
    token = _text(body, "token")
    error_code = _whole(body, "error_code", 0, 2**32 - 1)
    return Fault(
        kind=kind,
        token=None if token is None else token.lower(),
        push_type=_text(body, "push_type"),
        times=_whole(body, "times", 1, 1_000_000) or 1,
        status=status,
        reason=reason,
        timestamp=_whole(body, "timestamp", 0, 10**15),
        seconds=_seconds(body),
        last_stream_id=_whole(body, "last_stream_id", 0, _LARGEST_STREAM_ID),
        error_code=REFUSED_STREAM if error_code is None else error_code,
    )


class Faults:
    """The faults that still wait for their requests, oldest first."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Fault, int]] = []

    def post(self, fault: Fault) -> None:
        """Wait for the requests that this fault is meant for."""
        self._waiting.append((fault, fault.times))

    def take(self, token: str, push_type: str) -> Fault | None:
        """The first fault that this request meets, counted; None when it meets none."""
        for index, (fault, left) in enumerate(self._waiting):
            if fault.meets(token, push_type):
                self._waiting[index : index + 1] = [(fault, left - 1)] if left > 1 else []
                return fault
        return None

    def forget(self) -> None:
        """No fault any more."""
        self._waiting.clear()

    @property
    def waiting(self) -> int:
        """How many requests are still to meet a fault."""
        return sum(left for _, left in self._waiting)
