"""A Postgres that repeats what was done to the world's store, and shows its rows as the store in memory keeps them."""

from dataclasses import dataclass
from typing import Any

from sync.adapters.postgres import rows
from sync.adapters.postgres.housekeeping import PostgresHousekeeping
from sync.adapters.postgres.pool import Connection
from sync.model.books import LanePosition, Quarantined
from sync.model.event import FeedPosition
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.fakes_tables import Tables
from tests.contract.houses import READ
from tests.contract.stores import Bench
from tests.lives.world import REFUSALS, Act, Fanned, Tidy, Transact

FAR = "UPDATE {} SET trim_at = 'infinity' WHERE trim_at < 'infinity'"
DUE = "UPDATE {} SET trim_at = $2 WHERE jid = ANY ($1::text[])"


def aside(row: Any) -> Quarantined:
    where = FeedPosition(row["host"], row["stream"], row["shard"], row["n"])
    return Quarantined(position=where, account=row["account"], why=row["why"], event=row["event"])


def lane_of(row: Any) -> tuple[LanePosition, int]:
    return LanePosition(row["host"], row["stream"], row["shard"], row["lane"]), row["n"]


MORE = {
    "devices": ("device", rows.device, lambda d: (d.account, d.device_id)),
    "quarantine": ("quarantine", aside, lambda q: (q.position.host, q.position.stream, q.position.shard, q.position.n)),
}


@dataclass
class Mirror:
    """The store on Postgres, with its housekeeping."""

    bench: Bench

    async def repeat(self, act: Act) -> None:
        """What was refused in memory is refused here."""
        match act:
            case Transact():
                self.bench.clock.instant = act.at
                refused = None
                try:
                    await self.bench.store.transact(act.keys, act.rule)
                except REFUSALS as refusal:
                    refused = type(refusal)
                assert refused is act.refused
            case Fanned():
                await self.bench.rooms.fanned(act.room, act.rank)
            case Tidy():
                await self._tidy(act)

    async def _tidy(self, act: Tidy) -> None:
        assert self.bench.pool
        async with self.bench.pool.connection() as connection:
            for table in ("account", "room"):
                await connection.execute(FAR.format(table))
                await connection.execute(DUE.format(table), list(act.jids), act.at)
        keeping = PostgresHousekeeping(self.bench.pool, RecordingObserver())
        trimmed = await keeping.trim(act.at, act.keep, len(act.jids))
        assert {table: count for table, count in trimmed.rows.items() if count} == act.rows

    async def tables(self) -> Tables:
        """All rows."""
        assert self.bench.pool
        async with self.bench.pool.connection() as connection:
            return await tables_of(connection)


async def tables_of(connection: Connection) -> Tables:
    found = Tables()
    for name, (table, of, key) in (READ | MORE).items():
        values = map(of, await connection.fetch(f"SELECT * FROM {table}"))  # noqa: S608 - names of ours
        setattr(found, name, {key(value): value for value in values})
    positions = await connection.fetch("SELECT * FROM feed_position WHERE n > 0")  # a lane that waits is at zero
    found.positions = dict(map(lane_of, positions))
    for row in await connection.fetch("SELECT * FROM device_token"):
        found.tokens[row["app"], row["environment"], row["digest"]] = row["account"], row["device_id"]
    return found
