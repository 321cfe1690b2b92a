"""Ad-hoc commands (XEP-0050) at the component: phones register, are listed, and leave (PUSH §4).

`register-device` and `unregister-device` are those of Tigase's clients (Siskin, Snikket); `register-push-…`,
`list-push-registrations` and `unregister-push` are older ones, of ejabberd's contributed mod_push and of oshiya, whose
README files say what the fields mean. GCM has become FCM, and Mozilla's SimplePush WebPush: their names mean those.

One stage each: without a form the command answers with one (a list with the list), with a form it does its work. No
session is kept, so none can expire; a session id that comes is given back. Which apps are configured is not known here.
Refusals carry the conditions of XEP-0050 §4.4 and name the field, never its value: tokens are secrets.
"""

import base64
import binascii
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from xml.etree.ElementTree import Element, SubElement

from sync.model.device import Route
from sync.model.errors import BadRequest, Forbidden
from sync.model.jid import bare, resource
from sync.model.push import Vendor
from sync.model.query import RegisterDevice, Registration, UnregisterDevice
from sync.model.registry import ListDevices, ListedDevice, UnregisterPush
from sync.protocol import forms
from sync.protocol.fields import MAX_FIELD_BYTES, short
from sync.protocol.forms import Fields, Question
from sync.protocol.names import COMMANDS, clark

COMMAND = clark(COMMANDS, "command")
REGISTER, UNREGISTER = "register-device", "unregister-device"
LIST, UNREGISTER_PUSH = "list-push-registrations", "unregister-push"
REGISTER_PUSH: Mapping[str, Vendor] = {
    "register-push-apns": Vendor.APNS,
    "register-push-fcm": Vendor.FCM,
    "register-push-gcm": Vendor.FCM,
    "register-push-webpush": Vendor.WEBPUSH,
    "register-push-mozilla": Vendor.WEBPUSH,
    "register-push-ubuntu": Vendor.UBUNTU,
    "register-push-wns": Vendor.WNS,
}
NAMES: Mapping[str, str] = {
    REGISTER: "Register a device for push",
    UNREGISTER: "Unregister a device",
    **{node: f"Register a device for push ({node.rpartition('-')[2]})" for node in REGISTER_PUSH},
    LIST: "List the devices that are registered for push",
    UNREGISTER_PUSH: "Log devices out of push",
}
_REGISTERING = (
    Question(var="token", label="Push token", required=True),
    Question(var="device-id", label="Device id, else the resource"),
    Question(var="device-name", label="Device name"),
    Question(var="application-id", label="App, where there are several"),
)
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
    **dict.fromkeys(REGISTER_PUSH, _REGISTERING),
    LIST: (),
    UNREGISTER_PUSH: (
        Question(var="nodes", label="Devices", options={}),
        Question(var="device-id", label="Or one by its device id, else the resource"),
    ),
}
_COLUMNS: Mapping[str, str] = {
    "device-name": "Name",
    "device-id": "Device id",
    "provider": "App",
    "node": "Node",
    "state": "State",
    "last-success": "Last push that was accepted",
    "last-error": "Last error",
    "last-error-at": "Time of that error",
}
# APNs tokens are 64 digits today and "not of a fixed length" (Apple); the bounds keep out what is no token at all.
APNS_TOKEN = re.compile(r"(?:[0-9a-f]{2}){16,100}")
_TOKEN_BYTES = range(16, 101)
_MAX_TOKEN_BYTES = 4096  # of other vendors: WebPush's are URLs with keys
_MAX_NAME_BYTES = 256
_MAX_NODES = 100
_PAYLOAD = ("bad-payload", COMMANDS)


@dataclass(frozen=True, slots=True)
class AskForm:
    """The command was called without a form. `account`: whose devices it may list."""

    account: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """The command was called off."""


@dataclass(frozen=True, slots=True)
class Command:
    """A call of a command: which, the session id to answer with, and what is to be done."""

    node: str
    session_id: str
    request: AskForm | Cancel | RegisterDevice | UnregisterDevice | ListDevices | UnregisterPush


def offered(vendors: Collection[Vendor]) -> Mapping[str, str]:
    """The commands to list, names by node: those that can do something while apps of these vendors are configured."""
    return {node: name for node, name in NAMES.items() if vendors and REGISTER_PUSH.get(node, Vendor.APNS) in vendors}


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
    if len(found) > 1:
        raise BadRequest("There is more than one form.", application=_PAYLOAD)
    if not found and node != LIST:
        return Command(node, session_id, AskForm(bare(sender)))
    fields = _fields(node, found[0]) if found else {}
    return Command(node, session_id, _request(node, fields, sender))


def _request(
    node: str, fields: Fields, sender: str
) -> RegisterDevice | UnregisterDevice | ListDevices | UnregisterPush:
    if node == REGISTER:
        return _register(fields, sender)
    if node == UNREGISTER:
        app, token = _needed(fields, "provider", _MAX_NAME_BYTES), _hexadecimal(fields, "device-token")
        return UnregisterDevice(account=_account(sender), app=app, alert_token=token)
    if node == LIST:
        return ListDevices(account=_account(sender))
    if node == UNREGISTER_PUSH:
        return _unregister_push(fields, sender)
    return _register_push(fields, sender, REGISTER_PUSH[node])


def _fields(node: str, form: Element) -> Fields:
    """The form's fields, each known and with as many values as it may have; empty ones are left out."""
    known = {question.var: question for question in _QUESTIONS[node]}
    fields: Fields = {}
    for var, values in forms.read(form, known=known, application=_PAYLOAD).items():
        if var == forms.FORM_TYPE:
            continue
        if var not in known:
            raise BadRequest("The form has an unknown field.", application=_PAYLOAD)
        if len(values) > 1 and known[var].options is None:
            raise BadRequest(f"'{var}' must have one value.", application=_PAYLOAD)
        if given := tuple(value for value in values if value):
            fields[var] = given
    return fields


def _short(text: str, var: str, limit: int) -> str:
    try:
        return short(text, var, limit)
    except BadRequest as refusal:
        raise BadRequest(refusal.text, application=_PAYLOAD) from None


def _needed(fields: Fields, var: str, limit: int) -> str:
    if var not in fields:
        raise BadRequest(f"'{var}' is missing.", application=_PAYLOAD)
    return _short(fields[var][0], var, limit)


def _optional(fields: Fields, var: str, limit: int) -> str | None:
    return _needed(fields, var, limit) if var in fields else None


def _hexadecimal(fields: Fields, var: str) -> str:
    # Hexadecimal digits have no case: the same token must not be two.
    token = _needed(fields, var, MAX_FIELD_BYTES).lower()
    if APNS_TOKEN.fullmatch(token) is None:
        raise BadRequest(f"'{var}' must be 32 to 200 hexadecimal digits.", application=_PAYLOAD)
    return token


def _apns_token(text: str) -> str:
    """In hexadecimal digits; mod_push's clients write it in base64, others as digits."""
    if APNS_TOKEN.fullmatch(text.lower()):
        return text.lower()
    try:
        token = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        token = b""
    if len(token) not in _TOKEN_BYTES:
        raise BadRequest("'token' must be 16 to 100 bytes, hexadecimal or in base64.", application=_PAYLOAD)
    return token.hex()


def _account(sender: str) -> str:
    account = bare(sender)
    user, at, _ = account.partition("@")
    if not at or not user:
        raise Forbidden("Only accounts have devices.")
    return account


def _session(sender: str) -> tuple[str, str]:
    """The account and the resource of a session."""
    account, name = _account(sender), resource(sender)
    if name is None:
        raise Forbidden("A device registers from its own session.")
    return account, name


def _device_id(fields: Fields, name: str) -> str:
    """The device id, else the resource. Some are those of registrations at app servers of others."""
    device_id = _optional(fields, "device-id", MAX_FIELD_BYTES) or name
    if device_id.startswith(f"{Route.PUBLISH}:"):
        raise BadRequest(f"'device-id' must not begin with '{Route.PUBLISH}:'.", application=_PAYLOAD)
    return device_id


def _register(fields: Fields, sender: str) -> RegisterDevice:
    account, name = _session(sender)
    return RegisterDevice(
        account=account,
        resource=name,
        device_id=_device_id(fields, name),
        app=_needed(fields, "provider", _MAX_NAME_BYTES),
        alert_token=_hexadecimal(fields, "device-token"),
        voip_token=_hexadecimal(fields, "device-second-token") if "device-second-token" in fields else None,
        name=_optional(fields, "device-name", _MAX_NAME_BYTES),
    )


def _register_push(fields: Fields, sender: str, vendor: Vendor) -> RegisterDevice:
    account, name = _session(sender)
    token = _needed(fields, "token", _MAX_TOKEN_BYTES)
    return RegisterDevice(
        account=account,
        resource=name,
        device_id=_device_id(fields, name),
        app=_optional(fields, "application-id", _MAX_NAME_BYTES),
        alert_token=_apns_token(token) if vendor is Vendor.APNS else token,
        name=_optional(fields, "device-name", _MAX_NAME_BYTES),
        vendor=vendor,
    )


def _unregister_push(fields: Fields, sender: str) -> UnregisterPush:
    """mod_push: nodes go before a device id, and without either the resource is one."""
    nodes = fields.get("nodes", ())
    if len(nodes) > _MAX_NODES:
        raise BadRequest(f"'nodes' names more than {_MAX_NODES} devices.", application=_PAYLOAD)
    named = _optional(fields, "device-id", MAX_FIELD_BYTES) or resource(sender)
    if named is None and not nodes:
        raise BadRequest("'device-id' is missing.", application=_PAYLOAD)
    return UnregisterPush(
        account=_account(sender),
        device_id=named or "",
        nodes=frozenset(_short(node, "nodes", MAX_FIELD_BYTES) for node in nodes),
    )


# ---- answers ---------------------------------------------------------------------------------------------------------


def _answer(command: Command, status: str) -> Element:
    return Element(COMMAND, {"node": command.node, "sessionid": command.session_id, "status": status})


def form(command: Command, devices: Iterable[ListedDevice] = ()) -> Element:
    """The answer to `AskForm`: what to fill in; `devices`: to choose from, where that is asked."""
    answer = _answer(command, "executing")
    actions = SubElement(answer, clark(COMMANDS, "actions"), {"execute": "complete"})
    SubElement(actions, clark(COMMANDS, "complete"))
    options = {found.device.node: found.device.name or found.device.device_id for found in devices}
    questions = [
        question if question.options is None else Question(var=question.var, label=question.label, options=options)
        for question in _QUESTIONS[command.node]
    ]
    answer.append(forms.empty(NAMES[command.node], questions))
    return answer


def canceled(command: Command) -> Element:
    """The answer to `Cancel`."""
    return _answer(command, "canceled")


def registered(command: Command, registration: Registration, component: str) -> Element:
    """The answer to `RegisterDevice`: what to enable push with."""
    answer = _answer(command, "completed")
    fields: list[tuple[str, tuple[str, ...]]] = [("node", (registration.node,)), ("secret", (registration.secret,))]
    if command.node in REGISTER_PUSH:
        fields.insert(0, ("jid", (component,)))
    else:
        if registration.features:
            fields.append(("features", registration.features))
        fields.append(("max-payload-size", (str(registration.max_payload_bytes),)))
    answer.append(forms.result(fields))
    return answer


def unregistered(command: Command) -> Element:
    """The answer to `UnregisterDevice`."""
    return _answer(command, "completed")


def unregistered_named(command: Command, nodes: Iterable[str]) -> Element:
    """The answer to `UnregisterPush`: the nodes that are gone."""
    answer = _answer(command, "completed")
    answer.append(forms.chosen("nodes", nodes))
    return answer


def listed(command: Command, devices: Sequence[ListedDevice]) -> Element:
    """The answer to `ListDevices`: an item each, without tokens."""
    answer = _answer(command, "completed")
    answer.append(forms.table(_COLUMNS, [_row(found) for found in devices]))
    return answer


def _row(found: ListedDevice) -> dict[str, str | None]:
    device = found.device
    return {
        "device-name": device.name,
        "device-id": device.device_id,
        "provider": device.app,
        "node": device.node,
        "state": "enabled" if device.enabled else "disabled",
        "last-success": _time(found.succeeded_at),
        "last-error": found.reason,
        "last-error-at": _time(found.failed_at),
    }


def _time(instant: datetime | None) -> str | None:
    """XEP-0082 §3.2, in UTC."""
    return None if instant is None else f"{instant.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
