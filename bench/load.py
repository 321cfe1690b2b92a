"""Messages between other people at a steady rate, in a process of its own: `python -m bench.load`.

Reads one line of JSON: host, port, rate (messages a second), messages (how many; null: until the input ends), senders
and receivers as (JID, password). Says `ready` when everybody is logged in, and begins at a second line. At the end it
says, as JSON, what was sent, what the receivers got, and in how many seconds. Receivers' bytes are counted, not parsed.
"""

import json
import random
import select
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from socket import socket

from bench.client import Client
from bench.traffic import body

QUIET_SECONDS = 2.0  # at the end: so long nothing may come before what has not come counts as lost
MARK = b"</body>"


@dataclass(slots=True)
class Counter:
    """What one session got: bodies, also those that two reads cut in halves."""

    client: Client
    bodies: int = 0
    tail: bytes = b""

    def read(self) -> None:
        """Whatever is there."""
        data = self.tail + self.client.socket.recv(262_144)
        self.bodies += data.count(MARK)
        # A whole mark does not fit into the tail, so none is counted twice.
        self.tail = data[-(len(MARK) - 1) :]


def log_in(config: dict[str, object], people: list[tuple[str, str]], *, available: bool) -> Iterator[Client]:
    for jid, password in people:
        client = Client.connect(host=str(config["host"]), port=int(str(config["port"])), jid=jid, password=password)
        client.bind("load")
        if available:
            client.available()
        yield client


def main() -> None:
    config = json.loads(sys.stdin.readline())
    senders = list(log_in(config, config["senders"], available=False))
    receivers = [Counter(client) for client in log_in(config, config["receivers"], available=True)]
    counters = {one.client.socket: one for one in (*map(Counter, senders), *receivers)}
    print("ready", flush=True)
    sys.stdin.readline()
    chance = random.Random(11)  # noqa: S311 - traffic, not a secret
    texts = [body(chance) for _ in range(200)]
    sent, most, rate = 0, config["messages"], config["rate"]
    began = time.perf_counter()
    while most is None or sent < most:
        due = min(int((time.perf_counter() - began) * rate), most if most is not None else sys.maxsize)
        for number in range(sent, due):
            to = receivers[number // len(senders) % len(receivers)].client.jid
            senders[number % len(senders)].message(to, texts[number % len(texts)])
        sent = due
        pause = max(0.0, began + (sent + 1) / rate - time.perf_counter())
        readable, _, _ = select.select([sys.stdin, *counters], [], [], pause)
        if sys.stdin in readable:
            break
        for one in readable:
            counters[one].read()
    seconds = time.perf_counter() - began
    got, last = drained(receivers, counters, sent)
    print(json.dumps({"sent": sent, "received": got, "seconds": seconds, "all_seconds": last - began}), flush=True)
    for client in senders:
        client.close()
    for one in receivers:
        one.client.close()


def drained(receivers: list[Counter], counters: dict[socket, Counter], sent: int) -> tuple[int, float]:
    """How many bodies came, and when the last of them did."""
    last = time.perf_counter()
    while (got := sum(one.bodies for one in receivers)) < sent:
        readable, _, _ = select.select(list(counters), [], [], QUIET_SECONDS)
        if not readable:
            break
        for one in readable:
            counters[one].read()
        last = time.perf_counter()
    return got, last


if __name__ == "__main__":
    main()
