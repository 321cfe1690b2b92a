"""What clients find by discovery, on both servers: what the server hands to the component, and only what works; what
the component says that it is, and which commands it has.
"""

import xml.etree.ElementTree as ET
from importlib.metadata import version
from pathlib import Path

from sync.protocol.names import CONVSYNC, DATA, INBOX, PUSH, REWRITE, SYNC, VERSION
from tests.system.asking import refused
from tests.system.box import Box
from tests.system.ejabberd_server import Ejabberd
from tests.system.person import COMMANDS
from tests.system.prosody_server import COMPONENT, DOMAIN, SECRET
from tests.system.station import Station
from tests.system.test_check import installed, prosody_with
from tests.system.test_check_ejabberd import edited, station
from tests.system.xmpp_client import XmppClient

assert installed  # a fixture

INFO, ITEMS = "http://jabber.org/protocol/disco#info", "http://jabber.org/protocol/disco#items"
OURS = {SYNC, REWRITE, INBOX, CONVSYNC, PUSH}
# One request for each namespace that an account of its own answers without an error.
ASKED = {
    SYNC: f"<query xmlns='{SYNC}'/>",
    REWRITE: f"<query xmlns='{REWRITE}'/>",
    INBOX: f"<inbox xmlns='{INBOX}'/>",
    CONVSYNC: f"<sync xmlns='{CONVSYNC}'/>",
}


async def info(asker: XmppClient, to: str | None, node: str = "") -> ET.Element:
    given = f" node='{node}'" if node else ""
    return (await asker.iq("get", f"<query xmlns='{INFO}'{given}/>", to=to))[0]


def features(answer: ET.Element) -> set[str]:
    return {one.get("var", "") for one in answer.iter(f"{{{INFO}}}feature")}


def identities(answer: ET.Element) -> list[tuple[str | None, ...]]:
    return [(one.get("category"), one.get("type")) for one in answer.iter(f"{{{INFO}}}identity")]


async def test_the_account_lists_what_it_answers_and_the_host_only_push(box: Box) -> None:
    ann = await box.person()
    for to in (None, ann.account):
        assert features(await info(ann, to)) & OURS == OURS
    # ejabberd lists on the host whatever it delegates, without asking.
    assert features(await info(ann, ann.domain)) & OURS == ({PUSH} if box.server == "prosody" else OURS)
    for payload in ASKED.values():
        await ann.iq("get", payload)
    phone = await box.phone(ann)  # registered and enabled: push works
    assert phone.node


async def test_the_component_says_what_it_is_and_which_commands_it_has(box: Box) -> None:
    ann, component = await box.person(), box.ready["component"]
    said = await info(ann, component)
    assert identities(said) == [("pubsub", "push"), ("component", "generic")]
    assert {INFO, ITEMS, COMMANDS, DATA, PUSH, VERSION, box.ready["apns"]["app"]} == features(said)
    form = {field.get("var"): field.findtext(f"{{{DATA}}}value") for field in said.iter(f"{{{DATA}}}field")}
    number = version("convsync")
    assert form == {
        "FORM_TYPE": "urn:xmpp:dataforms:softwareinfo", "software": "Convsync", "software_version": number
    }  # fmt: skip
    told = (await ann.iq("get", f"<query xmlns='{VERSION}'/>", to=component))[0]
    assert [(child.tag.rpartition("}")[2], child.text) for child in told] == [
        ("name", "Convsync"),
        ("version", number),
    ]
    listed = (await ann.iq("get", f"<query xmlns='{ITEMS}' node='{COMMANDS}'/>", to=component))[0]
    commands = [(item.get("jid"), item.get("node")) for item in listed]
    nodes = ["register-device", "unregister-device", "register-push-apns", "list-push-registrations", "unregister-push"]
    assert commands == [(component, node) for node in nodes]
    assert identities(await info(ann, component, COMMANDS)) == [("automation", "command-list")]
    for _, node in commands:
        assert identities(await info(ann, component, str(node))) == [("automation", "command-node")]
        asked = await ann.iq("set", f"<command xmlns='{COMMANDS}' node='{node}'/>", to=component)
        status = "completed" if node == "list-push-registrations" else "executing"
        assert (asked[0].get("status"), asked[0].get("node")) == (status, node)
    for node in ("nothing", "urn:xmpp:delegation:2::urn:xmpp:mam:2"):
        await refused(info(ann, component, node), "item-not-found")


async def nothing_but(client: XmppClient, *namespaces: str) -> None:
    """Of ours the account lists these, and answers them."""
    assert features(await info(client, None)) & OURS == set(namespaces)
    for namespace, payload in ASKED.items():
        if namespace in namespaces:
            await client.iq("get", payload)
        else:
            await refused(client.iq("get", payload), "service-unavailable", "feature-not-implemented")


SECOND = "second.localhost"
NOBODYS = "[push]\napp_servers = []"
FEW = f"""
VirtualHost "{SECOND}"
  modules_enabled = {{ "mam"; "delegation"; "roster"; "saslauth"; "disco"; "ping"; "convsync_feed" }}
  convsync_feed_components = {{ "{COMPONENT}" }}
  delegations = {{ ["{SYNC}"] = {{ jid = "{COMPONENT}" }}, ["{PUSH}"] = {{ jid = "{COMPONENT}" }} }}
"""


async def test_prosody_lists_nothing_that_is_not_delegated_or_does_not_work(installed: str, tmp_path: Path) -> None:
    """This service has no app and pushes to no other app servers: push is delegated, and not listed."""
    async with prosody_with(tmp_path / "server", more=FEW) as server:
        folder = server.folder / "data" / "second%2elocalhost" / "accounts"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "eva.dat").write_text('return { ["password"] = "secret" };\n')
        at = {"port": server.component_port, "secret": SECRET, "hosts": [DOMAIN, SECOND]}
        it = Station(tmp_path, dsn=installed, more=NOBODYS, **at)  # type: ignore[arg-type]
        async with it.serving():
            await it.until(set())
            eva = await XmppClient.connect(f"eva@{SECOND}/x", "secret", server.c2s_port)
            await nothing_but(eva, SYNC)
            assert features(await info(eva, SECOND)) & OURS == set()
            await eva.close()


async def test_ejabberd_lists_nothing_that_is_not_delegated_or_does_not_work(installed: str, tmp_path: Path) -> None:
    server = Ejabberd(tmp_path / "server")

    def few(settings: dict[str, dict[str, dict[str, dict[str, object]]]]) -> None:
        given = settings["modules"]["mod_delegation"]["namespaces"]
        for namespace in (CONVSYNC, INBOX):
            del given[namespace]

    edited(server, few)
    await server.start()
    try:
        it = station(tmp_path, server, installed, more=NOBODYS)
        async with it.serving():
            await it.until(set())
            eva = await server.client(f"{server.name().split('@')[0]}@{DOMAIN}/x")
            await nothing_but(eva, SYNC, REWRITE)
            await eva.close()
    finally:
        server.stop()
