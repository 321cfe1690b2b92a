"""Four pages for the operator's machines: `/live`, `/ready`, `/survey`, `/metrics` (aiohttp); and posts for phones that
have no login any more.

Decides status codes: live is 200 while the process turns its loop; ready is 200 only when every required condition
holds, else 503 with the missing ones, and in both cases with notes on what it can do without; metrics are whatever it
is given. A post is 200, 400 with what is wrong with it, 413, 503 when too many are under way or the database is away,
and 403 whatever else kept it from taking effect. Nobody is authenticated, so it binds to loopback unless configured
otherwise. Refuses to know what the conditions are, and what a post means.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from aiohttp import web

from sync.model.errors import BadRequest, StoreUnavailable

BODY_SECONDS = 5.0
MAX_POSTS = 8  # under way at a time: each is two short reads and a transaction


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


@dataclass(frozen=True, slots=True)
class Post:
    """What takes the bodies that are posted to a path; False = it had no effect. `take` raises BadRequest and
    StoreUnavailable.
    """

    path: str
    take: Callable[[bytes], Awaitable[bool]]


class Pages:
    """The server. `readiness` is asked at each request for `/ready` and must answer within about a second."""

    def __init__(
        self,
        *,
        readiness: Readiness,
        survey: Surveying,
        exposition: Callable[[], bytes],
        content_type: str,
        posts: Sequence[Post] = (),
        post_bytes: int = 1024,
    ) -> None:
        self._readiness, self._survey = readiness, survey
        self._exposition, self._content_type = exposition, content_type
        self._surveying = asyncio.Lock()
        self._under_way = 0  # posts
        application = web.Application(client_max_size=post_bytes)
        application.router.add_get("/live", self._live)
        application.router.add_get("/ready", self._ready)
        application.router.add_get("/survey", self._surveyed)
        application.router.add_get("/metrics", self._metrics)
        for post in posts:
            application.router.add_post(post.path, partial(self._posted, post))
        # Three fields need no compression, and what only claims to be compressed would be an error of ours in the log.
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1, auto_decompress=False)

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

    async def _posted(self, post: Post, request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return failure(413, "too-large", "The body is too large.")
        except TimeoutError:
            return failure(408, "timeout", "The body does not come.")
        if self._under_way >= MAX_POSTS:
            return failure(503, "resource-constraint", "Too many requests are under way. Ask again in a moment.")
        self._under_way += 1
        try:
            done = await post.take(body)
        except BadRequest as refusal:
            return failure(400, refusal.condition, refusal.text or "")
        except StoreUnavailable:
            return failure(503, "internal-server-error", "The request cannot be answered at the moment.")
        finally:
            self._under_way -= 1
        return web.json_response({"result": "success"}) if done else failure(403, "forbidden", "Nothing fits that.")


def failure(status: int, error: str, text: str) -> web.Response:
    """An answer to a post that had no effect; `error` is an XMPP condition where there is one."""
    headers = {"Retry-After": "1"} if status == 503 else None
    return web.json_response({"result": "failure", "error": error, "text": text}, status=status, headers=headers)
