"""What all requests of our own dialect are read with: whatever it does not know is refused, by name, instead of being
ignored, so that the dialect can grow and a client notices what this server does not know.
"""

import re
from xml.etree.ElementTree import Element

from sync.model.conversation import Kind
from sync.model.errors import BadRequest
from sync.protocol.names import XML, clark, local

NAME = frozenset({"jid", "kind"})  # the attributes that name a conversation
_KINDS = {kind.value: kind for kind in Kind}
_LANG = clark(XML, "lang")  # XML 1.0 §2.12: allowed everywhere
_SHOWABLE = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,31}")


def only(element: Element, attributes: frozenset[str], child: str | None = None) -> None:
    """Refuse what the element should not have, by name where the name is one that may be repeated."""
    unknown = next((name for name in element.attrib if name not in attributes and name != _LANG), None)
    if unknown is not None:
        raise BadRequest(f"{_shown(unknown, 'An attribute')} is not known.")
    foreign = next((inner.tag for inner in element if inner.tag != child), None)
    if foreign is not None:
        raise BadRequest(f"{_shown(foreign, 'An element')} is not known.")


def _shown(name: object, otherwise: str) -> str:
    plain = local(name) if isinstance(name, str) else ""
    return f"'{plain}'" if _SHOWABLE.fullmatch(plain) else otherwise


def read_kind(text: str) -> Kind:
    """A kind by its name, or BadRequest."""
    kind = _KINDS.get(text)
    if kind is None:
        raise BadRequest("'kind' must be 'chat', 'group', 'omemo-2', 'omemo-1' or 'axolotl'.")
    return kind


def named_kind(element: Element) -> Kind:
    """The kind of the conversation that an element names; a chat where it says nothing."""
    return read_kind(element.get("kind", Kind.CHAT.value))
