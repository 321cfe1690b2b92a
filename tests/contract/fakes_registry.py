"""The device registry's part of the store in memory."""

from collections.abc import Sequence

from sync.model.device import Device, JobState
from sync.model.registry import ListedDevice
from tests.contract.fakes_tables import Tables


class MemoryRegistry:
    """What `Store` has for lists of devices."""

    tables: Tables

    async def devices(self, account: str) -> Sequence[ListedDevice]:
        mine = [device for (owner, _), device in self.tables.devices.items() if owner == account]
        mine.sort(key=lambda device: device.device_id)
        mine.sort(key=lambda device: device.registered_at, reverse=True)
        return [self._with_ledger(device) for device in mine]

    def _with_ledger(self, device: Device) -> ListedDevice:
        where = device.account, device.device_id
        done = [
            (job.done_at, job.outcome, job.reason)
            for job in self.tables.jobs.values()
            if (job.account, job.device_id) == where and job.state is JobState.DONE
            if job.done_at is not None and job.outcome is not None and not job.outcome.startswith("suppressed:")
        ]
        done.sort(key=lambda told: told[0])
        good = [at for at, outcome, _ in done if outcome == "accepted"]
        bad = [(at, reason or outcome) for at, outcome, reason in done if outcome != "accepted"]
        return ListedDevice(
            device=device,
            succeeded_at=good[-1] if good else None,
            failed_at=bad[-1][0] if bad else None,
            reason=bad[-1][1] if bad else None,
        )
