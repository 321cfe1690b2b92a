"""Which device tokens exist, for what, and since when no longer.

Unless told otherwise a token of 64 hex digits is alive when it begins with `a` (alerts) or `f` (VoIP), so that tests
and people can make up devices. What was told by `POST /tokens` comes first, and what was described as a device's
(`fleet`) before the default. A token may have a rate: what is accepted beyond it is refused. Times are given.
"""

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from sync.sandbox.apns.rules import Refusal

_MADE_UP = re.compile(r"[af][0-9a-f]{63}")


class TokenState(StrEnum):
    """What can be said of a token by `POST /tokens`."""

    ALIVE = "alive"
    UNREGISTERED = "unregistered"
    EXPIRED = "expired"
    OTHER_ENVIRONMENT = "other-environment"
    OTHER_TOPIC = "other-topic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """At most `limit` pushes are taken within any `seconds`."""

    limit: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """`since_ms`: epoch milliseconds from which an unregistered or expired token is dead."""

    state: TokenState
    since_ms: int | None = None
    rate: Rate | None = None


class Registry:
    """The tokens that something was said about, and the default for all others. `given`: said before the start."""

    def __init__(self, given: Mapping[str, TokenRecord] | None = None) -> None:
        self._given = {token.lower(): record for token, record in (given or {}).items()}
        self._told = dict(self._given)
        self._taken: dict[str, deque[float]] = {}

    def tell(self, token: str, record: TokenRecord) -> None:
        """From now on this token is so; tokens are compared in lower case."""
        self._told[token.lower()] = record

    def forget(self) -> None:
        """Back to what was given, and the default for every other token."""
        self._told = dict(self._given)
        self._taken.clear()

    def told(self, token: str) -> TokenRecord | None:
        """What was told of this token."""
        return self._told.get(token.lower())

    def limited(self, token: str, now: float) -> Refusal | None:
        """Why this token takes no push now that would otherwise be accepted, or None: then the push is counted."""
        record = self.told(token)
        if record is None or record.rate is None:
            return None
        taken = self._taken.setdefault(token.lower(), deque())
        while taken and taken[0] <= now - record.rate.seconds:
            taken.popleft()
        if len(taken) >= record.rate.limit:
            return Refusal(status=429, reason="TooManyRequests")
        taken.append(now)
        return None

    def refusal(self, token: str, push_type: str) -> Refusal | None:
        """Why a push of this type cannot go to this token, or None."""
        token = token.lower()
        record = self._told.get(token)
        if record is None:
            return self._made_up(token, push_type)
        match record.state:
            case TokenState.ALIVE:
                return None
            case TokenState.UNREGISTERED:
                return Refusal(status=410, reason="Unregistered", timestamp_ms=record.since_ms)
            case TokenState.EXPIRED:
                return Refusal(status=410, reason="ExpiredToken", timestamp_ms=record.since_ms)
            case TokenState.OTHER_ENVIRONMENT:
                # APNs does not know the other environment's tokens: to it they are just wrong.
                return Refusal(status=400, reason="BadDeviceToken")
            case TokenState.OTHER_TOPIC:
                return Refusal(status=400, reason="DeviceTokenNotForTopic")

    def _made_up(self, token: str, push_type: str) -> Refusal | None:
        if not _MADE_UP.fullmatch(token):
            return Refusal(status=400, reason="BadDeviceToken")
        # PushKit gives another token than the app's own: neither takes the other's pushes.
        if (push_type == "voip") != token.startswith("f"):
            return Refusal(status=400, reason="DeviceTokenNotForTopic")
        return None
