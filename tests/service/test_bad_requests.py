"""Every request, in every changed form, from and to every address, through the real door: each gets one answer with a
condition that is specified, and nobody learns or changes anything of another account.
"""

import asyncio
from xml.etree.ElementTree import Element

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from sync.protocol.names import CONVSYNC, PUSH, REWRITE, RSM, SYNC, clark, namespace
from sync.protocol.serialise import parse
from tests.contract.samples import (
    ANN,
    EVE,
)
from tests.service.prompt import (
    HOST,
    QUIET,
    TOKENS,
    delegated,
    direct,
    put,
)
from tests.service.wild import REQUESTS, each_changed, form, payloads
from tests.system.requests import FILES, requests


def addressed(name: str, payload: Element, to: str | None, kind: str) -> Element:
    request = REQUESTS[name]
    return direct(payload, kind) if request.component else delegated(payload, kind, to)


@pytest.mark.parametrize("name", REQUESTS)
@QUIET
@given(data=st.data())
def test_whatever_is_asked_gets_a_specified_answer(name: str, data: st.DataObject) -> None:
    payload = data.draw(payloads(TOKENS, name))
    kind = data.draw(st.sampled_from([REQUESTS[name].kind] * 4 + ["get", "set"]))
    to = data.draw(st.sampled_from([None, None, ANN, ANN, EVE, HOST, f"{ANN}/web", f"{ANN}/phone", "x"]))
    asked = addressed(name, payload, to, kind)
    told, _ = asyncio.run(put(asked))
    event(f"{name}: {told}")
    if to in (EVE, HOST, "x") and not REQUESTS[name].component:
        assert told == "forbidden"


NEVER_ANSWERED = ("rewrite", "enable", "unregister", "publish", "register elsewhere")  # the last: no app of theirs


@pytest.mark.parametrize("name", REQUESTS)
def test_every_attribute_and_text_of_every_request(name: str) -> None:
    """Absent, empty, negative, huge, no number, of another type; and whatever stands for a place or a token."""

    async def ask() -> set[str]:
        request = REQUESTS[name]
        return {(await put(addressed(name, payload, None, request.kind)))[0] for payload in each_changed(name, TOKENS)}

    assert asyncio.run(ask()) > {"result"} or name in ("version", *NEVER_ANSWERED)


@pytest.mark.parametrize("name", REQUESTS)
def test_the_good_ones_are_answered(name: str) -> None:
    """Else the changed ones would show nothing."""
    request = REQUESTS[name]
    told, _ = asyncio.run(put(addressed(name, parse(request.xml), ANN, request.kind)))
    expected = {
        "rewrite": "feature-not-implemented",
        "sync some": "bad-request",  # its token is none
        "enable": "forbidden",
        "publish": "forbidden",
        "unregister": "item-not-found",
        "register elsewhere": "item-not-found",
    }
    assert told == expected.get(name, "result")


OURS = {SYNC, REWRITE, CONVSYNC, PUSH}


def said(payload: Element) -> set[tuple[str, str]]:
    """The attributes of our namespaces in a request, by element; an element without any has an empty one."""
    ours = [element for element in payload.iter() if namespace(element.tag) in OURS]
    return {(element.tag, name) for element in ours for name in ("", *element.attrib) if not namespace(name)}


def test_nothing_that_can_be_asked_is_left_out() -> None:
    """Whatever a good request of the vectors says, one of those that are changed says, too."""
    changed = set[tuple[str, str]]().union(*(said(parse(request.xml)) for request in REQUESTS.values()))
    good = [one for file in FILES for one in requests(file).values() if one.refused is None]
    assert set[tuple[str, str]]().union(*(said(parse(one.payload)) for one in good)) - changed == set()


DEEP = parse("<a xmlns='urn:example'>" * 9000 + "</a>" * 9000)
WIDE = {
    "deep": [DEEP],
    "elements": [Element(clark("urn:example", "a")) for _ in range(20_000)],
    "conversations": [Element(clark(CONVSYNC, "conversation"), {"jid": f"n{n}@x", "pinned": "1"}) for n in range(2000)],
    "result sets": [Element(clark(RSM, "set")) for _ in range(2000)],
    "fields": [parse(form(**{f"f{n}": "v" for n in range(5000)}))],
}


@pytest.mark.parametrize("what", WIDE)
@pytest.mark.parametrize("name", REQUESTS)
def test_as_much_as_a_stanza_holds_is_answered(name: str, what: str) -> None:
    payload = parse(REQUESTS[name].xml)
    payload.extend(WIDE[what])
    asyncio.run(put(addressed(name, payload, None, REQUESTS[name].kind)))
