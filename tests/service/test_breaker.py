"""When a queue's pushes stop and go on: breakers, and places in the queues."""

from datetime import timedelta
from itertools import pairwise

import pytest

from sync.model.push import PushOutcome, Verdict
from sync.service.breaker import FAILURES, LASTING, PAUSES, Breaker
from sync.service.queues import ABROAD, QUEUES, SEVERAL, Place, Queues
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.samples import after

REFUSED = PushOutcome(verdict=Verdict.CREDENTIALS, status=403, reason="Forbidden")
FOREIGN = PushOutcome(verdict=Verdict.CREDENTIALS, status=403, reason="InvalidProviderToken")
TAKEN = PushOutcome(verdict=Verdict.ACCEPTED, status=200)
SILENT = PushOutcome(verdict=Verdict.UNCERTAIN)
OURS = PushOutcome(verdict=Verdict.REJECTED)
FIRST, LONGEST = PAUSES["credentials"]


def refused(breaker: Breaker | None = None, at: float = 0) -> Breaker:
    breaker = breaker or Breaker()
    breaker.tell(breaker.enter(), REFUSED, after(at))
    return breaker


def test_the_first_refusal_stops_everything_until_a_probe() -> None:
    breaker = refused()
    assert (breaker.is_open, breaker.why, breaker.reason) == (True, "credentials", "Forbidden")
    assert not breaker.admits(after(4.9))
    assert breaker.admits(after(5))
    breaker.enter()
    assert not breaker.admits(after(60))  # one probe, not two


def test_a_probe_that_is_taken_closes_it() -> None:
    breaker = refused()
    breaker.tell(breaker.enter(), TAKEN, after(5))
    assert breaker.is_clean
    assert breaker.admits(after(5))


@pytest.mark.parametrize("status", [400, 410, 413, 429])
def test_so_does_any_answer_about_the_push_itself(status: int) -> None:
    breaker = refused()
    breaker.tell(breaker.enter(), PushOutcome(verdict=Verdict.REJECTED, status=status), after(5))
    assert not breaker.is_open


@pytest.mark.parametrize(
    ("outcome", "closed"),
    [
        (PushOutcome(verdict=Verdict.ACCEPTED), True),
        (PushOutcome(verdict=Verdict.DEAD_TOKEN, reason="item-not-found"), True),
        (PushOutcome(verdict=Verdict.REJECTED, reason="forbidden"), True),
        (PushOutcome(verdict=Verdict.REJECTED, reason="sealed"), False),
        (PushOutcome(verdict=Verdict.REJECTED, reason="app-not-configured"), False),
        (PushOutcome(verdict=Verdict.TOO_LARGE), False),
    ],
)
def test_app_servers_answer_without_a_status(outcome: PushOutcome, closed: bool) -> None:
    breaker = refused()
    breaker.tell(breaker.enter(), outcome, after(5))
    assert breaker.is_clean is closed


def test_pauses_grow_to_a_minute() -> None:
    breaker, now, pauses = Breaker(), after(0), []
    for _ in range(6):
        refused(breaker, (now - after(0)).total_seconds())
        assert breaker.again_at is not None
        pauses.append(breaker.again_at - now)
        now = breaker.again_at
    assert pauses[0] == FIRST
    assert pauses[-1] == LONGEST == timedelta(minutes=1)
    assert all(next_ == min(one * 2, LONGEST) for one, next_ in pairwise(pauses))


def test_what_left_before_decides_nothing_any_more() -> None:
    breaker = Breaker()
    turns = [breaker.enter() for _ in range(3)]
    breaker.tell(turns[0], REFUSED, after(0))
    again = breaker.again_at
    breaker.tell(turns[1], REFUSED, after(1))
    breaker.tell(turns[2], TAKEN, after(2))
    assert (breaker.is_open, breaker.again_at) == (True, again)


def test_a_probe_that_nobody_judged_is_followed_by_another() -> None:
    breaker = refused()
    breaker.tell(breaker.enter(), OURS, after(5))
    assert breaker.is_open
    assert breaker.admits(after(5))
    breaker.leave(breaker.enter())
    assert breaker.admits(after(5))


def test_a_probe_that_finds_nobody_keeps_it_open_for_its_first_reason() -> None:
    breaker = refused()
    breaker.tell(breaker.enter(), SILENT, after(5))
    assert (breaker.why, breaker.reason, breaker.again_at) == ("credentials", "Forbidden", after(15))


def failing(times: int, seconds: float) -> Breaker:
    breaker = Breaker()
    for number in range(times):
        breaker.tell(breaker.enter(), SILENT, after(seconds * number / (times - 1)))
    return breaker


def test_a_service_that_takes_nothing_for_a_while_is_left_alone() -> None:
    breaker = failing(FAILURES, LASTING.total_seconds())
    assert breaker.why == "unreachable"
    assert breaker.admits(after(1.5))


def test_one_lost_connection_is_no_outage() -> None:
    assert not failing(10 * FAILURES, 0.9).is_open
    assert not failing(FAILURES - 1, 60).is_open


def test_an_answer_in_between_begins_anew() -> None:
    breaker = failing(FAILURES - 1, 60)
    breaker.tell(breaker.enter(), TAKEN, after(60))
    assert breaker.is_clean


# ---- queues ---------------------------------------------------------------------------------------------------------


def queues(each: int = 2, **keys: str) -> tuple[Queues, RecordingObserver]:
    observer = RecordingObserver()
    return Queues(each=each, observer=observer, keys={f"apns:{name}": key for name, key in keys.items()}), observer


def admitted(found: Queues, queue: str, at: float = 0, lane: str = "calls") -> Place:
    place = found.admit(lane, queue, after(at))
    assert place is not None
    return place


def stopped(found: Queues, queue: str, outcome: PushOutcome = REFUSED) -> None:
    place = admitted(found, queue)
    found.told(place, outcome, after(0))
    found.release(place)


def test_a_full_queue_leaves_room_to_others_and_to_the_other_lane() -> None:
    found, _ = queues()
    places = [admitted(found, "apns:a") for _ in range(2)]
    assert found.admit("calls", "apns:a", after(0)) is None
    assert found.held("calls", after(0)) == {"apns:a"}
    assert found.held("messages", after(0)) == frozenset()
    admitted(found, "apns:b")
    admitted(found, "apns:a", lane="messages")
    found.release(places[0])
    assert found.held("calls", after(0)) == frozenset()


def test_a_lane_holds_so_many_in_all() -> None:
    found, _ = queues(each=1)
    for number in range(QUEUES):
        admitted(found, f"apns:{number}")
    assert found.room("calls") == 0
    assert found.admit("calls", "apns:a", after(0)) is None


def test_app_servers_that_users_name_leave_half_of_a_lane_to_our_apps() -> None:
    """However many of them are silent."""
    found, _ = queues(each=1)
    places = [admitted(found, f"publish:{number}.example") for number in range(ABROAD)]
    assert found.admit("calls", "publish:one.more", after(0)) is None
    assert "publish:one.more" in found.held("calls", after(0))  # or it would be looked at without end
    assert "publish:one.more" not in found.held("messages", after(0))
    assert found.room("calls") == QUEUES - ABROAD
    admitted(found, "apns:a")
    found.release(places[0])
    assert "publish:one.more" not in found.held("calls", after(0))
    admitted(found, "publish:one.more")


def silent(found: Queues, queue: str, accounts: int) -> None:
    """More than an outage takes, of so many accounts."""
    for number in range(3 * FAILURES):
        place = admitted(found, queue, number)
        found.told(place, SILENT, after(number), f"{number % accounts}@example.org")
        found.release(place)


def test_few_accounts_stop_no_app_server_that_others_share() -> None:
    found, _ = queues()
    silent(found, "publish:push.example", SEVERAL - 1)
    assert found.troubles() == {}
    found.told(admitted(found, "publish:push.example", 40), TAKEN, after(40), "other@example.org")
    silent(found, "publish:push.example", SEVERAL - 1)
    assert found.troubles() == {}


@pytest.mark.parametrize(("queue", "accounts"), [("publish:push.example", SEVERAL), ("apns:a", 1)])
def test_an_outage_stops_it(queue: str, accounts: int) -> None:
    found, _ = queues(each=100)
    for number in range(FAILURES):
        place = admitted(found, queue, 0)
        found.told(place, SILENT, after(number), f"{number % accounts}@example.org")
    assert set(found.troubles()) == {queue}


def test_an_app_server_that_nobody_is_told_by_any_more_is_forgotten() -> None:
    """Its user may have left: nobody would ever close its breaker, and who operates this would be told for good."""
    found, observer = queues(each=FAILURES + 1)
    for queue in ("publish:gone.example", "apns:a"):
        for number in range(FAILURES + 1):
            place = admitted(found, queue, number)
            found.told(place, SILENT, after(number), f"{number}@example.org")
            found.release(place)
    assert set(found.troubles()) == {"publish:gone.example", "apns:a"}
    last = after(FAILURES + 1200)
    found.forget(last)
    assert set(found.troubles()) == {"publish:gone.example", "apns:a"}
    probe = found.admit("calls", "publish:gone.example", last)
    assert probe is not None
    found.forget(last + timedelta(seconds=1))
    assert "publish:gone.example" in found.troubles()  # somebody asks it just now
    found.release(probe)
    found.forget(last + timedelta(seconds=1))
    assert set(found.troubles()) == {"apns:a"}
    assert observer.told("breaker")[-1] == {"name": "publish:gone.example", "is_open": False}


def test_a_stopped_queue_is_held_in_both_lanes_until_its_probe() -> None:
    found, _ = queues()
    stopped(found, "apns:a")
    assert found.held("calls", after(4)) == found.held("messages", after(4)) == {"apns:a"} == found.stopped(after(4))
    assert found.next_probe_at(after(4)) == after(5)
    probe = admitted(found, "apns:a", 5)
    assert found.held("messages", after(5)) == {"apns:a"}
    assert found.next_probe_at(after(5)) is None
    found.told(probe, TAKEN, after(5))
    assert (found.held("calls", after(5)), found.troubles()) == (frozenset(), {})


def test_a_probe_that_was_decided_against_leaves_its_turn_to_the_next() -> None:
    found, _ = queues()
    stopped(found, "apns:a")
    found.release(admitted(found, "apns:a", 5))
    admitted(found, "apns:a", 5)


def test_a_refused_key_stops_all_that_it_signs_and_nothing_else() -> None:
    found, observer = queues(a="T/K", b="T/K", c="T/other")
    stopped(found, "apns:a", FOREIGN)
    assert found.stopped(after(1)) == {"apns:a", "apns:b"}
    assert set(found.troubles()) == {"apns:a", "apns:b"}
    assert "InvalidProviderToken" in found.troubles()["apns:b"]
    assert observer.told("breaker") == [{"name": f"apns:{app}", "is_open": True} for app in "ba"]


def test_a_refusal_that_may_be_about_the_app_stops_that_app() -> None:
    found, _ = queues(a="T/K", b="T/K")
    stopped(found, "apns:a", REFUSED)
    assert found.stopped(after(1)) == {"apns:a"}


def test_a_key_that_is_good_again_frees_all_that_it_signs() -> None:
    found, observer = queues(a="T/K", b="T/K", c="T/K")
    stopped(found, "apns:c", REFUSED)
    stopped(found, "apns:a", FOREIGN)
    assert found.stopped(after(1)) == {"apns:a", "apns:b", "apns:c"}
    probe = admitted(found, "apns:b", 5)
    found.told(probe, TAKEN, after(5))
    assert set(found.troubles()) == {"apns:c"}  # that was about the app
    assert observer.told("breaker")[-2:] == [{"name": f"apns:{app}", "is_open": False} for app in "ba"]
