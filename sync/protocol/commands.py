"""Ad-hoc commands (XEP-0050) at the component: a phone registers itself and leaves (PUSH §4).

One stage each: without a form the command answers with one, with a form it does its work. No session is kept, so none
can expire; a session id that comes is given back. Which apps are configured is not known here. Refusals carry the
conditions of XEP-0050 §4.4 and name the field, never its value: tokens are secrets.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement

from sync.model.errors import BadRequest, Forbidden
from sync.model.jid import bare, resource
from sync.model.query import RegisterDevice, Registration, UnregisterDevice
from sync.protocol import forms
from sync.protocol.fields import MAX_FIELD_BYTES, short
from sync.protocol.forms import Question
from sync.protocol.names import COMMANDS, clark

COMMAND = clark(COMMANDS, "command")
REGISTER, UNREGISTER = "register-device", "unregister-device"
NAMES: Mapping[str, str] = {REGISTER: "Register a device for push", UNREGISTER: "Unregister a device"}
_QUESTIONS: Mapping[str, tuple[Question, ...]] = {
    REGISTER: (
        Question(var="provider", label="App", required=True),
        Question(var="device-token", label="Push token", required=True),
        Question(var="device-second-token", label="VoIP push token"),
        Question(var="device-id", label="Device id, else the resource"),
        Question(var="device-name", label="Device name"),
    ),
    UNREGISTER: (
        Question(var="provider", label="App", required=True),
        Question(var="device-token", label="Push token", required=True),
    ),
}
# APNs tokens are 64 digits today and "not of a fixed length" (Apple); the bounds keep out what is no token at all.
_TOKEN = re.compile(r"(?:[0-9a-f]{2}){16,100}")
_MAX_NAME_BYTES = 256
_PAYLOAD = ("bad-payload", COMMANDS)


@dataclass(frozen=True, slots=True)
class AskForm:
    """The command was called without a form."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """The command was called off."""


@dataclass(frozen=True, slots=True)
class Command:
    """A call of a command: which, the session id to answer with, and what is to be done."""

    node: str
    session_id: str
    request: AskForm | Cancel | RegisterDevice | UnregisterDevice


def decode_command(payload: Element, *, sender: str, request_id: str) -> Command:
    """The payload of an IQ set from the full JID `sender`; `request_id` (the IQ's) makes the session id of a new
    session.
    """
    node = payload.get("node", "")
    # PUSH §4: an unknown command is bad-request with the ad-hoc condition.
    if payload.tag != COMMAND or node not in NAMES:
        raise BadRequest("There is no such command.", application=("bad-action", COMMANDS))
    session_id = payload.get("sessionid") or f"{node}:{request_id}"
    if len(session_id) > MAX_FIELD_BYTES:
        raise BadRequest("'sessionid' is too long.", application=("bad-sessionid", COMMANDS))
    action = payload.get("action", "execute")
    if action == "cancel":
        return Command(node, session_id, Cancel())
    if action == "prev":
        raise BadRequest("The command has one stage.", application=("bad-action", COMMANDS))
    # XEP-0050 §3.4: in a single stage execute, next and complete are the same.
    if action not in ("execute", "next", "complete"):
        raise BadRequest("'action' is unknown.", application=("malformed-action", COMMANDS))
    found = payload.findall(forms.FORM)
    if not found:
        return Command(node, session_id, AskForm())
    if len(found) > 1:
        raise BadRequest("There is more than one form.", application=_PAYLOAD)
    fields = _fields(node, found[0])
    return Command(node, session_id, _register(fields, sender) if node == REGISTER else _unregister(fields, sender))


def _fields(node: str, form: Element) -> dict[str, str]:
    """The form's fields, each known and with at most one value; empty ones are left out."""
    known = {question.var for question in _QUESTIONS[node]}
    fields: dict[str, str] = {}
    for var, values in forms.read(form, application=_PAYLOAD).items():
        if var == forms.FORM_TYPE:
            continue
        if var not in known:
            raise BadRequest("The form has an unknown field.", application=_PAYLOAD)
        if len(values) > 1:
            raise BadRequest(f"'{var}' must have one value.", application=_PAYLOAD)
        if values and values[0]:
            fields[var] = values[0]
    return fields


def _needed(fields: Mapping[str, str], var: str, limit: int) -> str:
    if var not in fields:
        raise BadRequest(f"'{var}' is missing.", application=_PAYLOAD)
    try:
        return short(fields[var], var, limit)
    except BadRequest as refusal:
        raise BadRequest(refusal.text, application=_PAYLOAD) from None


def _optional(fields: Mapping[str, str], var: str, limit: int) -> str | None:
    return _needed(fields, var, limit) if var in fields else None


def _token(fields: Mapping[str, str], var: str) -> str:
    # Hexadecimal digits have no case: the same token must not be two.
    token = _needed(fields, var, MAX_FIELD_BYTES).lower()
    if _TOKEN.fullmatch(token) is None:
        raise BadRequest(f"'{var}' must be 32 to 200 hexadecimal digits.", application=_PAYLOAD)
    return token


def _account(sender: str) -> str:
    account = bare(sender)
    user, at, _ = account.partition("@")
    if not at or not user:
        raise Forbidden("Only accounts have devices.")
    return account


def _register(fields: Mapping[str, str], sender: str) -> RegisterDevice:
    account, name = _account(sender), resource(sender)
    if name is None:
        raise Forbidden("A device registers from its own session.")
    return RegisterDevice(
        account=account,
        resource=name,
        device_id=_optional(fields, "device-id", MAX_FIELD_BYTES) or name,
        app=_needed(fields, "provider", _MAX_NAME_BYTES),
        alert_token=_token(fields, "device-token"),
        voip_token=_token(fields, "device-second-token") if "device-second-token" in fields else None,
        name=_optional(fields, "device-name", _MAX_NAME_BYTES),
    )


def _unregister(fields: Mapping[str, str], sender: str) -> UnregisterDevice:
    app, token = _needed(fields, "provider", _MAX_NAME_BYTES), _token(fields, "device-token")
    return UnregisterDevice(account=_account(sender), app=app, alert_token=token)


def _answer(command: Command, status: str) -> Element:
    return Element(COMMAND, {"node": command.node, "sessionid": command.session_id, "status": status})


def form(command: Command) -> Element:
    """The answer to `AskForm`: what to fill in."""
    answer = _answer(command, "executing")
    actions = SubElement(answer, clark(COMMANDS, "actions"), {"execute": "complete"})
    SubElement(actions, clark(COMMANDS, "complete"))
    answer.append(forms.empty(NAMES[command.node], _QUESTIONS[command.node]))
    return answer


def canceled(command: Command) -> Element:
    """The answer to `Cancel`."""
    return _answer(command, "canceled")


def registered(command: Command, registration: Registration) -> Element:
    """The answer to `RegisterDevice`: what to enable push with."""
    answer = _answer(command, "completed")
    fields: list[tuple[str, tuple[str, ...]]] = [("node", (registration.node,)), ("secret", (registration.secret,))]
    if registration.features:
        fields.append(("features", registration.features))
    fields.append(("max-payload-size", (str(registration.max_payload_bytes),)))
    answer.append(forms.result(fields))
    return answer


def unregistered(command: Command) -> Element:
    """The answer to `UnregisterDevice`."""
    return _answer(command, "completed")
