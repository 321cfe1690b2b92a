"""What a session's change makes of it: one table, for everybody who keeps presence.

Decides nothing about attention or pushes. After a resumption a session counts as active until its client says
otherwise: the server reports `inactive` anew where it kept that state.
"""

from sync.model.event import Session, SessionChange, SessionEvent, SessionState

BECOMES = {
    SessionChange.BOUND: SessionState.BOUND,
    SessionChange.AVAILABLE: SessionState.ACTIVE,
    SessionChange.UNAVAILABLE: SessionState.BOUND,  # still connected, but reads nothing
    SessionChange.ACTIVE: SessionState.ACTIVE,
    SessionChange.INACTIVE: SessionState.INACTIVE,
    SessionChange.HIBERNATED: SessionState.HIBERNATED,
    SessionChange.RESUMED: SessionState.ACTIVE,
    SessionChange.UNBOUND: None,  # gone
}


def becomes(event: SessionEvent) -> Session | None:
    """The session after the change; None when it is gone."""
    state = BECOMES[event.change]
    if state is None:
        return None
    return Session(event.resource, state, event.acked_at if state is SessionState.HIBERNATED else None)
