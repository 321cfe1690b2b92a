"""Envelopes of servers, and what the component answers itself: delegation, discovery, push, commands."""

from xml.etree.ElementTree import Element

import pytest

from sync.model.errors import BadRequest, Forbidden, ItemNotFound
from sync.model.push import Vendor
from sync.model.query import Registration
from sync.protocol import commands, delegation, disco, envelope
from sync.protocol.names import CLIENT, DELEGATIONS, INBOX, PUSH, REWRITE, SYNC, clark
from sync.protocol.push import decode_push
from sync.protocol.serialise import parse, serialise
from sync.protocol.wishes import FEATURES as WISHES
from tests.core.protocol_vectors import check, load, plain

OFFERED = commands.offered({Vendor.APNS})
REQUEST = (
    "<iq xmlns='jabber:component:accept' type='set' from='ex.org' to='sync.ex.org' id='d1'>"
    "<delegation xmlns='urn:xmpp:delegation:{version}'><forwarded xmlns='urn:xmpp:forward:0'>"
    "<iq xmlns='jabber:client' type='get' from='ann@ex.org/web' {to} id='s1'><q/></iq></forwarded></delegation></iq>"
)
ANSWER = (
    '<iq xmlns="jabber:component:accept" type="result" from="sync.ex.org" to="ex.org" id="d1">'
    '<delegation xmlns="urn:xmpp:delegation:{version}"><forwarded xmlns="urn:xmpp:forward:0">{inner}</forwarded>'
    "</delegation></iq>"
)


def _unwrapped(version: int = 2, to: str = "") -> delegation.Delegated:
    return delegation.unwrap(parse(REQUEST.format(version=version, to=to)))


# ---- delegation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("identifier", ["", "i" * 60_000, "\u00e9" * 600])
def test_a_bad_id_is_refused_to_who_asked(identifier: str) -> None:
    """An error to the server instead of an answer inside is dropped by ejabberd: the user would wait for ever."""
    asked = delegation.unwrap(parse(REQUEST.format(version=2, to="").replace("id='s1'", f"id='{identifier}'")))
    with pytest.raises(BadRequest) as refused:
        delegation.account_of(asked)
    answer = delegation.wrap_error(asked, refused.value)
    inner = answer.find(f".//{clark(CLIENT, 'iq')}")
    assert inner is not None
    assert (inner.get("id"), inner.get("type"), inner.get("to")) == (identifier, "error", "ann@ex.org/web")


@pytest.mark.parametrize("vector", load("delegation"))
def test_delegated_requests(vector: Element) -> None:
    def act(stanza: Element) -> dict[str, object]:
        delegated = delegation.unwrap(stanza)
        return {**plain(delegated), "account": delegation.account_of(delegated)}

    check(vector, act)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("to", ["", "to='ann@ex.org'"])
def test_results_go_back_in_the_version_of_the_request(version: int, to: str) -> None:
    """PROTOCOLS §7: exactly one chain of children, inner id the request's, inner to its from, at most one payload."""
    inner = '<iq xmlns="jabber:client" type="result" from="ann@ex.org" to="ann@ex.org/web" id="s1"{}'
    delegated = _unwrapped(version, to)
    for payload, rest in ((None, "/>"), (Element("{urn:x}y"), '><y xmlns="urn:x"/></iq>')):
        answer = serialise(delegation.wrap_result(delegated, payload))
        assert answer == ANSWER.format(version=version, inner=inner.format(rest))


def test_refusals_are_results_of_the_envelope() -> None:
    refusal = BadRequest("'stamp' is wrong.", application=("bad-payload", "urn:x"))
    inner = (
        '<iq xmlns="jabber:client" type="error" from="ann@ex.org" to="ann@ex.org/web" id="s1"><error type="modify">'
        '<bad-request xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/>'
        '<text xmlns="urn:ietf:params:xml:ns:xmpp-stanzas" xml:lang="en">\'stamp\' is wrong.</text>'
        '<bad-payload xmlns="urn:x"/></error></iq>'
    )
    assert serialise(delegation.wrap_error(_unwrapped(), refusal)) == ANSWER.format(version=2, inner=inner)


def test_the_components_own_answers() -> None:
    request = parse("<iq xmlns='jabber:component:accept' type='get' from='ann@ex.org/web' to='sync.ex.org' id='i1'/>")
    ends = 'from="sync.ex.org" to="ann@ex.org/web" id="i1"'
    assert serialise(envelope.result(request)) == f'<iq xmlns="jabber:component:accept" type="result" {ends}/>'
    assert serialise(envelope.error(request, Forbidden())) == (
        f'<iq xmlns="jabber:component:accept" type="error" {ends}><error type="auth">'
        '<forbidden xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/></error></iq>'
    )
    sent = envelope.iq("get", sender="sync.ex.org", to="ex.org", request_id="r1", payload=Element("{urn:x}y"))
    assert serialise(sent) == (
        '<iq xmlns="jabber:component:accept" type="get" from="sync.ex.org" to="ex.org" id="r1"><y xmlns="urn:x"/></iq>'
    )


# ---- discovery -----------------------------------------------------------------------------------------------------


def _features(node: str | None) -> list[str | None]:
    payload = Element(disco.INFO, {} if node is None else {"node": node})
    answer = disco.info(payload, commands=OFFERED)
    assert answer.get("node") == node
    return [child.get("var") for child in answer if child.get("var")]


@pytest.mark.parametrize("version", DELEGATIONS)
@pytest.mark.parametrize("namespace", [SYNC, REWRITE, INBOX, PUSH])
def test_nested_nodes(version: str, namespace: str) -> None:
    """XEP-0355 §7.2: `::` for the host, `:bare:` for its accounts."""
    assert _features(f"{version}:bare:{namespace}") == [namespace, *(WISHES if namespace == PUSH else ())]
    assert _features(f"{version}::{namespace}") == ([PUSH] if namespace == PUSH else [])


def _identities(answer: Element) -> list[tuple[str | None, ...]]:
    found = answer.iter("{http://jabber.org/protocol/disco#info}identity")
    return [(one.get("category"), one.get("type"), one.get("name")) for one in found]


def test_the_component_is_an_app_server() -> None:
    answer = disco.info(Element(disco.INFO), commands=OFFERED)
    assert _identities(answer) == [("pubsub", "push", "Convsync"), ("component", "generic", "Convsync")]
    assert {PUSH, "http://jabber.org/protocol/commands", "jabber:iq:version"} <= set(_features(None))


@pytest.mark.parametrize("version", DELEGATIONS)
def test_without_an_app_nothing_is_said_of_push(version: str) -> None:
    """Only what works is listed: nobody could register, so nobody could enable."""
    answer = disco.info(Element(disco.INFO), commands={})
    assert _identities(answer) == [("component", "generic", "Convsync")]
    assert [child.get("var") for child in answer if child.get("var")] == [
        *("http://jabber.org/protocol/disco#info", "http://jabber.org/protocol/disco#items", "jabber:iq:version")
    ]
    for node in (f"{version}:bare:{PUSH}", f"{version}::{PUSH}"):
        assert len(disco.info(Element(disco.INFO, {"node": node}), commands={})) == 0
        offered = disco.info(Element(disco.INFO, {"node": node}), commands={}, pushes=True)
        assert (offered[0].get("var"), len(offered)) == (PUSH, 1 + (len(WISHES) if ":bare:" in node else 0))
    assert len(disco.info(Element(disco.INFO, {"node": f"{version}:bare:{SYNC}"}), commands={})) == 1
    list_node = {"node": "http://jabber.org/protocol/commands"}
    assert len(disco.items(Element(disco.ITEMS, list_node), component="sync.ex.org", commands={})) == 0
    for unknown in ("http://jabber.org/protocol/commands", "register-device"):
        with pytest.raises(ItemNotFound):
            disco.info(Element(disco.INFO, {"node": unknown}), commands={})


def test_the_component_says_what_it_is() -> None:
    """XEP-0232: beside the features, for whoever asks for them anyway."""
    answer = disco.info(Element(disco.INFO), commands=OFFERED, version="0.1.0")
    assert serialise(answer[-1]) == (
        '<x xmlns="jabber:x:data" type="result">'
        '<field var="FORM_TYPE" type="hidden"><value>urn:xmpp:dataforms:softwareinfo</value></field>'
        '<field var="software" type="text-single"><value>Convsync</value></field>'
        '<field var="software_version" type="text-single"><value>0.1.0</value></field></x>'
    )


def test_commands_are_discoverable() -> None:
    """XEP-0050 §2.2."""
    payload = Element(disco.ITEMS, {"node": "http://jabber.org/protocol/commands"})
    answer = disco.items(payload, component="sync.ex.org", commands=OFFERED)
    assert {i.get("jid") for i in answer} == {"sync.ex.org"}
    assert [i.get("node") for i in answer] == [
        *("register-device", "unregister-device", "register-push-apns", "list-push-registrations", "unregister-push"),
    ]
    assert len(disco.items(Element(disco.ITEMS), component="sync.ex.org", commands=OFFERED)) == 0
    assert "jabber:x:data" in _features("register-device")


@pytest.mark.parametrize("node", ["urn:xmpp:delegation:2::urn:xmpp:mam:2", "nothing"])
def test_unknown_nodes(node: str) -> None:
    with pytest.raises(ItemNotFound):
        _features(node)
    with pytest.raises(ItemNotFound):
        disco.items(Element(disco.ITEMS, {"node": node}), component="sync.ex.org", commands=OFFERED)


def test_version() -> None:
    assert serialise(disco.version("0.1.0")) == (
        '<query xmlns="jabber:iq:version"><name>Convsync</name><version>0.1.0</version></query>'
    )


# ---- push and commands ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", load("push"))
def test_push(vector: Element) -> None:
    check(vector, lambda payload: decode_push(payload, kind="set", sender="ann@ex.org/web"))


def test_push_is_set_not_got() -> None:
    with pytest.raises(BadRequest):
        decode_push(Element("{urn:xmpp:push:0}enable"), kind="get", sender="ann@ex.org/web")


@pytest.mark.parametrize("vector", load("commands"))
def test_commands(vector: Element) -> None:
    check(vector, lambda payload: commands.decode_command(payload, sender="ann@ex.org/phone", request_id="i1"))


@pytest.mark.parametrize("sender", ["ex.org", "@ex.org/x", "ann@ex.org"])
def test_only_a_session_of_an_account_registers(sender: str) -> None:
    command = load("commands")[0].values[0][0]
    with pytest.raises(Forbidden):
        commands.decode_command(command, sender=sender, request_id="i1")


def test_answers_of_commands() -> None:
    command = commands.Command(commands.REGISTER, "u7", commands.AskForm("ann@ex.org"))
    head = '<command xmlns="http://jabber.org/protocol/commands" node="register-device" sessionid="u7" status='
    registration = Registration(node="n1", secret="s3", features=("urn:a", "urn:b"))
    assert serialise(commands.canceled(command)) == f'{head}"canceled"/>'
    assert serialise(commands.unregistered(command)) == f'{head}"completed"/>'
    assert serialise(commands.registered(command, registration, "sync.ex.org")) == (
        f'{head}"completed"><x xmlns="jabber:x:data" type="result">'
        '<field var="node" type="text-single"><value>n1</value></field>'
        '<field var="secret" type="text-single"><value>s3</value></field>'
        '<field var="features" type="text-multi"><value>urn:a</value><value>urn:b</value></field>'
        '<field var="max-payload-size" type="text-single"><value>4096</value></field></x></command>'
    )
    form = serialise(commands.form(command))
    assert form.startswith(f'{head}"executing"><actions execute="complete"><complete/></actions>')
    assert '<field var="device-token" type="text-single" label="Push token"><required/></field>' in form


def test_commands_are_listed_where_they_can_do_something() -> None:
    assert commands.offered(()) == {}
    assert {"register-push-fcm", "register-push-gcm"} <= set(commands.offered({Vendor.FCM}))
    assert "register-push-apns" not in commands.offered({Vendor.FCM})
    assert commands.offered(set(Vendor)) == commands.NAMES


def test_refusals_do_not_repeat_tokens() -> None:
    """Tokens are secrets: an error text goes over the wire and into logs of others."""
    token = "zz" * 32
    command = parse(
        "<command xmlns='http://jabber.org/protocol/commands' node='register-device'><x xmlns='jabber:x:data'>"
        f"<field var='provider'><value>app</value></field>"
        f"<field var='device-token'><value>{token}</value></field></x></command>"
    )
    with pytest.raises(BadRequest) as caught:
        commands.decode_command(command, sender="ann@ex.org/phone", request_id="i1")
    assert token not in str(caught.value)
