"""Loopback ports for servers that tests start, stop and start again."""

from collections import deque
from socket import socket

from sync.sandbox import ports

# A port stays held while its test runs: an outgoing connection of another test that got it from the kernel would keep
# a server that was killed from coming back. Held for the newest only, so that a long run does not end up without any.
_held: deque[socket] = deque(maxlen=500)


def free_port() -> int:
    """Nobody listens on it, and no other test is given it; who sets SO_REUSEADDR, as servers do, may listen there."""
    if len(_held) == _held.maxlen:
        _held[0].close()
    (taken,) = ports.hold(1)
    _held.append(taken)
    return ports.number(taken)
