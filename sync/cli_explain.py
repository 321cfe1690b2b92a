"""`convsync explain`: why the devices of an account did or did not get a push.

Decides wording and exit status; what is told of each job is decided by `sync.rules.explain`. It reads the ledger and
changes nothing.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sync import cli_accounts, cli_sheet, console

if TYPE_CHECKING:
    from sync.model.device import Device, PushJob
    from sync.rules.explain import Evidence, Pushed, Unpushed
    from sync.rules.wishes import WakePolicy

UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
_AGE = re.compile(r"([0-9]{1,7})(s|min|h|d)")
UNTOLD = (
    "Not in the ledger: messages and updates that woke nobody (a session was active, muted, not shown on the phone), "
    "events of blocked senders, and messages of rooms one by one; of those only the state as it is now can be told."
)


@click.command()
@click.argument("account")
@console.configured
@click.option("--device", "device_id", help="Only this device (its id, as convsync show prints it).")
@click.option("--since", default="24h", show_default=True, help="An age (90s, 30min, 2h, 7d) or an instant (ISO 8601).")
@click.option("--json", "machine", is_flag=True, help="For machines: one JSON object.")
def explain(account: str, path: Path, *, device_id: str | None, since: str, machine: bool) -> None:
    """Tell why the devices of an account did or did not get a push. Never texts, tokens or keys."""
    jid, now = cli_accounts.account_of(account), datetime.now(UTC)
    begin, config = instant(since, now), console.load(path)
    from sync.app.settings import policies  # noqa: PLC0415

    evidence = cli_accounts.with_dossier(config, jid, lambda dossier: dossier.evidence(jid, device_id, begin))
    gone = {job.device_id for job in evidence.jobs} - {device.device_id for device in evidence.devices}
    if device_id is not None and not evidence.devices and not gone:
        console.fail(f"{jid} has no device {cli_sheet.printable(device_id)}, and nothing was pushed to it.")
    sight = Sight(jid, begin, now, evidence, policies(config).wakes)
    if machine:
        click.echo(json.dumps(sight.as_json(), indent=1, ensure_ascii=False, default=cli_sheet.plain))
    else:
        click.echo("\n".join(sight.lines()))


def instant(text: str, now: datetime) -> datetime:
    """An age before `now`, or an instant (without a zone: UTC). A sentence and the end for anything else."""
    if age := _AGE.fullmatch(text.strip()):
        return now - min(timedelta(seconds=int(age[1]) * UNITS[age[2]]), now - cli_sheet.EPOCH)
    try:
        found = datetime.fromisoformat(text.strip())
        return max(found.replace(tzinfo=found.tzinfo or UTC).astimezone(UTC), cli_sheet.EPOCH)
    except (ValueError, OverflowError):
        console.fail(f"--since: {cli_sheet.printable(text)!r} is no age (90s, 30min, 2h, 7d) and no instant.", 2)


class Sight:
    """What is told of an account's pushes."""

    def __init__(self, jid: str, since: datetime, now: datetime, evidence: "Evidence", policy: "WakePolicy") -> None:
        self._jid, self._since, self._now = jid, since, now
        self._evidence, self._policy = evidence, policy

    def as_json(self) -> dict[str, object]:
        """Everything of it, as values for `json`."""
        from sync.rules.explain import asleep, silence  # noqa: PLC0415

        return {
            "account": self._jid,
            "since": self._since,
            "pushes": {"total": self._evidence.jobs_total, "shown": len(self._evidence.jobs)},
            "devices": [
                {
                    **device_as_json(device, name),
                    "pushes": [pushed_as_json(one) for one in self._pushed(name, device)],
                    "without_push": [unpushed_as_json(one) for one in self._unpushed(device)],
                }
                for name, device in self._devices()
            ],
            "quiet": silence(self._evidence, self._policy, self._now),
            "quiet_conversations": [
                {"peer": key.peer, "kind": key.kind, "why": why}
                for key, why in asleep(self._evidence, self._policy, self._now)
            ],
            "untold": UNTOLD,
        }

    def lines(self) -> Iterator[str]:
        """For a terminal."""
        from sync.rules.explain import asleep, silence  # noqa: PLC0415

        yield f"{cli_sheet.printable(self._jid)}: pushes since {cli_sheet.at(self._since)} (UTC)"
        if still := silence(self._evidence, self._policy, self._now):
            yield f"  The account wants to be left alone {still}."
        devices = self._devices()
        if not devices:
            yield "  No device is registered, and nothing was pushed: there is nobody to push to."
        for name, device in devices:
            yield from ("", cli_sheet.printable(headline(name, device)))
            told = self._pushed(name, device)
            calls, others = [one for one in told if one.job.lane == 1], [one for one in told if one.job.lane != 1]
            yield from block("calls", [row for one in calls for row in rows(one)])
            yield from block("messages and updates", [row for one in others for row in rows(one)])
            yield from block("without a push of their own", grouped(self._unpushed(device)))
            if not told:
                yield "  nothing was pushed"
        if quiet := asleep(self._evidence, self._policy, self._now):
            yield from ("", "Conversations of that time that wake nobody now, calls and mentions aside:")
            yield from (cli_sheet.printable(f"  {key.peer} ({key.kind}): {why}") for key, why in quiet)
        if (more := self._evidence.jobs_total - len(self._evidence.jobs)) > 0:
            yield from ("", f"… and {more} older pushes (take a later --since, or one --device)")
        yield from ("", UNTOLD)

    def _devices(self) -> "list[tuple[str, Device | None]]":
        """Those that are registered, then those that have left since and have jobs."""
        known: list[tuple[str, Device | None]] = [(device.device_id, device) for device in self._evidence.devices]
        names = {name for name, _ in known}
        return [*known, *((name, None) for name in sorted({job.device_id for job in self._evidence.jobs} - names))]

    def _pushed(self, name: str, device: "Device | None") -> "list[Pushed]":
        """Calls first, the newest of each first."""
        from sync.rules.explain import told  # noqa: PLC0415

        mine = sorted((job for job in self._evidence.jobs if job.device_id == name), key=lambda job: job.lane != 1)
        return [told(job, device, self._now) for job in mine]

    def _unpushed(self, device: "Device | None") -> "list[Unpushed]":
        from sync.rules.explain import unpushed  # noqa: PLC0415

        return [] if device is None else unpushed(self._evidence, device, self._policy, self._now)


# ---- for machines ---------------------------------------------------------------------------------------------------


def device_as_json(device: "Device | None", name: str) -> dict[str, object]:
    """A device without its tokens; of one that has left only its id."""
    if device is None:
        return {"device": name, "registered": False}
    return {
        "device": name,
        "registered": True,
        "name": device.name,
        "app": device.app,
        "environment": device.environment,
        "enabled": device.enabled,
        "voip": device.voip_token is not None,
        "bound_to": device.bound_to,
        "registered_at": device.registered_at,
        "woken_at": device.woken_at,
        "fetched_at": device.fetched_at,
    }


def pushed_as_json(one: "Pushed") -> dict[str, object]:
    """A job with its sentences."""
    job = one.job
    plain = ("kind", "version", "peer", "about", "voip", "silent", "joined", "repeat", "state", "attempts")
    instants = ("created_at", "not_before", "deadline", "attempted_at", "done_at", "outcome", "status", "reason")
    return {
        "job": job.job_id,
        "lane": job.lane.name.lower(),
        "call": job.sid,
        **{name: getattr(job, name) for name in (*plain, *instants)},
        "seconds": one.seconds,
        "made": one.made,
        "became": one.became,
    }


def unpushed_as_json(one: "Unpushed") -> dict[str, object]:
    """A call or message that made no job."""
    return {"at": one.at, "what": one.what, "peer": one.peer, "within": one.within, "why": one.why}


# ---- for a terminal -------------------------------------------------------------------------------------------------


def headline(name: str, device: "Device | None") -> str:
    """What a device is, as it is now."""
    if device is None:
        return f"{name}: not registered any more"
    state = "enabled" if device.enabled else "not enabled: nothing is pushed to it"
    voip = "VoIP token" if device.voip_token is not None else "no VoIP token"
    bound = f"bound to {device.bound_to}" if device.bound_to is not None else "bound to no session"
    times = f"last wake {cli_sheet.at(device.woken_at)}, last asked {cli_sheet.at(device.fetched_at)}"
    called = f" ({device.name})" if device.name else ""
    return f"{name}{called}: {device.app}, {device.environment}, {state}, {voip}, {bound}, {times}"


def rows(one: "Pushed") -> Iterator[str]:
    """A job in two lines or three: what and when, what was decided, what became of it."""
    job = one.job
    yield f"{cli_sheet.at(job.created_at)}  {subject(job)}"
    if one.made:
        yield f"    then: {'; '.join(one.made)}"
    if one.became:
        took = "" if one.seconds is None else f", after {one.seconds * 1000:.0f} ms"
        when = "" if job.attempted_at is None else f" (left {cli_sheet.at(job.attempted_at)}{took})"
        yield f"    {'; '.join(one.became)}{when}"


def subject(job: "PushJob") -> str:
    """Kind, lane and what it is about."""
    about = f" of {job.peer}" if job.peer else " of several conversations" if job.joined else ""
    return f"{job.kind}{about} [{job.lane.name.lower()}]"


def grouped(found: "Sequence[Unpushed]") -> list[str]:
    """Calls one by one, messages with the same explanation together."""
    calls = [f"{cli_sheet.at(one.at)}  call of {one.peer}: {'; '.join(one.why)}" for one in found if one.what == "call"]
    counts = Counter((one.peer, one.why) for one in found if one.what != "call")
    return calls + [
        f"{count} message{'' if count == 1 else 's'} of {peer}: {'; '.join(why)}"
        for (peer, why), count in counts.items()
    ]


def block(title: str, found: Sequence[str]) -> Iterator[str]:
    """Lines under a title, where there are any."""
    if found:
        yield f"  {title}"
        yield from (f"    {cli_sheet.printable(line)}" for line in found)
