"""A client that speaks XEP-0490 and nothing of ours: it wants to hear of its displayed markers (XEP-0163 §4)."""

import hashlib
import xml.etree.ElementTree as ET
from base64 import b64encode
from xml.sax.saxutils import quoteattr

from tests.system.xmpp_client import XmppClient

MDS, SID = "urn:xmpp:mds:displayed:0", "urn:xmpp:sid:0"
PUBSUB, EVENT = "http://jabber.org/protocol/pubsub", "http://jabber.org/protocol/pubsub#event"
DISCO, CAPS = "http://jabber.org/protocol/disco#info", "http://jabber.org/protocol/caps"
OPTIONS = {"persist_items": "true", "access_model": "whitelist"}  # ejabberd 23.01 refuses the others of XEP-0490
_FEATURES = sorted((DISCO, f"{MDS}+notify"))
_VER = b64encode(hashlib.sha1("<".join(("client/pc//", *_FEATURES, "")).encode()).digest()).decode()  # noqa: S324 - XEP-0115

Marker = tuple[str, str, str]  # conversation, id, by


class DisplayedClient(XmppClient):
    """One session; `heard` are the markers that came as notifications."""

    async def listen(self) -> None:
        """Be available, and say what is wanted. Returns when the server knows."""
        self.send(f"<presence><c xmlns='{CAPS}' hash='sha-1' node='urn:test' ver='{_VER}'/></presence>")
        await self.ping()
        await self.ping()  # the server has had the answer to its question about us

    def on_element(self, element: ET.Element) -> None:
        if element.get("type") == "get" and (asked := element.find(f"{{{DISCO}}}query")) is not None:
            features = "".join(f"<feature var='{feature}'/>" for feature in _FEATURES)
            node = f" node={quoteattr(asked.get('node', ''))}" if asked.get("node") else ""
            to = f" to={quoteattr(element.get('from', ''))}" if element.get("from") else ""
            self.send(
                f"<iq type='result' id={quoteattr(element.get('id', ''))}{to}><query xmlns='{DISCO}'{node}>"
                f"<identity category='client' type='pc'/>{features}</query></iq>"
            )
        else:
            super().on_element(element)

    @property
    def heard(self) -> list[Marker]:
        events = [event for element in self.received for event in element.iterfind(f"{{{EVENT}}}event")]
        return [found for event in events for found in markers(event, EVENT)]

    async def hears(self, marker: Marker) -> None:
        """Returns when it has."""
        await self.wait_for(
            lambda e: any(marker in markers(event, EVENT) for event in e.iterfind(f"{{{EVENT}}}event")), past=True
        )

    async def read(self, jid: str, archive_id: str, *, by: str | None = None, **options: str) -> None:
        """Publish a marker; `options` in place of those that both servers take."""
        chosen = "".join(
            f"<field var='pubsub#{name}'><value>{value}</value></field>" for name, value in (options or OPTIONS).items()
        )
        await self.iq(
            "set",
            f"<pubsub xmlns='{PUBSUB}'><publish node='{MDS}'><item id={quoteattr(jid)}><displayed xmlns='{MDS}'>"
            f"<stanza-id xmlns='{SID}' by={quoteattr(by or self.account)} id={quoteattr(archive_id)}/></displayed>"
            "</item></publish><publish-options><x xmlns='jabber:x:data' type='submit'>"
            "<field var='FORM_TYPE' type='hidden'>"
            f"<value>{PUBSUB}#publish-options</value></field>{chosen}</x></publish-options></pubsub>",
        )

    async def kept(self) -> set[Marker]:
        """What its own storage says (XEP-0490 §4.4)."""
        answer = await self.iq("get", f"<pubsub xmlns='{PUBSUB}'><items node='{MDS}'/></pubsub>", to=self.account)
        return set(markers(answer[0], PUBSUB))

    async def configuration(self) -> dict[str, str]:
        """Of the node, as its owner sees it."""
        answer = await self.iq(
            "get", f"<pubsub xmlns='{PUBSUB}#owner'><configure node='{MDS}'/></pubsub>", to=self.account
        )
        fields = {field.get("var", ""): field for field in answer.iter("{jabber:x:data}field")}
        return {
            name: fields[f"pubsub#{name}"].findtext("{jabber:x:data}value") or ""
            for name in ("persist_items", "max_items", "send_last_published_item", "access_model")
        }


def markers(around: ET.Element, namespace: str) -> list[Marker]:
    """The markers among the items of an event or an answer."""
    found = []
    for items in around.iterfind(f"{{{namespace}}}items"):
        for item in items.iterfind(f"{{{namespace}}}item") if items.get("node") == MDS else ():
            place = item.find(f"{{{MDS}}}displayed/{{{SID}}}stanza-id")
            assert place is not None
            found.append((item.get("id", ""), place.get("id", ""), place.get("by", "")))
    return found
