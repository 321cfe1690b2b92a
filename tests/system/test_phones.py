"""What a phone shows and rings in the end, by the simulator's model of APNs and iOS: devices that are away, that ring,
that are rung into the dark (PUSH §§5, 7).
"""

import time
from typing import Any

from sync.sandbox.demo.handset import Handset
from tests.system.box import Box, eventually
from tests.system.person import Person, Phone


class Modelled(Handset):
    """A phone of Ann's that the simulator models."""

    async def goes(self, *, online: bool) -> dict[str, Any]:
        """Into the underground, or out of it; the state after that."""
        return await self._ask("POST", f"/{self._name}", {"online": online})

    async def settled(self) -> dict[str, Any]:
        """The state, once no call has to be reported any more."""

        async def look() -> dict[str, Any]:
            state = await self.state()
            assert state["waiting"] == []
            return state

        return await eventually(look)


async def home(box: Box) -> tuple[Person, Person, Phone, Modelled]:
    """Two friends; the first has a phone, nobody is online there, and the simulator knows it."""
    ann, bob = await box.friends("phone", "desk")
    phone = await box.phone(ann)
    await ann.close()
    modelled = Modelled(box.ready["apns"]["control"], ann.account)
    tokens = {"alert_token": phone.token, "voip_token": str(phone.voip)}
    await modelled.describe(app=box.ready["apns"]["app"], **tokens)
    return ann, bob, phone, modelled


def told(state: dict[str, Any]) -> list[str]:
    return [one["payload"]["x"]["k"] for one in state["shown"]]


async def test_a_phone_that_was_away_learns_of_the_newest_whatever_was_sent_meanwhile(box: Box) -> None:
    """APNs keeps one push: that of a call takes the place of the message's, and must outlive the ring."""
    ann, bob, phone, modelled = await home(box)
    await modelled.goes(online=False)
    bob.write(ann.account, "are you there?")
    await box.pushed(phone.token, kind="message")
    bob.call("propose", ann.account, "in the dark")
    await box.pushed(str(phone.voip))
    bob.call("retract", ann.account, "in the dark")
    await box.pushed(phone.token, kind="missed")
    await box.settled(ann.account)
    (kept,) = (await modelled.state())["stored"]
    assert kept["until"] > time.time() + 27 * 86_400
    alerts = box.pushes(phone.token)  # one more if the call rang for longer than a phone may leave it unfetched
    (row,) = await box.sql("SELECT max(version) AS newest FROM conversation WHERE account = $1", ann.account)
    assert kept["payload"]["x"]["v"] == row["newest"]
    back = await modelled.goes(online=True)
    assert (told(back), back["stored"], back["calls"]) == (["missed"], [], {})
    assert (back["counts"]["replaced"], back["counts"]["lost"]) == (len(alerts) - 1, 1)


async def test_a_phone_rings_once_for_each_call_and_is_never_woken_in_vain(box: Box) -> None:
    ann, bob, phone, modelled = await home(box)
    for number, call in enumerate(("first", "second", "third", "fourth")):
        bob.call("propose", ann.account, call)
        rung = (await box.pushed(str(phone.voip), many=number + 1))[-1]
        await modelled.rang(rung["payload"]["x"]["c"])
        bob.call("retract", ann.account, call)
        await box.pushed(phone.token, kind="missed", many=number + 1)
    await box.settled(ann.account)
    state = await modelled.settled()
    assert sorted(state["calls"].values()) == [1, 1, 1, 1]
    assert (state["strikes"], state["rung_twice"], state["voip_banned"]) == (0, 0, False)
    assert state["counts"]["delivered"] == state["counts"]["accepted"]


async def test_a_push_that_arrived_without_an_answer_does_not_ring_again(box: Box) -> None:
    """The connection dies with the call's push on it, which reached the phone: an alert follows, no second ring."""
    ann, bob, phone, modelled = await home(box)
    await box.fault(kind="close", push_type="voip", token=str(phone.voip))
    bob.call("propose", ann.account, "uncertain")
    (alert,) = await box.pushed(phone.token, kind="call")
    await modelled.rang(alert["payload"]["x"]["c"])
    bob.call("retract", ann.account, "uncertain")
    await box.pushed(phone.token, kind="missed")
    await box.settled(ann.account)
    state = await modelled.settled()
    assert state["calls"] == {alert["payload"]["x"]["c"]: 1}
    assert (state["strikes"], state["rung_twice"], told(state)) == (0, 0, ["missed"])
