"""What a server says that it has granted the component: delegated namespaces (XEP-0355 §4.2) and privileges
(XEP-0356 §4.2), each in version 1 or 2.

Both come in messages of the host after the handshake. Prosody's mod_privilege 0.12 nests each `<namespace/>` in the one
before it: they are looked for at any depth. What is granted by whom, and what is missing, is decided elsewhere.
"""

from dataclasses import dataclass, field, replace
from xml.etree.ElementTree import Element

from sync.protocol.fields import claim
from sync.protocol.names import DELEGATIONS, PRIVILEGES, clark, namespace

_DELEGATION = frozenset(clark(version, "delegation") for version in DELEGATIONS)
_PRIVILEGE = frozenset(clark(version, "privilege") for version in PRIVILEGES)
_MAX_CHARS = 256  # of a namespace, and of an access
_MAX_GRANTS = 100  # of either kind; servers delegate a handful


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """What one host has granted. `delegation`, `privilege`: the namespace, with its version, of what it said; None as
    long as it has not. `privileges`: type by access, as `roster` → `get`, those for IQs by `iq NAMESPACE`.
    """

    delegation: str | None = None
    delegated: frozenset[str] = frozenset()
    privilege: str | None = None
    privileges: tuple[tuple[str, str], ...] = field(default=())


def is_advertisement(message: Element) -> bool:
    """True where a message holds either."""
    return any(child.tag in _DELEGATION or child.tag in _PRIVILEGE for child in message)


def learned(message: Element, known: Granted) -> Granted:
    """What is granted after this message. Delegations add up, since ejabberd tells each namespace by itself; privileges
    are always told as a whole.
    """
    for child in message:
        if child.tag in _DELEGATION:
            version = namespace(child.tag)
            found = (claim(one.get("namespace"), _MAX_CHARS) for one in child.iterfind(clark(version, "delegated")))
            delegated = sorted(known.delegated.union(name for name in found if name))[:_MAX_GRANTS]
            known = replace(known, delegation=version, delegated=frozenset(delegated))
        elif child.tag in _PRIVILEGE:
            version = namespace(child.tag)
            known = replace(known, privilege=version, privileges=_privileges(child, version))
    return known


def _privileges(element: Element, version: str) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for perm in element.iterfind(clark(version, "perm")):
        access, kind = claim(perm.get("access"), _MAX_CHARS), claim(perm.get("type"), _MAX_CHARS)
        if access == "iq":
            for one in perm.iter(clark(version, "namespace")):
                name, type_ = claim(one.get("ns"), _MAX_CHARS), claim(one.get("type"), _MAX_CHARS)
                if name and type_ and type_ != "none":
                    found[f"iq {name}"] = type_
        elif access and kind and kind != "none":
            found[access] = kind
    return tuple(sorted(found.items())[:_MAX_GRANTS])
