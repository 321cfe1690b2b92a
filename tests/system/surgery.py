"""What no client can do to a sandbox: a further host in its server's configuration, a connection that breaks."""

import ctypes
import json
import os
import socket
from contextlib import suppress
from pathlib import Path

from sync.sandbox.ejabberd import CONFIGURATION

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
    settings["host_config"] = {owner: {"modules": {"mod_disco": {}, "mod_mam": {}, "mod_muc": rooms}}}
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


def _connected(pid: int, port: int) -> list[int]:
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    numbers = {row[9] for row in rows if int(row[2].rpartition(":")[2], 16) == port}
    return [descriptor for descriptor, number in sockets(pid).items() if number in numbers]
