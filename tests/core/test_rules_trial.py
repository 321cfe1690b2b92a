"""Test pushes: what is written down, that nobody sends one twice, and what an answer means to an operator."""

from dataclasses import replace
from typing import Any

import pytest

from sync.model.books import Books
from sync.model.device import JobState, PushKind, Route
from sync.model.errors import ItemNotFound
from sync.model.push import Environment, PushOutcome, Verdict
from sync.rules.fold import Policies
from sync.rules.outcomes import settle
from sync.rules.payloads import Names, Wording, request
from sync.rules.trial import Twin, begin, diagnosis, finish
from tests.contract.samples import ANN, NOW, account, after, device, job_id, token

PHONE = device(voip_token=token("voip"))
NAMES = Names(account="tag", call=b"0123456789abcdef")


def books(**found: Any) -> Books:
    rows: dict[str, Any] = {"accounts": {ANN: account()}, "devices": {ANN: [PHONE]}} | found
    return Books(now=NOW, **rows)


@pytest.mark.parametrize("voip", [False, True])
def test_it_is_written_down_as_left_and_never_queued(voip: bool) -> None:
    ruling = begin(ANN, "phone", job_id("t"), books(), voip=voip)
    (job,) = ruling.writes.jobs
    assert (job.state, job.kind, job.voip, job.attempted_at, job.version) == (
        JobState.ATTEMPTED,
        PushKind.TEST,
        voip,
        NOW,
        1000,
    )
    assert ruling.writes.accounts[0].wakes_open  # or no fetch is recorded
    assert ruling.writes.devices == []


@pytest.mark.parametrize("verdict", list(Verdict))
@pytest.mark.parametrize("voip", [False, True])
def test_nobody_sends_it_again_and_no_token_goes(verdict: Verdict, voip: bool) -> None:
    (job,) = begin(ANN, "phone", job_id("t"), books(), voip=voip).writes.jobs
    open_ = books(jobs={ANN: [job]})
    outcome = PushOutcome(verdict=verdict, status=400, reason="Why")
    (done,) = finish(job.job_id, ANN, outcome, open_).writes.jobs
    assert (done.state, done.outcome, done.status, done.reason, done.done_at) == (
        JobState.DONE,
        verdict.value,
        400,
        "Why",
        NOW,
    )
    assert finish(job.job_id, ANN, outcome, open_).writes.deleted_devices == []
    # The command was killed: a worker finds the row later, and only closes it.
    if verdict is Verdict.UNCERTAIN:
        writes = settle(job.job_id, ANN, outcome, replace(open_, now=after(31)), Policies()).writes
        assert [one.state for one in writes.jobs] == [JobState.DONE]
    assert finish(job.job_id, ANN, outcome, books(jobs={ANN: [done]})).writes.jobs == []


def test_what_it_says() -> None:
    claims = [begin(ANN, "phone", job_id("t"), books(), voip=voip).value for voip in (False, True)]
    alert = request(claims[0], "a" * 64, Names(account="tag"), Wording())
    voip = request(claims[1], "f" * 64, NAMES, Wording())
    assert alert.payload["x"] == {"a": "tag", "k": "test", "v": 1000, "n": job_id("t")}
    assert (alert.collapse_id, alert.expiration) == ("test:tag", int(after(60).timestamp()))
    extra = voip.payload["x"]
    assert isinstance(extra, dict)
    assert (extra["k"], extra["n"], extra["m"], extra["exp"]) == (
        "call",
        job_id("t"),
        "audio",
        int(after(20).timestamp()),
    )
    assert (voip.expiration, voip.collapse_id) == (0, None)


@pytest.mark.parametrize(("devices", "voip"), [([], False), ([device()], True), ([device("tablet")], False)])
def test_whom_it_cannot_go_to(devices: list[Any], voip: bool) -> None:
    with pytest.raises(ItemNotFound):
        begin(ANN, "phone", job_id("t"), books(devices={ANN: devices}), voip=voip)


BAD = {"verdict": Verdict.DEAD_TOKEN, "status": 400, "reason": "BadDeviceToken"}


@pytest.mark.parametrize(
    ("outcome", "twin", "words"),
    [
        (BAD, None, "Most likely an environment mix-up: APNs knows no such token in sandbox"),
        (
            BAD,
            Twin(name="live", accepted=True),
            "Environment mix-up: this is a token of production, APNs took it there",
        ),
        (BAD, Twin(name="live", accepted=False), "neither in sandbox nor in production"),
        (
            {"verdict": Verdict.CREDENTIALS, "status": 403, "reason": "BadEnvironmentKeyIdInToken"},
            None,
            "Environment mix-up",
        ),
        ({"verdict": Verdict.CREDENTIALS, "status": 403, "reason": "InvalidProviderToken"}, None, "team_id, key_id"),
        (BAD | {"reason": "DeviceTokenNotForTopic"}, None, "bundle_id of app chat does not fit"),
        ({"verdict": Verdict.DEAD_TOKEN, "status": 410, "reason": "Unregistered"}, None, "was removed from the device"),
        ({"verdict": Verdict.NOT_SENT}, None, "cannot be reached"),
        ({"verdict": Verdict.UNCERTAIN}, None, "no answer came"),
        ({"verdict": Verdict.REJECTED, "reason": "sealed"}, None, "a key is missing in [secrets]"),
        ({"verdict": Verdict.REJECTED, "reason": "app-not-configured"}, None, "not in [[apns.apps]] any more"),
    ],
)
def test_what_an_answer_means(outcome: dict[str, Any], twin: Twin | None, words: str) -> None:
    assert words in (diagnosis(PushOutcome(**outcome), device(environment=Environment.SANDBOX), twin, voip=False) or "")


def test_an_app_server_of_somebody_else_is_not_tested() -> None:
    abroad = device(route=Route.PUBLISH, app="push.example.com")
    words = diagnosis(PushOutcome(verdict=Verdict.REJECTED, reason="not-ours"), abroad, None, voip=False)
    assert "App server push.example.com" in (words or "")


def test_what_needs_no_words() -> None:
    assert diagnosis(PushOutcome(verdict=Verdict.ACCEPTED, status=200), PHONE, None, voip=False) is None
