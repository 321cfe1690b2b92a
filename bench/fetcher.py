"""The component's end of the feed as a bare socket: it takes what comes, acknowledges it and looks at nothing."""

import re
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha1

DOMAIN, COMPONENT, SECRET = "localhost", "sync.localhost", "secret"
ANSWER_SECONDS = 60.0

_FEED = re.compile(rb"<feed [^>]*?stream='([^']+)'[^>]*?last='(\d+)'[^>]*?behind='(\d+)'")


@dataclass(slots=True)
class Component:
    """Subscribes with what it acknowledged before and acknowledges every batch as it comes, in a thread of its own."""

    port: int
    acked: dict[str, int] = field(default_factory=dict)
    events: int = 0
    stanzas: int = 0
    behind: int = -1
    _socket: socket.socket | None = None
    _thread: threading.Thread | None = None

    def connect(self) -> None:
        """Returns when it has subscribed."""
        self._socket = socket.create_connection(("127.0.0.1", self.port), timeout=ANSWER_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._say(
            f"<stream:stream to='{COMPONENT}' xmlns='jabber:component:accept' "
            "xmlns:stream='http://etherx.jabber.org/streams'>"
        )
        found = re.search(rb"<stream:stream[^>]*? id=['\"]([^'\"]+)['\"]", self._until(b"stream:stream", b">"))
        assert found is not None
        digest = sha1(found[1] + SECRET.encode()).hexdigest()  # noqa: S324 - XEP-0114
        self._say(f"<handshake>{digest}</handshake>")
        self._until(b"handshake")
        streams = "".join(f"<stream id='{stream}' n='{n}'/>" for stream, n in self.acked.items())
        self._say(
            f"<iq type='set' id='s' from='{COMPONENT}' to='{DOMAIN}'>"
            f"<subscribe xmlns='urn:convsync:feed:0' versions='1' buckets='0-255'>{streams}</subscribe></iq>"
        )
        rest = self._until(b"</hello>")
        self.behind = -1
        self._thread = threading.Thread(target=self._read, args=(rest.partition(b"</hello>")[2],), daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Leaves without a word."""
        assert self._socket is not None
        assert self._thread is not None
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def caught_up(self) -> None:
        """Waits until nothing is behind."""
        end = time.monotonic() + ANSWER_SECONDS
        while self.behind != 0:
            if time.monotonic() > end:
                raise TimeoutError("the feed did not catch up")
            time.sleep(0.005)

    def _say(self, xml: str) -> None:
        assert self._socket is not None
        self._socket.sendall(xml.encode())

    def _until(self, *texts: bytes) -> bytes:
        assert self._socket is not None
        seen = b""
        while not all(text in seen for text in texts):
            data = self._socket.recv(262_144)
            if not data:
                raise ConnectionError("the server ended the component's connection")
            seen += data
        return seen

    def _read(self, seen: bytes) -> None:
        assert self._socket is not None
        while True:
            end, before = 0, dict(self.acked)
            for found in _FEED.finditer(seen):
                stream, last, end = found[1].decode(), int(found[2]), found.end()
                self.events += last - self.acked.get(stream, 0)
                self.stanzas += 1
                self.acked[stream], self.behind = last, int(found[3])
            for stream in self.acked:
                if self.acked[stream] != before.get(stream):
                    with suppress(OSError):  # it may have been cut
                        self._say(
                            f"<message from='{COMPONENT}' to='{DOMAIN}'>"
                            f"<ack xmlns='urn:convsync:feed:0' stream='{stream}' n='{self.acked[stream]}'/></message>"
                        )
            seen = seen[end:][-4096:]
            data = b""
            with suppress(OSError):
                data = self._socket.recv(1_048_576)
            if not data:
                return
            seen += data
