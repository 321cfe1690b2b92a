"""What an app server is told of each kind of push (XEP-0357 §7; PUSH §5, the rows marked ●)."""

from dataclasses import replace
from typing import Any

import pytest

from sync.model.conversation import Kind
from sync.model.device import PushKind, Route
from sync.model.publish import About, Excerpt, Notice
from sync.rules.claims import Claim
from sync.rules.publish import notice
from sync.rules.publish_budget import PublishPolicy
from tests.contract.samples import BOB, TEA, WISHES, account, call, call_job, device, job

DUMMY = "New Message!"
SAID = Excerpt(f"{BOB}/phone", "Tea?")
HIDDEN = Excerpt(f"{BOB}/phone", None)
IN_ROOM = Excerpt(f"{TEA}/Bob", "Ann: tea?")
PLAIN, ALL = PublishPolicy(), PublishPolicy(with_sender=True, with_body=True)


def told(excerpt: Excerpt | None = None, policy: PublishPolicy = PLAIN, **fields: Any) -> Notice:
    made = replace(job(), **fields)
    phone = device(route=Route.PUBLISH, app="push.example.org", wishes=WISHES)
    return notice(Claim(job=made, device=phone, account=account(unread=3)), excerpt, policy)


def in_words(said: Notice) -> tuple[str | None, str | None]:
    """Sender and text that are told in plain words."""
    return (said.sender if said.names_sender else None), said.body


def test_by_default_nothing_is_told_of_a_message() -> None:
    """mod_cloud_notify: push_notification_with_sender and _with_body are false, the important body "New Message!"."""
    said = told(SAID)
    assert in_words(said) == (None, DUMMY)
    assert (said.count, said.urgent, said.requests) == (3, True, 0)
    assert (said.about, said.sender, said.text) == (About.CHAT, f"{BOB}/phone", "Tea?")  # for the client alone


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (PublishPolicy(with_sender=True), (f"{BOB}/phone", DUMMY)),
        (PublishPolicy(with_body=True), (None, "Tea?")),
        (ALL, (f"{BOB}/phone", "Tea?")),
        (PublishPolicy(important_body=None), (None, None)),
        (PublishPolicy(with_body=True, important_body=None), (None, "Tea?")),
    ],
)
def test_an_operator_may_tell_more(policy: PublishPolicy, words: tuple[str | None, str | None]) -> None:
    assert in_words(told(SAID, policy)) == words


def test_of_an_encrypted_message_no_text_is_told() -> None:
    said = told(HIDDEN, ALL)
    assert (in_words(said), said.text) == ((f"{BOB}/phone", DUMMY), DUMMY)


def test_of_several_conversations_nobody_is_named() -> None:
    said = told(SAID, ALL, peer="")
    assert (said.about, said.sender, said.body, said.text) == (None, None, DUMMY, DUMMY)


@pytest.mark.parametrize(
    "excerpt", [None, Excerpt("ann@example.org/web", "mine"), Excerpt("eve@example.org", "not his")]
)
def test_what_the_other_party_did_not_say_is_not_told(excerpt: Excerpt | None) -> None:
    said = told(excerpt, ALL)
    assert (said.sender, said.body, said.text) == (BOB, DUMMY, DUMMY)


def test_a_message_in_a_room() -> None:
    said = told(IN_ROOM, ALL, peer=TEA, about=Kind.GROUP)
    assert (said.about, said.sender, said.nickname) == (About.GROUPCHAT, f"{TEA}/Bob", "Bob")
    assert said.body == "Ann: tea?"


def test_a_message_from_an_occupant() -> None:
    said = told(IN_ROOM, ALL, peer=f"{TEA}/Bob")
    assert (said.about, said.sender, said.nickname) == (About.CHAT, f"{TEA}/Bob", None)


def test_a_stranger_is_not_heard() -> None:
    """PUSH §5: without sound. With app servers a text makes one (mod_push_appserver, priority "auto")."""
    said = told(SAID, ALL, silent=True)
    assert (said.urgent, said.body, said.text) == (False, None, "Tea?")


def test_something_is_always_there_to_be_shown() -> None:
    """Siskin takes 0 without sender and body as word that everything was read."""
    claim = Claim(job=job(), device=device(), account=account(unread=0))
    assert notice(claim, None, PublishPolicy()).count == 1


def test_requests_for_presence() -> None:
    said = told(None, ALL, kind=PushKind.SUBSCRIPTION, joined=2)
    assert (said.requests, said.sender, said.body, said.about, said.urgent) == (3, BOB, None, None, True)


@pytest.mark.parametrize("kind", [PushKind.INVITED, PushKind.TEST, PushKind.MISSED])
def test_other_news(kind: PushKind) -> None:
    said = told(SAID, ALL, kind=kind, peer=BOB)
    assert (said.count, said.body, said.text, said.urgent) == (3, DUMMY, DUMMY, True)
    assert said.about is (About.CHAT if kind is PushKind.MISSED else None)  # Siskin knows no other kinds


# ---- calls -----------------------------------------------------------------------------------------------------------


def rung(policy: PublishPolicy = PLAIN, *, media: tuple[str, ...] = ("audio",), **fields: Any) -> Notice:
    made, ringing = replace(call_job(), **fields), call(media=media)
    claim = Claim(job=made, device=device(route=Route.PUBLISH), account=account(), call=ringing)
    return notice(claim, SAID, policy)


def test_a_call_rings_where_that_is_understood() -> None:
    said = rung(media=("audio", "video"))
    assert (said.about, said.sender, said.sid, said.media) == (About.CALL, f"{BOB}/phone", "s1", ("audio", "video"))
    assert (said.text, said.urgent) == (None, True)


def test_media_that_siskin_does_not_know_end_it() -> None:
    assert rung(media=("audio", "screen")).media == ("audio",)
    assert rung(media=("hologram",)).media == ()


def test_a_call_into_a_room_is_something_new_there_whoever_understands_calls() -> None:
    made = replace(call_job(), peer=TEA, about=Kind.GROUP, voip=True)
    claimed = Claim(job=made, device=device(), account=account(), call=call(peer=TEA, kind=Kind.GROUP))
    said = notice(claimed, None, PublishPolicy())
    assert (said.about, said.sender, said.sid) == (About.GROUPCHAT, TEA, None)


def test_elsewhere_a_call_is_something_new() -> None:
    said = rung(voip=False)
    assert (said.about, said.sender, said.sid, said.media) == (About.CHAT, BOB, None, ())
    assert in_words(said) == (None, DUMMY)
    assert in_words(rung(PublishPolicy(with_sender=True), voip=False)) == (BOB, DUMMY)
    assert in_words(rung(voip=False, silent=True)) == (None, None)
