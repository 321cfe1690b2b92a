"""Leaving without a login to XMPP: a phone that has lost its account's session, or its account, posts JSON.

`/v1/unregister` takes `{"node", "secret"}`, or `{"provider", "device-token", "secret"}`: what registering gave and
took. `/unregister-device/<component>` is what Siskin posts when an account is removed (PushEventHandler.swift):
`{"account", "provider", "device-token"}`, for which it wants `{"result": "success"}`. There the token is the proof:
nobody but the phone, Apple and we know it.

Refusals name the key, never its value. That nothing was found says nothing of why.
"""

import json
from collections.abc import Mapping

from sync.model.errors import BadRequest
from sync.model.registry import LogOut
from sync.protocol.commands import APNS_TOKEN
from sync.protocol.fields import MAX_FIELD_BYTES, short

MAX_BODY_BYTES = 8192  # three fields, each escaped as JSON may


def decode_logout(body: bytes) -> LogOut:
    """The body of a POST to `/v1/unregister`."""
    found = _keys(body, {"node", "secret", "provider", "device-token"})
    if ("node" in found) == ("provider" in found or "device-token" in found):
        raise BadRequest("Give 'node', or 'provider' and 'device-token'.")
    secret = _text(found, "secret")
    if "node" in found:
        return LogOut(node=_text(found, "node"), secret=secret)
    return LogOut(app=_text(found, "provider"), token=_token(found), secret=secret)


def decode_device_logout(body: bytes) -> LogOut:
    """The body of a POST to `/unregister-device/<component>`."""
    found = _keys(body, {"account", "provider", "device-token"})
    return LogOut(app=_text(found, "provider"), token=_token(found), account=_text(found, "account"))


def _keys(body: bytes, known: set[str]) -> Mapping[str, object]:
    try:
        found = json.loads(body, object_pairs_hook=_once)
    except (ValueError, RecursionError):  # not UTF-8, not JSON, brackets without end
        raise BadRequest("The body must be a JSON object.") from None
    if not isinstance(found, dict):
        raise BadRequest("The body must be a JSON object.")
    if not found.keys() <= known:
        raise BadRequest("The object has an unknown key.")
    return found


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise BadRequest("A key of the object comes twice.")
    return found


def _text(found: Mapping[str, object], key: str) -> str:
    value = found.get(key)
    if value is None:
        raise BadRequest(f"'{key}' is missing.")
    if not isinstance(value, str) or not value:
        raise BadRequest(f"'{key}' must be a text.")
    return short(value, key, MAX_FIELD_BYTES)


def _token(found: Mapping[str, object]) -> str:
    token = _text(found, "device-token").lower()
    if APNS_TOKEN.fullmatch(token) is None:
        raise BadRequest("'device-token' must be 32 to 200 hexadecimal digits.")
    return token
