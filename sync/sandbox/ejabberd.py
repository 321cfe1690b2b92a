"""A scratch ejabberd: its configuration, its accounts, its compiled feed module, and the process as a part of the
sandbox.

Everything it reads or writes is inside the folder it is given, every port is on loopback, no other server is reached.
It is a single Erlang node without distribution, so there is no epmd and no port for other nodes. Passwords travel in
clear text, so it is fit for trying and testing and for nothing else; `deploy/ejabberd` has a configuration for a real
server. Archive and accounts are in SQLite, which is written here before the server starts, from ejabberd's own schema:
its other archive (Mnesia) does not finish a burst of messages. Refuses to know who supervises the process.
"""

import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sync.sandbox.launch import LaunchError, environment
from sync.sandbox.parts import Part
from sync.sandbox.probes import accepts, offers_login
from sync.sandbox.prosody import DELEGATED

PACKAGES = "ejabberd erlang-p1-sqlite3"
CONFIGURATION, DATABASE = "ejabberd.yml", "ejabberd.db"
# Not "ebin": below a folder called "ejabberd" Erlang would take it for ejabberd's own, and miss its translations.
BEAMS = "modules"
COMPILE_SECONDS = 240.0  # it takes seconds, and minutes on a machine with much else to do
# Idle schedulers sleep at once: they would spin for a while, on cores that the other parts need.
PATIENT = ("+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none")
# Libraries of Debian's packages and of a source installation; those of Erlang itself are below its own root.
_PLACES = ("/usr/lib/*-linux-gnu", "/usr/local/lib", "/usr/lib64", "/usr/lib")


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """`libraries` is where `erl` looks for applications besides its own; `schema` is ejabberd's for SQLite."""

    erl: Path
    erlc: Path
    libraries: Path
    schema: Path
    includes: tuple[Path, ...]


def find_ejabberd() -> Installation:
    """The server as it is installed. LaunchError says what is missing."""
    path = f"{os.environ.get('PATH', '')}:/usr/bin:/usr/local/bin"
    erl, erlc = shutil.which("erl", path=path), shutil.which("erlc", path=path)
    servers = [found for place in _PLACES for found in _applications(Path("/"), place[1:], "ejabberd")]
    if not (erl and erlc and servers):
        raise LaunchError(f"ejabberd is not installed: run `apt-get install {PACKAGES}`.")
    server = servers[-1]
    own = Path(erl).resolve().parents[1] / "lib"
    places = server.parent, own
    xmpp = [found for place in places for found in _applications(place, ".", "p1_xmpp", "xmpp")]
    if not xmpp or not any(_applications(place, ".", "p1_sqlite3", "sqlite3") for place in places):
        raise LaunchError(f"ejabberd's drivers for SQLite are not installed: run `apt-get install {PACKAGES}`.")
    return Installation(
        erl=Path(erl),
        erlc=Path(erlc),
        libraries=server.parent,
        schema=server / "priv" / "sql" / "lite.sql",
        includes=(server / "include", xmpp[-1] / "include"),
    )


def _applications(root: Path, place: str, *names: str) -> list[Path]:
    """Folders of an Erlang application, the newest version last as far as names tell."""
    return [ebin.parent for name in names for ebin in sorted(root.glob(f"{place}/{name}-[0-9]*/ebin"))]


def compile_module(source: Path, target: Path, installation: Installation) -> None:
    """Compile the feed module, `source`/src/*.erl, into `target`, which holds nothing else then. Takes seconds."""
    files = sorted((source / "src").glob("*.erl"))
    if not files:
        raise LaunchError(f"There is no ejabberd module in {source}.")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    includes = [word for folder in (source / "include", *installation.includes) for word in ("-I", str(folder))]
    done = subprocess.run(  # noqa: S603 - the installed compiler, our own module
        [str(installation.erlc), *includes, "-o", str(target), *map(str, files)],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=COMPILE_SECONDS,
        env=environment(_surroundings(target, installation)),
        check=False,
    )
    if done.returncode != 0:
        raise LaunchError(f"ejabberd's module does not compile:\n{(done.stdout + done.stderr).strip()[-1500:]}")


def ejabberd(
    folder: Path,
    *,
    domain: str,
    accounts: Sequence[tuple[str, str]],
    c2s_port: int,
    component_port: int,
    component_secret: str,
    module_path: Path,
    options: Mapping[str, object] | None = None,
) -> Part:
    """Writes the configuration, the missing accounts and the compiled module below `folder`, and returns the process.

    `accounts` are (user name, password); an account that exists keeps its password. `module_path` is the folder that
    holds `mod_convsync_feed`; `options` are more options of that module. Takes seconds; blocks.
    """
    installation = find_ejabberd()
    for directory in (folder, folder / "mnesia", folder / "logs"):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    compile_module(module_path / "mod_convsync_feed", folder / BEAMS, installation)
    _database(folder / DATABASE, installation.schema, accounts)
    file = folder / CONFIGURATION
    file.touch(mode=0o600)  # it has the component's secret
    settings = _settings(domain=domain, component=f"sync.{domain}", options=options or {})
    listeners = _listeners(domain, c2s_port=c2s_port, component_port=component_port, secret=component_secret)
    # JSON is YAML; the keys' order is kept.
    file.write_text(json.dumps({"listen": listeners, **settings}, indent=1), encoding="utf-8")

    async def answers() -> bool:
        return await offers_login(c2s_port, domain) and await accepts(component_port)

    return Part(
        name="server",
        # The process that is started is the server: `erl` replaces itself, and without -detached nothing forks.
        argv=(
            *(str(installation.erl), *PATIENT, "-noinput", "-pa", str(folder / BEAMS)),
            *("-mnesia", "dir", _erlang(str(folder / "mnesia")), "-s", "ejabberd"),
        ),
        cwd=folder,
        answers=answers,
        env={
            **_surroundings(folder, installation),
            "EJABBERD_CONFIG_PATH": str(file),
            "EJABBERD_LOG_PATH": str(folder / "logs" / "ejabberd.log"),
        },
    )


def _surroundings(home: Path, installation: Installation) -> dict[str, str]:
    """What every Erlang program of ours runs in: flags of the user's own could give it a name and a port."""
    return {
        **dict.fromkeys(("ERL_AFLAGS", "ERL_FLAGS", "ERL_ZFLAGS"), ""),
        "ERL_COMPILER_OPTIONS": "[]",
        "ERL_LIBS": str(installation.libraries),
        "ERL_CRASH_DUMP_BYTES": "0",
        "HOME": str(home),
    }


def _database(file: Path, schema: Path, accounts: Sequence[tuple[str, str]]) -> None:
    new = not file.exists()
    file.touch(mode=0o600)
    with closing(sqlite3.connect(file)) as database:
        if new:
            # Kept in the file. A message then costs one flush in place of several.
            database.execute("PRAGMA journal_mode = WAL")
            database.executescript(schema.read_text(encoding="utf-8"))
        with database:
            database.executemany("INSERT OR IGNORE INTO users (username, password) VALUES (?, ?)", accounts)


def _listeners(domain: str, *, c2s_port: int, component_port: int, secret: str) -> list[dict[str, Any]]:
    loopback = {"ip": "127.0.0.1"}
    return [
        {"port": c2s_port, **loopback, "module": "ejabberd_c2s", "max_stanza_size": 262_144},
        {
            **{"port": component_port, **loopback, "module": "ejabberd_service", "access": "all"},
            # It speaks for users by privilege, and its names are its own.
            **{"check_from": False, "global_routes": False},
            "hosts": {f"sync.{domain}": {"password": secret}},
        },
    ]


def _settings(*, domain: str, component: str, options: Mapping[str, object]) -> dict[str, Any]:
    return {
        "hosts": [domain],
        "language": "en",
        "loglevel": "info",
        "log_rotate_count": 0,
        "auth_method": ["sql"],
        "auth_password_format": "plain",
        "disable_sasl_mechanisms": ["DIGEST-MD5", "X-OAUTH2"],
        "sql_type": "sqlite",
        # Relative to where it runs: its driver garbles a path with letters beyond ASCII.
        "sql_database": DATABASE,
        "acl": {"convsync": {"server": [component]}, "local": {"user_regexp": ""}},
        "access_rules": {"convsync": {"allow": "convsync"}, "local": {"allow": "local"}},
        "modules": _modules(domain, component, options),
    }


def _modules(domain: str, component: str, options: Mapping[str, object]) -> dict[str, Any]:
    plain = ("adhoc", "blocking", "caps", "carboncopy", "client_state", "disco", "offline", "ping", "privacy", "vcard")
    kept = {
        "persist_items": True,
        "max_items": "max",
        "access_model": "whitelist",
        "send_last_published_item": "never",
    }
    return {
        **{f"mod_{name}": {} for name in plain},
        "mod_roster": {"versioning": True},
        "mod_stream_mgmt": {"resend_on_timeout": "if_offline"},
        "mod_mam": {"db_type": "sql", "default": "always", "assume_mam_usage": True},
        "mod_muc": {"hosts": [f"conference.{domain}"], "db_type": "sql", "default_room_options": {"mam": True}},
        "mod_pubsub": {
            "plugins": ["flat", "pep"],
            "force_node_config": {"urn:xmpp:bookmarks:1": kept, "urn:xmpp:mds:displayed:0": kept},
        },
        # mod_push stays away: with it, the users' push settings would be nobody's while the component is away.
        "mod_delegation": {"namespaces": {namespace: {"access": "convsync"} for namespace in DELEGATED}},
        "mod_privilege": {
            "roster": {"both": "convsync"},
            "message": {"outgoing": "convsync"},
            "presence": {"managed_entity": "convsync"},
        },
        "mod_convsync_feed": {"components": [component], **options},
    }


def _erlang(text: str) -> str:
    """An Erlang string literal."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
