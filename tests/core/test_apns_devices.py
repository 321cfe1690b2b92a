"""The simulated device: what is stored, shown, held back and rung."""

from collections.abc import Mapping
from typing import Any

import pytest

from sync.sandbox.apns.arrival import Arrival
from sync.sandbox.apns.device import Change, Description, Device, NotSo
from sync.sandbox.apns.fleet import COUNTS, Fleet, told_of
from sync.sandbox.apns.registry import Rate, Registry, TokenRecord, TokenState
from sync.sandbox.apns.reports import Deed, Report
from sync.sandbox.apns.ringer import CallState

APP = "org.example.chat"
ALERT, VOIP = "ab" * 32, "cd" * 32
NOW = 1_800_000_000.0
CALL, OTHER = "6f9a0c3e-0000-4000-8000-000000000001", "6f9a0c3e-0000-4000-8000-000000000002"
ONLINE, OFFLINE = Change(online=True), Change(online=False)


def device(**more: Any) -> Device:
    usual: dict[str, Any] = {"id": "phone", "app": APP, "alert_token": ALERT, "voip_token": VOIP, "filtering": True}
    return Device(Description(**{**usual, **more}))


def push(apns_id: str = "1", *, aps: Mapping[str, Any] | None = None, **more: Any) -> Arrival:
    usual: dict[str, Any] = {"topic": APP, "push_type": "alert", "expiration": 2_000_000_000, "collapse_id": None}
    shown = {"alert": "hello", "mutable-content": 1}
    return Arrival(apns_id=apns_id, payload={"aps": shown if aps is None else aps}, **{**usual, **more})


def voip(call: str | None = CALL, apns_id: str = "v", **more: Any) -> Arrival:
    usual: dict[str, Any] = {"topic": f"{APP}.voip", "push_type": "voip", "expiration": 0, "collapse_id": None}
    return Arrival(apns_id=apns_id, payload={"x": {"c": call} if call else {}}, **{**usual, **more})


def background(apns_id: str) -> Arrival:
    return push(apns_id, aps={"content-available": 1}, push_type="background")


def shown(one: Device) -> list[str]:
    return [each.push.apns_id for each in one.screen.shown]


def counts(one: Device) -> dict[str, int]:
    return {name: value for name, value in one.counts.items() if value}


# ---- stored and shown ------------------------------------------------------------------------------------------------


def test_offline_the_newest_is_stored_and_shown_when_it_comes_online() -> None:
    phone = device(online=False)
    for name in ("1", "2", "3"):
        phone.arrive(push(name, collapse_id=name), None, NOW)
    assert shown(phone) == []
    phone.change(ONLINE, {}, NOW + 60)
    assert shown(phone) == ["3"]
    assert counts(phone) == {"accepted": 3, "replaced": 2, "delivered": 1, "shown": 1}


def test_a_short_lived_push_replaces_the_stored_one_and_then_expires() -> None:
    """PUSH §5: why a call push to an offline phone is followed by a fresh wake."""
    phone = device(online=False)
    phone.arrive(push("wake", expiration=int(NOW) + 86_400), None, NOW)
    phone.arrive(push("call", expiration=int(NOW) + 30), None, NOW)
    phone.change(ONLINE, {}, NOW + 30)
    assert shown(phone) == []
    assert counts(phone) == {"accepted": 2, "replaced": 1, "expired": 1}


def test_now_or_never_is_lost_offline_and_leaves_what_is_stored() -> None:
    phone = device(online=False)
    phone.arrive(push("wake"), None, NOW)
    phone.arrive(push("now", expiration=0), None, NOW)
    phone.change(ONLINE, {}, NOW)
    assert shown(phone) == ["wake"]
    assert phone.counts["lost"] == 1


def test_nothing_is_stored_longer_than_thirty_days() -> None:
    for expiration in (None, 2_000_000_000):
        phone = device(online=False)
        phone.arrive(push(expiration=expiration), None, NOW)
        phone.change(ONLINE, {}, NOW + 30 * 86_400)
        assert (shown(phone), phone.counts["expired"]) == ([], 1)


def test_the_same_collapse_id_replaces_on_the_screen_and_comes_last() -> None:
    phone = device()
    for name, collapse in (("1", "w"), ("2", None), ("3", "w")):
        phone.arrive(push(name, collapse_id=collapse), None, NOW)
    assert shown(phone) == ["2", "3"]
    assert phone.counts["shown"] == 2


@pytest.mark.parametrize(
    ("aps", "screen", "badge"),
    [
        ({"alert": "x", "badge": 3}, 1, 3),
        ({"badge": 0}, 0, 0),
        ({"sound": "default"}, 0, None),
        ({"alert": {"loc-key": "NEW"}, "badge": True}, 1, None),
    ],
)
def test_what_a_payload_shows(aps: dict[str, Any], screen: int, badge: int | None) -> None:
    phone = device()
    phone.arrive(push(aps=aps), None, NOW)
    assert (len(shown(phone)), phone.screen.badge) == (screen, badge)


@pytest.mark.parametrize(
    ("level", "focus", "aloud"),
    [
        (None, False, True),
        ("passive", False, False),
        ("time-sensitive", False, True),
        (None, True, False),
        ("active", True, False),
        ("time-sensitive", True, True),
        ("critical", True, True),
    ],
)
def test_a_focus_keeps_the_screen_dark(level: str | None, focus: bool, aloud: bool) -> None:
    phone = device(focus=focus)
    phone.arrive(push(aps={"alert": "x", **({"interruption-level": level} if level else {})}), None, NOW)
    assert phone.screen.shown[0].aloud is aloud


# ---- what the app reports --------------------------------------------------------------------------------------------


def test_a_filtering_app_may_drop_what_it_was_asked_about() -> None:
    phone = device()
    phone.arrive(push("1"), None, NOW)
    phone.report(Report(did=Deed.DROPPED, push="1"), NOW + 30)
    assert shown(phone) == []
    assert phone.counts["dropped"] == 1


@pytest.mark.parametrize(
    ("filtering", "aps", "deed", "after", "refused"),
    [
        (False, None, Deed.DROPPED, 1, "did: "),
        (True, {"alert": "x"}, Deed.DROPPED, 1, "push: "),
        (True, None, Deed.DROPPED, 31, "push: "),
        (True, None, Deed.CHANGED, 31, "push: "),
        (False, {"alert": "x"}, Deed.CHANGED, 1, "push: "),
        (False, None, Deed.CHANGED, 1, None),
        (False, {"alert": "x"}, Deed.REMOVED, 86_400, None),
    ],
)
def test_what_ios_lets_an_app_do_with_a_notification(
    filtering: bool, aps: dict[str, Any] | None, deed: Deed, after: float, refused: str | None
) -> None:
    phone = device(filtering=filtering)
    phone.arrive(push("1", aps=aps), None, NOW)
    report = Report(did=deed, push="1", alert="Alice: hi")
    if refused is None:
        phone.report(report, NOW + after)
        assert phone.counts[deed.value] == 1
    else:
        with pytest.raises(NotSo, match=f"^{refused}"):
            phone.report(report, NOW + after)
        assert shown(phone) == ["1"]


def test_a_changed_notification_says_something_else() -> None:
    phone = device()
    phone.arrive(push("1"), None, NOW)
    phone.report(Report(did=Deed.CHANGED, push="1", alert="Alice: hi"), NOW + 1)
    (one,) = phone.screen.shown
    assert (one.alert, one.changed) == ("Alice: hi", True)


def test_what_is_not_shown_cannot_be_reported_on() -> None:
    with pytest.raises(NotSo, match=r"^push: "):
        device().report(Report(did=Deed.REMOVED, push="9"), NOW)


# ---- background ------------------------------------------------------------------------------------------------------


def test_three_background_pushes_an_hour_then_the_newest_is_held() -> None:
    phone = device()
    for number in range(5):
        phone.arrive(background(str(number)), None, NOW + number)
    assert phone.held is not None
    assert (phone.held.apns_id, phone.counts["delivered"], phone.counts["replaced"]) == ("4", 3, 1)
    phone.advance(NOW + 3599)
    assert phone.held is not None
    phone.advance(NOW + 3600)
    assert phone.held is None
    assert phone.counts["delivered"] == 4


@pytest.mark.parametrize(("told", "after"), [(CallState.ENDED, 0), (None, 5)])
def test_what_is_held_is_lost_when_the_app_is_killed(told: CallState | None, after: float) -> None:
    phone = device(background_per_hour=0)
    phone.arrive(background("1"), None, NOW)
    phone.arrive(voip(), told, NOW)
    phone.advance(NOW + after)
    assert phone.held is None
    assert phone.counts["lost"] == 1


def test_what_is_held_waits_while_the_phone_is_offline() -> None:
    phone = device(background_per_hour=1)
    phone.arrive(background("1"), None, NOW)
    phone.arrive(background("2"), None, NOW)
    phone.change(OFFLINE, {}, NOW)
    phone.advance(NOW + 7200)
    assert phone.held is not None
    phone.change(ONLINE, {}, NOW + 7200)
    phone.advance(NOW + 7200)
    assert phone.held is None
    assert phone.counts["delivered"] == 2


# ---- calls -----------------------------------------------------------------------------------------------------------


def test_a_call_that_rings_is_no_strike_however_it_became_known() -> None:
    before, in_time, by_app = device(), device(), device()
    before.arrive(voip(), CallState.RINGING, NOW)
    in_time.arrive(voip(), None, NOW)
    in_time.ringer.rings(CALL)
    by_app.arrive(voip(), None, NOW)
    by_app.report(Report(did=Deed.RANG, call=CALL), NOW + 4.9)
    for phone in (before, in_time, by_app):
        phone.advance(NOW + 60)
        assert (phone.ringer.strikes, phone.ringer.calls, phone.ringer.rung_twice) == (0, {CALL: 1}, 0)


def test_a_push_for_a_call_that_nobody_says_to_ring_is_a_strike_after_the_grace() -> None:
    phone = device(grace=2.0)
    phone.arrive(voip(), None, NOW)
    phone.advance(NOW + 1.9)
    assert (phone.ringer.strikes, phone.ringer.waiting) == (0, [CALL])
    phone.advance(NOW + 2)
    assert (phone.ringer.strikes, phone.ringer.waiting) == (1, [])


@pytest.mark.parametrize(("call", "told"), [(CALL, CallState.ENDED), (None, None)])
def test_a_push_for_a_call_that_is_over_or_for_none_is_a_strike_at_once(
    call: str | None, told: CallState | None
) -> None:
    phone = device()
    phone.arrive(voip(call), told, NOW)
    assert phone.ringer.strikes == 1


def test_after_three_strikes_no_voip_push_is_delivered_but_alerts_are() -> None:
    phone = device()
    for number in range(3):
        assert not phone.ringer.banned
        phone.arrive(voip(f"call-{number}"), CallState.ENDED, NOW)
    phone.arrive(voip(), CallState.RINGING, NOW)
    phone.arrive(push(), None, NOW)
    assert phone.ringer.banned
    assert (phone.ringer.strikes, phone.counts["withheld"], CALL in phone.ringer.calls) == (3, 1, False)
    assert shown(phone) == ["1"]


def test_the_same_call_twice_is_counted() -> None:
    phone = device()
    phone.arrive(voip(), CallState.RINGING, NOW)
    phone.arrive(voip(OTHER), CallState.RINGING, NOW)
    assert phone.ringer.rung_twice == 0
    phone.arrive(voip(), CallState.RINGING, NOW)
    assert phone.ringer.rung_twice == 1


def test_an_app_that_rings_for_a_push_and_again_for_an_alert_has_rung_twice() -> None:
    phone = device()
    phone.arrive(voip(), None, NOW)
    phone.report(Report(did=Deed.RANG, call=CALL), NOW)
    assert phone.ringer.rung_twice == 0
    phone.report(Report(did=Deed.RANG, call=CALL), NOW + 8)
    assert phone.ringer.rung_twice == 1


def test_an_offline_phone_hears_of_a_call_that_was_stored_and_is_over() -> None:
    phone = device(online=False)
    phone.arrive(voip(expiration=2_000_000_000), CallState.RINGING, NOW)
    phone.change(ONLINE, {CALL: CallState.ENDED}, NOW + 3600)
    assert phone.ringer.strikes == 1


def test_where_the_call_is_named_can_be_told() -> None:
    phone = device(call_at="call_id")
    named = Arrival(apns_id="1", topic=APP, push_type="voip", expiration=0, collapse_id=None, payload={"call_id": CALL})
    phone.arrive(named, CallState.RINGING, NOW)
    assert phone.ringer.calls == {CALL: 1}


# ---- many devices ----------------------------------------------------------------------------------------------------


def test_devices_are_found_by_token_and_replaced_by_id() -> None:
    fleet = Fleet([Description(id="given", app=APP, alert_token="11")])
    fleet.describe(Description(id="phone", app=APP, alert_token=ALERT, voip_token=VOIP))
    found = fleet.of(VOIP.upper())
    assert found is not None
    assert found.description.id == "phone"
    with pytest.raises(NotSo, match=r"^voip_token: belongs to the device phone"):
        fleet.describe(Description(id="other", app=APP, voip_token=VOIP))
    for token in (VOIP, None):
        fleet.describe(Description(id="phone", app=APP, alert_token="22", voip_token=token))
    assert [fleet.of(token) is None for token in (ALERT, VOIP, "22", "11")] == [True, True, False, False]
    fleet.forget()
    assert [one["id"] for one in fleet.described(NOW)] == ["given"]


@pytest.mark.parametrize(
    ("token", "push_type", "topic", "refused"),
    [
        (ALERT, "alert", APP, False),
        (ALERT, "background", APP, False),
        (ALERT, "liveactivity", f"{APP}.push-type.liveactivity", False),
        (VOIP, "voip", f"{APP}.voip", False),
        (VOIP, "alert", APP, True),
        (ALERT, "voip", f"{APP}.voip", True),
        (ALERT, "alert", "org.example.other", True),
    ],
)
def test_a_described_token_is_for_its_app(token: str, push_type: str, topic: str, refused: bool) -> None:
    fleet = Fleet([Description(id="phone", app=APP, alert_token=ALERT, voip_token=VOIP)])
    answer = fleet.refusal(token, push_type, topic)
    assert (answer is not None) is refused
    assert answer is None or answer.reason == "DeviceTokenNotForTopic"


def test_a_call_that_is_told_to_ring_clears_it_on_every_device() -> None:
    fleet = Fleet([Description(id=name, app=APP, voip_token=name, grace=5) for name in ("aa", "bb", "cc")])
    for name in ("aa", "bb"):
        fleet.arrive(name, voip(), NOW)
    fleet.tell(CALL, CallState.RINGING, NOW + 4)
    fleet.arrive("cc", voip(), NOW + 4)
    fleet.arrive("nobody", voip(), NOW + 4)
    assert [(one["strikes"], one["calls"]) for one in fleet.described(NOW + 60)] == [(0, {CALL: 1})] * 3


def test_every_count_is_told() -> None:
    phone = device()
    phone.arrive(push(), None, NOW)
    phone.report(Report(did=Deed.REMOVED, push="1"), NOW)
    told = told_of(phone, NOW)
    assert set(phone.counts) <= set(COUNTS)
    assert (told["counts"]["removed"], told["shown"], told["stored"], told["held"]) == (1, [], [], None)


# ---- the rate of a token ---------------------------------------------------------------------------------------------


def test_a_token_takes_only_so_many_in_so_long() -> None:
    registry = Registry()
    registry.tell("AA", TokenRecord(state=TokenState.ALIVE, rate=Rate(limit=2, seconds=10)))
    taken = [registry.limited("aa", NOW + at) for at in (0, 1, 9.9, 10, 10.5, 11)]
    assert [one and (one.status, one.reason) for one in taken] == [
        *(None, None, (429, "TooManyRequests"), None),
        *((429, "TooManyRequests"), None),
    ]
    assert registry.limited("bb", NOW) is None
    registry.forget()
    assert registry.limited("aa", NOW + 11) is None
