"""Rows as a whole, where a vector tells only what a client sees of them: messages, calls, entries, changes."""

from dataclasses import replace
from typing import Any

import pytest

from sync.model.call import Call, CallKey, CallState
from sync.model.conversation import (
    Base,
    Change,
    ChangeKind,
    Conversation,
    ConversationKey,
    Direction,
    IndexedMessage,
    Kind,
    LastMessage,
    Pointer,
)
from sync.model.room import Affiliation, EntryKind, RoomEntry, RoomMember
from sync.rules.index import named
from sync.rules.membership import changed
from sync.rules.rooms import RoomView
from sync.rules.times import microseconds
from sync.rules.view import View
from tests.contract.fakes_tables import Tables
from tests.contract.samples import (
    ANN,
    BOB,
    IN_TEA,
    NOW,
    OF_TEA,
    TEA,
    WITH_BOB,
    account,
    after,
    message,
    room,
)
from tests.core.rule_feed import Feed, stanza
from tests.core.rule_vectors import World

AT = microseconds(NOW)
SECOND = 1_000_000
FAR = ConversationKey(ANN, "far@rooms.example.net", Kind.GROUP)
HIM = "bob@example.org"
HIM_THERE = f"{TEA}/Bob"


def rows(*steps: str, **policy: bool) -> Tables:
    world = World(batched=False, policy=policy)
    for step in steps:
        world.do(step)
    world.flush()
    return world.store.tables


def indexed(rank: int, seconds: int, **fields: Any) -> IndexedMessage:
    values: dict[str, Any] = {"conversation": WITH_BOB, "direction": Direction.IN, "counted": False}
    return IndexedMessage(**(values | {"rank": rank, "sent_at": after(seconds)} | fields))


def entry(kind: EntryKind, seconds: int, **fields: Any) -> RoomEntry:
    values: dict[str, Any] = {"room": TEA, "rank": AT + seconds * SECOND, "at": after(seconds), "private": True}
    return RoomEntry(kind=kind, **(values | {"author": HIM, "sender": HIM_THERE} | fields))


# ---- one-to-one chats, and rooms of other servers --------------------------------------------------------------------


def test_a_message_and_what_happens_to_it() -> None:
    tables = rows(
        *("wait 1", "in m1 archive=a1 origin=o1", "wait 1", "correct m1 id=c1 archive=a2 text=new"),
        *("wait 1", "react m1 x id=r1 archive=a3 text=ok", "wait 1", "retract m1 id=d1 archive=a4"),
    )
    first = AT + SECOND
    assert list(tables.messages.values()) == [
        indexed(
            *(first, 1),
            counted=True,
            message_key="m1",
            origin_key="o1",
            archive_key="a1",
            archive_id="a1",
            retracted=first + 3 * SECOND,
        ),
        indexed(first + SECOND, 2, message_key="c1", archive_key="a2", archive_id="a2", about=first),
        indexed(first + 2 * SECOND, 3, message_key="r1", archive_key="a3", archive_id="a3"),
        indexed(first + 3 * SECOND, 4, message_key="d1", archive_key="a4", archive_id="a4", about=first),
    ]
    about: dict[str, Any] = {"conversation": WITH_BOB, "target_rank": first, "target_id": "a1"}
    assert list(tables.changes.values()) == [
        Change(version=first + SECOND, kind=ChangeKind.CORRECTED, **about),  # its text went with the message
        Change(version=first + 2 * SECOND, kind=ChangeKind.REACTED, author=f"{BOB}/phone", **about),
        Change(version=first + 3 * SECOND, kind=ChangeKind.RETRACTED, **about),
    ]
    envelope = f'<message xmlns="jabber:client" from="{BOB}/phone" type="chat" id="d1"/>'
    assert tables.conversations[WITH_BOB] == Conversation(
        key=WITH_BOB,
        version=first + 3 * SECOND,
        activity_at=after(1),
        rewritten=first + 3 * SECOND,
        last=LastMessage(
            rank=first, stanza=envelope, message_id="m1", archive_id="a1", sent_at=after(1), retracted=True
        ),
    )


def test_a_message_in_a_room_of_another_server_says_whose_it_is() -> None:
    tables = rows("wait 1", "in m1 room=far nick=Bob occ=o1 archive=a1 jids=ann", "retract a1 room=far nick=Bob occ=o1")
    first, retraction = tables.messages.values()
    where: dict[str, Any] = {"conversation": FAR, "author": "o1"}
    assert first == indexed(
        *(AT + SECOND, 1),
        counted=True,
        mention=True,
        message_key="m1",
        archive_key="a1",
        archive_id="a1",
        retracted=AT + SECOND + 1,
        **where,
    )
    assert retraction == indexed(AT + SECOND + 1, 1, about=AT + SECOND, **where)
    assert (tables.conversations[FAR].unread, tables.conversations[FAR].mentions) == (0, 0)


def test_what_goes_out_to_such_a_room_leaves_a_note() -> None:
    tables = rows("wait 1", "out m1 room=far origin=o1")
    noted = indexed(AT + SECOND, 1, conversation=FAR, direction=Direction.OUT, message_key="m1", origin_key="o1")
    assert list(tables.messages.values()) == [noted]
    assert tables.conversations[FAR] == Conversation(key=FAR, version=AT + SECOND, activity_at=after(1), written=True)


def test_a_message_without_text_to_keep_keeps_who_sent_it() -> None:
    last = rows("in m1 text=secret").conversations[WITH_BOB].last
    assert last is not None
    assert last.stanza == f'<message xmlns="jabber:client" from="{BOB}/phone" type="chat" id="m1"/>'


@pytest.mark.parametrize("said", ["in m1 origin=m1", "in m1 room=far nick=Bob origin=m1", "said m1 by=bob origin=m1"])
def test_an_id_that_is_given_twice_is_kept_once(said: str) -> None:
    (found,) = rows(said).messages.values()
    assert (found.message_key, found.origin_key) == ("m1", None)


def test_what_happens_in_one_instant_has_ranks_in_its_order() -> None:
    """The account began at that instant too."""
    assert [rank for _, rank in rows("in m0", "in m1", "in m2").messages] == [AT + 1, AT + 2, AT + 3]


# ---- calls -----------------------------------------------------------------------------------------------------------


def test_a_call_that_is_missed() -> None:
    tables = rows("wait 1", "call propose s1 archive=a1", "wait 60", "expire", missed_counts=True)
    key, end = CallKey(ANN, BOB, "s1"), AT + 61 * SECOND
    assert tables.calls[key] == Call(
        key=key,
        session_id="s1",
        state=CallState.MISSED,
        version=end,
        proposed_at=after(1),
        rings_until=after(61),
        caller=f"{BOB}/phone",
        media=("audio",),
        archive_id="a1",
        stanza=stanza(""),
    )
    assert list(tables.messages.values()) == [
        indexed(end, 61, counted=True, message_key="s1", archive_key="a1", archive_id="a1")
    ]
    assert list(tables.changes.values()) == [
        Change(
            conversation=WITH_BOB,
            version=end,
            kind=ChangeKind.CALL_ENDED,
            target_rank=0,
            target_id="s1",
            detail="missed",
        )
    ]
    assert tables.conversations[WITH_BOB] == Conversation(key=WITH_BOB, version=end, activity_at=after(61), unread=1)


def test_a_call_that_counts_is_read_with_what_comes_before_it() -> None:
    """The tally of one transaction and the recount of the next say the same."""
    for batch in (("displayed m2",), ("in m3", "displayed m3")):
        steps = ("in m1", "call propose s1", "wait 60", "expire", "in m2", *batch)
        assert rows(*steps, missed_counts=True).conversations[WITH_BOB].unread == 0


def test_a_call_that_ended_before_it_began_is_only_a_record() -> None:
    tables = rows("wait 1", "call retract s1")
    key = CallKey(ANN, BOB, "s1")
    assert list(tables.calls.values()) == [
        Call(
            key=key,
            session_id="s1",
            state=CallState.CLOSED,
            version=AT + SECOND,
            proposed_at=after(1),
            rings_until=after(1),
            caller=f"{BOB}/phone",
        )
    ]
    assert tables.conversations == {}
    assert tables.accounts[ANN].version == AT + SECOND


# ---- rooms of this server --------------------------------------------------------------------------------------------

ROOM = ("listing ann=member/Annie bob=member+/Bob private=yes", "wait 1")
SAID = "said m1 by=bob occ=o1 origin=o1 archive=a1 private=yes jids=ann"
MESSAGE = entry(EntryKind.MESSAGE, 1, message_id="m1", archive_id="a1", mentions=(ANN,), stanza=stanza("m1"))
ABOUT: dict[str, Any] = {
    "target_rank": AT + SECOND,
    "target_id": "a1",
    "target_counted": True,
    "target_author": HIM,
    "target_mentions": (ANN,),
}
KEPT: dict[str, Any] = {"conversation": OF_TEA, "author": HIM}


@pytest.mark.parametrize(
    ("step", "made"),
    [
        (
            "corrected m1 by=bob id=c1 archive=a2 text=new private=yes",
            entry(EntryKind.CORRECTED, 2, message_id="c1", archive_id="a2", stanza=stanza("new"), **ABOUT),
        ),
        (
            "retracted a1 by=bob id=c1 archive=a2 private=yes",
            entry(EntryKind.RETRACTED, 2, message_id="c1", archive_id="a2", **ABOUT),
        ),
        (
            "reacted a1 x by=bob id=c1 archive=a2 text=new private=yes",
            entry(EntryKind.REACTED, 2, message_id="c1", archive_id="a2", stanza=stanza("new"), **ABOUT),
        ),
        (
            "moderated a1 moderator=mod id=c1 archive=a2 private=yes",
            entry(
                EntryKind.MODERATED, 2, message_id="c1", archive_id="a2", **(ABOUT | {"author": TEA, "sender": "mod"})
            ),
        ),
        (
            "marked a1 by=ann nick=Annie id=c1 archive=a2 private=yes",
            entry(
                *(EntryKind.DISPLAYED, 2),
                only=ANN,
                message_id="c1",
                archive_id="a2",
                **(ABOUT | {"author": ANN, "sender": f"{TEA}/Annie"}),
            ),
        ),
    ],
)
def test_what_happens_to_a_message_of_a_room(step: str, made: RoomEntry) -> None:
    tables = rows(*ROOM, SAID, "wait 1", step)
    assert list(tables.entries.values()) == [MESSAGE, made]
    said, *later = tables.messages.values()
    gone = made.rank if made.kind in (EntryKind.RETRACTED, EntryKind.MODERATED) else None
    keys: dict[str, Any] = {"message_key": "m1", "origin_key": "o1", "archive_key": "a1", "archive_id": "a1"}
    assert said == indexed(AT + SECOND, 1, counted=True, mentions=(ANN,), retracted=gone, **keys, **KEPT)
    if made.kind is EntryKind.DISPLAYED:
        assert later == []
    else:
        about = None if made.kind is EntryKind.REACTED else AT + SECOND
        keys = {"message_key": "c1", "archive_key": "a2", "archive_id": "a2"}
        assert later == [indexed(AT + 2 * SECOND, 2, about=about, **keys, **(KEPT | {"author": made.author}))]


def test_of_what_a_room_does_not_archive_no_text_is_kept() -> None:
    tables = rows(
        *ROOM, "said m1 by=bob text=secret", "corrected m1 by=bob text=secret", "reacted m1 x by=bob text=secret"
    )
    envelope = f'<message xmlns="jabber:client" from="{HIM_THERE}" type="groupchat" id="m1"/>'
    assert [made.stanza for made in tables.entries.values()] == [envelope, None, None]
    assert [made.target_id for made in tables.entries.values()] == [None, "m1", "m1"]
    tables = rows(*ROOM, "said m1 by=bob", "retracted m1 by=bob")
    assert [made.target_id for made in tables.entries.values()] == [None, "m1"]


def test_a_message_for_everybody_is_so_in_its_entry_and_in_what_is_about_it() -> None:
    tables = rows(*ROOM, "said m1 by=bob archive=a1 everybody=yes", "retracted a1 by=bob archive=a2")
    made = list(tables.entries.values())
    assert [(one.everybody, one.target_everybody, one.mentions) for one in made] == [
        (True, False, ()),
        (False, True, ()),
    ]


@pytest.mark.parametrize(("named", "sender"), [("/Annie", f"{TEA}/Annie"), ("", None)])
def test_who_joins_and_who_is_shut_out_hears_it_alone(named: str, sender: str | None) -> None:
    tables = rows("wait 1", f"members ann=member{named} private=yes", "wait 1", f"members ann=outcast-banned{named}")
    fields: dict[str, Any] = {"author": None, "sender": sender, "only": ANN}
    assert list(tables.entries.values()) == [
        entry(EntryKind.JOINED, 1, **fields),
        entry(EntryKind.GONE, 2, private=False, **fields),
    ]


def test_a_member_keeps_what_tells_it_apart_in_the_room() -> None:
    def then(*steps: str) -> RoomMember:
        return rows("members ann=member/Annie#oa", *steps).members[TEA, ANN]

    assert then() == RoomMember(
        room=TEA, account=ANN, affiliation=Affiliation.MEMBER, present=False, since=0, nick="Annie", occupant_id="oa"
    )
    assert then("members ann=admin+") == replace(then(), affiliation=Affiliation.ADMIN, present=True)
    assert then("members ann=member/Lea#ob") == replace(then(), nick="Lea", occupant_id="ob")


def test_a_listing_has_a_name_that_none_before_had() -> None:
    """docs/feed.md §1: a position is host, stream, shard and n; a new stream counts from 1 again."""
    event: Any = Feed(lambda: NOW).event("listing-begins", [], {})
    positions = [
        replace(event.position, **change)
        for change in ({}, {"n": 70}, {"stream": "later"}, {"shard": "1"}, {"host": "rooms.example.net"})
    ]
    names = [changed(RoomView(room=room()), replace(event, position=p), NOW).room.listing for p in positions]
    assert len(set(names)) == len(positions)
    assert all(name is not None and 0 < name < 2**63 for name in names)


def test_what_a_room_says_in_one_instant_has_ranks_in_its_order() -> None:
    assert [rank for _, rank in rows(*ROOM, "said m1 by=bob", "said m2 by=bob").messages] == [
        AT + SECOND,
        AT + SECOND + 1,
    ]


def test_what_is_about_something_forgotten_stands_for_itself() -> None:
    stray = message(5, message_key="c1", about=3)
    assert named(View(account=account(), key=WITH_BOB, found=(stray,)), "c1") == stray


def test_a_members_conversation_as_a_whole() -> None:
    tables = rows(*ROOM, SAID, "fan")
    assert tables.conversations[IN_TEA] == Conversation(
        key=IN_TEA,
        version=AT + SECOND,
        activity_at=after(1),
        read=Pointer(AT + SECOND - 1),
        unread=1,
        mentions=1,
        private=True,
        nick="Annie",
        taken=AT + SECOND,
        last=LastMessage(rank=AT + SECOND, stanza=stanza("m1"), message_id="m1", archive_id="a1", sent_at=after(1)),
    )


def test_and_its_changes() -> None:
    tables = rows(
        *(*ROOM, SAID, "wait 1", "corrected m1 by=bob archive=a2 text=new private=yes"),
        *("wait 1", "reacted a1 x by=bob archive=a3 text=x private=yes", "fan"),
    )
    about: dict[str, Any] = {"conversation": IN_TEA, "target_rank": AT + SECOND, "target_id": "a1"}
    found = [replace(change, version=0) for (jid, _), change in sorted(tables.changes.items()) if jid == ANN]
    assert found == [
        Change(version=0, kind=ChangeKind.CORRECTED, stanza=stanza("new"), **about),
        Change(version=0, kind=ChangeKind.REACTED, stanza=stanza("x"), author=HIM_THERE, **about),
    ]


def test_coming_back_with_something_unread() -> None:
    tables = rows(
        *("members ann=none+ bob=member+", "wait 1", "said m1 by=bob archive=a1 jids=ann", "fan", "wait 1"),
        *("members ann=none-left", "wait 1", "members ann=none+/Annie private=yes", "fan"),
    )
    found = tables.conversations[IN_TEA]
    assert found.base == Base(unread=1, mentions=1, rank=AT + 3 * SECOND - 1)
    assert (found.taken, found.private, found.nick) == (AT + 3 * SECOND, True, "Annie")
