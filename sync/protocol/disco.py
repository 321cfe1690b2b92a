"""Service discovery (XEP-0030): what the component is, which commands it has, and what it adds to hosts and accounts.

A server asks on nodes named after the delegated namespace (XEP-0355 §7.2) and lists the answer among its own
features; without an answer ejabberd delegates nothing. Also who we are (XEP-0092).
"""

from collections.abc import Iterable, Mapping
from xml.etree.ElementTree import Element, SubElement

from sync.model.errors import ItemNotFound
from sync.protocol.names import (
    COMMANDS,
    CONVSYNC,
    DATA,
    DELEGATIONS,
    DISCO_INFO,
    DISCO_ITEMS,
    INBOX,
    PUSH,
    REWRITE,
    SYNC,
    VERSION,
    clark,
)

INFO = clark(DISCO_INFO, "query")
ITEMS = clark(DISCO_ITEMS, "query")
VERSION_QUERY = clark(VERSION, "query")

# What we offer where a namespace is delegated to us. Accounts are asked, hosts only answer for push: clients of
# XEP-0357's first versions look there.
ACCOUNT_FEATURES: Mapping[str, tuple[str, ...]] = {
    SYNC: (SYNC,),
    REWRITE: (REWRITE,),
    INBOX: (INBOX,),
    CONVSYNC: (CONVSYNC,),
    PUSH: (PUSH,),
}
HOST_FEATURES: Mapping[str, tuple[str, ...]] = {SYNC: (), REWRITE: (), INBOX: (), CONVSYNC: (), PUSH: (PUSH,)}
_COMPONENT_FEATURES = (DISCO_INFO, DISCO_ITEMS, COMMANDS, DATA, PUSH, VERSION)
_NODES = {
    f"{delegation}{separator}{namespace}": offered
    for delegation in DELEGATIONS
    for separator, features in (("::", HOST_FEATURES), (":bare:", ACCOUNT_FEATURES))
    for namespace, offered in features.items()
}


def _info(node: str | None, identity: tuple[str, str, str] | None, features: Iterable[str]) -> Element:
    query = Element(INFO, {} if node is None else {"node": node})
    if identity is not None:
        category, kind, name = identity
        SubElement(query, clark(DISCO_INFO, "identity"), {"category": category, "type": kind, "name": name})
    for feature in features:
        SubElement(query, clark(DISCO_INFO, "feature"), {"var": feature})
    return query


def info(payload: Element, *, commands: Mapping[str, str]) -> Element:
    """The answer to disco#info at the component; `commands` are names by node."""
    node = payload.get("node")
    if not node:
        # XEP-0357 §4.1: an app server is a pubsub/push; some clients enable push only where they find that.
        return _info(None, ("pubsub", "push", "Convsync"), _COMPONENT_FEATURES)
    if node in _NODES:
        return _info(node, None, _NODES[node])
    if node == COMMANDS:
        return _info(node, ("automation", "command-list", "Commands"), (COMMANDS,))
    if node in commands:
        return _info(node, ("automation", "command-node", commands[node]), (COMMANDS, DATA))
    raise ItemNotFound("There is no such node.")


def items(payload: Element, *, component: str, commands: Mapping[str, str]) -> Element:
    """The answer to disco#items at the component: its commands at their well-known node (XEP-0050 §2.2)."""
    node = payload.get("node")
    if not node:
        return Element(ITEMS)
    if node not in commands and node != COMMANDS:
        raise ItemNotFound("There is no such node.")
    query = Element(ITEMS, {"node": node})
    if node == COMMANDS:
        for command, name in commands.items():
            SubElement(query, clark(DISCO_ITEMS, "item"), {"jid": component, "node": command, "name": name})
    return query


def version(number: str) -> Element:
    """The answer to XEP-0092; the operating system stays our secret (§4 there)."""
    query = Element(VERSION_QUERY)
    SubElement(query, clark(VERSION, "name")).text = "Convsync"
    SubElement(query, clark(VERSION, "version")).text = number
    return query
