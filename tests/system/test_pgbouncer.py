"""A whole component behind a real PgBouncer in transaction mode: people talk, it is killed, its successor goes on."""

import re
import signal
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.adapters.pgbouncer import bouncing
from tests.system.box import Box
from tests.system.company import Company
from tests.system.standby import READY, SECONDS, holds, promote, standby


@pytest.mark.one_server
async def test_people_talk_through_a_pooler(box: Box, tmp_path: Path) -> None:
    where = urlsplit(box.ready["postgres"])
    assert where.port
    assert where.password
    async with bouncing(postgres=where.port, password=where.password) as port:
        pooled = re.sub(r":\d+/", f":{port}/", box.ready["postgres"])
        change = (r"(\[postgres\]\n)dsn = .*", rf'\g<1>dsn = "{pooled}"\ntransaction_pooler = true')
        async with standby(box, tmp_path, change) as other:
            await promote(box, other)
            await other.until(READY)
            company = Company(box, "pooler")
            await company.gather()

            async def kill() -> None:
                other.process.send_signal(signal.SIGKILL)
                await other.process.wait()
                await holds(box)
                await box.whole(SECONDS)

            await company.talk(kill)
            await company.check()
