"""What a room's archive becomes for its members: of before the first contact read, what was lost unread, and nobody is
woken.
"""

from dataclasses import replace
from datetime import timedelta
from functools import partial

from sync.model.bootstrap import Bootstrap
from sync.model.conversation import Conversation, ConversationKey, Kind, Status
from sync.model.event import Body, Content, Correction, FeedPosition, Mentions, Retraction, RoomMessageEvent
from sync.rules import history
from sync.rules.fold import Policies, fan_out, take
from sync.rules.times import instant, microseconds
from sync.rules.wanted import keys
from sync.service.fanout import keys_of
from tests.contract.fakes_store import MemoryStore, SetClock
from tests.contract.samples import ANN, EVE, IN_TEA, NOW, TEA, device, member, owned, storing
from tests.core.rule_feed import stanza
from tests.core.rule_outcome import text_of, wrong
from tests.core.rule_vectors import at_once

POLICIES = Policies()
OF_EVE = ConversationKey(EVE, TEA, Kind.GROUP)


class Hall:
    """The room tea, with Ann and Eve, who has a phone."""

    def __init__(self) -> None:
        self.clock = SetClock(NOW)
        self.store = MemoryStore(self.clock)
        self.store.apply(owned(ANN, EVE, rooms={TEA}), storing(members=[member(ANN), member(EVE)]))
        account = self.store.tables.accounts[EVE]
        self.store.tables.accounts[EVE] = type(account)(jid=EVE, version=account.version, floor=0, devices=1)
        self.store.tables.devices[EVE, "phone"] = device("phone", EVE)
        self.said = 0

    def event(self, text: str, ago: float, author: str = ANN, content: Content | None = None) -> RoomMessageEvent:
        self.said += 1
        return RoomMessageEvent(
            position=FeedPosition("rooms.example.org", "s", "0", self.said),
            account=TEA,
            at=self.clock.now() - timedelta(seconds=ago),
            sender=f"{TEA}/{author[:3]}",
            content=content or Body(mentions=Mentions(everybody=True)),
            stanza=stanza(text),
            author=author,
            archive_id=f"a-{text}",
            message_id=f"m-{text}",
        )

    def read(self, *events: RoomMessageEvent, reached: int = 0) -> int:
        row: Bootstrap = self.store.tables.bootstraps[TEA]
        rule = partial(history.restore_room, events, row, reached, policies=POLICIES)
        restored = self.store.apply(history.keys_of_room(events, TEA), rule)
        self.fan()
        return restored.messages

    def live(self, event: RoomMessageEvent) -> None:
        self.store.apply(keys([event]), lambda books: take([event], books, POLICIES))
        self.fan()

    def fan(self) -> None:
        entries, members = at_once(self.store.entries(TEA, 0, 99)), at_once(self.store.members(TEA, "", 99))
        self.store.apply(keys_of(entries, members), lambda books: fan_out(entries, members, books, POLICIES))
        assert wrong(self.store.tables) == []

    def of(self, key: ConversationKey) -> Conversation:
        return self.store.tables.conversations[key]


def seen(conversation: Conversation) -> tuple[int, int, str]:
    return conversation.unread, conversation.mentions, text_of(conversation.last.stanza if conversation.last else None)


def test_what_was_said_before_the_first_contact_is_read() -> None:
    hall = Hall()
    assert hall.read(hall.event("one", 60), hall.event("two", 50)) == 2
    assert [seen(hall.of(key)) for key in (IN_TEA, OF_EVE)] == [(0, 0, "two")] * 2
    assert hall.of(OF_EVE).read.id == "a-two"
    assert hall.store.tables.jobs == {}


def test_what_comes_then_counts_from_there() -> None:
    hall = Hall()
    hall.read(hall.event("one", 60))
    hall.clock.instant += timedelta(seconds=5)
    hall.live(hall.event("two", 0))
    assert (seen(hall.of(IN_TEA)), seen(hall.of(OF_EVE))) == ((0, 0, "two"), (1, 1, "two"))
    assert [job.account for job in hall.store.tables.jobs.values()] == [EVE]


def test_what_is_said_meanwhile_stays_unread_and_last() -> None:
    hall = Hall()
    hall.clock.instant += timedelta(seconds=5)
    live = hall.event("live", 0)
    hall.live(live)
    assert hall.read(hall.event("old", 60), live) == 1
    assert seen(hall.of(OF_EVE)) == (1, 1, "live")


def test_what_was_lost_is_unread_and_wakes_nobody() -> None:
    hall = Hall()
    hall.clock.instant += timedelta(seconds=30)
    hall.read(hall.event("lost", 10))
    assert (seen(hall.of(IN_TEA)), seen(hall.of(OF_EVE))) == ((0, 0, "lost"), (1, 1, "lost"))
    assert hall.store.tables.jobs == {}


def test_an_archive_says_nothing_of_how_private_the_room_is_now() -> None:
    hall = Hall()
    hall.live(replace(hall.event("one", 0), private=True))
    hall.clock.instant += timedelta(seconds=30)
    hall.read(hall.event("lost", 10))
    assert hall.store.tables.rooms[TEA].private
    assert hall.of(OF_EVE).private


def test_what_an_archive_of_whole_seconds_has_behind_a_message_came_behind_it() -> None:
    hall = Hall()
    hall.clock.instant += timedelta(seconds=30.9)
    live, second = hall.event("live", 0), NOW + timedelta(seconds=30)
    hall.live(live)
    lost = [replace(hall.event(text, 0), at=second) for text in ("before", "behind", "at last")]
    hall.read(lost[0], replace(live, at=second))
    assert seen(hall.of(OF_EVE)) == (2, 2, "live")
    hall.read(replace(live, at=second), lost[1], lost[2])
    assert seen(hall.of(OF_EVE)) == (4, 4, "at last")


def test_pages_that_end_within_a_second() -> None:
    hall = Hall()
    hall.clock.instant += timedelta(seconds=30.9)
    live, second = hall.event("live", 0), NOW + timedelta(seconds=30)
    hall.live(live)
    hall.read(replace(live, at=second))
    reached = microseconds(live.at)
    hall.read(replace(hall.event("behind", 0), at=second), reached=reached)
    assert seen(hall.of(OF_EVE)) == (2, 2, "behind")


def test_reading_it_again_changes_nothing() -> None:
    hall = Hall()
    hall.clock.instant += timedelta(seconds=30)
    events = [hall.event("old", 60), hall.event("lost", 10)]
    hall.read(*events)
    before = hall.store.tables.conversations
    assert hall.read(*events) == 0
    assert hall.store.tables.conversations == before


def test_what_was_lost_before_it_was_put_away_brings_nothing_back() -> None:
    hall = Hall()
    hall.clock.instant += timedelta(seconds=30)
    hall.live(hall.event("live", 0))
    put_away = replace(hall.of(OF_EVE), status=Status.ARCHIVED)
    hall.store.tables.conversations[OF_EVE] = put_away
    at_that_moment = instant(put_away.version)
    hall.read(replace(hall.event("lost", 0), at=at_that_moment))
    assert hall.of(OF_EVE).status is Status.ARCHIVED
    hall.clock.instant += timedelta(seconds=30)
    hall.read(hall.event("lost later", 10))
    assert hall.of(OF_EVE).status is Status.ACTIVE


def test_corrections_and_retractions() -> None:
    hall = Hall()
    hall.read(
        hall.event("one", 60),
        hall.event("two", 50),
        hall.event("better", 40, content=Correction("a-two")),
        hall.event("away", 30, content=Retraction("a-one")),
    )
    assert seen(hall.of(OF_EVE)) == (0, 0, "better")
    assert hall.store.tables.jobs == {}


def test_a_lost_retraction_takes_what_is_unread() -> None:
    hall = Hall()
    hall.clock.instant += timedelta(seconds=30)
    live = hall.event("said", 20)
    hall.live(live)
    hall.store.tables.jobs.clear()
    hall.read(live, hall.event("away", 10, content=Retraction("a-said")))
    assert seen(hall.of(OF_EVE)) == (0, 0, "")
    assert hall.store.tables.jobs == {}


def test_a_room_that_is_not_known() -> None:
    store = MemoryStore(SetClock(NOW))
    row = Bootstrap(account=TEA, since=1, due_at=NOW)
    rule = partial(history.restore_room, [], row, 0, policies=POLICIES)
    assert store.apply(history.keys_of_room([], TEA), rule).gone
