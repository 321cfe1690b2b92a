"""ejabberd's codec (Debian's erlang-p1-xmpp, one Erlang machine for as long as the object lives): what somebody else's
strict reader makes of our XML, and whether it would say the same.

Knows nothing of what our stanzas mean. `Unreadable` has the codec's own words.
"""

import os
import re
import subprocess
import tempfile
from base64 import b64decode, b64encode
from pathlib import Path
from typing import NamedTuple, Self
from xml.etree.ElementTree import Element

from sync.protocol.serialise import parse
from sync.sandbox.ejabberd import PATIENT, Installation, find_ejabberd

SOURCE = Path(__file__).with_name("convsync_codec.erl")
SECONDS = 60
# What its specification of XEP-0357 lacks, and it drops: all but the form of a notification (Tigase's clients read more
# there, docs/push.md §7), and whose affiliation with which node has ended.
NOTIFICATION, FORM = "{urn:xmpp:push:0}notification", "{jabber:x:data}x"
PUBSUB, AFFILIATION = (f"{{http://jabber.org/protocol/pubsub}}{name}" for name in ("pubsub", "affiliation"))
WHOLE_SECOND = re.compile(r"(?<=:\d\d)\.0+Z$")

Meaning = tuple[str, tuple[tuple[str, str], ...], str, tuple["Meaning", ...]]


class Unreadable(Exception):
    """The codec refuses an element."""


class Read(NamedTuple):
    """How many elements the codec has a specification of, and all of it as the codec writes it."""

    known: int
    text: str


class Codec:
    """A running codec; LaunchError where ejabberd is not installed."""

    def __init__(self) -> None:
        installation = find_ejabberd()
        self._folder = tempfile.TemporaryDirectory(prefix="convsync-codec-")
        surroundings = _surroundings(installation, self._folder.name)
        compiler = [str(installation.erlc), "-Werror", "-o", self._folder.name, str(SOURCE)]
        subprocess.run(compiler, check=True, timeout=SECONDS, env=surroundings)
        self._process = subprocess.Popen(
            [str(installation.erl), *PATIENT, "-noshell", "-pa", self._folder.name, "-s", "convsync_codec", "main"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=surroundings,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(SECONDS)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._folder.cleanup()

    def read(self, text: str) -> Read:
        """The element decoded and encoded again. Raises Unreadable."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b64encode(text.encode()) + b"\n")
        self._process.stdin.flush()
        verdict, *words = self._process.stdout.readline().split()
        if verdict != b"ok":
            raise Unreadable(b64decode(words[0]).decode())
        return Read(int(words[0]), b64decode(words[1]).decode())


def _surroundings(installation: Installation, home: str) -> dict[str, str]:
    plain = {key: value for key, value in os.environ.items() if not key.startswith("ERL_")}
    return plain | {"ERL_LIBS": str(installation.libraries), "ERL_CRASH_DUMP_BYTES": "0", "HOME": home}


def meaning(element: Element) -> Meaning:
    """What two elements that say the same have in common: the order of children is the codec's own, and so is white
    space around them. It drops the zeros of a second without fraction.
    """
    kept = [child for child in element if child.tag == FORM or element.tag != NOTIFICATION]
    children = sorted((meaning(child) for child in kept if child.tag != AFFILIATION), key=repr)
    named = {name: value for name, value in element.attrib.items() if (element.tag, name) != (PUBSUB, "node")}
    attributes = tuple(sorted((name, WHOLE_SECOND.sub("Z", value)) for name, value in named.items()))
    return element.tag, attributes, (element.text or "").strip(), tuple(children)


def faults(codec: Codec, text: str) -> str | None:
    """Why the codec does not read the element, or what it says instead; None where it says the same."""
    try:
        again = codec.read(text).text
    except Unreadable as error:
        return f"{error}\n  {text[:1500]}"
    if meaning(parse(text)) == meaning(parse(again)):
        return None
    return f"it says something else\n  {text[:1500]}\n  {again[:1500]}"
