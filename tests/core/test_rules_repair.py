"""Counters against what they count: what is told, what changes, and under which versions."""

from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from sync.model.conversation import Account, ConversationKey
from sync.rules.repair import Counters, Difference, Recount, repaired
from sync.rules.times import microseconds

ANN, BOB, CAT = "ann@example.org", "bob@example.net", "cat@example.net"
NOW = datetime(2026, 1, 2, tzinfo=UTC)
AT = microseconds(NOW)
ONE = Counters(unread=1, mentions=1)


def found(peer: str, stored: int, counted: int, version: int = 1) -> Recount:
    return Recount(
        key=ConversationKey(ANN, peer),
        version=version,
        stored=Counters(unread=stored),
        counted=Counters(unread=counted),
    )


def ann(unread: int = 0, conversations: int = 0, version: int = 5) -> Account:
    return Account(jid=ANN, version=version, floor=0, unread=unread, unread_conversations=conversations)


def test_what_is_right_stays_as_it_is() -> None:
    assert repaired(ann(2, 1), 0, [found(BOB, 2, 2), found(CAT, 0, 0)], NOW).conversations == ()
    assert repaired(ann(2, 1), 0, [found(BOB, 2, 2)], NOW).differences == ()


def test_a_wrong_conversation_is_told_and_gets_a_version() -> None:
    done = repaired(ann(3, 1), 0, [found(BOB, 3, 2)], NOW)
    key = ConversationKey(ANN, BOB)
    assert done.differences == (
        Difference(conversation=key, what="unread", before=3, after=2),
        Difference(what="unread", before=3, after=2),
    )
    assert [(one.key, one.version, one.counted.unread) for one in done.conversations] == [(key, AT, 2)]
    assert (done.account.version, done.account.unread) == (AT, 2)


def test_each_changed_conversation_has_a_version_of_its_own() -> None:
    done = repaired(ann(version=AT + 10), 0, [found(BOB, 0, 1), found(CAT, 1, 0)], NOW)
    assert [one.version for one in done.conversations] == [AT + 11, AT + 12]
    assert done.account.version == AT + 12


def test_totals_that_differ_alone_change_the_account_alone() -> None:
    done = repaired(ann(7, 3), 2, [found(BOB, 1, 1)], NOW)
    assert done.conversations == ()
    assert {difference.what for difference in done.differences} == {"unread", "unread conversations", "devices"}
    assert (done.account.version, done.account.devices) == (AT, 2)


def test_mentions_and_a_single_unread_message_are_counted_too() -> None:
    of_bob = replace(found(BOB, 1, 1), stored=ONE, counted=ONE)
    assert repaired(replace(ann(1, 1), mentions=1), 0, [of_bob], NOW).differences == ()
    done = repaired(ann(1, 0), 0, [of_bob], NOW)
    assert {difference.what for difference in done.differences} == {"mentions", "unread conversations"}
    assert (done.account.mentions, done.account.unread_conversations) == (1, 1)


def test_an_account_is_no_older_than_its_conversations() -> None:
    done = repaired(ann(version=5), 0, [found(BOB, 0, 0, version=AT + 100)], NOW)
    assert [(one.what, one.before, one.after) for one in done.differences] == [("version", 5, AT + 100)]
    assert done.account.version == AT + 101


COUNTERS = st.builds(Counters, unread=st.integers(0, 3), mentions=st.integers(0, 3), ringing=st.integers(0, 2))


@given(st.lists(st.tuples(COUNTERS, COUNTERS, st.integers(0, 2 * AT)), max_size=6), st.integers(0, 3))
def test_what_was_repaired_does_not_differ(pairs: list[tuple[Counters, Counters, int]], devices: int) -> None:
    rows = [
        Recount(key=ConversationKey(ANN, f"{n}@example.net"), version=version, stored=stored, counted=counted)
        for n, (stored, counted, version) in enumerate(pairs)
    ]
    done = repaired(ann(), devices, rows, NOW)
    changed = {one.key: one for one in done.conversations}
    after = [replace(changed.get(row.key, row), stored=row.counted) for row in rows]
    assert repaired(done.account, devices, after, NOW).differences == ()
    versions = [one.version for one in done.conversations]
    assert len(set(versions)) == len(versions)
    assert all(version > row.version for version in versions for row in rows)
