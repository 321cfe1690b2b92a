"""Push notifications (XEP-0357), the user's side: enable and disable at the own server, which delegates them to us.

Reads which node at which app server is meant, with the publish-options and their secret, and what the device wishes.
Extensions of other kinds that clients put into `enable` are left alone. Whether the node exists is for the registry to
say.
"""

from xml.etree.ElementTree import Element

from sync.model.errors import BadRequest, ServiceUnavailable
from sync.model.jid import MAX_JID_BYTES, bare, resource
from sync.model.query import DisablePush, EnablePush
from sync.protocol import forms
from sync.protocol.fields import required, short
from sync.protocol.names import PUBLISH_OPTIONS, PUSH, clark
from sync.protocol.wishes import decode_wishes

ENABLE = clark(PUSH, "enable")
DISABLE = clark(PUSH, "disable")
# They go with every publish; fpush refuses more than five fields.
MAX_OPTIONS, MAX_OPTIONS_BYTES = 32, 4096


def decode_push(payload: Element, *, kind: str, sender: str) -> EnablePush | DisablePush:
    """The payload of an IQ of type `kind` from the full JID `sender`."""
    # XEP-0357 §5, §6: both are IQs of type set.
    if kind != "set":
        raise BadRequest("Push is enabled and disabled by IQs of type set.")
    if payload.tag == ENABLE:
        (wishes, push_key), options = decode_wishes(payload), _options(payload)
        return EnablePush(
            account=bare(sender),
            resource=resource(sender),
            jid=required(payload, "jid", MAX_JID_BYTES),
            node=required(payload, "node"),
            secret=_secret(options),
            options=tuple(options.items()),
            wishes=wishes,
            push_key=push_key,
        )
    if payload.tag == DISABLE:
        jid, node = required(payload, "jid", MAX_JID_BYTES), payload.get("node")
        return DisablePush(account=bare(sender), jid=jid, node=short(node, "node") if node else None)
    raise ServiceUnavailable("Push can be enabled and disabled.")


def _options(payload: Element) -> forms.Fields:
    """The fields of the publish-options, FORM_TYPE among them; none where there is no such form."""
    found: forms.Fields | None = None
    for form in payload.iterfind(forms.FORM):
        fields = forms.read(form)
        # XEP-0357 §5: "a data form of FORM_TYPE http://jabber.org/protocol/pubsub#publish-options"
        if fields.get(forms.FORM_TYPE) != (PUBLISH_OPTIONS,):
            continue
        if found is not None:
            raise BadRequest("There is more than one form of publish-options.")
        found = fields
    found = found or {}
    size = sum(len(text.encode()) for var, values in found.items() for text in (var, *values))
    if len(found) > MAX_OPTIONS or size > MAX_OPTIONS_BYTES:
        raise BadRequest("The publish-options are too long.")
    return found


def _secret(options: forms.Fields) -> str | None:
    found = options.get("secret")
    if not found:
        return None
    if len(found) != 1:
        raise BadRequest("'secret' must have one value.")
    return short(found[0], "secret") or None
