"""The command: starts the sandbox, has the story told, then stays for the visitor's own client or ends.

Decides the exit status: 0 when every step of the story was as told, 1 when one was not or the sandbox did not start
or nobody reads what is told, 130 when it was interrupted before the end. Refuses to know what the story is.
"""

import asyncio
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from sync.sandbox.demo.screen import Screen

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@click.command()
@click.option("--stay/--no-stay", default=None, help="Keep running after the story. Default: on a terminal only.")
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), help="Keep the data here. Default: thrown away."
)
def demo(*, stay: bool | None, data: Path | None) -> None:
    """Show on a real stack how a phone is woken, learns what changed, and rings."""
    stays = sys.stdout.isatty() if stay is None else stay
    sys.exit(asyncio.run(run(stay=stays, data=data.absolute() if data else None)))


async def run(*, stay: bool, data: Path | None) -> int:
    """Play until the end or a signal; the exit status. Further signals do not disturb the stop."""
    from sync.sandbox.demo.screen import Screen  # noqa: PLC0415 - `--help` does without the embedded stack
    from sync.sandbox.stack import FAILURES  # noqa: PLC0415

    screen, stop, loop = Screen(), asyncio.Event(), asyncio.get_running_loop()
    for name in SIGNALS:
        loop.add_signal_handler(name, stop.set)
    told = asyncio.Event()
    playing, stopping = asyncio.create_task(play(screen, told, stay=stay, data=data)), asyncio.create_task(stop.wait())
    await asyncio.wait((playing, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if stop.is_set():
        screen.say("\nStopping.")
        playing.cancel()
    try:
        return 0 if await playing else 1
    except asyncio.CancelledError:
        return 0 if told.is_set() else 130  # as a shell reports an interruption
    except FAILURES as error:
        screen.failed("the sandbox starts", str(error))
        return 1
    except BrokenPipeError:
        return 1  # nobody reads on
    finally:
        for name in SIGNALS:
            loop.remove_signal_handler(name)


async def play(screen: "Screen", told: asyncio.Event, *, stay: bool, data: Path | None) -> bool:
    """Start, tell, stay; True when the story held. `told` is set when it did and only the visitor is waited for."""
    from sync.sandbox.demo.pushes import Pushes  # noqa: PLC0415
    from sync.sandbox.demo.scenes import scenes  # noqa: PLC0415
    from sync.sandbox.demo.stage import cast  # noqa: PLC0415
    from sync.sandbox.demo.story import tell  # noqa: PLC0415
    from sync.sandbox.stack import Options, sandbox  # noqa: PLC0415

    with ExitStack() as starting:
        starting.enter_context(screen.starting())
        async with sandbox(Options(data=data, report=screen.part)) as ready:
            starting.close()
            async with cast(ready, screen) as stage:
                held = await tell(scenes(stage), screen)
            if not held:
                screen.logs(data)
                return False
            screen.table(stage.measured)
            if stay:
                told.set()
                screen.how_to_connect(ready)
                async for push in Pushes(Path(ready["apns"]["log"])).follow():
                    screen.push(push)
    return True
