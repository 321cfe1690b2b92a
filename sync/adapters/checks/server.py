"""What a survey of the server's side means: what is missing there, and the line of the server's configuration that
mends it, for Prosody, for ejabberd, or for both where it is not known which it is.
"""

from collections.abc import Iterator

from sync.adapters.checks.finding import Finding, fault, note, ok
from sync.model.survey import OLD, UNKNOWN, HostSurvey, Survey

_PROSODY, _EJABBERD = "Prosody", "ejabberd"
_NOT_LOADED = ("service-unavailable", "feature-not-implemented", "no-answer", "undefined-condition")
_NO_HOST = ("remote-server-not-found", "item-not-found", "remote-server-timeout", "not-allowed")


def server(survey: Survey) -> list[Finding]:
    """A finding or more for each host."""
    found = [finding for one in survey.hosts for finding in _host(one, survey.component)]
    if survey.large is False:
        # Not in the component's own section: mod_component is a global module and looks nowhere else.
        line = "global section: component_stanza_size_limit = 16 * 1024 * 1024"
        words = "the server takes no stanza of a megabyte from us: a client that asks for a long list cuts us off"
        found.append(note("component", words, line=(f"prosody.cfg.lua, {line}",)))
    return found


def _host(one: HostSurvey, component: str) -> Iterator[Finding]:
    subject = f"feed {one.host}"
    if one.module:
        yield _module(one, component)
    elif one.why and not one.why.startswith("not subscribed yet"):
        yield fault(subject, one.why)
    else:
        version = f" {one.module_version}" if one.module_version else ""
        yield ok(subject, f"the feed module{version} answers{f' on {one.server}' if one.server else ''}")
        yield from _archive(one)
    if one.missing and one.module not in _NO_HOST:
        names = ", ".join(one.missing)
        words = f"not delegated to us: {names}; what clients ask there does not reach us"
        yield fault(f"delegation {one.host}", words, line=_lines(one, _delegations(one, component)))
    for rooms in one.uncovered:
        words = f"{rooms} has rooms and is not covered: members who are not in the room miss what is said there"
        yield note(
            f"rooms {one.host}", words, "component.muc_hosts", line=_lines(one, _module_line(rooms, True, component))
        )


def _module(one: HostSurvey, component: str) -> Finding:
    subject, field = f"feed {one.host}", "component.muc_hosts" if one.rooms else "component.hosts"
    if one.module in _NO_HOST:
        return fault(subject, f"the server does not know this host ({one.module})", field)
    if one.module == "forbidden":
        words = "the feed module does not let this component in"
        return fault(subject, words, line=_lines(one, _let_in(one.host, one.rooms, component)))
    if one.module in _NOT_LOADED:
        words = f"no answer of the feed module ({one.module}): it is not loaded there"
        return fault(subject, words, line=_lines(one, _module_line(one.host, one.rooms, component)))
    return fault(subject, f"the feed module refuses: {one.module}")


def _archive(one: HostSurvey) -> Iterator[Finding]:
    subject = f"archive {one.host}"
    where = _section(one.host, one.rooms)
    if one.archive == "":
        yield ok(subject, "may be read for a first contact and for repair")
    elif one.archive == OLD:
        words = "the feed module is too old to read it: what was before the first contact stays unknown"
        yield note(
            subject,
            words,
            line=_lines(
                one,
                {
                    _PROSODY: "copy deploy/prosody/mod_convsync_feed and reload it",
                    _EJABBERD: "copy deploy/ejabberd/mod_convsync_feed and update it",
                },
            ),
        )
    elif one.archive == "forbidden":
        words = "the module is told not to give it: what was before the first contact stays unknown"
        yield note(
            subject,
            words,
            line=_lines(
                one,
                {
                    _PROSODY: f"{where}: convsync_feed_archive = true",
                    _EJABBERD: "modules: mod_convsync_feed: archive: true",
                },
            ),
        )
    elif one.archive == "feature-not-implemented":
        words = "the host keeps none: what was before the first contact stays unknown"
        name = '"muc_mam"' if one.rooms else '"mam"'
        lines = {_PROSODY: f"{where}: modules_enabled = {{ …; {name} }}", _EJABBERD: "modules: mod_mam: {}"}
        yield note(subject, words, line=_lines(one, lines))
    elif one.archive != UNKNOWN:
        yield note(subject, f"cannot be read: {one.archive}")


def _section(host: str, rooms: bool) -> str:
    return f'Component "{host}" "muc"' if rooms else f'VirtualHost "{host}"'


def _module_line(host: str, rooms: bool, component: str) -> dict[str, str]:
    section, more = _section(host, rooms), ", rooms: true" if rooms else ""
    return {
        _PROSODY: f'{section}: modules_enabled = {{ …; "convsync_feed" }}; '
        f'convsync_feed_components = {{ "{component}" }}',
        # One module for a host and its rooms.
        _EJABBERD: f'modules: mod_convsync_feed: components: ["{component}"]{more}',
    }


def _let_in(host: str, rooms: bool, component: str) -> dict[str, str]:
    return {
        _PROSODY: f'{_section(host, rooms)}: convsync_feed_components = {{ "{component}" }}',
        _EJABBERD: f'modules: mod_convsync_feed: components: ["{component}"]',
    }


def _delegations(one: HostSurvey, component: str) -> dict[str, str]:
    each = "; ".join(f'["{name}"] = {{ jid = "{component}" }}' for name in one.missing)
    names = "; ".join(f'"{name}": access: convsync' for name in one.missing)
    return {
        _PROSODY: f'{_section(one.host, False)}: delegations = {{ {each} }}, and "delegation" in modules_enabled '
        f'there and in Component "{component}"',
        _EJABBERD: f"modules: mod_delegation: namespaces: {names}",
    }


def _lines(one: HostSurvey, lines: dict[str, str]) -> tuple[str, ...]:
    files = {_PROSODY: "prosody.cfg.lua", _EJABBERD: "ejabberd.yml"}
    which = [name for name in lines if name == one.server] or list(lines)
    return tuple(f"{files[name]}, {lines[name]}" for name in which)
