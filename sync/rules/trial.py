"""A test push (PUSH §5, last row): one push to one device, written down before it leaves and after it was answered.

It is never queued, so no worker takes it, and it changes nothing but the ledger and whether a fetch is waited for: a
token that APNs calls dead stays, since a test is what finds out why. `diagnosis` says what an answer means to an
operator.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sync.model.books import Books, Ruling, Writes
from sync.model.call import Call, CallKey, CallState
from sync.model.device import Device, JobState, Lane, PushJob, PushKind, Route
from sync.model.errors import ItemNotFound
from sync.model.push import Environment, PushOutcome, Verdict
from sync.rules.claims import Claim

LIFE = timedelta(seconds=60)
VOIP_LIFE = timedelta(seconds=20)  # how long a phone may ring for a test


@dataclass(frozen=True, slots=True, kw_only=True)
class Twin:
    """What APNs said of the same token in the other environment, of the configured app `name`."""

    name: str
    accepted: bool


def begin(account: str, device_id: str, job_id: str, books: Books, *, voip: bool) -> Ruling[Claim]:
    """Write down that a test leaves. The value: what to send. `ItemNotFound` where the device, or the VoIP token, is
    not there.
    """
    device = next((d for d in books.devices.get(account, ()) if d.device_id == device_id), None)
    if device is None or (voip and device.voip_token is None):
        raise ItemNotFound("The device has no VoIP token." if device else "No device of this account has this id.")
    owner, now = replace(books.accounts[account], wakes_open=True), books.now
    deadline = now + (VOIP_LIFE if voip else LIFE)
    job = PushJob(
        account=account,
        job_id=job_id,
        device_id=device_id,
        lane=Lane.CALLS if voip else Lane.MESSAGES,
        kind=PushKind.TEST,
        version=owner.version,
        peer="",
        voip=voip,
        collapse=None if voip else "test",
        created_at=now,
        not_before=now,
        deadline=deadline,
        state=JobState.ATTEMPTED,
        attempts=1,
        attempted_at=now,
        queue=device.queue,
    )
    ring = made_up(job, now, deadline) if voip else None
    return Ruling(
        writes=Writes(jobs=[job], accounts=[owner]), value=Claim(job=job, device=device, account=owner, call=ring)
    )


def made_up(job: PushJob, now: datetime, until: datetime) -> Call:
    """The call that a VoIP test rings for: of nobody, and in no table."""
    return Call(
        key=CallKey(job.account, "", job.job_id),
        session_id=job.job_id,
        state=CallState.RINGING,
        version=job.version,
        proposed_at=now,
        rings_until=until,
        caller="",
        media=("audio",),
    )


def finish(job_id: str, account: str, outcome: PushOutcome, books: Books) -> Ruling[None]:
    """Write down the answer."""
    open_ = (job for job in books.jobs.get(account, ()) if job.job_id == job_id and job.state is JobState.ATTEMPTED)
    jobs = [
        replace(
            job,
            state=JobState.DONE,
            outcome=outcome.verdict.value,
            status=outcome.status,
            reason=outcome.reason,
            done_at=books.now,
        )
        for job in open_
    ]
    return Ruling(writes=Writes(jobs=jobs), value=None)


def diagnosis(outcome: PushOutcome, device: Device, twin: Twin | None, *, voip: bool) -> str | None:
    """What an operator should look at; None where there is nothing to say."""
    if device.route is Route.PUBLISH:
        return f"App server {device.app} tells it; only the running service can publish there: write it a message."
    environment, other = device.environment.value, others(device.environment).value
    if outcome.reason == "BadDeviceToken":
        return mixed_up(device, twin, environment, other)
    if outcome.reason in ("BadEnvironmentKeyIdInToken", "BadEnvironmentKeyInToken", "BadCertificateEnvironment"):
        return f"Environment mix-up: the key is restricted to {other}, app {device.app} is configured as {environment}."
    if outcome.reason in ("DeviceTokenNotForTopic", "TopicDisallowed", "BadTopic"):
        of = "PushKit's token of another app, or an alert token" if voip else "another app's"
        return f"bundle_id of app {device.app} does not fit: the token is {of}, or the key is another team's."
    if outcome.verdict is Verdict.CREDENTIALS:
        return "APNs does not take our key: look at team_id, key_id and key_file in [apns], or the certificate_file."
    if outcome.status == 410:
        return "The app was removed from the device, or the token has expired; the app has to register again."
    if outcome.verdict is Verdict.NOT_SENT:
        return "Nothing left: APNs cannot be reached, or there is no provider token; convsync check says more."
    if outcome.verdict is Verdict.UNCERTAIN:
        return "It left, and no answer came in time."
    if outcome.reason == "app-not-configured":
        return f"The device registered for app {device.app}, which is not in [[apns.apps]] any more."
    if outcome.reason == "sealed":
        return "The token cannot be opened: a key is missing in [secrets]."
    return None


def mixed_up(device: Device, twin: Twin | None, environment: str, other: str) -> str:
    """BadDeviceToken: a token of the other environment, or of none."""
    if twin is not None and twin.accepted:
        return (
            f"Environment mix-up: this is a token of {other}, APNs took it there. The phone's build registered for app "
            f"{device.app} ({environment}); it has to register for app {twin.name}."
        )
    if twin is not None:
        return f"APNs knows the token neither in {environment} nor in {other}: it is garbled, or another team's."
    return (
        f"Most likely an environment mix-up: APNs knows no such token in {environment}. A build installed from Xcode "
        f"has tokens of sandbox, one from the App Store or TestFlight tokens of production; app {device.app} is "
        f"configured as {environment}, the phone's build is probably of {other}."
    )


def others(environment: Environment) -> Environment:
    """The other one."""
    return Environment.SANDBOX if environment is Environment.PRODUCTION else Environment.PRODUCTION
