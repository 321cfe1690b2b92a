"""What a device shows: notifications in the order of their arrival, one for each identifier, and the badge.

The identifier is the collapse id, or the push's own id. Pure: times are given.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from sync.sandbox.apns.arrival import Arrival

MOST_SHOWN = 500  # a bound for the simulator's memory
# Apple, UNNotificationInterruptionLevel: these break through a focus, "passive" never lights the screen up.
_THROUGH_FOCUS = ("time-sensitive", "critical")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A notification on the screen. `aloud`: it lit the screen up, or sounded, and did not just join the list."""

    at: float
    push: Arrival
    alert: object
    aloud: bool
    changed: bool = False


class Screen:
    """Notifications, oldest first, and the badge (None: never set)."""

    def __init__(self) -> None:
        self.shown: list[Shown] = []
        self.badge: int | None = None

    def show(self, push: Arrival, now: float, *, focus: bool) -> bool:
        """Show what the payload asks for; whether there is a notification that was not there before."""
        aps = push.aps
        badge = aps.get("badge")
        if isinstance(badge, int) and not isinstance(badge, bool):
            self.badge = badge
        if aps.get("alert") is None:
            return False
        before = len(self.shown)
        self.shown = [one for one in self.shown if one.push.identifier != push.identifier]
        new = len(self.shown) == before
        self.shown.append(Shown(at=now, push=push, alert=aps["alert"], aloud=_aloud(aps, focus=focus)))
        del self.shown[:-MOST_SHOWN]
        return new

    def find(self, apns_id: str) -> Shown | None:
        """The notification that this push brought, unless another has replaced it."""
        return next((one for one in self.shown if one.push.apns_id == apns_id), None)

    def remove(self, one: Shown) -> None:
        """Show it no more."""
        self.shown.remove(one)

    def change(self, one: Shown, alert: object) -> None:
        """Show something else in its place."""
        self.shown[self.shown.index(one)] = replace(one, alert=alert, changed=True)


def _aloud(aps: Mapping[str, object], *, focus: bool) -> bool:
    level = aps.get("interruption-level", "active")
    return level in _THROUGH_FOCUS if focus else level != "passive"
