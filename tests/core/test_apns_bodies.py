"""What is posted to the simulator's control port, and by which field it is refused."""

from typing import Any

import pytest

from sync.sandbox.apns.bodies import BadBody, read_call, read_change, read_device, read_report, read_token, read_wanted
from sync.sandbox.apns.device import Description
from tests.core.test_apns_devices import ALERT, APP, CALL, VOIP

PHONE = {"id": "phone", "app": APP, "alert_token": ALERT}
BAD: list[tuple[Any, Any, str]] = [
    (read_device, [], "the body"),
    (read_device, {**PHONE, "colour": "red"}, "colour: "),
    (read_device, {**PHONE, "id": ""}, "id: "),
    (read_device, {**PHONE, "id": "a/b"}, "id: "),
    (read_device, {"id": "phone", "alert_token": ALERT}, "app: "),
    (read_device, {"id": "phone", "app": APP}, "alert_token: "),
    (read_device, {**PHONE, "alert_token": "xyz"}, "alert_token: "),
    (read_device, {**PHONE, "alert_token": "abc"}, "alert_token: "),
    (read_device, {**PHONE, "voip_token": 7}, "voip_token: "),
    (read_device, {**PHONE, "voip_token": ALERT.upper()}, "voip_token: "),
    (read_device, {**PHONE, "online": "yes"}, "online: "),
    (read_device, {**PHONE, "grace": -1}, "grace: "),
    (read_device, {**PHONE, "call_at": 5}, "call_at: "),
    (read_device, {**PHONE, "background_per_hour": 1.5}, "background_per_hour: "),
    (read_change, {"awake": True}, "awake: "),
    (read_change, {"focus": 1}, "focus: "),
    (read_report, {"did": "slept"}, "did: "),
    (read_report, {"did": []}, "did: "),
    (read_report, {"did": "rang"}, "call: "),
    (read_report, {"did": "dropped"}, "push: "),
    (read_report, {"did": "changed", "push": "1"}, "alert: "),
    (read_report, {"did": "changed", "alert": "x"}, "push: "),
    (read_call, {"call": CALL}, "state: "),
    (read_call, {"state": "ringing"}, "call: "),
    (read_token, {"token": "aa", "state": "alive", "limit": 0}, "limit: "),
    (read_token, {"token": "aa", "state": "alive", "seconds": 5}, "seconds: "),
    (read_token, {"token": "aa", "state": "alive", "limit": 5, "seconds": "x"}, "seconds: "),
    (read_token, {"token": "aa", "state": "alive", "timestamp": -1}, "timestamp: "),
    (read_wanted, {}, "app: "),
    (read_wanted, {"app": APP, "topics": APP}, "topics: "),
    (read_wanted, {"app": APP, "topics": [1]}, "topics: "),
    (read_wanted, {"app": APP, "environments": ["moon"]}, "environments: "),
    (read_wanted, {"app": APP, "revoked": "no"}, "revoked: "),
]


@pytest.mark.parametrize(("read", "body", "field"), BAD)
def test_what_makes_no_sense_is_refused_by_field(read: Any, body: Any, field: str) -> None:
    with pytest.raises(BadBody, match=f"^{field}"):
        read(body)


def test_a_device_is_read_with_what_is_usual() -> None:
    assert read_device({**PHONE, "alert_token": ALERT.upper()}) == Description(id="phone", app=APP, alert_token=ALERT)
    told = {**PHONE, "voip_token": VOIP, "online": False, "focus": True, "filtering": True, "call_at": "c", "grace": 0}
    described = read_device({**told, "background_per_hour": 2})
    assert (described.online, described.focus, described.filtering) == (False, True, True)
    assert (described.call_at, described.grace, described.background_per_hour) == ("c", 0, 2)
