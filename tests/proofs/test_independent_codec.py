"""Everything that we emit is read by somebody else's strict codec, and it says the same when it writes it again.

Two sources of stanzas: the vectors, and whatever the encoders of sync/protocol return while the tests of the protocol
and of the service run (`recorder`). The third is the wire itself: tests/system/test_wire.py.
"""

import os
import subprocess
import sys
from base64 import b64decode
from collections import defaultdict
from pathlib import Path
from xml.etree.ElementTree import Element

import pytest

from sync.protocol.serialise import parse, serialise
from tests.core.protocol_vectors import FOLDER
from tests.proofs.codec import Codec, Unreadable, faults
from tests.proofs.recorder import FILE, encoders

REPOSITORY = Path(__file__).parents[2]
RECORDING_SECONDS = 300

KNOWN = {
    "XEP-0004": "<x xmlns='jabber:x:data' type='result'><field var='node'><value>n1</value></field></x>",
    "XEP-0030": "<query xmlns='http://jabber.org/protocol/disco#info'><feature var='urn:xmpp:inbox:1'/></query>",
    "XEP-0050": "<command xmlns='http://jabber.org/protocol/commands' node='n' sessionid='s' status='completed'/>",
    "XEP-0059": "<set xmlns='http://jabber.org/protocol/rsm'><count>3</count></set>",
    "XEP-0203": "<delay xmlns='urn:xmpp:delay' stamp='2025-11-21T01:19:50.000001Z'/>",
    "XEP-0297": "<forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client'/></forwarded>",
    "XEP-0313": "<result xmlns='urn:xmpp:mam:2' id='a1' queryid='q'><forwarded xmlns='urn:xmpp:forward:0'/></result>",
    "XEP-0333": "<displayed xmlns='urn:xmpp:chat-markers:0' id='m1'/>",
    "XEP-0355": "<delegation xmlns='urn:xmpp:delegation:2'><forwarded xmlns='urn:xmpp:forward:0'/></delegation>",
    "XEP-0357": "<enable xmlns='urn:xmpp:push:0' jid='sync.ex.org' node='n1'/>",
    "XEP-0359": "<stanza-id xmlns='urn:xmpp:sid:0' by='ann@ex.org' id='a1'/>",
    "XEP-0430": "<entry xmlns='urn:xmpp:inbox:1' jid='bob@ex.net' unread='5' id='a9'/>",
}
# What it does not know it passes on as it is; were one of them in a newer version, it would be read strictly, too.
UNKNOWN = {
    "XEP-0308": "<replace xmlns='urn:xmpp:message-correct:0' id='m1'/>",
    "XEP-0353": "<propose xmlns='urn:xmpp:jingle-message:0' id='c1'/>",
    "XEP-0424": "<retracted xmlns='urn:xmpp:message-retract:1' stamp='2025-11-21T01:19:50Z'/>",
    "XEP-0444": "<reactions xmlns='urn:xmpp:reactions:0' id='a4'/>",
}
WRONG = {
    "a count that is none": "<set xmlns='http://jabber.org/protocol/rsm'><count>many</count></set>",
    "a time that is none": "<delay xmlns='urn:xmpp:delay' stamp='2025-11-21 01:19'/>",
    "an unread that is none": "<entry xmlns='urn:xmpp:inbox:1' jid='bob@ex.net' unread='-' id='a9'/>",
    "a JID that is none": "<message xmlns='jabber:client' from='a@@b'/>",
    "in a stanza of ours": "<last xmlns='urn:convsync:0'><message xmlns='jabber:client' to='@'/></last>",
    "in what is forwarded": "<forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' to='@'/></forwarded>",
}


@pytest.mark.parametrize("what", KNOWN)
def test_what_it_has_a_specification_of(what: str, codec: Codec) -> None:
    assert codec.read(KNOWN[what]).known > 0
    assert faults(codec, KNOWN[what]) is None


@pytest.mark.parametrize("what", UNKNOWN)
def test_what_it_does_not_know_stays_as_it_is(what: str, codec: Codec) -> None:
    assert faults(codec, f"<message xmlns='jabber:client'>{UNKNOWN[what]}</message>") is None


@pytest.mark.parametrize("what", WRONG)
def test_it_refuses_what_is_wrong(what: str, codec: Codec) -> None:
    with pytest.raises(Unreadable):
        codec.read(WRONG[what])


@pytest.mark.parametrize(
    "text",
    [
        "<entry xmlns='urn:xmpp:inbox:1' jid='bob@ex.net' unread='5' id='a9' colour='red'/>",
        "<last xmlns='urn:convsync:0'><message xmlns='jabber:client' type='loud'/></last>",
        "<set xmlns='http://jabber.org/protocol/rsm'><first/><newest>1</newest></set>",
    ],
)
def test_what_it_would_not_say_again_is_noticed(text: str, codec: Codec) -> None:
    assert codec.read(text)
    assert faults(codec, text)


# ---- what we emit ----------------------------------------------------------------------------------------------------


def answers() -> list[object]:
    """The expected XML of every vector that has one."""
    found = []
    for file in sorted(FOLDER.glob("*.xml")):
        for vector in parse(file.read_text()).findall("vector"):
            expected: Element | None = vector.find("xml")
            if expected is not None:
                found.append(pytest.param(expected[0], id=f"{file.stem}: {vector.get('name')}"))
    assert found
    return found


@pytest.mark.parametrize("answer", answers())
def test_answers_of_the_vectors(answer: Element, codec: Codec) -> None:
    assert faults(codec, serialise(answer)) is None


@pytest.fixture
def recorded(tmp_path: Path) -> dict[str, list[str]]:
    """What each encoder returned while the tests of protocol and service ran."""
    file = tmp_path / "stanzas"
    tests = [str(one) for one in (REPOSITORY / "tests/core").glob("test_protocol_*.py") if "fuzz" not in one.name]
    plugins = ["-p", "tests.proofs.recorder", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, "--timeout=60", *tests, str(REPOSITORY / "tests/service")],
        cwd=REPOSITORY,
        env={key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")} | {FILE: str(file)},
        capture_output=True,
        text=True,
        timeout=RECORDING_SECONDS,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout[-1500:]  # a test that fails says so in its own place
    found = defaultdict(list)
    for line in file.read_text().splitlines():
        name, _, text = line.partition("\t")
        found[name].append(b64decode(text).decode())
    return found


@pytest.mark.timeout(RECORDING_SECONDS)
def test_whatever_the_encoders_return(recorded: dict[str, list[str]], codec: Codec) -> None:
    bad = [f"{name}: {fault}" for name, texts in recorded.items() for text in texts if (fault := faults(codec, text))]
    assert not bad, "\n".join(bad[:10])
    assert {name for name, _, _ in encoders()} - recorded.keys() == set(), "encoders that no test asks for anything"
