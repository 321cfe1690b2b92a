"""An accepted push on its way to a device: a value."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sync.sandbox.apns.rules import Push


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """`expiration`: epoch seconds, 0 = now or never, None = not said."""

    apns_id: str
    topic: str
    push_type: str
    expiration: int | None
    collapse_id: str | None
    payload: Mapping[str, Any]

    @property
    def identifier(self) -> str:
        """What a later notification must have to replace this one on the screen."""
        return self.collapse_id or self.apns_id

    @property
    def aps(self) -> Mapping[str, Any]:
        """Apple's part of the payload."""
        found = self.payload.get("aps")
        return found if isinstance(found, dict) else {}

    def named(self, path: str) -> str | None:
        """The text at this place of the payload, `x.c` for `{"x": {"c": …}}`; None when there is none."""
        found: object = self.payload
        for name in path.split("."):
            found = found.get(name) if isinstance(found, dict) else None
        return found if isinstance(found, str) and found else None


def arrival(push: Push, apns_id: str) -> Arrival:
    """What of an accepted request goes to the device."""
    return Arrival(
        apns_id=apns_id,
        topic=push.topic or "",
        push_type=push.push_type,
        expiration=None if push.expiration is None else int(push.expiration),
        collapse_id=push.collapse_id,
        payload=push.payload or {},
    )
