"""Pushes in words: every reason that the rules give has a sentence, and no event is told wrong."""

import re
from dataclasses import replace
from datetime import time
from pathlib import Path
from typing import Any

import pytest

import sync.rules
from sync.adapters.zones import zone
from sync.model.call import Call, CallState
from sync.model.device import Device, JobState, Lane, PushJob, PushKind
from sync.model.push import Verdict
from sync.model.quiet import Hours, Quiet
from sync.model.wishes import Wishes
from sync.rules.explain import VERDICTS, Evidence, asleep, silence, told, unpushed
from sync.rules.jobs import SUPPRESSED
from sync.rules.reasons import SENTENCES, Why
from sync.rules.times import FOR_EVER, microseconds
from sync.rules.wishes import WakePolicy
from tests.contract.samples import BOB, CAT, NOW, after, call, call_job, conversation, device, job, message

POLICY = WakePolicy()
LATER = after(100)
VERSION = microseconds(NOW)


def evidence(**rows: Any) -> Evidence:
    empty: dict[str, Any] = dict.fromkeys(("devices", "jobs", "calls", "messages", "conversations"), ())
    return Evidence(**(empty | {"jobs_total": 0} | rows))


def said(one: PushJob, phone: Device | None = None) -> tuple[str, str]:
    found = told(one, phone, LATER)
    return "; ".join(found.made), "; ".join(found.became)


def done(outcome: str, seconds: float = 0.031, **fields: Any) -> dict[str, Any]:
    base = {"state": JobState.DONE, "outcome": outcome, "attempts": 1, "attempted_at": NOW, "done_at": after(seconds)}
    return base | fields


def test_every_reason_of_the_rules_has_a_sentence() -> None:
    """A rule returns a `Why`, which mypy sees to, or ends a job with one: with no other word, and each is told."""
    assert set(SENTENCES) == set(Why)
    folder = Path(sync.rules.__file__).parent
    sources = {path.stem: path.read_text() for path in folder.glob("*.py")}
    ending = {name for name, source in sources.items() if re.search(r"\bended\(", source)}
    assert {"claims", "devices", "fold", "ring", "wakes"} <= ending
    said = {word for name in ending for word in re.findall(r"\bended\([^()]*?, \"([a-z-]+)\"", sources[name])}
    assert said <= set(Why)
    given = {name for name, source in sources.items() if "Why." in source and name != "reasons"}
    assert {one for one in Why if not any(f"Why.{one.name}" in sources[name] for name in given)} <= said
    assert set(VERDICTS) == set(Verdict)


@pytest.mark.parametrize(
    ("fields", "made", "became"),
    [
        ({}, "an alert", "due: no worker has taken it yet"),
        ({"not_before": after(200)}, "an alert; held back", "waits for its time"),
        ({"joined": 3}, "3 later events joined it (coalesced)", "due"),
        ({"silent": True}, "an alert; without sound: from a stranger", "due"),
        ({"version": 0}, "an alert; its server published it (XEP-0357)", "due"),
        (
            {"version": 0, "silent": True, "not_before": after(200)},
            "without sound: nothing to read, says its server; held back: it can wait",
            "waits",
        ),
        (
            {"version": 0, "not_before": after(200)},
            "its server published it (XEP-0357); held back: the device had been woken",
            "waits",
        ),
        (done("accepted", version=0), "", "accepted by APNs; whether the device has asked, only its own server knows"),
        ({"repeat": 2}, "repetition 2: the wake before it stayed unfetched", "due"),
        (
            {"attempts": 1, "status": 503, "reason": "Shutdown", "not_before": after(200)},
            "an alert",
            "1 attempt failed (503 Shutdown); waits",
        ),
        ({"state": JobState.ATTEMPTED, "attempts": 1, "attempted_at": NOW}, "an alert", "no answer is recorded yet"),
        (done("accepted", status=200), "an alert", "accepted by APNs (200); the device has left since"),
        (
            done("dead-token", status=410, reason="Unregistered"),
            "",
            "calls the token dead or another environment's (410",
        ),
        (
            done("throttled", status=429),
            "",
            "refused: too many pushes to this device (429); a wake that is tried again",
        ),
        (done(f"{SUPPRESSED}read", attempts=0, attempted_at=None), "an alert", "not sent: it was read before"),
        (done(f"{SUPPRESSED}expired", attempts=2), "", "2 attempts failed; not sent: its time was over"),
    ],
)
def test_a_wake_in_words(fields: dict[str, Any], made: str, became: str) -> None:
    then, afterwards = said(job(**fields))
    assert made in then
    assert became in afterwards


def test_calls_in_words() -> None:
    stood = done("accepted", status=200)
    fetched, asleep_ = device(fetched_at=after(2)), device(fetched_at=after(-2))
    assert said(call_job(**stood), fetched) == ("a VoIP push", "accepted by APNs (200); the device has asked since")
    assert said(call_job(**stood), asleep_)[1].endswith("the device has not asked since")
    assert "there was no VoIP token" in said(call_job(voip=False))[0]
    assert "a stranger called" in said(call_job(voip=False, silent=True))[0]
    assert "never sent twice" in said(call_job(**done("uncertain", reason="worker-died")), fetched)[1]
    assert "not fetched" in said(call_job(kind=PushKind.CALL_FALLBACK, voip=False, not_before=after(8)))[0]
    quiet = call_job(voip=False, state=JobState.DONE, outcome=f"{SUPPRESSED}attentive", done_at=NOW)
    assert said(quiet) == ("no push: a session of the device was active: the user had it before the eyes", "")


def test_publishes_in_words() -> None:
    """Of app servers of other makers: Apple has no part in them."""
    abroad = {"queue": "publish:push.example.com"}
    asleep_ = device(fetched_at=after(-2))
    assert said(job(**done("accepted"), **abroad), asleep_)[0] == "a publish"
    assert said(job(**done("accepted"), **abroad), asleep_)[1].startswith("taken by the app server; ")
    assert said(job(**done("rejected", reason="forbidden"), **abroad))[1].startswith("refused by the app server; ")
    assert said(call_job(**done("uncertain", reason="no-answer"), **abroad), asleep_)[1].count("alert") == 0
    assert said(call_job(**abroad))[0] == "a publish that rings"
    assert said(call_job(voip=False, **abroad))[0] == "a publish in place of VoIP: the client did not ask for calls"
    for outcome in Verdict:
        assert "APNs" not in said(job(**done(outcome.value), **abroad))[1] or outcome is Verdict.CREDENTIALS


def test_latency_is_that_of_an_answer() -> None:
    assert told(job(**done("accepted")), None, LATER).seconds == pytest.approx(0.031)
    assert told(job(**done(f"{SUPPRESSED}read")), None, LATER).seconds is None
    assert told(job(), None, LATER).seconds is None


def test_a_message_is_told_by_the_wake_that_speaks_for_it() -> None:
    wake = job(version=VERSION + 2_000_000, joined=2)
    ranks = [VERSION, VERSION + 1_000_000, VERSION + 2_000_000, VERSION + 3_000_000]
    found = unpushed(
        evidence(jobs=[wake], messages=[message(rank) for rank in reversed(ranks)]),
        device(registered_at=after(-60)),
        POLICY,
        LATER,
    )
    # The first made the wake, two joined it, and the last one woke nobody.
    assert [one.within for one in found] == [wake.job_id, wake.job_id, None]
    assert found[-1].why == (
        "not recorded: most likely a session of the device was active, or it came out of the archive",
    )


def test_another_devices_wake_tells_nothing() -> None:
    wake = job(version=VERSION, device_id="tablet")
    (found,) = unpushed(evidence(jobs=[wake], messages=[message(VERSION)]), device(), POLICY, LATER)
    assert found.within is None


def test_what_the_state_says_of_a_message_without_a_wake() -> None:
    muted = conversation(muted_until=FOR_EVER, read=explain_pointer(VERSION))
    books = evidence(messages=[message(VERSION)], conversations=[muted])
    (found,) = unpushed(books, device(), POLICY, LATER)
    assert found.why == ("the conversation was muted (as it is now)", "it is read now")
    (later,) = unpushed(books, device(registered_at=after(1), enabled=False), POLICY, LATER)
    assert later.why == ("the device registered later, or anew", "the device is not enabled (now)")
    assert [why for _, why in asleep(books, POLICY, LATER)] == [SENTENCES["muted"]]


def explain_pointer(rank: int) -> Any:
    return replace(conversation().read, rank=rank)


@pytest.mark.parametrize(
    ("one", "phone", "words"),
    [
        (call(), device(), "the ledger has no row"),
        (call(state=CallState.CLOSED), device(), "it was over before it could ring"),
        (call(state=CallState.MISSED), device(registered_at=after(9)), "registered later"),
    ],
)
def test_a_call_without_a_row(one: Call, phone: Device, words: str) -> None:
    (found,) = unpushed(evidence(calls=[one]), phone, POLICY, LATER)
    assert words in found.why[0]
    ring = job(lane=Lane.CALLS, kind=PushKind.CALL, sid="s1")
    assert unpushed(evidence(calls=[one], jobs=[ring]), phone, POLICY, LATER) == []
    assert unpushed(evidence(calls=[replace(one, caller=f"{CAT}/me")]), phone, POLICY, LATER) == []
    assert one.key.peer == BOB


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (None, None),
        (Quiet(until=LATER), None),
        (Quiet(until=FOR_EVER, calls=True), "until it is ended; calls ring all the same; it is quiet now"),
        (
            Quiet(until=after(3600), hours=Hours(time(22), time(7), "Europe/Berlin")),
            "until 2026-01-02 04:04 UTC and every day from 22:00 to 07:00 in Europe/Berlin; calls do not ring; "
            "it is quiet now",
        ),
        (
            Quiet(hours=Hours(time(13), time(14), "UTC")),
            "every day from 13:00 to 14:00 in UTC; calls do not ring; it is not quiet now",
        ),
    ],
)
def test_when_the_account_wants_to_be_left_alone(wish: Quiet | None, words: str | None) -> None:
    assert silence(evidence(quiet=wish), WakePolicy(zones=zone), LATER) == words


def test_what_is_kept_says_so() -> None:
    kept = job(not_before=after(3600), reason=Why.QUIET)
    assert said(kept) == ("an alert; kept for the end of the account's quiet hours", "waits for its time")
    read = replace(kept, state=JobState.DONE, outcome=f"{SUPPRESSED}read", done_at=after(9))
    assert said(read)[1] == "not sent: it was read before it could be sent"


def test_what_the_device_asked_for_is_told_of_a_message_without_a_wake() -> None:
    books = evidence(messages=[message(VERSION)], conversations=[conversation()])
    (found,) = unpushed(books, device(wishes=Wishes(muted=frozenset({BOB}))), POLICY, LATER)
    assert found.why == (f"{SENTENCES[Why.DEVICE_MUTED]} (as it is now)",)
