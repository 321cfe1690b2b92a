"""Four pages for the operator's machines: `/live`, `/ready`, `/survey`, `/metrics` (aiohttp).

Decides status codes: live is 200 while the process turns its loop; ready is 200 only when every required condition
holds, else 503 with the missing ones, and in both cases with notes on what it can do without; metrics are whatever it
is given. Nobody is authenticated, so it binds to loopback unless configured otherwise. Refuses to know what the
conditions are.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from aiohttp import web


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One thing that must hold before this process can serve; `detail` says what is missing, without secrets. What is
    not `required` is told all the same.
    """

    name: str
    ok: bool
    detail: str = ""
    required: bool = True


Readiness = Callable[[], Awaitable[Sequence[Condition]]]
Surveying = Callable[[], Awaitable[str | None]]  # JSON; None while this process has no connection to the server


class Pages:
    """The server. `readiness` is asked at each request for `/ready` and must answer within about a second."""

    def __init__(
        self, *, readiness: Readiness, survey: Surveying, exposition: Callable[[], bytes], content_type: str
    ) -> None:
        self._readiness, self._survey = readiness, survey
        self._exposition, self._content_type = exposition, content_type
        self._surveying = asyncio.Lock()
        application = web.Application(client_max_size=1024)  # nothing is posted here
        application.router.add_get("/live", self._live)
        application.router.add_get("/ready", self._ready)
        application.router.add_get("/survey", self._surveyed)
        application.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port (the one chosen, for 0). Raises OSError where it cannot."""
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        return int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Stop listening; answers under way have a second."""
        await self._runner.cleanup()

    async def _live(self, request: web.Request) -> web.Response:
        return web.json_response({"live": True})

    async def _ready(self, request: web.Request) -> web.Response:
        conditions = await self._readiness()
        missing, notes = (
            {one.name: one.detail for one in conditions if not one.ok and one.required is required}
            for required in (True, False)
        )
        found = {"ready": not missing, "missing": missing, "notes": notes}
        return web.json_response(found, status=503 if missing else 200)

    async def _surveyed(self, request: web.Request) -> web.Response:
        async with self._surveying:  # it asks the server: one at a time
            found = await self._survey()
        return web.json_response(text=found or "{}", status=503 if found is None else 200)

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=self._exposition(), headers={"Content-Type": self._content_type})
