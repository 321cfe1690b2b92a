"""The operator's pages over a real socket."""

from collections.abc import AsyncIterator, Sequence

import aiohttp
import pytest
import pytest_asyncio

from sync.adapters.http import Condition, Pages
from sync.adapters.metrics import CONTENT_TYPE, Metrics

READY = (Condition(name="postgres", ok=True), Condition(name="feed localhost", ok=True))


class House:
    """A running server whose readiness the test sets."""

    def __init__(self) -> None:
        self.conditions: Sequence[Condition] = READY
        self.base = ""
        self.surveyed: str | None = None

    async def survey(self) -> str | None:
        return self.surveyed

    async def readiness(self) -> Sequence[Condition]:
        return self.conditions


@pytest_asyncio.fixture(loop_scope="session")
async def house() -> AsyncIterator[House]:
    house = House()
    pages = Pages(
        readiness=house.readiness, survey=house.survey, exposition=Metrics().exposition, content_type=CONTENT_TYPE
    )
    house.base = f"http://127.0.0.1:{await pages.start('127.0.0.1', 0)}"
    yield house
    await pages.close()


async def get(url: str, method: str = "GET") -> tuple[int, str, str]:
    async with aiohttp.ClientSession() as session, session.request(method, url) as response:
        return response.status, response.headers.get("Content-Type", ""), await response.text()


async def test_a_turning_loop_is_alive_though_nothing_is_ready(house: House) -> None:
    house.conditions = (Condition(name="postgres", ok=False, detail="does not answer"),)
    assert (await get(house.base + "/live"))[0] == 200


async def test_ready_when_every_condition_holds(house: House) -> None:
    status, _, text = await get(house.base + "/ready")
    assert (status, text) == (200, '{"ready": true, "missing": {}, "notes": {}}')


async def test_not_ready_names_what_is_missing_and_only_that(house: House) -> None:
    house.conditions = (*READY, Condition(name="lease", ok=False, detail="held by another process"))
    status, _, text = await get(house.base + "/ready")
    missing = '{"lease": "held by another process"}'
    assert (status, text) == (503, f'{{"ready": false, "missing": {missing}, "notes": {{}}}}')


async def test_what_the_service_can_do_without_is_told_and_no_failure(house: House) -> None:
    house.conditions = (*READY, Condition(name="delegation:x", ok=False, detail="urn:x", required=False))
    status, _, text = await get(house.base + "/ready")
    assert (status, text) == (200, '{"ready": true, "missing": {}, "notes": {"delegation:x": "urn:x"}}')


async def test_a_survey_is_json_or_not_available(house: House) -> None:
    assert (await get(house.base + "/survey"))[0] == 503
    house.surveyed = '{"hosts": []}'
    status, kind, text = await get(house.base + "/survey")
    assert (status, kind.partition(";")[0], text) == (200, "application/json", '{"hosts": []}')


async def test_metrics_are_prometheus_text(house: House) -> None:
    status, kind, text = await get(house.base + "/metrics")
    assert (status, kind) == (200, CONTENT_TYPE)
    assert "# TYPE convsync_pushes_total counter" in text


async def test_head_is_answered_too(house: House) -> None:
    assert (await get(house.base + "/ready", "HEAD"))[0] == 200


@pytest.mark.parametrize("path", ["/", "/metrics/", "/live/x", "/%2e%2e/etc/passwd"])
async def test_other_paths_do_not_exist(house: House, path: str) -> None:
    assert (await get(house.base + path))[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_other_methods_are_refused(house: House, method: str) -> None:
    assert (await get(house.base + "/ready", method))[0] == 405


async def test_a_port_in_use_is_an_os_error(house: House) -> None:
    other = Pages(readiness=house.readiness, survey=house.survey, exposition=bytes, content_type=CONTENT_TYPE)
    with pytest.raises(OSError, match="in use"):
        await other.start("127.0.0.1", int(house.base.rpartition(":")[2]))
    await other.close()
