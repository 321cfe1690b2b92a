"""What tests post to the control port, read and refused: tokens, devices, reports, calls, certificates.

Every refusal is a sentence that begins with the field. It changes nothing: what a body asks for is a value.
"""

import time
from collections.abc import Collection, Mapping
from typing import Any

from sync.sandbox.apns.device import Change, Description
from sync.sandbox.apns.registry import Rate, TokenRecord, TokenState
from sync.sandbox.apns.reports import Deed, Report
from sync.sandbox.apns.ringer import CallState
from sync.sandbox.apns.senders import Environment, Wanted

_LATEST_MS = 10**15


class BadBody(ValueError):
    """A body that cannot be understood: the sentence names the field."""


def fields(body: object, known: Collection[str]) -> Mapping[str, Any]:
    """The body as an object that has no other fields than these. Raises BadBody."""
    if not isinstance(body, dict):
        raise BadBody("the body must be a JSON object")
    unknown = sorted(str(name) for name in body.keys() - set(known))
    if unknown:
        raise BadBody(f"{unknown[0]}: no such field; there are {', '.join(known)}")
    return body


def text(body: Mapping[str, object], name: str) -> str | None:
    """A field that is text, or None when it is left out."""
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise BadBody(f"{name}: must be text")
    return value


def some_text(body: Mapping[str, object], name: str) -> str:
    """A field that must be there and hold something."""
    value = text(body, name)
    if not value:
        raise BadBody(f"{name}: must be text")
    return value


def whole(body: Mapping[str, object], name: str, low: int, high: int) -> int | None:
    """A field that is a whole number in these bounds, or None when it is left out."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise BadBody(f"{name}: must be a whole number from {low} to {high}")
    return value


def seconds(body: Mapping[str, object], name: str, default: float) -> float:
    """A field that is a time of at most an hour."""
    value = body.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 3600:
        raise BadBody(f"{name}: must be a number from 0 to 3600")
    return float(value)


def flag(body: Mapping[str, object], name: str) -> bool | None:
    """A field that is true or false, or None when it is left out."""
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise BadBody(f"{name}: must be true or false")
    return value


def words(body: Mapping[str, object], name: str) -> tuple[str, ...] | None:
    """A field that is a list of text, or None when it is left out."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(word, str) and word for word in value):
        raise BadBody(f"{name}: must be a list of text")
    return tuple(value)


def _token(body: Mapping[str, object], name: str) -> str | None:
    value = text(body, name)
    if value is not None and (not value or len(value) % 2 or set(value.lower()) - set("0123456789abcdef")):
        raise BadBody(f"{name}: must be hexadecimal digits, an even number of them")
    return None if value is None else value.lower()


def read_token(body: object) -> tuple[str, TokenRecord]:
    """A token and what is told of it, as `POST /tokens` takes it. Raises BadBody."""
    told = fields(body, ("token", "state", "timestamp", "limit", "seconds"))
    token, state, limit = some_text(told, "token"), told.get("state"), whole(told, "limit", 1, 1_000_000)
    if state not in list(TokenState):
        raise BadBody(f"state: must be one of {', '.join(TokenState)}")
    since = told.get("timestamp", int(time.time() * 1000))
    if isinstance(since, bool) or not isinstance(since, int) or not 0 <= since <= _LATEST_MS:
        raise BadBody("timestamp: must be a whole number of milliseconds since 1970")
    if limit is None and "seconds" in told:
        raise BadBody("seconds: goes with limit")
    rate = None if limit is None else Rate(limit=limit, seconds=seconds(told, "seconds", 60.0))
    return token, TokenRecord(state=TokenState(state), since_ms=since, rate=rate)


def read_device(body: object) -> Description:
    """A device, as `POST /devices` takes it. Raises BadBody."""
    told = fields(body, tuple(Description.__dataclass_fields__))
    alert, voip = _token(told, "alert_token"), _token(told, "voip_token")
    if alert is None and voip is None:
        raise BadBody("alert_token: a device has this, voip_token, or both")
    if alert == voip:
        raise BadBody("voip_token: PushKit gives another token than the app's own")
    given: dict[str, Any] = {name: flag(told, name) for name in ("online", "focus", "filtering")}
    given |= {"alert_token": alert, "voip_token": voip, "call_at": text(told, "call_at")}
    given["background_per_hour"] = whole(told, "background_per_hour", 0, 1_000_000)
    given["grace"] = seconds(told, "grace", 5.0)
    given = {name: value for name, value in given.items() if value is not None}
    name = some_text(told, "id")
    if "/" in name:
        raise BadBody("id: it is part of a path, so / cannot be in it")
    return Description(id=name, app=some_text(told, "app"), **given)


def read_change(body: object) -> Change:
    """What changes of a device, as `POST /devices/<id>` takes it. Raises BadBody."""
    told = fields(body, tuple(Change.__dataclass_fields__))
    return Change(online=flag(told, "online"), focus=flag(told, "focus"), filtering=flag(told, "filtering"))


def read_report(body: object) -> Report:
    """What the app says that it did, as `POST /devices/<id>/report` takes it. Raises BadBody."""
    told = fields(body, tuple(Report.__dataclass_fields__))
    did = told.get("did")
    if did not in list(Deed):
        raise BadBody(f"did: must be one of {', '.join(Deed)}")
    deed = Deed(did)
    if deed is Deed.RANG:
        return Report(did=deed, call=some_text(told, "call"))
    if deed is Deed.CHANGED and not isinstance(told.get("alert"), str | dict):
        raise BadBody("alert: must be what is shown now, text or an object")
    return Report(did=deed, push=some_text(told, "push"), alert=told.get("alert"))


def read_call(body: object) -> tuple[str, CallState]:
    """A call and how it is, as `POST /calls` takes it. Raises BadBody."""
    told = fields(body, ("call", "state"))
    call, state = some_text(told, "call"), told.get("state")
    if state not in list(CallState):
        raise BadBody(f"state: must be one of {', '.join(CallState)}")
    return call, CallState(state)


def read_wanted(body: object) -> Wanted:
    """A sender's certificate, as `POST /certificates` takes it. Raises BadBody."""
    told = fields(body, tuple(Wanted.__dataclass_fields__))
    environments = words(told, "environments")
    if set(environments or ()) - set(Environment):
        raise BadBody(f"environments: must be among {', '.join(Environment)}")
    usual = Wanted(app=some_text(told, "app"))
    return Wanted(
        app=usual.app,
        topics=words(told, "topics"),
        environments=usual.environments if environments is None else tuple(Environment(name) for name in environments),
        revoked=flag(told, "revoked") or False,
    )
