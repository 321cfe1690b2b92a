"""The vectors' answers, from real servers: the values that a vector shows are stored as rows of an account, a client
asks, and what comes back through component and server is the vector's XML.

Left out is what depends on the moment (calls that ring, mutes that are over), on versions that are given out (sets),
and on ids that only the archive's history has. Token and time of a `sync` are taken as they are.
"""

import xml.etree.ElementTree as ET
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from sync.model.call import CallKey
from sync.model.conversation import Conversation, ConversationKey, Pointer, Status
from sync.model.delta import DeltaToken, Filters
from sync.protocol.serialise import parse, serialise
from sync.protocol.token import encode_token
from tests.contract.samples import message
from tests.contract.stores import on_postgres
from tests.core import test_protocol_convsync as own
from tests.core import test_protocol_delta as delta
from tests.core import test_protocol_inbox as inbox
from tests.core import test_protocol_synchronization as lists
from tests.core.protocol_vectors import FOLDER, shape
from tests.system.box import Box
from tests.system.person import COMMANDS, REWRITE, RSM, SYNC
from tests.system.xmpp_client import CLIENT

OWN, INBOX = "urn:convsync:0", "urn:xmpp:inbox:1"
ANN = "ann@ex.org"
OWNER = delta.OWNER
LISTED = f"<query xmlns='{SYNC}'/>"
SINCE = f"<query xmlns='{SYNC}' stamp='1'><set xmlns='{RSM}'><max>5</max></set></query>"
LAST = f".//{{{SYNC}}}last-message/{CLIENT}message"
ROW = f"{{{SYNC}}}conversation"


@dataclass(frozen=True)
class Case:
    """What is stored, what is asked, and where in what comes the vector's XML is (None: the payload)."""

    file: str
    name: str
    conversation: Conversation
    ask: str
    find: str | None = None
    rows: dict[str, Any] = field(default_factory=dict)


def listed(name: str, conversation: Conversation, ask: str = LISTED, find: str = ROW, **rows: Any) -> Case:
    return Case("conversations", name, conversation, ask, find, rows)


def of_own(name: str, conversation: Conversation) -> Case:
    key = conversation.key
    return Case(
        "convsync", name, conversation, f"<conversation xmlns='{OWN}' jid='{key.peer}' kind='{key.kind.value}'/>"
    )


def entry(name: str, conversation: Conversation, ask: str = f"<inbox xmlns='{INBOX}'/>", **rows: Any) -> Case:
    return Case("inbox_answers", name, conversation, ask, "entry", rows)


NOTHING_NEW = DeltaToken(epoch=2, since=90, log=90)
PINNED = DeltaToken(epoch=2, filters=Filters(pinned=True).digest, since=50, log=50)
BOB, FORGED = lists.NEW, lists._stanza(lists.FORGED)
MENTION = message(2, key=lists.TEA, mention=True, archive_id="r2", sent_at=lists.AT)
CASES = [
    listed("new conversation", BOB),
    listed("peer that only asks for a subscription", replace(BOB, requests_presence=True)),
    listed("room that the account is invited to", replace(BOB, key=lists.TEA, invited_by="bob@ex.net/p")),
    listed("encrypted chat that is kept apart", replace(BOB, key=lists.SEALED)),
    listed("tombstone of an encrypted chat", replace(BOB, key=lists.OLD_SEALED, status=Status.DELETED), SINCE),
    listed("room", lists.GROUP, messages=[replace(MENTION, rank=3, mention=False, archive_id="r3"), MENTION]),
    listed("tombstone of a room", replace(lists.GROUP, status=Status.DELETED, unread=0, mentions=0), SINCE),
    listed("tombstone of a conversation", replace(BOB, status=Status.DELETED), SINCE),
    listed("corrected message", replace(BOB, last=lists._last(lists.CORRECTION)), find=LAST),
    listed("retracted message", replace(BOB, last=lists._last("<body>secret</body>", retracted=True)), find=LAST),
    listed(
        "message without archive",
        replace(BOB, last=lists._last("<body>hi</body>", message_id=None, archive_id=None)),
        find=LAST,
    ),
    listed(
        "message moderated in a room", replace(lists.GROUP, last=replace(lists.SAID_IN_TEA, retracted=True)), find=LAST
    ),
    of_own("new conversation", own.NEW),
    of_own("room that the account is invited to", own.INVITED),
    of_own("deleted conversation", replace(own.FULL, status=Status.DELETED, unread=0, mentions=0)),
    Case(
        "convsync",
        "changes",
        replace(own.NEW, version=44),
        f"<changes xmlns='{OWN}' jid='bob@ex.net'/>",
        rows={"changes": list(own.LOG)},
    ),
    Case("convsync", "no changes", replace(own.NEW, version=44), f"<changes xmlns='{OWN}' jid='bob@ex.net'/>"),
    entry("an entry and its message", replace(BOB, unread=5, last=replace(lists.FULL.last, stanza=FORGED))),
    entry("an entry alone", replace(BOB, last=lists._last("")), f"<inbox xmlns='{INBOX}' messages='false'/>"),
    entry("nothing is archived", replace(BOB, unread=1, last=lists._last("<body>hi</body>", archive_id=None))),
    entry("a private message of a room", replace(BOB, key=inbox.IN_TEA, unread=1, last=inbox.PRIVATE)),
    Case("delta", "nothing new", delta.WITH_BOB, f"<sync xmlns='{OWN}' token='NOTHING_NEW'/>"),
    Case("delta", "what is outside", delta.WITH_BOB, f"<sync xmlns='{OWN}' pinned='true' token='PINNED'/>"),
    Case(
        "delta",
        "a call that was taken",
        delta.WITH_BOB,
        f"<call xmlns='{OWN}' id='c2'/>",
        rows={"calls": [replace(delta.TAKEN, key=CallKey(ANN, "bob@ex.net", "c2"))]},
    ),
]


def expected(file: str, name: str) -> ET.Element:
    vectors = parse((FOLDER / f"{file}.xml").read_text()).findall("vector")
    (found,) = [v for v in vectors if v.get("name") == name and v.find("xml") is not None]
    answer = found.find("xml")
    assert answer is not None
    return answer[0]


def moved(value: Any, account: str) -> Any:
    """The value with another account in the place of the vectors' own, wherever it is named."""
    if isinstance(value, str):
        return value.replace(ANN, account)
    if isinstance(value, list | tuple):
        return type(value)(moved(item, account) for item in value)
    if isinstance(value, dict):
        return {key: moved(item, account) for key, item in value.items()}
    if hasattr(value, "__dataclass_fields__") and not isinstance(value, Pointer):
        return replace(value, **{name: moved(getattr(value, name), account) for name in value.__dataclass_fields__})
    return value


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.file}: {case.name}")
async def test_an_answer_is_the_vectors(case: Case, box: Box) -> None:
    ann = await box.person(resource="web", presence=False)
    owner = replace(OWNER, jid=ann.account)
    async with on_postgres(box.ready["postgres"], size=1) as bench:
        rows = moved({"conversations": [case.conversation], **case.rows}, ann.account)
        await bench.put(ann.account, accounts=[owner], **rows)
    begin, ask = len(ann.received), case.ask
    for name, token in (("NOTHING_NEW", NOTHING_NEW), ("PINNED", PINNED)):
        ask = ask.replace(name, encode_token(token, account=ann.account))
    answer = await ann.iq("get", ask, iq_id="i1")
    found = answer[0]
    if case.find == "entry":
        (found,) = [e for e in ann.received[begin:] if e.find(f"{{{INBOX}}}entry") is not None]
    elif case.find is not None:
        inner = found.find(case.find)
        assert inner is not None, ET.tostring(found)
        found = inner
    wanted = parse(moved(serialise(expected(case.file, case.name)), ann.account))
    for moment in ("token", "time") if case.file == "delta" else ():
        if moment in wanted.attrib and moment in found.attrib:
            wanted.set(moment, found.attrib[moment])
    assert shape(found) == shape(wanted)


CAROL = ConversationKey(ANN, "carol@ex.net")
# Of a conversation whose log was trimmed behind the version that a client has, nobody knows all rewrites.
REWRITTEN = {
    "rewrites": (
        37,
        (replace(BOB, version=42, rewritten=42), replace(BOB, key=CAROL, version=41, rewritten=41, log_from=40)),
        lists.CHANGES,
    ),
    "rewrites in rooms": (
        49,
        (replace(lists.GROUP, version=54, rewritten=54, log_from=50),),
        lists.CHANGES_IN_TEA,
    ),
}


@pytest.mark.parametrize("name", REWRITTEN)
async def test_headlines_are_the_vectors(name: str, box: Box) -> None:
    """What was rewritten, oldest first, and then the newest version."""
    ann = await box.person(resource="web", presence=False)
    since, conversations, changes = REWRITTEN[name]
    async with on_postgres(box.ready["postgres"], size=1) as bench:
        rows = moved({"conversations": list(conversations), "changes": list(changes)}, ann.account)
        await bench.put(ann.account, accounts=[replace(OWNER, jid=ann.account)], **rows)
    answer = await ann.iq("get", f"<query xmlns='{REWRITE}' version='{since}'/>")
    wanted = parse(moved(serialise(expected("conversations", name)), ann.account))
    headlines = [one for one in ann.received if one.get("type") == "headline"]
    assert [shape(one) for one in headlines] == [shape(one) for one in wanted]
    newest = expected("rewrite", "the newest version")
    newest.set("version", str(OWNER.version))
    assert shape(answer[0]) == shape(newest)


ASKED = {
    "the form of register-device": ("register-device", ""),
    "the form of unregister-device": ("unregister-device", ""),
    "the form of register-push-apns": ("register-push-apns", ""),
    "the form of unregister-push, without devices": ("unregister-push", ""),
    "canceled": ("register-device", " action='cancel'"),
    "a list of none": ("list-push-registrations", ""),
}


@pytest.mark.parametrize("name", ASKED)
async def test_answers_of_commands_are_the_vectors(name: str, box: Box) -> None:
    ann = await box.person(resource="phone", presence=False)
    node, action = ASKED[name]
    command = f"<command xmlns='{COMMANDS}' node='{node}' sessionid='u7'{action}/>"
    answer = await ann.iq("set", command, to=box.ready["component"])
    assert shape(answer[0]) == shape(expected("commands_answers", name))
