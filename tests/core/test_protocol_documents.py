"""What is written about `urn:convsync:0` is true: examples in the documents, the vectors of encoders and decoders, and
the schema agree with each other. So do the payloads that the guide for iPhones shows and the rule that makes them.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID
from xml.etree.ElementTree import Element

import pytest

from sync.model.delta import SyncRequest
from sync.model.device import PushKind
from sync.model.errors import RequestError
from sync.model.query import EnablePush, RegisterDevice, Registration
from sync.protocol import commands, convsync, disco, push
from sync.protocol.names import CLIENT, CONVSYNC, clark
from sync.protocol.portrait import CONVERSATION
from sync.protocol.serialise import parse
from sync.protocol.token import decode_token
from sync.rules.claims import Claim
from sync.rules.payloads import Names, Wording, request
from tests.contract.samples import account, call, call_job, device, job
from tests.core.convsync_schema import faults, is_ours, wrapped
from tests.core.protocol_vectors import FOLDER, shape

DOCS = Path(__file__).parents[2] / "docs"
DOCUMENTS = [DOCS / "protocol.md", *sorted((DOCS / "clients").glob("*.md"))]
ANN = "ann@example.org"
_BLOCK = re.compile(r"^```xml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PAYLOAD = re.compile(r"^```json\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)#:]*)(#[^)]*)?\)")


class Example(NamedTuple):
    """A stanza of a document."""

    document: str
    stanza: Element


def blocks(document: Path) -> Iterator[Element]:
    """The XML of a document, each block as the content of a client's stream."""
    for text in _BLOCK.findall(document.read_text()):
        yield parse(f"<stream xmlns='{CLIENT}'>{text}</stream>")


def examples() -> list[Any]:
    """Every stanza of the documents with something of ours in it, as parameters."""
    found = [
        Example(document.name, stanza)
        for document in DOCUMENTS
        for block in blocks(document)
        for stanza in block
        if any(is_ours(element) for element in stanza.iter())
    ]
    return [pytest.param(one, id=f"{one.document}-{n}-{one.stanza.get('id', 'notice')}") for n, one in enumerate(found)]


EXAMPLES = examples()
REQUESTS = [one for one in EXAMPLES if one.values[0].stanza.get("type") in ("get", "set")]
TOLD = [one for one in EXAMPLES if one.values[0].stanza.find("{*}sync/{*}totals") is not None]


def test_there_are_examples_of_everything() -> None:
    shown = {(one.stanza.get("type"), one.stanza[0].tag.partition("}")[2]) for [one] in (p.values for p in EXAMPLES)}
    requests = {("get", name) for name in ("sync", "call", "conversation", "changes")} | {("set", "set")}
    assert shown >= requests | {("result", name) for _, name in requests} | {("headline", "live")}


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_are_of_the_schema(example: Example) -> None:
    assert faults(example.stanza) == []


@pytest.mark.parametrize("example", REQUESTS)
def test_requests_of_the_documents_are_accepted(example: Example) -> None:
    stanza = example.stanza
    assert convsync.decode(stanza[0], account=ANN, kind=str(stanza.get("type")))


def versions(answer: Element) -> list[int]:
    return [int(str(c.get("version"))) for c in answer if c.tag == CONVERSATION]


@pytest.mark.parametrize("example", TOLD)
def test_answers_of_the_documents_can_be_true(example: Example) -> None:
    """Newest first, none above the answer's version; the token stands where the answer ends."""
    answer = example.stanza[0]
    told, shown = int(str(answer.get("version"))), versions(answer)
    assert all(one > other for one, other in pairwise([told + 1, *shown]))
    token = decode_token(str(answer.get("token")), account=ANN)
    if answer.get("more") is None:
        assert (token.since, token.low) == (told, None)
    elif shown:
        assert (token.newest, token.low) == (told, shown[-1])
    else:
        assert token.says_nothing


NOTICES = [one for one in EXAMPLES if one.values[0].stanza.get("type") == "headline"]


@pytest.mark.parametrize("example", NOTICES)
def test_notices_of_the_documents_can_be_true(example: Example) -> None:
    """From Ann to Ann; all that they tell happened between the two versions; the token goes on behind them, or, where
    they tell nothing, from where they begin.
    """
    stanza = example.stanza
    assert (stanza.get("from"), str(stanza.get("to")).partition("/")[0]) == (ANN, ANN)
    live = stanza[0]
    previous, told = int(str(live.get("previous"))), int(str(live.get("version")))
    assert all(one > other for one, other in pairwise([told + 1, *versions(live), previous]))
    token = decode_token(str(live.get("token")), account=ANN)
    assert token.since == (previous if live.get("more") else told)


def test_a_request_of_the_documents_gets_the_answer_of_its_id() -> None:
    """An answer of a document follows the question of its id, and has the form that was asked for."""
    for document in DOCUMENTS:
        asked: dict[str, Element] = {}
        for stanza in (stanza for block in blocks(document) for stanza in block if stanza.tag == clark(CLIENT, "iq")):
            assert stanza.get("id"), f"{document.name}: an IQ without an id"
            if stanza.get("type") in ("get", "set"):
                assert str(stanza.get("id")) not in asked, f"{document.name}: two requests {stanza.get('id')}"
                asked[str(stanza.get("id"))] = stanza
            elif stanza.get("type") == "result" and len(stanza):
                assert stanza[0].tag == asked[str(stanza.get("id"))][0].tag, f"{document.name}: {stanza.get('id')}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target, anchor in _LINK.findall(document.read_text()):
        found = (document.parent / target).resolve() if target else document
        assert found.exists(), f"{document.name}: {target}"
        if anchor and found.suffix == ".md":
            assert anchor[1:] in anchors(found), f"{document.name}: {target}{anchor}"


def anchors(document: Path) -> set[str]:
    """The names of a document's headings, as forges make them."""
    titles = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


# ---- what else is said to the component ------------------------------------------------------------------------------


def others() -> dict[str, Element]:
    """The IQs of the documents that are not ours, by id; a result's ends in `!`."""
    stanzas = [stanza for document in DOCUMENTS for block in blocks(document) for stanza in block]
    return {
        f"{stanza.get('id')}{'!' * (stanza.get('type') == 'result')}": stanza
        for stanza in stanzas
        if stanza.tag == clark(CLIENT, "iq") and len(stanza) and not is_ours(stanza[0])
    }


def test_nested_discovery_is_answered_as_the_specification_says() -> None:
    said = others()
    assert shape(disco.info(said["n1"][0], commands={})) == shape(said["n1!"][0])


def test_a_phone_registers_as_the_guide_says() -> None:
    said, sender = others(), f"{ANN}/phone"
    command = commands.decode_command(said["r1"][0], sender=sender, request_id="r1")
    assert isinstance(command.request, RegisterDevice)
    told = said["r1!"][0].iterfind(".//{*}field")
    values = {str(field.get("var")): str(field.findtext("{*}value")) for field in told}
    answer = commands.registered(
        command, Registration(node=values["node"], secret=values["secret"]), "sync.example.org"
    )
    assert shape(answer) == shape(said["r1!"][0])
    enabled = push.decode_push(said["e1"][0], kind="set", sender=sender)
    assert isinstance(enabled, EnablePush)
    assert (enabled.node, enabled.secret) == (values["node"], values["secret"])


# ---- what is encoded and decoded ------------------------------------------------------------------------------------


def said() -> list[Any]:
    """What the vectors expect of encoders, of any file, where it is ours."""
    files = sorted(path.stem for path in FOLDER.glob("*.xml"))
    found = [(vector, f"{name}: {vector.get('name')}") for name in files for vector in of(name)]
    return [pytest.param(vector, id=name) for vector, name in found if any(map(is_ours, expected(vector)))]


def of(name: str) -> list[Element]:
    """The vectors of a file."""
    return parse((FOLDER / f"{name}.xml").read_text()).findall("vector")


def expected(vector: Element) -> list[Element]:
    """The XML that a vector expects."""
    xml = vector.find("xml")
    return [] if xml is None else list(xml)


@pytest.mark.parametrize("vector", said())
def test_what_the_encoders_make_is_of_the_schema(vector: Element) -> None:
    [payload] = expected(vector)
    assert faults(wrapped(payload)) == []


# What a grammar does not know: counting across elements, the years that there are, whose a token is, which JIDs exist.
BEYOND = {
    "muted until the end and a little",
    "one conversation twice",
    "a hundred and one",
    "jid that is none",
    "a token in other letters",
    "a token of nobody",
    "hours of no length",
}


@pytest.mark.parametrize("kind", ["get", "set"])
def test_schema_and_decoder_accept_the_same_requests(kind: str) -> None:
    for vector in (vector for vector in of("convsync") if vector.get("kind") == kind):
        name, refused = str(vector.get("name")), vector.find("refused") is not None
        assert bool(faults(wrapped(vector[0], kind))) == (refused and name not in BEYOND), name


BROKEN = {
    "no type": "<iq id='1'><sync/></iq>",
    "a request as an answer": "<iq type='result' id='1'><sync max='5'/></iq>",
    "an attribute more": "<iq type='get' id='1'><sync colour='red'/></iq>",
    "an element more": "<iq type='get' id='1'><sync><colour/></sync></iq>",
    "a token too long": f"<iq type='get' id='1'><sync token='{'A' * 129}'/></iq>",
    "two ways to mute": "<iq type='set' id='1'><set><conversation jid='b@x' muted='5' muted-until='NOW'/></set></iq>",
    "a deleted one with counters": "<iq type='result' id='1'><conversation jid='b@x' kind='chat' version='1' "
    "status='deleted' activity='NOW' unread='1'/></iq>",
    "a time without zone": "<iq type='result' id='1'><conversation jid='b@x' kind='chat' version='1' "
    "status='deleted' activity='2025-11-21T06:00:00.000000'/></iq>",
    "a ringing call without its age": "<iq type='result' id='1'><call id='c' jid='b@x' from='b@x/p' state='ringing' "
    "version='1' proposed='NOW' left='5'/></iq>",
    "a notice with content that says more": "<message type='headline'><live previous='1' version='2' token='A' "
    "time='NOW' more='true'><totals unread='0' mentions='0' conversations='0'/></live></message>",
    "a retraction with a text": "<iq type='result' id='1'><changes jid='b@x' kind='chat' version='2'>"
    "<change kind='retracted' id='a' version='1'><message xmlns='jabber:client'/></change></changes></iq>",
}


def stanza_of(text: str) -> Element:
    """The stanza in a client's stream; what is inside is of our namespace where it says nothing."""
    stream, ours = f"<stream xmlns='{CLIENT}'>", re.sub(r"(?<=><)(\w+)", rf"\1 xmlns='{CONVSYNC}'", text, count=1)
    return parse(f"{stream}{ours.replace('NOW', '2025-11-21T06:00:00.000000Z')}</stream>")[0]


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_the_schema_refuses(text: str) -> None:
    assert faults(stanza_of(text))


@pytest.mark.parametrize(
    ("broken", "mended"), [("colour='red'", "max='5'"), ("<colour/>", ""), ("left='5'", "left='5' age='1'")]
)
def test_what_the_schema_refuses_is_what_is_broken(broken: str, mended: str) -> None:
    text = next(text for text in BROKEN.values() if broken in text)
    assert not faults(stanza_of(text.replace(broken, mended)))


def test_a_token_of_the_documents_is_anns_alone() -> None:
    request = next(one.values[0].stanza[0] for one in REQUESTS if one.values[0].stanza[0].get("token"))
    assert isinstance(convsync.decode(request, account=ANN, kind="get"), SyncRequest)
    with pytest.raises(RequestError):
        convsync.decode(request, account="bob@example.net", kind="get")


PAYLOADS = [json.loads(text) for text in _PAYLOAD.findall((DOCS / "clients" / "ios.md").read_text())]


def made(payload: dict[str, Any]) -> object:
    """What the rule makes of the values in a payload."""
    extra, voip = payload["x"], "aps" not in payload
    kind, name = PushKind(extra["k"]), UUID(extra["c"]).bytes if "c" in extra else None
    of = (call_job if voip else job)(kind=kind, version=extra["v"], collapse="c" if name else "w", voip=voip)
    of = replace(of, job_id=extra.get("n", of.job_id))
    about = call(rings_until=datetime.fromtimestamp(extra.get("exp", 0), UTC), media=tuple(extra.get("m", "").split()))
    claim = Claim(job=of, device=device(), account=account(), call=about)
    return request(claim, "token", Names(account=extra["a"], call=name), Wording()).payload


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: payload["x"]["k"])
def test_payloads_of_the_guide_are_those_that_are_sent(payload: dict[str, Any]) -> None:
    assert made(payload) == payload


def test_the_guide_shows_every_kind_of_push() -> None:
    shown = [("aps" in payload, payload["x"]["k"]) for payload in PAYLOADS]
    kinds = {kind.value for kind in PushKind} - {PushKind.CALL_FALLBACK.value}  # which says that it is a call
    assert sorted(shown) == sorted([(True, kind) for kind in kinds] + [(False, "call")])
