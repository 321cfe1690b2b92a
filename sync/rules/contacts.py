"""What others ask of the account beside messages: into a room, or to see its presence; and what it has noted about a
room in its bookmarks (PROTOCOLS §5).
"""

from dataclasses import replace
from datetime import datetime, timedelta

from sync.model.conversation import Conversation, Status
from sync.model.effect import Effect, Invited, SubscriptionRequested
from sync.model.event import Bookmark, Invitation, MessageEvent, Subscription
from sync.rules.view import After, Decision, View, ignore, is_own, opened, settled, version_for

TOLD_EVERY = timedelta(days=1)  # PUSH §5: a subscription request at most once a day and sender; so for rooms


def invited(before: View, content: Invitation, event: MessageEvent, now: datetime) -> Decision:
    """XEP-0249, XEP-0045 §7.8.2: the room comes to the top of the list, with an invitation. Nothing is unread."""
    if is_own(event):
        return ignore("invitation-sent")
    conversation = before.conversation
    if conversation is not None and conversation.invited_by == content.by:
        return ignore("duplicate")
    version = version_for(before, now)
    at = min(event.at, now)
    conversation = opened(before, version, at)
    conversation = replace(
        conversation,
        version=version,
        invited_by=content.by,
        status=Status.ACTIVE if conversation.status is Status.DELETED else conversation.status,
        activity_at=max(conversation.activity_at, at),
    )
    effects: tuple[Effect, ...] = ()
    if may_tell(conversation, now):
        conversation = replace(conversation, request_told_at=now)
        effects = (Invited(conversation=before.key, version=version, known=event.known, sessions=event.sessions),)
    return Decision(after=After(account=settled(before, conversation), conversation=conversation), effects=effects)


def may_tell(conversation: Conversation, now: datetime) -> bool:
    """True when no phone was told of a request here for a while: inviters that take turns wake nobody."""
    told = conversation.request_told_at
    return told is None or now - told >= TOLD_EVERY


def answered(before: View, now: datetime) -> Decision:
    """Whoever is in the room has answered the invitation."""
    conversation = before.conversation
    if conversation is None or conversation.invited_by is None:
        return ignore("as-it-was")
    conversation = replace(conversation, version=version_for(before, now), invited_by=None)
    return Decision(after=After(account=settled(before, conversation), conversation=conversation))


def bookmarked(before: View, content: Bookmark, event: MessageEvent, now: datetime) -> Decision:
    """XEP-0402, XEP-0492: how much of the room the owner wants to hear of."""
    conversation = before.conversation
    if conversation is None and content.notify is None:
        return ignore("bookmark")
    version = version_for(before, now)
    changed = opened(before, version, min(event.at, now))
    changed = replace(changed, notify=content.notify, nick=content.nick or changed.nick)
    if changed == conversation:
        return ignore("as-it-was")
    changed = replace(changed, version=version)
    return Decision(after=After(account=settled(before, changed), conversation=changed))


def subscription(before: View, content: Subscription, event: MessageEvent, now: datetime) -> Decision:
    """RFC 6121 §3.1.3: a request stays until the user answers, or the peer takes it back. Servers repeat it at each
    login; that changes nothing.
    """
    asks = content is Subscription.REQUESTED
    conversation = before.conversation
    if asks is (conversation is not None and conversation.requests_presence):
        return ignore("as-it-was")
    version = version_for(before, now)
    at = min(event.at, now)
    conversation = replace(opened(before, version, at), version=version, requests_presence=asks)
    effects: tuple[Effect, ...] = ()
    if asks:
        conversation = replace(
            conversation,
            status=Status.ACTIVE if conversation.status is Status.DELETED else conversation.status,
            activity_at=max(conversation.activity_at, at),
        )
        if may_tell(conversation, now):
            conversation = replace(conversation, request_told_at=now)
            known = event.known or conversation.written
            asking = SubscriptionRequested(
                conversation=before.key, version=version, known=known, sessions=event.sessions
            )
            effects = (asking,)
    return Decision(after=After(account=settled(before, conversation), conversation=conversation), effects=effects)
