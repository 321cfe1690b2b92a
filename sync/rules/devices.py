"""The device registry: registering, enabling, leaving, fetching. A device is keyed by account and device id; a push
token belongs to one device, and a later registration takes it over from whoever had it (DESIGN §3).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from hmac import compare_digest

from sync.model.books import Books, Ruling, Writes
from sync.model.conversation import Account
from sync.model.device import Device, JobState, PushJob, PushKind, Route, SealedToken
from sync.model.errors import Forbidden, ItemNotFound
from sync.model.query import App, DisablePush, EnablePush, RegisterDevice, UnregisterDevice
from sync.model.registry import LogOut, UnregisterPush
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


@dataclass(frozen=True, slots=True)
class Entered:
    """A phone is registered: its node, and how many devices left for it because they held one of its tokens
    (`taken_over`), or because the account has no room for more (`crowded_out`).
    """

    node: str
    taken_over: int = 0
    crowded_out: int = 0


def register(
    request: RegisterDevice, app: App, phone: NewPhone, books: Books, *, most: int = MAX_DEVICES
) -> Ruling[Entered]:
    """`register-device` and its older names; an existing device keeps its node. `most`: devices of an account.

    Other devices that hold one of the tokens were loaded with the books: they are removed.
    """
    mine = {device.device_id: device for device in books.devices.get(request.account, ())}
    former = mine.get(request.device_id)
    tokens = {phone.alert_token, phone.voip_token} - {None}
    robbed = [
        device
        for devices in books.devices.values()
        for device in devices
        if device is not former and (device.app, device.environment) == (app.name, app.environment)
        if tokens & {device.alert_token, device.voip_token}
    ]
    staying = [device for device in mine.values() if device is not former and device not in robbed]
    crowded = crowded_out(staying, most)
    writes = departed([*robbed, *crowded], books)
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
    writes.accounts = [
        replace(account, devices=account.devices + 1) if account.jid == request.account and former is None else account
        for account in writes.accounts
    ]
    return Ruling(writes=writes, value=Entered(device.node, len(robbed), len(crowded)))


def crowded_out(staying: Sequence[Device], most: int) -> list[Device]:
    """Which devices of an account leave, those registered longest ago, so that it has room for one more."""
    oldest = sorted(staying, key=lambda device: device.registered_at)
    return oldest[: max(0, len(oldest) + 1 - most)]


def departed(leaving: Sequence[Device], books: Books) -> Writes:
    """These devices are gone, with their tokens, and what is queued for them is over. All accounts of the books are
    among the rows, counted anew.
    """
    writes = Writes(deleted_devices=[(device.account, device.device_id) for device in leaving])
    gone = set(writes.deleted_devices)
    for jid, account in books.accounts.items():
        devices = books.devices.get(jid, ())
        staying = [device for device in devices if (jid, device.device_id) not in gone]
        if len(staying) == len(devices):
            writes.accounts.append(account)
            continue
        queued = [job for job in books.jobs.get(jid, ()) if job.state is JobState.QUEUED]
        over = [job for job in queued if (jid, job.device_id) in gone]
        writes.jobs += [ended(job, "no-device", books.now) for job in over]
        awaited = awaits_fetch(staying, [job for job in queued if job not in over])
        left = account.devices - len(devices) + len(staying)
        writes.accounts.append(replace(account, devices=left, wakes_open=account.wakes_open and awaited))
    return writes


def awaits_fetch(devices: Iterable[Device], queued: Iterable[PushJob]) -> bool:
    """True while one of an account's devices was pushed and has not fetched yet; `queued`: what is due to them."""
    if any(device.enabled and device.wake_unfetched for device in devices):
        return True
    return any(job.kind is PushKind.CALL_FALLBACK for job in queued)


def unregister(request: UnregisterDevice, digest: bytes, books: Books) -> Ruling[None]:
    """`unregister-device`, by token."""
    found = [
        device
        for device in books.devices.get(request.account, ())
        if device.app == request.app and device.alert_token.digest == digest
    ]
    if not found:
        raise ItemNotFound("No device is registered with this device-token.")
    return Ruling(writes=departed(found, books), value=None)


def unregister_named(request: UnregisterPush, books: Books) -> Ruling[tuple[str, ...]]:
    """`unregister-push`: devices of the own account, by node, else the one with the device id. The value: their
    nodes.
    """
    found = [
        device
        for device in books.devices.get(request.account, ())
        if (device.node in request.nodes if request.nodes else device.device_id == request.device_id)
    ]
    if not found:
        raise ItemNotFound("None of this account's devices is named so.")
    return Ruling(writes=departed(found, books), value=tuple(sorted(device.node for device in found)))


def log_out(request: LogOut, token: bytes | None, secret: bytes | None, books: Books) -> Ruling[bool]:
    """A device leaves without its account's login. The value: whether there was one that fits; whoever asks is told
    nothing more. `token` and `secret` are digests.
    """
    found = []
    for device in (device for devices in books.devices.values() for device in devices):
        if request.node is not None:
            named = device.node == request.node
        else:
            named = device.app == request.app and compare_digest(device.alert_token.digest, token or b"")
        proved = device.account == request.account if secret is None else compare_digest(device.secret_digest, secret)
        if named and proved:
            found.append(device)
    return Ruling(writes=departed(found, books) if found else Writes(), value=bool(found))


def own_phones(account: str, books: Books) -> list[Device]:
    """The account's devices that are pushed from here, not through somebody else's app server."""
    return [device for device in books.devices.get(account, ()) if device.route is not Route.PUBLISH]


def enable(request: EnablePush, secret_digest: bytes | None, books: Books) -> Ruling[None]:
    """XEP-0357 §5 for one of our nodes: only the node's own account, and only with its secret where one is given."""
    device = next((d for d in own_phones(request.account, books) if d.node == request.node), None)
    if device is None:
        raise ItemNotFound("No device of this account is registered with this node.")
    if secret_digest is not None and not compare_digest(secret_digest, device.secret_digest):
        raise Forbidden("The secret does not fit the node.")
    bound_to = request.resource or device.bound_to
    device = replace(device, enabled=True, wishes=request.wishes, bound_to=bound_to)
    writes, owner = Writes(devices=[device]), books.accounts[request.account]
    if device.wake_unfetched and not owner.wakes_open:  # who was disabled meanwhile was not waited for
        writes.accounts.append(replace(owner, wakes_open=True))
    return Ruling(writes=writes, value=None)


def disable(request: DisablePush, books: Books) -> Ruling[None]:
    """XEP-0357 §6: one node, or all of them. What is queued for them is not sent: the claim looks again."""
    phones = own_phones(request.account, books)
    found = [device for device in phones if request.node is None or device.node == request.node]
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
        jobs = books.jobs.get(account, ())
        queued = [job for job in jobs if job.state is JobState.QUEUED and job.job_id not in ended_now]
        writes.accounts = [replace(owner, wakes_open=awaits_fetch(devices, queued))]
    return Ruling(writes=writes, value=delays)
