"""A scratch Prosody: its configuration, its accounts, and the process as a part of the sandbox.

Everything it reads or writes is inside the folder it is given, every port is on loopback, no other server is reached.
Passwords travel in clear text, so it is fit for trying and testing and for nothing else; `deploy/prosody` has a
configuration for a real server. Refuses to know who supervises the process.
"""

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from sync.sandbox.launch import LaunchError
from sync.sandbox.parts import Part
from sync.sandbox.probes import accepts, offers_login

MODULES = (
    *("roster", "saslauth", "disco", "ping", "pep", "bookmarks", "carbons", "mam", "smacks", "csi", "csi_simple"),
    *("blocklist", "offline", "posix", "delegation", "privilege", "convsync_feed"),
)
ROOM_MODULES = ("muc_mam", "muc_moderation", "convsync_feed")
DELEGATED = (
    *("https://xabber.com/protocol/synchronization", "https://xabber.com/protocol/rewrite"),
    *("urn:xmpp:inbox:1", "urn:xmpp:push:0", "urn:convsync:0"),
)
# Where Debian's prosody-modules puts them; a source installation keeps both in one of its plugin paths.
_PLACES = ("/usr/lib/prosody/modules", "/usr/local/lib/prosody/modules")

Option = str | int | bool


def find_prosody() -> Path:
    """The server's executable; delegation and privilege, which are not Prosody's own, must be there too."""
    found = shutil.which("prosody") or shutil.which("prosody", path="/usr/bin:/usr/local/bin:/usr/sbin")
    needed = "mod_delegation/mod_delegation.lua", "mod_privilege/mod_privilege.lua"
    if found and any(all((Path(place) / name).exists() for name in needed) for place in _PLACES):
        return Path(found)
    what = "Prosody's modules delegation and privilege are" if found else "Prosody is"
    raise LaunchError(f"{what} not installed: run `apt-get install prosody prosody-modules`.")


def prosody(
    folder: Path,
    *,
    domain: str,
    accounts: Sequence[tuple[str, str]],
    c2s_port: int,
    component_port: int,
    component_secret: str,
    module_path: Path,
    more_modules: Sequence[str] = (),
    more_paths: Sequence[Path] = (),
    options: Mapping[str, Option] | None = None,
    more_hosts: str = "",
) -> Part:
    """Writes the configuration and the missing accounts below `folder` and returns the process.

    `accounts` are (user name, password); an account that exists keeps its file. `module_path` is the folder that
    holds `mod_convsync_feed`. `more_modules` and `more_paths` are added to the users' host, `options` to that and the
    rooms' host, `more_hosts` (text of the configuration) to the server: tests use them.
    """
    executable = find_prosody()
    data = folder / "data"
    for directory in (folder, data, folder / "certs", data / _encode(domain) / "accounts"):
        directory.mkdir(parents=True, exist_ok=True)
    for user, password in accounts:
        file = data / _encode(domain) / "accounts" / f"{_encode(user)}.dat"
        if not file.exists():
            _write_private(file, f'return {{\n\t["password"] = {_lua(password)};\n}};\n')
    config = folder / "prosody.cfg.lua"
    _write_private(  # it has the component's secret
        config,
        _config(
            folder,
            domain=domain,
            c2s_port=c2s_port,
            component_port=component_port,
            secret=component_secret,
            modules=[*MODULES, *more_modules],
            paths=[module_path, *more_paths],
            options=options or {},
            more_hosts=more_hosts,
        ),
    )

    async def answers() -> bool:
        return await offers_login(c2s_port, domain) and await accepts(component_port)

    return Part(
        name="server",
        # -F: the process that is started is the server, it does not fork.
        argv=(str(executable), "--config", str(config), "-F"),
        cwd=folder,
        answers=answers,
        env={"HOME": str(folder)},
    )


def _config(
    folder: Path,
    *,
    domain: str,
    c2s_port: int,
    component_port: int,
    secret: str,
    modules: Sequence[str],
    paths: Sequence[Path],
    options: Mapping[str, Option],
    more_hosts: str,
) -> str:
    sync = f"sync.{domain}"
    more = "".join(f"  {name} = {_lua(value)}\n" for name, value in options.items())
    return f"""-- Written by the sandbox at every start. Clear-text logins, loopback only.
run_as_root = true
data_path = {_lua(str(folder / "data"))}
certificates = {_lua(str(folder / "certs"))}
installer_plugin_path = {_lua(str(folder / "plugins"))}
plugin_paths = {_lua([str(path) for path in paths])}
log = {{ info = {_lua(str(folder / "prosody.log"))} }}
interfaces = {{ "127.0.0.1" }}
local_interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {c2s_port} }}
component_ports = {{ {component_port} }}
c2s_direct_tls_ports = {{}}
http_ports = {{}}
https_ports = {{}}
-- No other servers, and no offer of TLS: there are no certificates.
modules_disabled = {{ "s2s", "s2s_auth_certs", "tls" }}
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
authentication = "internal_plain"
storage = "internal"
archive_expires_after = "never"
storage_archive_item_limit = 1000000
component_stanza_size_limit = 16777216
gc = {{ mode = "incremental"; threshold = 200; speed = 500 }}
network_settings = {{ nagle = false }}

VirtualHost {_lua(domain)}
  modules_enabled = {_lua(list(modules))}
  convsync_feed_components = {{ {_lua(sync)} }}
  delegations = {{
{"".join(f"    [{_lua(ns)}] = {{ jid = {_lua(sync)} }};{chr(10)}" for ns in DELEGATED)}  }}
  privileged_entities = {{
    [{_lua(sync)}] = {{
      roster = "both"; message = "outgoing"; presence = "managed_entity";
      iq = {{
        ["urn:xmpp:mam:2"] = "both"; ["http://jabber.org/protocol/pubsub"] = "both"; ["urn:xmpp:blocking"] = "get";
      }};
    }};
  }}
{more}
{_rooms(domain, sync, more)}
Component {_lua(sync)}
  component_secret = {_lua(secret)}
  component_conflict_resolve = "kick_old"
  modules_enabled = {{ "delegation", "privilege" }}
{more_hosts}"""


def _rooms(domain: str, sync: str, more: str) -> str:
    return f"""Component {_lua(f"conference.{domain}")} "muc"
  modules_enabled = {_lua(list(ROOM_MODULES))}
  convsync_feed_components = {{ {_lua(sync)} }}
  muc_log_expires_after = "never"
{more}"""


def _write_private(file: Path, text: str) -> None:
    file.touch(mode=0o600)
    file.write_text(text, encoding="utf-8")


def _lua(value: Option | list[str]) -> str:
    """A Lua literal."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return "{ " + ", ".join(_lua(item) for item in value) + " }"
    escaped = "".join(char if char.isprintable() and char not in '"\\' else _lua_bytes(char) for char in value)
    return f'"{escaped}"'


def _lua_bytes(char: str) -> str:
    return "".join(f"\\{byte:03d}" for byte in char.encode())


def _encode(name: str) -> str:
    """Prosody's name of a user or host in its data folder."""
    return re.sub(rb"[^A-Za-z0-9]", lambda found: b"%%%02x" % found[0][0], name.encode()).decode()
