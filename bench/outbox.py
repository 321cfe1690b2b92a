"""A server's component port and its module's outbox, in a process of its own: `python -m bench.outbox`.

It tells events as docs/feed.md §3 says, with its window, as fast as they are acknowledged or at a rate, and lets
clients ask delegated questions meanwhile. What the component delivers is taken, what it asks is answered with
service-unavailable, as by a module that keeps no archive. It finds answers and acks by their form.

Reads lines of JSON. The first: host, component, and it says its port. Each further one is one of: `make` (a kind of
traffic) and it says how many events are ready; `accept`: lets the component in with so many sessions that are there,
tells what is ready, and says when what happened (seconds of the machine's monotonic clock); `tell`: what is ready, now;
`each`: every account asks once; `load`: questions, clients, every, seconds, rate.
"""

import json
import re
import select
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

from bench.port import CHUNK, END, ID, Port
from bench.traffic import FRAME_EVENTS, Traffic, event, stanza, unique

WINDOW_EVENTS, WINDOW_BYTES, FRAME_BYTES = 2_000, 8_000_000, 64_000  # docs/feed.md §3
ACK = re.compile(rb'<ack [^>]*?n="(\d+)"')
ASKED = re.compile(rb'<iq xmlns="jabber:component:accept"[^>]*>')
ATTRIBUTE = re.compile(rb'(\w+)="([^"]*)"')
SILENCE_SECONDS, ATTEMPTS = 60.0, 5
ANSWERS = {
    "get": "<iq type='error' from='{to}' to='{from}' id='{id}'><error type='cancel'>"
    "<service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>",
    "set": "<iq type='result' from='{to}' to='{from}' id='{id}'>"
    "<delivered xmlns='urn:convsync:feed:0' sessions='1'/></iq>",
}


def texts(host: str, made: dict[str, Any]) -> Iterator[str]:
    """Events without their n. `chatter`: people write to each other; `known`: each account gets a message;
    `online`: each has a session.
    """
    if made["kind"] == "chatter":
        traffic = Traffic(host=host, accounts=made["accounts"], contacts=made["contacts"])
        while True:
            yield from traffic.events(2)
    for number in range(made["accounts"]):
        account = f"user{number}@{host}"
        if made["kind"] == "known":
            sender = f"peer{number % 1000}@example.org"
            said = stanza(sender, account, unique("m"), "<body>do you have a minute this afternoon</body>")
            yield event(account, "in", said, sessions="")
        else:
            at = time.time_ns() // 1000
            yield f"kind='session' account='{account}' at='{at}' resource='phone' state='available'>"


_numbers = count(1)


class Postponed(Exception):
    """The component has no answer at the moment: mostly it is about to leave."""


class Asking:
    """Clients that ask: each `every` so many seconds, at times of their own, or (0) as soon as it was answered.
    A question's time counts from when it was due.
    """

    def __init__(self, order: dict[str, Any], began: float) -> None:
        self._questions = order["questions"]
        clients, self._every = order["clients"], order["every"]
        self.until = began + order["seconds"]
        self.due = deque((began + number * self._every / clients, number) for number in range(clients))
        self._asked: dict[int, tuple[float, int]] = {}
        self.took = list[float]()

    def ask(self, port: Port, now: float) -> bytes:
        """The questions that are due."""
        found = []
        while self.due and self.due[0][0] <= now and self.due[0][0] < self.until:
            at, client = self.due.popleft()
            found.append(self.pose(port, self._questions[client % len(self._questions)], at, client))
            if self._every:
                self.due.append((at + self._every, client))
        return b"".join(found)

    def pose(self, port: Port, question: Sequence[str], at: float, client: int) -> bytes:
        """One question."""
        number = next(_numbers)
        self._asked[number] = at, client
        return port.question(number, *question)

    def answered(self, number: int, now: float) -> None:
        """One of them."""
        if number not in self._asked:  # of what is measured anew
            return
        at, client = self._asked.pop(number)
        self.took.append(now - at)
        if not self._every:
            self.due.append((now, client))

    def over(self, now: float) -> bool:
        """Nobody asks any more, and nobody waits."""
        return now >= self.until and not self._asked


class Outbox(Port):
    """The connection to the one component, and a stream that goes on over its connections."""

    def __init__(self, host: str, component: str) -> None:
        super().__init__(host, component)
        self.ready = deque[bytes]()  # events without their n
        self.sent = self.acked = 0
        self._told = deque[bytes]()  # what is not acknowledged
        self._open, self._tail = 0, b""
        self.asking: Asking | None = None
        self.sessions = ""  # of its host, as hello lists them

    # ---- the stream ------------------------------------------------------------------------------------------------

    def frame(self, most: int) -> bytes:
        """The next events, as many as go into a batch; empty: the window is closed, or nothing is ready."""
        found, size = [], 0
        most = min(most, WINDOW_EVENTS - (self.sent - self.acked))
        while self.ready and len(found) < most and size < FRAME_BYTES and self._open + size < WINDOW_BYTES:
            text = self.ready.popleft()
            self.sent += 1
            size += len(text)
            self._told.append(text)
            found.append(b"<event n='%d' %b</event>" % (self.sent, text))
        if not found:
            return b""
        self._open += size
        behind = len(self.ready)
        head = (
            f"<message xmlns='jabber:component:accept' from='{self.host}' to='{self.component}'><feed "
            f"xmlns='urn:convsync:feed:0' stream='bench' shard='0' last='{self.sent}' head='{self.sent + behind}' "
            f"behind='{behind}'>"
        )
        return b"%b%b</feed></message>" % (head.encode(), b"".join(found))

    def all_acked(self) -> bool:
        """Everything that was ready is committed."""
        return not self.ready and self.acked == self.sent

    def read(self, seconds: float) -> None:
        """What the component says, if it says something in that time."""
        readable, _, _ = select.select([self.socket], [], [], max(0.0, seconds))
        if readable:
            self.hear(self.socket.recv(CHUNK))

    def hear(self, data: bytes) -> None:
        """Acks, answers, and questions, which are answered."""
        if not data:
            raise ConnectionError("the component is gone")
        text = self._tail + data
        cut = text.rfind(b">") + 1
        text, self._tail = text[:cut], text[cut:]
        for found in ACK.finditer(text):
            self.acked = max(self.acked, int(found[1]))
        while len(self._told) > self.sent - self.acked:
            self._open -= len(self._told.popleft())
        for asked in ASKED.findall(text):
            given = {name.decode(): value.decode() for name, value in ATTRIBUTE.findall(asked)}
            if given["type"] in ANSWERS:
                self.socket.sendall(ANSWERS[given["type"]].format(**given).encode())
        if self.asking is not None:
            whole, end, self._rest = (self._rest + data).rpartition(END)
            if b"<error" in whole:
                why = whole[-600:].decode(errors="replace")
                raise Postponed(why) if b'<error type="wait"' in whole else RuntimeError(why)
            now = time.monotonic()
            for number in ID.findall(whole + end):
                self.asking.answered(int(number), now)

    # ---- orders ----------------------------------------------------------------------------------------------------

    def accept(self, sessions: int) -> dict[str, float]:
        """Let it in, and tell everything that is ready."""
        there = (f"<session jid='user{number}@{self.host}/phone' state='active'/>" for number in range(sessions))
        self.sessions = "".join(there)
        self.admit()
        subscribed = time.monotonic()
        return {"subscribed": subscribed} | self.tell()

    def admit(self) -> None:
        """Until a component has subscribed: one that lost its lease, or its patience, comes again."""
        self.ready.extendleft(reversed(self._told))
        self._told.clear()
        self.sent, self._open = self.acked, 0
        while True:
            self._rest = self._tail = b""
            try:
                self.let_in(acked=self.acked, high=self.acked + len(self.ready), sessions=self.sessions)
            except (OSError, RuntimeError):
                continue
            self._rest = b""
            return

    def tell(self) -> dict[str, float]:
        """Everything that is ready, as fast as it is acknowledged."""
        many, began = len(self.ready), time.monotonic()
        heard = began
        while not self.all_acked():
            before = self.acked
            try:
                while batch := self.frame(FRAME_EVENTS):
                    self.socket.sendall(batch)
                self.read(1.0)
            except OSError:
                self.admit()
            now = time.monotonic()
            heard = now if self.acked != before else heard
            if now - heard > SILENCE_SECONDS:
                raise TimeoutError(f"{self.sent - self.acked} events were not acknowledged")
        return {"events": many, "began": began, "acked": time.monotonic()}

    def each(self, payload: str, accounts: int, window: int) -> dict[str, float]:
        """Every account asks once, so many at a time."""
        began, asked = time.monotonic(), 0
        self._rest = b""
        order = {"questions": [["", "", ""]], "clients": 1, "every": 0, "seconds": 0}
        self.asking = asking = Asking(order, began)
        while len(asking.took) < accounts:
            now, posed = time.monotonic(), list[bytes]()
            while asked < accounts and asked - len(asking.took) < window:
                posed.append(asking.pose(self, [f"user{asked}@{self.host}", "phone", payload], now, 0))
                asked += 1
            self.socket.sendall(b"".join(posed))
            self.read(SILENCE_SECONDS)
        self.asking = None
        return {"answers": accounts, "seconds": time.monotonic() - began}

    def load(self, order: dict[str, Any]) -> dict[str, Any]:
        """Questions, with messages beside them."""
        began = time.monotonic()
        self._rest, acked, rate = b"", self.acked, order["rate"]
        self.asking = asking = Asking(order, began)
        traffic = texts(self.host, {"kind": "chatter", "accounts": order["accounts"], "contacts": 20})
        messages, last = 0, began
        while not asking.over(now := time.monotonic()):
            if now - last > SILENCE_SECONDS:
                raise TimeoutError("no answer")
            out = [asking.ask(self, now)]
            while rate and now < asking.until and began + messages / rate <= now:
                messages += 1
                self.ready.extend(next(traffic).encode() for _ in range(2))  # what one says, in both archives
            while batch := self.frame(FRAME_EVENTS):
                out.append(batch)
            if any(out):
                self.socket.sendall(b"".join(out))
            due = [began + messages / rate] if rate else []
            due += [asking.due[0][0]] if asking.due else []
            answers = len(asking.took)
            self.read(min((at for at in due if at < asking.until), default=now + 0.05) - time.monotonic())
            last = time.monotonic() if len(asking.took) != answers else last
        lasted = time.monotonic() - began
        found = {"took": asking.took, "answers": len(asking.took), "seconds": lasted, "events": self.acked - acked}
        self.asking = None
        self.tell()  # what is left
        return found

    def obey(self, order: dict[str, Any]) -> object:
        """What an order comes to; what was not finished when the component left is measured anew."""
        for _ in range(ATTEMPTS):
            try:
                return self.obeyed(order)
            except Postponed:
                self.asking = None
                time.sleep(1.0)
                self.tell()
            except OSError:
                self.asking = None
                self.admit()
                self.tell()
        raise TimeoutError("the component leaves again and again")

    def obeyed(self, order: dict[str, Any]) -> object:
        """What an order comes to. OSError: the component has left."""
        if "make" in order:
            made = texts(self.host, order["make"])
            self.ready.extend(text.encode() for text, _ in zip(made, range(order["make"]["events"]), strict=False))
            return len(self.ready)
        if "once" in order:
            return self.once(order["once"])
        if "load" in order:
            return self.load(order)
        if "each" in order:
            return self.each(order["each"], order["accounts"], order["window"])
        return self.accept(order["accept"]) if "accept" in order else self.tell()

    def wait(self) -> str:
        """The next order; what the component asks meanwhile is answered."""
        connected = hasattr(self, "socket")
        while True:
            readable, _, _ = select.select([sys.stdin, self.socket if connected else self.listener], [], [])
            if sys.stdin in readable:
                return sys.stdin.readline()
            if not connected:
                self.admit()
                connected = True
                continue
            try:
                self.hear(self.socket.recv(CHUNK))
            except OSError:  # it has ended, and the next one is let in when that is ordered
                connected = False


def main() -> None:
    config = json.loads(sys.stdin.readline())
    outbox = Outbox(config["host"], config["component"])
    print(outbox.listener.getsockname()[1], flush=True)
    while line := outbox.wait():
        print(json.dumps(outbox.obey(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
