"""Messages from addresses of every character, legal or not, as the feed of a host that errs might bring them."""

from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement

from sync.model.event import Event
from sync.model.jid import MAX_JID_BYTES
from sync.protocol.names import CLIENT, FEED, clark
from tests.core.protocol_vectors import fed

# Each of ASCII by itself; every other one of the first plane some hundred at a time, and some of each later plane; what
# is too long or cut short.
SINGLE = [chr(code) for code in range(128)]
LATER = [
    "".join(map(chr, range(code, code + 256)))
    for code in (*range(128, 0xFF80, 256), 0xFF80, *range(0x10000, 0x110000, 0x8000))
]
CUT = [
    "@",
    "/",
    "@/",
    "@@",
    "//",
    "a@",
    "@a",
    "a/",
    "/a",
    "a@b@c",
    "a@/b",
    "a/b@c",
    "",
    " ",
    "a@b/",
    "a@b//c",
    "\u202eb@c",
]
LONG = ["a" * MAX_JID_BYTES, "é" * (MAX_JID_BYTES // 2), "😀" * 100_000, "a@" + "b" * MAX_JID_BYTES]
FROM_ANYBODY = [
    *(
        where.format(one)
        for one in SINGLE
        for where in ("x{}y@ex.net/p", "x@e{}x.net/p", "x@ex.net/p{}q", "{}@ex.net", "x@{}")
    ),
    *(f"{some}@ex.net/{some}" for some in LATER),
    *CUT,
    *LONG,
]


def from_anybody(kind: str) -> Sequence[Event]:
    """A message to ann@ex.org from each of them, as they are decoded."""
    last = str(len(FROM_ANYBODY))
    frame = Element(clark(FEED, "feed"), {"stream": "s1", "shard": "0", "last": last, "head": last})
    for n, sender in enumerate(FROM_ANYBODY, 1):
        fields = {"n": str(n), "kind": "message", "account": "ann@ex.org", "at": "1", "direction": "in"}
        made = SubElement(frame, clark(FEED, "event"), fields)
        message = SubElement(made, clark(CLIENT, "message"), {"from": sender, "type": kind, "id": "m1"})
        SubElement(message, clark(CLIENT, "body")).text = "hi"
    return fed(frame).events
