"""Push jobs as the queue names them, and the rows that claiming or settling them needs."""

from collections.abc import Sequence
from datetime import datetime

from sync.model.books import Keys
from sync.model.device import JobState, PushJob, conversation_of
from sync.ports import DueJob


def due_of(job: PushJob) -> DueJob:
    """The job as the queue names it."""
    return DueJob(
        account=job.account,
        job_id=job.job_id,
        lane=job.lane,
        peer=job.peer,
        about=job.about,
        sid=job.sid,
        queue=job.queue,
    )


def is_due(job: PushJob, now: datetime) -> bool:
    """True for a job to claim now."""
    return job.state is JobState.QUEUED and job.not_before <= now


def keys_of(due: Sequence[DueJob]) -> Keys:
    """The rows that claiming or settling these jobs needs."""
    return Keys(
        accounts=frozenset(job.account for job in due),
        conversations=frozenset(key for job in due if (key := conversation_of(job.account, job.peer, job.about))),
        calls=frozenset((job.account, job.sid) for job in due if job.sid is not None),
        devices=True,
    )
