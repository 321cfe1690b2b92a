"""The last push of an account that was removed (PUSH §5, row "account removed"): an alert, collapse `acct`, 7 days."""

from datetime import timedelta

from sync.model.device import Device, JobState, Lane, PushKind, Route
from sync.rules.farewell import farewell
from tests.contract.samples import ANN, NOW, account, device


def test_phones_that_wanted_pushes_are_told_and_no_others() -> None:
    phones: list[Device] = [
        device("phone"),
        device("tablet"),
        device("never enabled", enabled=False),
        device("of an app server", route=Route.PUBLISH),
        device("of an app server, not enabled", route=Route.PUBLISH, enabled=False),
    ]
    told = farewell(account(version=7), phones, NOW)
    assert [claim.device for claim in told] == phones[:2]


def test_what_they_are_told_is_under_way_and_no_job_of_the_queue() -> None:
    (claim,) = farewell(account(version=7), [device()], NOW)
    job = claim.job
    assert (job.account, job.device_id, job.version, job.voip) == (ANN, "phone", 7, False)
    assert (job.kind, job.lane, job.collapse) == (PushKind.REMOVED, Lane.MESSAGES, "acct")
    assert (job.state, job.attempts, job.attempted_at) == (JobState.ATTEMPTED, 1, NOW)
    assert (job.created_at, job.not_before, job.deadline) == (NOW, NOW, NOW + timedelta(days=7))
    assert claim.account == account(version=7)
