"""Privileged entity (XEP-0356, versions 1 and 2): what a host lets the component do, and stanzas sent in users'
names.

Reads the advertisement and wraps; whether a permission suffices is for the sender to check. The list of IQ namespaces
is not read: Prosody's nests them in each other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement

from sync.protocol.names import FORWARD, PRIVILEGES, clark, namespace

_PRIVILEGES = frozenset(clark(version, "privilege") for version in PRIVILEGES)


@dataclass(frozen=True, slots=True)
class Privileges:
    """What a host grants, by kind of access (`roster`, `message`, `presence`, `iq`), and the version that it speaks."""

    version: str
    access: Mapping[str, str]


def advertisement(message: Element) -> Privileges | None:
    """XEP-0356 §4.2: what a host's message grants; None when it grants nothing of the kind."""
    for child in message:
        if child.tag in _PRIVILEGES:
            version = namespace(child.tag)
            granted = {}
            for perm in child.iterfind(clark(version, "perm")):
                access = perm.get("access")
                if access:
                    granted[access] = perm.get("type", "")
            return Privileges(version, granted)
    return None


def wrap_message(message: Element, *, version: str) -> Element:
    """Payload of a message to the host: send this `jabber:client` message in its `from`'s name."""
    element = Element(clark(version, "privilege"))
    SubElement(element, clark(FORWARD, "forwarded")).append(message)
    return element
