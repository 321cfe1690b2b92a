"""What is somebody else's is refused, in every dialect and form of address; so is an envelope that is none."""

import asyncio
from xml.etree.ElementTree import SubElement

import pytest
from hypothesis import given

from sync.protocol.names import RSM, clark
from sync.protocol.serialise import parse, serialise
from tests.contract.samples import (
    ANN,
    EVE,
)
from tests.service.prompt import (
    COMPONENT_JID,
    ELSEWHERE,
    HOST,
    QUIET,
    TOKENS,
    House,
    cursor,
    delegated,
    direct,
    outcome,
    place,
    put,
)
from tests.service.wild import REQUESTS, values

# ---- other accounts --------------------------------------------------------------------------------------------------


OTHERS = [
    *(EVE, EVE.upper(), f"{EVE}/web", HOST, ELSEWHERE, f"{ELSEWHERE}/x", "tea@rooms.example.org", COMPONENT_JID),
    *(
        "ann@example.com",
        "ann",
        "@example.org",
        "ann@",
        f"{ANN}.",
        f" {ANN}",
        f"{ANN}@{HOST}",
        "x" * 3000,
        f"{EVE}/{ANN}",
    ),
]


@pytest.mark.parametrize("to", OTHERS)
@pytest.mark.parametrize("name", [name for name, request in REQUESTS.items() if not request.component])
def test_another_account_is_forbidden_in_every_dialect_and_form_of_address(name: str, to: str) -> None:
    request = REQUESTS[name]
    told, house = asyncio.run(put(delegated(parse(request.xml), request.kind, to)))
    assert told == "forbidden"
    assert house.line.asked == []


@pytest.mark.parametrize(
    ("sender", "host"),
    [
        (f"{EVE}/web", ELSEWHERE),  # a host asks for an account of another one
        (f"ann@{ELSEWHERE}/web", ELSEWHERE),  # a host that is not served
        (HOST, HOST),
        (f"{HOST}/web", HOST),
        (f"@{HOST}/web", HOST),
        ("ann/web", HOST),
    ],
)
@pytest.mark.parametrize("name", [name for name, request in REQUESTS.items() if not request.component])
def test_who_is_no_account_of_the_host_that_asks_is_forbidden(name: str, sender: str, host: str) -> None:
    request = REQUESTS[name]
    told, _ = asyncio.run(put(delegated(parse(request.xml), request.kind, None, sender, host)))
    assert told == "forbidden"


@pytest.mark.parametrize("sender", [f"ann@{ELSEWHERE}/web", ANN, HOST, f"{HOST}/web", ""])
@pytest.mark.parametrize("name", ["register", "unregister", "register by its older name", "devices", "log out"])
def test_who_has_no_devices_is_told_so(name: str, sender: str) -> None:
    told, _ = asyncio.run(put(direct(parse(REQUESTS[name].xml), "set", sender)))
    own = sender == ANN and name in ("devices", "log out")  # for which no session is needed
    assert told in ("forbidden", "feature-not-implemented", "item-not-found") or own


# ---- envelopes -------------------------------------------------------------------------------------------------------


GOOD = serialise(delegated(parse(REQUESTS["list"].xml), "get", None))


@pytest.mark.parametrize(
    "changed",
    [
        GOOD.replace("forwarded", "backwarded"),
        GOOD.replace('type="get"', ""),
        GOOD.replace('type="get"', 'type="result"'),
        GOOD.replace('id="i1"', ""),
        GOOD.replace(f'from="{ANN}/web"', ""),
        GOOD.replace(f'from="{ANN}/web"', f'from="{"x" * 4000}"'),
        GOOD.replace('type="get"', f'type="get" to="{"x" * 4000}"'),
        GOOD.replace('type="set"', 'type="get"'),
        GOOD.replace('<iq xmlns="jabber:client"', '<iq xmlns="jabber:server"'),
        GOOD.replace("</query>", "</query><query/>", 1),
        GOOD.replace("</iq></forwarded>", "</iq><iq xmlns='jabber:client'/></forwarded>"),
    ],
)
def test_an_envelope_that_is_none_is_refused_to_the_server(changed: str) -> None:
    assert changed != GOOD
    asked = parse(changed)
    house = House()
    (answer,) = asyncio.run(house.ask(asked))
    assert (answer.get("type"), answer.get("to"), outcome(answer)) == ("error", HOST, "bad-request")


@given(value=values(TOKENS))
@QUIET
def test_a_token_of_anybody_or_nobody_names_a_place_or_none(value: str) -> None:
    """Every cursor in every direction of both dialects that page."""
    for name in ("list", "inbox"):
        for direction in ("after", "before"):
            payload = parse(REQUESTS[name].xml)
            result_set = payload.find(clark(RSM, "set"))
            assert result_set is not None
            for child in list(result_set):
                result_set.remove(child)
            SubElement(result_set, clark(RSM, direction)).text = value
            told, _ = asyncio.run(put(delegated(payload, "get", ANN)))
            own = value in ("", cursor(), place(), cursor(since=5), cursor(newest=3))
            assert told == "item-not-found" or own
