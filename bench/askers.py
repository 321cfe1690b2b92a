"""Sessions that ask the same thing again and again, each as soon as it was answered, in a process of its own:
`python -m bench.askers`.

Reads lines of JSON. The first: host, port and people as (JID, password); it logs them in and says `ready`. Each further
one: payloads (one for each session) and seconds; it says, as JSON, how many answers came, in how many seconds, and how
long each took. An answer is found by its end and not parsed: the figures are to be the server's, not this process's.
"""

import json
import selectors
import sys
import time
from typing import Any

from bench.client import Client

END = b"</iq>"


class Asker:
    """One session."""

    def __init__(self, client: Client) -> None:
        self.client, self.payload, self.began, self._rest = client, "", 0.0, b""
        client.socket.setblocking(True)

    def ask(self) -> None:
        """Send the question."""
        self.began = time.perf_counter()
        self._rest = b""
        self.client.send(f"<iq type='get' id='q'>{self.payload}</iq>")

    def read(self) -> float | None:
        """Seconds since the question, once the answer is there."""
        self._rest += self.client.socket.recv(262_144)
        if not self._rest.rstrip().endswith(END):
            return None
        if b"<error" in self._rest:
            raise RuntimeError(self._rest[-500:].decode(errors="replace"))
        return time.perf_counter() - self.began


def measure(askers: list[Asker], payloads: list[str], seconds: float) -> dict[str, Any]:
    """Everybody asks until the time is over."""
    took: list[float] = []
    with selectors.DefaultSelector() as selector:
        began = time.perf_counter()
        for asker, payload in zip(askers, payloads, strict=True):
            asker.payload = payload
            selector.register(asker.client.socket, selectors.EVENT_READ, asker)
            asker.ask()
        open_ = len(askers)
        while open_:
            ready = selector.select(timeout=30)
            if not ready:
                raise RuntimeError("no answer")
            for key, _ in ready:
                elapsed = key.data.read()
                if elapsed is None:
                    continue
                took.append(elapsed)
                if time.perf_counter() - began < seconds:
                    key.data.ask()
                else:
                    open_ -= 1
        return {"answers": len(took), "seconds": time.perf_counter() - began, "took": took}


def main() -> None:
    config = json.loads(sys.stdin.readline())
    askers = []
    for jid, password in config["people"]:
        client = Client.connect(host=config["host"], port=config["port"], jid=jid, password=password, quick_ack=True)
        client.bind("asker")
        askers.append(Asker(client))
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(measure(askers, order["payloads"], order["seconds"])), flush=True)


if __name__ == "__main__":
    main()
