"""The simulator's control port: plain HTTP for tests, beside the port that senders talk to.

docs/simulator.md lists the requests. Whatever is malformed, or cannot be, is answered 400 with a sentence that names
the field; a device that was not described, 404. It decides nothing else.
"""

import json

from aiohttp import web
from aiohttp.typedefs import Handler

from sync.sandbox.apns.bodies import (
    BadBody,
    read_call,
    read_change,
    read_device,
    read_report,
    read_token,
    read_wanted,
)
from sync.sandbox.apns.device import Device, NotSo
from sync.sandbox.apns.faults import read_fault
from sync.sandbox.apns.fleet import told_of
from sync.sandbox.apns.server import Simulator


async def _json(request: web.Request) -> object:
    try:
        return json.loads(await request.read())
    except (ValueError, RecursionError) as wrong:
        raise BadBody("the body must be JSON") from wrong


@web.middleware
async def _sentences(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except (BadBody, NotSo) as wrong:
        return web.json_response({"error": str(wrong)}, status=400)


def application(simulator: Simulator) -> web.Application:
    """The aiohttp application that changes and shows this simulator."""

    async def faults(request: web.Request) -> web.Response:
        simulator.faults.post(read_fault(await _json(request)))
        return web.json_response({"faults_waiting": simulator.faults.waiting})

    async def tokens(request: web.Request) -> web.Response:
        simulator.registry.tell(*read_token(await _json(request)))
        return web.json_response({})

    async def certificates(request: web.Request) -> web.Response:
        pem = simulator.senders.issue(read_wanted(await _json(request)))
        return web.json_response({"pem": pem.decode()})

    async def reset(_: web.Request) -> web.Response:
        simulator.reset()
        return web.json_response({})

    async def log(_: web.Request) -> web.Response:
        return web.json_response(simulator.journal.lines())

    async def stats(_: web.Request) -> web.Response:
        return web.json_response(simulator.stats())

    app = web.Application(middlewares=[_sentences])
    app.add_routes(_device_routes(simulator))
    app.add_routes(
        [
            web.post("/faults", faults),
            web.post("/tokens", tokens),
            web.post("/certificates", certificates),
            web.post("/reset", reset),
            web.get("/log", log),
            web.get("/stats", stats),
        ]
    )
    return app


def _device_routes(simulator: Simulator) -> list[web.RouteDef]:
    fleet, now = simulator.fleet, simulator.now

    def named(request: web.Request) -> Device:
        device = fleet.find(request.match_info["id"])
        if device is None:
            raise web.HTTPNotFound(text='{"error": "no such device"}', content_type="application/json")
        return device

    async def describe(request: web.Request) -> web.Response:
        fleet.describe(read_device(await _json(request)))
        return web.json_response({})

    async def change(request: web.Request) -> web.Response:
        device = named(request)
        fleet.change(device, read_change(await _json(request)), now())
        return web.json_response(told_of(device, now()))

    async def report(request: web.Request) -> web.Response:
        device = named(request)
        device.report(read_report(await _json(request)), now())
        return web.json_response({})

    async def every(_: web.Request) -> web.Response:
        return web.json_response(fleet.described(now()))

    async def one(request: web.Request) -> web.Response:
        return web.json_response(told_of(named(request), now()))

    async def call(request: web.Request) -> web.Response:
        fleet.tell(*read_call(await _json(request)), now())
        return web.json_response({})

    return [
        web.post("/calls", call),
        web.post("/devices", describe),
        web.post("/devices/{id}", change),
        web.post("/devices/{id}/report", report),
        web.get("/devices", every),
        web.get("/devices/{id}", one),
    ]


async def serve(simulator: Simulator, host: str, port: int) -> tuple[web.AppRunner, int]:
    """Listen; returns what to `cleanup()` and the port."""
    runner = web.AppRunner(application(simulator), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    return runner, int(runner.addresses[0][1])
