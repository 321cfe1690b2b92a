"""`convsync sandbox`: the whole stack on this machine, until Ctrl-C."""

import asyncio
import sys
from pathlib import Path

import click


@click.command()
@click.option(
    "--server",
    type=click.Choice(["prosody", "ejabberd"]),
    default="prosody",
    show_default=True,
    help="It must be installed. Data that were kept belong to the server that made them.",
)
@click.option("--accounts", type=click.IntRange(2, 10_000), default=4, show_default=True, help="alice, bob, carol, …")
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), help="Keep the data here. Default: thrown away."
)
@click.option("--ready-file", type=click.Path(path_type=Path, dir_okay=False), help="Written when everything answers.")
def sandbox(*, server: str, accounts: int, data: Path | None, ready_file: Path | None) -> None:
    """Start Postgres, Valkey, an XMPP server, an APNs simulator and Convsync on free loopback ports."""
    # Here, so that the other commands do without the embedded stack.
    from sync.sandbox.stack import Options, run  # noqa: PLC0415

    click.echo("Starting the sandbox:")
    options = Options(
        server=server,
        accounts=accounts,
        data=data.absolute() if data else None,
        ready_file=ready_file.absolute() if ready_file else None,
        report=click.echo,
    )
    sys.exit(asyncio.run(run(options)))
