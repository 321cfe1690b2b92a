"""Which rows the rules will want to see: computed from the events alone, before anything is locked or read."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import assert_never

from sync.model.books import Keys, LanePosition
from sync.model.call import CallStep
from sync.model.conversation import ConversationKey, Kind, key_of
from sync.model.event import (
    AccountEvent,
    BlocklistEvent,
    Body,
    Bookmark,
    Bounce,
    CallMessage,
    Content,
    Correction,
    Displayed,
    Event,
    GapEvent,
    Invitation,
    Malformed,
    MessageEvent,
    Moderation,
    Nothing,
    Reaction,
    Receipt,
    Retraction,
    RoomDestroyedEvent,
    RoomMembersEvent,
    RoomMessageEvent,
    SessionChange,
    SessionEvent,
    Subscription,
)
from sync.model.jid import bare, lane, resource
from sync.model.room import nick_key
from sync.rules.mentions import nick_keys


@dataclass(slots=True)
class Wanted:
    """The keys, as they are gathered. `several`: an account may have several conversations with one peer."""

    several: bool = False
    accounts: set[str] = field(default_factory=set)
    conversations: set[ConversationKey] = field(default_factory=set)
    ids: set[tuple[ConversationKey, str]] = field(default_factory=set)
    archived: set[tuple[ConversationKey, str]] = field(default_factory=set)
    behind: set[ConversationKey] = field(default_factory=set)
    calls: set[tuple[str, str]] = field(default_factory=set)
    lines: set[ConversationKey] = field(default_factory=set)
    rooms: set[str] = field(default_factory=set)
    members: set[tuple[str, str]] = field(default_factory=set)
    nicks: set[tuple[str, str]] = field(default_factory=set)
    occupants: set[tuple[str, str]] = field(default_factory=set)
    positions: set[LanePosition] = field(default_factory=set)

    def event(self, event: Event) -> None:
        """What one event wants."""
        self.positions.add(LanePosition.of(event.position, lane(event.account)))
        match event:
            case SessionEvent(change=SessionChange.BOUND):
                self.accounts.add(event.account)  # whoever connects has an account
            case MessageEvent(content=Nothing()) | SessionEvent() | GapEvent():
                pass
            case Malformed(room=True):
                self.rooms.add(event.account)
            case AccountEvent() | Malformed():
                self.accounts.update({event.account} - {""})
            case BlocklistEvent():
                self.accounts.add(event.account)
            case MessageEvent():
                self.message(event)
            case RoomMessageEvent():
                self.room_message(event)
            case RoomMembersEvent():
                self.rooms.add(event.account)
                self.members.update((event.account, member.account) for member in event.members)
                present = {member.account for member in event.members if member.present}
                self.accounts.update(present)
                self.conversations.update(ConversationKey(one, event.account, Kind.GROUP) for one in present)
            case RoomDestroyedEvent():
                self.rooms.add(event.account)
            case _:
                assert_never(event)

    def message(self, event: MessageEvent) -> None:
        """A message's conversation, and the messages that it names."""
        key = ConversationKey(event.account, event.peer, event.kind)
        self.accounts.add(event.account)
        self.conversations.update(key.alike if self.several else (key,))
        places = places_of(event) if self.several else (key,)
        if event.kind is Kind.CHAT and isinstance(event.content, Body) and event.archive_id:
            # one index instead of three, for most messages
            self.archived.update((place, key_of(event.archive_id)) for place in places)
        else:
            for index in (index for place in places for index in indexes(place)):
                self.ids.update((index, identifier) for identifier in wanted_ids(event))
        if isinstance(event.content, Displayed):
            self.behind.update(places)
        if isinstance(event.content, Bounce) and event.kind is Kind.CHAT:
            # A room of another server answers as any peer does.
            room = replace(key, kind=Kind.GROUP)
            self.conversations.add(room)
            self.ids.update((room, identifier) for identifier in wanted_ids(event))
        if session_id := session_id_of(event):
            self.calls.add((event.account, key_of(session_id)))
        match event.content:
            case CallMessage(step=step) if (step is CallStep.PROPOSE) is (event.kind is Kind.CHAT):
                self.lines.add(key)
            case CallMessage(migrated=str(successor)):
                self.calls.add((event.account, key_of(successor)))

    def room_message(self, event: RoomMessageEvent) -> None:
        """A room's own index, and those whom the message may mean."""
        if isinstance(event.content, Nothing):
            return
        room = event.account
        self.rooms.add(room)
        key = ConversationKey(room, room, Kind.GROUP)
        self.ids.update((key, identifier) for identifier in wanted_ids(event))
        if event.author is not None:
            self.members.add((room, event.author))
        if isinstance(event.content, Body) and (meant := event.content.mentions) is not None:
            self.members.update((room, jid) for jid in meant.jids)
            self.occupants.update((room, occupant) for occupant in meant.occupant_ids)
            named = (resource(occupant) for occupant in meant.occupants if bare(occupant) == room)
            self.nicks.update((room, nick_key(nick)) for nick in named if nick)
            self.nicks.update((room, nick) for nick in nick_keys(event.content.text))


def keys(events: Iterable[Event], *, several: bool = False) -> Keys:
    """The rows that these events may read or change, and the positions that they move. `several`: an account may have
    several conversations with one peer (`Conduct.several`).
    """
    wanted = Wanted(several=several)
    for event in events:
        wanted.event(event)
    return Keys(
        accounts=frozenset(wanted.accounts),
        create=True,
        conversations=frozenset(wanted.conversations),
        ids=frozenset(wanted.ids),
        archived=frozenset(wanted.archived),
        behind=frozenset(wanted.behind),
        calls=frozenset(wanted.calls),
        lines=frozenset(wanted.lines),
        devices=True,
        rooms=frozenset(wanted.rooms),
        members=frozenset(wanted.members),
        nicks=frozenset(wanted.nicks),
        occupants=frozenset(wanted.occupants),
        positions=frozenset(wanted.positions),
    )


def indexes(key: ConversationKey) -> tuple[ConversationKey, ...]:
    """Where a conversation's messages are indexed: its own index, and that of the room, where this server keeps it."""
    return (key, ConversationKey(key.peer, key.peer, Kind.GROUP)) if key.kind is Kind.GROUP else (key,)


def places_of(event: MessageEvent) -> tuple[ConversationKey, ...]:
    """Where an event may belong, or what it names may be, of all conversations with its peer (`sync.rules.apart`)."""
    key = ConversationKey(event.account, event.peer, event.kind)
    match event.content:
        case Body(sealed=None) | CallMessage() | Subscription():
            return (key,)
        case Body(sealed=Kind() as sealed):
            return (key, replace(key, kind=sealed)) if event.kind is Kind.CHAT else (key,)
        case _:
            return key.alike


def wanted_ids(event: MessageEvent | RoomMessageEvent) -> list[str]:
    """The indexed ids by which an event finds messages: its own, to be taken once, and those that it names."""
    own = [event.archive_id or event.message_id]
    if not isinstance(event, MessageEvent) or event.kind is Kind.GROUP:
        if isinstance(event, MessageEvent):
            own = [event.archive_id, event.message_id, event.origin_id]  # the last two tell a reflection
        if isinstance(event.content, CallMessage):
            own.append(event.content.session_id)  # in rooms an invite is a message among others
    found = [*own, *named_ids(event.content)]
    return [key_of(identifier) for identifier in found if identifier]


def named_ids(content: Content) -> tuple[str | None, ...]:
    """The ids of other messages that a content names."""
    match content:
        case Body(mentions=mentions):
            return (mentions.reply_to,) if mentions else ()
        case Displayed(target=target, stanza_ids=places):
            return (target, *places)
        case Correction() | Retraction() | Moderation() | Reaction() | Receipt() | Bounce():
            return (content.target,)
        case CallMessage() | Invitation() | Bookmark() | Subscription() | Nothing():
            return ()
        case _:
            assert_never(content)


def session_id_of(event: MessageEvent) -> str | None:
    """The session id of the call that an event is about."""
    match event.content:
        case CallMessage(step=CallStep.PROPOSE, session_id=session_id) if event.kind is Kind.GROUP:
            return event.archive_id or session_id
        case CallMessage(session_id=session_id):
            return session_id
        case Bounce(call=call, target=target):
            return call or target  # an invite of XEP-0482 is named by its message
        case _:
            return None
