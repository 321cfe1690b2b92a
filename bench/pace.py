"""Messages at a rate that is given, and how long each took from its sender to its recipient.

The clock of a message starts when it is due, not when it could be sent: a server that stops for a moment delays those
that are due meanwhile, and that is counted. Refuses to know who runs the server.
"""

import re
import selectors
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from socket import socket

LATE_SECONDS = 20.0  # what has not come then is lost

_SENT = re.compile(rb"<message [^>]*?id=['\"]due-(\d+)['\"]")


@dataclass(slots=True)
class Paced:
    """What came of it: `latencies` in seconds, `seconds` from the first that was due to the last that came."""

    sent: int
    seconds: float
    latencies: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Messages delivered a second."""
        return len(self.latencies) / self.seconds


def pace(people: Sequence[tuple[socket, str]], rate: float, seconds: float) -> Paced:
    """People, sessions each with the address that it writes to, write in turns, `rate` messages a second altogether.
    TimeoutError: some did not come.
    """
    count, began = int(rate * seconds), time.perf_counter() + 0.01
    result = Paced(count, 0)
    reader = threading.Thread(target=_read, args=([s for s, _ in people], began, result))
    reader.start()
    for i in range(count):
        due = began + i / rate
        while (wait := due - time.perf_counter()) > 0:
            time.sleep(wait)
        connection, to = people[i % len(people)]
        connection.sendall(_message(to, int((due - began) * 1e9)))
    reader.join()
    if len(result.latencies) < count:
        raise TimeoutError(f"{count - len(result.latencies)} messages did not come")
    return result


def _message(to: str, due: int) -> bytes:
    return (
        f"<message to='{to}' type='chat' id='due-{due}'><body>what people write who have something to say</body>"
        "<request xmlns='urn:xmpp:receipts'/><active xmlns='http://jabber.org/protocol/chatstates'/></message>"
    ).encode()


def _read(sockets: Sequence[socket], began: float, result: Paced) -> None:
    left: dict[socket, bytes] = dict.fromkeys(sockets, b"")
    end = began + LATE_SECONDS
    with selectors.DefaultSelector() as selector:
        for each in sockets:
            selector.register(each, selectors.EVENT_READ, each)
        while len(result.latencies) < result.sent and time.perf_counter() < end:
            for key, _ in selector.select(0.1):
                connection: socket = key.data
                seen, at, now = left[connection] + connection.recv(262_144), 0, time.perf_counter()
                for found in _SENT.finditer(seen):
                    result.latencies.append(now - began - int(found[1]) / 1e9)
                    result.seconds, at = now - began, found.end()
                    end = now + LATE_SECONDS
                left[connection] = seen[at:][-512:]
