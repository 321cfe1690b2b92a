"""A phone as the APNs simulator models it: what iOS would have counted while the story was told.

The simulated device is described when the phone is set up; the app reports that it rings, as CallKit would know. Says
what the simulator says, and decides nothing.
"""

from typing import Any

import aiohttp

from sync.sandbox.demo.story import StepFailed


class Handset:
    """`control`: the base address of the simulator's control port; `name`: of the device there."""

    def __init__(self, control: str, name: str) -> None:
        self._base, self._name = f"{control}/devices", name

    async def describe(self, *, app: str, alert_token: str, voip_token: str) -> None:
        """The phone is online, and its app may filter what it shows."""
        about = {"id": self._name, "app": app, "alert_token": alert_token, "voip_token": voip_token, "filtering": True}
        await self._ask("POST", "", about)

    async def rang(self, call: str) -> None:
        """The app has reported this call to CallKit."""
        await self._ask("POST", f"/{self._name}/report", {"did": "rang", "call": call})

    async def state(self) -> dict[str, Any]:
        """The device as the simulator knows it."""
        return await self._ask("GET", f"/{self._name}", None)

    async def _ask(self, method: str, path: str, body: Any) -> dict[str, Any]:
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self._base + path, json=body) as answer,
        ):
            said: dict[str, Any] = await answer.json()
        if answer.status != 200:
            raise StepFailed(f"The APNs simulator answered {answer.status}: {said.get('error')}.")
        return said
