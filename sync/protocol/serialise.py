"""Elements to text and back: compact, without prefixes for namespaces of elements.

ElementTree's own serialiser invents `ns0:` for every namespace, which XMPP servers and clients are not obliged to
understand. Here an element declares its namespace as the default one where it differs from its parent's, and the root
always declares its own, so that the text can be put anywhere. It walks with a list instead of calling itself: 64 kB
of stanza hold some nine thousand nested elements, and any user may send that. Comments and processing instructions,
which XMPP forbids (RFC 6120 §11.1), are left out.
"""

import re
from collections.abc import Iterator
from xml.etree.ElementTree import Element, XMLParser

from sync.protocol.names import XML

# \r would be read back as \n (XML 1.0 §2.11); in attributes tab and newline as spaces, too (§3.3.3).
_TEXT = re.compile(r"[&<>\r]")
_VALUE = re.compile(r'[&<>"\r\n\t]')
_SPECIAL = re.compile(r"[&<>\r\n\t{]")
_TEXT_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"})
_ESCAPES = _TEXT_ESCAPES | str.maketrans({'"': "&quot;", "\n": "&#10;", "\t": "&#9;"})

_PLAIN = re.compile(r"[\w@./:+ -]*", re.ASCII)

_WRITTEN = object()  # the tag of what is text already

_SEEN_MAX, _SEEN_CHARS = 1024, 128  # senders choose the names: what is remembered of them is bounded
_split: dict[str, tuple[str, str, str, str]] = {}  # tag → namespace, local name, `<name`, `<name xmlns=…`


def _names(tag: str) -> tuple[str, str, str, str]:
    known = _split.get(tag)
    if known is None:
        namespace, _, local = tag[1:].rpartition("}") if tag[:1] == "{" else ("", "", tag)
        known = (namespace, local, f"<{local}", f'<{local} xmlns="{_value(namespace)}"')
        if len(tag) <= _SEEN_CHARS:
            if len(_split) >= _SEEN_MAX:
                _split.clear()
            _split[tag] = known
    return known


def is_plain(*texts: str) -> bool:
    """True for texts that stand in an attribute as they are."""
    return all(map(_PLAIN.fullmatch, texts))


def width(text: str) -> int:
    """The bytes that a text takes in an attribute, or a few more."""
    # `&quot;` takes six bytes, a character at the most four.
    return len(text) if _PLAIN.fullmatch(text) else 6 * len(text)


def _value(text: str) -> str:
    return text.translate(_ESCAPES) if _VALUE.search(text) else text


def _attributes(attributes: dict[str, str]) -> str:
    plain = "".join([f' {name}="{value}"' for name, value in attributes.items()])
    # One search for all of them: mostly nothing is to be escaped, and no name has a namespace.
    if not _SPECIAL.search(plain) and plain.count('"') == 2 * len(attributes):
        return plain
    out = []
    for number, (name, value) in enumerate(attributes.items()):
        if name[0] != "{":
            out.append(f' {name}="{_value(value)}"')
            continue
        namespace, local, _, _ = _names(name)
        if namespace == XML:  # the one prefix that needs no declaration (Namespaces in XML §3)
            out.append(f' xml:{local}="{_value(value)}"')
        else:
            out.append(f' xmlns:a{number}="{_value(namespace)}" a{number}:{local}="{_value(value)}"')
    return "".join(out)


def written(text: str) -> Element:
    """A place in a tree for an element that is text already, with its own `xmlns`. It has no name, no attributes and no
    children: who looks into the tree does not see what is in it.
    """
    element = Element("")
    element.tag, element.text = _WRITTEN, text  # type: ignore[assignment]  # as comments have no name but a function
    return element


def serialise(element: Element) -> str:
    """The element as text with its own `xmlns`; what follows it (its tail) is not part of it."""
    out: list[str] = []
    write, known, is_special = out.append, _split.get, _TEXT.search
    stack: list[tuple[Iterator[Element], str, str, str | None]] = []  # children left, namespace, end tag, tail
    inherited, tail, end = "", None, ""
    children = iter((element,))
    while True:
        for child in children:
            tag = child.tag
            if not isinstance(tag, str):
                if tag is _WRITTEN:
                    write(child.text or "")
                continue  # else a comment or processing instruction
            namespace, local, start, declaring = known(tag) or _names(tag)
            attributes, text, after = child.attrib, child.text, child.tail if end else None
            if namespace != inherited:
                start = declaring
            if attributes:
                start += _attributes(attributes)
            if text and is_special(text):
                text = text.translate(_TEXT_ESCAPES)
            if len(child):
                write(f"{start}>{text}" if text else start + ">")
                stack.append((children, inherited, end, tail))
                children, inherited, end, tail = iter(child), namespace, f"</{local}>", after
                break
            write(f"{start}>{text}</{local}>" if text else start + "/>")
            if after:
                write(after.translate(_TEXT_ESCAPES) if is_special(after) else after)
        else:
            if not stack:
                return "".join(out)
            write(end)
            if tail:
                write(tail.translate(_TEXT_ESCAPES) if is_special(tail) else tail)
            children, inherited, end, tail = stack.pop()


def parse(text: str) -> Element:
    """The element of a text that `serialise` wrote. Raises `xml.etree.ElementTree.ParseError` for anything else."""
    # Our own text: it cannot hold a document type declaration, so no entities.
    parser = XMLParser()  # noqa: S314
    parser.feed(text)
    return parser.close()
