"""What an app server of somebody else is told of a push (XEP-0357 §7): who wrote, how much there is to read.

Only what shows something goes that way (PUSH §5, rows marked ●), since an app server makes a notification of each
publish. What the operator does not want to leave this server in plain words is left out here. The encrypted payload has
it all the same, as with Prosody and Tigase: nobody but the client reads it.
"""

from dataclasses import replace

from sync.model.conversation import Kind
from sync.model.device import PushKind
from sync.model.jid import bare, resource
from sync.model.publish import About, Excerpt, Notice
from sync.rules.claims import Claim
from sync.rules.publish_budget import PublishPolicy

# What Siskin's `Call.Media` knows: any other value ends it (its CallManager.swift, `Call.Media.init(rawValue: $0)!`).
MEDIA = frozenset({"audio", "video"})


def notice(claim: Claim, excerpt: Excerpt | None, policy: PublishPolicy) -> Notice:
    """The notice of a claimed job. `excerpt` of the newest message of its conversation, None where there is none."""
    job = claim.job
    count = max(claim.account.unread, 1)
    told = Notice(count=count, sender=job.peer or None, body=policy.important_body, text=policy.important_body)
    match job.kind:
        case PushKind.CALL | PushKind.CALL_FALLBACK:
            told = of_call(claim, told)
        case PushKind.MESSAGE:
            told = of_message(claim, excerpt, told, policy)
        case PushKind.SUBSCRIPTION:
            told = replace(told, requests=1 + job.joined, body=None, text=None)  # nothing was said
        case PushKind.MISSED:
            told = replace(told, about=About.CHAT)
        case _:
            pass
    if job.silent:
        # With app servers a text is what makes a sound (mod_push_appserver: priority "auto").
        told = replace(told, urgent=False, body=None)
    return told if policy.with_sender else replace(told, names_sender=False)


def of_call(claim: Claim, told: Notice) -> Notice:
    """A call rings where the client understands that (`tigase:push:jingle:0`); elsewhere it is something new."""
    call = claim.call
    if call is not None and call.kind is Kind.GROUP:
        return replace(told, about=About.GROUPCHAT)  # they would answer a room as if it were a person
    if call is None or not claim.job.voip:
        return replace(told, about=About.CHAT)
    media = tuple(kind for kind in call.media if kind in MEDIA)
    return replace(told, about=About.CALL, sender=call.caller, sid=call.session_id, media=media, text=None)


def of_message(claim: Claim, excerpt: Excerpt | None, told: Notice, policy: PublishPolicy) -> Notice:
    """A message: the newest of its conversation, where that is of the other party."""
    key = claim.job.conversation
    if key is None:
        return told  # several conversations
    in_room = key.kind is Kind.GROUP
    told = replace(told, about=About.GROUPCHAT if in_room else About.CHAT)
    if excerpt is None or key.peer not in (bare(excerpt.sender), excerpt.sender):
        return told
    told = replace(told, sender=excerpt.sender, nickname=resource(excerpt.sender) if in_room else None)
    if excerpt.body is None:
        return told
    return replace(told, text=excerpt.body, body=excerpt.body if policy.with_body else told.body)
