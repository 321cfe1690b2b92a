"""The forms of single values of the configuration: a JID, a host, a key, a file that is there.

Each function takes a value, returns it in its normal form or raises `ValueError` with a sentence that says what is
wanted. Decides form only: nothing is connected to, and no message repeats a secret.
"""

import binascii
import os
import re
from base64 import urlsafe_b64decode
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from pydantic import SecretStr

Item = TypeVar("Item")

_LABEL = r"(?!-)[A-Za-z0-9\u0080-\U0010ffff_-]{1,63}(?<!-)"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_FERNET_KEY_BYTES = 32  # github.com/fernet/spec: a signing key and an encryption key of 128 bits each


def host(value: str) -> str:
    """A host name, as XMPP domains are compared: in lower case."""
    if not _HOST.fullmatch(value) or len(value.encode()) > 1023:
        raise ValueError(f"{value!r} is not a host name; wanted is a domain such as example.org")
    return value.lower()


def host_or_any(value: str) -> str:
    """A host name, or `*` for every one."""
    return value if value == "*" else host(value)


def jid(value: str) -> str:
    """A component's JID: a domain, without node and resource (XEP-0114 §3)."""
    if "@" in value or "/" in value:
        raise ValueError(f"{value!r} is not a component's JID; wanted is a domain such as sync.example.org")
    return host(value)


def address(value: str) -> str:
    """`host:port`, also written as `https://host:port`."""
    plain = value.removeprefix("https://").rstrip("/")
    name, _, port = plain.rpartition(":")
    if not name or not port.isascii() or not port.isdecimal() or not 1 <= int(port) <= 65535 or "/" in plain:
        raise ValueError(f"{value!r} is not of the form host:port")
    return plain


def postgres_url(value: SecretStr) -> SecretStr:
    """A connection URL of Postgres."""
    if urlsplit(value.get_secret_value()).scheme not in ("postgresql", "postgres"):
        raise ValueError("wanted is a URL: postgresql://user:password@host:port/database")
    return value


def redis_url(value: SecretStr) -> SecretStr:
    """A connection URL of Redis or Valkey."""
    if urlsplit(value.get_secret_value()).scheme not in ("redis", "rediss", "unix"):
        raise ValueError("wanted is a URL: redis://…, rediss://… or unix:///path")
    return value


def proxy_url(value: SecretStr) -> SecretStr:
    """An HTTP proxy, by which others are reached with CONNECT."""
    parts = urlsplit(value.get_secret_value())
    try:
        good = parts.scheme == "http" and bool(parts.hostname) and parts.port is not None
    except ValueError:
        good = False
    if not good or parts.path.strip("/") or parts.query:
        raise ValueError("wanted is a URL: http://host:port or http://user:password@host:port")
    return value


def fernet_key(value: SecretStr) -> SecretStr:
    """32 bytes in URL-safe base64."""
    try:
        length = len(urlsafe_b64decode(value.get_secret_value().encode()))
    except (binascii.Error, ValueError):
        length = 0
    if length != _FERNET_KEY_BYTES:
        raise ValueError("this is not a Fernet key (44 characters of base64); make one with: convsync new-key")
    return value


def readable_file(value: Path) -> Path:
    """An existing file that this user may read. Absolute, since a service's working directory is nobody's guess."""
    if not value.is_absolute():
        raise ValueError(f"{value} is a relative path; write the whole path")
    if not value.is_file():
        raise ValueError(f"there is no file {value}")
    if not os.access(value, os.R_OK):
        raise ValueError(f"this user may not read {value}")
    return value


def some(values: tuple[Item, ...]) -> tuple[Item, ...]:
    """At least one. Looked at after the items, so that a faulty item is the only fault told."""
    if not values:
        raise ValueError("wanted is at least one")
    return values


def exactly_one(first: str, a: object | None, second: str, b: object | None) -> None:
    """Refuses both and neither."""
    if (a is None) == (b is None):
        raise ValueError(f"give {first} or {second}" + (", not both" if a is not None else ""))
