"""Live notices of our own dialect: the content of a delta, as a headline to one session (docs/protocol.md).

A notice is whole or says that there is more: unlike an answer it leaves nothing to a next page, and what would be too
much is asked for by whoever wants it.
"""

from dataclasses import replace
from datetime import datetime
from xml.etree.ElementTree import Element

from sync.model.conversation import Account
from sync.model.delta import DeltaPage, DeltaToken
from sync.protocol.conversations import stamp
from sync.protocol.delta import Budget, fill
from sync.protocol.names import CLIENT, CONVSYNC, clark
from sync.protocol.token import encode_token

LIVE = clark(CONVSYNC, "live")
MAX_CONVERSATIONS = 20
MAX_BYTES = 64 * 1024


def encode_live(page: DeltaPage, *, now: datetime) -> Element:
    """All that changed since the page's `since`, or that there is more than a notice takes."""
    budget, token = Budget(whole=MAX_BYTES), page.token(len(page.items))
    if page.query.log < page.query.since:
        # The session reads a list: what is still owed of it has to be told to who asks with this token, too.
        token = replace(token, log=page.query.log)
    live, content = _head(page.owner, token, page.query.since, now), Element(LIVE)
    shown = fill(content, page, now=now, budget=budget)
    if not page.is_last(shown) or not budget.holds(live):
        return encode_more(page.owner, since=page.query.since, log=page.query.log, now=now)
    live.extend(content)
    return live


def encode_more(owner: Account, *, since: int, log: int, now: datetime) -> Element:
    """Without content; the token goes on where the session was."""
    live = _head(owner, DeltaToken(epoch=owner.epoch, since=since, log=log), since, now)
    live.set("more", "true")
    return live


def headline(live: Element, *, account: str, resource: str) -> Element:
    """The message that takes a notice to a session."""
    message = Element(clark(CLIENT, "message"), {"type": "headline", "from": account, "to": f"{account}/{resource}"})
    message.append(live)
    return message


def _head(owner: Account, token: DeltaToken, previous: int, now: datetime) -> Element:
    about = {"previous": str(previous), "version": str(owner.version)}
    return Element(LIVE, about | {"token": encode_token(token, account=owner.jid), "time": stamp(now)})
