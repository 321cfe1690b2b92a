"""Random lives of two accounts: whatever happens in whatever order, the books balance and no client misses a thing.

Events, properties, phones, claims and answers go through the rules on the store in memory; clients sync at random
moments, all at once or page by page while others write. `pytest --hypothesis-profile=nightly` lives longer.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sync.model.books import Books, Keys
from sync.model.call import CallState
from sync.model.conversation import ChangeKind, Conversation, ConversationKey, Direction, Status
from sync.model.device import JobState, PushJob, PushKind
from sync.model.errors import ItemNotFound
from sync.model.event import (
    AccountEvent,
    AccountState,
    Body,
    Bounce,
    CallMessage,
    CallStep,
    Content,
    Correction,
    Displayed,
    Event,
    FeedPosition,
    Malformed,
    MessageEvent,
    Nothing,
    Retraction,
    Session,
    SessionState,
)
from sync.model.push import Environment, PushOutcome, Verdict
from sync.model.query import App, EnablePush, Mute, RegisterDevice, SetProperties, Unmute
from sync.rules.claims import claim, settle
from sync.rules.devices import NewPhone, enable, fetched, register
from sync.rules.fold import Policies, expire, take
from sync.rules.properties import set_properties
from sync.rules.wakes import WakePolicy
from sync.rules.wanted import keys
from tests.contract.fakes_store import MemoryStore, SetClock
from tests.contract.fakes_tables import Tables, recount
from tests.contract.readers import Reader
from tests.contract.samples import ANN, BOB, CAT, EVE, NOW, seeing, token

ACCOUNTS, PEERS, RESOURCES = (ANN, EVE), (BOB, CAT), ("ph", "web")
POLICIES = Policies(wakes=WakePolicy(filtering_apps=frozenset({"chat"})))
NOT_TAKEN = {Verdict.RETRY, Verdict.NOT_SENT, Verdict.THROTTLED, Verdict.CREDENTIALS}

accounts = st.sampled_from(ACCOUNTS)
peers = st.sampled_from(PEERS)
ids = st.sampled_from(["m1", "m2", "m3", "m4", "a1", "a2"])
archive_ids = st.sampled_from([None, "a1", "a2", "a3", "a4", "a5", "a6"])
sids = st.sampled_from(["s1", "s2", "s3"])
ways = st.sampled_from(["in", "in", "out", "self"])
present = st.lists(st.builds(Session, st.sampled_from(RESOURCES), st.sampled_from(SessionState)), max_size=2).map(tuple)
contents: st.SearchStrategy[Content] = st.one_of(
    st.builds(Body),
    st.builds(Body),
    st.builds(Correction, ids),
    st.builds(Retraction, ids),
    st.builds(Displayed, ids, st.lists(archive_ids.filter(bool), max_size=1).map(tuple)),
    st.builds(CallMessage, st.sampled_from(CallStep), sids, st.just(("audio",))),
    st.builds(Bounce, st.just("m1"), sids),
    st.just(Nothing("chat-state")),
)


class Lives(RuleBasedStateMachine):
    """Everything that may happen."""

    @initialize()
    def begin(self) -> None:
        self.clock = SetClock(NOW)
        self.store = MemoryStore(self.clock)
        self.fed: list[Event] = []
        self.former = self.store.tables
        self.rung: Counter[tuple[str, str, str, str]] = Counter()  # VoIP pushes that may have rung, by device and call
        self.store.apply(Keys(accounts=frozenset(ACCOUNTS), create=True), seeing())
        self.clients = {account: [Reader() for _ in range(3)] for account in ACCOUNTS}

        for account in ACCOUNTS:
            self.registered(account, name="d1", alert=account, voip=f"voip {account}", app="chat", resource="ph")

    @property
    def tables(self) -> Tables:
        return self.store.tables

    # ---- the feed ------------------------------------------------------------------------------------------------

    def position(self) -> FeedPosition:
        return FeedPosition("example.org", "stream", "main", len(self.fed) + 1)

    def feed(self, *events: Event) -> None:
        self.fed += [event for event in events if event not in self.fed]
        self.store.apply(keys(events), lambda books: take(events, books, POLICIES))

    def message(self, account: str, peer: str, content: Content, way: str, **fields: Any) -> MessageEvent:
        age = timedelta(seconds=fields.pop("age"))
        return MessageEvent(
            position=self.position(),
            account=account,
            at=self.clock.now() - age,
            direction=Direction.IN if way == "in" else Direction.OUT,
            peer=account if way == "self" else peer,
            sender=f"{peer}/phone" if way == "in" else f"{account}/web",
            content=content,
            stanza="<message xmlns='jabber:client'><body>text</body></message>",
            to_self=way == "self",
            **fields,
        )

    @rule(
        account=accounts,
        peer=peers,
        content=contents,
        way=ways,
        fields=st.fixed_dictionaries(
            {
                "age": st.sampled_from([0, 0, 0, 30, 90, -5]),
                "archive_id": archive_ids,
                "message_id": st.one_of(st.none(), ids),
                "origin_id": st.one_of(st.none(), ids),
                "resource": st.sampled_from(RESOURCES),
                "known": st.booleans(),
                "stored": st.sampled_from([True, True, True, False]),
                "sessions": present,
            }
        ),
    )
    def something_is_said(self, account: str, peer: str, content: Content, way: str, fields: dict[str, Any]) -> None:
        self.feed(self.message(account, peer, content, way, **fields))

    @precondition(lambda self: self.tables.messages)
    @rule(data=st.data(), make=st.sampled_from([Correction, Correction, Retraction, Displayed]), archived=st.booleans())
    def something_said_is_changed(self, data: st.DataObject, make: type[Any], archived: bool) -> None:
        known = [message for message in self.tables.messages.values() if message.message_key]
        if not known:
            return
        message = known[data.draw(st.integers(0, len(known) - 1))]
        key, own = message.conversation, message.direction is Direction.OUT
        way = ("in" if own else "out") if make is Displayed else message.direction.value
        archive_id = f"fresh {len(self.fed)}" if archived else None
        content = make(message.message_key)
        self.feed(self.message(key.account, key.peer, content, way, age=0, archive_id=archive_id))

    @rule(account=accounts, peer=peers, fresh=st.booleans())
    def a_peer_rings(self, account: str, peer: str, fresh: bool) -> None:
        content = CallMessage(CallStep.PROPOSE, f"s{len(self.fed)}" if fresh else "s1", ("audio",))
        self.feed(self.message(account, peer, content, "in", age=0, known=True))

    @precondition(lambda self: self.tables.calls)
    @rule(data=st.data(), step=st.sampled_from(CallStep), way=ways, resource=st.sampled_from(RESOURCES))
    def a_call_goes_on(self, data: st.DataObject, step: CallStep, way: str, resource: str) -> None:
        calls = list(self.tables.calls.values())
        call = calls[data.draw(st.integers(0, len(calls) - 1))]
        content = CallMessage(step, call.session_id)
        self.feed(self.message(call.key.account, call.key.peer, content, way, age=0, resource=resource))

    @rule(account=accounts, peer=peers, many=st.lists(contents, min_size=2, max_size=4), way=ways)
    def a_batch_comes(self, account: str, peer: str, many: list[Content], way: str) -> None:
        first = len(self.fed) + 1
        events = [self.message(account, peer, c, way, age=0, message_id=f"m{n % 4 + 1}") for n, c in enumerate(many)]
        self.feed(*(replace(e, position=replace(e.position, n=first + i)) for i, e in enumerate(events)))

    @precondition(lambda self: self.fed)
    @rule(data=st.data())
    def the_feed_repeats_itself(self, data: st.DataObject) -> None:
        start = data.draw(st.integers(0, len(self.fed) - 1))
        before = self.tables
        self.store.apply(keys(self.fed[start:]), lambda books: take(self.fed[start:], books, POLICIES))
        assert all(getattr(before, name) == getattr(self.tables, name) for name in Tables.__dataclass_fields__)

    @rule(account=accounts)
    def an_event_is_malformed(self, account: str) -> None:
        self.feed(Malformed(position=self.position(), account=account, why="kind", xml="<event/>"))

    @rule(account=accounts)
    def an_account_goes_and_comes_back(self, account: str) -> None:
        self.feed(
            AccountEvent(position=self.position(), account=account, at=self.clock.now(), state=AccountState.DELETED)
        )
        assert not [key for key in self.tables.conversations if key.account == account]
        self.clock.instant += timedelta(seconds=1)
        self.feed(
            AccountEvent(position=self.position(), account=account, at=self.clock.now(), state=AccountState.CREATED)
        )
        self.clients[account] = [Reader() for _ in range(3)]
        self.rung = Counter({key: n for key, n in self.rung.items() if key[0] != account})

    # ---- time, users, phones -------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([-3, 0.000001, 1, 8, 21, 61]))
    def time_passes(self, seconds: float) -> None:
        self.clock.instant += timedelta(seconds=seconds)

    @rule()
    def calls_ring_out(self) -> None:
        due = [
            k for k, c in self.tables.calls.items() if c.state is CallState.RINGING and not c.rings(self.clock.now())
        ]
        wanted = Keys(
            accounts=frozenset(k.account for k in due), calls=frozenset((k.account, k.sid) for k in due), devices=True
        )
        self.store.apply(wanted, lambda books: expire(due, books, POLICIES))
        assert all(self.tables.calls[key].state is CallState.MISSED for key in due)

    @rule(
        account=accounts,
        peer=peers,
        pinned=st.sampled_from([None, 0, 1, 2]),
        mute=st.sampled_from([None, Unmute(), Mute(None), Mute(timedelta(seconds=5))]),
        status=st.sampled_from([None, *Status]),
    )
    def a_user_sets(self, account: str, peer: str, **properties: Any) -> None:
        request = SetProperties(peer=peer, **properties)
        wanted = Keys(accounts=frozenset({account}), conversations=frozenset({ConversationKey(account, peer)}))
        with suppress(ItemNotFound):
            self.store.apply(wanted, partial(set_properties, account, [request]))

    @rule(
        account=accounts,
        name=st.sampled_from(["d1", "d2", "d3", "d4", "d5", "d6"]),
        alert=st.sampled_from("uvw"),
        voip=st.sampled_from([None, "x", "y"]),
        app=st.sampled_from(["chat", "plain"]),
        resource=st.sampled_from(RESOURCES),
    )
    def a_phone_registers(self, account: str, **phone: Any) -> None:
        self.registered(account, **phone)

    def registered(self, account: str, *, name: str, alert: str, voip: str | None, app: str, resource: str) -> None:
        tokens = token(alert), token(voip) if voip else None
        phone = NewPhone(
            alert_token=tokens[0], voip_token=tokens[1], node=f"node {len(self.fed)} {name}", secret_digest=b""
        )
        made = App(name=app, bundle_id=app, environment=Environment.SANDBOX, filtering=app == "chat")
        request = RegisterDevice(account=account, resource=resource, device_id=name, app=app, alert_token="")
        node = self.locked(ACCOUNTS, partial(register, request, made, phone))
        self.locked([account], partial(enable, EnablePush(account=account, resource=None, jid="", node=node), None))

    def locked(self, names: Any, ruling: Callable[[Books], Any]) -> Any:
        return self.store.apply(Keys(accounts=frozenset(names), create=True, devices=True), ruling)

    # ---- pushes --------------------------------------------------------------------------------------------------

    def wanted_by(self, jobs: list[PushJob]) -> Keys:
        return Keys(
            accounts=frozenset(job.account for job in jobs),
            conversations=frozenset(ConversationKey(job.account, job.peer) for job in jobs if job.peer),
            calls=frozenset((job.account, job.sid) for job in jobs if job.sid),
            devices=True,
        )

    @rule(sessions=st.one_of(st.none(), st.none(), present))
    def jobs_are_claimed(self, sessions: tuple[Session, ...] | None) -> None:
        now = self.clock.now()
        due = [job for job in self.tables.jobs.values() if job.state is JobState.QUEUED and job.not_before <= now]
        names, presence = [job.job_id for job in due], dict.fromkeys(ACCOUNTS, sessions)
        claimed = self.store.apply(self.wanted_by(due), lambda books: claim(names, presence, books, POLICIES))
        assert len(claimed.claims) + len(claimed.suppressed) == len(due)
        for found in claimed.claims:
            if found.job.voip:
                assert found.call is not None
                assert found.call.rings(now)
                assert found.job.sid is not None
                rung = found.job.account, found.job.device_id, found.job.peer, found.job.sid
                self.rung[rung] += 1
                assert self.rung[rung] == 1

    @precondition(lambda self: any(job.state is JobState.ATTEMPTED for job in self.tables.jobs.values()))
    @rule(data=st.data(), verdict=st.sampled_from(Verdict), dead=st.sampled_from([None, -3600, 3600]))
    def a_push_is_answered(self, data: st.DataObject, verdict: Verdict, dead: int | None) -> None:
        left = [job for job in self.tables.jobs.values() if job.state is JobState.ATTEMPTED]
        job = left[data.draw(st.integers(0, len(left) - 1))]
        since = self.clock.now() + timedelta(seconds=dead) if dead else None
        outcome = PushOutcome(verdict=verdict, dead_since_at=since)
        answered = partial(settle, job.job_id, job.account, outcome)
        self.store.apply(self.wanted_by([job]), lambda books: answered(books, POLICIES))
        if job.voip and job.sid and verdict in NOT_TAKEN:
            self.rung[job.account, job.device_id, job.peer, job.sid] -= 1

    @rule(account=accounts, resource=st.sampled_from(RESOURCES))
    def a_phone_fetches(self, account: str, resource: str) -> None:
        newest = self.tables.accounts[account].version
        self.locked([account], partial(fetched, account, resource, newest))

    # ---- clients -------------------------------------------------------------------------------------------------

    @rule(account=accounts)
    def a_client_syncs(self, account: str) -> None:
        self.asks(account, self.clients[account][0])
        assert self.clients[account][0].list == self.listed(account)

    @rule(account=accounts, which=st.sampled_from([1, 2]), limit=st.sampled_from([1, 2]))
    def a_client_turns_a_page(self, account: str, which: int, limit: int) -> None:
        client = self.clients[account][which]
        if self.asks(account, client, limit):
            self.asks(account, client)
            assert client.list == self.listed(account)

    def asks(self, account: str, client: Reader, limit: int | None = None) -> bool:
        """True when that was the last page."""
        return client.told(self.store.listed(account, client.ask(self.tables.accounts[account], limit)))

    def listed(self, account: str) -> dict[ConversationKey, Conversation]:
        mine = {key: c for key, c in self.tables.conversations.items() if key.account == account}
        return {key: c for key, c in mine.items() if c.status is not Status.DELETED}

    # ---- what always holds ---------------------------------------------------------------------------------------

    @invariant()
    def counters_equal_recounts(self) -> None:
        calls = Counter(
            ConversationKey(k.account, k.peer) for k, c in self.tables.calls.items() if c.state is CallState.RINGING
        )
        for key, conversation in self.tables.conversations.items():
            assert (conversation.unread, conversation.mentions) == recount(self.tables, key)
            assert conversation.ringing == calls.pop(key, 0)
        assert not calls

    @invariant()
    def totals_equal_sums(self) -> None:
        for jid, account in self.tables.accounts.items():
            counts = [c.unread for key, c in self.tables.conversations.items() if key.account == jid]
            assert (account.unread, account.unread_conversations) == (sum(counts), sum(map(bool, counts)))
            assert account.devices == sum(owner == jid for owner, _ in self.tables.devices)

    @invariant()
    def versions_only_rise(self) -> None:
        for key, conversation in self.tables.conversations.items():
            owner = self.tables.accounts[key.account]
            assert conversation.version <= owner.version
            if self.former.conversations.get(key) != conversation and key.account in self.former.accounts:
                assert conversation.version > self.former.accounts[key.account].version
        self.former = self.tables

    @invariant()
    def what_was_retracted_says_nothing(self) -> None:
        gone = {key for key, message in self.tables.messages.items() if message.retracted}
        for change in self.tables.changes.values():
            silent = (change.conversation, change.target_rank) in gone or change.kind is ChangeKind.RETRACTED
            assert not (silent and change.stanza)
        for key, conversation in self.tables.conversations.items():
            last = conversation.last
            assert not (last and (key, last.rank) in gone and "<body>" in last.stanza)

    @invariant()
    def one_wake_waits_for_each_device(self) -> None:
        waiting = [job for job in self.tables.jobs.values() if job.state is JobState.QUEUED and job.sid is None]
        assert max(Counter((j.account, j.device_id, j.kind) for j in waiting).values(), default=0) <= 1

    @invariant()
    def a_token_belongs_to_one_device(self) -> None:
        held = Counter(
            (d.app, digest)
            for d in self.tables.devices.values()
            for digest in {t.digest for t in (d.alert_token, d.voip_token) if t}
        )
        assert max(held.values(), default=0) <= 1
        assert len(held) == len(self.tables.tokens)

    @invariant()
    def only_calls_are_pushed_as_voip(self) -> None:
        assert all(job.kind is PushKind.CALL for job in self.tables.jobs.values() if job.voip)


TestLives = Lives.TestCase
