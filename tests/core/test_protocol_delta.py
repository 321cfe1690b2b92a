"""Our own dialect's deltas: what an answer has, in which order, under which names, and what is left out of it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from xml.etree.ElementTree import Element

import pytest

from sync.model.call import Call, CallKey, CallState
from sync.model.conversation import (
    Account,
    Change,
    ChangeKind,
    Conversation,
    ConversationKey,
    Kind,
    LastMessage,
    Notify,
    Pointer,
    Status,
)
from sync.model.delta import DeltaItem, DeltaPage, DeltaQuery, DeltaToken, Filters, Reset
from sync.protocol import delta
from sync.protocol.names import CONVSYNC, clark
from sync.protocol.portrait import CALL, CONVERSATION
from sync.protocol.serialise import serialise
from sync.protocol.token import decode_token
from tests.core.convsync_schema import faults, wrapped
from tests.core.protocol_vectors import load, shape, xml_of

ANN = "ann@ex.org"
BOB, TEA = ConversationKey(ANN, "bob@ex.net"), ConversationKey(ANN, "tea@rooms.ex.org", Kind.GROUP)
AT = datetime(2025, 11, 21, 1, 19, 50, 1, UTC)
OWNER = Account(jid=ANN, version=90, floor=0, epoch=2, unread=17, mentions=2, unread_conversations=4)
SAID = (
    "<message xmlns='jabber:client' from='bob@ex.net/p' to='ann@ex.org' type='chat' id='m2'><body>see you soon</body>"
    "<replace xmlns='urn:xmpp:message-correct:0' id='m1'/><origin-id xmlns='urn:xmpp:sid:0' id='o2'/>"
    "<stanza-id xmlns='urn:xmpp:sid:0' by='ann@ex.org' id='forged'/>"
    "<stanza-id xmlns='urn:xmpp:sid:0' by='ex.net' id='x'/>"
    "<delay xmlns='urn:xmpp:delay' from='ann@ex.org' stamp='2001-01-01T00:00:00Z'/>"
    "<delay xmlns='urn:xmpp:delay' stamp='2002-01-01T00:00:00Z'/>"
    "<delay xmlns='urn:xmpp:delay' from='ex.net' stamp='2003-01-01T00:00:00Z'/></message>"
)
ROOM = (
    "<message xmlns='jabber:client' from='tea@rooms.ex.org/Bob' type='groupchat' id='m8'><body>Ann, tea?</body>"
    "<stanza-id xmlns='urn:xmpp:sid:0' by='tea@rooms.ex.org' id='forged'/></message>"
)
PROPOSE = (
    "<message xmlns='jabber:client' from='bob@ex.net/p' to='ann@ex.org' type='chat' id='p1'>"
    "<propose xmlns='urn:xmpp:jingle-message:0' id='c1'>"
    "<description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'/></propose></message>"
)


def said(stanza: str = SAID, **fields: Any) -> LastMessage:
    values = {"rank": 5, "message_id": "m1", "archive_id": "a1", "sent_at": AT} | fields
    return LastMessage(stanza=stanza, **values)


WITH_BOB = Conversation(key=BOB, version=80, activity_at=AT, unread=3, read=Pointer(1, "a0"), last=said())
IN_TEA = Conversation(
    key=TEA, version=70, activity_at=AT, unread=1, mentions=1, last=said(ROOM, archive_id="r8", message_id="m8")
)
SET_APART = replace(
    WITH_BOB,
    version=55,
    status=Status.ARCHIVED,
    marked_unread=True,
    pinned=7,
    notify=Notify.NEVER,
    muted_until=datetime.max.replace(tzinfo=UTC),
    last=None,
)
GONE = Conversation(key=ConversationKey(ANN, "old@ex.net"), version=60, activity_at=AT, status=Status.DELETED)
RINGING = Call(
    key=CallKey(ANN, "bob@ex.net", "c1"),
    session_id="c1",
    state=CallState.RINGING,
    version=80,
    proposed_at=AT,
    rings_until=AT + timedelta(seconds=60),
    caller="bob@ex.net/p",
    media=("audio", "video"),
    archive_id="a9",
    stanza=PROPOSE,
)
TAKEN = replace(RINGING, session_id="c2", state=CallState.ANSWERED, version=79, answered_by="web", media=("audio",))
MISSED = replace(RINGING, session_id="c3", state=CallState.MISSED, version=78, media=(), stanza=None)
HAIL = replace(
    RINGING,
    key=CallKey(ANN, "tea@rooms.ex.net", "r1"),
    session_id="r1",
    caller="tea@rooms.ex.net/Bob",
    archive_id="r1",
    kind=Kind.GROUP,
    stanza='<message xmlns="jabber:client" from="tea@rooms.ex.net/Bob" type="groupchat" id="i1">'
    '<invite xmlns="urn:xmpp:call-invites:0" video="true"/>'
    '<stanza-id xmlns="urn:xmpp:sid:0" by="tea@rooms.ex.net" id="r1"/>'
    "</message>",
)
OURS = replace(RINGING, session_id="c4", state=CallState.OUTGOING, caller="ann@ex.org/desk")


def logged(version: int, stanza: str | None = SAID, **fields: Any) -> Change:
    values = {"kind": ChangeKind.CORRECTED, "target_id": "a1", "target_rank": 5, "conversation": BOB} | fields
    return Change(version=version, stanza=stanza, **values)


LOG = (logged(75), logged(80, None, kind=ChangeKind.RETRACTED, target_id="a0"))


def page(*items: DeltaItem, since: int = 50, **fields: Any) -> DeltaPage:
    query = {name: fields.pop(name) for name in ("below", "newest", "filters", "limit") if name in fields}
    return DeltaPage(
        query=DeltaQuery(**({"since": since, "log": since, "limit": 100} | query)),
        **({"owner": OWNER, "items": items} | fields),
    )


def told(
    whole: DeltaPage, reset: Reset | None = None, later: float = 12.9, preview: int | None = None
) -> tuple[Element, DeltaToken]:
    """The answer, which is of the schema, and its token, which is the one in it."""
    element, token = delta.encode_sync(whole, now=AT + timedelta(seconds=later), reset=reset, preview=preview)
    assert faults(wrapped(element)) == []
    assert decode_token(element.attrib["token"], account=ANN) == token
    return element, token


def answer(whole: DeltaPage, reset: Reset | None = None, preview: int | None = None) -> Element:
    element, _ = told(whole, reset, preview=preview)
    element.set("token", "TOKEN")
    return element


NEW = DeltaItem(conversation=WITH_BOB, changes=LOG)
MENTIONED = DeltaItem(conversation=IN_TEA, mention_id="r8")
ANSWERS: dict[str, Callable[[], Element]] = {
    "nothing new": lambda: answer(page(since=90)),
    "a delta": lambda: answer(
        page(NEW, MENTIONED, DeltaItem(conversation=GONE), ringing=(RINGING,), settled=(TAKEN, MISSED))
    ),
    "a list that starts over": lambda: answer(page(MENTIONED, since=0, more=True, ringing=(RINGING,)), Reset.EXPIRED),
    "what is outside": lambda: answer(
        page(DeltaItem(conversation=WITH_BOB, matches=False), filters=Filters(pinned=True))
    ),
    "what is too large": lambda: answer(
        page(DeltaItem(conversation=replace(WITH_BOB, last=None), left_out=True, changes=None))
    ),
    "previews": lambda: answer(
        page(
            DeltaItem(conversation=WITH_BOB, changes=LOG[1:]),
            MENTIONED,
            DeltaItem(conversation=GONE),
            DeltaItem(conversation=SET_APART, left_out=True),
            ringing=(RINGING,),
        ),
        preview=8,
    ),
    "a call that rings": lambda: delta.shown_call(RINGING, now=AT + timedelta(seconds=12.9)),
    "a call into a room": lambda: delta.shown_call(HAIL, now=AT),
    "a call that was taken": lambda: delta.shown_call(TAKEN, now=AT),
    "a call of our own": lambda: delta.shown_call(OURS, now=AT),
}


@pytest.mark.parametrize("vector", load("delta"))
def test_answers(vector: Element) -> None:
    assert shape(ANSWERS[str(vector.get("name"))]()) == xml_of(vector)


def test_every_answer_has_a_vector() -> None:
    assert {parameter.id for parameter in load("delta")} == ANSWERS.keys()


# ---- tokens ----------------------------------------------------------------------------------------------------------


def items(*versions: int) -> tuple[DeltaItem, ...]:
    return tuple(
        DeltaItem(conversation=replace(WITH_BOB, key=ConversationKey(ANN, f"n{v}@ex.net"), version=v, last=None))
        for v in versions
    )


FILTERED = Filters(unread=True)


@pytest.mark.parametrize(
    ("fields", "token"),
    [
        ({"since": 90}, {"since": 90, "log": 90}),
        ({"items": items(80, 70)}, {"since": 90, "log": 90}),
        ({"items": items(80, 70), "since": 0}, {"since": 90, "log": 90}),
        ({"items": items(80, 70), "more": True}, {"since": 50, "log": 50, "newest": 90, "low": 70}),
        ({"items": items(80), "more": True, "since": 0}, {"newest": 90, "low": 80}),
        ({"items": items(60), "below": 70, "newest": 90}, {"since": 90, "log": 90}),
        # Somebody wrote while the chain was read: what was bumped has changes since its beginning.
        ({"items": items(60), "below": 70, "newest": 85}, {"since": 85, "log": 50}),
        ({"items": items(60), "below": 70, "newest": 85, "since": 0}, {"since": 85, "log": 85}),
        (
            {"items": items(60), "below": 70, "newest": 85, "more": True},
            {"since": 50, "log": 50, "newest": 85, "low": 60},
        ),
        # Nothing was shown.
        ({"limit": 0, "more": True}, {"since": 50, "log": 50}),
        ({"limit": 0, "more": True, "since": 0}, {}),
        ({"limit": 0, "more": True, "below": 70, "newest": 85}, {"since": 50, "log": 50, "newest": 85, "low": 70}),
        ({"limit": 0, "since": 0}, {"since": 90, "log": 90}),
        ({"since": 90, "filters": FILTERED}, {"since": 90, "log": 90, "filters": FILTERED.digest}),
    ],
)
def test_where_the_next_question_begins(fields: dict[str, Any], token: dict[str, Any]) -> None:
    shown = fields.pop("items", ())
    assert told(page(*shown, **fields))[1] == DeltaToken(**({"epoch": 2} | token))


@pytest.mark.parametrize("more", [False, True])
def test_who_knows_everything_is_told_so(more: bool) -> None:
    element, _ = told(page(*items(80, 70), more=more))
    assert element.get("more") == ("true" if more else None)


# ---- sizes -----------------------------------------------------------------------------------------------------------

MOST = 512 * 1024  # what servers take of a component


def body(size: int, text: str = "x") -> str:
    return f"<message xmlns='jabber:client' from='bob@ex.net/p'><body>{text * size}</body></message>"


def sized(number: int, size: int, text: str = "x") -> tuple[DeltaItem, ...]:
    """So many conversations, each with a message of that size."""
    plain = items(*range(9000 + number, 9000, -1))
    shown = said(body(size, text), archive_id="i" * 64)
    return tuple(replace(item, conversation=replace(item.conversation, last=shown)) for item in plain)


def lasts(element: Element) -> tuple[int, int]:
    """How many last messages are there, and how many are left out."""
    found = element.findall(f"{CONVERSATION}/{clark(CONVSYNC, 'last')}")
    left_out = [one for one in found if one.get("left-out") == "true"]
    assert all(len(one) == (one not in left_out) for one in found)
    return len(found) - len(left_out), len(left_out)


@pytest.mark.parametrize(
    ("number", "size", "brought"), [(2, 60_000, 2), (9, 60_000, 4), (2, 70_000, 0), (200, 100, 200), (200, 5_000, 51)]
)
def test_messages_that_have_no_space_are_left_out(number: int, size: int, brought: int) -> None:
    element, _ = told(page(*sized(number, size), limit=200))
    assert lasts(element) == (brought, number - brought)
    assert len(serialise(element).encode()) < MOST


@pytest.mark.parametrize(("entries", "size", "told_of"), [(4, 15_000, True), (4, 17_000, False), (100, 10, True)])
def test_a_log_that_has_no_space_starts_over(entries: int, size: int, told_of: bool) -> None:
    log = tuple(logged(60 + n, body(size)) for n in range(entries))
    element, _ = told(page(DeltaItem(conversation=replace(WITH_BOB, version=900), changes=log), owner=AHEAD))
    changes = element.find(f"{CONVERSATION}/{clark(CONVSYNC, 'changes')}")
    assert changes is not None
    assert (changes.get("reset"), len(changes)) == ((None, entries) if told_of else ("true", 0))


AHEAD = replace(OWNER, version=10_000)


def test_no_log_is_told_of_what_is_told_whole() -> None:
    element, _ = told(page(DeltaItem(conversation=WITH_BOB, changes=None), since=0))
    assert element.find(f".//{clark(CONVSYNC, 'changes')}") is None


def named(name: str, entries: int = 0) -> Callable[[DeltaItem], DeltaItem]:
    """Everything of a conversation that somebody may have named, named so."""

    def of(item: DeltaItem) -> DeltaItem:
        conversation = replace(
            item.conversation,
            key=ConversationKey(ANN, f"{item.conversation.version}{name}"),
            invited_by=name,
            **{pointer: Pointer(1, name) for pointer in ("read", "displayed", "delivered")},
        )
        log = tuple(
            logged(n, None, kind=ChangeKind.MODERATED, target_id=name, author=name, conversation=conversation.key)
            for n in range(1, entries + 1)
        )
        return replace(item, conversation=conversation, mention_id=name, changes=log)

    return of


@pytest.mark.parametrize("name", ["n", "n" * 3000, '"' * 1000, "&" * 500, "é" * 1500, "🙂" * 700], ids=lambda n: n[0])
@pytest.mark.parametrize("entries", [0, 100])
@pytest.mark.parametrize("size", [0, 1200])
def test_an_answer_ends_before_it_is_too_large(name: str, entries: int, size: int) -> None:
    whole = page(*map(named(name, entries), sized(200, size)), owner=AHEAD, limit=200)
    element, token = delta.encode_sync(whole, now=AT, reset=None)
    shown = element.findall(CONVERSATION)
    assert shown
    assert len(serialise(element).encode()) < MOST
    assert (element.get("more"), token.low) == (
        (None, None) if len(shown) == 200 else ("true", int(shown[-1].attrib["version"]))
    )


def test_one_conversation_is_shown_in_any_case() -> None:
    [item] = map(named("&" * 99_999), items(80))
    element, token = delta.encode_sync(page(item, *items(70)), now=AT, reset=None)
    assert [one.get("version") for one in element.findall(CONVERSATION)] == ["80"]
    assert token.low == 80


@pytest.mark.parametrize(("number", "size"), [(50, 100), (50, 6_000), (3, 70_000)])
def test_calls_come_without_their_propose_rather_than_not_at_all(number: int, size: int) -> None:
    ringing = tuple(replace(RINGING, session_id=f"c{n}", stanza=body(size)) for n in range(number))
    element, _ = told(page(ringing=ringing))
    calls = element.findall(CALL)
    assert [call.get("id") for call in calls] == [f"c{n}" for n in range(number)]
    proposes = sum(map(len, calls))
    assert proposes == min(number if size < 65_000 else 0, 256 * 1024 // len(body(size)))


def test_calls_that_nobody_could_name_do_not_keep_the_others_back() -> None:
    monster = replace(RINGING, session_id="&" * 200_000)
    element, _ = told(page(*items(80), ringing=(monster, RINGING)))
    assert [call.get("id") for call in element.findall(CALL)] == ["c1"]
    assert len(element.findall(CONVERSATION)) == 1


@pytest.mark.parametrize(("later", "shown"), [(0, ("0", "60")), (59.9, ("59", "0")), (60, None), (-5, ("0", "65"))])
def test_what_is_left_of_a_call(later: float, shown: tuple[str, str] | None) -> None:
    """Over is over, though nobody has recorded it yet; who asks for it by name hears that nothing is left."""
    element, _ = told(page(ringing=(RINGING,)), later=later)
    calls = [(call.get("age"), call.get("left")) for call in element.findall(CALL)]
    assert calls == ([shown] if shown else [])
    asked = delta.shown_call(RINGING, now=AT + timedelta(seconds=later))
    assert (asked.get("left"), len(asked)) == ((shown[1], 1) if shown else ("0", 0))


FROM_BOB = "<message xmlns='jabber:client' from='bob@ex.net/p' id='m2'>"


@pytest.mark.parametrize(
    ("last", "attributes", "text"),
    [
        (said(f"{FROM_BOB}<body>hi</body></message>"), {"stanza-id": "a1"}, "hi"),
        (said(f"{FROM_BOB}<body>hi</body></message>", archive_id=None), {"id": "m1"}, "hi"),
        (said(f"{FROM_BOB}<body>hi</body></message>", archive_id=None, message_id=None), {}, "hi"),
        (said(f"{FROM_BOB}<body>1234567890</body></message>"), {"stanza-id": "a1"}, "1234567890"),
        (said(f"{FROM_BOB}<body>12345678901</body></message>"), {"stanza-id": "a1", "cut": "true"}, "1234567890"),
        (said(f"{FROM_BOB}<body>👍👍</body></message>"), {"stanza-id": "a1"}, "👍👍"),
        (said(f"{FROM_BOB}<body/><body>hi</body></message>"), {"stanza-id": "a1"}, "hi"),
        (said(f"{FROM_BOB}<x xmlns='jabber:x:oob'/></message>"), {"stanza-id": "a1"}, ""),
        (
            said("<message xmlns='jabber:client' from='ann@ex.org/desk'><body>hi</body></message>"),
            {"stanza-id": "a1", "from": "ann@ex.org/desk"},
            "hi",
        ),
        (
            said(f"{FROM_BOB}<body>hi</body></message>", sent_at=AT - timedelta(seconds=1)),
            {"stanza-id": "a1", "sent": "2025-11-21T01:19:49.000001Z"},
            "hi",
        ),
        (said("", retracted=True), {"stanza-id": "a1", "retracted": "true"}, ""),
        (
            said(f"{FROM_BOB}<body>hi</body><encrypted xmlns='urn:xmpp:omemo:2'/></message>"),
            {"stanza-id": "a1", "encrypted": "true"},
            "",
        ),
        (
            said(
                f"{FROM_BOB}<body>&gt; tea?\nyes</body><reply xmlns='urn:xmpp:reply:0' id='m0'/>"
                "<fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'><body start='0' end='7'/></fallback>"
                "</message>"
            ),
            {"stanza-id": "a1"},
            "yes",
        ),
    ],
)
def test_the_beginning_of_a_last_message(last: LastMessage, attributes: dict[str, str], text: str) -> None:
    shown = DeltaItem(conversation=replace(WITH_BOB, last=last))
    (row,) = answer(page(shown), preview=10).iter(clark(CONVSYNC, "last"))
    assert (dict(row.attrib), row.text or "") == (attributes, text)


def test_previews_without_text() -> None:
    (row,) = answer(page(MENTIONED), preview=0).iter(clark(CONVSYNC, "last"))
    assert (row.text or "", row.get("cut")) == ("", "true")


def test_rows_with_long_previews_stay_below_what_a_server_takes() -> None:
    text = "&amp;" * 300
    shown = said(f"{FROM_BOB}<body>{text}</body></message>")
    items = [DeltaItem(conversation=replace(WITH_BOB, version=1000 - n, last=shown)) for n in range(200)]
    element, _ = told(page(*items), preview=256)
    assert len(serialise(element).encode()) < MOST
    assert len(element.findall(CONVERSATION)) == 200
