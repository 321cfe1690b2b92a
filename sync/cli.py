"""The commands. Decides exit status and wording: 0 well, 1 something outside is wrong, 2 the configuration is.

What is asked for goes to standard output, everything else to standard error, and no fault of an operator ends in a
traceback. Commands import what they need when they run: `serve` never loads the sandbox, and `--version` nothing.
"""

import asyncio
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from sync.cli_accounts import delete, export, repair, show
from sync.cli_bootstrap import bootstrap
from sync.cli_explain import explain
from sync.cli_push_test import push_test
from sync.cli_restored import restored
from sync.console import cause, configured, fail, load

if TYPE_CHECKING:
    from sync.adapters.checks import Finding
    from sync.config import Config

ELSEWHERE = {  # command → (module, attribute); they need convsync[sandbox]
    "sandbox": ("sync.sandbox.cli", "sandbox"),
    "demo": ("sync.sandbox.demo", "demo"),
    "apns-simulator": ("sync.sandbox.apns.command", "simulator"),
}


class Commands(click.Group):
    """Our commands, and those of the sandbox, which are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *ELSEWHERE])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in ELSEWHERE:
            return super().get_command(ctx, cmd_name)
        module, attribute = ELSEWHERE[cmd_name]
        try:
            command: click.Command = getattr(import_module(module), attribute)
        except ModuleNotFoundError as missing:
            return _unavailable(cmd_name, missing.name or module)
        return command


@click.group(cls=Commands)
@click.version_option(package_name="convsync", prog_name="convsync")
def cli() -> None:
    """Versioned conversations, pending calls and pushes for XMPP servers."""


@cli.command()
@configured
def serve(path: Path) -> None:
    """Run the component until SIGTERM or Ctrl-C."""
    from sync import logs  # noqa: PLC0415
    from sync.startup import CannotStart  # noqa: PLC0415

    config = load(path)
    _warn(config, path)
    logs.configure(config.log.level, config.log.format)
    from sync import app  # noqa: PLC0415

    try:
        status = asyncio.run(app.serve(config))
    except CannotStart as reason:
        fail(str(reason))
    except KeyboardInterrupt:
        status = 130  # as a shell reports SIGINT
    sys.exit(status)


@cli.command()
@configured
def check(path: Path) -> None:
    """Look at everything that the component needs, and name what is wrong."""
    config = load(path)
    click.echo(f"ok    config: {path} is valid")
    for warning in config.warnings(path):
        click.echo(f"note  config: {warning}")
    faults = asyncio.run(_checked(config))
    click.echo(f"{faults} fault{'' if faults == 1 else 's'} found." if faults else "Everything is in place.", err=True)
    sys.exit(1 if faults else 0)


@cli.command()
@configured
def schema(path: Path) -> None:
    """Install the database's schema, or bring it up to date."""
    from sync.adapters import checks  # noqa: PLC0415
    from sync.adapters.postgres import migrate  # noqa: PLC0415
    from sync.model.errors import StoreUnavailable  # noqa: PLC0415

    config = load(path)
    try:
        click.echo(asyncio.run(migrate.install(config.postgres.dsn.get_secret_value())))
    except StoreUnavailable as error:
        fail(f"The database cannot be used: {checks.why(cause(error))} (postgres.dsn).")
    except checks.DATABASE_ERRORS as error:
        fail(f"The database cannot be used: {checks.why(error)} (postgres.dsn).")
    except migrate.SchemaError as error:
        fail(str(error))


@cli.command("new-key")
def new_key() -> None:
    """Print a new key for [secrets]."""
    from cryptography.fernet import Fernet  # noqa: PLC0415

    click.echo(Fernet.generate_key().decode())


for command in (show, explain, push_test, repair, export, delete, restored, bootstrap):
    cli.add_command(command)


def main() -> None:
    """The entry point."""
    cli()


async def _checked(config: "Config") -> int:
    """Print each finding as soon as it is there; the number of faults."""
    from sync.adapters import checks  # noqa: PLC0415
    from sync.adapters.postgres.migrate import VERSION  # noqa: PLC0415
    from sync.app.apns import signing_key, targets  # noqa: PLC0415

    faults = 0

    def show(findings: "list[Finding]") -> None:
        nonlocal faults
        for finding in findings:
            click.echo(str(finding))
            faults += finding.level is checks.Level.FAULT

    dsn = config.postgres.dsn.get_secret_value()
    show(await checks.postgres(dsn, expected=VERSION))
    show(
        await checks.redis(
            config.redis.url.get_secret_value() if config.redis else None,
            cluster=bool(config.redis and config.redis.cluster_nodes),
        )
    )
    holders = await checks.lease_holders(dsn)
    taken = await _taken(config, holders)
    show(taken)
    if all(finding.level is checks.Level.OK for finding in taken):
        show(await _surveyed(config, bool(holders)))
    if config.apns is None:
        click.echo("note  apns: not configured: nobody is pushed to")
        return faults
    show(await checks.apns(signing_key(config.apns), targets(config.apns)))
    return faults


async def _taken(config: "Config", holders: list[str] | None) -> "list[Finding]":
    """Whether the server takes the component."""
    from sync.adapters import checks  # noqa: PLC0415
    from sync.app.drivers import tls_of  # noqa: PLC0415
    from sync.startup import CannotStart  # noqa: PLC0415

    link = config.component
    try:
        tls = tls_of(config)
    except CannotStart as reason:
        return [checks.fault("component", str(reason), "component.tls_ca")]
    return await checks.component(
        jid=link.jid,
        secret=link.password,
        server=link.server,
        port=link.port,
        holders=holders,
        tls=None if tls is None else (tls.context, tls.name),
    )


async def _surveyed(config: "Config", running: bool) -> "list[Finding]":
    """What the server's side lacks: told by the running service, or seen by a visit."""
    from sync import logs  # noqa: PLC0415
    from sync.adapters import checks  # noqa: PLC0415
    from sync.app import survey  # noqa: PLC0415
    from sync.model.errors import StoreUnavailable  # noqa: PLC0415

    logs.configure("error", "console")  # what is wrong is said by the findings
    try:
        return checks.server(await (survey.running(config) if running else survey.visit(config)))
    except (survey.NoSurvey, StoreUnavailable) as reason:
        return [checks.note("server", f"its side was not looked at: {reason}")]


def _warn(config: "Config", path: Path) -> None:
    for warning in config.warnings(path):
        click.echo(f"warning: {warning}", err=True)


def _unavailable(name: str, missing: str) -> click.Command:
    """Stands in for a command whose packages are not installed."""

    def say(**_: Any) -> NoReturn:
        fail(f"`convsync {name}` needs {missing}, which is not installed: pip install 'convsync[sandbox]'.")

    return click.Command(
        name, callback=say, help="Not installed: it comes with convsync[sandbox].", add_help_option=False
    )
