"""What holds whatever happens: the books balance, versions only rise, nothing retracted speaks, nobody is woken or
rung twice.
"""

from collections import Counter
from collections.abc import Iterable
from itertools import chain

from sync.model.call import CallKey, CallState
from sync.model.conversation import Change, ChangeKind
from sync.model.device import JobState, PushKind
from tests.contract.fakes_tables import Tables, recount
from tests.contract.readers import shown
from tests.lives.policy import every_ring_is_in_the_ledger
from tests.lives.world import ROOMS, World

WITHDRAWN = (ChangeKind.RETRACTED, ChangeKind.MODERATED)


def hold(world: World, former: Tables) -> None:
    """All of them."""
    tables = world.tables
    counters_equal_recounts(tables)
    totals_equal_sums(tables)
    versions_only_rise(tables, former)
    what_was_retracted_says_nothing(tables, chain(*world.history.values()))
    nobody_is_woken_twice(tables)
    what_is_over_never_rings(tables, former)
    every_ring_is_in_the_ledger(tables, former)
    a_token_belongs_to_one_device(tables)


def counters_equal_recounts(tables: Tables) -> None:
    """Who has left a room of this server counts on what it had: the room's index goes on without it, until the member
    takes something again.
    """
    ringing = Counter(c.conversation for c in tables.calls.values() if c.state is CallState.RINGING)
    for key, found in tables.conversations.items():
        member = tables.members.get((key.peer, key.account))
        if key.peer not in ROOMS or (member is not None and member.since <= found.taken):
            assert (found.unread, found.mentions) == recount(tables, key), key
        assert found.ringing == ringing.pop(key, 0), key
    assert not ringing


def totals_equal_sums(tables: Tables) -> None:
    for jid, account in tables.accounts.items():
        mine = [c for key, c in tables.conversations.items() if key.account == jid]
        totals = sum(c.unread for c in mine), sum(c.mentions for c in mine), sum(c.unread > 0 for c in mine)
        assert (account.unread, account.mentions, account.unread_conversations) == totals, jid
        assert account.devices == sum(owner == jid for owner, _ in tables.devices)
        assert account.floor <= account.version


def versions_only_rise(tables: Tables, former: Tables) -> None:
    """What clients see does not change but with a new version, higher than the account's was. No two are the same."""
    for jid, account in tables.accounts.items():
        was = former.accounts.get(jid)
        if was is not None:
            assert account.version >= was.version, jid
            assert account.floor >= was.floor, jid
            assert account.epoch >= was.epoch or account.floor > was.version, jid  # a new life begins at the first one
    for key, found in tables.conversations.items():
        assert found.version <= tables.accounts[key.account].version
        old, owner = former.conversations.get(key), former.accounts.get(key.account)
        if owner is not None and (old is None or shown(old) != shown(found)):
            assert found.version > owner.version, key
    for where, change in tables.changes.items():
        owner = former.accounts.get(where[0])
        assert where in former.changes or owner is None or change.version > owner.version
    versions = Counter((key.account, c.version) for key, c in tables.conversations.items())
    assert max(versions.values(), default=0) <= 1


def what_was_retracted_says_nothing(tables: Tables, history: Iterable[Change]) -> None:
    """Wherever the withdrawal was taken: who was not in the room then has not heard of it."""
    gone = {(change.conversation, change.target_rank) for change in history if change.kind in WITHDRAWN}
    for change in tables.changes.values():
        assert not ((change.conversation, change.target_rank) in gone and change.stanza), change
    for key, found in tables.conversations.items():
        if found.last is not None and (key, found.last.rank) in gone:
            assert found.last.retracted, key
            assert "<body>" not in found.last.stanza
        elif found.last is not None:
            assert not found.last.retracted, key


def nobody_is_woken_twice(tables: Tables) -> None:
    waiting = [job for job in tables.jobs.values() if job.state is JobState.QUEUED and job.sid is None]
    assert max(Counter((j.account, j.device_id, j.kind) for j in waiting).values(), default=0) <= 1
    voip = [job for job in tables.jobs.values() if job.voip]
    assert max(Counter((j.account, j.device_id, j.peer, j.sid) for j in voip).values(), default=0) <= 1
    assert all(job.kind is PushKind.CALL for job in voip)


def what_is_over_never_rings(tables: Tables, former: Tables) -> None:
    """A call that is over stays as it ended, and none goes back to where it was; nothing new is queued to ring
    for it: what the vendor has refused is judged anew when it is claimed.
    """
    for key, call in tables.calls.items():
        was = former.calls.get(key)
        if was is not None and was.state is not call.state:
            assert was.state.is_open, key
            assert call.state not in (CallState.RINGING, CallState.OUTGOING), key
    for job in tables.jobs.values():
        if job.state is JobState.QUEUED and job.kind is PushKind.CALL and not job.attempts:
            assert tables.calls[CallKey(job.account, job.peer, job.sid or "")].state is CallState.RINGING, job


def a_token_belongs_to_one_device(tables: Tables) -> None:
    held = Counter(
        (d.app, digest)
        for d in tables.devices.values()
        for digest in {t.digest for t in (d.alert_token, d.voip_token) if t}
    )
    assert max(held.values(), default=0) <= 1
    assert len(held) == len(tables.tokens)
