"""Publishes to app servers that are not ours (XEP-0357, the server's side): whom to tell, and what.

A user's client names a node at some app server and what is to be given back to it with each publish. What is told is
a `Notice`; which of it goes in plain words and which is encrypted for the client is the protocol's.
"""

from dataclasses import dataclass, field
from enum import StrEnum

Options = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class AppServer:
    """A node of an app server. `options`: the fields of the publish-options, in their order; nodes are push tokens with
    some app servers, and options hold secrets.
    """

    jid: str
    node: str = field(repr=False)
    options: Options = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Excerpt:
    """What a message says: its sender's JID as it stands there, its text, None where it has none or is encrypted."""

    sender: str
    body: str | None = field(repr=False)


class About(StrEnum):
    """What an encrypted payload is about (`type`)."""

    CHAT = "chat"
    GROUPCHAT = "groupchat"
    CALL = "call"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What is to be told.

    `count`: messages to read, at least 1, since to some clients 0 says that nothing is left to show. `requests`: how
    many ask for the user's presence. `sender`: a JID, of a call and a message the full one; None where several
    conversations are meant. `names_sender`, `body`: whether and what may be said of it in plain words; `text`: what the
    client alone may read. `urgent`: to be seen at once. `sid` and `media` of a call that rings.
    """

    count: int = 1
    requests: int = 0
    about: About | None = None
    sender: str | None = field(default=None, repr=False)
    names_sender: bool = True
    nickname: str | None = field(default=None, repr=False)
    body: str | None = field(default=None, repr=False)
    text: str | None = field(default=None, repr=False)
    urgent: bool = True
    sid: str | None = field(default=None, repr=False)
    media: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cipher:
    """An encrypted payload: the initialisation vector, and the text with its tag behind it."""

    iv: bytes
    text: bytes
