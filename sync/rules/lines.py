"""The calls that a rule sees for an event: those with its session id, and the peer's that it may end or go on in."""

from collections.abc import Mapping

from sync.model.call import Call, CallKey
from sync.model.conversation import key_of
from sync.model.event import CallMessage, CallStep, MessageEvent
from sync.rules.wanted import session_id_of

Calls = Mapping[CallKey, Call]


def calls_of(event: MessageEvent, calls: Calls) -> tuple[Call, ...]:
    """The account's calls with the session id that the event names."""
    session_id = session_id_of(event)
    if session_id is None:
        return ()
    sid = key_of(session_id)
    return tuple(call for key, call in calls.items() if key.account == event.account and key.sid == sid)


def lines_of(event: MessageEvent, calls: Calls) -> tuple[Call, ...]:
    """Of a propose, the peer's calls that are open; of a finish, the one in which the call goes on."""
    if not isinstance(event.content, CallMessage):
        return ()
    successor, proposes = event.content.migrated, event.content.step is CallStep.PROPOSE
    return tuple(
        call
        for key, call in calls.items()
        if (key.account, key.peer) == (event.account, event.peer)
        and call.state.is_open
        and (proposes or call.session_id == successor)
    )
