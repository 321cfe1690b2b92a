"""Publishes of other servers to our nodes (XEP-0357 §7, the pubsub profile of a push service), and the word that a node
is no more (§8).

Reads who publishes to which node with which secret, and how urgent it is; of the summary no value is kept. A pubsub
service of ours does nothing but take such publishes. Whether the node exists is for the registry to say.
"""

from xml.etree.ElementTree import Element, SubElement

from sync.model.errors import BadRequest, FeatureNotImplemented
from sync.model.notification import Notification, Urgency
from sync.protocol import forms
from sync.protocol.fields import number, short
from sync.protocol.names import DATA, PUBLISH_OPTIONS, PUBSUB, PUBSUB_ERRORS, PUSH, PUSH_SUMMARY, clark
from sync.protocol.wishes import NAMES

PUBSUB_QUERY = clark(PUBSUB, "pubsub")
_PUBLISH, _ITEM, _OPTIONS = (clark(PUBSUB, name) for name in ("publish", "item", "publish-options"))
_NOTIFICATION = clark(PUSH, "notification")
_ENCRYPTED, _JINGLE, _PRIORITY = (
    clark(NAMES[extension], name)
    for extension, name in (("encrypt", "encrypted"), ("jingle", "jingle"), ("priority", "priority"))
)
_FIELD, _VALUE = clark(DATA, "field"), clark(DATA, "value")


def decode_notification(payload: Element, *, kind: str, sender: str) -> Notification:
    """The payload `<pubsub/>` of an IQ of type `kind` from the JID `sender`."""
    children = list(payload)
    if kind != "set" or (children and children[0].tag != _PUBLISH):
        raise FeatureNotImplemented("Notifications can be published here, and nothing else is done.")
    if not children or len(children) > 2 or any(child.tag != _OPTIONS for child in children[1:]):
        raise BadRequest("Wanted is one 'publish', and at most one 'publish-options'.")
    publish, *options = children
    node = publish.get("node")
    if not node:
        raise BadRequest("'node' is missing.", application=("nodeid-required", PUBSUB_ERRORS))
    return Notification(
        publisher=sender,
        node=short(node, "node"),
        **(_options(options[0]) if options else {}),
        urgency=_urgency(_notification(publish)),
    )


def _notification(publish: Element) -> Element:
    """XEP-0060 §7.1.3.5, §7.1.3.6: what is wrong with an item is said in its words."""
    if len(publish) == 0:
        raise BadRequest("There is no 'item'.", application=("item-required", PUBSUB_ERRORS))
    if len(publish) > 1 or publish[0].tag != _ITEM:
        raise BadRequest("A publish has one 'item' here.")
    item = publish[0]
    if len(item) == 0:
        raise BadRequest("The 'item' is empty.", application=("payload-required", PUBSUB_ERRORS))
    if len(item) > 1 or item[0].tag != _NOTIFICATION:
        raise BadRequest("An 'item' holds one 'notification' here.", application=("invalid-payload", PUBSUB_ERRORS))
    return item[0]


def _options(options: Element) -> dict[str, str | None]:
    found = options.findall(forms.FORM)
    if len(found) > 1:
        raise BadRequest("There is more than one form of publish-options.")
    fields = forms.read(found[0]) if found else {}
    # XEP-0357 §5: "a data form of FORM_TYPE http://jabber.org/protocol/pubsub#publish-options", handed on in a publish
    if fields.get(forms.FORM_TYPE) != (PUBLISH_OPTIONS,):
        return {}
    # fpush's README: `pushModule` says which app the node, a push token, is of.
    return {"secret": _single(fields, "secret"), "module": _single(fields, "pushModule")}


def _single(fields: forms.Fields, var: str) -> str | None:
    values = fields.get(var, ())
    if len(values) > 1:
        raise BadRequest(f"'{var}' must have one value.")
    return short(values[0], var) if values and values[0] else None


def _urgency(notification: Element) -> Urgency:
    """By what servers are known to say: Tigase's elements (its own server's, and of Prosody's modules after it), then
    the summary.
    """
    encrypted, jingle = notification.find(_ENCRYPTED), notification.find(_JINGLE)
    if encrypted is not None:
        return Urgency.CALL if encrypted.get("type") == "voip" else Urgency.MESSAGE
    if jingle is not None:
        # The other actions are about calls that another device took; nothing rings here that they could end.
        return Urgency.CALL if jingle.get("action") == "propose" else Urgency.REST
    priority = notification.findtext(_PRIORITY)
    if priority is not None:
        return Urgency.REST if priority.strip() == "low" else Urgency.MESSAGE
    summaries = (_values(form) for form in notification.iterfind(forms.FORM))
    summary = next((fields for fields in summaries if fields.get(forms.FORM_TYPE) == PUSH_SUMMARY), None)
    return Urgency.MESSAGE if summary is None or _tells_of_something(summary) else Urgency.REST


def _tells_of_something(summary: dict[str, str]) -> bool:
    """mod_cloud_notify counts everything as one message, and gives a body (its own, where the operator wants none of
    the user's) only to what has one. mod_push counts nothing, and has a summary only for what has a body.
    """
    if "message-count" not in summary or "last-message-body" in summary:
        return True
    return bool(number(summary.get("pending-subscription-count", "")))


def _values(form: Element) -> dict[str, str]:
    """The first value of each field that has one: mod_cloud_notify sends all fields, and those without a word empty.
    Nothing is refused: who sent the summary cannot mend it, and we only look for hints.
    """
    fields = ((field.get("var", ""), field.find(_VALUE)) for field in form.iterfind(_FIELD))
    return {var: value.text or "" for var, value in fields if value is not None}


def revoked(node: str, account: str) -> Element:
    """XEP-0357 §8: the node takes nothing more of this account; a message to its bare JID says so."""
    pubsub = Element(PUBSUB_QUERY, {"node": node})
    SubElement(pubsub, clark(PUBSUB, "affiliation"), {"jid": account, "affiliation": "none"})
    return pubsub
