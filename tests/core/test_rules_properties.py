"""Properties that are set: what `tests/vectors/rules/properties.toml` does not say."""

from datetime import timedelta

import pytest

from sync.model.books import Books
from sync.model.conversation import Conversation, Kind
from sync.model.errors import ItemNotFound
from sync.model.query import MuteUntil, SetProperties
from sync.rules.properties import keys_of, set_properties
from tests.contract.samples import ANN, BOB, CAT, NOW, TEA, WITH_BOB, account, conversation, membership


def books(*conversations: Conversation) -> Books:
    return Books(now=NOW, accounts={ANN: account()}, conversations={c.key: c for c in conversations})


@pytest.mark.parametrize("seconds", [1, 0, -1])
def test_a_mute_up_to_an_instant_ends_where_that_is_over(seconds: float) -> None:
    at = NOW + timedelta(seconds=seconds)
    muted = conversation(5, muted_until=NOW + timedelta(days=1))
    (named,) = set_properties(ANN, [SetProperties(peer=BOB, mute=MuteUntil(at))], books(muted)).value.named
    assert named.muted_until == (at if seconds > 0 else None)


def test_all_that_were_named_come_in_their_order_with_the_versions_that_they_have_now() -> None:
    found = books(conversation(5, pinned=1), conversation(6, CAT), membership(7))
    requests = [SetProperties(peer=TEA, kind=Kind.GROUP, pinned=1)]
    requests += [SetProperties(peer=peer, pinned=1) for peer in (CAT, BOB)]
    done = set_properties(ANN, requests, found).value
    changed, named = done.changed, done.named
    assert [c.key.peer for c in named] == [TEA, CAT, BOB]
    assert [c.key.peer for c in changed] == [TEA, CAT]
    assert named[2].version == 5
    assert 1000 < named[0].version < named[1].version


def test_one_that_is_not_there_ends_all_of_it() -> None:
    requests = [SetProperties(peer=BOB, pinned=1), SetProperties(peer=BOB, kind=Kind.GROUP, pinned=1)]
    with pytest.raises(ItemNotFound):
        set_properties(ANN, requests, books(conversation()))


def test_whose_account_is_gone_has_no_conversation() -> None:
    with pytest.raises(ItemNotFound) as unknown:
        set_properties(ANN, [SetProperties(peer=BOB, pinned=1)], Books(now=NOW))
    with pytest.raises(ItemNotFound) as missing:
        set_properties(ANN, [SetProperties(peer=BOB, pinned=1)], Books(now=NOW, accounts={ANN: account()}))
    assert str(unknown.value) == str(missing.value) != ItemNotFound.condition


def test_what_changes_nothing_is_counted() -> None:
    books = Books(now=NOW, accounts={ANN: account()}, conversations={WITH_BOB: conversation(pinned=1)})
    done = set_properties(ANN, [SetProperties(peer=BOB, pinned=1)], books).value
    assert (done.changed, dict(done.report.ignored)) == ((), {"as-it-was": 1})


def test_one_that_is_read_wants_the_others_of_its_peer_where_there_may_be_some() -> None:
    requests = [SetProperties(peer=BOB, read="a1")]
    assert keys_of(ANN, requests).conversations == {WITH_BOB}
    assert keys_of(ANN, requests, several=True).conversations == set(WITH_BOB.alike)
