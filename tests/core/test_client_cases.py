"""The client's cache in single cases: what rings, what is late, what is owed, what is stored."""

from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from sync.client import storage
from sync.client.cache import MAX_ENDED_CALLS, Cache, Step, apply, silence
from sync.client.events import CallEnded, CallRings, Happened
from sync.client.values import GONE, Call, CallKey, Key, Page
from tests.core.client_server import Server


def test_a_known_call_keeps_ringing_without_being_told_again() -> None:
    server = Server()
    server.call(CallKey("p0@ex.net", "s1"), "ringing")
    first = apply(Cache(), server.sync(None, most=5, live=True))
    assert [type(event) for event in first.events][:1] == [CallRings]
    server.write(Key("p1@ex.net"))
    second = apply(first.cache, server.sync(first.cache.token, most=5, live=True))
    assert not [event for event in second.events if isinstance(event, CallRings | CallEnded)]
    assert len(second.cache.ringing) == 1


def test_what_it_stores_is_read_again_and_nothing_else_is() -> None:
    server = Server()
    for n in range(3):
        server.write(Key(f"p{n}@ex.net"))
    cache = apply(Cache(), server.sync(None, most=2, live=False)).cache
    assert cache.chain
    assert storage.loads(storage.dumps(cache)) == cache
    text = storage.dumps(cache)
    for wrong in ("", "{}", "[]", "null", text[:-1], text.replace('"format":1', '"format":2'), "[" * 100_000):
        with pytest.raises(ValueError, match=r"^This is no cache that this version can read\.$"):
            storage.loads(wrong)


def test_a_list_that_was_overtaken_by_a_notice_is_asked_for_again() -> None:
    """The whole list is of a moment before the notice; what the notice told is dropped with everything else."""
    server = Server()
    server.write(Key("p0@ex.net"))
    cache = apply(Cache(), server.sync(None, most=5, live=True)).cache
    late = server.sync(None, most=5, live=True)
    server.write(Key("p1@ex.net"))
    notice = server.notice()
    assert notice
    overtaken = apply(apply(cache, notice).cache, late)
    assert overtaken.ask
    assert len(overtaken.cache.conversations) == 1


def test_what_was_owed_by_a_list_in_pages_is_told_though_notices_went_on() -> None:
    """A conversation that is bumped before its page was there: its older change comes with the next delta."""
    server, early, late = Server(), Key("p0@ex.net"), Key("p1@ex.net")
    for key in (early, late):
        server.write(key)
    cache = apply(Cache(), server.sync(None, most=5, live=False)).cache
    server.correct(early)
    server.correct(late)
    cache = apply(cache, server.sync(cache.token, most=1, live=True)).cache
    server.write(Key("p2@ex.net"))
    notice = server.notice()
    assert notice
    server.write(early)
    assert cache.chain
    end = apply(cache, server.sync(cache.chain.token, most=1, live=False)).cache
    # The notice of the third one is the last to arrive; that of the early one is lost with the connection.
    end = apply(end, notice).cache
    assert end.token == notice.token
    delta = apply(end, server.sync(end.token, most=5, live=False))
    assert [event.key for event in delta.events if isinstance(event, Happened)] == [early]


def test_time_passes_for_a_call_also_where_nothing_is_new() -> None:
    proposed = datetime(2026, 1, 1, tzinfo=UTC)
    call = Call(id="s", jid="p@ex.net", state="ringing", version=3, proposed_at=proposed, age=2, left=58)
    page = Page(token="t1", version=3, calls=(call,), time=proposed + timedelta(seconds=2))
    cache = storage.loads(storage.dumps(apply(Cache(), page).cache))
    later = Page(asked="t1", token="t1", version=3, time=proposed + timedelta(seconds=42))
    (told,) = apply(cache, later).events
    assert told == CallRings(replace(call, age=42, left=18))
    too_late = Page(asked="t1", token="t1", version=3, time=proposed + timedelta(seconds=61))
    (told,) = apply(cache, too_late).events
    assert (type(told), told.call.state) == (CallEnded, GONE)


def test_a_call_that_was_dealt_with_here_does_not_ring_again() -> None:
    server, key = Server(), CallKey("p0@ex.net", "s1")
    server.call(key, "ringing")
    page = server.sync(None, most=5, live=True)
    cache = silence(apply(Cache(), page).cache, key).cache
    assert silence(cache, key) == Step(cache)
    server.write(Key("p1@ex.net"))
    step = apply(cache, server.sync(cache.token, most=5, live=True))
    assert not [event for event in step.events if isinstance(event, CallRings | CallEnded)]
    server.call(key, "answered")
    step = apply(step.cache, server.sync(step.cache.token, most=5, live=True))
    assert [event.call.state for event in step.events if isinstance(event, CallEnded)] == ["answered"]


def test_ended_calls_do_not_pile_up() -> None:
    server, cache = Server(), Cache()
    server.write(Key("p0@ex.net"))
    for n in range(MAX_ENDED_CALLS + 10):
        cache = apply(cache, server.sync(cache.token, most=5, live=False)).cache
        server.call(CallKey("p0@ex.net", f"s{n}"), "ringing")
        server.call(CallKey("p0@ex.net", f"s{n}"), "missed")
    cache = apply(cache, server.sync(cache.token, most=5, live=False)).cache
    assert len(cache.calls) == MAX_ENDED_CALLS
    assert CallKey("p0@ex.net", f"s{MAX_ENDED_CALLS + 9}") in cache.calls


def test_what_was_deleted_does_not_come_back_with_a_late_page() -> None:
    server, gone = Server(), Key("p0@ex.net")
    server.write(Key("p1@ex.net"))
    cache = apply(Cache(), server.sync(None, most=5, live=True)).cache
    server.write(gone)
    late = server.sync(cache.token, most=5, live=False)
    server.delete(gone)
    notice = server.notice()
    assert notice
    cache = apply(apply(cache, notice).cache, late).cache
    assert gone not in cache.conversations
    # A new message brings it back; and what no late page can show is forgotten.
    assert gone in cache.removed
    server.write(gone)
    cache = apply(cache, server.sync(cache.token, most=5, live=True)).cache
    assert gone in cache.conversations
    assert cache.removed == {}


def test_notices_during_a_list_in_pages_need_no_question_afterwards() -> None:
    server = Server()
    for n in range(3):
        server.write(Key(f"p{n}@ex.net"))
    cache = apply(Cache(), server.sync(None, most=2, live=True)).cache
    server.write(Key("p3@ex.net"))
    notice = server.notice()
    assert notice
    cache = apply(cache, notice).cache
    assert cache.chain
    assert not cache.complete
    cache = apply(cache, server.sync(cache.chain.token, most=2, live=False)).cache
    assert (cache.complete, cache.version, cache.conversations) == (True, server.version, server.rows)
    server.write(Key("p3@ex.net"))
    notice = server.notice()
    assert notice
    assert not apply(cache, notice).ask


def test_a_late_page_has_no_say_in_the_badge() -> None:
    server, key = Server(), Key("p0@ex.net")
    server.write(key)
    cache = apply(Cache(), server.sync(None, most=5, live=True)).cache
    server.write(key)
    late = server.sync(cache.token, most=5, live=False)
    server.read(key)
    notice = server.notice()
    assert notice
    step = apply(apply(cache, notice).cache, late)
    assert (step.events, step.cache.totals) == ((), server.totals)
    assert step.cache.version == server.version


def test_a_change_that_is_told_twice_happens_once() -> None:
    """What is owed of one conversation makes the next delta tell the log of all of them again."""
    server, first, second = Server(), Key("p0@ex.net"), Key("p1@ex.net")
    for key in (first, second):
        server.write(key)
    cache = apply(Cache(), server.sync(None, most=5, live=False)).cache
    server.correct(second)
    server.correct(first)
    step = apply(cache, server.sync(cache.token, most=1, live=False))
    assert [event.key for event in step.events if isinstance(event, Happened)] == [first]
    assert step.cache.chain
    server.correct(first)
    server.write(second)
    cache = apply(step.cache, server.sync(step.cache.chain.token, most=1, live=False)).cache
    step = apply(cache, server.sync(cache.token, most=5, live=False))
    told = {
        event.key: [change.version for change in event.changes] for event in step.events if isinstance(event, Happened)
    }
    assert told == {first: [server.version - 1], second: [3]}


def test_a_notice_names_all_that_ring_also_one_that_shows_a_hole() -> None:
    server, first, second = Server(), CallKey("p0@ex.net", "s1"), CallKey("p1@ex.net", "s2")
    server.call(first, "ringing")
    cache = apply(Cache(), server.sync(None, most=5, live=True)).cache
    server.call(first, "missed")
    server.notice()  # it is lost
    server.call(second, "ringing")
    notice = server.notice()
    assert notice
    step = apply(cache, notice)
    assert step.ask
    assert [(type(event), event.call.key) for event in step.events if isinstance(event, CallRings | CallEnded)] == [
        (CallRings, second),
        (CallEnded, first),
    ]
    # How it ended is told by the answer.
    (ended,) = apply(step.cache, server.sync(cache.token, most=5, live=True)).events[:1]
    assert isinstance(ended, CallEnded)
    assert (ended.call.key, ended.call.state) == (first, "missed")


def test_an_answer_that_a_notice_has_overtaken_does_not_end_its_call() -> None:
    server, key = Server(), CallKey("p0@ex.net", "s1")
    server.write(Key("p1@ex.net"))
    cache = apply(Cache(), server.sync(None, most=5, live=True)).cache
    server.write(Key("p1@ex.net"))
    server.notice()  # it is lost
    late = server.sync(cache.token, most=5, live=False)
    server.call(key, "ringing")
    notice = server.notice()
    assert notice
    hole = apply(cache, notice)
    assert (hole.ask, [type(event) for event in hole.events]) == (True, [CallRings])
    assert [call.key for call in apply(hole.cache, late).cache.ringing] == [key]


def test_a_page_of_a_list_that_nobody_reads_changes_nothing() -> None:
    server = Server()
    for n in range(3):
        server.write(Key(f"p{n}@ex.net"))
    first = server.sync(None, most=1, live=False)
    second = server.sync(first.token, most=1, live=False)
    whole = apply(Cache(), server.sync(None, most=5, live=False)).cache
    for cache in (Cache(), whole, apply(apply(Cache(), first).cache, second).cache):
        assert apply(cache, second) == Step(cache, ask=True)


def test_a_restored_server_has_the_last_word_about_calls() -> None:
    server, key, other = Server(), CallKey("p0@ex.net", "s1"), CallKey("p0@ex.net", "s2")
    server.call(key, "ringing")
    server.call(other, "ringing")
    backup = deepcopy(server)
    cache = apply(Cache(), server.sync(None, most=5, live=True)).cache
    server.call(key, "missed")
    cache = apply(cache, server.sync(cache.token, most=5, live=True)).cache
    server.restore(backup)
    step = apply(cache, server.sync(cache.token, most=5, live=True))
    # What rings on is not told again; the one that ended rings again.
    assert [event.call.key for event in step.events if isinstance(event, CallRings | CallEnded)] == [key]
    assert {call.key for call in step.cache.ringing} == {key, other}


def test_a_notice_that_comes_late_does_not_take_the_client_back() -> None:
    server = Server()
    server.write(Key("p0@ex.net"))
    cache = apply(Cache(), server.sync(None, most=5, live=True)).cache
    server.write(Key("p1@ex.net"))
    late = server.notice()
    assert late
    server.write(Key("p1@ex.net"))
    cache = apply(cache, server.sync(cache.token, most=5, live=True)).cache
    assert apply(cache, late) == Step(cache)


def test_a_client_that_started_again_is_told_of_a_call_that_the_answer_names_once_more() -> None:
    server, key = Server(), CallKey("p0@ex.net", "s1")
    server.call(key, "ringing")
    cache = storage.loads(storage.dumps(apply(Cache(), server.sync(None, most=5, live=True)).cache))
    server.write(Key("p1@ex.net"))
    step = apply(cache, server.sync(cache.token, most=5, live=True))
    assert [event.call.key for event in step.events if isinstance(event, CallRings)] == [key]
    assert step.cache.untold == frozenset()
