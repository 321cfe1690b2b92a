"""The simulator's control port: plain HTTP for tests, beside the port that senders talk to.

`POST /faults`, `POST /tokens`, `POST /reset`, `GET /log`, `GET /stats`. Whatever is malformed is answered 400 with a
sentence that names the field. It decides nothing else.
"""

import json
import time

from aiohttp import web
from aiohttp.typedefs import Handler

from sync.sandbox.apns.faults import BadFault, read_fault
from sync.sandbox.apns.registry import TokenRecord, TokenState
from sync.sandbox.apns.server import Simulator


class BadBody(ValueError):
    """A body that cannot be understood: the sentence names the field."""


async def _json(request: web.Request) -> object:
    try:
        return json.loads(await request.read())
    except (ValueError, RecursionError) as wrong:
        raise BadBody("the body must be JSON") from wrong


def read_token(body: object) -> tuple[str, TokenRecord]:
    """A token and what is told of it, `{"token": hex, "state": …, "timestamp": ms}`. Raises BadBody."""
    if not isinstance(body, dict):
        raise BadBody("the body must be a JSON object")
    token, state, since = body.get("token"), body.get("state"), body.get("timestamp", int(time.time() * 1000))
    if not isinstance(token, str) or not token:
        raise BadBody("token: must be text")
    if state not in list(TokenState):
        raise BadBody(f"state: must be one of {', '.join(TokenState)}")
    if isinstance(since, bool) or not isinstance(since, int):
        raise BadBody("timestamp: must be a whole number of milliseconds since 1970")
    return token, TokenRecord(state=TokenState(state), since_ms=since)


@web.middleware
async def _sentences(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except (BadFault, BadBody) as wrong:
        return web.json_response({"error": str(wrong)}, status=400)


def application(simulator: Simulator) -> web.Application:
    """The aiohttp application that changes and shows this simulator."""

    async def faults(request: web.Request) -> web.Response:
        simulator.faults.post(read_fault(await _json(request)))
        return web.json_response({"faults_waiting": simulator.faults.waiting})

    async def tokens(request: web.Request) -> web.Response:
        simulator.registry.tell(*read_token(await _json(request)))
        return web.json_response({})

    async def reset(_: web.Request) -> web.Response:
        simulator.reset()
        return web.json_response({})

    async def log(_: web.Request) -> web.Response:
        return web.json_response(simulator.journal.lines())

    async def stats(_: web.Request) -> web.Response:
        return web.json_response(simulator.stats())

    app = web.Application(middlewares=[_sentences])
    app.add_routes(
        [
            web.post("/faults", faults),
            web.post("/tokens", tokens),
            web.post("/reset", reset),
            web.get("/log", log),
            web.get("/stats", stats),
        ]
    )
    return app


async def serve(simulator: Simulator, host: str, port: int) -> tuple[web.AppRunner, int]:
    """Listen; returns what to `cleanup()` and the port."""
    runner = web.AppRunner(application(simulator), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    return runner, int(runner.addresses[0][1])
