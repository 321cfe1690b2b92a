"""Publishes of servers that know nothing of us become pushes (XEP-0357 §7, PUSH §4).

Nothing of such an account's conversations, calls and sessions is here. So a publish is a wake without a version: the
device is told to ask its own server, and whether it did is not seen. A call rings at that server for as long as only
that server knows, so no VoIP push comes of it (who gets one has to ring): it is a wake that waits for no other, but for
the pace that a fetched wake has, so that a server that publishes calls without end wakes nobody without end.
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hmac import compare_digest

from sync.model.books import Books, Ruling, Writes
from sync.model.device import Device, JobState, PushJob, PushKind, Route, SealedToken
from sync.model.errors import Forbidden, InternalServerError, ItemNotFound
from sync.model.jid import domain
from sync.model.notification import Notification, Published, Urgency
from sync.model.query import App
from sync.rules.jobs import job_id, new_job
from sync.rules.times import instant, microseconds, next_version
from sync.rules.wakes import MESSAGE_LIFE, UPDATE_LIFE
from sync.rules.wishes import WakePolicy

EVERYBODY = "*"
# So long a token that died is no node. Then it is tried again: it may have died of a wrong setting of ours.
FORGOTTEN_AFTER = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Whose publishes are taken. `fed`: hosts that we have the feed of; `served`: other servers (or EVERYBODY) whose
    users may have devices here; `publishers`: JIDs that may publish for the users of any of them. `apps`: those that
    are configured.
    """

    fed: AbstractSet[str]
    served: AbstractSet[str] = frozenset()
    publishers: AbstractSet[str] = frozenset()
    apps: AbstractSet[str] = frozenset()

    def admit(self, host: str) -> bool:
        """True where this host's users may have devices here."""
        return host in self.fed or host in self.served or EVERYBODY in self.served


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """A phone that never registered: its server publishes to its token (fpush). `account` and `node` are made of the
    token, so that each token has one of its own, whichever servers publish to it.
    """

    account: str
    node: str
    token: SealedToken
    app: App


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a publish, and the job that stands for it where there is one."""

    published: Published
    job: PushJob | None = None


def publish(
    told: Notification, secret_digest: bytes | None, terms: Terms, policy: WakePolicy, books: Books
) -> Ruling[Outcome]:
    """The rule for a publish; the books hold the accounts that have its node."""
    ours = (d for found in books.devices.values() for d in found if d.route is Route.APNS)
    device = next((d for d in ours if d.node == told.node), None)
    if device is None:
        raise ItemNotFound("There is no such node.")
    if secret_digest is None or not compare_digest(secret_digest, device.secret_digest):
        raise Forbidden("The secret does not fit the node.")
    if not may_publish(told.publisher, device.account, terms):
        raise Forbidden("Only the server of the node's owner may publish.")
    if domain(device.account) in terms.fed:
        return Ruling(writes=Writes(), value=Outcome(published=Published.REDUNDANT))
    if device.app not in terms.apps:
        raise InternalServerError
    if told.urgency is Urgency.REST and device.app not in policy.filtering_apps:
        return Ruling(writes=Writes(), value=Outcome(published=Published.UNIMPORTANT))
    writes, outcome = woken(told, device, policy, books)
    if not device.enabled:
        # Whoever knows the secret was told to push: by `enable`, which went to the user's own server.
        writes.devices.append(replace(device, enabled=True))
    return Ruling(writes=writes, value=outcome)


def publish_to_token(told: Notification, guest: Guest, policy: WakePolicy, books: Books) -> Ruling[Outcome]:
    """The rule for a publish to a token; the books hold the guest's account and whoever has the token. Who may publish
    was asked before: the account was made for it.
    """
    devices = [device for found in books.devices.values() for device in found]
    holder = next((device for device in devices if device.alert_token == guest.token), None)
    owner = books.accounts[guest.account]
    if holder is not None and holder.account != guest.account:
        raise ItemNotFound("There is no such node.")  # it registered: its node is another, and has a secret
    if holder is None and owner.version > owner.floor and books.now - instant(owner.version) < FORGOTTEN_AFTER:
        raise ItemNotFound("There is no such node.")  # its token is dead, or somebody else's
    if told.urgency is Urgency.REST and guest.app.name not in policy.filtering_apps:
        return Ruling(writes=Writes(), value=Outcome(published=Published.UNIMPORTANT))
    device = holder or device_of(guest, books.now)
    writes, outcome = woken(told, device, policy, books)
    if holder is None:
        writes.devices.append(device)
        writes.retokened.append(device)
        writes.accounts.append(replace(owner, devices=owner.devices + 1, version=next_version(owner, books.now)))
    return Ruling(writes=writes, value=outcome)


def device_of(guest: Guest, now: datetime) -> Device:
    """A guest's device. No secret has its digest, so that nobody publishes to its node but by the token."""
    return Device(
        account=guest.account,
        device_id="token",
        app=guest.app.name,
        environment=guest.app.environment,
        alert_token=guest.token,
        node=guest.node,
        enabled=True,
        registered_at=now,
    )


def woken(told: Notification, device: Device, policy: WakePolicy, books: Books) -> tuple[Writes, Outcome]:
    """The device's wake for this publish: a new one, or the queued one, which speaks for it, too."""
    queued = wake_of(device, books)
    fresh = wake(told, device, policy, books.now)
    job = joined(queued, fresh) if queued else fresh
    return Writes(jobs=[job]), Outcome(published=Published.JOINED if queued else Published.QUEUED, job=job)


def may_publish(publisher: str, account: str, terms: Terms) -> bool:
    """XEP-0357 §3.2: "that publish requests are coming from the user's server": as itself (mod_cloud_notify, mod_push)
    by a component of it (as we publish ourselves), or on the user's behalf (the specification's examples), but never as
    a session, which is a client.
    """
    home = domain(account)
    own = publisher in {home, account} or home in parents(publisher)
    return terms.admit(home) and (own or publisher in terms.publishers)


def parents(publisher: str) -> list[str]:
    """The domains above a host: who has those has it."""
    labels = publisher.split(".") if "@" not in publisher and "/" not in publisher else []
    return [".".join(labels[n:]) for n in range(1, len(labels))]


def may_publish_to_tokens(publisher: str, terms: Terms) -> bool:
    """Any server that is served, for whom it likes: a token names no account. Its users' bare JIDs are its own, too."""
    hosts = [domain(publisher), *parents(publisher)]
    return "/" not in publisher and (any(map(terms.admit, hosts)) or publisher in terms.publishers)


def wake_of(device: Device, books: Books) -> PushJob | None:
    """The device's queued wake."""
    jobs = (job for job in books.jobs.get(device.account, ()) if job.device_id == device.device_id)
    return next((job for job in jobs if job.kind is PushKind.MESSAGE and job.state is JobState.QUEUED), None)


def wake(told: Notification, device: Device, policy: WakePolicy, now: datetime) -> PushJob:
    """What a publish asks for, were it the only one."""
    life = UPDATE_LIFE if told.urgency is Urgency.REST else MESSAGE_LIFE
    return replace(
        new_job(device, PushKind.MESSAGE, 0, now),
        job_id=job_id(device, PushKind.MESSAGE, microseconds(now)),
        silent=told.urgency is Urgency.REST,
        collapse="w",
        not_before=due(told.urgency, device, policy, now),
        deadline=now + life,
    )


def due(urgency: Urgency, device: Device, policy: WakePolicy, now: datetime) -> datetime:
    """When a device is woken. No fetch is seen here, so that every wake counts as unfetched; what is not to be read
    waits for something that is.
    """
    if urgency is Urgency.REST:
        return now + policy.interval
    if device.woken_at is None:
        return now
    return max(now, device.woken_at + (policy.coalesce if urgency is Urgency.CALL else policy.interval))


def joined(queued: PushJob, fresh: PushJob) -> PushJob:
    """The queued wake speaks for a further publish, too; what the vendor refused waits for its time (PUSH §2)."""
    return replace(
        queued,
        joined=queued.joined + 1,
        silent=queued.silent and fresh.silent,
        not_before=queued.not_before if queued.attempts else min(queued.not_before, fresh.not_before),
        deadline=max(queued.deadline, fresh.deadline),
    )
