"""What happens because time passes happens for everybody, though it cannot be stored for one."""

from typing import Any, TypeVar

from sync.model.books import Keys, Rule
from sync.model.call import CallState
from sync.model.errors import Uncommittable
from sync.rules.fold import Policies
from sync.service.timers import Timers
from tests.contract.fakes_observer import RecordingObserver
from tests.contract.fakes_store import MemoryStore, SetClock
from tests.contract.samples import ANN, BOB, EVE, NOW, account, after, call, conversation, owned, storing

T = TypeVar("T")


class Refusing(MemoryStore):
    """Takes nothing of eve's."""

    async def transact(self, keys: Keys, rule: Rule[T]) -> T:
        if EVE in keys.accounts and keys.calls:
            raise Uncommittable("call_times")
        return await super().transact(keys, rule)


async def test_a_call_that_cannot_be_ended_keeps_no_other_ringing() -> None:
    clock = SetClock(NOW)
    store, pusher, told = Refusing(clock), Any, list[object]()
    names = (ANN, EVE)
    rows = storing(
        accounts=[account(name) for name in names],
        conversations=[conversation(20, owner=name, ringing=1) for name in names],
        calls=[call(owner=name) for name in names],
    )
    store.apply(owned(*names), rows)
    pusher = type("Pusher", (), {"committed": told.append})()
    timers = Timers(store=store, pusher=pusher, clock=clock, observer=RecordingObserver(), policies=Policies())
    clock.instant = after(61)
    await timers.expire_calls()
    states = {key.account: one.state for key, one in store.tables.calls.items()}
    assert states == {ANN: CallState.MISSED, EVE: CallState.RINGING}
    assert BOB in {key.peer for key in store.tables.calls}
    await timers.expire_calls()
