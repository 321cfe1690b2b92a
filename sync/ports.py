"""The roles that the service needs played, and nothing about who plays them.

Each role has one contract suite under `tests/contract` that every player passes, the in-memory ones included.
"""

from datetime import datetime
from typing import Protocol

from sync.model.push import PushOutcome, PushRequest


class PushGate(Protocol):
    """Sends pushes of one vendor. Never raises for what the vendor or the network does: that is an outcome."""

    async def send(self, request: PushRequest) -> PushOutcome:
        """Send once; answer within the gate's own time limit. Cancelling the caller must not disturb other pushes."""
        ...

    async def close(self) -> None:
        """Finish what is in flight, within a limit, then close the connections."""
        ...


class ProviderTokens(Protocol):
    """The one APNs provider token of a key, shared by all processes (PUSH: one token, used for almost an hour)."""

    async def current(self) -> str:
        """The token to use now; minted first when there is none or it is about to expire."""
        ...

    async def refused(self, token: str) -> bool:
        """APNs called `token` expired. Mint a new one unless another process has, or the old one is younger than 20 minutes;
        True when `current` now gives another token."""
        ...


class Clock(Protocol):
    """Time, as an argument."""

    def now(self) -> datetime:
        """An aware instant in UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait that long."""
        ...
