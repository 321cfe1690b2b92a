"""The last push of an account that was removed (PUSH §5): its devices are told, so that the app signs out.

Of a removed account nothing stays, the ledger neither. So this push is no job of the queue: it leaves after the commit
that removed the account, with what that commit has read, and is tried a few times. Whoever is not reached learns it
when logging in.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from sync.model.conversation import Account
from sync.model.device import Device, JobState, Lane, PushKind, Route
from sync.rules.claims import Claim
from sync.rules.jobs import new_job

LIFE = timedelta(days=7)
TRIES = 3


def farewell(account: Account, devices: Iterable[Device], now: datetime) -> list[Claim]:
    """What to send to the devices of a removed account."""
    return [bidding(account, device, now) for device in devices if told(device)]


def told(device: Device) -> bool:
    """An app server's nodes are its own, and its users' server tells it of the end by falling silent."""
    return device.enabled and device.route is Route.APNS


def bidding(account: Account, device: Device, now: datetime) -> Claim:
    """The push to one of them."""
    job = new_job(device, PushKind.REMOVED, account.version, now, lane=Lane.MESSAGES)
    job = replace(job, collapse="acct", deadline=now + LIFE, state=JobState.ATTEMPTED, attempts=1, attempted_at=now)
    return Claim(job=job, device=device, account=account)
