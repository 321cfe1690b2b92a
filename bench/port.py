"""A server's component port and nothing behind it, in a process of its own: `python -m bench.port`.

It lets the component in (XEP-0114), tells an empty hello, and asks delegated questions, so many at a time, each as soon
as another was answered: what the component can do without the work of a server. It finds answers by their end and does
not parse them.

Reads lines of JSON. The first: host, component, and it says its port; then `ready`, once the component has subscribed.
Each further one: `questions` (resource, payload), `window`, `seconds`; it says how many answers came, in how many
seconds, how many bytes, how long each took. With `once` the first question is asked, and its answer told.
"""

import json
import re
import selectors
import socket
import sys
import time
from collections import deque
from typing import Any

DELEGATION, FORWARD = "urn:xmpp:delegation:2", "urn:xmpp:forward:0"
HEADER = (
    "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' "
    "xmlns:stream='http://etherx.jabber.org/streams' from='{0}' id='s1'>"
)
HELLO = (
    "<iq type='result' from='{host}' to='{to}' id='{id}'><hello xmlns='urn:convsync:feed:0' version='1' server='none' "
    "server-version='0' module-version='0' host='{host}' shard='0' ordered-archive='true'>"
    "<stream id='bench' low='{low}' high='{high}' acked='{acked}' current='true'/>{sessions}</hello></iq>"
)
END, ID = b"</delegation></iq>", re.compile(rb'<iq xmlns="jabber:component:accept"[^>]* id="q(\d+)"')
OURS = re.compile(rb"<iq [^>]*?type=\"(?:get|set)\"[^>]*?>")
CHUNK = 2**18


class Port:
    """The connection to the one component."""

    def __init__(self, host: str, component: str) -> None:
        self.host, self.component = host, component
        self.listener = socket.create_server(("127.0.0.1", 0))
        self._rest = b""

    def let_in(self, *, acked: int = 0, high: int = 0, sessions: str = "") -> None:
        """Until it has subscribed, to a stream of which so much is acknowledged and so much is there."""
        self.socket, _ = self.listener.accept()
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._until(b">")
        self.socket.sendall(HEADER.format(self.component).encode())
        self._until(b"</handshake>")
        self.socket.sendall(b"<handshake/>")
        while True:
            asked = self._until(b"</iq>")
            found = OURS.search(asked)
            if found is None:
                continue
            given = dict(re.findall(r'(\w+)="([^"]*)"', found.group().decode()))
            place = {"low": acked + 1, "high": high, "acked": acked, "sessions": sessions}
            hello = HELLO.format(host=self.host, to=self.component, id=given["id"], **place)
            if b"<subscribe" in asked:
                self.socket.sendall(hello.encode())
                return

    def _until(self, end: bytes) -> bytes:
        while end not in self._rest:
            data = self.socket.recv(CHUNK)
            if not data:
                raise RuntimeError("the component is gone")
            self._rest += data
        found, _, self._rest = self._rest.partition(end)
        return found + end

    def question(self, number: int, account: str, resource: str, payload: str) -> bytes:
        """A user's IQ, delegated."""
        return (
            f"<iq type='set' from='{self.host}' to='{self.component}' id='q{number}'><delegation xmlns='{DELEGATION}'>"
            f"<forwarded xmlns='{FORWARD}'><iq xmlns='jabber:client' type='get' id='q' from='{account}/{resource}' "
            f"to='{account}'>{payload}</iq></forwarded></delegation></iq>"
        ).encode()

    def once(self, asked: list[str]) -> str:
        """One answer, whole."""
        self.socket.sendall(self.question(0, *asked))
        while True:
            answer = self._until(END)
            if b'id="q0"' in answer:
                return answer.decode()

    def measure(self, questions: list[list[str]], window: int, seconds: float) -> dict[str, Any]:
        """So many under way at a time, until the time is over."""
        self._rest = b""
        made = deque(enumerate(self.question(number, *asked) for number, asked in enumerate(questions)))
        asked_at, took, size, under_way = {}, [], 0, 0
        self.socket.setblocking(False)
        with selectors.DefaultSelector() as selector:
            selector.register(self.socket, selectors.EVENT_READ)
            began = time.perf_counter()

            def ask(many: int) -> None:
                now, texts = time.perf_counter(), []
                for _ in range(many):
                    number, text = made.popleft()
                    made.append((number, text))
                    asked_at[number] = now
                    texts.append(text)
                self.socket.setblocking(True)
                self.socket.sendall(b"".join(texts))
                self.socket.setblocking(False)

            ask(window)
            under_way = window
            while under_way:
                if not selector.select(timeout=30):
                    raise RuntimeError("no answer")
                data = self.socket.recv(CHUNK)
                size += len(data)
                found, end, rest = (self._rest + data).rpartition(END)
                self._rest = rest
                if not end:
                    continue
                if b"<error" in found:
                    raise RuntimeError(found[-600:].decode(errors="replace"))
                now = time.perf_counter()
                done = [int(number) for number in ID.findall(found)]
                took += [now - asked_at[number] for number in done]
                if now - began < seconds:
                    ask(len(done))
                else:
                    under_way -= len(done)
            lasted = time.perf_counter() - began
        self.socket.setblocking(True)
        return {"answers": len(took), "seconds": lasted, "bytes": size, "took": took}


def main() -> None:
    config = json.loads(sys.stdin.readline())
    port = Port(config["host"], config["component"])
    print(port.listener.getsockname()[1], flush=True)
    port.let_in()
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if "once" in order:
            print(json.dumps(port.once(order["once"])), flush=True)
        else:
            print(json.dumps(port.measure(order["questions"], order["window"], order["seconds"])), flush=True)


if __name__ == "__main__":
    main()
