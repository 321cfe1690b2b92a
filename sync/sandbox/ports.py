"""Loopback ports for one sandbox, held for as long as it lives.

Decides which ports: below the range that the kernel hands out to outgoing connections, so that a part's port is still
free when the part comes back from a kill. A held port is bound and never listens: others who look for a free port do
not get it, and the part itself may bind it, since both set SO_REUSEADDR. Refuses to know what each port is for.
"""

import contextlib
import random
import socket
from collections.abc import Iterable
from pathlib import Path

LOWEST = 10_240
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def hold(count: int, wanted: Iterable[int] = ()) -> list[socket.socket]:
    """`count` held ports: those `wanted` if all of them are free, else new ones. Close the sockets to let them go."""
    kept = list(wanted)
    if len(kept) == count:
        held = [taken for port in kept if (taken := _take(port, again=True))]
        if len(held) == count:
            return held
        for taken in held:
            taken.close()
    return [_any() for _ in range(count)]


def number(held: socket.socket) -> int:
    return int(held.getsockname()[1])


def _any() -> socket.socket:
    highest = 32_768
    with contextlib.suppress(OSError, ValueError):
        highest = int(EPHEMERAL.read_text().split()[0])
    for _ in range(1000 if highest > LOWEST + 1000 else 0):
        # Chance spreads sandboxes that start at the same moment; nothing secret depends on it.
        if taken := _take(random.randrange(LOWEST, highest)):  # noqa: S311
            return taken
    taken = _take(0)
    if taken is None:
        raise OSError("no loopback port is free")
    return taken


def _take(port: int, *, again: bool = False) -> socket.socket | None:
    """Hold a port, or None. `again`: one that we had before, so connections of last time may still linger on it."""
    taken = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, again)
        taken.bind(("127.0.0.1", port))
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, True)
    except OSError:
        taken.close()
        return None
    return taken
