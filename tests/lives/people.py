"""What people do outside the rooms of this server: they write, ring, read, and change what they said; users set
properties, the feed repeats itself and loses events, time passes and rows are trimmed.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

from sync.model.books import Keys
from sync.model.call import Call, CallKey, CallState, CallStep
from sync.model.conversation import ConversationKey, Direction, Kind, Notify, Status
from sync.model.event import (
    AccountEvent,
    AccountState,
    BlocklistEvent,
    Body,
    Bookmark,
    Bounce,
    CallMessage,
    Content,
    Correction,
    Displayed,
    GapEvent,
    GapReason,
    Invitation,
    Malformed,
    Mentions,
    MessageEvent,
    Moderation,
    Nothing,
    Reaction,
    Receipt,
    Retraction,
    Subscription,
)
from sync.model.jid import domain
from sync.model.query import Mute, SetNotify, SetProperties, Unmute
from sync.model.room import Affiliation, Departure
from sync.rules.fold import expire
from sync.rules.properties import keys_of, set_properties
from sync.rules.times import instant
from sync.rules.wanted import indexes
from tests.contract.samples import ANN, BOB, CAT, EVE
from tests.lives.apart import all_are_read, one_has_changed, some_text
from tests.lives.world import ACCOUNTS, CLUB, DAY, KEEPS, PEERS, RESOURCES, ROOMS, World, in_order

SIDS = ("s1", "s2", "s3")
SAID = '<message xmlns="jabber:client"><body>text</body></message>'
HOSTS = ("example.org", "rooms.example.org")


def message(w: World, account: str, peer: str, content: Content, way: str, **fields: Any) -> MessageEvent:
    """An event of a conversation: `way` is in, out, or self for what an account tells itself."""
    own = "self" if way == "self" else None
    values: dict[str, Any] = {
        "at": w.clock.now() - timedelta(seconds=w.pick((0, 0, 0, 30, 90, -5))),
        "stanza": SAID,
        "message_id": w.pick((f"m{len(w.fed)}", f"m{len(w.fed)}", f"m{w.random.randrange(6)}", None)),
        "origin_id": w.pick((None, f"o{len(w.fed)}", f"o{w.random.randrange(4)}")),
        "archive_id": w.pick((f"a{len(w.fed)}", f"a{len(w.fed)}", f"a{w.random.randrange(9)}", None)),
        "resource": w.pick(RESOURCES),
        "known": w.chance(50),
        "sessions": w.sessions(),
        "stored": not w.chance(5),
        "blocked": w.chance(3),
    }
    return MessageEvent(
        position=w.position(account),
        account=account,
        direction=Direction.IN if way == "in" else Direction.OUT,
        peer=account if own else peer,
        sender=f"{peer}/phone" if way == "in" and "/" not in peer else peer if way == "in" else f"{account}/web",
        content=content,
        to_self=way == "self",
        **values | fields,
    )


def content_for(w: World, key: ConversationKey) -> Content:
    """Something to say in a one-to-one chat."""
    target = w.target(key)
    makes: Sequence[Callable[[], Content]] = (
        lambda: some_text(w),
        lambda: Correction(target),
        lambda: Retraction(target),
        lambda: Reaction(target, w.pick(((), ("👍",)))),
        lambda: Displayed(target, tuple(w.some([w.target(key)]))),
        lambda: Receipt(target),
        lambda: Bounce(target, call=None),
        lambda: Bounce(None, call=w.pick(SIDS)),
        lambda: Nothing("chat-state"),
    )
    return w.pick((makes[0], makes[0], makes[0], *makes))()


def talk(w: World) -> None:
    """Somebody says something to somebody, or about it."""
    account, peer = w.pick(w.folk), w.pick(w.peers)
    before = w.tables.conversations
    w.feed(
        message(w, account, peer, content_for(w, ConversationKey(account, peer)), w.pick(("in", "in", "out", "self")))
    )
    one_has_changed(w, before)


def change(w: World) -> None:
    """Somebody changes what it said itself, or reads what the other one said; so does a correction of a correction."""
    account, peer, way = w.pick(w.folk), w.pick(w.peers), w.pick(("in", "out"))
    key, other = ConversationKey(account, peer), "in" if way == "out" else "out"
    makes = (Correction, Correction, Retraction, Displayed, Receipt)
    make: Any = w.pick(makes)
    side = Direction(other if make in (Displayed, Receipt) else way)
    w.feed(message(w, account, peer, make(w.target(key, lambda m: m.direction is side)), way))


def burst(w: World) -> None:
    """Several events in one batch, of one conversation or of several."""
    account, peer = w.pick(w.folk), w.pick(w.peers)
    events = []
    for n in range(w.random.randrange(2, 6)):
        if w.chance(20):
            account, peer = w.pick(w.folk), w.pick(w.peers)
        # The batch's own messages are named, too, by ids that they have or will have.
        content = content_for(w, ConversationKey(account, peer))
        if isinstance(content, Correction | Retraction | Displayed) and w.chance(50):
            content = type(content)(f"m{len(w.fed) + w.random.randrange(n + 1)}")
        said = message(w, account, peer, content, w.pick(("in", "in", "out")), stored=True)
        where = replace(said.position, n=said.position.n + n)
        number = len(w.fed) + n
        events.append(replace(said, position=where, message_id=f"m{number}", archive_id=f"a{number}"))
    w.feed(*events)


def ring(w: World) -> None:
    """A step of a call: a new one, or one that there is."""
    calls = in_order(w.tables.calls)
    if calls and w.chance(60):
        call = w.pick(calls)
        account, peer, sid = call.key.account, call.key.peer, call.session_id
        step = w.pick(list(CallStep))
    else:
        account, peer = w.pick(w.folk), w.pick(w.peers)
        sid = w.pick((*SIDS, f"s{len(w.fed)}"))
        step = w.pick((CallStep.PROPOSE, CallStep.PROPOSE, *CallStep))
    migrated = w.pick((None, *SIDS, *(call.session_id for call in calls))) if step is CallStep.FINISH else None
    content = CallMessage(step, sid, ("audio",), migrated)
    w.feed(message(w, account, peer, content, w.pick(("in", "in", "out", "self"))))


def call_up(w: World) -> None:
    """One account calls the other, though something from there may still be under way."""
    account, peer = w.pick(((ANN, EVE), (EVE, ANN)))
    content = CallMessage(CallStep.PROPOSE, w.pick((f"x{len(w.fed)}", f"y{len(w.fed)}", f"a{len(w.fed)}")), ("audio",))
    send_step(w, account, peer, content)


def go_on_calling(w: World) -> None:
    """A device of one of the two does what it may with a call that it knows."""
    calls = [call for key, call in sorted_calls(w) if call.state.is_open and {key.account, key.peer} == {ANN, EVE}]
    if not calls:
        return
    call = w.pick(calls)
    mine = (CallStep.RETRACT, CallStep.FINISH) if call.is_own else (CallStep.PROCEED, CallStep.REJECT, CallStep.FINISH)
    send_step(w, call.key.account, call.key.peer, CallMessage(w.pick(mine), call.session_id))


def hear(w: World) -> None:
    """What one of the two sent arrives at the other."""
    if w.flying:
        account, peer, content = w.flying.pop(0)
        take_step(w, account, peer, content, "in")


def send_step(w: World, account: str, peer: str, content: CallMessage) -> None:
    w.flying.append((peer, account, content))
    take_step(w, account, peer, content, "out")


def take_step(w: World, account: str, peer: str, content: CallMessage, way: str) -> None:
    """XEP-0353 §5.1: a client says of the one of two crossing calls that gives way that it does."""
    before = w.tables.calls
    w.feed(step_of(w, account, peer, content, way))
    if content.step is not CallStep.PROPOSE:
        return
    for key, call in sorted_calls(w):
        crossed = call.state is CallState.CLOSED and (key.account, key.peer) == (account, peer)
        if crossed and (key not in before or before[key].state.is_open):
            send_step(w, account, peer, CallMessage(CallStep.YIELD, call.session_id))


def step_of(w: World, account: str, peer: str, content: CallMessage, way: str) -> MessageEvent:
    return message(w, account, peer, content, way, at=w.clock.now(), blocked=False, known=True, resource="web")


def sorted_calls(w: World) -> list[tuple[CallKey, Call]]:
    return [(call.key, call) for call in in_order(w.tables.calls)]


def ring_out(w: World) -> None:
    """Nobody answered in time, or nobody has hung up for a day."""
    due = [key for key, call in sorted_calls(w) if call.over_at is not None and call.over_at <= w.clock.now()]
    rang = {key for key in due if w.tables.calls[key].state is CallState.RINGING}
    wanted = Keys(
        accounts=frozenset(k.account for k in due), calls=frozenset((k.account, k.sid) for k in due), devices=True
    )
    w.transact(wanted, lambda books: expire(due, books, w.policies))
    for key in due:
        assert w.tables.calls[key].state is (CallState.MISSED if key in rang else CallState.ENDED)


def read_mds(w: World) -> None:
    """XEP-0490: the account's personal storage says how far it has read, in any sort of conversation."""
    account, peer = w.pick(w.folk), w.pick((*w.peers, CLUB, *w.halls))
    kind = Kind.GROUP if peer in (CLUB, *ROOMS) else Kind.CHAT
    index = ConversationKey(peer, peer, kind) if peer in ROOMS else ConversationKey(account, peer, kind)
    content, before = Displayed(w.target(index)), w.tables.conversations
    w.feed(message(w, account, peer, content, "out", kind=kind, stanza="", message_id=None, archive_id=None))
    all_are_read(w, ConversationKey(account, peer, kind), before)


def ask(w: World) -> None:
    """Invitations, bookmarks, requests to see the presence."""
    account, room = w.pick(w.folk), w.pick((CLUB, *w.halls))
    plain: dict[str, Any] = {"stanza": "", "message_id": None, "archive_id": None}
    match w.random.randrange(3):
        case 0:
            content: Content = Invitation(w.pick((BOB, CAT)))
            w.feed(message(w, account, room, content, w.pick(("in", "in", "out")), kind=Kind.GROUP))
        case 1:
            content = Bookmark(w.pick((None, *Notify)), w.pick((None, "Ann", "ann of ex.org")))
            w.feed(message(w, account, room, content, "out", kind=Kind.GROUP, **plain))
        case _:
            w.feed(message(w, account, w.pick((BOB, CAT)), w.pick(list(Subscription)), "in", **plain))


def block(w: World) -> None:
    """XEP-0191."""
    named = [frozenset(w.some(PEERS)) for _ in range(2)]
    account = w.pick(w.folk)
    w.feed(
        BlocklistEvent(
            position=w.position(account), account=account, at=w.clock.now(), blocked=named[0], unblocked=named[1]
        )
    )


def club_content(w: World, key: ConversationKey) -> Content:
    """Something to say in a room of another server."""
    target = w.target(key)
    meant = Mentions(everybody=w.chance(20), jids=tuple(w.some([key.account])), reply_to=w.pick((None, target)))
    body = Body(mentions=meant, text=w.pick(("", "Ann, are you there?")))
    by_id: Sequence[Any] = (Correction, Retraction, Displayed, Moderation, partial(Reaction, emojis=("👍",)))
    other: Content = w.pick(by_id)(target)
    steps = (CallMessage(CallStep.PROPOSE, f"m{len(w.fed)}", ("audio",)), CallMessage(w.pick(list(CallStep)), target))
    return w.pick((body, body, body, other, *steps))


def club(w: World) -> None:
    """A room of another server: what a session hears, as often as the account has sessions there, and history."""
    account, nick = w.pick(w.folk), w.pick(("Ann", "Joe", "Zoe"))
    key = ConversationKey(account, CLUB, Kind.GROUP)
    content = club_content(w, key)
    by_room = isinstance(content, Moderation) and not w.chance(10)
    fields: dict[str, Any] = {"kind": Kind.GROUP, "author": w.pick((f"occupant of {nick}", f"{CLUB}/{nick}"))}
    fields |= {"sender": CLUB if by_room else f"{CLUB}/{nick}", "replayed": w.chance(8)}
    values = message(w, account, CLUB, content, "in", **{k: v for k, v in fields.items() if k != "sender"})
    said = replace(values, sender=fields["sender"])
    copies = [replace(said, resource=resource) for resource in RESOURCES if w.chance(50)] or [said]
    w.feed(*(replace(copy, position=replace(copy.position, n=copy.position.n + n)) for n, copy in enumerate(copies)))


def speak_in_club(w: World) -> None:
    """What a session says to a room of another server goes out, and comes back under the account's nickname."""
    account = w.pick(w.folk)
    content = club_content(w, ConversationKey(account, CLUB, Kind.GROUP))
    if isinstance(content, Moderation):
        return
    sent = message(w, account, CLUB, content, "out", kind=Kind.GROUP, archive_id=None, stored=True)
    w.feed(sent)
    for _ in range(w.random.randrange(3)):
        heard = replace(sent, position=w.position(account), direction=Direction.IN, archive_id=f"a{len(w.fed) // 2}")
        w.feed(replace(heard, sender=f"{CLUB}/Ann", author="occupant of Ann", resource=w.pick(RESOURCES)))


# ---- users, time, the feed ----


def set_some(w: World) -> None:
    """One to three conversations of an account, all or nothing."""
    account = w.pick(w.folk)
    found = w.mine(account)
    requests = [request(w, c.key, c.version) for c in (w.pick(found) for _ in range(3 if found else 0)) if w.chance(60)]
    if not requests or w.chance(5):
        requests.append(SetProperties(peer="nobody@example.net", pinned=1))
    requests = [replace(one, read=place(w, ConversationKey(account, one.peer, one.kind))) for one in requests]
    rule = partial(set_properties, account, requests, resource=w.pick(RESOURCES), policies=w.policies)
    w.transact(keys_of(account, requests, several=w.policies.conduct.several), rule)


def place(w: World, key: ConversationKey) -> str | None:
    """Where to read up to: mostly nowhere, else a place in the archive, or none."""
    if w.chance(60):
        return None
    found = [m.archive_id for m in w.tables.messages.values() if m.conversation in indexes(key) and m.archive_id]
    return w.pick(found) if found and not w.chance(10) else "no such place"


def request(w: World, key: ConversationKey, version: int) -> SetProperties:
    return SetProperties(
        peer=key.peer,
        kind=key.kind,
        pinned=w.pick((None, None, 0, 1, 2)),
        mute=w.pick((None, None, Unmute(), Mute(None), Mute(timedelta(seconds=5)))),
        status=w.pick((None, None, None, *Status)),
        marked_unread=w.pick((None, None, True, False)),
        notify=w.pick((None, None, SetNotify(w.pick((None, *Notify))))),
        if_version=w.pick((None, None, version, version, version - 1)),
    )


def pass_time(w: World) -> None:
    """Clocks are set back, too."""
    w.wait(w.pick((-3, 0.000001, 1, 8, 21, 61, DAY.total_seconds() / 4, DAY.total_seconds())))


def repeat_the_feed(w: World) -> None:
    """From any event on: nothing changes."""
    if not w.fed:
        return
    start = w.random.randrange(max(0, len(w.fed) - 12), len(w.fed))
    before = w.tables
    w.fold(w.fed[start:])
    lost = {name for name in before.__dataclass_fields__ if getattr(before, name) != getattr(w.tables, name)}
    assert not lost, lost


def quarantine(w: World) -> None:
    """An event that nobody understands: its account, or the members of its room, start over."""
    account = w.pick((*ACCOUNTS, *ROOMS))
    bad = Malformed(position=w.position(account), account=account, why="kind", xml="<event/>", room=account in ROOMS)
    epochs = {jid: owner.epoch for jid, owner in w.tables.accounts.items()}
    w.feed(bad)
    concerned = {m.account for m in w.tables.members.values() if m.room == account} if bad.room else {account}
    for jid, owner in w.tables.accounts.items():
        assert owner.epoch == epochs[jid] + (jid in concerned)
        assert jid not in concerned or owner.floor == owner.version


def lose_events(w: World) -> None:
    """The module has lost events of a host."""
    host = w.pick(HOSTS)
    account = w.pick([jid for jid in (*ACCOUNTS, *ROOMS) if domain(jid) == host])
    where = replace(w.position(account), host=host)
    w.feed(GapEvent(position=where, account=host, at=w.clock.now(), reason=w.pick(list(GapReason))))


def remove_account(w: World) -> None:
    """An account is removed, from its rooms as well, and made anew. Nothing of its former life is left."""
    from tests.lives.rooms import change_members, membership  # noqa: PLC0415 - rooms know people

    account = w.pick(w.folk)
    owner = w.tables.accounts[account]
    w.feed(AccountEvent(position=w.position(account), account=account, at=w.clock.now(), state=AccountState.DELETED))
    assert not w.mine(account)
    w.lives[account] += 1
    w.history.pop(account, None)
    for key in [key for key in w.rung if key[0] == account]:
        del w.rung[key]
    w.clock.instant = max(w.clock.now(), instant(owner.version)) + timedelta(seconds=1)
    w.feed(AccountEvent(position=w.position(account), account=account, at=w.clock.now(), state=AccountState.CREATED))
    for room in ROOMS:
        gone = membership(account, Affiliation.NONE, present=False, why=Departure.REMOVED)
        change_members(w, room, gone)


def delete_and_bury(w: World) -> None:
    """A conversation is deleted, and after a while its tombstone goes, too."""
    account = w.pick(w.folk)
    found = [c for c in w.mine(account) if c.status is not Status.DELETED]
    if not found:
        return
    key = w.pick(found).key
    wanted = Keys(accounts=frozenset({account}), conversations=frozenset({key}))
    deleted = SetProperties(peer=key.peer, kind=key.kind, status=Status.DELETED)
    w.transact(wanted, partial(set_properties, account, [deleted]))
    if w.chance(50):
        w.wait(2 * DAY.total_seconds())
        w.tidy([account], KEEPS[0])


def trim(w: World) -> None:
    """Accounts and rooms have their turn. No counter and no version moves."""
    before = {c.key: (c.unread, c.mentions, c.version, c.read) for c in w.tables.conversations.values()}
    jids = [jid for jid in sorted((*w.tables.accounts, *w.tables.rooms)) if w.chance(50)]
    w.tidy(jids, w.pick(KEEPS))
    for key, c in w.tables.conversations.items():
        assert (c.unread, c.mentions, c.version, c.read) == before[key]
