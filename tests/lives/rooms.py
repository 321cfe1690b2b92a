"""What happens in rooms of this server, and how it reaches their members: in chunks, interrupted, repeated, and ahead
of its turn for a member who asks.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from sync.model.call import CallStep
from sync.model.conversation import ConversationKey, IndexedMessage, Kind
from sync.model.event import (
    Body,
    CallMessage,
    Content,
    Correction,
    Displayed,
    Membership,
    Mentions,
    Moderation,
    Nothing,
    Reaction,
    Retraction,
    RoomDestroyedEvent,
    RoomMembersEvent,
    RoomMessageEvent,
)
from sync.model.room import Affiliation, Departure, RoomEntry, RoomMember
from sync.rules.fold import fan_out
from sync.rules.membership import belongs
from sync.service.fanout import keys_of
from tests.contract.samples import ANN, EVE
from tests.lives.people import SAID
from tests.lives.world import ACCOUNTS, FAY, GUS, Pass, World, in_order, run

NICKS = {ANN: "Ann", EVE: "Evening Star", FAY: "fay", GUS: "Gus"}


def say(w: World) -> None:
    """Somebody says something in a room, once or several times in one batch."""
    room = w.pick(w.halls)
    events = []
    for n in range(w.pick((1, 1, 1, 2, 4))):
        said = said_in(w, room, w.pick((*w.folk, *w.folk, None)), None)  # None: of another server
        events.append(replace(said, position=replace(said.position, n=said.position.n + n)))
    w.feed(*events)


def change(w: World) -> None:
    """A member changes what it said there itself, or reads on."""
    room, author = w.pick(w.halls), w.pick(w.folk)
    own = w.target(ConversationKey(room, room, Kind.GROUP), lambda m: m.author == author)
    makes: Any = (Correction, Correction, Retraction)
    w.feed(said_in(w, room, author, w.pick(makes)(own)))


def read(w: World) -> None:
    """A member displays some message: mostly one that it has not read."""
    room = w.pick(w.halls)
    unread = [c for account in w.folk for c in w.mine(account) if c.key.peer == room and c.unread]
    found = w.pick(unread) if unread and w.chance(75) else None

    def is_new(message: IndexedMessage) -> bool:
        return found is None or found.read.rank < message.rank <= found.taken

    target = w.target(ConversationKey(room, room, Kind.GROUP), is_new)
    w.feed(said_in(w, room, found.key.account if found else w.pick(w.folk), Displayed(target)))


def read_what_is_withdrawn(w: World) -> None:
    """What is said, taken back and read before anybody was told of it."""
    room, account = w.pick(w.halls), w.pick(w.folk)
    index = ConversationKey(room, room, Kind.GROUP)
    counted = [m for m in w.known(index) if m.counted and m.retracted is None and m.archive_id is not None]
    for message in counted[-2:]:
        content = Moderation(message.archive_id or "") if w.chance(60) else Displayed(message.archive_id or "")
        w.feed(said_in(w, room, None if isinstance(content, Moderation) else account, content))
    for message in w.some(counted[-4:]):
        w.feed(said_in(w, room, account, Displayed(message.archive_id or "")))


def moderate(w: World) -> None:
    """XEP-0425: the room takes back what counts, old or new."""
    room = w.pick(w.halls)
    index = ConversationKey(room, room, Kind.GROUP)
    w.feed(said_in(w, room, None, Moderation(w.target(index, lambda m: m.counted and m.retracted is None))))


def hail(w: World) -> None:
    """An invite into a call of a room, or a step of one that there is, by whomever, under any id of it."""
    room, author = w.pick(w.halls), w.pick((*w.folk, *w.folk, None))
    called = [call for call in in_order(w.tables.calls) if call.key.peer == room]
    if not called or w.chance(35):
        w.feed(said_in(w, room, author, CallMessage(CallStep.PROPOSE, f"m{len(w.fed)}", ("audio",))))
        return
    sid = w.pick(called).session_id if w.chance(80) else w.target(ConversationKey(room, room, Kind.GROUP))
    w.feed(said_in(w, room, author, CallMessage(w.pick(list(CallStep)), sid)))


def said_in(w: World, room: str, author: str | None, content: Content | None) -> RoomMessageEvent:
    index, n = ConversationKey(room, room, Kind.GROUP), len(w.fed)
    content = content or content_in(w, index)
    nick = NICKS[author] if author else "Bob"
    by_room = isinstance(content, Moderation) and not w.chance(10)
    return RoomMessageEvent(
        position=w.position(room),
        account=room,
        at=w.clock.now() - timedelta(seconds=w.pick((0, 0, 0, 40, -5))),
        sender=room if by_room else f"{room}/{nick}",
        content=content,
        stanza=SAID,
        private=w.chance(50),
        author=None if by_room else author,
        occupant_id=None if by_room else f"occupant of {nick}",
        archive_id=w.pick((f"r{n}", f"r{n}", f"r{w.random.randrange(9)}", None)),
        message_id=w.pick((f"m{n}", f"m{w.random.randrange(6)}", None)),
        origin_id=w.pick((None, f"o{n}")),
        stored=not w.chance(3),
    )


def content_in(w: World, index: ConversationKey) -> Content:
    meant = Mentions(
        everybody=w.chance(15),
        jids=tuple(w.some(ACCOUNTS[:2])),
        occupant_ids=tuple(w.some(["occupant of Gus"])),
        occupants=tuple(w.some([f"{index.peer}/fay"])),
        reply_to=w.target(index) if w.chance(30) else None,
    )
    body = Body(mentions=w.pick((None, meant)), text=w.pick(("", "the evening star rises", "Gus?")))

    def counts(message: IndexedMessage) -> bool:
        return message.counted and message.retracted is None

    target = w.target(index, counts if w.chance(50) else lambda _: True)
    makes: Sequence[Callable[[], Content]] = (
        lambda: body,
        lambda: Correction(target),
        lambda: Retraction(target),
        lambda: Moderation(target, f"{index.peer}/Mod"),
        lambda: Reaction(target, w.pick(((), ("👍",)))),
        lambda: Displayed(target, tuple(w.some([w.target(index)]))),
        lambda: Nothing("chat-state"),
    )
    return w.pick((makes[0], makes[0], makes[0], makes[0], *makes))()


# ---- who belongs ----


def membership(account: str, affiliation: Affiliation, **fields: Any) -> Membership:
    nick = NICKS[account] if fields["present"] else None
    occupant = f"occupant of {NICKS[account]}"
    return Membership(account=account, affiliation=affiliation, nick=nick, occupant_id=occupant, **fields)


def some_membership(w: World, account: str) -> Membership:
    affiliation = w.pick((Affiliation.MEMBER, Affiliation.MEMBER, *Affiliation))
    present = w.chance(60) and affiliation is not Affiliation.OUTCAST
    why = None if present else w.pick((None, *Departure))
    return membership(account, affiliation, present=present, why=why)


def change_members(w: World, room: str, *members: Membership, begin: bool = False, end: bool = False) -> None:
    w.feed(
        RoomMembersEvent(
            position=w.position(room),
            account=room,
            at=w.clock.now(),
            members=members,
            private=w.chance(50),
            begin=begin,
            end=end,
        )
    )


def come_and_go(w: World) -> None:
    """Joined, left, kicked, banned, affiliated."""
    change_members(
        w,
        w.pick(w.halls),
        *(some_membership(w, account) for account in dict.fromkeys([w.pick(w.folk), w.pick(w.folk)])),
    )


def come_back_meanwhile(w: World) -> None:
    """A member leaves and is back before the pass that served it without what was said meanwhile is over."""
    room, account = w.pick(w.halls), w.pick(w.folk)
    change_members(w, room, membership(account, Affiliation.NONE, present=False, why=Departure.LEFT))
    for _ in range(w.random.randrange(3)):
        w.feed(said_in(w, room, w.pick((*w.folk, None)), None))
    entries = entries_of(w, room, 0, w.pick((1, 3, 64)))
    serve(w, entries, list(w.members(room)))
    change_members(w, room, membership(account, Affiliation.MEMBER, present=w.chance(50)))
    if entries:
        w.passes.pop(room, None)
        w.fanned(room, entries[-1].rank)


def list_members(w: World) -> None:
    """A listing of everybody, whole or in two parts, or one that is begun and never ended."""
    room = w.pick(w.halls)
    named = [some_membership(w, account) for account in ACCOUNTS if w.chance(75)]
    if w.chance(50):
        change_members(w, room, *named, begin=True, end=True)
        belong = {m.account for m in w.tables.members.values() if m.room == room and m.until is None}
        assert belong == {one.account for one in named if belongs(one)}
        return
    cut = w.random.randrange(len(named) + 1)
    change_members(w, room, *named[:cut], begin=True)
    if w.chance(30):
        say(w)
    if not w.chance(15):
        change_members(w, room, *named[cut:], end=True)


def destroy(w: World) -> None:
    """XEP-0045 §10.9."""
    room = w.pick(w.halls)
    w.feed(RoomDestroyedEvent(position=w.position(room), account=room, at=w.clock.now()))


# ---- to the members ----


def serve(w: World, entries: list[RoomEntry], members: list[RoomMember]) -> None:
    """One chunk, as `sync.service.fanout` serves it."""
    if not members:
        return
    former = w.tables
    w.transact(keys_of(entries, members), lambda books: fan_out(entries, members, books, w.policies))
    for member in members:
        key = ConversationKey(member.account, member.room, Kind.GROUP)
        found = w.tables.conversations.get(key)
        assert found is former.conversations.get(key) or (found is not None and found.taken >= member.since), key


def entries_of(w: World, room: str, after: int, limit: int) -> list[RoomEntry]:
    return list(run(w.store.entries(room, after, limit)))


def fan(w: World) -> None:
    """A part of a pass: the next chunks of members, now and then one of them twice."""
    pending = sorted({*w.passes, *w.pending()})
    if not pending:
        return
    room = w.pick(pending)
    under_way = w.passes.pop(room, None) or Pass(entries_of(w, room, 0, w.pick((1, 3, 64))))
    entries, after = list(under_way.entries), under_way.after
    for _ in range(w.pick((1, 2, 9))):
        chunk = list(w.members(room, after, w.pick((1, 2, 64))))
        if not chunk or not entries:
            break
        serve(w, entries, chunk)
        if w.chance(20):
            before = w.tables
            serve(w, entries, chunk)
            assert before.conversations == w.tables.conversations
            assert before.calls == w.tables.calls
            assert before.jobs == w.tables.jobs
        after = chunk[-1].account
    else:
        if not w.chance(10):  # else a process was killed, and the next one begins again
            w.passes[room] = Pass(entries, after)
        return
    if entries:
        w.fanned(room, entries[-1].rank)


def tell_all(w: World) -> None:
    """Whole passes, nobody disturbs them."""
    for room in w.pending():
        w.passes.pop(room, None)
        while entries := entries_of(w, room, 0, 64):
            serve(w, entries, list(w.members(room)))
            w.fanned(room, entries[-1].rank)


def catch_up(w: World) -> None:
    """A member asks: it is served before its turn."""
    account = w.pick(w.folk)
    for member in run(w.store.memberships(account, w.pending())):
        after, limit = 0, w.pick((2, 64))
        while entries := entries_of(w, member.room, after, limit):
            serve(w, entries, [member])
            after = entries[-1].rank
