"""Publishing to app servers (XEP-0357 §7), as Prosody, ejabberd and Tigase do it, and what their answers mean.

Where the client asked for it (`tigase:push:encrypt:0`), an encrypted payload takes the place of the summary: nothing
is told in plain words. It is JSON under AES-128-GCM, the tag of 16 bytes behind it, in `<encrypted iv='…'>`, of a call
with `type='voip'`. Sources: xeps.tigase.net, "Encrypted Push Notifications" §4.4; Prosody's
mod_cloud_notify_encrypted; tigase-server's EncryptedPushNotificationExtension. Its reader is Siskin
(NotificationService.swift, `Payload`, and CallManager.swift, `VoIPPayload`), and it ends at a `type` that it does not
know: what is neither chat, groupchat nor call has none.
"""

import base64
import json
from typing import Any
from xml.etree.ElementTree import Element, SubElement

from sync.model.errors import Refused
from sync.model.publish import About, AppServer, Cipher, Excerpt, Notice
from sync.model.push import PushOutcome, Verdict
from sync.protocol import forms
from sync.protocol.names import (
    CLIENT,
    DATA,
    EME,
    LEGACY_PGP,
    OMEMO,
    OPENPGP,
    PUBSUB,
    PUSH,
    PUSH_SUMMARY,
    clark,
)
from sync.protocol.serialise import parse
from sync.protocol.wishes import NAMES

_ENCRYPTED = frozenset(
    {clark(namespace, "encrypted") for namespace in OMEMO}
    | {clark(OPENPGP, "openpgp"), clark(LEGACY_PGP, "x"), clark(EME, "encryption")}
)
_PUBSUB, _AFFILIATION = clark(PUBSUB, "pubsub"), clark(PUBSUB, "affiliation")
_ERROR = "}error"
MAX_TEXT_BYTES = 1024  # of a message's text: a notification shows less
HEADER_BYTES, TAG_BYTES = 64, 16  # tigase-server leaves so much of the size that a client allows
# RFC 6120 §8.3.3. An app server may write any name there; what is none of these goes into no log and no metric.
CONDITIONS = frozenset(
    {
        *("bad-request", "conflict", "feature-not-implemented", "forbidden", "gone", "internal-server-error"),
        *("item-not-found", "jid-malformed", "not-acceptable", "not-allowed", "not-authorized", "policy-violation"),
        *("recipient-unavailable", "redirect", "registration-required", "remote-server-not-found"),
        *("remote-server-timeout", "resource-constraint", "service-unavailable", "subscription-required"),
        *("undefined-condition", "unexpected-request"),
    }
)
# What is said of servers in between, whatever type they give it: the app server has not refused anything.
_AWAY = frozenset({"remote-server-not-found", "remote-server-timeout"})
_UNANSWERED = {"not-connected": Verdict.NOT_SENT, "no-answer": Verdict.UNCERTAIN, "disconnected": Verdict.UNCERTAIN}


# ---- what is kept ----------------------------------------------------------------------------------------------------


def written(server: AppServer) -> str:
    """The app server as one text, to be sealed."""
    return json.dumps([server.jid, server.node, server.options], ensure_ascii=False, separators=(",", ":"))


def read(text: str) -> AppServer:
    """What `written` wrote."""
    jid, node, options = json.loads(text)
    return AppServer(jid, node, tuple((var, tuple(values)) for var, values in options))


# ---- what is told ----------------------------------------------------------------------------------------------------


def excerpt(stanza: str) -> Excerpt | None:
    """Of a stored message, what a notification can show of it; None where it names no sender."""
    message = parse(stanza)
    sender = message.get("from")
    if not sender:
        return None
    text = message.findtext(clark(CLIENT, "body"))
    hidden = any(child.tag in _ENCRYPTED for child in message)
    return Excerpt(sender, clip(text, MAX_TEXT_BYTES) if text and not hidden else None)


def clip(text: str, size: int) -> str:
    """The first whole characters of a text, at most `size` bytes of them."""
    return text.encode()[: max(size, 0)].decode(errors="ignore")


def letter(notice: Notice, max_bytes: int) -> bytes:
    """What is encrypted for the client; of a long text the beginning, so that `max_bytes` hold the whole payload."""
    told: dict[str, Any] = {"unread": notice.count}
    if notice.sender is not None:
        told["sender"] = notice.sender if notice.about is About.CALL else notice.sender.partition("/")[0]
    if notice.about is not None:
        told["type"] = notice.about.value
    if notice.nickname is not None:
        told["nickname"] = notice.nickname
    if notice.sid is not None:
        told |= {"sid": notice.sid, "media": list(notice.media)}  # there even when empty: else the call has ended
    room = (max_bytes - HEADER_BYTES) // 4 * 3 - TAG_BYTES  # base64 makes four bytes of each three
    text = notice.text
    while text and (over := len(_json(told | {"message": text})) - room) > 0:
        text = clip(text, len(text.encode()) - over)
    return _json(told | {"message": text} if text else told)


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def publish(server: AppServer, notice: Notice, *, cipher: Cipher | None, says_priority: bool) -> Element:
    """The payload of the IQ set. `cipher`: the encrypted letter, which then takes the summary's place."""
    pubsub = Element(_PUBSUB)
    item = SubElement(SubElement(pubsub, clark(PUBSUB, "publish"), {"node": server.node}), clark(PUBSUB, "item"))
    notification = SubElement(item, clark(PUSH, "notification"))
    notification.append(_summary(notice) if cipher is None else _encrypted(notice, cipher))
    if says_priority and notice.urgent:
        SubElement(notification, clark(NAMES["priority"], "priority")).text = "high"
    if server.options:
        SubElement(pubsub, clark(PUBSUB, "publish-options")).append(_form(server.options))
    return pubsub


def _summary(notice: Notice) -> Element:
    fields: list[tuple[str, tuple[str, ...]]] = [
        (forms.FORM_TYPE, (PUSH_SUMMARY,)),
        ("message-count", (str(notice.count),)),
    ]
    if notice.requests:
        fields.append(("pending-subscription-count", (str(notice.requests),)))
    if notice.sender is not None and notice.names_sender:
        fields.append(("last-message-sender", (notice.sender,)))
    if notice.body:
        fields.append(("last-message-body", (notice.body,)))
    return _form(tuple(fields))


def _form(fields: tuple[tuple[str, tuple[str, ...]], ...]) -> Element:
    """A form of type submit: xmpp-parsers, with which fpush reads, takes none without a type."""
    form = Element(forms.FORM, {"type": "submit"})
    for var, values in fields:
        field = SubElement(form, clark(DATA, "field"), {"var": var})
        for value in values:
            SubElement(field, clark(DATA, "value")).text = value
    return form


def _encrypted(notice: Notice, cipher: Cipher) -> Element:
    encrypted = Element(clark(NAMES["encrypt"], "encrypted"), {"iv": base64.b64encode(cipher.iv).decode()})
    if notice.about is About.CALL:
        encrypted.set("type", "voip")
    encrypted.text = base64.b64encode(cipher.text).decode()
    return encrypted


# ---- what comes back -------------------------------------------------------------------------------------------------


def refused(refusal: Refused) -> PushOutcome:
    """What a publish without a result has come to. `Verdict.REJECTED` is what counts against the app server."""
    if refusal.answer is None:
        verdict = _UNANSWERED.get(refusal.condition, Verdict.UNCERTAIN)
        return PushOutcome(verdict=verdict, reason=refusal.condition)
    reason = refusal.condition if refusal.condition in CONDITIONS else "undefined-condition"
    # PUSH §4: `wait` never counts.
    if reason in _AWAY or _type(refusal.answer) == "wait":
        return PushOutcome(verdict=Verdict.RETRY, reason=reason)
    return PushOutcome(verdict=Verdict.DEAD_TOKEN if reason == "item-not-found" else Verdict.REJECTED, reason=reason)


def _type(answer: Element) -> str | None:
    return next((child.get("type") for child in answer if child.tag.endswith(_ERROR)), None)


def removed(message: Element) -> str | None:
    """XEP-0357 §8: the node that an app server says nobody may publish to any more; None in any other message."""
    found = message.find(_PUBSUB)
    if found is None or found.get("node") is None:
        return None
    gone = any(item.get("affiliation") == "none" for item in found.iterfind(_AFFILIATION))
    return found.get("node") if gone else None
