"""Service discovery (XEP-0030): what the component is, which commands it has, and what it adds to hosts and accounts.

A server asks on nodes named after the delegated namespace (XEP-0355 §7.2) and lists the answer among its own
features; without an answer ejabberd delegates nothing. Only what works is listed: where no app is configured there are
no commands, and of push no more than that it can be enabled with app servers of others, where it can. Also who we are
(XEP-0092, XEP-0232).
"""

from collections.abc import Iterable, Mapping
from xml.etree.ElementTree import Element, SubElement

from sync.model.errors import ItemNotFound
from sync.protocol import forms
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
    SOFTWARE_INFO,
    SYNC,
    VERSION,
    clark,
)
from sync.protocol.wishes import FEATURES as WISHES

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
    PUSH: (PUSH, *WISHES),
}
HOST_FEATURES: Mapping[str, tuple[str, ...]] = {SYNC: (), REWRITE: (), INBOX: (), CONVSYNC: (), PUSH: (PUSH,)}
_COMPONENT_FEATURES = (DISCO_INFO, DISCO_ITEMS, COMMANDS, DATA, PUSH, VERSION)
_PUSHING = frozenset({COMMANDS, DATA, PUSH})  # what there is only for phones
_WISHING = frozenset({PUSH, *WISHES})
_NAME = "Convsync"
_NODES = {
    f"{delegation}{separator}{namespace}": offered
    for delegation in DELEGATIONS
    for separator, features in (("::", HOST_FEATURES), (":bare:", ACCOUNT_FEATURES))
    for namespace, offered in features.items()
}


def _info(node: str | None, identities: Iterable[tuple[str, str, str]], features: Iterable[str]) -> Element:
    query = Element(INFO, {} if node is None else {"node": node})
    for category, kind, name in identities:
        SubElement(query, clark(DISCO_INFO, "identity"), {"category": category, "type": kind, "name": name})
    for feature in features:
        SubElement(query, clark(DISCO_INFO, "feature"), {"var": feature})
    return query


def info(
    payload: Element,
    *,
    commands: Mapping[str, str],
    providers: Iterable[str] = (),
    pushes: bool | None = None,
    version: str | None = None,
) -> Element:
    """The answer to disco#info at the component; `commands` are names by node, none where no app is configured.
    `providers`: the apps' names. `pushes`: push can be enabled, with app servers of others too; None = where there are
    commands. `version`: of the program, where it is to be said.
    """
    node = payload.get("node")
    hidden = frozenset[str]() if commands else _PUSHING
    if not node:
        # XEP-0357 §4.1: an app server is a pubsub/push; some clients enable push only where they find that.
        pushing = [("pubsub", "push", _NAME)] if commands else []
        # Siskin looks for the component that has its provider's name among the features, as Tigase's has.
        features = (*_without(hidden, _COMPONENT_FEATURES), *sorted(providers))
        query = _info(None, [*pushing, ("component", "generic", _NAME)], features)
        if version is not None:
            query.append(_software(version))
        return query
    if node in _NODES:
        return _info(node, (), _NODES[node] if pushes or not hidden else _without(_WISHING, _NODES[node]))
    if node == COMMANDS and commands:
        return _info(node, [("automation", "command-list", "Commands")], (COMMANDS,))
    if node in commands:
        return _info(node, [("automation", "command-node", commands[node])], (COMMANDS, DATA))
    raise ItemNotFound("There is no such node.")


def _without(hidden: frozenset[str], features: Iterable[str]) -> list[str]:
    return [feature for feature in features if feature not in hidden]


def _software(version: str) -> Element:
    """XEP-0232 §2; the operating system stays our secret here, too."""
    form = forms.result([(forms.FORM_TYPE, (SOFTWARE_INFO,)), ("software", (_NAME,)), ("software_version", (version,))])
    # XEP-0068 §3: of a form that is not for submitting, too.
    form[0].set("type", "hidden")
    return form


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
    SubElement(query, clark(VERSION, "name")).text = _NAME
    SubElement(query, clark(VERSION, "version")).text = number
    return query
