"""Result set management (XEP-0059): which page is asked for, and where the answer's page lies.

Forwards, backwards, the count alone. What an item's id looks like is the business of the dialect, which also decides
what a page without `max` is.
"""

from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement

from sync.model.errors import BadRequest, FeatureNotImplemented
from sync.protocol.fields import natural
from sync.protocol.names import RSM, clark

SET = clark(RSM, "set")
_MAX, _AFTER, _BEFORE, _INDEX = (clark(RSM, name) for name in ("max", "after", "before", "index"))


@dataclass(frozen=True, slots=True)
class Paging:
    """`limit` None = everything, 0 = only the count; `after` an item's id, None = from the start. `before` likewise, ''
    = the last page; None = not backwards.
    """

    limit: int | None = None
    after: str | None = None
    before: str | None = None


def read(result_set: Element) -> Paging:
    """A request's `<set/>`. What is not offered is refused by name, as XEP-0059 §2.4 asks for `index`."""
    seen: set[str] = set()
    limit, after, before = None, None, None
    for child in result_set:
        if child.tag in seen and child.tag in (_MAX, _AFTER, _BEFORE):
            raise BadRequest("'max', 'after' or 'before' comes twice.")
        seen.add(child.tag)
        text = child.text or ""
        if child.tag == _MAX:
            limit = natural(text, "max")
        elif child.tag == _AFTER:
            after = text or None
        elif child.tag == _BEFORE:
            before = text
        elif child.tag == _INDEX:
            raise FeatureNotImplemented("Paging with 'index' is not offered.")
    if seen >= {_AFTER, _BEFORE}:
        raise BadRequest("'after' and 'before' exclude each other.")
    return Paging(limit, after, before)


def write(first: str | None, last: str | None, count: int) -> Element:
    """An answer's `<set/>`; `first` and `last` are None for a page without items (XEP-0059 §2.6)."""
    result_set = Element(SET)
    if first is not None and last is not None:
        SubElement(result_set, clark(RSM, "first")).text = first
        SubElement(result_set, clark(RSM, "last")).text = last
    SubElement(result_set, clark(RSM, "count")).text = str(count)
    return result_set
