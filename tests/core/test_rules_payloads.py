"""What a push says and how it goes out (PUSH §5): each kind's words, and nothing about whom."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from sync.model.device import PushJob, PushKind
from sync.model.push import Environment, PushRequest, PushType
from sync.rules.claims import Claim
from sync.rules.payloads import Names, Wording, request
from tests.contract.samples import NOW, account, after, call, call_job, device, job, job_id

CALL_NAME = bytes(range(32))
CALL_UUID = str(UUID(bytes=CALL_NAME[:16], version=4))
ALONE = Names(account="tag")
OF_A_CALL = Names(account="tag", call=CALL_NAME)
WORDING = Wording(
    message="m",
    call="c",
    missed="x",
    update="u",
    invited="i",
    subscription="s",
    removed="r",
    sound="bell",
    ring="ring",
)
RINGING = call(rings_until=after(60), media=("audio", "video"))


def push(of: PushJob, names: Names = ALONE, *, about: Any = None, time_sensitive: bool = False) -> PushRequest:
    phone = device(app="chat", environment=Environment.PRODUCTION)
    claim = Claim(job=of, device=phone, account=account(), call=about)
    return request(claim, "token", names, WORDING, time_sensitive=time_sensitive)


def told(kind: PushKind, names: Names = ALONE, **fields: Any) -> dict[str, Any]:
    return dict(push(job(kind=kind, **fields), names).payload)


def test_an_alert_as_a_whole() -> None:
    assert push(job("j1", collapse="w", deadline=after(3600), version=7)) == PushRequest(
        app="chat",
        environment=Environment.PRODUCTION,
        token="token",
        push_type=PushType.ALERT,
        priority=10,
        expiration=int(NOW.timestamp()) + 3600,
        collapse_id="w:tag",
        apns_id=job_id("j1"),
        payload={
            "aps": {"alert": {"loc-key": "m"}, "mutable-content": 1, "sound": "bell"},
            "x": {"a": "tag", "k": "message", "v": 7},
        },
    )


def test_a_ring_as_a_whole() -> None:
    assert push(call_job("j1", collapse="c", version=7), OF_A_CALL, about=RINGING) == PushRequest(
        app="chat",
        environment=Environment.PRODUCTION,
        token="token",
        push_type=PushType.VOIP,
        priority=10,
        expiration=0,
        collapse_id=None,
        apns_id=job_id("j1"),
        payload={
            "x": {
                "a": "tag",
                "k": "call",
                "v": 7,
                "c": CALL_UUID,
                "exp": int(NOW.timestamp()) + 60,
                "m": "audio video",
            }
        },
    )


@pytest.mark.parametrize(("names", "about"), [(ALONE, RINGING), (OF_A_CALL, None)])
def test_a_ring_of_a_call_that_is_gone_rings_all_the_same(names: Names, about: Any) -> None:
    assert push(call_job(version=7), names, about=about).payload == {"x": {"a": "tag", "k": "call", "v": 7}}


@pytest.mark.parametrize(
    ("kind", "words", "sounds"),
    [
        (PushKind.MESSAGE, "m", True),
        (PushKind.CALL, "c", True),
        (PushKind.CALL_FALLBACK, "c", True),
        (PushKind.CALL_END, "u", False),
        (PushKind.MISSED, "x", True),
        (PushKind.CORRECTED, "u", False),
        (PushKind.WITHDRAW, "u", False),
        (PushKind.READ, "u", False),
        (PushKind.REACTED, "u", False),
        (PushKind.INVITED, "i", True),
        (PushKind.SUBSCRIPTION, "s", True),
        (PushKind.SYNC, "u", False),
        (PushKind.REMOVED, "r", True),
    ],
)
def test_the_words_of_a_kind(kind: PushKind, words: str, sounds: bool) -> None:
    aps = told(kind)["aps"]
    assert aps["alert"] == {"loc-key": words}
    rings = kind in (PushKind.CALL, PushKind.CALL_FALLBACK)
    assert aps.get("sound") == (("ring" if rings else "bell") if sounds else None)
    assert "sound" not in told(kind, silent=True)["aps"]


@pytest.mark.parametrize("kind", sorted(set(PushKind) - {PushKind.REMOVED}))
def test_the_badge_is_the_accounts_true_total_where_the_app_wants_it(kind: PushKind) -> None:
    """PUSH §5: whatever the push is about."""
    claim = Claim(job=job(kind=kind), device=device(), account=account(unread=17, mentions=3, unread_conversations=4))
    shown: Any = request(claim, "token", ALONE, replace(WORDING, badge=True)).payload
    assert shown["aps"]["badge"] == 17
    assert "badge" not in told(kind)["aps"]


def test_who_is_no_more_has_nothing_unread() -> None:
    claim = Claim(job=job(kind=PushKind.REMOVED), device=device(), account=account(unread=17, unread_conversations=4))
    shown: Any = request(claim, "token", ALONE, replace(WORDING, badge=True)).payload
    assert shown["aps"]["badge"] == 0


def test_an_app_says_it_in_words_of_its_own_unless_told() -> None:
    words = Wording()
    found = (words.message, words.call, words.missed, words.update, words.sound, words.ring, words.badge)
    assert found == ("message.new", "call.incoming", "call.missed", "conversation.updated", "default", "default", False)
    assert (words.invited, words.subscription, words.removed) == (
        "invitation.new",
        "contact.request",
        "account.removed",
    )


@pytest.mark.parametrize("kind", PushKind)
def test_only_calls_are_time_sensitive_and_only_where_that_is_wanted(kind: PushKind) -> None:
    payload: Any = push(job(kind=kind), time_sensitive=True).payload
    ringing = kind in (PushKind.CALL, PushKind.CALL_FALLBACK)
    assert payload["aps"].get("interruption-level") == ("time-sensitive" if ringing else None)
    assert "interruption-level" not in told(kind)["aps"]


def test_without_further_words_no_push_is_time_sensitive() -> None:
    claim = Claim(job=job(kind=PushKind.CALL), device=device(), account=account(), call=None)
    payload: Any = request(claim, "token", ALONE, WORDING).payload
    assert "interruption-level" not in payload["aps"]


@pytest.mark.parametrize("kind", sorted(set(PushKind) - {PushKind.TEST}))
def test_what_rings_says_until_when(kind: PushKind) -> None:
    payload: Any = push(job(kind=kind, sid="s1"), OF_A_CALL, about=RINGING).payload
    ringing = {"exp": int(NOW.timestamp()) + 60, "m": "audio video"} if "call" in (kind, payload["x"]["k"]) else {}
    called = "call" if kind is PushKind.CALL_FALLBACK else kind.value
    assert payload["x"] == {"a": "tag", "k": called, "v": 5, "c": CALL_UUID} | ringing


@pytest.mark.parametrize("kind", [PushKind.CALL, PushKind.CALL_FALLBACK])
def test_a_call_that_goes_on_names_the_one_before_it(kind: PushKind) -> None:
    names = Names(account="tag", call=CALL_NAME, continued=CALL_NAME[::-1])
    former = str(UUID(bytes=CALL_NAME[::-1][:16], version=4))
    for ringing in (job(kind=kind, sid="s1"), call_job()):
        payload: Any = push(ringing, names, about=RINGING).payload
        assert (payload["x"]["c"], payload["x"]["p"]) == (CALL_UUID, former)


def test_of_a_call_that_is_gone_the_fallback_has_only_its_name() -> None:
    payload: Any = push(job(kind=PushKind.CALL_FALLBACK, sid="s1"), OF_A_CALL).payload
    assert payload["x"] == {"a": "tag", "k": "call", "v": 5, "c": CALL_UUID}


@pytest.mark.parametrize(
    ("collapse", "names", "id_"),
    [
        (None, OF_A_CALL, None),
        ("c", OF_A_CALL, "c:" + CALL_NAME.hex()[:32]),
        ("c", ALONE, "c:"),
        ("w", OF_A_CALL, "w:tag"),
    ],
)
def test_what_takes_the_place_of_what(collapse: str | None, names: Names, id_: str | None) -> None:
    assert push(job(collapse=collapse), names).collapse_id == id_
