"""Client Synchronization and Rewrite: what clients ask and set, what they are shown, and the cursor between pages."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from xml.etree.ElementTree import Element, SubElement

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.model.call import Call, CallKey, CallState
from sync.model.conversation import (
    Change,
    ChangeKind,
    Conversation,
    ConversationKey,
    Kind,
    LastMessage,
    Pointer,
    Status,
)
from sync.model.errors import BadRequest, FeatureNotImplemented, ItemNotFound
from sync.model.query import ConversationPage, Cursor, ListedConversation, ListQuery, RewritePage, SortKey
from sync.protocol import conversations, rewrite, synchronization
from sync.protocol.cursor import decode_cursor, encode_cursor
from sync.protocol.names import REWRITE, REWRITE_NOTIFY, RSM, SYNC, clark
from sync.protocol.serialise import parse, serialise
from tests.core.protocol_vectors import check, load, shape, xml_of

ANN, BOB = "ann@ex.org", ConversationKey("ann@ex.org", "bob@ex.net")
AT = datetime(2025, 11, 21, 1, 19, 50, 1, UTC)
FAR = datetime.max.replace(tzinfo=UTC)
NEW = Conversation(key=BOB, version=9, activity_at=AT)
EARLIER, LATER = AT - timedelta(seconds=1), AT + timedelta(seconds=1)


def _stanza(inner: str, identifier: str = " id='x'") -> str:
    return f"<message xmlns='jabber:client' from='bob@ex.net/p' to='{ANN}' type='chat'{identifier}>{inner}</message>"


def _last(inner: str, **values: Any) -> LastMessage:
    given = {"message_id": "m1", "archive_id": "a1"} | values
    return LastMessage(rank=1, stanza=_stanza(inner), sent_at=AT, **given)


CALL = Call(
    key=CallKey(ANN, "bob@ex.net", "c1"),
    session_id="c1",
    state=CallState.RINGING,
    version=9,
    proposed_at=AT,
    rings_until=AT + timedelta(seconds=60),
    caller="bob@ex.net/p",
    stanza=_stanza("<propose xmlns='urn:xmpp:jingle-message:0' id='c1'/>", " id='p1'"),
)
FORGED = (
    f"<body>see you</body><stanza-id xmlns='urn:xmpp:sid:0' by='{ANN}' id='forged'/>"
    "<stanza-id xmlns='urn:xmpp:sid:0' by='room@ex.net' id='r1'/>"
    f"<time xmlns='https://xabber.com/protocol/delivery' by='{ANN}' stamp='forged'/>"
)
CORRECTION = (
    "<body>see you soon</body><replace xmlns='urn:xmpp:message-correct:0' id='m1'/>"
    f"<origin-id xmlns='urn:xmpp:sid:0' id='x'/><stanza-id xmlns='urn:xmpp:sid:0' by='{ANN}' id='a5'/>"
)
FULL = replace(
    NEW,
    pinned=1763600000000,
    muted_until=datetime.fromtimestamp(1763690000, UTC),
    read=Pointer(1, "1763687980000001"),
    displayed=Pointer(1, "1763687970000001"),
    delivered=Pointer(2, "1763687975000001"),
    unread=3,
    rewritten=41,
    ringing=1,
    requests_presence=True,
    last=_last(FORGED, message_id="m9", archive_id="a9"),
)


TEA = ConversationKey(ANN, "tea@rooms.ex.org", Kind.GROUP)
SEALED, OLD_SEALED = (replace(BOB, kind=kind) for kind in (Kind.OMEMO_2, Kind.AXOLOTL))
SAID_IN_TEA = replace(
    _last(""),
    archive_id="r2",
    stanza="<message xmlns='jabber:client' from='tea@rooms.ex.org/Bob' type='groupchat' id='m1'><body>tea?</body>"
    "<stanza-id xmlns='urn:xmpp:sid:0' by='tea@rooms.ex.org' id='forged'/>"
    f"<stanza-id xmlns='urn:xmpp:sid:0' by='{ANN}' id='forged'/></message>",
)
GROUP = replace(NEW, key=TEA, unread=2, mentions=1, read=Pointer(1, "r1"), last=SAID_IN_TEA)


def _shown(conversation: Conversation, *calls: Call, now: datetime = AT, mention: str | None = None) -> Element:
    return conversations.encode_conversation(
        ListedConversation(conversation=conversation, calls=calls, mention_id=mention), account=ANN, now=now
    )


def _shown_last(last: LastMessage) -> Element:
    found = _shown(replace(NEW, last=last)).find(f".//{clark(SYNC, 'last-message')}")
    assert found is not None
    return found[0]


def _change(version: int, kind: ChangeKind, rank: int, stanza: str | None = None, **values: Any) -> Change:
    given = {"conversation": BOB, "target_id": f"a{rank}"} | values
    return Change(version=version, kind=kind, target_rank=rank, stanza=stanza, **given)


CHANGES = (
    _change(38, ChangeKind.CORRECTED, 1),
    _change(39, ChangeKind.RETRACTED, 1),
    _change(40, ChangeKind.CORRECTED, 2, _stanza(CORRECTION)),
    _change(42, ChangeKind.CORRECTED, 3),
)
CHANGES_IN_TEA = (
    _change(50, ChangeKind.CORRECTED, 1, conversation=TEA),
    _change(51, ChangeKind.MODERATED, 1, conversation=TEA, author="tea@rooms.ex.org/Mod"),
    _change(52, ChangeKind.MODERATED, 2, conversation=TEA),
    _change(53, ChangeKind.RETRACTED, 3, conversation=TEA),
)


def _rewrites(changes: tuple[Change, ...], *invalidated: tuple[ConversationKey, int]) -> Element:
    everything = Element("all")
    page = RewritePage(newest=60, changes=changes, invalidated=invalidated)
    everything.extend(rewrite.headlines(page, account=ANN, to=f"{ANN}/web"))
    return everything


ANSWERS = {
    "conversation with everything": lambda: _shown(FULL, CALL, replace(CALL, rings_until=AT), mention="a7"),
    "new conversation": lambda: _shown(NEW),
    "peer that only asks for a subscription": lambda: _shown(replace(NEW, requests_presence=True)),
    "encrypted chat that is kept apart": lambda: _shown(replace(NEW, key=SEALED)),
    "tombstone of an encrypted chat": lambda: _shown(replace(NEW, key=OLD_SEALED, status=Status.DELETED)),
    "room": lambda: _shown(GROUP, mention="r2"),
    "room that the account is invited to": lambda: _shown(replace(NEW, key=TEA, invited_by="bob@ex.net/p")),
    "tombstone of a room": lambda: _shown(replace(GROUP, status=Status.DELETED)),
    "message moderated in a room": lambda: _shown(replace(GROUP, last=replace(SAID_IN_TEA, retracted=True)))[0][-1][0],
    "tombstone of a conversation": lambda: _shown(replace(FULL, status=Status.DELETED), CALL),
    "corrected message": lambda: _shown_last(_last(CORRECTION)),
    "retracted message": lambda: _shown_last(_last("<body>secret</body>", retracted=True)),
    "message without archive": lambda: _shown_last(_last("<body>hi</body>", message_id=None, archive_id=None)),
    "notice": lambda: conversations.notice(
        ListedConversation(conversation=replace(NEW, status=Status.DELETED)),
        account=ANN, newest=7, now=AT, request_id="n1",
    ),
    "rewrites": lambda: _rewrites(CHANGES, (ConversationKey(ANN, "carol@ex.net"), 41)),
    "rewrites in rooms": lambda: _rewrites(CHANGES_IN_TEA, (TEA, 54)),
}  # fmt: skip


@pytest.mark.parametrize("vector", load("synchronization", "get"))
def test_queries(vector: Element) -> None:
    check(vector, lambda payload: synchronization.decode_query(payload, account=ANN))


@pytest.mark.parametrize("vector", load("synchronization", "set"))
def test_changes_of_properties(vector: Element) -> None:
    check(vector, synchronization.decode_set)


@pytest.mark.parametrize("vector", load("conversations"))
def test_answers(vector: Element) -> None:
    assert shape(ANSWERS[str(vector.get("name"))]()) == xml_of(vector)


def test_a_mute_is_shown_while_it_lasts() -> None:
    assert _shown(replace(NEW, muted_until=AT), now=EARLIER).get("mute") == "1763687990"
    assert _shown(replace(NEW, muted_until=AT), now=AT).get("mute") is None
    assert _shown(replace(NEW, muted_until=FAR), now=AT).get("mute") == "253402300799"


def test_a_tombstone_may_have_lost_its_message() -> None:
    last = replace(_last("", retracted=True), stanza="")
    assert _shown_last(last).get("id") == "m1"


@pytest.mark.parametrize(
    ("kilobytes", "shown"), [((60,), [1]), ((65,), [0]), ((60, 60, 60, 60, 60, 1), [1, 1, 1, 1, 0, 1])]
)
def test_messages_that_are_too_large_are_left_out(kilobytes: tuple[int, ...], shown: list[int]) -> None:
    """A server ends the connection of a component that sends larger stanzas than it takes."""
    items = tuple(
        ListedConversation(conversation=replace(NEW, last=_last(f"<body>{'é' * 512 * size}</body>")))
        for size in kilobytes
    )
    query = ListQuery()
    page = conversations.encode_page(ConversationPage(query=query, newest=9, items=items, total=6), account=ANN, now=AT)
    found = [
        len(item.findall(f".//{clark(SYNC, 'last-message')}")) for item in page.findall(clark(SYNC, "conversation"))
    ]
    assert found == shown


def _of_many(peers: list[str], **asked: Any) -> ConversationPage:
    items = tuple(ListedConversation(conversation=replace(NEW, key=ConversationKey(ANN, peer))) for peer in peers)
    return ConversationPage(query=ListQuery(limit=len(peers), **asked), newest=9, items=items, total=5000)


@pytest.mark.parametrize("nearest", [0, -1])
def test_a_page_ends_where_its_space_ends(nearest: int) -> None:
    """Addresses as long as they may be (RFC 7622 §3.1), of characters that XML has to escape."""
    peers = [f"{n:04}@{'c' * 1000}/" + '"' * 1000 for n in range(2000)]
    page = _of_many(peers, at_end=nearest == -1)
    kept = conversations.fitting(page)
    assert 100 < len(kept.items) == kept.query.limit < 2000
    assert kept.items[nearest] == page.items[nearest]
    shown = serialise(conversations.encode_page(kept, account=ANN, now=AT))
    assert conversations.MAX_LIST_BYTES // 2 < len(shown) <= conversations.MAX_LIST_BYTES
    assert len(conversations.fitting(_of_many(["é" * 2**22])).items) == 1


def test_a_page_of_usual_addresses_has_as_many_as_there_may_be() -> None:
    said = replace(NEW, last=_last(f"<body>{'x' * 80}</body>", archive_id="a" * 36), read=Pointer(1, "a" * 36))
    item = ListedConversation(conversation=replace(said, key=ConversationKey(ANN, "somebody@somewhere.example.net")))
    page = replace(_of_many([]), items=(item,) * synchronization.MAX_LISTED)
    assert conversations.fitting(page) is page
    shown = serialise(conversations.encode_page(page, account=ANN, now=AT))
    assert len(shown) <= conversations.MAX_LIST_BYTES


def test_a_correction_that_is_too_large_invalidates() -> None:
    large = _change(40, ChangeKind.CORRECTED, 2, _stanza(f"<body>{'x' * 70_000}</body>"))
    assert [event[0].tag for event in _rewrites((large,))] == [clark(REWRITE_NOTIFY, "invalidate")]


def test_a_page_names_its_first_and_last_conversation() -> None:
    items = tuple(
        ListedConversation(conversation=replace(NEW, key=ConversationKey(ANN, peer), pinned=pinned))
        for peer, pinned in (("bob@ex.net", 5), ("carol@ex.net", 0))
    )
    query = ListQuery(since=3, pinned_first=True, limit=2)
    page = conversations.encode_page(ConversationPage(query=query, newest=9, items=items, total=7), account=ANN, now=AT)
    assert page.get("stamp") == "9"
    assert page.findtext(f".//{clark(RSM, 'count')}") == "7"
    after = page.findtext(f".//{clark(RSM, 'last')}")
    assert after is not None
    sort = SortKey(ringing=False, pinned=0, activity=1763687990000001, peer="carol@ex.net", kind=Kind.CHAT)
    assert decode_cursor(after, account=ANN) == Cursor(since=3, newest=9, sort=sort, pinned_first=True)


def test_an_empty_page_has_a_count_only() -> None:
    page = ConversationPage(query=ListQuery(limit=0), newest=9, items=(), total=7)
    result_set = conversations.encode_page(page, account=ANN, now=AT)[-1]
    assert [child.tag for child in result_set] == [clark(RSM, "count")]


@pytest.mark.parametrize("direction", ["after", "before"])
def test_a_continued_list_keeps_its_beginning(direction: str) -> None:
    """PROTOCOLS §2: every page answers the stamp of page one, also when a client drops its stamp on later pages."""
    sort = SortKey(ringing=False, pinned=0, activity=1, peer="bob@ex.net", kind=Kind.CHAT)
    cursor = Cursor(since=5, newest=9, sort=sort, pinned_first=True, pinned=False, archived=True)
    query = Element(clark(SYNC, "query"))
    SubElement(SubElement(query, clark(RSM, "set")), clark(RSM, direction)).text = encode_cursor(cursor, account=ANN)
    decoded = synchronization.decode_query(query, account=ANN)
    assert (decoded.since, decoded.pinned_first, decoded.pinned, decoded.archived) == (5, True, False, True)
    assert (decoded.after, decoded.before) == ((cursor, None) if direction == "after" else (None, cursor))
    assert (decoded.place, decoded.at_end) == (cursor, False)


NUMBERS = st.integers(0, 2**63 - 1)
CURSORS = st.builds(
    lambda since, newest, ringing, pinned, activity, peer, kind, filters: Cursor(
        since=since,
        newest=newest,
        sort=SortKey(ringing=ringing, pinned=pinned, activity=activity, peer=peer, kind=kind),
        pinned_first=filters[0],
        pinned=filters[1],
        archived=filters[2],
    ),
    NUMBERS, NUMBERS, st.booleans(), NUMBERS, NUMBERS,
    st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40), st.sampled_from(Kind),
    st.tuples(st.booleans(), st.none() | st.booleans(), st.none() | st.booleans()),
)  # fmt: skip


@given(CURSORS)
def test_a_cursor_comes_back_as_it_was(cursor: Cursor) -> None:
    text = encode_cursor(cursor, account=ANN)
    assert decode_cursor(text, account=ANN) == cursor
    assert text.replace("-", "").replace("_", "").isalnum()


@given(CURSORS, st.data())
def test_a_cursor_that_was_touched_names_nothing(cursor: Cursor, data: st.DataObject) -> None:
    text = encode_cursor(cursor, account=ANN)
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from([c for c in "AZaz09-_=+/é" if c != text[at]]))
    for touched in (text[:at] + other + text[at + 1 :], text[:at], text + other):
        with pytest.raises(ItemNotFound):
            decode_cursor(touched, account=ANN)


@given(st.text(max_size=60))
def test_what_is_no_cursor_names_nothing(text: str) -> None:
    with pytest.raises(ItemNotFound):
        decode_cursor(text, account=ANN)


def test_a_cursor_is_for_one_account() -> None:
    sort = SortKey(ringing=False, pinned=0, activity=1, peer="bob@ex.net", kind=Kind.CHAT)
    text = encode_cursor(Cursor(since=5, newest=9, sort=sort), account=ANN)
    with pytest.raises(ItemNotFound):
        decode_cursor(text, account="eve@ex.org")


@pytest.mark.parametrize("name", ["since", "newest", "pinned", "activity"])
@pytest.mark.parametrize("number", [-1, -(2**63)])
def test_no_cursor_of_ours_has_numbers_below_0(name: str, number: int) -> None:
    """The check of a cursor is no secret; a database's integers have an end."""
    sort = SortKey(ringing=False, pinned=0, activity=1, peer="bob@ex.net", kind=Kind.CHAT)
    good = Cursor(since=5, newest=9, sort=sort)
    inner = {name: number} if name in ("pinned", "activity") else {}
    bad = replace(good, sort=replace(sort, **inner), **({} if inner else {name: number}))  # type: ignore[arg-type]
    with pytest.raises(ItemNotFound):
        decode_cursor(encode_cursor(bad, account=ANN), account=ANN)
    assert decode_cursor(encode_cursor(good, account=ANN), account=ANN) == good


# ---- Rewrite -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attributes", "since", "limit"),
    [
        ("version='38' less-than='10'", 38, 10),
        ("version='38' less-than='1000'", 38, 50),
        ("version='38'", 38, 50),
        ("", 0, 50),
        ("version='' less-than='0'", 0, 0),
    ],
)
def test_rewrite_queries(attributes: str, since: int, limit: int) -> None:
    query = rewrite.decode_query(parse(f"<query xmlns='{REWRITE}' {attributes}/>"), kind="get")
    assert (query.since, query.limit) == (since, limit)


@pytest.mark.parametrize(("field", "value"), [("version", "x"), ("version", "-1"), ("less-than", "many")])
def test_rewrite_queries_that_are_refused(field: str, value: str) -> None:
    with pytest.raises(BadRequest, match=field):
        rewrite.decode_query(parse(f"<query xmlns='{REWRITE}' {field}='{value}'/>"), kind="get")


def test_rewriting_by_iq_is_not_offered() -> None:
    with pytest.raises(FeatureNotImplemented):
        rewrite.decode_query(Element(clark(REWRITE, "retract-message")), kind="set")


def test_the_answer_names_the_newest_version() -> None:
    assert rewrite.result(RewritePage(newest=41, changes=())).get("version") == "41"
