"""A whole component on a real Redis Cluster: who is online is known there, and who is not is woken."""

from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.cluster import cluster
from tests.system.box import Box, eventually
from tests.system.standby import READY, SECONDS, promote, standby


@pytest.mark.one_server
async def test_presence_is_in_the_cluster(box: Box, tmp_path: Path) -> None:
    host = box.ready["domain"]
    async with cluster(tmp_path / "cluster") as (there, _):
        first, *others = there.urls
        change = (r"(\[redis\]\n)url = .*", rf'\g<1>url = "{first}"\ncluster_nodes = {others}'.replace("'", '"'))
        async with standby(box, tmp_path, change) as other:
            await promote(box, other)
            await other.until(READY)
            ann, bob = await box.friends("phone", "desk")
            phone = await box.phone(ann)

            async def online() -> set[str]:
                found = set()
                for url in there.urls:
                    client = Redis.from_url(url, decode_responses=True)
                    found |= set(await client.keys(f"convsync:1:*:{{{host}}}*"))
                    await client.aclose()
                return {key.rpartition(":")[2] for key in found if ":sessions:" in key}

            async def both() -> bool:
                assert {ann.account, bob.account} <= (found := await online()), found
                return True

            async def gone() -> bool:
                assert ann.account not in (found := await online()), found
                return True

            await eventually(both, SECONDS)
            await ann.close()
            await eventually(gone, SECONDS)
            bob.write(ann.account, "hello")
            await box.pushed(phone.token, seconds=SECONDS)
