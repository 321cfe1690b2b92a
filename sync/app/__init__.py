"""The composition root: the only place that constructs (DESIGN §5).

`drivers` opens what talks to the outside, `settings` turns the configuration into values, `service` joins the parts
and is their life from start to a graceful stop.
"""

import asyncio
import gc
import signal
from contextlib import AsyncExitStack

from sync.adapters.http import Pages
from sync.adapters.metrics import CONTENT_TYPE
from sync.app.drivers import open_drivers
from sync.app.registry import posts
from sync.app.service import Service
from sync.config import Config
from sync.protocol.logout import MAX_BODY_BYTES
from sync.startup import CannotStart


def spare_the_collector() -> None:
    """What is loaded by now stays, and events are trees without cycles: looking through them for garbage every 700
    allocations costs a tenth of the time of a busy feed, and pauses at the wrong moment.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


async def serve(config: Config) -> int:
    """Run until SIGTERM or SIGINT; the exit status. Raises `CannotStart`."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        drivers = await open_drivers(config, stack)
        service = Service(config, drivers)
        spare_the_collector()
        pages = Pages(
            readiness=service.readiness,
            survey=service.survey,
            exposition=drivers.metrics.exposition,
            content_type=CONTENT_TYPE,
            posts=posts(config.component.jid, service.registrations),
            post_bytes=MAX_BODY_BYTES,
        )
        try:
            await pages.start(config.http.listen, config.http.port)
        except OSError as error:
            raise CannotStart(f"[http] port: cannot listen on {config.http.port} ({error.strerror}).") from None
        stack.push_async_callback(pages.close)
        return await service.run(stop)
