"""Data forms (XEP-0004): fields with their values, in and out.

Knows nothing of what a field means; who reads a form says which fields there may be. A field that comes twice is
refused: the two values could only be guessed between.
"""

from collections.abc import Iterable
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
    """A field of an empty form, for the user to fill in."""

    var: str
    label: str
    required: bool = False


def read(form: Element, **refusal: tuple[str, str]) -> Fields:
    """The fields of a submitted form by name, FORM_TYPE among them. `refusal` goes into the error
    (`application=…`).
    """
    fields: Fields = {}
    for field in form.iterfind(_FIELD):
        var = field.get("var")
        # XEP-0004 §3.2: in a form of type submit a field "MUST possess a 'var' attribute".
        if not var:
            raise BadRequest("A field of the form has no 'var'.", **refusal)
        if var in fields:
            raise BadRequest("A field of the form comes twice.", **refusal)
        fields[var] = tuple(value.text or "" for value in field.iterfind(_VALUE))
    return fields


def result(fields: Iterable[tuple[str, tuple[str, ...]]]) -> Element:
    """A form of type result."""
    form = Element(FORM, {"type": "result"})
    for var, values in fields:
        field = SubElement(form, _FIELD, {"var": var, "type": "text-multi" if len(values) > 1 else "text-single"})
        for value in values:
            SubElement(field, _VALUE).text = value
    return form


def empty(title: str, questions: Iterable[Question]) -> Element:
    """A form of type form: what to fill in."""
    form = Element(FORM, {"type": "form"})
    SubElement(form, clark(DATA, "title")).text = title
    for question in questions:
        field = SubElement(form, _FIELD, {"var": question.var, "type": "text-single", "label": question.label})
        if question.required:
            SubElement(field, _REQUIRED)
    return form
