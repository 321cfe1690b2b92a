"""What an app can say that it did after it was woken: values only."""

from dataclasses import dataclass
from enum import StrEnum


class Deed(StrEnum):
    """What was done."""

    RANG = "rang"  # a call was reported to CallKit
    DROPPED = "dropped"  # the notification service extension showed nothing: needs the filtering entitlement
    CHANGED = "changed"  # it showed something else
    REMOVED = "removed"  # the app took a notification back that was shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """`call` goes with `rang`; `push`, an apns-id, with the others; `alert`, what is shown now, with `changed`."""

    did: Deed
    call: str = ""
    push: str = ""
    alert: object = None
