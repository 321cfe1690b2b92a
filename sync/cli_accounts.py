"""`convsync show`, `repair`, `export`, `delete`: what an operator does with one account.

Decides wording and exit status; what is read and written is the dossier's (`sync.adapters.postgres.dossier`). What was
asked for goes to standard output, so that it can be piped. Works beside a running component: every change takes the
account's lock.
"""

import asyncio
import json
import re
import sys
import unicodedata
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from sync import cli_sheet, console

if TYPE_CHECKING:
    from sync.adapters.postgres.dossier import Dossier
    from sync.config import Config
    from sync.model.event import Session
    from sync.rules.repair import Difference

T = TypeVar("T")

MAX_PART_BYTES = 1023  # RFC 7622 §3.1
# RFC 7622 §3.3.1 names what a local part may not have; no part of a JID has a blank or a control character.
_LOCAL = re.compile(r"[^\"&'/:<>@\s\x00-\x1f\x7f]+")
_DOMAIN = re.compile(r"[^\"&'/:<>@\s\x00-\x1f\x7f]+(:[0-9a-f:.]+\])?")


def account_of(text: str) -> str:
    """The account as it is stored: the bare JID in the form in which servers compare (RFC 6122 appendix A). A sentence
    and the end for anything else.
    """
    if "/" in text:
        console.fail(
            f"{cli_sheet.printable(text)} has a resource; an account is a bare JID such as ann@example.org.", 2
        )
    local, _, host = (unicodedata.normalize("NFKC", part.casefold()) for part in text.strip().partition("@"))
    fine = _LOCAL.fullmatch(local) and _DOMAIN.fullmatch(host)
    if not fine or max(len(local.encode()), len(host.encode())) > MAX_PART_BYTES:
        console.fail(f"{cli_sheet.printable(text)!r} is not an account; wanted is a JID such as ann@example.org.", 2)
    return f"{local}@{host}"


@click.command()
@click.argument("account")
@console.configured
@click.option("--json", "machine", is_flag=True, help="For machines: one JSON object.")
@click.option("--all", "everything", is_flag=True, help="All rows of every list, not only the newest.")
def show(account: str, path: Path, *, machine: bool, everything: bool) -> None:
    """Show what is held on an account: never texts, tokens or digests."""
    jid, config = account_of(account), console.load(path)
    sight = with_dossier(config, jid, lambda dossier: dossier.show(jid, everything=everything))
    sessions = asyncio.run(_sessions(config.redis.url.get_secret_value(), jid)) if config.redis else None
    if machine:
        found = {**cli_sheet.as_json(sight), "sessions": cli_sheet.sessions_as_json(sessions)}
        click.echo(json.dumps(found, indent=1, ensure_ascii=False, default=cli_sheet.plain))
    else:
        click.echo("\n".join([*cli_sheet.lines(sight, datetime.now(UTC)), *cli_sheet.sessions_lines(sessions)]))


@click.command()
@click.argument("account")
@console.configured
@click.option("--dry-run", "dry", is_flag=True, help="Say what differs, and change nothing.")
def repair(account: str, path: Path, *, dry: bool) -> None:
    """Count an account's unread messages, calls and devices anew, and mend what differs."""
    jid = account_of(account)
    done = with_dossier(console.load(path), jid, lambda dossier: dossier.repair(jid, datetime.now(UTC), dry=dry))
    if not done.differences:
        click.echo(f"{jid}: nothing differs.")
        return
    for difference in done.differences:
        click.echo(_told(difference))
    count = f"{len(done.differences)} difference{'' if len(done.differences) == 1 else 's'}"
    if dry:
        click.echo(f"{jid}: {count}; nothing was changed.")
    else:
        click.echo(f"{jid}: {count} mended; clients hear of it with their next query (version {done.account.version}).")


@click.command()
@click.argument("account")
@console.configured
def export(account: str, path: Path) -> None:
    """Write everything that is held on an account to standard output, as one JSON document."""
    jid = account_of(account)
    out = sys.stdout.buffer

    async def write(dossier: "Dossier") -> None:
        async with aclosing(dossier.export(jid, datetime.now(UTC))) as pieces:
            async for piece in pieces:
                out.write(piece.encode())
        out.flush()

    with_dossier(console.load(path), jid, write)


@click.command()
@click.argument("account")
@console.configured
@click.option("--yes", is_flag=True, help="Do not ask. Needed where there is no terminal to ask on.")
def delete(account: str, path: Path, *, yes: bool) -> None:
    """Delete everything that is held on an account. The XMPP server's own data stays."""
    jid, config = account_of(account), console.load(path)
    if not yes:
        if not sys.stdin.isatty():
            console.fail("There is no terminal to ask on: say --yes.")
        with_dossier(config, jid, lambda dossier: dossier.exists(jid))
        typed = click.prompt(
            f"This deletes everything that Convsync holds on {jid}. Type the account to go on", err=True
        )
        if account_of(typed) != jid:
            console.fail("That is another account: nothing was deleted.")
    gone = with_dossier(config, jid, lambda dossier: dossier.delete(jid))
    for line in cli_sheet.columns(("table", "rows"), [(table, str(rows)) for table, rows in gone.items()]):
        click.echo(line)
    click.echo(f"{jid} was deleted: {sum(gone.values())} rows.")


async def _sessions(url: str, jid: str) -> "tuple[Session, ...] | None":
    """Who of the account is online, as processes share it; None where it is not known."""
    from sync import logs  # noqa: PLC0415
    from sync.adapters.metrics import Metrics  # noqa: PLC0415
    from sync.adapters.redis import Link, RedisPresence  # noqa: PLC0415

    logs.configure("error", "console")  # a Redis that is away is no fault of this command
    observer = Metrics()
    link = Link(url, observer=observer)
    try:
        return await RedisPresence(link, observer=observer).sessions(jid)
    finally:
        await link.close()


def with_dossier(config: "Config", jid: str, work: "Callable[[Dossier], Awaitable[T]]") -> T:
    """One piece of work on a connection; what is wrong outside is a sentence and the end."""
    from sync.adapters import checks  # noqa: PLC0415
    from sync.adapters.postgres import dossier, migrate  # noqa: PLC0415
    from sync.model.errors import StoreUnavailable, Uncommittable  # noqa: PLC0415

    postgres = config.postgres

    async def run() -> T:
        async with dossier.opened(
            postgres.dsn.get_secret_value(),
            connect_seconds=postgres.connect_timeout_seconds,
            prepared=not postgres.transaction_pooler,
        ) as opened:
            return await work(opened)

    try:
        return asyncio.run(run())
    except dossier.NoSuchAccount as missing:
        console.fail(
            {
                dossier.Absence.UNKNOWN: f"Nothing is held on {jid}.",
                dossier.Absence.ROOM: f"{jid} is a room of this server, not an account.",
                dossier.Absence.ROWLESS: f"{jid} is no account any more, or not yet: see convsync show.",
            }[missing.why]
        )
    except migrate.SchemaError as error:
        console.fail(str(error))
    except StoreUnavailable as error:
        console.fail(f"The database cannot be used: {checks.why(console.cause(error))} (postgres.dsn).")
    except Uncommittable as error:
        console.fail(f"The database refuses the rows: {error.name}.")
    except KeyboardInterrupt:
        sys.exit(130)  # as a shell reports SIGINT


def _told(difference: "Difference") -> str:
    key = difference.conversation
    subject = f"{cli_sheet.printable(key.peer)} ({key.kind})" if key else "account"
    return f"  {subject}: {difference.what} {difference.before} → {difference.after}"
