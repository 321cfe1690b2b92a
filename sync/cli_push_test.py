"""`convsync push-test`: a push to a phone, now, and everything that is known about it afterwards.

Decides wording and exit status; the push goes through the service's own adapter and configuration (`sync.app.trial`)
and into the ledger. A VoIP push rings the phone, so it has to be said twice.
"""

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sync import cli_accounts, cli_sheet, console

if TYPE_CHECKING:
    from sync.app.trial import Report
    from sync.model.device import Device


@click.command("push-test")
@click.argument("account")
@console.configured
@click.option("--device", "device_id", help="Only this device (its id, as convsync show prints it).")
@click.option("--kind", type=click.Choice(["alert", "voip"]), default="alert", show_default=True)
@click.option("--ring-the-phone", "ring", is_flag=True, help="Needed with --kind voip: the phone rings, at any hour.")
@click.option(
    "--wait",
    "seconds",
    type=click.FloatRange(0, 600),
    default=30,
    show_default=True,
    help="Seconds to wait for the device to fetch.",
)
@click.option("--json", "machine", is_flag=True, help="For machines: a JSON list, an object for each device.")
def push_test(
    account: str, path: Path, *, device_id: str | None, kind: str, ring: bool, seconds: float, machine: bool
) -> None:
    """Send a test push to the devices of an account, and tell what became of it."""
    jid, voip = cli_accounts.account_of(account), kind == "voip"
    if voip and not ring:
        console.fail("A VoIP push rings the phone: say --ring-the-phone as well.", 2)
    if ring and not voip:
        console.fail("--ring-the-phone goes with --kind voip: an alert does not ring.", 2)

    def choose(devices: "list[Device]") -> "list[Device]":
        return chosen(jid, devices, device_id, voip=voip)

    reports = run(path, jid, choose, voip=voip, seconds=seconds)
    if machine:
        click.echo(json.dumps([as_json(one) for one in reports], indent=1, ensure_ascii=False))
    else:
        click.echo("\n".join(line for one in reports for line in lines(one, seconds)))
    sys.exit(0 if all(one.accepted for one in reports) else 1)


def chosen(jid: str, devices: "list[Device]", device_id: str | None, *, voip: bool) -> "list[Device]":
    """The devices to push to. A sentence and the end where there are none, or where it is not clear which."""
    if not devices:
        console.fail(f"{jid} has no device: nobody has registered one (docs/push.md).")
    names = ", ".join(cli_sheet.printable(device.device_id) for device in devices)
    found = [device for device in devices if device_id in (None, device.device_id)]
    if not found:
        console.fail(f"{jid} has no device {cli_sheet.printable(device_id or '')}; there are: {names}.")
    if voip and len(found) > 1:
        console.fail(f"{jid} has several devices: say --device, which one is to ring: {names}.", 2)
    if voip and found[0].voip_token is None:
        console.fail(
            f"{cli_sheet.printable(found[0].device_id)} has registered no VoIP token: calls reach it as alerts."
        )
    return found


def run(
    path: Path, jid: str, choose: "Callable[[list[Device]], list[Device]]", *, voip: bool, seconds: float
) -> "list[Report]":
    """The test; what is wrong outside is a sentence and the end."""
    config = console.load(path)
    if config.apns is None:
        console.fail("Nobody is pushed to: there is no [apns] in the configuration.", 2)
    from sync import logs  # noqa: PLC0415
    from sync.adapters import checks  # noqa: PLC0415
    from sync.app.trial import push_test as test  # noqa: PLC0415
    from sync.model.errors import ItemNotFound, StoreUnavailable  # noqa: PLC0415
    from sync.startup import CannotStart  # noqa: PLC0415

    logs.configure("error", "console")  # what became of the push is said by the report
    try:
        return asyncio.run(test(config, jid, choose, voip=voip, wait_seconds=seconds))
    except CannotStart as reason:
        console.fail(str(reason))
    except ItemNotFound as gone:
        console.fail(f"The device is gone: {gone}")
    except StoreUnavailable as error:
        console.fail(f"The database cannot be used: {checks.why(console.cause(error))} (postgres.dsn).")
    except KeyboardInterrupt:
        sys.exit(130)  # as a shell reports SIGINT


def as_json(one: "Report") -> dict[str, object]:
    """A report as values for `json`."""
    device, outcome = one.device, one.outcome
    return {
        "device": device.device_id,
        "app": device.app,
        "environment": device.environment,
        "enabled": device.enabled,
        "kind": "voip" if one.voip else "alert",
        "job": one.job_id,
        "accepted": one.accepted,
        "outcome": outcome.verdict,
        "status": outcome.status,
        "reason": outcome.reason,
        "seconds": round(one.seconds, 6),
        "meaning": one.meaning,
        "fetched_seconds": one.fetched_seconds,
    }


def lines(one: "Report", waited: float) -> Iterator[str]:
    """A report for a terminal."""
    device, outcome = one.device, one.outcome
    kind = "VoIP push" if one.voip else "alert"
    answer = " ".join(str(word) for word in (outcome.status, outcome.reason) if word is not None) or outcome.verdict
    took = f"{one.seconds * 1000:.0f} ms"
    yield cli_sheet.printable(f"{device.device_id}: {device.app}, {device.environment}, {kind} {one.job_id}")
    yield f"  {'accepted' if one.accepted else 'not accepted'}: {answer}, after {took}"
    if one.meaning:
        yield f"  {one.meaning}"
    if not device.enabled:
        yield "  The device is not enabled (XEP-0357): besides tests, nothing is pushed to it."
    if not one.accepted:
        return
    if one.fetched_seconds is not None:
        yield f"  fetched: the device asked {one.fetched_seconds:.1f} s after the push left"
    elif device.bound_to is None:
        yield "  fetched: cannot be told, the device is bound to no session"
    else:
        yield f"  not fetched within {waited:g} s: the phone is off or offline, or its app does not ask when woken"
