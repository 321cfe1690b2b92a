"""Whom a message in a room means by name of its own: XEP-0372, XEP-0513, and the message that it answers (XEP-0461).

Everything here is the sender's claim; who is behind an address is for the rules to find out. Groups other than the
whole room (roles, affiliations, hats, spaces, servers) are left out, since nothing says who belongs to them. A mention
that asks for no notice (`noping`), or for one to those only who are active (`active`) and see the message anyway, is
none.
"""

from urllib.parse import unquote
from xml.etree.ElementTree import Element

from sync.model.event import Mentions
from sync.model.jid import bare
from sync.protocol.fields import claim, jid
from sync.protocol.names import MENTIONS, REFERENCE, REPLY, clark

REFERENCE_TAG, MENTION_TAG, REPLY_TAG = clark(REFERENCE, "reference"), clark(MENTIONS, "mention"), clark(REPLY, "reply")
MAX_MENTIONS = 100  # XEP-0513 §3.6: of a message with more than a room allows, all are ignored
MAX_OCCUPANT_ID_CHARS = 128  # XEP-0421 §4.1
NOBODY = Mentions()
_CHANNEL = f"{MENTIONS}#channel"
_SILENT = (clark(MENTIONS, "noping"), clark(MENTIONS, "active"))


def decode_mentions(message: Element, found: dict[str, Element], room: str) -> Mentions:
    """The mentions of a message in the room; `found` says what there is to look for."""
    reply = found.get("reply")
    reply_to = None if reply is None else reply.get("id") or None
    if "mention" not in found:
        return NOBODY if reply_to is None else Mentions(reply_to=reply_to)
    meant = _Meant(room)
    for child in message:
        if child.tag == MENTION_TAG:
            meant.mention(child)
        elif child.tag == REFERENCE_TAG:
            meant.reference(child)
        if meant.count > MAX_MENTIONS:
            return NOBODY if reply_to is None else Mentions(reply_to=reply_to)
    return Mentions(
        jids=tuple(meant.jids),
        occupant_ids=tuple(meant.occupant_ids),
        occupants=tuple(meant.occupants),
        everybody=meant.everybody,
        reply_to=reply_to,
    )


class _Meant:
    """Who was named so far, each once."""

    def __init__(self, room: str) -> None:
        self.room, self.count, self.everybody = room, 0, False
        self.jids: dict[str, None] = {}
        self.occupants: dict[str, None] = {}
        self.occupant_ids: dict[str, None] = {}

    def reference(self, element: Element) -> None:
        """XEP-0372 §3.2. With an anchor it is about another message (§3.4)."""
        if element.get("type") == "mention" and not element.get("anchor"):
            self.count += 1
            self._address(_address_in(element.get("uri", "")))

    def mention(self, element: Element) -> None:
        """XEP-0513 §3.1–3.2."""
        self.count += 1
        if any(element.find(tag) is not None for tag in _SILENT):
            return
        group = element.get("mentions")
        if group is not None:
            # §3.2.1: without a URI the room at hand is meant.
            uri = element.get("uri")
            if group == _CHANNEL and (uri is None or _address_in(uri) == self.room):
                self.everybody = True
            return
        occupant_id = claim(element.get("occupantid"), MAX_OCCUPANT_ID_CHARS)
        if occupant_id is not None:
            self.occupant_ids[occupant_id] = None
        else:
            self._address(jid(element.get("jid")))

    def _address(self, address: str | None) -> None:
        if address is None or "@" not in address:
            return
        if bare(address) != self.room:
            self.jids[bare(address)] = None
        elif address != self.room:
            self.occupants[address] = None


def _address_in(uri: str) -> str | None:
    """The JID of an `xmpp:` URI (RFC 5122 §2.2)."""
    scheme, _, rest = uri.partition(":")
    if scheme.lower() != "xmpp" or len(rest) > 3 * 3072:  # a percent-encoded octet takes three characters
        return None
    if rest.startswith("//"):
        rest = rest[2:].partition("/")[2]
    return jid(unquote(rest.partition("#")[0].partition("?")[0]))
