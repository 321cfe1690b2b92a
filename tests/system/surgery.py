"""What no client can do to a sandbox: further hosts in its server's configuration, a connection that breaks."""

import ctypes
import json
import os
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from sync.sandbox.ejabberd import CONFIGURATION

PUSHING = ("roster", "saslauth", "disco", "ping", "offline", "smacks", "cloud_notify")  # of a Prosody that pushes
PIDFD_GETFD = 438  # the same number on every architecture


def another_host(server: str, folder: Path, host: str) -> bool:
    """Add a host of rooms with an archive, without our module, to the server's configuration; False: it was there."""
    if server == "prosody":
        config = folder / "prosody.cfg.lua"
        component = f'\nComponent "{host}" "muc"\n  modules_enabled = {{ "muc_mam" }}\n  muc_room_locking = false\n'
        if component in config.read_text():
            return False
        with config.open("a") as file:
            file.write(component)
        return True
    config = folder / CONFIGURATION
    settings = json.loads(config.read_text())
    owner = f"rooms.{host}"  # its hosts of rooms belong to a host of users, which has the modules
    if owner in settings["hosts"]:
        return False
    settings["hosts"].append(owner)
    rooms = {"hosts": [host], "db_type": "sql", "default_room_options": {"mam": True}}
    hosts = settings.setdefault("host_config", {})
    hosts[owner] = {"modules": {"mod_disco": {}, "mod_mam": {}, "mod_muc": rooms}}
    config.write_text(json.dumps(settings))
    return True


def another_home(server: str, folder: Path, host: str, accounts: Iterable[tuple[str, str]]) -> bool:
    """Add a host of users that knows nothing of us and pushes by its server's own module (mod_cloud_notify, mod_push);
    False: it was there. `accounts` are (user name, password); ejabberd's hosts share theirs.
    """
    if server == "prosody":
        config = folder / "prosody.cfg.lua"
        home = f'\nVirtualHost "{host}"\n  modules_enabled = {{ {", ".join(map(json.dumps, PUSHING))} }}\n'
        if home in config.read_text():
            return False
        encoded = host.replace(".", "%2e").replace("-", "%2d")
        users = folder / "data" / encoded / "accounts"
        users.mkdir(parents=True)
        for user, password in accounts:
            (users / f"{user}.dat").write_text(f"return {{ password = {json.dumps(password)} }}\n")
        config.write_text(config.read_text() + home)
        return True
    config = folder / CONFIGURATION
    settings = json.loads(config.read_text())
    if host in settings["hosts"]:
        return False
    settings["hosts"].append(host)
    kept = {"db_type": "mnesia"}
    modules = {"mod_disco": {}, "mod_offline": kept, "mod_ping": {}, "mod_push": kept, "mod_roster": kept}
    settings.setdefault("host_config", {})[host] = {"modules": modules}
    config.write_text(json.dumps(settings))
    return True


def cut_connection(pid: int, port: int) -> None:
    """Shut down a process's connections to that port of loopback, as if the network had."""
    handle = os.pidfd_open(pid)
    try:
        for descriptor in _connected(pid, port):
            number = ctypes.CDLL(None, use_errno=True).syscall(PIDFD_GETFD, handle, descriptor, 0)
            if number < 0:
                raise OSError(ctypes.get_errno(), "pidfd_getfd")
            with socket.socket(fileno=number) as connection:
                connection.shutdown(socket.SHUT_RDWR)
    finally:
        os.close(handle)


def sockets(pid: int) -> dict[int, str]:
    """A process's file descriptors that are sockets, with the number by which /proc/net knows each."""
    found = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            kind, _, number = os.readlink(entry).partition(":[")
            if kind == "socket":
                found[int(entry.name)] = number.removesuffix("]")
    return found


def processor_seconds(pid: int) -> float:
    """What a process has used so far, whoever else wanted the machine."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _connected(pid: int, port: int) -> list[int]:
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    numbers = {row[9] for row in rows if int(row[2].rpartition(":")[2], 16) == port}
    return [descriptor for descriptor, number in sockets(pid).items() if number in numbers]
