"""`convsync restored`: said by an operator who has restored the database from a backup.

Decides wording and exit status, and asks first: every client of the hosts loads its conversations anew.
"""

import asyncio
import sys
from pathlib import Path

import click

from sync import console


@click.command()
@console.configured
@click.option(
    "--host", "named", multiple=True, help="Only this host, of users or of rooms; may be given several times."
)
@click.option("--yes", is_flag=True, help="Do not ask. Needed where there is no terminal to ask on.")
def restored(path: Path, named: tuple[str, ...], *, yes: bool) -> None:
    """The database was restored from a backup: make clients start over, and read the archives again."""
    config = console.load(path)
    known = (*config.component.hosts, *config.component.muc_hosts)
    hosts = tuple(dict.fromkeys(host.lower() for host in named)) or known
    if strange := [host for host in hosts if host not in known]:
        console.fail(f"{strange[0]!r} is not a configured host; there are: {', '.join(known)}.", 2)
    if not yes:
        if not sys.stdin.isatty():
            console.fail("There is no terminal to ask on: say --yes.")
        click.confirm(
            f"All clients of {', '.join(hosts)} will load their conversations anew. Go on", abort=True, err=True
        )
    from sync.adapters import checks  # noqa: PLC0415
    from sync.app.restored import restored as start_over  # noqa: PLC0415
    from sync.model.errors import StoreUnavailable  # noqa: PLC0415
    from sync.startup import CannotStart  # noqa: PLC0415

    try:
        raised = asyncio.run(start_over(config, hosts))
    except CannotStart as reason:
        console.fail(str(reason))
    except StoreUnavailable as error:
        console.fail(f"The database cannot be used: {checks.why(console.cause(error))} (postgres.dsn).")
    for host, accounts in raised.items():
        click.echo(
            f"{host}: {accounts} account{'' if accounts == 1 else 's'} start{'s' if accounts == 1 else ''} over."
        )
    click.echo(f"The archives of {', '.join(hosts)} are read again as soon as a service runs.")
