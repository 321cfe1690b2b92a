"""Phones and their pushes: registration by ad-hoc command at the component, XEP-0357 at the own server.

A mixin of the plugin. Tokens are secrets: no text of an error repeats them.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from xml.etree.ElementTree import Element, SubElement

from slixmpp.exceptions import IqError, IqTimeout, XMPPError

from sync.client.errors import BadAnswer, NotSupported
from sync.client.requests import Requests
from sync.client.values import Device, ListedDevice
from sync.protocol.names import COMMANDS, DATA, PUBLISH_OPTIONS, PUSH, clark

REGISTER, UNREGISTER = "register-device", "unregister-device"
LIST, LOG_OUT = "list-push-registrations", "unregister-push"
COMMAND = clark(COMMANDS, "command")
Fields = Mapping[str, str | tuple[str, ...] | None]
FORM, ITEM, FIELD, VALUE = (clark(DATA, name) for name in ("x", "item", "field", "value"))


class Devices:
    """What the plugin has for phones."""

    _requests: Requests
    _stream: Any
    timeout: float
    attempts: int

    async def find_component(self) -> str:
        """The component's JID: the first of the server's items that has the command to register, else NotSupported."""
        disco = self._stream.plugin["xep_0030"]
        try:
            listed = await disco.get_items(jid=self._stream.boundjid.domain, timeout=self.timeout)
        except XMPPError as error:
            raise NotSupported(error.condition, error.etype, "The server lists no services.") from None
        for jid, _, _ in sorted(listed["disco_items"]["items"], key=str):
            try:
                commands = await disco.get_items(jid=jid, node=COMMANDS, timeout=self.timeout)
            except (IqError, IqTimeout):
                continue
            if any(node == REGISTER for _, node, _ in commands["disco_items"]["items"]):
                return str(jid)
        raise NotSupported("item-not-found", "cancel", "No service of this server registers devices.")

    async def register_device(
        self,
        app: str,
        token: str,
        *,
        voip_token: str | None = None,
        device_id: str | None = None,
        device_name: str | None = None,
        component: str | None = None,
    ) -> Device:
        """Register this phone for pushes; `enable_push` then turns them on. Doing it again with other tokens replaces
        them. `app` is the name under which the operator configured the app. `token` and `voip_token` are APNs' device
        tokens, hexadecimal. `device_id`: what this phone is recognised by, else the resource. `component`: where, else
        it is found by service discovery.
        """
        component = component or await self.find_component()
        fields = {"provider": app, "device-token": token, "device-second-token": voip_token}
        fields |= {"device-id": device_id, "device-name": device_name}
        given = _given(await self._command(component, REGISTER, fields))
        node, secret = given.get("node", ()), given.get("secret", ())
        if not node or not secret:
            raise BadAnswer("The registration names no node, or no secret.")
        return Device(component=component, node=node[0], secret=secret[0], features=given.get("features", ()))

    async def unregister_device(self, app: str, token: str, *, component: str | None = None) -> None:
        """This phone is not to be woken any more."""
        component = component or await self.find_component()
        await self._command(component, UNREGISTER, {"provider": app, "device-token": token})

    async def devices(self, *, component: str | None = None) -> tuple[ListedDevice, ...]:
        """The account's devices, registered last first: this one, and what others of the account have registered."""
        component = component or await self.find_component()
        answer = await self._command(component, LIST, None)
        return tuple(_listed(_given(item)) for item in answer.iter(ITEM))

    async def log_out(self, *nodes: str, component: str | None = None) -> tuple[str, ...]:
        """Devices of the account, this or others, are not to be woken any more: a phone that is lost. The nodes that
        are gone; NotFound where there is none of them.
        """
        component = component or await self.find_component()
        return _given(await self._command(component, LOG_OUT, {"nodes": nodes})).get("nodes", ())

    async def enable_push(self, device: Device) -> None:
        """Turn on the pushes of a registered device (XEP-0357)."""
        payload = Element(clark(PUSH, "enable"), {"jid": device.component, "node": device.node})
        payload.append(_form({"FORM_TYPE": PUBLISH_OPTIONS, "secret": device.secret}))
        await self._requests.iq("set", payload, to=None, seconds=self.timeout, attempts=self.attempts)

    async def disable_push(self, device: Device) -> None:
        """Turn them off; the device stays registered."""
        payload = Element(clark(PUSH, "disable"), {"jid": device.component, "node": device.node})
        await self._requests.iq("set", payload, to=None, seconds=self.timeout, attempts=self.attempts)

    async def _command(self, component: str, node: str, fields: Fields | None) -> Element:
        payload = Element(COMMAND, {"node": node, "action": "execute"})
        if fields is not None:
            payload.append(_form(fields))
        answer = await self._requests.ask("set", payload, to=component, seconds=self.timeout, attempts=self.attempts)
        if answer.get("status") != "completed":
            raise BadAnswer("The command was not completed.")
        return answer


def _given(parent: Element) -> dict[str, tuple[str, ...]]:
    """The values of the fields in a form or an item."""
    return {
        field.get("var", ""): tuple(value.text or "" for value in field.iterfind(VALUE)) for field in parent.iter(FIELD)
    }


def _listed(given: Mapping[str, tuple[str, ...]]) -> ListedDevice:
    one = {name: values[0] for name, values in given.items() if values}
    try:
        success, failed = (
            datetime.fromisoformat(one[name]) if name in one else None for name in ("last-success", "last-error-at")
        )
        return ListedDevice(
            node=one["node"],
            device_id=one["device-id"],
            app=one["provider"],
            enabled=one["state"] == "enabled",
            name=one.get("device-name"),
            last_success=success,
            last_error=one.get("last-error"),
            last_error_at=failed,
        )
    except (KeyError, ValueError):
        raise BadAnswer("A device of the list is not told whole.") from None


def _form(fields: Fields) -> Element:
    """A submitted form; what is None is not in it."""
    form = Element(FORM, {"type": "submit"})
    for name, given in fields.items():
        if given is not None:
            field = SubElement(form, FIELD, {"var": name})
            for value in (given,) if isinstance(given, str) else given:
                SubElement(field, VALUE).text = value
    return form
