"""Properties that a user sets on conversations: pinned, muted, archived, deleted, marked unread, how much to be
notified of, how far they are read. All of a request or none of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial

from sync.model.books import Books, Keys, Ruling
from sync.model.conversation import Conversation, ConversationKey, Status, key_of
from sync.model.errors import Conflict, ItemNotFound
from sync.model.query import Mute, MuteUntil, SetProperties, Unmute
from sync.rules import markers
from sync.rules.fold import Fold, Policies, Report
from sync.rules.times import FOR_EVER
from sync.rules.view import After, Decision, View, cleared, ignore, settled, version_for
from sync.rules.wanted import indexes

Changed = tuple[Conversation, ...]

END = 2**63 - 1  # behind every rank
NO_CONVERSATION = "There is no such conversation."


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a set did: the conversations that are not as they were, all that were named, in the order of the requests,
    and those that were read further than before; of several with one peer the one whose place may be said to clients
    that know the peer only (`read_by_all`). `report`: the pushes that follow.
    """

    changed: Changed
    named: Changed
    read: Changed
    report: Report = field(repr=False)


def keys_of(account: str, requests: Sequence[SetProperties], *, several: bool = False) -> Keys:
    """The rows that a set may read or change. `several`: an account may have several conversations with one peer."""
    named = [(ConversationKey(account, request.peer, request.kind), request.read) for request in requests]
    marks = [(key, key_of(read)) for key, read in named if read is not None]
    beside = {one for key, _ in marks for one in key.alike} if several else set()
    return Keys(
        accounts=frozenset({account}),
        conversations=frozenset({*(key for key, _ in named), *beside}),
        archived=frozenset((index, mark) for key, mark in marks for index in indexes(key)),
        behind=frozenset(key for key, _ in marks),
        marks=frozenset((one, END) for one in beside),
        devices=bool(marks),
    )


def set_properties(
    account: str,
    requests: Sequence[SetProperties],
    books: Books,
    *,
    resource: str | None = None,
    policies: Policies | None = None,
) -> Ruling[Settings]:
    """The rule for a set that the account's device `resource` asks for.

    Unknown and deleted conversations are not found (PROTOCOLS §2), nor are messages that the conversation's index does
    not have; a version that is not the conversation's any more is a conflict (§4). Either ends all of it.
    """
    if account not in books.accounts:
        raise ItemNotFound(NO_CONVERSATION)
    policies = policies or Policies()
    fold = Fold(books, policies)
    before, now = books.conversations, dict(books.conversations)
    changed: dict[ConversationKey, Conversation] = {}
    for request in requests:
        key = ConversationKey(account, request.peer, request.kind)
        marks = () if request.read is None else (key_of(request.read),)
        rule = partial(settings, request=request, seen=before.get(key), resource=resource, now=books.now)
        after = fold.settle(key, marks, rule)
        if after is not None:
            now[key] = changed[key] = after
    named = tuple(now[ConversationKey(account, request.peer, request.kind)] for request in requests)
    # Deleting moves the pointer, too, and leaves its name.
    read = tuple(one for one in changed.values() if one.read.id not in (None, before[one.key].read.id))
    if policies.conduct.several:
        read = tuple({place.key.plain: place for one in read if (place := read_by_all(one, now, books))}.values())
    writes = fold.writes()
    value = Settings(changed=tuple(changed.values()), named=named, read=read, report=fold.report)
    return Ruling(writes=writes, value=value)


def settings(
    before: View, *, request: SetProperties, seen: Conversation | None, resource: str | None, now: datetime
) -> Decision:
    """What a request does to one conversation: first it is read, then the rest is set. `seen`: the conversation as it
    was before all requests.
    """
    conversation = before.conversation
    if conversation is None or seen is None or conversation.status is Status.DELETED:
        raise ItemNotFound(NO_CONVERSATION)
    # Each version is compared with what the asker can have seen: not with what this very request does.
    if request.if_version not in (None, seen.version):
        raise Conflict("The conversation has changed meanwhile.")
    decision = read_up_to(before, request.read, resource, now) if request.read is not None else Decision()
    wanted = decision.after.conversation if decision.after is not None else None
    wanted = with_properties(wanted or conversation, request, now)
    if replace(wanted, version=conversation.version) == conversation:
        return ignore("as-it-was")
    wanted = replace(wanted, version=version_for(before, now))
    if wanted.status is Status.DELETED:
        # What was unread goes with it; the read pointer stays, so that a new message starts counting at itself.
        wanted = cleared(wanted)
    return Decision(after=After(account=settled(before, wanted), conversation=wanted), effects=decision.effects)


def read_up_to(before: View, archive_id: str, resource: str | None, now: datetime) -> Decision:
    """As an own displayed marker does that names a place in the archive."""
    place = key_of(archive_id)
    target = max((m for m in before.found if m.archive_key == place), key=lambda m: m.rank, default=None)
    if target is None:
        raise ItemNotFound("There is no such message in the conversation.")
    return markers.read(before, target, resource, now)


def read_by_all(read: Conversation, now: Mapping[ConversationKey, Conversation], books: Books) -> Conversation | None:
    """Of a peer's conversations the one that is read furthest, as far as nothing is unread in any of them before that;
    None where there is none such. XEP-0490 names the peer, so that to say more would read more.
    """
    alike = [now[key] for key in read.key.alike if key in now]
    clear = min(first_unread(one, books) for one in alike)
    told = [one for one in alike if one.read.id is not None and one.read.rank < clear]
    return max(told, key=lambda one: one.read.rank, default=None)


def first_unread(conversation: Conversation, books: Books) -> int:
    """A rank before which nothing is unread in a conversation."""
    if not conversation.unread:
        return END
    # The oldest as it was before the set: it may have been read since. Nothing is known of what was trimmed.
    oldest = None if conversation.base.unread else books.behind[conversation.key, END].first
    return max(oldest or 0, conversation.read.rank + 1)


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
