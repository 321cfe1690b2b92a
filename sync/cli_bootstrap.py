"""`convsync bootstrap`: has the server's archives read by the running service, and shows how far it is.

Decides wording and exit status. The work is queued in the database; whoever speaks for the component does it. What was
asked for goes to standard output, the live line to standard error.
"""

import asyncio
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sync import cli_sheet, console
from sync.cli_accounts import account_of

if TYPE_CHECKING:
    from sync.adapters.postgres.bootstrap import PostgresBootstraps, Tally
    from sync.config import Config
    from sync.model.bootstrap import Bootstrap

LOOK_SECONDS = 0.5
SHOWN = 20


@click.command()
@click.argument("accounts", nargs=-1)
@console.configured
@click.option("--host", "hosts", multiple=True, help="All accounts, or rooms, of this host. May be repeated.")
@click.option("--all", "everything", is_flag=True, help="Every host of the configuration.")
@click.option("--status", is_flag=True, help="Only show how far it is.")
@click.option("--wait", is_flag=True, help="Show progress until it is done.")
def bootstrap(
    accounts: tuple[str, ...], path: Path, *, hosts: tuple[str, ...], everything: bool, status: bool, wait: bool
) -> None:
    """Read the server's archive of accounts, rooms or hosts from the beginning. The running service does it."""
    config = console.load(path)
    known = (*config.component.hosts, *config.component.muc_hosts)
    names = tuple(account_of(account) for account in accounts)
    chosen = known if everything or (status and not accounts and not hosts) else hosts
    if not names and not chosen:
        console.fail("Say whose archives: accounts, --host HOST or --all.", 2)
    for host in (*chosen, *(name.rpartition("@")[2] for name in names)):
        if host not in known:
            console.fail(f"{cli_sheet.printable(host)} is not served: see component.hosts and component.muc_hosts.", 2)
    if not config.bootstrap.enabled and not status:
        console.fail("Archives are not read here: bootstrap.enabled is false.", 2)
    failed = _run(config, names, chosen, status=status, wait=wait)
    sys.exit(1 if failed else 0)


def _run(config: "Config", names: Sequence[str], hosts: Sequence[str], *, status: bool, wait: bool) -> bool:
    """The whole of it; True when an archive could not be read. What is wrong outside is a sentence and the end."""
    from sync.adapters.postgres.bootstrap import PostgresBootstraps  # noqa: PLC0415
    from sync.app.drivers import open_pool  # noqa: PLC0415
    from sync.model.errors import StoreUnavailable  # noqa: PLC0415
    from sync.startup import CannotStart  # noqa: PLC0415

    async def run() -> bool:
        async with AsyncExitStack() as stack:
            bootstraps = PostgresBootstraps(await open_pool(config, stack))
            if not status:
                await _ask(bootstraps, config, names, hosts)
            tally = await bootstraps.tally(names, hosts)
            while wait and not status and tally.waiting:
                _show(_line(tally))
                await asyncio.sleep(LOOK_SECONDS)
                tally = await bootstraps.tally(names, hosts)
            if wait and sys.stderr.isatty():
                click.echo("\r\x1b[K", err=True, nl=False)
            click.echo(_line(tally))
            for row in _rows(await bootstraps.watch(names, hosts, SHOWN)):
                click.echo(row)
            return tally.failed > 0

    try:
        return asyncio.run(run())
    except CannotStart as reason:
        console.fail(str(reason))
    except StoreUnavailable as error:
        console.fail(f"[postgres] dsn: the database does not answer ({error}).")
    except KeyboardInterrupt:
        sys.exit(130)  # as a shell reports SIGINT


def _show(line: str) -> None:
    """A line that the next one replaces, where there is a terminal."""
    live = sys.stderr.isatty()
    click.echo(f"\r{line}\x1b[K" if live else line, err=True, nl=not live)


async def _ask(bootstraps: "PostgresBootstraps", config: "Config", names: Sequence[str], hosts: Sequence[str]) -> None:
    now = datetime.now(UTC)
    await bootstraps.meet([name for name in names if name.rpartition("@")[2] in config.component.hosts], now)
    asked = await bootstraps.ask([*names, *hosts], now)
    if unknown := sorted(set(names) - set(asked)):
        console.fail(f"{cli_sheet.printable(unknown[0])} is a room that nobody has been met in yet.")


def _line(tally: "Tally") -> str:
    """Where it stands, in a line."""
    return (
        f"archives: {tally.waiting} waiting, {tally.done} done, {tally.failed} failed; "
        f"{tally.restored} messages restored"
    )


def _rows(found: "Sequence[Bootstrap]") -> list[str]:
    """The first archives, those that wait or failed before the others."""
    cells = [
        (row.account, row.state.value, str(row.restored), str(row.seen), row.why or cli_sheet.NOTHING) for row in found
    ]
    return [*cli_sheet.columns(("account", "state", "restored", "read", "why"), cells)] if cells else []
