"""Who is online, read from Redis as another process would (docs/architecture.md), is what is so: also right after the
server, the component or Redis have died, been emptied, or been put back from an older copy.
"""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import msgpack
import redis.asyncio

from tests.system.box import Box, eventually
from tests.system.person import Person

HOST = "localhost"


@asynccontextmanager
async def shared(box: Box) -> AsyncIterator[redis.asyncio.Redis]:
    client = redis.asyncio.from_url(box.ready["redis"])
    try:
        yield client
    finally:
        await client.aclose()


async def online(box: Box, account: str) -> dict[str, tuple[str, int | None]] | None:
    """State and µs by resource; None where nobody vouches for it."""
    try:
        async with shared(box) as client, client.pipeline(transaction=True) as pipe:
            pipe.get(f"convsync:1:vouched:{{{HOST}}}")
            pipe.hgetall(f"convsync:1:sessions:{{{account}}}")
            vouched, found = await pipe.execute()
    except redis.exceptions.RedisError:
        return None
    if vouched is None:
        return None
    sessions = {name.decode(): msgpack.unpackb(value) for name, value in found.items()}
    return {name: (state, acked) for name, (_, state, acked) in sessions.items()}


async def until(box: Box, account: str, **states: str) -> dict[str, tuple[str, int | None]]:
    """Until exactly these are known; what is known then."""

    async def look() -> dict[str, tuple[str, int | None]]:
        found = await online(box, account)
        assert found is not None, "nobody vouches"
        assert {name: state for name, (state, _) in found.items()} == states
        return found or {"": ("nobody", None)}

    return await eventually(look, 45)


async def three(box: Box) -> tuple[Person, Person, Person]:
    """One who is there, one who looks away, and one whose connection is lost."""
    desk = await box.person(resource="desk")
    web = await box.person(desk.account, "web")
    web.send("<inactive xmlns='urn:xmpp:csi:0'/>")
    phone = await box.person(desk.account, "phone", sm=True)
    await web.ping()
    await phone.ping()
    began = datetime.now(UTC)
    await phone.cut()
    found = await until(box, desk.account, desk="active", web="inactive", phone="hibernated")
    acked = found["phone"][1]
    assert acked is not None
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=acked)
    assert began - timedelta(seconds=30) < at < datetime.now(UTC) + timedelta(seconds=1)
    return desk, web, phone


async def test_presence_is_right_after_the_component_died(box: Box) -> None:
    desk, web, _ = await three(box)
    before = await online(box, desk.account)
    pid = box.signal("component", signal.SIGKILL)
    await web.close()  # while nobody looks
    await box.wait(lambda ready: ready["pids"]["component"] != pid)
    await box.whole()
    found = await until(box, desk.account, desk="active", phone="hibernated")
    assert before is not None
    assert abs((found["phone"][1] or 0) - (before["phone"][1] or 0)) < 1_000_000


async def test_presence_is_right_after_redis_was_emptied_or_died(box: Box) -> None:
    desk, web, _ = await three(box)
    async with shared(box) as client:
        await client.flushall()
    found = await until(box, desk.account, desk="active", web="inactive", phone="hibernated")
    assert found["phone"][1] is not None
    await box.killed("redis")
    await web.close()
    await until(box, desk.account, desk="active", phone="hibernated")


async def test_an_older_copy_of_redis_is_not_believed_for_long(box: Box) -> None:
    desk, web, _ = await three(box)
    keys = [f"convsync:1:vouched:{{{HOST}}}", f"convsync:1:sessions:{{{desk.account}}}"]
    async with shared(box) as client:
        copies = [(key, await client.dump(key) or b"") for key in keys]
        await web.close()
        await until(box, desk.account, desk="active", phone="hibernated")
        for key, copy in copies:
            await client.restore(key, 15_000, copy, replace=True)
    await until(box, desk.account, desk="active", phone="hibernated")


async def test_presence_is_right_after_the_server_died(box: Box) -> None:
    desk, _, _ = await three(box)
    account = desk.account
    await box.killed("server")

    async def nobody() -> bool:
        assert await online(box, account) == {}
        return True

    await eventually(nobody, 45)
    back = await box.person(account, "desk")
    await until(box, account, desk="active")
    await back.close()
    await eventually(nobody, 45)
