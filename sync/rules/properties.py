"""Properties that a user sets on conversations: pinned, muted, archived, deleted, marked unread, how much to be
notified of. All of a request or none of it.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from sync.model.books import Books, Ruling, Writes
from sync.model.conversation import Conversation, ConversationKey, Status
from sync.model.errors import Conflict, ItemNotFound
from sync.model.query import Mute, MuteUntil, SetProperties, Unmute
from sync.rules.times import FOR_EVER
from sync.rules.view import View, cleared, settled, version_for

Changed = tuple[Conversation, ...]


def set_properties(account: str, requests: Sequence[SetProperties], books: Books) -> Ruling[Changed]:
    """The rule for a set. The value: the conversations that are not as they were.

    Unknown and deleted conversations are not found (PROTOCOLS §2); a version that is not the conversation's any more
    is a conflict (§4). Either ends all of it.
    """
    owner = books.accounts.get(account)
    found = dict(books.conversations)
    changed: dict[ConversationKey, Conversation] = {}
    for request in requests:
        key = ConversationKey(account, request.peer, request.kind)
        conversation = found.get(key)
        if owner is None or conversation is None or conversation.status is Status.DELETED:
            raise ItemNotFound("There is no such conversation.")
        # Each version is compared with what the asker can have seen: not with what this very request does.
        if request.if_version not in (None, books.conversations[key].version):
            raise Conflict("The conversation has changed meanwhile.")
        wanted = with_properties(conversation, request, books.now)
        if wanted == conversation:
            continue
        before = View(account=owner, key=key, conversation=conversation)
        wanted = replace(wanted, version=version_for(before, books.now))
        if wanted.status is Status.DELETED:
            # What was unread goes with it; the read pointer stays, so that a new message starts counting at itself.
            wanted = cleared(wanted)
        owner = settled(before, wanted)
        found[key] = changed[key] = wanted
    writes = Writes(conversations=list(changed.values()), accounts=[owner] if owner and changed else [])
    return Ruling(writes=writes, value=tuple(changed.values()))


def set_and_named(account: str, requests: Sequence[SetProperties], books: Books) -> Ruling[tuple[Changed, Changed]]:
    """`set_properties`, for who also wants to know what it left as it was. The value: the conversations that changed,
    and all that were named, in the order of the requests.
    """
    ruling = set_properties(account, requests, books)
    now = books.conversations | {conversation.key: conversation for conversation in ruling.value}
    named = tuple(now[ConversationKey(account, request.peer, request.kind)] for request in requests)
    return Ruling(writes=ruling.writes, value=(ruling.value, named))


def with_properties(conversation: Conversation, request: SetProperties, now: datetime) -> Conversation:
    """The conversation with what the request names."""
    if request.pinned is not None:
        conversation = replace(conversation, pinned=request.pinned)
    match request.mute:
        case Unmute():
            conversation = replace(conversation, muted_until=None)
        case Mute(duration=None):
            conversation = replace(conversation, muted_until=FOR_EVER)
        case Mute(duration=duration) if duration is not None:
            conversation = replace(conversation, muted_until=until(now, duration))
        case MuteUntil(at=at):
            conversation = replace(conversation, muted_until=at if at > now else None)
        case _:
            pass
    if request.status is not None:
        conversation = replace(conversation, status=request.status)
    if request.marked_unread is not None:
        conversation = replace(conversation, marked_unread=request.marked_unread)
    if request.notify is not None:
        conversation = replace(conversation, notify=request.notify.notify)
    return conversation


def until(now: datetime, duration: timedelta) -> datetime:
    """The end of a duration, or the end of time where it is beyond."""
    return FOR_EVER if duration >= FOR_EVER - now else now + duration
