"""APNs' rules as vectors: what each answer means (PUSH §2's table), and what the simulator refuses (PUSH §2's list)."""

import json
from datetime import UTC, datetime
from typing import Any

import jwt
import pytest

from sync.model.push import PushType, Verdict
from sync.protocol.apns import TABLE, outcome, payload_limit_bytes, read_answer, row, topic
from sync.sandbox.apns.bodies import BadBody
from sync.sandbox.apns.faults import Faults, read_fault
from sync.sandbox.apns.provider import ProviderDesk
from sync.sandbox.apns.registry import Registry, TokenRecord, TokenState
from sync.sandbox.apns.rules import CONTENT, ENVELOPE, read, refusal
from tests.contract.apns_server import APP, KEY, TEAM, new_key

# ---- what an answer means: the rows of PUSH §2 in its words ----------------------------------------------------------

OUR_FAULT = """BadCollapseId BadExpirationDate BadMessageId BadPriority BadTopic DuplicateHeaders InvalidPushType
MissingTopic PayloadEmpty TopicDisallowed MissingDeviceToken"""
CREDENTIALS = """InvalidProviderToken MissingProviderToken BadCertificate BadCertificateEnvironment Forbidden
UnrelatedKeyIdInToken BadEnvironmentKeyIdInToken BadEnvironmentKeyInToken"""
ANSWERS = [
    (200, None, Verdict.ACCEPTED, False),
    *((400, reason, Verdict.REJECTED, False) for reason in OUR_FAULT.split()),
    (404, "BadPath", Verdict.REJECTED, False),
    (405, "MethodNotAllowed", Verdict.REJECTED, False),
    (400, "BadDeviceToken", Verdict.DEAD_TOKEN, False),
    (400, "DeviceTokenNotForTopic", Verdict.DEAD_TOKEN, False),
    (400, "IdleTimeout", Verdict.RETRY, True),
    (403, "ExpiredProviderToken", Verdict.RETRY, False),
    *((403, reason, Verdict.CREDENTIALS, False) for reason in CREDENTIALS.split()),
    (410, "Unregistered", Verdict.DEAD_TOKEN, False),
    (410, "ExpiredToken", Verdict.DEAD_TOKEN, False),
    (413, "PayloadTooLarge", Verdict.TOO_LARGE, False),
    (429, "TooManyRequests", Verdict.THROTTLED, False),
    (429, "TooManyProviderTokenUpdates", Verdict.RETRY, True),
    (500, "InternalServerError", Verdict.RETRY, False),
    (503, "ServiceUnavailable", Verdict.RETRY, False),
    (503, "Shutdown", Verdict.RETRY, True),
]


@pytest.mark.parametrize(("status", "reason", "verdict", "reconnect"), ANSWERS)
def test_each_answer_has_its_verdict(status: int, reason: str | None, verdict: Verdict, reconnect: bool) -> None:
    body = json.dumps({"reason": reason}).encode() if reason else b""
    assert (outcome(status, body).verdict, outcome(status, body).reason) == (verdict, reason)
    assert row(status, reason).reconnect is reconnect


def test_the_vectors_cover_the_table() -> None:
    named = {(answer.status, answer.reason) for answer in TABLE if answer.reason or answer.status == 200}
    assert named == {(status, reason) for status, reason, _, _ in ANSWERS}
    assert all(answer.because for answer in TABLE)


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (201, Verdict.UNCERTAIN),
        (302, Verdict.UNCERTAIN),
        (400, Verdict.REJECTED),
        (401, Verdict.REJECTED),
        (403, Verdict.CREDENTIALS),
        (410, Verdict.DEAD_TOKEN),
        (418, Verdict.REJECTED),
        (429, Verdict.THROTTLED),
        (502, Verdict.RETRY),
    ],
)
def test_an_answer_that_is_new_to_us_is_judged_by_its_status(status: int, verdict: Verdict) -> None:
    assert outcome(status, b'{"reason":"AddedLater"}').verdict is verdict
    assert outcome(status, b"").verdict is verdict


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"x"',
        b"\xff\xfe",
        b"[" * 4000,
        b'{"reason":"' + b"x" * 5000 + b'"}',
        b'{"reason":7}',
    ],
)
def test_a_body_that_is_no_answer_says_nothing(body: bytes) -> None:
    assert read_answer(body) == (None, None)


@pytest.mark.parametrize("reason", ["", "two words", "a" * 65, "<html>", "naïve"])
def test_a_reason_that_no_label_could_hold_is_dropped(reason: str) -> None:
    assert read_answer(json.dumps({"reason": reason}).encode()) == (None, None)


def test_the_timestamp_is_in_milliseconds() -> None:
    answer = outcome(410, b'{"reason":"Unregistered","timestamp":1700000000123}')
    assert answer.dead_since_at == datetime(2023, 11, 14, 22, 13, 20, 123_000, UTC)


@pytest.mark.parametrize("timestamp", ["-1", "0", "true", '"5"', "1.5", "1e400", "99999999999999999", "null"])
def test_a_timestamp_that_is_none_is_dropped(timestamp: str) -> None:
    assert read_answer(b'{"reason":"Unregistered","timestamp":%s}' % timestamp.encode()) == ("Unregistered", None)


def test_voip_has_its_own_topic_and_limit() -> None:
    assert (topic(APP, PushType.ALERT), topic(APP, PushType.VOIP)) == (APP, f"{APP}.voip")
    assert (payload_limit_bytes(PushType.BACKGROUND), payload_limit_bytes(PushType.VOIP)) == (4096, 5120)


# ---- what the simulator refuses --------------------------------------------------------------------------------------

GOOD = {
    ":method": "POST",
    ":path": f"/3/device/{'a' * 64}",
    "apns-topic": APP,
    "apns-push-type": "alert",
    "apns-priority": "10",
    "apns-expiration": "0",
    "apns-collapse-id": "w:1",
    "apns-id": "3f0b6d6e-8f0e-4d58-9d0f-0a3f1a3c9b11",
}
VOIP: dict[str, str | None] = {"apns-topic": f"{APP}.voip", "apns-push-type": "voip"}
QUIET: dict[str, str | None] = {"apns-push-type": "background", "apns-priority": "5"}
SILENT = b'{"aps":{"content-available":1}}'
REQUESTS: list[tuple[dict[str, str | None], bytes, str | None]] = [
    ({}, b'{"aps":{"alert":"x"}}', None),
    (VOIP, b'{"x":{}}', None),
    (QUIET, SILENT, None),
    ({"apns-priority": None, "apns-expiration": None, "apns-collapse-id": None, "apns-id": None}, b'{"aps":{}}', None),
    ({"apns-push-type": None}, b'{"aps":{"alert":"x"}}', None),
    ({"apns-push-type": None, "apns-topic": f"{APP}.voip"}, b'{"x":1}', None),
    ({"apns-priority": "5"}, b'{"aps":{"alert":"x"}}', None),
    ({"apns-priority": "1"}, b'{"aps":{"alert":"x"}}', None),
    ({":method": "GET"}, b"{}", "MethodNotAllowed"),
    ({":path": "/3/device/"}, b"{}", "MissingDeviceToken"),
    ({":path": "/3/device"}, b"{}", "MissingDeviceToken"),
    ({":path": "/2/device/aa"}, b"{}", "BadPath"),
    ({":path": "/"}, b"{}", "BadPath"),
    ({":path": "/3/device/xyz"}, b'{"aps":{"alert":1}}', "BadDeviceToken"),
    ({":path": "/3/device/aaa"}, b'{"aps":{"alert":1}}', "BadDeviceToken"),
    ({"apns-id": "3F0B6D6E-8F0E-4D58-9D0F-0A3F1A3C9B11"}, b"{}", "BadMessageId"),
    ({"apns-id": "7"}, b"{}", "BadMessageId"),
    ({"apns-expiration": "-1"}, b"{}", "BadExpirationDate"),
    ({"apns-expiration": "soon"}, b"{}", "BadExpirationDate"),
    ({"apns-push-type": "pigeon"}, b"{}", "InvalidPushType"),
    ({"apns-priority": "7"}, b"{}", "BadPriority"),
    ({**QUIET, "apns-priority": "10"}, SILENT, "BadPriority"),
    ({**QUIET, "apns-priority": None}, SILENT, "BadPriority"),
    (QUIET, b'{"aps":{"alert":"x"}}', "InvalidPushType"),
    ({"apns-priority": "5"}, SILENT, "InvalidPushType"),
    ({"apns-collapse-id": "c" * 64}, b'{"aps":{"alert":1}}', None),
    ({"apns-collapse-id": "c" * 65}, b"{}", "BadCollapseId"),
    ({"apns-collapse-id": ""}, b"{}", "BadCollapseId"),
    ({"apns-topic": None}, b"{}", "MissingTopic"),
    ({"apns-topic": "no topic"}, b"{}", "BadTopic"),
    ({"apns-topic": "org.example.other"}, b"{}", "TopicDisallowed"),
    ({"apns-topic": f"{APP}.voip"}, b"{}", "BadTopic"),
    ({**VOIP, "apns-topic": APP}, b"{}", "BadTopic"),
    ({}, b"", "PayloadEmpty"),
    ({}, b"{}", "PayloadEmpty"),
    ({}, b"[1]", "PayloadEmpty"),
    ({}, b"{oops", "PayloadEmpty"),
    ({}, b'{"a":' + b"[" * 499 + b"]" * 499 + b"}", None),
    *(({}, b'{"a":' + b"[" * depth + b"]" * depth + b"}", "PayloadEmpty") for depth in (501, 974, 1_500)),
    ({}, b'{"a":"' + b"x" * 4088 + b'"}', None),
    ({}, b'{"a":"' + b"x" * 4089 + b'"}', "PayloadTooLarge"),
    (VOIP, b'{"a":"' + b"x" * 5112 + b'"}', None),
    (VOIP, b'{"a":"' + b"x" * 5113 + b'"}', "PayloadTooLarge"),
]


def judged(changes: dict[str, str | None], body: bytes, *more: tuple[bytes, bytes]) -> str | None:
    fields = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
    push = read([*((name.encode(), value.encode()) for name, value in fields.items()), *more], body)
    refused = refusal(ENVELOPE, push, {APP}) or refusal(CONTENT, push, {APP})
    return refused.reason if refused else None


@pytest.mark.parametrize(("changes", "body", "reason"), REQUESTS)
def test_the_simulator_refuses_what_apns_refuses(
    changes: dict[str, str | None], body: bytes, reason: str | None
) -> None:
    assert judged(changes, body) == reason


def test_a_header_may_come_once() -> None:
    assert judged({}, b'{"a":1}', (b"apns-priority", b"10")) == "DuplicateHeaders"


def test_every_rule_has_a_vector() -> None:
    named = {reason for _, _, reason in REQUESTS} | {"DuplicateHeaders"}
    assert {rule.reason for rule in (*ENVELOPE, *CONTENT)} <= named


# ---- the provider token ----------------------------------------------------------------------------------------------

NOW = 1_800_000_000
SIGNER, PUBLIC = new_key()


def bearer(issued_at: object = NOW, *, key: str = SIGNER.pem, kid: str = KEY, team: str = TEAM) -> str:
    return "bearer " + jwt.encode({"iss": team, "iat": issued_at}, key, algorithm="ES256", headers={"kid": kid})


def desk() -> ProviderDesk:
    return ProviderDesk(public_key=PUBLIC, team_id=TEAM, key_id=KEY, now=lambda: NOW)


@pytest.mark.parametrize(
    ("authorization", "reason"),
    [
        (bearer(), None),
        (bearer(NOW - 3600), None),
        (bearer(NOW - 3601), "ExpiredProviderToken"),
        (bearer(NOW + 60), None),
        (bearer(str(NOW)), None),
        (bearer("today"), "InvalidProviderToken"),
        (bearer(None), "InvalidProviderToken"),
        (bearer(NOW + 61), "InvalidProviderToken"),
        (bearer(kid="OTHER"), "InvalidProviderToken"),
        (bearer(team="OTHER"), "InvalidProviderToken"),
        (bearer(key=new_key()[0].pem), "InvalidProviderToken"),
        ("bearer no.jwt.atall", "InvalidProviderToken"),
        ("bearer", "MissingProviderToken"),
        ("basic Zm9v", "MissingProviderToken"),
        (None, "MissingProviderToken"),
    ],
)
def test_a_provider_token_is_checked(authorization: str | None, reason: str | None) -> None:
    refused = desk().refusal(authorization)
    assert (refused.reason if refused else None) == reason


def test_a_team_may_change_its_token_every_twenty_minutes() -> None:
    one = desk()
    assert one.refusal(bearer(NOW - 1200)) is None
    early = one.refusal(bearer(NOW - 1))
    assert early is not None
    assert (early.status, early.reason) == (429, "TooManyProviderTokenUpdates")
    assert one.refusal(bearer(NOW)) is None


def test_a_token_that_was_used_may_be_used_again() -> None:
    one, first, second = desk(), bearer(NOW - 1300), bearer(NOW)
    assert [one.refusal(token) for token in (first, second, first, second)] == [None] * 4
    assert one.tokens_seen == 2


# ---- tokens and faults -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "answer"),
    [
        (TokenState.ALIVE, None),
        (TokenState.UNREGISTERED, (410, "Unregistered", 5)),
        (TokenState.EXPIRED, (410, "ExpiredToken", 5)),
        (TokenState.OTHER_ENVIRONMENT, (400, "BadDeviceToken", None)),
        (TokenState.OTHER_TOPIC, (400, "DeviceTokenNotForTopic", None)),
    ],
)
def test_a_token_is_what_was_told_of_it(state: TokenState, answer: tuple[int, str, int | None] | None) -> None:
    registry = Registry()
    registry.tell("BEEF", TokenRecord(state=state, since_ms=5))
    refused = registry.refusal("beef", "alert")
    assert (refused and (refused.status, refused.reason, refused.timestamp_ms)) == answer


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], "object"),
        ({}, "kind"),
        ({"kind": "earthquake"}, "kind"),
        ({"kind": "status"}, "status"),
        ({"kind": "status", "status": "500"}, "status"),
        ({"kind": "status", "status": 99}, "status"),
        ({"kind": "close", "times": 0}, "times"),
        ({"kind": "close", "token": 5}, "token"),
        ({"kind": "slow", "seconds": "2"}, "seconds"),
        ({"kind": "goaway", "last_stream_id": -1}, "last_stream_id"),
        ({"kind": "close", "tokens": "a"}, "tokens"),
    ],
)
def test_a_fault_that_cannot_be_is_refused_by_field(body: Any, field: str) -> None:
    with pytest.raises(BadBody, match=field):
        read_fault(body)


def test_faults_meet_matching_requests_in_the_order_in_which_they_were_posted() -> None:
    faults = Faults()
    faults.post(read_fault({"kind": "close", "token": "AA", "times": 2}))
    faults.post(read_fault({"kind": "silent", "push_type": "voip"}))
    faults.post(read_fault({"kind": "status", "status": 503}))
    met = [faults.take(*request) for request in (("aa", "voip"), ("bb", "voip"), ("aa", "alert"), ("aa", "alert"))]
    assert [fault and str(fault.kind) for fault in met] == ["close", "silent", "close", "status"]
    assert (faults.take("aa", "voip"), faults.waiting) == (None, 0)
