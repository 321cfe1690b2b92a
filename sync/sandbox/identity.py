"""What a sandbox keeps from one start to the next: its ports, its accounts, its secrets.

Decides the names of the accounts and how long a password is. Kept in one file in the data folder that only its owner
may read, so that data of an earlier sandbox can be opened again. Refuses to know what the secrets protect.
"""

import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from cryptography.fernet import Fernet

NAMED = ("alice", "bob", "carol", "dave")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """`accounts` is user name to password, in the order in which the ready file lists them."""

    accounts: dict[str, str]
    postgres_password: str
    redis_password: str
    component_secret: str
    sealing_key: str
    ports: tuple[int, ...] = ()
    server: str = "prosody"


def names(count: int) -> list[str]:
    """alice, bob, carol, dave, then user5 … userN."""
    return [NAMED[n] if n < len(NAMED) else f"user{n + 1}" for n in range(count)]


def remember(file: Path, *, accounts: int, server: str = "prosody") -> Identity:
    """The identity that `file` holds, or a new one of that server; with at least so many accounts."""
    known = json.loads(file.read_text()) if file.exists() else {}
    passwords = known.get("accounts", {})
    wanted = names(max(accounts, len(passwords)))
    return Identity(
        accounts={name: passwords.get(name) or secrets.token_urlsafe(12) for name in wanted},
        postgres_password=known.get("postgres_password") or secrets.token_hex(24),
        redis_password=known.get("redis_password") or secrets.token_hex(24),
        component_secret=known.get("component_secret") or secrets.token_hex(24),
        sealing_key=known.get("sealing_key") or Fernet.generate_key().decode(),
        ports=tuple(known.get("ports", ())),
        server=known.get("server", "prosody" if known else server),
    )


def keep(file: Path, identity: Identity) -> None:
    write_private(file, json.dumps(asdict(identity), indent=1))


def write_private(file: Path, text: str) -> None:
    """Replace a file's content at once; nobody else may read it, and nobody sees half of it."""
    draft = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    draft.touch(mode=0o600)
    draft.write_text(text, encoding="utf-8")
    draft.replace(file)
