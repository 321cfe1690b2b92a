"""How long an app server may fail before it is given up (XEP-0357 §8), and what an operator lets it be told.

The options are those of Prosody's mod_cloud_notify, under our names: `push_notification_with_sender`,
`push_notification_with_body`, `push_notification_important_body`, `push_max_errors`.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sync.model.device import Device
from sync.model.push import PushOutcome, Verdict

SEALED = "sealed"  # why nothing was sent: what is needed for it cannot be opened here


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishPolicy:
    """`important_body` stands for the text of a message where that is not told, None = nothing does. A node is given up
    after `max_errors` refusals in a row, the first of them at least `patience` ago.
    """

    with_sender: bool = False
    with_body: bool = False
    important_body: str | None = "New Message!"
    max_errors: int = 16
    patience: timedelta = timedelta(hours=72)


def counted(device: Device, outcome: PushOutcome, policy: PublishPolicy, now: datetime) -> Device | None:
    """The device after an answer; None = it is given up. A refusal counts, an acceptance forgives all of them, and what
    is only put off, or was never answered, changes nothing.
    """
    if outcome.verdict is Verdict.ACCEPTED:
        return replace(device, failures=0, failing_since=None) if device.failures else device
    if outcome.verdict is not Verdict.REJECTED or outcome.reason == SEALED:
        return device
    since = device.failing_since or now
    failures = device.failures + 1
    if failures >= policy.max_errors and now - since >= policy.patience:
        return None
    return replace(device, failures=failures, failing_since=since)
