"""Rows of push_job ⇄ values, and what pushing changes at devices. Most rows that pushing reads and writes are these, so
they are made without detours.
"""

from collections.abc import Callable
from dataclasses import fields
from operator import attrgetter, is_, itemgetter
from typing import Any

from sync.adapters.postgres.rows import Row
from sync.model.conversation import Kind
from sync.model.device import Device, JobState, Lane, PushJob, PushKind

_FIELDS = tuple(field.name for field in fields(PushJob))
_VALUES = itemgetter(*_FIELDS)
# A frozen value's own constructor takes four times as long: it looks for each field by its name, twice.
_PUT = tuple(getattr(PushJob, name).__set__ for name in _FIELDS)
_WORDS: dict[str, Callable[[Any], object]] = {
    "job_id": str,
    "lane": {lane.value: lane for lane in Lane}.__getitem__,
    "kind": {kind.value: kind for kind in PushKind}.__getitem__,
    "about": {kind.value: kind for kind in Kind}.__getitem__,
    "state": {state.value: state for state in JobState}.__getitem__,
}
_MEANT = tuple((_FIELDS.index(name), meaning) for name, meaning in _WORDS.items())


def job(row: Row) -> PushJob:
    """A row of push_job."""
    values = list(_VALUES(row))
    for place, meaning in _MEANT:
        values[place] = meaning(values[place])
    made = PushJob.__new__(PushJob)
    for put, value in zip(_PUT, values, strict=True):
        put(made, value)
    return made


def job_row(value: PushJob) -> tuple[object, ...]:
    """In the order of write_jobs."""
    return (
        value.account,
        value.job_id,
        value.device_id,
        value.lane,
        value.kind,
        value.version,
        value.peer,
        value.about,
        value.sid,
        value.voip,
        value.silent,
        value.collapse,
        value.target_rank,
        value.created_at,
        value.not_before,
        value.deadline,
        value.state,
        value.attempts,
        value.repeat,
        value.attempted_at,
        value.outcome,
        value.reason,
        value.joined,
        value.status,
        value.done_at,
        value.queue,
    )


_TOUCHED = (
    "bound_to",
    "woken_version",
    "woken_at",
    "woken_until",
    "chased",
    "fetched_version",
    "fetched_at",
    "failures",
    "failing_since",
)
touched_row = attrgetter("account", "device_id", *_TOUCHED)  # in the order of touch_devices
_STAYS = attrgetter(*(field.name for field in fields(Device) if field.name not in _TOUCHED))


def is_touched(before: Device, after: Device) -> bool:
    """True where what else there is of the device is not only equal, but the very same: it was copied."""
    return all(map(is_, _STAYS(before), _STAYS(after)))
