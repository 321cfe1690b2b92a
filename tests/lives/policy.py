"""What people and their phones wish: quiet hours, filters, phones that do not come to the end. And what a push that
leaves must be like, whoever wished what (PUSH §5).
"""

from datetime import time, timedelta
from functools import partial

from sync.model.books import Keys
from sync.model.device import Device, PushJob, PushKind
from sync.model.jid import bare
from sync.model.quiet import FOR_EVER, Hours, Quiet
from sync.model.wishes import NO_WISHES, Allow, RoomWish, Wishes
from sync.rules.backlog import begun
from sync.rules.claims import Claim
from sync.rules.jobs import CALL_KINDS, WAKES
from sync.rules.quiet import PASSES, hush, keep_quiet
from tests.contract.fakes_tables import Tables
from tests.contract.samples import BOB, CAT, EVE
from tests.lives.world import RESOURCES, ROOMS, World

# PUSH §5: what is marked there, since an app without the entitlement shows whatever it gets.
SHOWN = frozenset(
    {PushKind.MESSAGE, PushKind.MISSED, PushKind.INVITED, PushKind.SUBSCRIPTION, PushKind.CALL, PushKind.TEST}
)
ZONES = ("UTC", "Europe/Berlin", "Asia/Kolkata")


def wishes(w: World) -> Wishes:
    """Mostly none."""
    if w.chance(70):
        return NO_WISHES
    rooms = tuple(RoomWish(room, w.pick(list(Allow))) for room in ROOMS if w.chance(50))
    return Wishes(
        muted=frozenset(jid for jid in (BOB, CAT, EVE, ROOMS[0]) if w.chance(20)),
        ignore_unknown=w.chance(30),
        rooms=rooms if w.chance(50) else None,
    )


def keep_still(w: World) -> None:
    """Somebody wants to be left alone, or no more."""
    account = w.pick(w.folk)
    if account not in w.tables.accounts:
        return
    until = w.pick((None, w.clock.now() + timedelta(minutes=w.random.randrange(-5, 90)), FOR_EVER))
    begin, end = time(w.random.randrange(24)), time(w.random.randrange(24), 30)
    hours = Hours(begin, end, w.pick(ZONES)) if w.chance(50) else None
    wish = w.pick((None, Quiet(until=until, hours=hours, calls=w.chance(50))))
    rule = partial(keep_quiet, account, wish, w.policies.wakes.zones)
    w.transact(Keys(accounts=frozenset({account}), devices=True), rule)


def ask_in_part(w: World) -> None:
    """A phone was told a part of what there is."""
    account = w.pick(w.folk)
    owner = w.tables.accounts.get(account)
    if owner is not None:
        rule = partial(begun, account, w.pick(RESOURCES), owner.version, policies=w.policies)
        w.transact(Keys(accounts=frozenset({account}), devices=True), rule)


# ---- laws ------------------------------------------------------------------------------------------------------------


def nothing_leaves_against_a_wish(w: World, former: Tables, claims: list[Claim]) -> None:
    """What was claimed, against the rows as they were before."""
    now = w.clock.now()
    for found in claims:
        job, device = found.job, former.devices[found.job.account, found.job.device_id]
        owner = former.accounts[job.account]
        assert device.enabled
        assert device.app == "chat" or job.kind in SHOWN
        assert device.app == "chat" or job.kind is not PushKind.CALL or job.voip
        silence = hush(owner.quiet, w.policies.wakes.zones, now)
        assert silence is None or (silence.calls if job.kind in CALL_KINDS else job.kind in PASSES), job
        if job.kind in WAKES:
            # Nobody is woken for what was fetched.
            assert device.fetched_version < former.jobs[job.account, job.job_id].version, job
        if job.kind is PushKind.MESSAGE and job.peer:
            assert bare(job.peer) not in device.wishes.muted
            assert device.wishes.allows(job.peer) is not Allow.NEVER or job.peer not in ROOMS
            assert not (device.wishes.ignore_unknown and job.collapse == "u")
        says_all_that_the_former_said(device, job, w.tables)


def says_all_that_the_former_said(device: Device, job: PushJob, tables: Tables) -> None:
    """The service keeps one notification. What takes an unfetched wake's place says as much, and lives as long, or a
    fresh wake follows.
    """
    if not device.wake_unfetched or job.voip:
        return
    assert job.version >= device.woken_version, job
    if device.woken_until is None or job.deadline >= device.woken_until or device.app != "chat":
        return
    mine = [one for one in tables.jobs.values() if (one.account, one.device_id) == (job.account, job.device_id)]
    fresh = [one for one in mine if one.kind is PushKind.SYNC and one.outcome is None]
    assert any(one.not_before >= job.deadline and one.deadline >= device.woken_until for one in fresh), job


def every_ring_is_in_the_ledger(tables: Tables, former: Tables) -> None:
    """A call that began to ring, and every device that was enabled then: it rings there, or the ledger says why not."""
    ringing = {key for key, call in tables.calls.items() if key not in former.calls and call.state == "ringing"}
    rung = {(job.account, job.peer, job.sid, job.device_id) for job in tables.jobs.values() if job.kind == "call"}
    for key in ringing:
        for (account, name), device in former.devices.items():
            if account == key.account and device.enabled and (account, name) in tables.devices:
                assert (key.account, key.peer, key.sid, name) in rung, (key, name)
