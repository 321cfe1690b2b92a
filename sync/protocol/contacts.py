"""Events of the kinds `subscription` and `blocklist` (docs/feed.md §5): what roster and blocklist say about peers.

One event of a blocklist may name many peers. Whoever is blocked by a full JID alone is not blocked as far as a
conversation is concerned: such entries are left out.
"""

from datetime import datetime
from xml.etree.ElementTree import Element

from sync.model.conversation import Direction
from sync.model.event import BlocklistEvent, FeedPosition, MessageEvent, Subscription
from sync.model.jid import bare
from sync.protocol.fields import Refused, address, jid
from sync.protocol.names import FEED, clark

_SUBSCRIPTIONS = {state.value: state for state in Subscription}
_BLOCK, _UNBLOCK = clark(FEED, "block"), clark(FEED, "unblock")


def decode_subscription(element: Element, position: FeedPosition, account: str, at: datetime) -> MessageEvent:
    """Raises Refused."""
    state = _SUBSCRIPTIONS.get(element.get("state", ""))
    if state is None:
        raise Refused("state")
    peer = bare(address(element.get("peer"), "peer"))
    # The peer asks and takes back; it is the account that answers.
    answered = state is Subscription.SETTLED
    return MessageEvent(
        position=position,
        account=account,
        at=at,
        direction=Direction.OUT if answered else Direction.IN,
        peer=peer,
        sender=account if answered else peer,
        content=state,
        stanza="",
    )


def decode_blocklist(element: Element, position: FeedPosition, account: str, at: datetime) -> BlocklistEvent:
    """XEP-0191 §3: what was done in the order in which it was done."""
    blocked: set[str] = set()
    unblocked: set[str] = set()
    cleared = False
    for child in element:
        peer = jid(child.get("jid"))
        if child.tag == _BLOCK and peer is not None and "/" not in peer:
            blocked.add(peer)
            unblocked.discard(peer)
        elif child.tag == _UNBLOCK:
            if child.get("jid") is None:
                blocked, unblocked, cleared = set(), set(), True
            elif peer is not None and "/" not in peer:
                blocked.discard(peer)
                unblocked.add(peer)
    return BlocklistEvent(
        position=position,
        account=account,
        at=at,
        blocked=frozenset(blocked),
        unblocked=frozenset(unblocked),
        cleared=cleared,
    )
