"""A blocking XMPP client on a raw socket: it adds as little as can be to what it measures. Clear text on loopback.

It counts the bytes that come. Refuses to be more than a session that asks one thing after another.
"""

import socket
import xml.etree.ElementTree as ET
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import Self
from xml.sax.saxutils import escape, quoteattr

SASL, BIND = "urn:ietf:params:xml:ns:xmpp-sasl", "urn:ietf:params:xml:ns:xmpp-bind"
DATA, COMMANDS, PUSH = "jabber:x:data", "http://jabber.org/protocol/commands", "urn:xmpp:push:0"
OPTIONS = "http://jabber.org/protocol/pubsub#publish-options"
SECONDS = 30.0  # an answer that takes longer is a failure

_ids = count(1)


class NoAnswer(Exception):
    """The server ended the stream, or answered with an error."""


class Client:
    """One session. `connect` logs in; `bind` is a step of its own, since reconnects are measured from there."""

    def __init__(self, *, host: str, port: int, jid: str, password: str, quick_ack: bool = False) -> None:
        self.jid = jid
        self._user, _, self._domain = jid.partition("@")
        self._password, self._quick_ack = password, quick_ack
        self.bytes_in = 0
        self.socket = socket.create_connection((host, port), timeout=SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @classmethod
    def connect(cls, *, host: str, port: int, jid: str, password: str, quick_ack: bool = False) -> Self:
        """A session that is logged in and not bound. `quick_ack`: what comes is acknowledged at once, so that a server
        that leaves Nagle's algorithm on does not wait for us.
        """
        self = cls(host=host, port=port, jid=jid, password=password, quick_ack=quick_ack)
        self._open()
        secret = b64encode(f"\0{self._user}\0{password}".encode()).decode()
        self.send(f"<auth xmlns='{SASL}' mechanism='PLAIN'>{secret}</auth>")
        self.until(lambda e: e.tag == f"{{{SASL}}}success")
        self._open()
        return self

    def _open(self) -> None:
        self._parser, self._depth = ET.XMLPullParser(("start", "end")), 0
        self._elements = self._read()
        self.send(
            f"<?xml version='1.0'?><stream:stream to='{self._domain}' version='1.0' xmlns='jabber:client' "
            "xmlns:stream='http://etherx.jabber.org/streams'>"
        )
        self.until(lambda e: e.tag.endswith("}features"))

    def bind(self, resource: str) -> None:
        """RFC 6120 §7."""
        self.iq("set", f"<bind xmlns='{BIND}'><resource>{resource}</resource></bind>")

    def available(self) -> None:
        """Presence; returns when the server has taken it."""
        self.send("<presence/>")
        self.ping()

    def ping(self) -> None:
        """Returns when everything sent before has been taken."""
        self.iq("get", "<ping xmlns='urn:xmpp:ping'/>", to=self._domain)

    def send(self, xml: str) -> None:
        """Bytes on the socket."""
        self.socket.sendall(xml.encode())

    def until(self, wanted: Callable[[ET.Element], bool]) -> ET.Element:
        """The next element that fits; others are dropped."""
        for element in self._elements:
            if wanted(element):
                return element
        raise NoAnswer(f"the stream of {self._domain} ended")

    def _read(self) -> Iterator[ET.Element]:
        root: ET.Element | None = None
        parser = self._parser
        while data := self.socket.recv(262_144):
            if self._quick_ack:  # the kernel forgets it
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            self.bytes_in += len(data)
            parser.feed(data)
            for kind, element in parser.read_events():
                if kind == "start":
                    self._depth += 1
                    root = element if root is None else root
                    continue
                self._depth -= 1
                if self._depth == 1 and root is not None:
                    root.remove(element)
                    yield element

    def iq(
        self,
        kind: str,
        payload: str,
        *,
        to: str | None = None,
        before: Callable[[ET.Element], object] = lambda _: None,
    ) -> ET.Element:
        """Ask and wait; raises NoAnswer for an error. `before` is given what comes before the answer."""
        iq_id = f"b{next(_ids)}"
        address = f" to={quoteattr(to)}" if to else ""
        self.send(f"<iq type='{kind}' id='{iq_id}'{address}>{payload}</iq>")

        def is_answer(element: ET.Element) -> bool:
            if element.get("id") == iq_id and element.get("type") in ("result", "error"):
                return True
            before(element)
            return False

        answer = self.until(is_answer)
        if answer.get("type") == "error":
            raise NoAnswer(ET.tostring(answer, encoding="unicode"))
        return answer

    def message(self, to: str, inner: str, message_id: str | None = None) -> None:
        """A chat message."""
        self.send(f"<message to='{to}' type='chat' id='{message_id or f'w{next(_ids)}'}'>{inner}</message>")

    def befriend(self, other: "Client") -> None:
        """Subscribed both ways."""
        for kind in ("subscribe", "subscribed"):
            for one, two in ((self, other), (other, self)):
                one.send(f"<presence to='{two.jid}' type='{kind}'/>")
                one.ping()

    def register_phone(self, *, component: str, app: str, alert_token: str, voip_token: str) -> None:
        """Register both tokens by ad-hoc command, enable pushes by XEP-0357."""
        given = form({"provider": app, "device-token": alert_token, "device-second-token": voip_token})
        answer = self.iq(
            "set",
            f"<command xmlns='{COMMANDS}' node='register-device' action='execute'>{given}</command>",
            to=component,
        )
        values = {f.get("var"): f.findtext(f"{{{DATA}}}value") or "" for f in answer.iter(f"{{{DATA}}}field")}
        options = form({"FORM_TYPE": OPTIONS, "secret": values["secret"]})
        self.iq("set", f"<enable xmlns='{PUSH}' jid='{component}' node={quoteattr(values['node'])}>{options}</enable>")

    def close(self) -> None:
        """Log out."""
        try:
            self.send("</stream:stream>")
            while self.socket.recv(262_144):
                pass
        except OSError:
            pass
        self.socket.close()


def form(fields: Mapping[str, str]) -> str:
    """A submitted data form."""
    inner = "".join(f"<field var='{var}'><value>{escape(value)}</value></field>" for var, value in fields.items())
    return f"<x xmlns='{DATA}' type='submit'>{inner}</x>"
