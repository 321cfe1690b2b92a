"""Namespace delegation (XEP-0355, versions 1 and 2): users' IQs that the server hands over, and the answers'
wrapping.

A delegated IQ is answered in the version of the delegation that it came in. Both servers hand over IQs for other
accounts, too: `account_of` is the gate (a user reaches only the user's own data, a host only its own users'). What
the payload asks is for its dialect to read.
"""

from dataclasses import dataclass, field
from xml.etree.ElementTree import Element, SubElement

from sync.model.errors import BadRequest, Forbidden, RequestError
from sync.model.jid import MAX_JID_BYTES, bare, domain
from sync.protocol.envelope import IQ, error_element
from sync.protocol.fields import required, short, storable
from sync.protocol.names import CLIENT, DELEGATIONS, FORWARD, clark, namespace

_ENVELOPES = frozenset(clark(version, "delegation") for version in DELEGATIONS)
_FORWARDED = clark(FORWARD, "forwarded")
_INNER = clark(CLIENT, "iq")


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegated:
    """A user's IQ in its envelope.

    `version` is the delegation's namespace, `host` and `component` the outer from and to, `outer_id` the envelope's
    id; `id`, `kind` (get or set), `sender`, `to` and `payload` are the user's.
    """

    version: str
    host: str
    component: str
    outer_id: str
    id: str
    kind: str
    sender: str
    to: str | None
    payload: Element = field(repr=False)


def is_delegated(stanza: Element) -> bool:
    """True for an IQ whose payload is an envelope of either version."""
    return len(stanza) == 1 and stanza[0].tag in _ENVELOPES


def unwrap(stanza: Element) -> Delegated:
    """The user's IQ in a component's IQ. Raises BadRequest, to be answered to the server."""
    if not is_delegated(stanza) or stanza.get("type") != "set":
        raise BadRequest("This is no delegated request.")
    envelope = stanza[0]
    # XEP-0355 §4.3: delegation, forwarded, one stanza.
    if len(envelope) != 1 or envelope[0].tag != _FORWARDED:
        raise BadRequest("'forwarded' is missing.")
    inner = envelope[0].findall(_INNER)
    # RFC 6120 §8.2.3: a request has exactly one payload.
    if len(inner) != 1 or len(inner[0]) != 1 or inner[0].get("type") not in ("get", "set"):
        raise BadRequest("There is not one request with one payload inside.")
    iq = inner[0]
    to, identifier = iq.get("to"), iq.get("id")
    if identifier is None:
        raise BadRequest("'id' is missing.")
    if to is not None and (len(to) > MAX_JID_BYTES or not storable(to)):
        raise BadRequest("'to' is too long.")
    return Delegated(
        version=namespace(envelope.tag),
        host=required(stanza, "from", MAX_JID_BYTES),
        component=required(stanza, "to", MAX_JID_BYTES),
        outer_id=required(stanza, "id"),
        # Whatever it is: an answer with another id, or an error to the server, never reaches the user.
        id=identifier,
        kind=iq.attrib["type"],
        sender=required(iq, "from", MAX_JID_BYTES),
        to=to or None,
        payload=iq[0],
    )


def account_of(delegated: Delegated) -> str:
    """The bare JID whose data is asked for; Forbidden unless it is the sender's own and of that host (invariant 8).
    BadRequest for an id that is none (RFC 6120 §8.1.3), or longer than an answer with many parts could repeat.
    """
    if not delegated.id:
        raise BadRequest("'id' is missing.")
    short(delegated.id, "id")
    account = bare(delegated.sender)
    user, at, _ = account.partition("@")
    if not at or not user or domain(account) != delegated.host:
        raise Forbidden("This host may not ask for that account.")
    # PROTOCOLS §1: requests go to the user's own bare JID, or carry no `to`. ejabberd hands it over as it was written;
    # who is taken for the own account is shown the sender's.
    if delegated.to is not None and bare(delegated.to).lower() != account.lower():
        raise Forbidden("Only your own account can be asked for.")
    return account


def wrap_result(delegated: Delegated, payload: Element | None = None) -> Element:
    """The answer, ready to send: the user's result inside the envelope's."""
    outer, inner = _answer(delegated, "result")
    if payload is not None:
        inner.append(payload)
    return outer


def wrap_error(delegated: Delegated, refusal: RequestError) -> Element:
    """The refusal, ready to send. The envelope is a result all the same: the server did nothing wrong."""
    outer, inner = _answer(delegated, "error")
    inner.append(error_element(refusal, CLIENT))
    return outer


def _answer(delegated: Delegated, kind: str) -> tuple[Element, Element]:
    outer = Element(IQ, {"type": "result", "from": delegated.component, "to": delegated.host, "id": delegated.outer_id})
    envelope = SubElement(outer, clark(delegated.version, "delegation"))
    # PROTOCOLS §7: the inner id is the request's, the inner `to` its `from`.
    sender = delegated.to or bare(delegated.sender)
    attributes = {"type": kind, "from": sender, "to": delegated.sender, "id": delegated.id}
    return outer, SubElement(SubElement(envelope, _FORWARDED), _INNER, attributes)
