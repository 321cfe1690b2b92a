"""Phones: they register, are woken, ring and fetch; the vendor answers."""

from datetime import datetime
from functools import partial

from sync.model.books import Keys
from sync.model.conversation import ConversationKey
from sync.model.device import JobState, PushJob, conversation_of
from sync.model.push import Environment, PushOutcome, Verdict
from sync.model.query import App, EnablePush, RegisterDevice
from sync.model.registry import LogOut, UnregisterPush
from sync.rules.claims import claim
from sync.rules.devices import NewPhone, enable, fetched, log_out, register, unregister_named
from sync.rules.outcomes import settle
from tests.contract.samples import token
from tests.lives.policy import nothing_leaves_against_a_wish, wishes
from tests.lives.world import ACCOUNTS, DAY, RESOURCES, World, in_order

NOT_TAKEN = {Verdict.RETRY, Verdict.NOT_SENT, Verdict.THROTTLED, Verdict.CREDENTIALS}


def of_devices(*accounts: str) -> Keys:
    return Keys(accounts=frozenset(accounts), create=True, devices=True)


def register_phone(w: World) -> None:
    """Few tokens for many phones: one takes over another's."""
    voip = w.pick((None, "x", "y"))
    app = w.pick(("chat", "plain"))
    registered(w, w.pick(w.folk), f"d{w.random.randrange(7)}", alert=w.pick("uvw"), voip=voip, app=app)


def registered(w: World, account: str, name: str, *, alert: str, voip: str | None, app: str) -> None:
    node = f"node {len(w.acts)} {name}"
    phone = NewPhone(
        alert_token=token(alert), voip_token=token(voip) if voip else None, node=node, secret_digest=b"secret"
    )
    made = App(name=app, bundle_id=app, environment=Environment.SANDBOX, filtering=app == "chat")
    request = RegisterDevice(
        account=account, resource=w.pick(RESOURCES), device_id=name, app=app, alert_token="", name=None
    )
    entered = w.transact(of_devices(*ACCOUNTS), partial(register, request, made, phone))
    assert entered is not None
    enabling = EnablePush(account=account, resource=None, jid="", node=entered.node, wishes=wishes(w))
    w.transact(of_devices(account), partial(enable, enabling, None))


def leave(w: World) -> None:
    """A phone is logged out by another of its account, or by itself without a login; nothing waits for it any more."""
    if not w.tables.devices:
        return
    device = w.pick(in_order(w.tables.devices))
    if w.random.randrange(2):
        named = UnregisterPush(account=device.account, device_id="", nodes=frozenset({device.node}))
        w.transact(of_devices(device.account), partial(unregister_named, named))
    else:
        alone = LogOut(node=device.node, secret="")
        w.transact(of_devices(device.account), partial(log_out, alone, None, b"secret"))
    where = device.account, device.device_id
    assert where not in w.tables.devices
    assert not any(
        (job.account, job.device_id) == where for job in w.tables.jobs.values() if job.state is JobState.QUEUED
    )


def everybody_has_one(w: World) -> None:
    for account in ACCOUNTS:
        registered(w, account, "d1", alert=account, voip=f"voip {account}", app="chat")


def wanted_by(jobs: list[PushJob]) -> Keys:
    named = (conversation_of(job.account, job.peer, job.about) for job in jobs)
    return Keys(
        accounts=frozenset(job.account for job in jobs),
        conversations=frozenset(key for key in named if isinstance(key, ConversationKey)),
        calls=frozenset((job.account, job.sid) for job in jobs if job.sid),
        devices=True,
    )


def claim_jobs(w: World) -> None:
    """What is due is sent, or ended with the reason. Only a call that rings now rings, and on a device once."""
    now = w.clock.now()
    due = [job for job in in_order(w.tables.jobs) if job.state is JobState.QUEUED and job.not_before <= now]
    names, presence = [job.job_id for job in due], dict.fromkeys(ACCOUNTS, w.pick((None, None, w.sessions())))
    former = w.tables
    claimed = w.transact(wanted_by(due), lambda books: claim(names, presence, books, w.policies))
    assert claimed is not None
    kept = [job for job in w.tables.jobs.values() if job.state is JobState.QUEUED and job.job_id in names]
    assert len(claimed.claims) + len(claimed.suppressed) + len(kept) == len(due)
    nothing_leaves_against_a_wish(w, former, claimed.claims)
    for found in claimed.claims:
        if found.job.voip:
            assert found.call is not None
            assert found.call.rings(now)
            assert found.job.sid is not None
            rung = found.job.account, found.job.device_id, found.job.peer, found.job.sid
            w.rung[rung] += 1
            assert w.rung[rung] == 1


def answer_push(w: World) -> None:
    """The vendor says what became of a push."""
    left = [job for job in in_order(w.tables.jobs) if job.state is JobState.ATTEMPTED]
    if not left:
        return
    job, verdict = w.pick(left), w.pick(list(Verdict))
    since = w.pick((None, w.clock.now() - DAY, w.clock.now() + DAY))
    answered(w, job, verdict, since)


def answered(w: World, job: PushJob, verdict: Verdict, since: datetime | None) -> None:
    outcome = PushOutcome(verdict=verdict, dead_since_at=since)
    w.transact(wanted_by([job]), lambda books: settle(job.job_id, job.account, outcome, books, w.policies))
    if job.voip and job.sid and verdict in NOT_TAKEN:
        w.rung[job.account, job.device_id, job.peer, job.sid] -= 1


def refuse_rings(w: World) -> None:
    """The vendor takes no call's push now; what becomes of the call meanwhile is another move's."""
    for job in in_order(w.tables.jobs):
        if job.state is JobState.ATTEMPTED and job.sid and w.chance(60):
            answered(w, job, Verdict.RETRY, None)


def enable_anew(w: World) -> None:
    """A phone that is registered says all its wishes anew."""
    known = in_order(w.tables.devices)
    if known:
        device = w.pick(known)
        enabling = EnablePush(account=device.account, resource=None, jid="", node=device.node, wishes=wishes(w))
        w.transact(of_devices(device.account), partial(enable, enabling, None))


def fetch(w: World) -> None:
    """A phone was told everything."""
    account, resource = w.pick(w.folk), w.pick(RESOURCES)
    owner = w.tables.accounts.get(account)
    if owner is not None:
        w.transact(of_devices(account), partial(fetched, account, resource, owner.version))
