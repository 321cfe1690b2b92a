"""Quiet hours: when it is quiet, in any zone and over changes of its clock, and what becomes of a wish."""

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.adapters.zones import zone
from sync.model.books import Books
from sync.model.device import JobState, PushKind
from sync.model.errors import BadRequest, ItemNotFound
from sync.model.quiet import FOR_EVER, Hours, Quiet
from sync.rules.quiet import PASSES, Hush, held, hush, keep_quiet, no_zones
from sync.rules.reasons import Why
from tests.contract.samples import ANN, NOW, account, after, job

BERLIN = "Europe/Berlin"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def hours(begin: str, end: str, name: str = BERLIN) -> Quiet:
    return Quiet(hours=Hours(time.fromisoformat(begin), time.fromisoformat(end), name))


@pytest.mark.parametrize(
    ("wish", "now", "end"),
    [
        # Over midnight, in winter (UTC+1) and in summer (UTC+2); the first instant is in, the last is not.
        (hours("22:00", "07:00"), "2026-01-10T20:59:59", None),
        (hours("22:00", "07:00"), "2026-01-10T21:00:00", "2026-01-11T06:00:00"),
        (hours("22:00", "07:00"), "2026-01-11T05:59:59", "2026-01-11T06:00:00"),
        (hours("22:00", "07:00"), "2026-01-11T06:00:00", None),
        (hours("22:00", "07:00"), "2026-07-10T20:00:00", "2026-07-11T05:00:00"),
        (hours("13:00", "14:30"), "2026-07-10T11:30:00", "2026-07-10T12:30:00"),
        (hours("13:00", "14:30"), "2026-07-10T12:30:00", None),
        # All but an hour of the day.
        (hours("08:00", "07:00"), "2026-07-11T05:30:00", None),
        (hours("08:00", "07:00"), "2026-07-11T06:00:00", "2026-07-12T05:00:00"),
        # The night in which Berlin's clock goes forward (2026-03-29, 02:00 → 03:00) is an hour shorter.
        (hours("22:00", "07:00"), "2026-03-28T21:00:00", "2026-03-29T05:00:00"),
        # Ends at a time that this day has not: when the clock is next at or past it, by the clock that had it last.
        (hours("22:00", "02:30"), "2026-03-29T00:00:00", "2026-03-29T01:30:00"),
        (hours("02:30", "06:00"), "2026-03-29T00:29:59", None),
        (hours("02:30", "06:00"), "2026-03-29T00:30:00", "2026-03-29T04:00:00"),
        # The night in which it goes back (2026-10-25, 03:00 → 02:00): 02:30 is there twice. Quiet up to the second one,
        # from the first one on.
        (hours("22:00", "07:00"), "2026-10-24T20:00:00", "2026-10-25T06:00:00"),
        (hours("22:00", "02:30"), "2026-10-25T00:45:00", "2026-10-25T01:30:00"),
        (hours("02:30", "02:45"), "2026-10-25T00:30:00", "2026-10-25T01:45:00"),
        (hours("02:30", "02:45"), "2026-10-25T01:00:00", "2026-10-25T01:45:00"),
        # Zones half an hour off, with half an hour of summer, and at the ends of the day.
        (hours("22:00", "07:00", "Asia/Kolkata"), "2026-01-10T16:30:00", "2026-01-11T01:30:00"),
        (hours("22:00", "07:00", "Australia/Lord_Howe"), "2026-04-04T12:00:00", "2026-04-04T20:30:00"),
        (hours("22:00", "07:00", "Pacific/Kiritimati"), "2026-01-10T08:00:00", "2026-01-10T17:00:00"),
        (hours("22:00", "07:00", "America/Sao_Paulo"), "2026-01-11T01:00:00", "2026-01-11T10:00:00"),
        # Do-not-disturb, alone, into the hours, out of them, and for ever.
        (Quiet(until=at("2026-01-10T12:00:00")), "2026-01-10T11:59:59", "2026-01-10T12:00:00"),
        (Quiet(until=at("2026-01-10T12:00:00")), "2026-01-10T12:00:00", None),
        (
            Quiet(until=at("2026-01-10T22:00:00"), hours=hours("22:00", "07:00").hours),
            "2026-01-10T12:00:00",
            "2026-01-11T06:00:00",
        ),
        (
            Quiet(until=at("2026-01-11T09:00:00"), hours=hours("22:00", "07:00").hours),
            "2026-01-10T22:00:00",
            "2026-01-11T09:00:00",
        ),
        (
            Quiet(until=FOR_EVER, hours=hours("22:00", "07:00").hours),
            "2026-01-10T12:00:00",
            "9999-12-31T23:59:59.999999",
        ),
        # Of a zone that nobody knows nothing holds.
        (hours("00:00", "23:59", "Europe/Atlantis"), "2026-01-10T12:00:00", None),
        (None, "2026-01-10T12:00:00", None),
    ],
)
def test_when_it_is_quiet(wish: Quiet | None, now: str, end: str | None) -> None:
    assert hush(wish, zone, at(now)) == (None if end is None else Hush(at(end), False))


TIMES = st.builds(time, st.integers(0, 23), st.integers(0, 59))
ZONES = st.sampled_from([BERLIN, "UTC", "Asia/Kolkata", "Australia/Lord_Howe", "America/St_Johns", "Africa/Casablanca"])
INSTANTS = st.datetimes(datetime(2024, 1, 1), datetime(2028, 1, 1), timezones=st.just(UTC))


@given(begin=TIMES, end=TIMES, name=ZONES, now=INSTANTS, until=st.none() | INSTANTS)
def test_whenever_the_clock_on_the_wall_says_so_and_never_for_long_when_it_does_not(
    begin: time, end: time, name: str, now: datetime, until: datetime | None
) -> None:
    """Quiet whenever the wall shows a time within the hours; when it ends, it is not quiet any more; and no night is
    longer than its hours, a change of the clock, and do-not-disturb.
    """
    if begin == end:
        return
    wish = Quiet(hours=Hours(begin, end, name), until=until)
    silence, tz = hush(wish, zone, now), zone(name)
    assert tz is not None
    wall = now.astimezone(tz).time()
    within = begin <= wall < end if begin < end else wall >= begin or wall < end
    assert not within or silence is not None
    if silence is None:
        return
    assert silence.until > now
    assert hush(wish, zone, silence.until) is None
    length = (datetime.combine(NOW, end) - datetime.combine(NOW, begin)) % timedelta(days=1)
    if until is None:
        assert silence.until - now <= 2 * (length + timedelta(hours=1))


def test_hours_of_no_length_are_none() -> None:
    assert hush(hours("07:00", "07:00"), zone, NOW) is None
    assert hush(hours("00:00", "23:59"), no_zones, NOW) is None


# ---- what is kept ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PushKind)
def test_what_may_wait_is_kept(kind: PushKind) -> None:
    one = job(kind=kind, deadline=after(900))
    assert held(one, None) == one
    kept = held(one, Hush(after(600), True))
    assert (kept.not_before, kept.reason) == ((NOW, None) if kind in PASSES else (after(600), Why.QUIET))
    # Whose time is over before: as long as it can, since the silence may be ended.
    assert held(one, Hush(after(1200), True)).not_before == (NOW if kind in PASSES else after(900))
    # What is due later anyway is not kept by it.
    assert held(job(kind=kind, not_before=after(700), deadline=after(900)), Hush(after(600), True)).reason is None


def wish(quiet: Quiet | None, owner: Any = None, jobs: Any = (), now: datetime = NOW) -> Any:
    books = Books(now=now, accounts={ANN: owner or account(version=7)}, jobs={ANN: list(jobs)})
    return keep_quiet(ANN, quiet, zone, books)


def test_a_wish_is_a_new_version_of_the_account() -> None:
    quiet = hours("22:00", "07:00")
    ruling = wish(quiet)
    assert ruling.value.quiet == quiet
    assert [(one.quiet, one.version > 7) for one in ruling.writes.accounts] == [(quiet, True)]
    again = wish(quiet, account(version=7, quiet=quiet))
    assert (again.writes.accounts, again.value.quiet) == ([], quiet)


@pytest.mark.parametrize("quiet", [Quiet(until=NOW), Quiet(), Quiet(calls=True)])
def test_what_holds_never_is_no_wish(quiet: Quiet) -> None:
    assert wish(quiet).value.quiet is None
    assert wish(Quiet(until=NOW, hours=hours("22:00", "07:00").hours)).value.quiet == hours("22:00", "07:00")


def test_a_zone_must_exist() -> None:
    for name in ("Europe/Atlantis", "Europe", "posixrules/x", "..", "UTC\0"):
        with pytest.raises(BadRequest, match="'zone'"):
            wish(hours("22:00", "07:00", name))
    with pytest.raises(BadRequest) as refused:
        wish(hours("22:00", "07:00", "Europe/Atlantis"))
    assert str(refused.value) == "'zone' is no time zone of the IANA database."
    with pytest.raises(ItemNotFound) as unknown:
        keep_quiet(ANN, None, zone, Books(now=NOW))
    assert str(unknown.value) == "There is no such account."


def test_only_what_was_kept_for_it_is_given_another_time() -> None:
    kept = job("kept", not_before=after(600), deadline=after(9000), reason=Why.QUIET)
    late = job("late", not_before=after(20), deadline=after(9000))
    left = job("left", reason=Why.QUIET, state=JobState.DONE)
    (now,) = wish(None, account(quiet=Quiet(until=after(600))), [kept, late, left]).writes.jobs
    assert (now.job_id, now.not_before, now.reason) == (kept.job_id, NOW, None)
    (later,) = wish(Quiet(until=after(3600)), account(quiet=Quiet(until=after(600))), [kept, late]).writes.jobs
    assert (later.job_id, later.not_before, later.reason) == (kept.job_id, after(3600), Why.QUIET)


@pytest.mark.parametrize("kind", [PushKind.MESSAGE, PushKind.MISSED])
def test_what_was_kept_waits_for_the_new_end_whatever_it_is(kind: PushKind) -> None:
    """A missed call goes out at once, but one of which nobody was told while it was quiet."""
    kept = job(kind=kind, not_before=after(600), deadline=after(9000), reason=Why.QUIET)
    done = wish(Quiet(until=after(3600)), account(quiet=Quiet(until=after(600))), [kept])
    assert list(done.value.jobs) == done.writes.jobs == [replace(kept, not_before=after(3600))]


def test_what_is_due_when_it_ends_is_not_kept() -> None:
    due = job(not_before=after(600), deadline=after(9000))
    assert held(due, Hush(after(600), False)) == due


@pytest.mark.parametrize(
    ("begin", "end", "where", "now", "over"),
    [
        # Yesterday's hours, where it is the day before that by our clock; and tomorrow's, which the day with an hour
        # less begins while it is still today.
        (
            "22:00",
            "20:00",
            "Pacific/Pago_Pago",
            datetime(2026, 3, 3, 1, tzinfo=UTC),
            datetime(2026, 3, 3, 7, tzinfo=UTC),
        ),
        (
            "00:30",
            "06:00",
            "America/Havana",
            datetime(2026, 3, 8, 4, 40, tzinfo=UTC),
            datetime(2026, 3, 8, 10, tzinfo=UTC),
        ),
    ],
)
def test_days_are_those_of_the_place(begin: str, end: str, where: str, now: datetime, over: datetime) -> None:
    found = hush(hours(begin, end, where), zone, now)
    assert found is not None
    assert found.until == over
