"""Requests that no client should send: every request that there is, changed in every way that XML allows.

`REQUESTS` is the one list of them, good ones; a dialect that is added is added here, and both suites (the service's
over a store in memory, the system's through real servers) ask it in every changed form, to every address. What can
stand in an attribute or a text is a pool that a test adds its own cursors, tokens and addresses to.
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement

from hypothesis import strategies as st

from sync.protocol.names import (
    COMMANDS,
    CONVSYNC,
    DATA,
    DISCO_INFO,
    DISCO_ITEMS,
    INBOX,
    PUBLISH_OPTIONS,
    PUBSUB,
    PUSH,
    PUSH_SUMMARY,
    REWRITE,
    RSM,
    SYNC,
    VERSION,
    clark,
)
from sync.protocol.serialise import parse

TOKEN = "ab" * 32


def form(**fields: str) -> str:
    """A submitted form; `__` in a name is a hyphen."""
    inner = "".join(f"<field var='{k.replace('__', '-')}'><value>{v}</value></field>" for k, v in fields.items())
    return f"<x xmlns='{DATA}' type='submit'>{inner}</x>"


def page(inner: str) -> str:
    """A result set."""
    return f"<set xmlns='{RSM}'>{inner}</set>"


@dataclass(frozen=True)
class Request:
    """A good request: an IQ of type `kind` to the own account, or to the component itself."""

    kind: str
    xml: str
    component: bool = False


_LIST_FORM = form(FORM_TYPE=SYNC, pinned_first="true", filter_pinned="0", filter_archived="0")
_ONE = "jid='bob@example.net'"
REQUESTS: dict[str, Request] = {
    "list": Request("get", f"<query xmlns='{SYNC}' stamp='15'>{_LIST_FORM}{page('<max>2</max>')}</query>"),
    "list forwards": Request("get", f"<query xmlns='{SYNC}'>{page('<max>1</max><after/>')}</query>"),
    "list backwards": Request("get", f"<query xmlns='{SYNC}'>{page('<max>1</max><before/>')}</query>"),
    "list set": Request(
        "set",
        f"<query xmlns='{SYNC}'><conversation {_ONE} type='urn:xabber:chat' pinned='5' mute='60' status='archived'/>"
        "</query>",
    ),
    "rewrites": Request("get", f"<query xmlns='{REWRITE}' version='15' less-than='10'/>"),
    "rewrite": Request("set", f"<retract-message xmlns='{REWRITE}' conversation='bob@example.net' id='1' by='a'/>"),
    "inbox": Request(
        "get", f"<inbox xmlns='{INBOX}' unread-only='false' messages='true'>{page('<max>2</max><before/>')}</inbox>"
    ),
    "set": Request(
        "set",
        f"<set xmlns='{CONVSYNC}'><conversation {_ONE} if-version='20' pinned='5' muted='60' status='active'"
        " marked-unread='true' notify='never'/><conversation jid='tea@rooms.example.org' kind='group'"
        " muted-until='2026-03-04T05:06:07Z'/></set>",
    ),
    "sync": Request(
        "get",
        f"<sync xmlns='{CONVSYNC}' max='2' messages='true' changes='true' live='true' device='node of phone'"
        " at-least='5'/>",
    ),
    "sync some": Request(
        "get", f"<sync xmlns='{CONVSYNC}' {_ONE} kind='chat' status='active' unread='true' pinned='false' token='t'/>"
    ),
    "sync rows": Request("get", f"<sync xmlns='{CONVSYNC}' max='5' preview='40'/>"),
    "call": Request("get", f"<call xmlns='{CONVSYNC}' jid='cat@example.net' id='s1'/>"),
    "read": Request("set", f"<set xmlns='{CONVSYNC}'><conversation {_ONE} read='m'/></set>"),
    "quiet hours": Request(
        "set",
        f"<set xmlns='{CONVSYNC}'><quiet from='22:00' to='07:00' zone='Europe/Berlin' until='2036-03-04T05:06:07Z'"
        " calls='true'/></set>",
    ),
    "changes": Request("get", f"<changes xmlns='{CONVSYNC}' {_ONE} kind='chat' since='10' max='10'/>"),
    "conversation": Request("get", f"<conversation xmlns='{CONVSYNC}' {_ONE} kind='chat'/>"),
    "enable": Request(
        "set",
        f"<enable xmlns='{PUSH}' jid='sync.example.org' node='node of phone'>"
        f"{form(FORM_TYPE=PUBLISH_OPTIONS, secret='secret')}</enable>",
    ),
    "enable with wishes": Request(
        "set",
        f"<enable xmlns='{PUSH}' jid='sync.example.org' node='node of phone' away='true'>"
        "<muted xmlns='tigase:push:filter:muted:0'><item jid='bob@example.net'/></muted>"
        "<ignore-unknown xmlns='tigase:push:filter:ignore-unknown:0'/>"
        "<groupchat xmlns='tigase:push:filter:groupchat:0'>"
        "<room jid='tea@rooms.example.org' allow='mentioned' nick='Ann'/></groupchat>"
        "<priority xmlns='tigase:push:priority:0'/><jingle xmlns='tigase:push:jingle:0'/>"
        "<encrypt xmlns='tigase:push:encrypt:0' alg='aes-128-gcm' max-size='3000'>MDEyMzQ1Njc4OWFiY2RlZg==</encrypt>"
        "</enable>",
    ),
    "disable": Request("set", f"<disable xmlns='{PUSH}' jid='sync.example.org' node='node of phone'/>"),
    "register": Request(
        "set",
        f"<command xmlns='{COMMANDS}' node='register-device' action='execute'>"
        + form(
            provider="chat",
            device__token=TOKEN,
            device__second__token="cd" * 32,
            device__id="phone",
            device__name="Ann's phone",
        )
        + "</command>",
        component=True,
    ),
    "unregister": Request(
        "set",
        f"<command xmlns='{COMMANDS}' node='unregister-device' action='execute' sessionid='s'>"
        f"{form(provider='chat', device__token=TOKEN)}</command>",
        component=True,
    ),
    "publish": Request(
        "set",
        f"<pubsub xmlns='{PUBSUB}'><publish node='node of phone'><item><notification xmlns='{PUSH}'>"
        f"{form(FORM_TYPE=PUSH_SUMMARY, message__count='1', last__message__body='hi')}"
        "</notification></item></publish><publish-options>"
        f"{form(FORM_TYPE=PUBLISH_OPTIONS, secret='secret')}</publish-options></pubsub>",
        component=True,
    ),
    "register by its older name": Request(
        "set",
        f"<command xmlns='{COMMANDS}' node='register-push-apns' action='execute'>"
        + form(token=TOKEN, device__id="phone", device__name="Ann's phone", application__id="chat")
        + "</command>",
        component=True,
    ),
    "register elsewhere": Request(
        "set",
        f"<command xmlns='{COMMANDS}' node='register-push-fcm'>{form(token='t', device__id='phone')}</command>",
        component=True,
    ),
    "devices": Request("set", f"<command xmlns='{COMMANDS}' node='list-push-registrations'/>", component=True),
    "which to log out": Request("set", f"<command xmlns='{COMMANDS}' node='unregister-push'/>", component=True),
    "log out": Request(
        "set",
        f"<command xmlns='{COMMANDS}' node='unregister-push'>{form(nodes='node of phone', device__id='phone')}"
        "</command>",
        component=True,
    ),
    "cancel": Request("set", f"<command xmlns='{COMMANDS}' node='register-device' action='cancel'/>", component=True),
    "info": Request("get", f"<query xmlns='{DISCO_INFO}' node='{COMMANDS}'/>", component=True),
    "delegated info": Request(
        "get", f"<query xmlns='{DISCO_INFO}' node='urn:xmpp:delegation:2:bare:{SYNC}'/>", component=True
    ),
    "items": Request("get", f"<query xmlns='{DISCO_ITEMS}' node='{COMMANDS}'/>", component=True),
    "version": Request("get", f"<query xmlns='{VERSION}'/>", component=True),
}

WORDS = (
    *("", "0", "1", "2", "17", "-1", "+1", "1.5", "1e3", "0x10", " 1", "٣", "²", "1_0", "9" * 19, "9" * 40),
    *(str(2**31), str(2**32), str(2**63 - 1), str(2**63), str(2**64), "999999999999999999"),
    *("true", "false", "yes", "null", "None", "NaN", "chat", "group", "active", "deleted", "forever", "no", "default"),
    *("execute", "prev", "next", "cancel", "result", "error", "register-device", "unregister-device"),
    *("register-push-apns", "register-push-wns", "list-push-registrations", "unregister-push", "node of eve"),
    *("always", "mentioned", "never", "aes-128-gcm", "MDEyMzQ1Njc4OWFiY2RlZg=="),
    *("22:00", "24:00", "7:00", "Europe/Berlin", "../etc/UTC", "Etc/GMT+12"),
    *("2026-03-04T05:06:07Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-02-30T00:00:00Z"),
    *("@", "/", "@/", "a@b/c", "ann@example.org", "eve@example.org", "vault@example.net", "bob@example.net/x"),
    *("urn:xabber:chat", "http://jabber.org/protocol/muc", "urn:xmpp:omemo:2", "https://xabber.com/protocol/groups"),
    *("x" * 300, "é" * 2000, "a" * 5000, "<&>'\"", "\u202e", "\U0001f600", "%s%n{0}${x}", "' OR 1=1 --", "\t\n"),
)
ATTRIBUTES = (
    *("stamp", "jid", "type", "pinned", "mute", "status", "version", "less-than", "unread-only", "messages", "kind"),
    *("if-version", "muted", "muted-until", "marked-unread", "notify", "since", "max", "node", "action", "sessionid"),
    *("away", "alg", "max-size", "allow", "nick", "zone", "until", "calls", "preview"),
    *("id", "from", "to", "var", "token", "read", "sid", "live", "device", "at-least", "changes", "unread"),
    *("unknown", "{urn:example}other"),
    "{http://www.w3.org/XML/1998/namespace}lang",
)
_FIELDS = (
    *("FORM_TYPE", "pinned_first", f"{{{SYNC}}}pinned_first", "filter_pinned", "filter_archived", "secret"),
    *("provider", "device-token", "device-second-token", "device-id", "device-name", "unknown", ""),
    *("token", "application-id", "nodes"),
)
_NAMESPACES = (SYNC, REWRITE, INBOX, CONVSYNC, PUSH, COMMANDS, DISCO_INFO, RSM, DATA, "urn:example", "")
_LOCALS = (
    *("query", "conversation", "set", "inbox", "changes", "sync", "call", "enable", "disable", "command", "x", "field"),
    "quiet",
    *("value", "max", "after", "before", "index", "first", "item", "unknown"),
)
_CHANGES = ("set", "new", "unset", "text", "clone", "remove", "rename", "page", "form", "leaf")
TAGS = st.builds(clark, st.sampled_from(_NAMESPACES), st.sampled_from(_LOCALS))


def values(pool: Sequence[str]) -> st.SearchStrategy[str]:
    """What may stand in an attribute or a text: words, those of the test, and anything that XML can carry."""
    anything = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff"), max_size=12)
    return st.sampled_from([*WORDS, *pool, *pool]) | anything


# Absent (None), empty, negative, huge, not numeric, numeric for some libraries, of another type.
EVERY = (
    *(
        None,
        "",
        "0",
        "-1",
        "²",
        "٣",
        "1.5",
        " 1",
        "1_0",
        str(2**63),
        "9" * 400,
        "x",
        "true",
        "x" * 5000,
        "a@b/c",
        "<&>",
    ),
    *("2026-03-04T05:06:07Z", "result", "group"),
)


def each_changed(name: str, pool: Sequence[str] = ()) -> Iterator[Element]:
    """The request of that name with one attribute or text changed: every one of them, to everything of `EVERY`."""
    good = parse(REQUESTS[name].xml)
    for index, element in enumerate(good.iter()):
        for attribute in (*element.attrib, *([] if element.text is None and len(element) else [None])):
            for value in (*EVERY, *pool):
                changed = deepcopy(good)
                place = list(changed.iter())[index]
                if attribute is None:
                    place.text = value
                elif value is None:
                    place.attrib.pop(attribute)
                else:
                    place.set(attribute, value)
                yield changed


@st.composite
def payloads(draw: st.DrawFn, pool: Sequence[str], name: str) -> Element:
    """The request of that name with up to four changes."""
    root = parse(REQUESTS[name].xml)
    value = values(pool)
    for _ in range(draw(st.integers(0, 4))):
        element = draw(st.sampled_from(list(root.iter())))
        match draw(st.sampled_from(_CHANGES)):
            case "set" if element.attrib:
                element.set(draw(st.sampled_from(sorted(element.attrib))), draw(value))
            case "set" | "new":
                element.set(draw(st.sampled_from(ATTRIBUTES)), draw(value))
            case "unset" if element.attrib:
                element.attrib.pop(draw(st.sampled_from(sorted(element.attrib))))
            case "unset" | "text":
                element.text = draw(value)
            case "clone" if len(element):
                element.append(deepcopy(draw(st.sampled_from(list(element)))))
            case "remove" if len(element):
                element.remove(draw(st.sampled_from(list(element))))
            case "rename":
                element.tag = draw(TAGS)
            case "page":
                root.append(draw(pages(value)))
            case "form":
                root.append(draw(forms(value)))
            case _:
                SubElement(element, draw(TAGS), {draw(st.sampled_from(ATTRIBUTES)): draw(value)}).text = draw(value)
    return root


@st.composite
def pages(draw: st.DrawFn, value: st.SearchStrategy[str]) -> Element:
    """A result set that may contradict itself."""
    made = Element(clark(RSM, "set"))
    for _ in range(draw(st.integers(0, 4))):
        child = draw(st.sampled_from(["max", "after", "before", "index", "other"]))
        SubElement(made, clark(RSM, child)).text = draw(value)
    return made


@st.composite
def forms(draw: st.DrawFn, value: st.SearchStrategy[str]) -> Element:
    """A form of known, unknown and doubled fields with none, one or several values."""
    made = Element(clark(DATA, "x"), {"type": draw(st.sampled_from(["submit", "cancel", "form", "", "other"]))})
    for _ in range(draw(st.integers(0, 3))):
        field = SubElement(made, clark(DATA, "field"), {"var": draw(st.sampled_from(_FIELDS))})
        for _ in range(draw(st.integers(0, 2))):
            SubElement(field, clark(DATA, "value")).text = draw(value)
    return made
