"""Whatever state an account is in, what `urn:convsync:0` says of it is of the schema: answers and live notices over
arbitrary conversations, calls and change logs, and the order in which they stand.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from xml.etree.ElementTree import Element

from hypothesis import event, given
from hypothesis import strategies as st

from sync.model.call import Call, CallState
from sync.model.conversation import Account, Change, ChangeKind, Notify, Pointer, Status
from sync.model.delta import DeltaItem, DeltaPage, DeltaQuery, Filters, Reset
from sync.protocol import delta
from sync.protocol.live import encode_live, headline
from sync.protocol.names import CONVSYNC, clark
from sync.protocol.portrait import CALL, CONVERSATION
from tests.contract.samples import ANN, NOW, account, call, change, conversation, last, membership
from tests.core.convsync_schema import faults, wrapped

TOP = 2**63 - 1
ENDINGS = [state.value for state in CallState if not state.is_open]
# What XML 1.0 §2.2 allows, and what is awkward in it.
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn", "Co")), min_size=1, max_size=20)
COUNT = st.integers(0, TOP)
FLAG = st.booleans()
STANZA = st.integers(0, 70_000).map(lambda size: f"<message xmlns='jabber:client'><body>{'x' * size}</body></message>")


def times() -> st.SearchStrategy[datetime]:
    return st.integers(-(10**7), 10**7).map(lambda seconds: NOW + timedelta(seconds=seconds, microseconds=7))


@st.composite
def changes(draw: st.DrawFn, version: int) -> Change:
    """As the rules write them (docs/protocol.md §6): each kind with what it may have."""
    kind = draw(st.sampled_from(ChangeKind))
    fields: dict[str, Any] = {"kind": kind, "target_id": draw(TEXT), "stanza": None}
    if kind in (ChangeKind.CORRECTED, ChangeKind.REACTED):
        fields["stanza"] = draw(st.none() | STANZA)
    if kind in (ChangeKind.MODERATED, ChangeKind.REACTED):
        fields["author"] = draw(st.none() | TEXT)
    if kind is ChangeKind.FAILED:
        fields["detail"] = draw(st.none() | st.just("remote-server-not-found"))
    if kind is ChangeKind.CALL_ENDED:
        fields["detail"] = draw(st.sampled_from(ENDINGS))
    return change(version, **fields)


@st.composite
def items(draw: st.DrawFn, version: int, query: DeltaQuery) -> DeltaItem:
    """A conversation of this version as the page of a query has it."""
    pointers = st.builds(Pointer, st.just(1), TEXT) | st.just(Pointer())
    fields = {
        "status": draw(st.sampled_from(Status if query.since else (Status.ACTIVE, Status.ARCHIVED))),
        "activity_at": draw(times()),
        "unread": draw(COUNT),
        "mentions": draw(COUNT),
        "marked_unread": draw(FLAG),
        "pinned": draw(COUNT),
        "notify": draw(st.none() | st.sampled_from(Notify)),
        "muted_until": draw(st.none() | st.just(datetime.max.replace(tzinfo=NOW.tzinfo)) | times()),
        "invited_by": draw(st.none() | TEXT),
        "requests_presence": draw(FLAG),
    }
    fields |= {name: draw(pointers) for name in ("read", "displayed", "delivered")}
    found = draw(st.sampled_from((conversation, membership)))(version, **fields)
    left_out = query.messages and draw(FLAG)
    if query.messages and not left_out and draw(FLAG):
        found = replace(found, last=last(stanza=draw(STANZA), archive_id=draw(st.none() | TEXT), retracted=draw(FLAG)))
    log: tuple[Change, ...] | None = ()
    if query.changes and query.since:
        log = draw(st.none() | st.lists(changes(version), max_size=3).map(tuple))
    return DeltaItem(
        conversation=found,
        matches=not query.filters.may_change or draw(FLAG),
        mention_id=draw(st.none() | TEXT),
        left_out=left_out,
        changes=log,
    )


@st.composite
def calls(draw: st.DrawFn, states: Sequence[CallState]) -> Call:
    media = st.lists(st.sampled_from(("audio", "video")), unique=True).map(tuple)
    state = draw(st.sampled_from(states))
    waits = state in (CallState.RINGING, CallState.OUTGOING)
    return call(
        sid=draw(TEXT),
        state=state,
        version=draw(st.integers(1, TOP)),
        proposed_at=draw(times()),
        rings_until=draw(times()),
        media=draw(media),
        answered_by=None if waits else draw(st.none() | TEXT),
        stanza=draw(st.none() | STANZA),
    )


@st.composite
def pages(draw: st.DrawFn, *, filtered: bool = True) -> DeltaPage:
    """A page out of some state, as the store hands it over."""
    versions = sorted(draw(st.sets(st.integers(2, TOP - 1), max_size=5)), reverse=True)
    since = draw(st.sampled_from((0, 1)))
    filters = Filters(unread=True) if filtered and draw(FLAG) else Filters()
    query = DeltaQuery(
        since=since,
        log=since,
        filters=filters,
        limit=100,
        messages=not filtered or draw(FLAG),
        changes=not filtered or draw(FLAG),
    )
    counts: dict[str, Any] = {name: draw(COUNT) for name in ("unread", "mentions", "unread_conversations")}
    owner: Account = account(version=TOP, **counts)
    settled = [state for state in CallState if state not in (CallState.RINGING, CallState.OUTGOING)]
    return DeltaPage(
        query=query,
        owner=owner,
        ringing=tuple(draw(st.lists(calls([CallState.RINGING]), max_size=2))),
        settled=tuple(draw(st.lists(calls(settled), max_size=2))) if since else (),
        items=tuple(draw(items(version, query)) for version in versions),
        more=bool(versions) and draw(FLAG),
    )


def tags(answer: Element) -> list[str]:
    return [child.tag for child in answer]


@given(page=pages(), reset=st.none() | st.sampled_from(Reset), preview=st.none() | st.integers(0, 256))
def test_every_answer_is_of_the_schema(page: DeltaPage, reset: Reset | None, preview: int | None) -> None:
    answer, token = delta.encode_sync(page, now=NOW, reset=reset, preview=preview)
    assert faults(wrapped(answer)) == []
    order = {clark(CONVSYNC, "totals"): 0, CALL: 1, CONVERSATION: 2}
    assert tags(answer) == sorted(tags(answer), key=order.__getitem__)
    assert (answer.get("more") == "true") == (token.since != page.version)
    event(f"{len(answer)} children")


@given(page=pages(filtered=False))
def test_every_notice_is_of_the_schema(page: DeltaPage) -> None:
    page = replace(page, query=replace(page.query, since=1, log=1))
    live = encode_live(page, now=NOW)
    assert faults(headline(live, account=ANN, resource="phone")) == []
    assert (live.get("more") == "true") == (not len(live))


@given(found=calls(list(CallState)))
def test_every_call_is_of_the_schema(found: Call) -> None:
    assert faults(wrapped(delta.shown_call(found, now=NOW))) == []
