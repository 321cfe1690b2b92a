"""The component's own stanzas: IQs that it sends, and its answers and errors to IQs that it receives.

Decides nothing: ids, addresses and payloads are arguments. `error_element` is the one place where an error of the
model becomes XML; its text is the model's fixed one.
"""

from xml.etree.ElementTree import Element, SubElement

from sync.model.errors import RequestError
from sync.protocol.names import COMPONENT, STANZAS, XML, clark

IQ = clark(COMPONENT, "iq")
MESSAGE = clark(COMPONENT, "message")
_LANG = clark(XML, "lang")


def iq(kind: str, *, sender: str, to: str, request_id: str, payload: Element) -> Element:
    """A request (`get` or `set`) of the component."""
    stanza = Element(IQ, {"type": kind, "from": sender, "to": to, "id": request_id})
    stanza.append(payload)
    return stanza


def message(*, sender: str, to: str, payload: Element) -> Element:
    """A message of the component to a host."""
    stanza = Element(MESSAGE, {"from": sender, "to": to})
    stanza.append(payload)
    return stanza


def _reply(request: Element, kind: str) -> Element:
    stanza = Element(IQ, {"type": kind})
    for attribute, source in (("from", "to"), ("to", "from"), ("id", "id")):
        value = request.get(source)
        # An empty address is none (RFC 6120 §8.1), and strict parsers refuse it.
        if value is not None and (value or attribute == "id"):
            stanza.set(attribute, value)
    return stanza


def result(request: Element, payload: Element | None = None) -> Element:
    """The answer to an IQ that came to the component itself."""
    stanza = _reply(request, "result")
    if payload is not None:
        stanza.append(payload)
    return stanza


def error(request: Element, refusal: RequestError) -> Element:
    """The refusal of an IQ that came to the component itself."""
    stanza = _reply(request, "error")
    stanza.append(error_element(refusal, COMPONENT))
    return stanza


def error_element(refusal: RequestError, namespace: str) -> Element:
    """RFC 6120 §8.3.2: `<error/>` with one defined condition, a text, and at most one condition of an application."""
    element = Element(clark(namespace, "error"), {"type": refusal.type})
    SubElement(element, clark(STANZAS, refusal.condition))
    if refusal.text is not None:
        SubElement(element, clark(STANZAS, "text"), {_LANG: "en"}).text = refusal.text
    if refusal.application is not None:
        name, application = refusal.application
        SubElement(element, clark(application, name))
    return element
