"""The APNs provider token of one key, shared by every process through one row.

It decides when a new token is minted: never by two processes at once (advisory lock), never within 20 minutes of the
last one, and normally after 50 minutes. How a token is signed and sealed it leaves to what it is given. While the row
cannot be read, the token in memory is used as long as APNs would take it: calls must ring while Postgres restarts.
"""

import asyncio
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import asyncpg

from sync.adapters.postgres.pool import UNAVAILABLE
from sync.model.errors import SealBroken
from sync.ports import Clock

logger = logging.getLogger(__name__)

# Apple: a token is refused after an hour, and is to be refreshed "no more than once every 20 minutes".
_RENEW_AFTER = timedelta(minutes=50)
_USABLE_FOR = timedelta(minutes=59)
_MINTED_ALIKE = timedelta(minutes=20)
# A row from further in the future was written by a clock that was wrong: it counts as old, or it would stay for ever.
_AHEAD = timedelta(minutes=1)
_TIMEOUT_SECONDS = 5.0

# Only one process at a time may look at this key's row and mint; the lock ends with the transaction.
LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('provider-token ' || $1 || '/' || $2, 0))"
# The token that all processes share.
READ = "SELECT sealed, minted_at FROM provider_token WHERE team_id = $1 AND key_id = $2"
# A newly minted token takes the place of the old one.
WRITE = """
    INSERT INTO provider_token (team_id, key_id, sealed, minted_at) VALUES ($1, $2, $3, $4)
    ON CONFLICT (team_id, key_id) DO UPDATE SET sealed = excluded.sealed, minted_at = excluded.minted_at
"""


class SigningKey(Protocol):
    """What mints: the key of one team."""

    @property
    def team_id(self) -> str: ...

    @property
    def key_id(self) -> str: ...

    def mint(self, now: datetime) -> str:
        """A token issued at that instant."""
        ...


class Seal(Protocol):
    """What keeps the token secret in the row."""

    def seal(self, text: str) -> bytes:
        """`text`, encrypted."""
        ...

    def open(self, sealed: bytes) -> str:
        """What was sealed. Raises SealBroken."""
        ...


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    minted_at: datetime

    def younger_than(self, limit: timedelta, now: datetime) -> bool:
        return -_AHEAD <= now - self.minted_at < limit


class PostgresProviderTokens:
    """See ProviderTokens. `pool` is an asyncpg pool; it is not closed here."""

    def __init__(self, pool: asyncpg.Pool, *, key: SigningKey, seal: Seal, clock: Clock) -> None:
        self._pool, self._key, self._seal, self._clock = pool, key, seal, clock
        self._token: _Token | None = None
        self._held_until: datetime | None = None
        self._turn = asyncio.Lock()

    @property
    def minted_at(self) -> datetime | None:
        """See ProviderTokens."""
        return self._token.minted_at if self._token is not None else None

    async def current(self) -> str:
        """See ProviderTokens. Raises what asyncpg raises when there is neither a row to read nor a usable token."""
        token, limit = self._token, self._limit()
        if token is not None and token.younger_than(limit, self._clock.now()):
            return token.text
        async with self._turn:
            token = self._token
            if token is not None and token.younger_than(limit, self._clock.now()):
                return token.text  # someone else in this process was first
            try:
                self._token = await self._shared(limit)
            except UNAVAILABLE as wrong:
                if token is None or not token.younger_than(_USABLE_FOR, self._clock.now()):
                    raise
                logger.warning("provider token not renewed, the old one goes on: %s", type(wrong).__name__)
                return token.text
            return self._token.text

    async def refused(self, token: str) -> bool:
        """See ProviderTokens."""
        async with self._turn:
            if self._token is not None and self._token.text != token:
                return True
            self._token = await self._shared(_MINTED_ALIKE, refused=token)
            return self._token.text != token

    def hold(self) -> None:
        """See ProviderTokens. The team's tokens are counted over all of its keys, so the other one may be anybody's."""
        if self._held_until is None or self._held_until <= self._clock.now():
            logger.error("apns: the team's provider tokens change too often; is another sender at work?")
        self._held_until = self._clock.now() + _MINTED_ALIKE

    def _limit(self) -> timedelta:
        held = self._held_until is not None and self._clock.now() < self._held_until
        return _USABLE_FOR if held else _RENEW_AFTER

    async def _shared(self, limit: timedelta, refused: str | None = None) -> _Token:
        """The row's token if it is younger than `limit`, else a new one in its place.

        A token other than the refused one is kept for its normal time: another process has minted it.
        """
        names = (self._key.team_id, self._key.key_id)
        async with self._pool.acquire(timeout=_TIMEOUT_SECONDS) as connection, connection.transaction():
            await connection.execute(LOCK, *names, timeout=_TIMEOUT_SECONDS)
            row = await connection.fetchrow(READ, *names, timeout=_TIMEOUT_SECONDS)
            now = self._clock.now()
            if row is not None:
                found = self._opened(row["sealed"], row["minted_at"])
                if found is not None:
                    kept_for = limit if refused in {None, found.text} else _RENEW_AFTER
                    if found.younger_than(kept_for, now):
                        return found
            minted = _Token(self._key.mint(now), now)
            sealed = self._seal.seal(minted.text)
            await connection.execute(WRITE, *names, sealed, now, timeout=_TIMEOUT_SECONDS)
            return minted

    def _opened(self, sealed: bytes, minted_at: datetime) -> _Token | None:
        try:
            return _Token(self._seal.open(sealed), minted_at)
        except SealBroken:
            logger.warning("the stored provider token cannot be opened, a new one is minted")
            return None
