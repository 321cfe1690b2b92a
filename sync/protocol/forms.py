"""Data forms (XEP-0004): fields with their values, in and out.

Knows nothing of what a field means; who reads a form says which fields there may be. A field that comes twice is
refused: the two values could only be guessed between.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement

from sync.model.errors import BadRequest
from sync.protocol.names import DATA, clark

FORM = clark(DATA, "x")
_FIELD = clark(DATA, "field")
_VALUE = clark(DATA, "value")
_REQUIRED = clark(DATA, "required")
FORM_TYPE = "FORM_TYPE"

Fields = dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A field of an empty form, for the user to fill in. `options`: values to choose several from, and their labels."""

    var: str
    label: str
    required: bool = False
    options: Mapping[str, str] | None = None


def read(form: Element, *, known: Collection[str] = (), **refusal: tuple[str, str]) -> Fields:
    """The fields of a submitted form by name, FORM_TYPE among them. `known` names may stand in an error; `refusal` goes
    into it (`application=…`).
    """
    fields: Fields = {}
    for field in form.iterfind(_FIELD):
        var = field.get("var")
        # XEP-0004 §3.2: in a form of type submit a field "MUST possess a 'var' attribute".
        if not var:
            raise BadRequest("A field of the form has no 'var'.", **refusal)
        if var in fields:
            name = f"'{var}'" if var in known else "A field of the form"
            raise BadRequest(f"{name} comes twice.", **refusal)
        fields[var] = tuple(value.text or "" for value in field.iterfind(_VALUE))
    return fields


def result(fields: Iterable[tuple[str, tuple[str, ...]]]) -> Element:
    """A form of type result."""
    form = Element(FORM, {"type": "result"})
    for var, values in fields:
        _field(form, var, values, "text-multi" if len(values) > 1 else "text-single")
    return form


def chosen(var: str, values: Iterable[str]) -> Element:
    """A form of type result with one field, of several values out of a list."""
    form = Element(FORM, {"type": "result"})
    _field(form, var, values, "list-multi")
    return form


def table(columns: Mapping[str, str], rows: Iterable[Mapping[str, str | None]]) -> Element:
    """A form of type result with many items (XEP-0004 §3.4). `columns`: labels by name. What is None in a row is left
    out.
    """
    form = Element(FORM, {"type": "result"})
    reported = SubElement(form, clark(DATA, "reported"))
    for var, label in columns.items():
        SubElement(reported, _FIELD, {"var": var, "type": "text-single", "label": label})
    for row in rows:
        item = SubElement(form, clark(DATA, "item"))
        for var in columns:
            if (value := row.get(var)) is not None:
                _field(item, var, (value,))
    return form


def _field(parent: Element, var: str, values: Iterable[str], kind: str | None = None) -> None:
    field = SubElement(parent, _FIELD, {"var": var} if kind is None else {"var": var, "type": kind})
    for value in values:
        SubElement(field, _VALUE).text = value


def empty(title: str, questions: Iterable[Question]) -> Element:
    """A form of type form: what to fill in."""
    form = Element(FORM, {"type": "form"})
    SubElement(form, clark(DATA, "title")).text = title
    for question in questions:
        kind = "text-single" if question.options is None else "list-multi"
        field = SubElement(form, _FIELD, {"var": question.var, "type": kind, "label": question.label})
        if question.required:
            SubElement(field, _REQUIRED)
        for value, label in (question.options or {}).items():
            SubElement(SubElement(field, clark(DATA, "option"), {"label": label}), _VALUE).text = value
    return form
