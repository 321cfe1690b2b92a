"""Random histories of a simulated device, against references that answer each question from the whole history."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sync.sandbox.apns.arrival import Arrival
from sync.sandbox.apns.device import Change, Description
from sync.sandbox.apns.fleet import Fleet
from sync.sandbox.apns.reports import Deed, Report
from sync.sandbox.apns.ringer import CallState
from tests.core.test_apns_devices import APP, NOW, VOIP, device, push, shown, voip

DAYS_30 = 30 * 86_400


class Reference:
    """The same by a full history: nothing is kept but what happened, and each question is answered from it."""

    def __init__(self) -> None:
        self.happened: list[tuple[float, Any]] = []

    def screen(self, now: float) -> list[str]:
        seen: list[Arrival] = []
        online, stored = True, list[tuple[float, Arrival]]()
        for at, what in self.happened:
            if isinstance(what, bool):
                online = what
                # Only the newest that was ever stored counts: those before it were replaced when it came.
                if online and stored:
                    came, newest = stored[-1]
                    until = DAYS_30 + came if newest.expiration is None else min(newest.expiration, DAYS_30 + came)
                    seen += [newest] if at < until else []
                    stored = []
            elif online:
                seen.append(what)
            elif what.expiration != 0:
                stored.append((at, what))
        last = {one.identifier: index for index, one in enumerate(seen)}
        return [one.apns_id for index, one in enumerate(seen) if last[one.identifier] == index]


steps = st.lists(
    st.tuples(
        st.sampled_from([0.0, 1.0, 60.0, 86_400.0, float(DAYS_30)]),
        st.one_of(
            st.booleans(),
            st.tuples(st.sampled_from([None, 0, 30, 60, 86_400, 3 * DAYS_30]), st.sampled_from([None, "w", "c"])),
        ),
    ),
    max_size=30,
)


@given(steps)
def test_random_histories_show_what_the_reference_shows(history: list[tuple[float, Any]]) -> None:
    phone, reference, now = device(), Reference(), NOW
    for number, (later, what) in enumerate(history):
        now += later
        if isinstance(what, bool):
            phone.change(Change(online=what), {}, now)
            reference.happened.append((now, what))
        else:
            lives, collapse = what
            expiration = lives if not lives else int(now) + lives
            one = push(str(number), expiration=expiration, collapse_id=collapse)
            phone.arrive(one, None, now)
            reference.happened.append((now, one))
        assert shown(phone) == reference.screen(now)
        waiting = sum(1 for _ in phone.stored)
        one_of = phone.counts
        # Every accepted push is in one place, or it is told where it was lost.
        assert (
            one_of["accepted"]
            == one_of["delivered"] + one_of["replaced"] + one_of["expired"] + one_of["lost"] + waiting
        )


calls = st.lists(
    st.tuples(
        st.sampled_from([0.0, 1.0, 4.0, 6.0]),
        st.sampled_from(["push", "ringing", "ended", "rang"]),
        st.sampled_from(["a", "b"]),
    ),
    max_size=25,
)


@given(calls)
def test_random_calls_are_strikes_exactly_when_nobody_said_that_they_ring(
    history: list[tuple[float, str, str]],
) -> None:
    fleet, now = Fleet([Description(id="phone", app=APP, voip_token=VOIP, grace=5)]), NOW
    phone = fleet.of(VOIP)
    assert phone is not None
    log: list[tuple[float, str, str]] = []
    for later, what, call in history:
        now += later
        log.append((now, what, call))
        if what == "push":
            fleet.arrive(VOIP, voip(call), now)
        elif what == "rang":
            phone.report(Report(did=Deed.RANG, call=call), now)
        else:
            fleet.tell(call, CallState(what), now)
    phone.advance(now + 5)
    strikes, withheld = list[float](), 0
    for index, (at, what, call) in enumerate(log):
        if what == "push":
            if sum(1 for due in strikes if due <= at) >= 3:
                withheld += 1
                continue
            due = strike_of(log, index, at, call)
            strikes += [] if due is None else [due]
    assert (phone.ringer.strikes, phone.counts["withheld"]) == (len(strikes), withheld)


def strike_of(log: list[tuple[float, str, str]], index: int, at: float, call: str) -> float | None:
    """When this push becomes a strike, or None: judged by all that was said of its call before and after."""
    said = [what for _, what, of in log[:index] if of == call and what in ("ringing", "ended")]
    if said:
        return at if said[-1] == "ended" else None
    if any(what == "rang" and of == call for _, what, of in log[:index]):
        return None
    after = [when for when, what, of in log[index + 1 :] if of == call and what in ("ringing", "rang")]
    return None if after and after[0] < at + 5 else at + 5
