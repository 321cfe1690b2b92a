"""Whom a message in a room means: by address, by nickname, by a reply, or everybody (XEP-0372, XEP-0513, XEP-0461).

Explicit mentions and replies count for whom they name. A nickname in the text counts as people write it: as words of
its own, in any case. What stands in a text is anybody's claim, so only so many words are looked at.
"""

import re
from collections.abc import Iterator

from sync.model.conversation import Conversation, Direction, Kind
from sync.model.event import Body
from sync.model.jid import resource
from sync.model.room import nick_key
from sync.rules.index import named
from sync.rules.view import View

MAX_WORDS = 100  # of a text, in which nicknames are looked for
MAX_NICK_WORDS = 3
MIN_NICK_CHARS = 2  # a nickname of one letter would be meant by every other sentence
_WORD = re.compile(r"\w[\w.'’_-]*", re.UNICODE)


def nick_keys(text: str) -> frozenset[str]:
    """The keys of all nicknames that may stand in a text: every one to three words in a row, as they were written."""
    return frozenset(nick_key(words) for words in _runs(text))


def _runs(text: str) -> Iterator[str]:
    words = [match.span() for _, match in zip(range(MAX_WORDS), _WORD.finditer(text), strict=False)]
    for first, (start, _) in enumerate(words):
        for _, end in words[first : first + MAX_NICK_WORDS]:
            for found in {text[start:end], text[start:end].rstrip(".'’_-")}:
                if len(found) >= MIN_NICK_CHARS:
                    yield found


def mentions_owner(before: View, content: Body, conversation: Conversation) -> bool:
    """True when a message in a room that this server does not keep means the account."""
    if before.key.kind is not Kind.GROUP or content.mentions is None:
        return False
    meant, nick = content.mentions, conversation.nick
    if meant.everybody or before.key.account in meant.jids:
        return True
    if nick is not None and any(resource(occupant) == nick for occupant in meant.occupants):
        return True
    answered = named(before, meant.reply_to) if meant.reply_to else None
    if answered is not None and answered.direction is Direction.OUT:
        return True
    return nick is not None and nick_key(nick) in nick_keys(content.text)
