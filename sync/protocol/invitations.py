"""Who asks the account into which room: by a message of its own (XEP-0249), or through the room (XEP-0045 §7.8.2).

An invitation of a form that names no room is none, and the message that carries it is what it is otherwise. Rooms add
the direct form to the mediated one for old clients: the mediated one is looked at first.
"""

from typing import NamedTuple
from xml.etree.ElementTree import Element

from sync.model.event import Invitation
from sync.model.jid import bare
from sync.protocol.fields import jid
from sync.protocol.names import CONFERENCE, MUC_USER, clark

MUC_USER_X, CONFERENCE_X = clark(MUC_USER, "x"), clark(CONFERENCE, "x")
_INVITE, _DECLINE = clark(MUC_USER, "invite"), clark(MUC_USER, "decline")


class Asked(NamedTuple):
    """An invitation and the room that it is to."""

    room: str
    invitation: Invitation


def decode_invitation(found: dict[str, Element], sender: str, private: bool) -> Asked | None:
    """The invitation that `sender` passed on; `private`: the sender is an occupant of a room."""
    user = found.get("muc-user")
    invite = None if user is None else user.find(_INVITE)
    # §7.8.2: the room itself passes it on, so the sender is a bare JID; anybody else may write such an element, too.
    if invite is not None and "@" in sender and "/" not in sender:
        return Asked(sender, Invitation(_inviter(invite.get("from"), sender)))
    direct = found.get("conference")
    room = None if direct is None else jid(direct.get("jid"))
    if room is None or "@" not in room or bare(room).startswith("@"):
        return None
    return Asked(bare(room), Invitation(sender if private else bare(sender)))


def _inviter(by: str | None, room: str) -> str:
    """The inviter's bare JID, of an occupant its full one; the room where it does not say."""
    inviter = jid(by)
    if inviter is None:
        return room
    return inviter if bare(inviter) == room else bare(inviter)


def is_private(found: dict[str, Element]) -> bool:
    """XEP-0045 §7.5: the mark of a private message between occupants of a room."""
    user = found.get("muc-user")
    return user is not None and user.find(_INVITE) is None and user.find(_DECLINE) is None
