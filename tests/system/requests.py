"""The requests of the vectors (tests/vectors), as a client sends them to a real server: the same files as those that
the codecs are held to in tests/core.
"""

import re
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from sync.protocol.serialise import parse, serialise
from tests.core.protocol_vectors import FOLDER

# Type of the IQ where the vector does not say it, whether it is for the component.
FILES = {
    "synchronization": ("get", False),
    "rewrite": ("get", False),
    "inbox": ("get", False),
    "convsync": ("get", False),
    "push": ("set", False),
    "commands": ("set", True),
    "disco": ("get", True),
}
COMPONENT = "sync.ex.org"
ANN = re.compile(r"\bann@ex\.org\b")


@dataclass(frozen=True)
class Request:
    """A vector's request. `refused`: condition and a word of the text; None: it can be read. `answer`: what is
    answered, where that does not depend on what there is.
    """

    kind: str
    payload: str
    for_component: bool
    refused: tuple[str, str] | None
    answer: Element | None

    def of(self, account: str, component: str) -> str:
        """With the JIDs of account and component in the place of the vectors' own."""
        return ANN.sub(account, self.payload).replace(COMPONENT, component)


def requests(file: str) -> dict[str, Request]:
    """A file's, by name."""
    kind, for_component = FILES[file]
    vectors = parse((FOLDER / f"{file}.xml").read_text()).findall("vector")
    return {
        vector.get("name", ""): _request(vector, kind, for_component)
        for vector in vectors
        if vector.get("kind", kind) in ("get", "set")
    }


def _request(vector: Element, kind: str, for_component: bool) -> Request:
    refused = vector.find("refused")
    told = None if refused is None else (refused.get("condition", ""), refused.get("names", ""))
    answer = vector.find("xml")
    return Request(
        vector.get("kind", kind),
        serialise(vector[0]),
        for_component,
        told,
        None if answer is None else answer[0],
    )
