"""What an entry of a room does to one member, where the fan-out of a vector does not tell: why nothing happened, from
where something was read, whose address an author is.
"""

from datetime import datetime
from typing import Any

import pytest

from sync.model.books import Books
from sync.model.conversation import Base, Behind, Conversation, Direction, Pointer, Status
from sync.model.effect import MessageCorrected, ReadElsewhere
from sync.model.errors import ItemNotFound
from sync.model.event import Correction, FeedPosition, Malformed
from sync.model.query import MuteUntil, SetProperties
from sync.model.room import EntryKind
from sync.rules.abroad import recognised
from sync.rules.contacts import answered
from sync.rules.decide import decide
from sync.rules.fold import Policies, take
from sync.rules.groups import deliver
from sync.rules.properties import set_properties, with_properties
from sync.rules.rooms import is_account
from sync.rules.times import microseconds
from sync.rules.view import Conduct, Decision, View
from sync.rules.wanted import keys
from tests.contract.samples import (
    ANN,
    BOB,
    CAT,
    IN_TEA,
    NOW,
    TEA,
    WITH_BOB,
    account,
    after,
    conversation,
    entry,
    last,
    member,
    membership,
    message,
)
from tests.core.rule_feed import Feed
from tests.core.rule_vectors import World

AT = microseconds(NOW)
ENVELOPE = '<message xmlns="jabber:client" from="{}" type="groupchat" id="c1"/>'


def delivered(kind: EntryKind, to: Conversation | None, behind: Any = None, **fields: Any) -> Decision:
    before = View(account=account(unread=to.unread if to else 0), key=IN_TEA, conversation=to, behind=behind or {})
    return deliver(before, member(), entry(9, kind=kind, **fields), Conduct(), NOW)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (EntryKind.CORRECTED, "unknown-target"),
        (EntryKind.DISPLAYED, "unknown-target"),
        (EntryKind.JOINED, "joined"),
        (EntryKind.GONE, "gone"),
        (EntryKind.DESTROYED, "gone"),
    ],
)
def test_without_a_conversation_nothing_happens_and_says_why(kind: EntryKind, why: str) -> None:
    assert delivered(kind, None, target_rank=3) == Decision(ignored=why)


@pytest.mark.parametrize("kind", [EntryKind.CORRECTED, EntryKind.DISPLAYED])
def test_what_is_about_nothing_changes_nothing(kind: EntryKind) -> None:
    assert delivered(kind, membership(unread=1)) == Decision(ignored="unknown-target")


def test_an_entry_is_taken_once() -> None:
    assert delivered(EntryKind.MESSAGE, membership(taken=9)) == Decision(ignored="taken")


@pytest.mark.parametrize("sender", [f"{TEA}/Annie", TEA, None])
def test_of_a_marker_in_a_room_nobody_knows_by_which_device_it_is(sender: str | None) -> None:
    then = membership(unread=2, taken=4)
    decision = delivered(EntryKind.DISPLAYED, then, {3: Behind(1, 0, 2)}, target_rank=3, target_id="a3", sender=sender)
    assert decision.after
    assert decision.after.conversation
    assert decision.after.conversation.taken == 9
    assert decision.effects == (ReadElsewhere(conversation=IN_TEA, version=AT, first_rank=2, resource=None),)


@pytest.mark.parametrize(
    ("kind", "was", "status"),
    [
        (EntryKind.GONE, Status.ACTIVE, Status.ARCHIVED),
        (EntryKind.GONE, Status.DELETED, Status.DELETED),
        (EntryKind.DESTROYED, Status.ARCHIVED, Status.DELETED),
    ],
)
def test_who_is_shut_out_has_read_everything(kind: EntryKind, was: Status, status: Status) -> None:
    then = membership(unread=2, mentions=1, read=Pointer(4, "a4"), invited_by=BOB, status=was, taken=6)
    decision = delivered(kind, then)
    assert decision.after is not None
    assert decision.after.conversation == membership(AT, read=Pointer(9, "a4"), status=status, taken=9)
    assert decision.effects == (ReadElsewhere(conversation=IN_TEA, version=AT, first_rank=5, resource=None),)
    assert delivered(kind, membership(status=was)).effects == ()


def test_coming_back_to_what_was_read_beyond_changes_no_count() -> None:
    then = membership(unread=1, read=Pointer(9, "a9"), base=Base(), taken=3)
    decision = delivered(EntryKind.JOINED, then)
    assert decision.after is not None
    found = decision.after.conversation
    assert found is not None
    assert (found.read, found.taken) == (Pointer(9, "a9"), 9)


@pytest.mark.parametrize("kind", [EntryKind.CORRECTED, EntryKind.RETRACTED])
@pytest.mark.parametrize(("sender", "named"), [(f"{TEA}/Bob", f"{TEA}/Bob"), (None, TEA)])
def test_of_what_has_no_text_the_preview_keeps_who_sent_it(kind: EntryKind, sender: str | None, named: str) -> None:
    then = membership(last=last(3), taken=3)
    decision = delivered(kind, then, target_rank=3, sender=sender, message_id="c1", stanza=None)
    assert decision.after is not None
    found = decision.after.conversation
    assert found is not None
    assert found.last == last(3, stanza=ENVELOPE.format(named), retracted=kind is EntryKind.RETRACTED)


@pytest.mark.parametrize(
    ("author", "present", "invited"), [(BOB, False, BOB), (BOB, True, None), (ANN, False, None), (None, False, BOB)]
)
def test_who_speaks_or_is_there_has_answered_the_invitation(
    author: str | None, present: bool, invited: str | None
) -> None:
    before = View(account=account(), key=IN_TEA, conversation=membership(invited_by=BOB))
    decision = deliver(before, member(present=present), entry(9, author=author), Conduct(), NOW)
    assert decision.after is not None
    assert decision.after.conversation is not None
    assert decision.after.conversation.invited_by == invited


@pytest.mark.parametrize(("was", "author", "written"), [(True, BOB, True), (False, ANN, True), (False, BOB, False)])
def test_who_has_written_once_has_written(was: bool, author: str, written: bool) -> None:
    decision = delivered(EntryKind.MESSAGE, membership(written=was), author=author)
    assert decision.after is not None
    assert decision.after.conversation is not None
    assert decision.after.conversation.written is written


def test_what_an_entry_does_not_say_is_empty() -> None:
    said = delivered(EntryKind.MESSAGE, None, stanza=None, message_id="m1", archive_id="a1").after
    assert said is not None
    assert said.conversation is not None
    assert said.conversation.last == last(9, stanza="", message_id="m1", archive_id="a1")
    gone = delivered(EntryKind.RETRACTED, membership(taken=3), target_rank=3, stanza="<secret/>").after
    assert gone is not None
    assert [(change.target_id, change.stanza) for change in gone.changes] == [("", None)]


@pytest.mark.parametrize(("since", "base"), [(5, Base()), (6, Base(unread=1, rank=6))])
def test_only_who_was_away_begins_anew(since: int, base: Base) -> None:
    before = View(account=account(unread=1), key=IN_TEA, conversation=membership(unread=1, taken=5))
    after_it = deliver(before, member(since=since), entry(9, author=BOB), Conduct(), NOW).after
    assert after_it is not None
    assert after_it.conversation is not None
    assert after_it.conversation.base == base


# ---- one-to-one ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("counted", "read", "told"), [(True, 0, True), (True, 3, False), (False, 0, False)])
def test_a_correction_is_told_of_what_waits_to_be_read(counted: bool, read: int, told: bool) -> None:
    before = View(
        account=account(),
        key=WITH_BOB,
        conversation=conversation(read=Pointer(read)),
        found=(message(3, message_key="m1", counted=counted, direction=Direction.IN),),
    )
    event: Any = Feed(lambda: NOW).event("correct", ["m1"], {"archive": "a2"})
    assert isinstance(event.content, Correction)
    effects = decide(before, event, Conduct(), NOW).effects
    assert effects == (
        (MessageCorrected(conversation=WITH_BOB, version=AT, target_rank=3, sessions=()),) if told else ()
    )


def test_an_invitation_that_is_none_is_not_answered() -> None:
    for known in (None, membership()):
        assert answered(View(account=account(), key=IN_TEA, conversation=known), NOW).ignored == "as-it-was"


@pytest.mark.parametrize(
    ("author", "known"),
    [
        ("ann@example.org", True),
        ("occupant", False),
        ("tea@rooms.example.org/Bob", False),
        ("an occupant@id", False),
        ("tea@rooms.example.org/Bob Lee", False),
    ],
)
def test_whose_address_is_known(author: str, known: bool) -> None:
    assert is_account(author) is known


@pytest.mark.parametrize(
    ("what", "options"),
    [
        ("displayed", {"room": "far"}),  # goes out, and is the account's own as it is
        ("in", {"nick": "web", "peer": f"{TEA}/web"}),  # no room
        ("bookmark", {"room": "far", "dir": "in"}),  # nobody said it
    ],
)
def test_only_what_a_room_says_can_be_a_reflection(what: str, options: dict[str, str]) -> None:
    event: Any = Feed(lambda: NOW).event(what, ["m1"], {"res": "web"} | options)
    for nick in ("web", "phone"):
        before = View(account=account(), key=IN_TEA, conversation=membership(nick=nick))
        assert recognised(before, event) is event


@pytest.mark.parametrize(("at", "until"), [(after(1), after(1)), (NOW, None), (after(-1), None)])
def test_a_mute_up_to_an_instant_that_is_over_is_none(at: datetime, until: datetime | None) -> None:
    request = SetProperties(peer=BOB, mute=MuteUntil(at))
    for was in (None, after(99)):
        assert with_properties(conversation(muted_until=was), request, NOW) == conversation(muted_until=until)
    assert with_properties(conversation(muted_until=at), SetProperties(peer=BOB), NOW) == conversation(muted_until=at)


# ---- a set, answered with all that it named --------------------------------------------------------------------------


def test_a_set_names_what_changed_and_what_did_not() -> None:
    same, room = conversation(3), membership(4)
    found = {one.key: one for one in (same, conversation(5, CAT), room)}
    books = Books(now=NOW, accounts={ANN: account(version=5)}, conversations=found)
    requests = [
        SetProperties(peer=TEA, kind=IN_TEA.kind, pinned=2),
        SetProperties(peer=BOB, pinned=0),
        SetProperties(peer=CAT, pinned=1),
    ]
    ruling = set_properties(ANN, requests, books)
    changed, named = ruling.value.changed, ruling.value.named
    assert [(one.key.peer, one.pinned) for one in changed] == [(TEA, 2), (CAT, 1)]
    assert [(one.key.peer, one.pinned) for one in named] == [(TEA, 2), (BOB, 0), (CAT, 1)]
    assert {one.key: one for one in ruling.writes.conversations} == {one.key: one for one in changed}
    with pytest.raises(ItemNotFound):
        set_properties(ANN, [SetProperties(peer="dan@example.net")], books)


IN_ROOM = f"peer={TEA} group=yes"


@pytest.mark.parametrize(
    ("step", "unread"), [(f"bookmark {IN_ROOM} notify=always", 1), (f"displayed a1 {IN_ROOM} dir=out pep=yes", 1)]
)
@pytest.mark.parametrize("listed", ["members", "listing"])
def test_what_passed_by_who_had_no_account_yet_is_not_unread(listed: str, step: str, unread: int) -> None:
    """Ann is a member for long, and comes to the server's notice after two messages; then her client makes a
    conversation with the room before the room says anything more.
    """
    world = World(batched=False)
    del world.store.tables.accounts[ANN]
    for line in (f"{listed} ann=member bob=member+", "said m1 by=bob archive=a1", "said m2 by=bob archive=a2", "fan"):
        world.do(line)
    for line in ("in x1", step, "said m3 by=bob archive=a3", "fan"):  # each ends with a recount
        world.do(line)
    assert world.store.tables.conversations[IN_TEA].unread == unread
    world.do(f"displayed a3 {IN_ROOM} dir=out pep=yes")
    world.flush()
    assert world.store.tables.conversations[IN_TEA].unread == 0


def test_a_marker_that_comes_again_does_not_undo_what_was_set_since() -> None:
    world = World(batched=False)
    for line in (
        "members ann=member+ bob=member+",
        "said m1 by=bob archive=a1",
        "fan",
        "marked a1 by=ann",
        "fan half",
        "set at=tea marked=yes",
        "fan",
    ):
        world.do(line)
    assert world.store.tables.conversations[IN_TEA].marked_unread


def test_a_list_of_which_a_part_was_not_understood_puts_nobody_out() -> None:
    world = World(batched=False)
    for line in ("listing ann=member bob=owner+ carol=member", "listing-begins ann=member"):
        world.do(line)
    where = FeedPosition("example.org", "stream", "rooms", 1)
    lost = Malformed(position=where, account=TEA, why="member", xml="", room=True)
    world.store.apply(keys([lost]), lambda books: take([lost], books, Policies()))
    world.do("listing-ends bob=owner+")
    world.flush()
    assert all(member.until is None for member in world.store.tables.members.values())
    assert len(world.store.tables.members) == 3
    assert world.store.tables.rooms[TEA].listing is None
