"""A survey as JSON, which a running service hands to `convsync check`, and what is read of disco answers for it."""

import json
from dataclasses import asdict
from typing import Any
from xml.etree.ElementTree import Element

from sync.model.survey import HostSurvey, Survey
from sync.protocol.fields import claim, jid
from sync.protocol.names import DISCO_INFO, DISCO_ITEMS, clark

_MAX_ITEMS = 50  # of a host's services; whoever has more lists users there
_LISTS = ("missing", "uncovered")


def encode_survey(survey: Survey) -> str:
    """The survey as a JSON object."""
    return json.dumps(asdict(survey))


def decode_survey(text: str) -> Survey:
    """What `encode_survey` wrote. Raises ValueError for anything else."""
    try:
        found: Any = json.loads(text)
        hosts = tuple(HostSurvey(**{**one, **{name: tuple(one[name]) for name in _LISTS}}) for one in found["hosts"])
        return Survey(component=found["component"], hosts=hosts, large=found["large"])
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError("no survey") from error


def services(answer: Element) -> tuple[str, ...]:
    """The domains that a host lists as its services (XEP-0030 §4)."""
    found = (jid(item.get("jid")) for item in answer.iterfind(clark(DISCO_ITEMS, "item")))
    return tuple(name for name in found if name and "@" not in name and "/" not in name)[:_MAX_ITEMS]


def is_rooms_host(answer: Element) -> bool:
    """True for the disco#info of a MUC service (XEP-0045 §6.2)."""
    return any(one.get("category") == "conference" for one in answer.iterfind(clark(DISCO_INFO, "identity")))


def software(answer: Element) -> str:
    """The name in a server's identity, by default `Prosody` or `ejabberd`; empty where there is none."""
    identities = answer.iterfind(clark(DISCO_INFO, "identity"))
    names = (claim(one.get("name"), 100) for one in identities if one.get("category") == "server")
    return next((name for name in names if name), "")
