"""The device registry: registering, enabling, leaving, fetching. A device is keyed by account and device id; a push
token belongs to one device, and a later registration takes it over from whoever had it (DESIGN §3).
"""

from dataclasses import dataclass, field, replace

from sync.model.books import Books, Ruling, Writes
from sync.model.conversation import Account
from sync.model.device import Device, JobState, PushKind, SealedToken
from sync.model.errors import Forbidden, ItemNotFound
from sync.model.query import App, DisablePush, EnablePush, RegisterDevice, UnregisterDevice
from sync.model.wishes import NO_WISHES
from sync.rules.jobs import WAKES, ended

MAX_DEVICES = 5  # per account, oldest dropped, as mod_cloud_notify does (PUSH §4)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPhone:
    """What the service made for a registration: sealed tokens, a node's random name, the digest of a random secret."""

    alert_token: SealedToken
    voip_token: SealedToken | None
    node: str
    secret_digest: bytes = field(repr=False)


def register(request: RegisterDevice, app: App, phone: NewPhone, books: Books) -> Ruling[str]:
    """`register-device`. The value: the node; an existing device keeps its own.

    Other devices that hold one of the tokens were loaded with the books: they are removed.
    """
    writes = Writes()
    accounts = dict(books.accounts)
    mine = {device.device_id: device for device in books.devices.get(request.account, ())}
    former = mine.get(request.device_id)
    tokens = {phone.alert_token, phone.voip_token} - {None}
    leaving = [
        device
        for devices in books.devices.values()
        for device in devices
        if device is not former and (device.app, device.environment) == (app.name, app.environment)
        if tokens & {device.alert_token, device.voip_token}
    ]
    staying = [device for device in mine.values() if device is not former and device not in leaving]
    staying.sort(key=lambda device: device.registered_at)
    leaving += staying[: max(0, len(staying) + 1 - MAX_DEVICES)]
    for device in leaving:
        writes.deleted_devices.append((device.account, device.device_id))
        owner = accounts[device.account]
        accounts[device.account] = replace(owner, devices=owner.devices - 1)
    device = Device(
        account=request.account,
        device_id=request.device_id,
        app=app.name,
        environment=app.environment,
        alert_token=phone.alert_token,
        voip_token=phone.voip_token,
        node=former.node if former else phone.node,
        secret_digest=phone.secret_digest,
        name=request.name,
        enabled=former.enabled if former else False,
        wishes=former.wishes if former else NO_WISHES,
        bound_to=request.resource,
        registered_at=books.now,
    )
    writes.devices.append(device)
    writes.retokened.append(device)
    owner = accounts[request.account]
    accounts[request.account] = replace(owner, devices=owner.devices + (former is None))
    writes.accounts = list(accounts.values())
    return Ruling(writes=writes, value=device.node)


def unregister(request: UnregisterDevice, digest: bytes, books: Books) -> Ruling[None]:
    """`unregister-device`, by token."""
    found = [
        device
        for device in books.devices.get(request.account, ())
        if device.app == request.app and device.alert_token.digest == digest
    ]
    if not found:
        raise ItemNotFound("No device is registered with this device-token.")
    account = books.accounts[request.account]
    account = replace(account, devices=account.devices - len(found))
    gone = [(device.account, device.device_id) for device in found]
    return Ruling(writes=Writes(deleted_devices=gone, accounts=[account]), value=None)


def enable(request: EnablePush, secret_digest: bytes | None, books: Books) -> Ruling[None]:
    """XEP-0357 §5 for one of our nodes: only the node's own account, and only with its secret where one is given."""
    device = next((d for d in books.devices.get(request.account, ()) if d.node == request.node), None)
    if device is None:
        raise ItemNotFound("No device of this account is registered with this node.")
    if secret_digest is not None and secret_digest != device.secret_digest:
        raise Forbidden("The secret does not fit the node.")
    bound_to = request.resource or device.bound_to
    device = replace(device, enabled=True, wishes=request.wishes, bound_to=bound_to)
    return Ruling(writes=Writes(devices=[device]), value=None)


def disable(request: DisablePush, books: Books) -> Ruling[None]:
    """XEP-0357 §6: one node, or all of them. What is queued for them is not sent: the claim looks again."""
    found = [
        device
        for device in books.devices.get(request.account, ())
        if request.node is None or device.node == request.node
    ]
    if request.node is not None and not found:
        raise ItemNotFound("No device of this account is registered with this node.")
    off = [replace(device, enabled=False, wishes=NO_WISHES) for device in found]
    return Ruling(writes=Writes(devices=off), value=None)


def bind(account: str, resource: str, node: str, books: Books) -> Ruling[Account]:
    """The device of this node speaks through that resource from now on. The value: its account."""
    device = next((d for d in books.devices.get(account, ()) if d.node == node), None)
    if device is None:
        raise ItemNotFound("No device of this account is registered with this node.")
    devices = [] if device.bound_to == resource else [replace(device, bound_to=resource)]
    return Ruling(writes=Writes(devices=devices), value=books.accounts[account])


def fetched(account: str, resource: str, version: int, books: Books) -> Ruling[list[float]]:
    """The device bound to `resource` was told everything up to `version`: its queued wakes are off, its next wake is
    due at once.

    The value: seconds from each wake that this proves to have arrived.
    """
    writes = Writes()
    delays: list[float] = []
    owner = books.accounts.get(account)
    if owner is None:
        return Ruling(writes=writes, value=delays)
    devices: list[Device] = []
    for device in books.devices.get(account, ()):
        if device.bound_to != resource:
            devices.append(device)
            continue
        if device.wake_unfetched and device.woken_version <= version and device.woken_at is not None:
            delays.append((books.now - device.woken_at).total_seconds())
        newest = max(device.fetched_version, version)
        now_fetched = replace(device, fetched_version=newest, fetched_at=books.now, chased=0)
        devices.append(now_fetched)
        writes.devices.append(now_fetched)
        writes.jobs.extend(
            ended(job, "fetched", books.now)
            for job in books.jobs.get(account, ())
            if job.device_id == device.device_id and job.state is JobState.QUEUED
            if (job.kind in WAKES and job.version <= version) or job.kind is PushKind.CALL_FALLBACK
        )
    if writes.devices:
        ended_now = {job.job_id for job in writes.jobs}
        open_wakes = any(device.enabled and device.wake_unfetched for device in devices)
        open_rings = any(
            job.kind is PushKind.CALL_FALLBACK and job.state is JobState.QUEUED and job.job_id not in ended_now
            for job in books.jobs.get(account, ())
        )
        writes.accounts = [replace(owner, wakes_open=open_wakes or open_rings)]
    return Ruling(writes=writes, value=delays)
