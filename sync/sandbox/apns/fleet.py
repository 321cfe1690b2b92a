"""The devices that were described, found by name and by token, and what is known of calls.

Pure: times are given. A described device's tokens are alive, for its app alone; whatever else was told of a token comes
first (`registry`).
"""

from collections.abc import Iterable
from typing import Any

from sync.sandbox.apns.arrival import Arrival
from sync.sandbox.apns.device import Change, Description, Device, NotSo
from sync.sandbox.apns.ringer import CallState
from sync.sandbox.apns.rules import Refusal
from sync.sandbox.apns.screen import Shown


class Fleet:
    """`given`: described before the start."""

    def __init__(self, given: Iterable[Description] = ()) -> None:
        self._given = tuple(given)
        self._devices: dict[str, Device] = {}
        self._by_token: dict[str, Device] = {}
        self._calls: dict[str, CallState] = {}
        self.forget()

    def __len__(self) -> int:
        return len(self._devices)

    def forget(self) -> None:
        """As newly started."""
        self._devices.clear()
        self._by_token.clear()
        self._calls.clear()
        for description in self._given:
            self.describe(description)

    def describe(self, description: Description) -> None:
        """A new device, or another in the place of one of that id. Raises NotSo where a token is another device's."""
        tokens = {"alert_token": description.alert_token, "voip_token": description.voip_token}
        for name, token in tokens.items():
            owner = self._by_token.get(token or "")
            if owner is not None and owner.description.id != description.id:
                raise NotSo(f"{name}: belongs to the device {owner.description.id}")
        device = Device(description)
        self._by_token = {key: one for key, one in self._by_token.items() if one.description.id != description.id}
        self._by_token.update({token: device for token in tokens.values() if token})
        self._devices[description.id] = device

    def of(self, token: str) -> Device | None:
        """The device that has this token."""
        return self._by_token.get(token.lower())

    def refusal(self, token: str, push_type: str, topic: str) -> Refusal | None:
        """Why a push of this type and topic cannot go to a described device's token, or None."""
        device = self._by_token[token.lower()]
        of_voip = token.lower() == device.description.voip_token
        for_app = topic == device.description.app or topic.startswith(device.description.app + ".")
        if of_voip != (push_type == "voip") or not for_app:
            return Refusal(status=400, reason="DeviceTokenNotForTopic")
        return None

    def arrive(self, token: str, push: Arrival, now: float) -> None:
        """An accepted push goes to the device of this token, where that was described."""
        device = self.of(token)
        if device is not None:
            device.arrive(push, self._calls.get(device.call(push) or ""), now)

    def change(self, device: Device, change: Change, now: float) -> None:
        """Something about this device is different from now on."""
        device.change(change, self._calls, now)

    def tell(self, call: str, state: CallState, now: float) -> None:
        """From now on this call rings, or does not any more."""
        self._calls[call] = state
        for device in self._devices.values():
            device.advance(now)
            if state is CallState.RINGING:
                device.ringer.rings(call)

    def find(self, name: str) -> Device | None:
        """The device of this id."""
        return self._devices.get(name)

    def described(self, now: float) -> list[dict[str, Any]]:
        """Every device, as `GET /devices` shows it."""
        return [told_of(device, now) for device in self._devices.values()]


def told_of(device: Device, now: float) -> dict[str, Any]:
    """A device's state as JSON."""
    device.advance(now)
    ringer, about = device.ringer, device.description
    stored = [{**_of(one.push), "until": one.until} for one in device.stored.values()]
    return {
        **{name: getattr(about, name) for name in ("id", "app", "alert_token", "voip_token")},
        "online": device.online,
        "focus": device.focus,
        "filtering": device.filtering,
        "badge": device.screen.badge,
        "shown": [_shown(one) for one in device.screen.shown],
        "stored": stored,
        "held": None if device.held is None else _of(device.held),
        "calls": ringer.calls,
        "rung_twice": ringer.rung_twice,
        "waiting": ringer.waiting,
        "strikes": ringer.strikes,
        "voip_banned": ringer.banned,
        "counts": {name: device.counts[name] for name in COUNTS},
    }


COUNTS = (
    *("accepted", "delivered", "shown", "replaced", "expired", "lost", "withheld"),
    *("dropped", "changed", "removed"),
)


def _of(push: Arrival) -> dict[str, Any]:
    return {"apns_id": push.apns_id, "collapse_id": push.collapse_id, "payload": push.payload}


def _shown(one: Shown) -> dict[str, Any]:
    return {**_of(one.push), "at": one.at, "alert": one.alert, "aloud": one.aloud, "changed": one.changed}
