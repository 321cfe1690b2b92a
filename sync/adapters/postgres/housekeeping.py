"""Drops what need not be held any longer, an account or a room at a time.

An account's turn pages through its conversations without a lock to find what is too much, and drops that under the
account's lock in short transactions of one statement each. A room's index is shared by its members: what each of
them has unread in it moves into the member's own base first, under the member's lock; then nobody needs the rows. A
turn that fails costs its owner no more than that turn.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sync.adapters.postgres.pool import ATTEMPTS, RETRYABLE, Pool
from sync.adapters.postgres.rows import Row, columns
from sync.adapters.postgres.statements import sql
from sync.model.call import CallState
from sync.model.errors import StoreUnavailable
from sync.ports import Observer, Retention, Trimmed
from sync.rules.retention import next_turn
from sync.rules.times import MICROSECOND, microseconds

ROWS_AT_ONCE = 20_000  # a statement's: about 0.1 s under the account's lock
ROWS_A_TURN = 100_000  # others wait for theirs
ROOM_ROWS = 5_000  # a room's turn: they may have to be counted for each member
CONVERSATIONS_READ = 200  # a statement's
CONVERSATIONS_TRIMMED = 100
MEMBERS = 100  # locked together
BUSY = timedelta(minutes=1)  # until a room's entries have reached its members
OPEN = [state.value for state in CallState if state.is_open]

Where = tuple[str, str]  # peer, kind


@dataclass(slots=True, kw_only=True)
class Turn:
    """An account's turn: what went so far, and whether something was left for the next one."""

    jid: str
    now: datetime
    retention: Retention
    gone: Counter[str] = field(default_factory=Counter)

    @property
    def is_over(self) -> bool:
        """True when it has dropped enough."""
        return self.gone.total() >= ROWS_A_TURN

    def rank(self, age: timedelta) -> int:
        """The rank of what happened so long ago."""
        return microseconds(self.now - age)


class PostgresHousekeeping:
    """The `Housekeeping` port on Postgres."""

    def __init__(self, pool: Pool, observer: Observer) -> None:
        self._pool, self._observer = pool, observer

    async def trim(self, now: datetime, retention: Retention, limit: int) -> Trimmed:
        """`Housekeeping.trim`."""
        gone: Counter[str] = Counter()
        turns, due = 0, ["account", "room"]
        while due and turns < limit:
            which = due.pop(0)
            jid = await self._claim(which, now, retention.every)
            if jid is None:
                continue
            due.append(which)  # by turns, so that neither waits for all of the other
            turns += 1
            turn = Turn(jid=jid, now=now, retention=retention)
            again = await (self._account(turn) if which == "account" else self._room(turn))
            if again is not None:
                await self._fetch(f"postpone_{which}", jid, again)
            gone += turn.gone
        return Trimmed(turns=turns, rows=dict(gone))

    # ---- transactions ----------------------------------------------------------------------------------------------

    async def _claim(self, which: str, now: datetime, every: timedelta) -> str | None:
        """Whose turn it is. Its next one is settled at once: a turn that fails is not tried over and over."""
        async with self._pool.connection() as connection, connection.transaction():
            jid: str | None = await connection.fetchval(sql(f"{which}_to_trim"), now)
            if jid is not None:
                await connection.execute(sql(f"postpone_{which}"), jid, next_turn(jid, now, every))
        return jid

    async def _fetch(self, name: str, *arguments: object) -> Sequence[Row]:
        """One statement without a lock."""
        async with self._pool.connection() as connection:
            found: Sequence[Row] = await connection.fetch(sql(name), *arguments)
        return found

    async def _held(self, hold: str, held: object, name: str, *arguments: object) -> Sequence[Row]:
        """One statement under the lock of another."""
        for _ in range(ATTEMPTS):
            try:
                async with self._pool.connection() as connection, connection.transaction():
                    await connection.execute(sql(hold), held)
                    found: Sequence[Row] = await connection.fetch(sql(name), *arguments)
                return found
            except RETRYABLE as error:
                self._observer.transaction_retried(type(error).__name__)
        raise StoreUnavailable("retries")

    # ---- an account's turn -----------------------------------------------------------------------------------------

    async def _account(self, turn: Turn) -> datetime | None:
        """Everything of an account; when to go on, None = at its next turn."""
        await self._old(turn)
        after: Where = ("", "")
        while not turn.is_over:
            page = await self._too_much(turn, after)
            await self._by_conversation(turn, "message", ranks(page, "messages"))
            await self._by_conversation(turn, "change", ranks(page, "changes"))
            await self._bury(turn, [place(row) for row in page if row["dead"]])
            if stranded := [place(row) for row in page if row["stranded"]]:
                await self._held("hold_accounts", [turn.jid], "settle", turn.jid, *columns(stranded, 2))
            if len(page) < CONVERSATIONS_READ:
                break
            after = place(page[-1])
        return turn.now + MICROSECOND if turn.is_over else None

    async def _too_much(self, turn: Turn, after: Where) -> Sequence[Row]:
        keep = turn.retention
        return await self._fetch(
            "too_much",
            turn.jid,
            *after,
            CONVERSATIONS_READ,
            turn.rank(keep.message_age),
            *offsets(keep),
            turn.rank(keep.change_age),
            turn.rank(keep.horizon),
            keep.changes,
        )

    async def _by_conversation(self, turn: Turn, table: str, due: Sequence[tuple[str, str, int]]) -> None:
        """Drop rows up to the ranks. What a conversation has beyond its share of a statement comes with the next."""
        left = list(due)
        while left and not turn.is_over:
            batch, left = left[:CONVERSATIONS_TRIMMED], left[CONVERSATIONS_TRIMMED:]
            share = ROWS_AT_ONCE // len(batch)
            found = await self._held("hold_accounts", [turn.jid], f"trim_{table}s", turn.jid, *columns(batch, 3), share)
            turn.gone[table] += sum(row["rows"] for row in found)
            full = {place(row) for row in found if row["rows"] == share}
            left = [one for one in batch if one[:2] in full] + left

    async def _bury(self, turn: Turn, dead: Sequence[Where]) -> None:
        left = list(dead)
        horizon = turn.rank(turn.retention.horizon)
        while left and not turn.is_over:
            batch, left = left[:CONVERSATIONS_TRIMMED], left[CONVERSATIONS_TRIMMED:]
            share = ROWS_AT_ONCE // len(batch)
            (found,) = await self._held(
                "hold_accounts", [turn.jid], "bury", turn.jid, *columns(batch, 2), horizon, share
            )
            turn.gone.update({table: found[table] for table in ("message", "change", "conversation")})
            left = list(dict.fromkeys(zip(found["peers"], found["kinds"], strict=True))) + left

    async def _old(self, turn: Turn) -> None:
        """Calls and pushes."""
        horizon = turn.now - turn.retention.horizon
        calls, jobs = (OPEN, microseconds(horizon)), (horizon,)
        (found,) = await self._fetch("anything_old", turn.jid, *calls, *jobs)
        if not found[0]:
            return
        for table, old in (("call", calls), ("push_job", jobs)):
            name = "trim_calls" if table == "call" else "trim_jobs"
            while not turn.is_over:
                (went,) = await self._held("hold_accounts", [turn.jid], name, turn.jid, *old, ROWS_AT_ONCE)
                turn.gone[table] += went[0]
                if went[0] < ROWS_AT_ONCE:
                    break

    # ---- a room's turn ---------------------------------------------------------------------------------------------

    async def _room(self, turn: Turn) -> datetime | None:
        """The index of a room; when to go on, None = at its next turn."""
        keep = turn.retention
        found = await self._fetch("too_much_of_room", turn.jid, turn.rank(keep.message_age), *offsets(keep), ROOM_ROWS)
        if not found or found[0]["rank"] is None:
            return None
        rank, last = found[0]["rank"], found[0]["last"]
        if not await self._moved(turn, min(rank, last - 1)):
            return turn.now + BUSY
        (went,) = await self._held("hold_room", turn.jid, "trim_room", turn.jid, rank, last)
        turn.gone["message"] += went[0]
        return turn.now + MICROSECOND if went[0] >= ROOM_ROWS else None

    async def _moved(self, turn: Turn, rank: int) -> bool:
        """No member's count needs the messages up to a rank any more. False when one cannot do without yet.

        Nobody comes to need them later: read pointers and bases go forward, and who joins does so behind `rank`.
        """
        after = ""
        while behind := await self._fetch("members_behind", turn.jid, after, rank, MEMBERS):
            names = [row["account"] for row in behind]
            (moved,) = await self._held("hold_accounts", names, "move_into_base", turn.jid, rank, names)
            if moved["anything"]:
                return False
            after = names[-1]
        return True


def place(row: Row) -> Where:
    """Which conversation of the account a row is about."""
    return row["peer"], row["kind"]


def ranks(page: Sequence[Row], column: str) -> list[tuple[str, str, int]]:
    """The conversations that have something to drop, with the rank up to which it goes."""
    return [(*place(row), row[column]) for row in page if row[column] is not None]


def offsets(keep: Retention) -> tuple[int, int]:
    """How many of the newest messages stay whatever their age, and how many at most. The newest one always stays."""
    most = max(keep.messages, 1)
    return max(min(keep.messages_at_least, most), 1), most
