"""Events of the kind `pep` (docs/feed.md §5): what an account keeps about its conversations in its own storage.

Displayed markers for the account's own devices (XEP-0490), and bookmarks of rooms (XEP-0402) with the notices that the
account wants of them (XEP-0492). What stands in such an item is up to the account's clients: an item that names no
conversation is `Nothing`, not an error of the module.
"""

from datetime import datetime
from xml.etree.ElementTree import Element

from sync.model.conversation import Direction, Kind, Notify
from sync.model.event import Bookmark, Content, Displayed, FeedPosition, MessageEvent, Nothing
from sync.protocol.fields import Refused, claim, jid, resource_part, storable
from sync.protocol.groupchat import STANZA_ID
from sync.protocol.names import BOOKMARKS, MDS, NOTIFICATION_SETTINGS, NOTIFICATION_SETTINGS_0, clark

_DISPLAYED, _CONFERENCE = clark(MDS, "displayed"), clark(BOOKMARKS, "conference")
_NICK, _EXTENSIONS = clark(BOOKMARKS, "nick"), clark(BOOKMARKS, "extensions")
_MAX_NICK_CHARS = 1023  # RFC 7622 §3.4: a nickname is a resource
# Each <notify/> with its settings and the names of their attributes: category, type.
_NOTIFY = {
    clark(namespace, "notify"): ({clark(namespace, value.value): value for value in Notify}, attributes)
    for namespace, attributes in (
        (NOTIFICATION_SETTINGS, ("identity-category", "identity-type")),
        (NOTIFICATION_SETTINGS_0, ("client-category", "client-type")),
    )
}


def decode_pep(element: Element, position: FeedPosition, account: str, at: datetime) -> MessageEvent:
    """What the component itself had published is an echo of what is known. Raises Refused."""
    action, resource = element.get("action"), element.get("resource") or None
    if action not in ("publish", "retract"):
        raise Refused("action")
    if resource is not None:
        resource_part(resource, "resource")
    peer, kind, content = _meaning(element, account, published=action == "publish")
    if element.get("echo") == "true":
        content = Nothing("echo")
    return MessageEvent(
        position=position,
        account=account,
        at=at,
        direction=Direction.OUT,
        peer=peer,
        sender=f"{account}/{resource}" if resource else account,
        content=content,
        stanza="",
        kind=kind,
        resource=resource,
    )


def _meaning(element: Element, account: str, *, published: bool) -> tuple[str, Kind, Content]:
    node, item = element.get("node"), jid(element.get("item"))
    if node not in (MDS, BOOKMARKS):
        return account, Kind.CHAT, Nothing("node")
    if item is None:
        return account, Kind.CHAT, Nothing("item")
    if node == BOOKMARKS:
        # XEP-0402 §2: the id is the room's bare JID.
        if "/" in item or "@" not in item:
            return account, Kind.CHAT, Nothing("item")
        return item, Kind.GROUP, _bookmark(element.find(_CONFERENCE)) if published else Bookmark()
    if not published:
        return item, Kind.CHAT, Nothing("marker withdrawn")
    return _displayed(element.find(_DISPLAYED), item, account)


def _displayed(element: Element | None, item: str, account: str) -> tuple[str, Kind, Content]:
    given = None if element is None else element.find(STANZA_ID)
    target = None if given is None else given.get("id")
    if given is None or not target or not storable(target):
        return item, Kind.CHAT, Nothing("marker without id")
    by, marker = given.get("by"), Displayed(target, (target,))
    # XEP-0490 §4.2: in rooms it is the room's id, elsewhere (private messages of rooms, too) the own server's.
    if by == account:
        return item, Kind.CHAT, marker
    if by == item and "/" not in item:
        return item, Kind.GROUP, marker
    return item, Kind.CHAT, Nothing("foreign stanza-id")


def _bookmark(conference: Element | None) -> Content:
    if conference is None:
        return Nothing("item")
    extensions = conference.find(_EXTENSIONS)
    nick = claim((conference.findtext(_NICK) or "").strip(), _MAX_NICK_CHARS)
    return Bookmark(None if extensions is None else _notify(extensions), nick)


def _notify(extensions: Element) -> Notify | None:
    """The setting for a phone: pushes are for phones (XEP-0492 §3, from the most to the least specific)."""
    found: dict[int, Notify] = {}
    for notify in extensions:
        settings, (category, sort) = _NOTIFY.get(notify.tag, ({}, ("", "")))
        for child in notify if settings else ():
            value = settings.get(child.tag)
            if value is not None:
                found.setdefault(_rank(child.get(category), child.get(sort), category), value)
    return next((found[rank] for rank in (0, 1, 2) if rank in found), None)


def _rank(category: str | None, sort: str | None, attribute: str) -> int:
    # The older form knows clients only.
    if attribute == "client-category" and sort is not None:
        category = "client"
    if category is None and sort is None:
        return 2
    if category != "client":
        return 3
    return {"phone": 0, None: 1}.get(sort, 3)
