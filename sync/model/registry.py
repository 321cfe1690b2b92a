"""What is asked of the device registry beside registering: lists, leaving by name, leaving without a login."""

from dataclasses import dataclass, field
from datetime import datetime

from sync.model.device import Device


@dataclass(frozen=True, slots=True, kw_only=True)
class ListDevices:
    """Which devices an account has (`list-push-registrations`)."""

    account: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnregisterPush:
    """Devices of the own account leave (`unregister-push`): those with these nodes, without nodes the one with this
    device id.
    """

    account: str
    device_id: str
    nodes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOut:
    """A device leaves without its account's login. It is named by `node`, or by `app` and alert `token`; what proves it
    is the registration's `secret`, or without one the `account` beside the token.
    """

    node: str | None = None
    app: str | None = None
    token: str | None = field(default=None, repr=False)
    secret: str | None = field(default=None, repr=False)
    account: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedDevice:
    """A device with what the ledger has of it: when a push was accepted last, and when and why one failed last
    (`reason`: the vendor's word, else the verdict).
    """

    device: Device
    succeeded_at: datetime | None = None
    failed_at: datetime | None = None
    reason: str | None = None
