"""The vectors' requests, sent by a client to a real server: what the codecs refuse is refused with the same condition
and word, what they read is answered, by each server; answers are valid by the schema, and ejabberd's codec reads them.

It is the path that no unit test has: the client's text, the server's parser and its own opinions, delegation, the
component, and the way back.
"""

import xml.etree.ElementTree as ET

import pytest

from sync.protocol.serialise import serialise
from tests.core.dialect_schema import faults as schema_faults
from tests.core.protocol_vectors import shape
from tests.proofs.codec import Codec, faults
from tests.system.box import Box
from tests.system.person import Person
from tests.system.requests import COMPONENT, FILES, Request, requests
from tests.system.xmpp_client import StanzaError

# What only the service finds out: there is no such conversation, node, app or call, or it has another version.
OF_THE_SERVICE = {"item-not-found", "conflict"}
PEERS = {"bob@ex.net": "chat", "carol@ex.net": "chat", "tea@rooms.ex.org": "group", "tea@rooms.ex.org/Bob": "chat"}


async def known(box: Box) -> Person:
    """Somebody who has the conversations that the vectors name."""
    ann, bob = await box.friends("web", "b")
    bob.write(ann.account, "hello")
    await bob.ping()
    await ann.fresh()
    for number, (peer, kind) in enumerate(PEERS.items(), 1):
        await box.sql(
            "INSERT INTO conversation (account, peer, kind, version, activity, status) "
            "SELECT jid, $2, $3, version - $4, version - $4, 'active' FROM account WHERE jid = $1",
            ann.account,
            peer,
            kind,
            number,
        )
    return ann


async def outcome(asker: Person, request: Request, component: str) -> ET.Element | StanzaError:
    to = component if request.for_component else None
    try:
        return await asker.iq(request.kind, request.of(asker.account, component), to=to)
    except StanzaError as error:
        return error


def wrong(request: Request, found: ET.Element | StanzaError, component: str) -> str | None:
    """What is not as the vector says."""
    if isinstance(found, StanzaError):
        text = "".join(found.stanza.itertext())
        if request.refused is None:
            return None if found.condition in OF_THE_SERVICE else f"refused: {found} {text}"
        condition, word = request.refused
        return None if (found.condition, word in text) == (condition, True) else f"refused otherwise: {found} {text}"
    if request.refused is not None:
        return "not refused"
    if request.answer is not None:
        expected = serialise(request.answer).replace(COMPONENT, component)
        if shape(found[0]) != shape(ET.fromstring(expected)):  # noqa: S314 - the project's own file
            return f"another answer: {ET.tostring(found[0], encoding='unicode')}"
    return None


@pytest.mark.parametrize("file", FILES)
async def test_requests_of_the_vectors(file: str, box: Box, codec: Codec) -> None:
    ann, bad, answered = await known(box), [], 0
    component = box.ready["component"]
    for name, request in requests(file).items():
        found = await outcome(ann, request, component)
        stanza = found.stanza if isinstance(found, StanzaError) else found
        answered += isinstance(found, ET.Element)
        faulty = wrong(request, found, component) or faults(codec, serialise(stanza)) or "".join(schema_faults(stanza))
        if faulty:
            bad.append(f"{file}, {name}: {faulty}")
    assert not bad, "\n".join(bad)
    assert answered > 0
