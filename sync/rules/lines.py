"""The calls that a rule sees for an event: those with its session id, and the peer's that it may end or go on in."""

from collections.abc import Mapping

from sync.model.call import Call, CallKey, CallStep
from sync.model.conversation import Kind, key_of
from sync.model.event import CallMessage, MessageEvent
from sync.model.room import EntryKind, RoomEntry, RoomMember
from sync.rules.wanted import session_id_of

Calls = Mapping[CallKey, Call]


def calls_of(event: MessageEvent, calls: Calls) -> tuple[Call, ...]:
    """The account's calls with the session id that the event names."""
    session_id = session_id_of(event)
    if session_id is None:
        return ()
    sid = key_of(session_id)
    return tuple(call for key, call in calls.items() if key.account == event.account and key.sid == sid)


def calls_told(member: RoomMember, entry: RoomEntry, calls: Calls) -> tuple[Call, ...]:
    """Of a step in a room, the member's call; of who goes, its calls there."""
    if entry.step is None:
        return ()
    if entry.kind is EntryKind.CALL:
        call = calls.get(CallKey(member.account, entry.room, key_of(entry.target_id or "")))
        return (call,) if call is not None else ()
    mine = (call for key, call in calls.items() if (key.account, key.peer) == (member.account, entry.room))
    return tuple(call for call in mine if call.kind is Kind.GROUP)


def lines_of(event: MessageEvent, calls: Calls) -> tuple[Call, ...]:
    """Of a propose, the peer's calls that are open; of a finish, the one in which the call goes on. In a room of
    another server all that are open, for a step names one by any id of its invite.
    """
    if not isinstance(event.content, CallMessage):
        return ()
    successor, proposes = event.content.migrated, event.content.step is CallStep.PROPOSE
    return tuple(
        call
        for key, call in calls.items()
        if (key.account, key.peer) == (event.account, event.peer)
        and call.kind is event.kind
        and call.state.is_open
        and (proposes or call.kind is Kind.GROUP or call.session_id == successor)
    )
