"""What a client with a token is answered: which page comes next, or that it starts over, and why."""

from dataclasses import replace

from sync.model.conversation import Account
from sync.model.delta import DeltaQuery, Reset, SyncRequest


def begun(request: SyncRequest, owner: Account) -> tuple[DeltaQuery, Reset | None]:
    """The page to answer a request with, as the account stands; with a reason it is the first one of everything."""
    reset, token = must_reset(request, owner), request.token
    query = DeltaQuery(filters=request.filters, limit=request.limit, messages=request.messages, changes=request.changes)
    if token is None or token.says_nothing or reset is not None:
        return query, reset
    newest = None if token.low is None else token.newest
    return replace(query, since=token.since, log=token.log, below=token.low, newest=newest), None


def must_reset(request: SyncRequest, owner: Account) -> Reset | None:
    """Why a client starts over; None = it goes on. One that was told nothing cannot go wrong, but by `at_least`."""
    token = request.token
    if token is not None and not token.says_nothing:
        if token.epoch != owner.epoch:
            return Reset.EPOCH
        if token.filters != request.filters.digest:
            return Reset.FILTER
        if max(token.since, token.newest) > owner.version:
            return Reset.FUTURE
        if (token.since or token.newest) < owner.floor:
            return Reset.EXPIRED
    # A chain that goes on was begun before whatever the client has heard of since.
    if (token is None or token.low is None) and request.at_least > owner.version:
        return Reset.FUTURE
    return None


def knows_all(query: DeltaQuery, owner: Account) -> bool:
    """True where nothing has changed since the client was told everything."""
    return query.begins and query.since == owner.version > 0
