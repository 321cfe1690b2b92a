"""Why a device did or did not get a push, told from the ledger (PUSH §5: "explain every decision").

Jobs, devices, calls and messages go in, sentences come out. What the ledger holds is told as it was; of what made no
job nothing is held but the present state, and then the sentence says "now". No sentence holds a text, a token or a
key.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sync.model.call import Call, CallState
from sync.model.conversation import Conversation, ConversationKey, IndexedMessage
from sync.model.device import Device, JobState, PushJob, PushKind, Route
from sync.model.jid import bare
from sync.model.push import Verdict
from sync.model.quiet import FOR_EVER, Quiet
from sync.rules.jobs import SUPPRESSED, fetched_since
from sync.rules.quiet import hush
from sync.rules.reasons import SENTENCES, Why
from sync.rules.times import microseconds
from sync.rules.wishes import WakePolicy, unwanted

HELD_BACK = timedelta(milliseconds=10)  # a job that is due later than that after it was made was made to wait

VERDICTS: Mapping[str, str] = {
    Verdict.ACCEPTED: "accepted by APNs",
    Verdict.DEAD_TOKEN: "refused: APNs calls the token dead or another environment's",
    Verdict.REJECTED: "refused: our request or configuration is wrong; the token stays",
    Verdict.TOO_LARGE: "refused: too large",
    Verdict.CREDENTIALS: "refused: APNs does not take our key",
    Verdict.THROTTLED: "refused: too many pushes to this device",
    Verdict.RETRY: "not taken: APNs had a bad moment",
    Verdict.NOT_SENT: "not sent: no connection, or surely not taken",
    Verdict.UNCERTAIN: "it left, and nobody knows whether it arrived",
}
# Of app servers of other makers (XEP-0357).
PUBLISHED: Mapping[str, str] = {
    Verdict.ACCEPTED: "taken by the app server",
    Verdict.DEAD_TOKEN: "refused: the app server has no such node, and is not told any more",
    Verdict.REJECTED: "refused by the app server; too many of these, and it is not told any more",
    Verdict.RETRY: "not taken: the app server is to be asked later, or cannot be reached",
    Verdict.NOT_SENT: "not sent: no connection to the XMPP server",
}
TRIED_AGAIN = "a wake that is tried again goes with the newer one"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the database holds on an account's pushes since an instant: jobs newest first and possibly cut at
    `jobs_total`, calls and one-to-one messages that came in, conversations with what their owner wants, and when the
    account wants to be left alone.
    """

    devices: Sequence[Device]
    jobs: Sequence[PushJob]
    jobs_total: int
    calls: Sequence[Call]
    messages: Sequence[IndexedMessage]
    conversations: Sequence[Conversation]
    quiet: Quiet | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """One job in words. `made`: what was decided when it happened; `became`: what became of it. `seconds`: from the
    claim, which is committed before the push leaves, to the recorded answer.
    """

    job: PushJob
    made: tuple[str, ...]
    became: tuple[str, ...]
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpushed:
    """A call or message without a job of its own. `within`: the job that speaks for it; `why`: what can be told."""

    at: datetime
    what: str
    peer: str
    within: str | None
    why: tuple[str, ...]


# ---- jobs -----------------------------------------------------------------------------------------------------------


def told(job: PushJob, device: Device | None, now: datetime) -> Pushed:
    """A job in words. `device` as it is now, None when it has left."""
    left = job.attempted_at is not None and job.done_at is not None and not by_us(job)
    seconds = (job.done_at - job.attempted_at).total_seconds() if left and job.done_at and job.attempted_at else None
    return Pushed(job=job, made=tuple(at_enqueue(job)), became=tuple(at_claim(job, device, now)), seconds=seconds)


def by_us(job: PushJob) -> bool:
    """True for a job that was ended without a push."""
    return (job.outcome or "").startswith(SUPPRESSED)


def decided_at_once(job: PushJob) -> bool:
    """True for a job that was ended by the decision that made it: it is there for the ledger only."""
    return by_us(job) and job.attempts == 0 and job.done_at == job.created_at


def at_enqueue(job: PushJob) -> list[str]:
    """What was decided when it happened."""
    if decided_at_once(job):
        return [f"no push: {why_of(job)}"]
    words = [named(job)]
    if job.kind is PushKind.TEST:
        return [f"{words[0]} as a test, by an operator"]
    if job.kind is PushKind.CALL and not job.voip:
        lacks = "the client did not ask for calls" if abroad(job) else "there was no VoIP token"
        words = [f"{named(job)} in place of VoIP: " + ("a stranger called" if job.silent else lacks)]
    if job.published:
        words.append("its server published it (XEP-0357)")
    if job.silent and not job.voip:
        words.append("without sound: " + ("nothing to read, says its server" if job.published else "from a stranger"))
    if job.repeat:
        words.append(f"repetition {job.repeat}: the wake before it stayed unfetched")
    elif job.kind is PushKind.CALL_FALLBACK:
        words.append("in case the VoIP push is not fetched")
    elif job.reason == Why.QUIET:
        words.append("kept for the end of the account's quiet hours")
    elif not job.attempts and job.not_before - job.created_at > HELD_BACK:
        patient = job.published and job.silent
        words.append("held back: " + ("it can wait" if patient else "the device had been woken a moment before"))
    if job.joined:
        words.append(f"{job.joined} later event{'' if job.joined == 1 else 's'} joined it (coalesced)")
    return words


def abroad(job: PushJob) -> bool:
    """True for a push by an app server of somebody else."""
    return job.queue.startswith(f"{Route.PUBLISH}:")


def named(job: PushJob) -> str:
    """What kind of push it is."""
    if abroad(job):
        return "a publish that rings" if job.voip else "a publish"
    return "a VoIP push" if job.voip else "an alert"


def at_claim(job: PushJob, device: Device | None, now: datetime) -> list[str]:
    """What became of it."""
    if decided_at_once(job):
        return []
    if job.state is JobState.QUEUED:
        return [*attempts(job), "due: no worker has taken it yet" if job.not_before <= now else "waits for its time"]
    if job.state is JobState.ATTEMPTED:
        return ["it left; no answer is recorded yet"]
    if by_us(job):
        return [*attempts(job), f"not sent: {why_of(job)}"]
    outcome = job.outcome or ""
    said = PUBLISHED.get(outcome) if abroad(job) else None
    words = [(said or VERDICTS.get(outcome, outcome)) + answer(job)]
    if job.attempts > 1:
        words.append(f"at attempt {job.attempts}")
    again = job.outcome in (Verdict.RETRY, Verdict.NOT_SENT, Verdict.THROTTLED) and job.kind is not PushKind.TEST
    if again and job.deadline > now:
        words.append(TRIED_AGAIN)
    if job.outcome == Verdict.UNCERTAIN and job.voip and job.kind is PushKind.CALL:
        words.append("never sent twice" + ("" if abroad(job) else "; the alert for the call followed"))
    if job.outcome in (Verdict.ACCEPTED, Verdict.UNCERTAIN):
        words.append(fetch(job, device))
    return words


def attempts(job: PushJob) -> list[str]:
    """The attempts that failed, of a job that is not done by one."""
    if not job.attempts:
        return []
    return [f"{job.attempts} attempt{'' if job.attempts == 1 else 's'} failed{answer(job)}"]


def answer(job: PushJob) -> str:
    """The vendor's status and reason, as far as there are any."""
    told_us = " ".join(str(word) for word in (job.status, job.reason) if word not in (None, Why.QUIET))
    return f" ({told_us})" if told_us else ""


def fetch(job: PushJob, device: Device | None) -> str:
    """Whether the device has asked since the push left; only its newest query is kept."""
    if job.published:
        return "whether the device has asked, only its own server knows"
    if device is None:
        return "the device has left since"
    return "the device has asked since" if fetched_since(device, job) else "the device has not asked since"


def why_of(job: PushJob) -> str:
    """The reason of a suppressed job in words."""
    why = (job.outcome or "").removeprefix(SUPPRESSED)
    return SENTENCES.get(why, why)


# ---- what made no job -----------------------------------------------------------------------------------------------


def unpushed(evidence: Evidence, device: Device, policy: WakePolicy, now: datetime) -> list[Unpushed]:
    """The calls and messages that have no job for a device, calls first, and what can be told of them."""
    jobs = [job for job in evidence.jobs if job.device_id == device.device_id]
    conversations = {conversation.key: conversation for conversation in evidence.conversations}
    found = [
        Unpushed(
            at=call.proposed_at, what="call", peer=call.key.peer, within=None, why=tuple(why_no_ring(call, device))
        )
        for call in evidence.calls
        if bare(call.caller) == call.key.peer and not any(is_ring(job, call) for job in jobs)
    ]
    made: set[str] = set()
    for message in sorted(evidence.messages, key=lambda message: message.rank):
        key = message.conversation
        cover = next((job for job in jobs if covers(job, message.rank)), None)
        if cover is not None and cover.job_id not in made:
            made.add(cover.job_id)  # the first one is what the job was made for
            continue
        if cover is None:
            why = why_no_wake(message, device, conversations.get(key), policy, now)
        else:
            why = [f"coalesced into the push of {cover.created_at:%Y-%m-%d %H:%M:%S}"]
        within = cover.job_id if cover else None
        found.append(Unpushed(at=message.sent_at, what="message", peer=key.peer, within=within, why=tuple(why)))
    return found


def is_ring(job: PushJob, call: Call) -> bool:
    """True for the job by which a call rings, or is said not to."""
    return job.kind is PushKind.CALL and (job.peer, job.sid) == (call.key.peer, call.key.sid)


def covers(job: PushJob, rank: int) -> bool:
    """True for a wake that speaks for the message of this rank: it was made by it or before, and announces it."""
    return job.kind is PushKind.MESSAGE and microseconds(job.created_at) <= rank <= job.version


def why_no_ring(call: Call, device: Device) -> list[str]:
    """Of a call that no row of the ledger is about."""
    if call.state is CallState.CLOSED:
        return ["it was over before it could ring"]
    return out_of_reach(device, call.proposed_at) or [
        "the ledger has no row: the device was not enabled then, or the call came out of the archive"
    ]


def why_no_wake(
    message: IndexedMessage,
    device: Device,
    conversation: Conversation | None,
    policy: WakePolicy,
    now: datetime,
) -> list[str]:
    """Of a message that made no job: that is not written down (a row for each would be most of the ledger)."""
    if gone := out_of_reach(device, message.sent_at):
        return gone
    words = []
    if conversation is not None:
        filtering = device.app in policy.filtering_apps
        mention, wishes = message.mention, device.wishes
        if why := unwanted(conversation, policy, now, mention=mention, wishes=wishes, filtering=filtering):
            words.append(f"{SENTENCES[why]} (as it is now)")
        if conversation.read.rank >= message.rank:
            words.append("it is read now")
    return words or ["not recorded: most likely a session of the device was active, or it came out of the archive"]


def out_of_reach(device: Device, at: datetime) -> list[str]:
    """Why the device could not be pushed to."""
    words = []
    if device.registered_at > at:
        words.append("the device registered later, or anew")
    if not device.enabled:
        words.append("the device is not enabled (now)")
    return words


def silence(evidence: Evidence, policy: WakePolicy, now: datetime) -> str | None:
    """When the account wants to be left alone, as it is now; None = never."""
    wish = evidence.quiet
    if wish is None:
        return None
    said = []
    if wish.until is not None and wish.until > now:
        said.append("until it is ended" if wish.until == FOR_EVER else f"until {wish.until:%Y-%m-%d %H:%M} UTC")
    if (hours := wish.hours) is not None:
        said.append(f"every day from {hours.begin:%H:%M} to {hours.end:%H:%M} in {hours.zone}")
    if not said:
        return None
    calls = "calls ring all the same" if wish.calls else "calls do not ring"
    now_so = "it is quiet now" if hush(wish, policy.zones, now) else "it is not quiet now"
    return f"{' and '.join(said)}; {calls}; {now_so}"


def asleep(evidence: Evidence, policy: WakePolicy, now: datetime) -> list[tuple[ConversationKey, str]]:
    """The conversations that would wake nobody now, rooms too, and why."""
    found = ((one.key, unwanted(one, policy, now, mention=False)) for one in evidence.conversations)
    return [(key, SENTENCES[why]) for key, why in found if why is not None]
