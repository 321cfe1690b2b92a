"""The extensions of `<enable/>` that deployed clients send: what a device wants to be pushed for, and how.

The XML is that of Tigase's specifications (xeps.tigase.net, "Push Notifications": encrypt, priority, jingle, away,
filters), of the library that sends it (TigaseSwift, TigasePushNotificationsModule.swift) and of the servers that take
it (tigase-server, package tigase.xmpp.impl.push; Prosody's mod_cloud_notify_filters and mod_cloud_notify_encrypted):

    <enable xmlns='urn:xmpp:push:0' jid='…' node='…' away='true'>
      <muted xmlns='tigase:push:filter:muted:0'><item jid='bob@example.org'/></muted>
      <ignore-unknown xmlns='tigase:push:filter:ignore-unknown:0'/>
      <groupchat xmlns='tigase:push:filter:groupchat:0'><room jid='tea@…' allow='mentioned' nick='Ann'/></groupchat>
      <priority xmlns='tigase:push:priority:0'/> <jingle xmlns='tigase:push:jingle:0'/>
      <encrypt xmlns='tigase:push:encrypt:0' alg='aes-128-gcm' max-size='3000'>base64 of 16 bytes</encrypt>

`away` is an attribute. A nick may be missing: who is mentioned in a room is known without it.
"""

import base64
import binascii
from xml.etree.ElementTree import Element

from sync.model.errors import BadRequest
from sync.model.jid import MAX_JID_BYTES, bare
from sync.model.wishes import Allow, PushKey, RoomWish, Wishes
from sync.protocol.fields import boolean, number, required, short
from sync.protocol.names import clark

NAMES = {
    name: f"tigase:push:{name}:0"
    for name in ("filter:muted", "filter:ignore-unknown", "filter:groupchat", "priority", "jingle", "encrypt")
}
AES_128_GCM = "aes-128-gcm"
ENCRYPTION = f"tigase:push:encrypt:{AES_128_GCM}"  # what disco says beside the namespace of encrypt
# What an account's server is to announce: the wishes that take effect. `away` (tigase:push:away:0) is kept and does
# nothing: whether somebody who is online is away, the feed does not tell.
FEATURES = (*NAMES.values(), ENCRYPTION)

# Of one list, since it is read with every push that is decided: chats, and bytes of their JIDs and nicks together.
MAX_LISTED, MAX_LISTED_BYTES = 1000, 65_536
KEY_BYTES = 16
# tigase-server's default; its payload may be as small as its 64 bytes of header and one block of text.
DEFAULT_MAX_SIZE, MIN_MAX_SIZE, MAX_MAX_SIZE = 3000, 128, 65_536

_MUTED = clark(NAMES["filter:muted"], "muted")
_UNKNOWN = clark(NAMES["filter:ignore-unknown"], "ignore-unknown")
_ROOMS = clark(NAMES["filter:groupchat"], "groupchat")
_PRIORITY = clark(NAMES["priority"], "priority")
_JINGLE = clark(NAMES["jingle"], "jingle")
_ENCRYPT = clark(NAMES["encrypt"], "encrypt")


def decode_wishes(enable: Element) -> tuple[Wishes, PushKey | None]:
    """What `<enable/>` asks for. The key is apart, so that nothing that is stored ever held it unsealed."""
    muted, rooms = _single(enable, _MUTED, "muted"), _single(enable, _ROOMS, "groupchat")
    wishes = Wishes(
        muted=frozenset(_chats(muted, "item", "muted")) if muted is not None else frozenset(),
        ignore_unknown=_single(enable, _UNKNOWN, "ignore-unknown") is not None,
        rooms=_room_wishes(rooms) if rooms is not None else None,
        away=boolean(enable.get("away", "false"), "away"),
        priority=_single(enable, _PRIORITY, "priority") is not None,
        jingle=_single(enable, _JINGLE, "jingle") is not None,
    )
    encrypt = _single(enable, _ENCRYPT, "encrypt")
    return wishes, _push_key(encrypt) if encrypt is not None else None


def _single(enable: Element, tag: str, name: str) -> Element | None:
    found = enable.findall(tag)
    if len(found) > 1:
        raise BadRequest(f"'{name}' comes twice.")
    return found[0] if found else None


def _listed(parent: Element, child: str, name: str) -> list[Element]:
    # The library that sends these lists leaves the namespace of the parent in force.
    items = parent.findall(parent.tag[: parent.tag.index("}") + 1] + child)
    if len(items) > MAX_LISTED:
        raise BadRequest(f"'{name}' lists more than {MAX_LISTED} chats.")
    if sum(len(text.encode(errors="replace")) for item in items for text in item.attrib.values()) > MAX_LISTED_BYTES:
        raise BadRequest(f"'{name}' is longer than {MAX_LISTED_BYTES} bytes.")
    return items


def _chats(parent: Element, child: str, name: str) -> list[str]:
    return [bare(required(item, "jid", MAX_JID_BYTES)) for item in _listed(parent, child, name)]


def _room_wishes(parent: Element) -> tuple[RoomWish, ...]:
    jids = _chats(parent, "room", "groupchat")
    if len(set(jids)) < len(jids):
        raise BadRequest("'groupchat' lists a room twice.")
    wishes = []
    for jid, item in zip(jids, _listed(parent, "room", "groupchat"), strict=True):
        if item.get("allow") not in tuple(Allow):
            raise BadRequest("'allow' must be 'always', 'mentioned' or 'never'.")
        nick = item.get("nick")
        wishes.append(RoomWish(jid, Allow(item.get("allow", "")), short(nick, "nick") if nick else None))
    return tuple(wishes)


def _push_key(encrypt: Element) -> PushKey:
    if encrypt.get("alg", "").lower() != AES_128_GCM:
        raise BadRequest(f"'alg' of 'encrypt' must be '{AES_128_GCM}'.")
    text = (encrypt.text or "").strip()
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest("'encrypt' must hold a key in base64.") from None
    if len(key) != KEY_BYTES:
        raise BadRequest(f"'encrypt' must hold a key of {KEY_BYTES} bytes.")
    asked = encrypt.get("max-size")
    size = number(asked) if asked is not None else DEFAULT_MAX_SIZE
    if size is None or size < MIN_MAX_SIZE:
        raise BadRequest(f"'max-size' must be a number from {MIN_MAX_SIZE}.")
    return PushKey(text, min(size, MAX_MAX_SIZE))
