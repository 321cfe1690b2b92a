"""Quiet hours and do-not-disturb of an account: is it quiet now, up to when, and what passes all the same.

What may wait is kept and goes out at the end, as one push, if it is still news then; calls do not wait: they ring where
the account wants that, else the ledger says why not and the missed call is told at the end. What takes something off a
screen goes out at once, without a sound.

Wall clocks jump. Where the hours begin or end at a time that a day has twice, or not at all, the longer reading holds,
so that nobody is woken within hours that a clock on the wall shows as quiet. A zone that is unknown is never quiet.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from sync.model.books import Books, Ruling, Writes
from sync.model.device import JobState, PushJob, PushKind
from sync.model.errors import BadRequest, ItemNotFound
from sync.model.quiet import Hours, Quiet
from sync.rules.reasons import Why
from sync.rules.times import FOR_EVER, next_version

Zones = Callable[[str], tzinfo | None]  # a zone by its IANA name, None = there is none of that name

# A missed call ends what rings on the screen, and the others take something off it, or are an operator's doing.
PASSES = frozenset(
    {
        PushKind.CALL,
        PushKind.CALL_FALLBACK,
        PushKind.CALL_END,
        PushKind.MISSED,
        PushKind.WITHDRAW,
        PushKind.READ,
        PushKind.TEST,
    }
)
FAR = FOR_EVER - timedelta(days=7)  # no zone has a clock there


def no_zones(_: str) -> tzinfo | None:
    """Where nobody keeps hours."""
    return None


@dataclass(frozen=True, slots=True)
class Hush:
    """It is quiet up to an instant. `calls` ring all the same."""

    until: datetime
    calls: bool


@dataclass(frozen=True, slots=True)
class Kept:
    """What holds for an account from now on, and the pushes that had been kept: for another time, or for now."""

    quiet: Quiet | None
    jobs: tuple[PushJob, ...] = ()


def hush(quiet: Quiet | None, zones: Zones, now: datetime) -> Hush | None:
    """Whether it is quiet now. Hours that follow upon do-not-disturb, or the other way round, are one silence."""
    if quiet is None:
        return None
    zone = zones(quiet.hours.zone) if quiet.hours is not None else None
    end = now
    for _ in range(4):  # one runs into the other twice at the most, and a day's hours into the next by a change of time
        later = max(until_of(quiet, end), ends_at(quiet.hours, zone, end))
        if later <= end:
            break
        end = later
    return Hush(end, quiet.calls) if end > now else None


def until_of(quiet: Quiet, at: datetime) -> datetime:
    """The end of do-not-disturb, not before `at`."""
    return max(at, quiet.until) if quiet.until is not None else at


def ends_at(hours: Hours | None, zone: tzinfo | None, at: datetime) -> datetime:
    """The end of the hours that hold at an instant, or the instant where none do."""
    if hours is None or zone is None or hours.begin == hours.end or at > FAR:
        return at
    today = at.astimezone(zone).date()
    found = [
        end
        for day in (today - timedelta(days=1), today, today + timedelta(days=1))
        if (span := of_day(hours, zone, day))[0] <= at < (end := span[1])
    ]
    return max(found, default=at)


def of_day(hours: Hours, zone: tzinfo, day: date) -> tuple[datetime, datetime]:
    """The hours that begin on a day, in the longer reading of its clock."""
    last = day if hours.begin < hours.end else day + timedelta(days=1)
    return min(instants(day, hours.begin, zone)), max(instants(last, hours.end, zone))


def instants(day: date, at: time, zone: tzinfo) -> tuple[datetime, datetime]:
    """Both readings of a time on the wall; the same one but where the clock is changed."""
    wall = datetime.combine(day, at, tzinfo=zone)
    return wall.astimezone(UTC), wall.replace(fold=1).astimezone(UTC)


def held(job: PushJob, silence: Hush | None) -> PushJob:
    """The job, kept until the silence ends where it may wait, and then `reason` says so. One whose time runs out before
    waits as long as it can: the silence may be ended early.
    """
    waits = job.kind not in PASSES or job.reason == Why.QUIET
    if silence is None or not waits or silence.until <= job.not_before:
        return job
    return replace(job, not_before=max(job.not_before, min(silence.until, job.deadline)), reason=Why.QUIET)


def keep_quiet(account: str, quiet: Quiet | None, zones: Zones, books: Books) -> Ruling[Kept]:
    """The rule for what an account wishes from now on: None = to hear everything. What was kept for the end goes by the
    new wish. Where that is news, the account has a new version.
    """
    owner = books.accounts.get(account)
    if owner is None:
        raise ItemNotFound("There is no such account.")
    if quiet is not None and quiet.hours is not None and zones(quiet.hours.zone) is None:
        raise BadRequest("'zone' is no time zone of the IANA database.")
    if quiet is not None and quiet.until is not None and quiet.until <= books.now:
        quiet = replace(quiet, until=None)
    if quiet is not None and quiet.until is None and quiet.hours is None:
        quiet = None
    if quiet == owner.quiet:
        return Ruling(writes=Writes(), value=Kept(quiet))
    owner = replace(owner, quiet=quiet, version=next_version(owner, books.now))
    silence = hush(quiet, zones, books.now)
    waiting = [job for job in books.jobs.get(account, ()) if job.state is JobState.QUEUED and job.reason == Why.QUIET]
    over = None if silence is None else str(Why.QUIET)
    jobs = [held(replace(job, not_before=books.now, reason=over), silence) for job in waiting]
    return Ruling(writes=Writes(accounts=[owner], jobs=jobs), value=Kept(quiet, tuple(jobs)))
