"""Properties that a user sets on a conversation: pinned, muted, archived, deleted. All of a request or none of it."""

from dataclasses import replace
from datetime import datetime, timedelta

from sync.model.books import Books, Ruling, Writes
from sync.model.conversation import Conversation, ConversationKey, Pointer, Status
from sync.model.errors import ItemNotFound
from sync.model.query import Mute, SetProperties, Unmute
from sync.rules.times import FOR_EVER
from sync.rules.view import View, settled, version_for


def set_properties(account: str, request: SetProperties, books: Books) -> Ruling[Conversation | None]:
    """The rule for a set. The value: the conversation, None when it already was as asked.

    Unknown and deleted conversations are not found (PROTOCOLS §2).
    """
    key = ConversationKey(account, request.peer, request.kind)
    conversation = books.conversations.get(key)
    owner = books.accounts.get(account)
    if owner is None or conversation is None or conversation.status is Status.DELETED:
        raise ItemNotFound("There is no such conversation.")
    changed = with_properties(conversation, request, books.now)
    if changed == conversation:
        return Ruling(writes=Writes(), value=None)
    before = View(account=owner, key=key, conversation=conversation)
    version = version_for(before, books.now)
    if changed.status is Status.DELETED:
        # What was unread goes with it; the read pointer stays, so that a new message starts counting at itself.
        changed = replace(changed, unread=0, read=Pointer(version, changed.read.id))
    changed = replace(changed, version=version)
    return Ruling(writes=Writes(accounts=[settled(before, changed)], conversations=[changed]), value=changed)


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
        case _:
            pass
    if request.status is not None:
        conversation = replace(conversation, status=request.status)
    return conversation


def until(now: datetime, duration: timedelta) -> datetime:
    """The end of a duration, or the end of time where it is beyond."""
    return FOR_EVER if duration >= FOR_EVER - now else now + duration
