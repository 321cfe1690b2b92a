"""The feed of a vector: a line's words become an event.

What accounts receive and send has verbs in the present tense (`in`, `correct`, `displayed`), what rooms of this server
say in the past (`said`, `corrected`, `marked`). In a line `~` stands for 100,000 letters.
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from sync.model.call import CallStep
from sync.model.conversation import Direction, Kind, Notify
from sync.model.event import (
    AccountEvent,
    AccountState,
    BlocklistEvent,
    Body,
    Bookmark,
    Bounce,
    CallMessage,
    Content,
    Correction,
    Displayed,
    Event,
    FeedPosition,
    Invitation,
    Malformed,
    Membership,
    Mentions,
    MessageEvent,
    Moderation,
    Nothing,
    Reaction,
    Receipt,
    Retraction,
    RoomDestroyedEvent,
    RoomMembersEvent,
    RoomMessageEvent,
    Session,
    SessionState,
    Subscription,
)
from sync.model.room import Affiliation, Departure
from tests.contract.samples import BOB

Options = Mapping[str, str]
LONG = "x" * 100_000

MEMBER = re.compile(
    r"(?P<affiliation>\w+)(?P<present>\+)?(?:-(?P<why>\w+))?(?:/(?P<nick>[^#]+))?(?:#(?P<occupant>.+))?"
)


def own(options: Options) -> str:
    """The account that a step is about: Ann's."""
    return f"{options.get('own', 'ann')}@example.org"


def far(options: Options) -> str:
    """A room of another server."""
    return f"{options['room']}@rooms.example.net"


def near(options: Options) -> str:
    """A room of this server."""
    return f"{options.get('at', 'tea')}@rooms.example.org"


def yes(options: Options, name: str, default: str = "no") -> bool:
    return options.get(name, default) == "yes"


def stanza(text: str) -> str:
    return f'<message xmlns="jabber:client"><body>{text}</body></message>'


def sessions(options: Options) -> tuple[Session, ...]:
    pairs = [pair.partition(":") for pair in options.get("sessions", "").split(",") if pair]
    return tuple(Session(resource, SessionState(state)) for resource, _, state in pairs)


def mentions(options: Options, room: str) -> Mentions:
    listed = {name: options.get(name, "").split(",") if options.get(name) else [] for name in ("jids", "occs", "nicks")}
    return Mentions(
        jids=tuple(f"{name}@example.org" for name in listed["jids"]),
        occupant_ids=tuple(listed["occs"]),
        occupants=tuple(nick if "/" in nick else f"{room}/{nick}" for nick in listed["nicks"]),
        everybody=yes(options, "everybody"),
        reply_to=options.get("reply"),
    )


def spoken(options: Options, room: str) -> Body:
    return Body(mentions=mentions(options, room), text=options.get("text", ""))


def emojis(named: list[str], options: Options) -> tuple[str, ...]:
    return tuple(chr(0x1F600 + n) for n in range(int(options.get("many", 0)))) + tuple(named)


class Feed:
    """Events in the order of their lines, each at its position and the clock's time."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.events: list[Event] = []
        self._now = now

    def event(self, verb: str, named: list[str], options: Options) -> Event:
        made = VERBS[verb](self, named, options)
        self.events.append(made)
        return made

    def at(self, options: Options) -> datetime:
        return self._now() - timedelta(seconds=float(options.get("ago", 0)))

    def position(self) -> FeedPosition:
        return FeedPosition("example.org", "stream", "main", len(self.events) + 1)

    def message(self, content: Content, options: Options, *, way: str = "in", name: str | None = None) -> MessageEvent:
        """What an account's session received or sent."""
        way = options.get("dir", way)
        direction = Direction(way if way != "self" else "out")
        mine, account = direction is Direction.OUT, own(options)
        peer = far(options) if "room" in options else options.get("peer", BOB)
        occupant = f"{peer}/{options['nick']}" if "nick" in options else peer
        theirs = occupant if "room" in options or "/" in peer else f"{peer}/phone"
        author = None
        if "room" in options and not isinstance(content, Bounce | Bookmark | Invitation):
            author = account if mine else options.get("occ", theirs)
        bodiless = isinstance(content, Bookmark | Subscription) or yes(options, "pep")
        return MessageEvent(
            position=self.position(),
            account=account,
            at=self.at(options),
            direction=direction,
            peer=account if way == "self" else peer,
            sender=f"{account}/{options.get('res', 'web')}" if mine else theirs,
            content=content,
            stanza="" if bodiless else stanza(options.get("text", name or "")),
            kind=Kind.GROUP if "room" in options or yes(options, "group") else Kind.CHAT,
            resource=options.get("res"),
            archive_id=options.get("archive"),
            message_id=name or options.get("id"),
            origin_id=options.get("origin"),
            author=author,
            known=yes(options, "known", "yes"),
            blocked=yes(options, "blocked"),
            to_self=way == "self",
            replayed=yes(options, "replayed"),
            stored=yes(options, "stored", "yes"),
            sessions=sessions(options),
        )

    def body(self, named: list[str], options: Options, way: str) -> MessageEvent:
        sealed = Kind(options["sealed"]) if "sealed" in options else None
        content = spoken(options, far(options)) if "room" in options else Body(encrypted=bool(sealed), sealed=sealed)
        return self.message(content, options, way=way, name=named[0] if named else None)

    def bounce(self, named: list[str], options: Options) -> MessageEvent:
        condition = options.get("condition", "undefined-condition")
        target = options.get("of") if "of" in options else None
        return self.message(Bounce(target, named[0] if named else None, condition), options)

    # ---- rooms of this server ------------------------------------------------------------------------------------

    def said(self, content: Content, options: Options, name: str | None = None) -> RoomMessageEvent:
        """What a room says: `by` an account, or by an occupant who is none (`nick`, `occ`)."""
        room, by = near(options), options.get("by")
        nick = options.get("nick", by.capitalize() if by else None)
        return RoomMessageEvent(
            position=self.position(),
            account=room,
            at=self.at(options),
            sender=f"{room}/{nick}" if nick else room,
            content=content,
            stanza=stanza(options.get("text", name or "")),
            private=yes(options, "private"),
            author=f"{by}@example.org" if by else None,
            occupant_id=options.get("occ"),
            archive_id=options.get("archive"),
            message_id=name or options.get("id"),
            origin_id=options.get("origin"),
            stored=yes(options, "stored", "yes"),
        )

    def members(self, options: Options, *, begin: bool = False, end: bool = False) -> RoomMembersEvent:
        """`name=affiliation+-why/nick#occupant-id`: `+` is in the room."""
        named = {key: MEMBER.fullmatch(value) for key, value in options.items() if key not in ("private", "at", "ago")}
        return RoomMembersEvent(
            position=self.position(),
            account=near(options),
            at=self.at(options),
            members=tuple(
                Membership(
                    account=f"{name}@example.org",
                    affiliation=Affiliation(found["affiliation"]),
                    present=bool(found["present"]),
                    nick=found["nick"],
                    occupant_id=found["occupant"],
                    why=Departure(found["why"]) if found["why"] else None,
                )
                for name, found in named.items()
                if found is not None
            ),
            private=yes(options, "private"),
            begin=begin,
            end=end,
        )


VERBS: dict[str, Callable[[Feed, list[str], Options], Event]] = {
    "in": lambda f, n, o: f.body(n, o, "in"),
    "out": lambda f, n, o: f.body(n, o, "out"),
    "self": lambda f, n, o: f.body(n, o, "self"),
    "correct": lambda f, n, o: f.message(Correction(n[0]), o),
    "retract": lambda f, n, o: f.message(Retraction(n[0]), o),
    "moderate": lambda f, n, o: f.message(Moderation(n[0], o.get("by")), o),
    "react": lambda f, n, o: f.message(Reaction(n[0], emojis(n[1:], o)), o),
    "displayed": lambda f, n, o: f.message(Displayed(n[0], tuple(n[1:])), o, way="out"),
    "receipt": lambda f, n, o: f.message(Receipt(n[0]), o),
    "invite": lambda f, n, o: f.message(Invitation(o["by"]), o),
    "bookmark": lambda f, _, o: f.message(
        Bookmark(Notify(o["notify"]) if "notify" in o else None, o.get("called")), o, way="out"
    ),
    "subscription": lambda f, n, o: f.message(Subscription(n[0]), o),
    "call": lambda f, n, o: f.message(CallMessage(CallStep(n[0]), n[1], ("audio",), o.get("to")), o),
    "bounce": lambda f, n, o: f.bounce(n, o),
    "nothing": lambda f, n, o: f.message(Nothing(n[0]), o),
    "block": lambda f, n, o: BlocklistEvent(
        position=f.position(), account=own(o), at=f.at(o), blocked=frozenset(n), cleared=yes(o, "cleared")
    ),
    "unblock": lambda f, n, o: BlocklistEvent(
        position=f.position(), account=own(o), at=f.at(o), unblocked=frozenset(n), cleared=not n
    ),
    "account": lambda f, n, o: AccountEvent(
        position=f.position(), account=own(o), at=f.at(o), state=AccountState(n[0])
    ),
    "malformed": lambda f, n, o: Malformed(position=f.position(), account=own(o), why=n[0], xml="<event/>"),
    "said": lambda f, n, o: f.said(spoken(o, near(o)), o, n[0] if n else None),
    "corrected": lambda f, n, o: f.said(Correction(n[0]), o),
    "retracted": lambda f, n, o: f.said(Retraction(n[0]), o),
    "moderated": lambda f, n, o: f.said(Moderation(n[0], o.get("moderator")), o),
    "reacted": lambda f, n, o: f.said(Reaction(n[0], emojis(n[1:], o)), o),
    "called": lambda f, n, o: f.said(CallMessage(CallStep(n[0]), n[1], ("audio",)), o, o.get("id")),
    "marked": lambda f, n, o: f.said(Displayed(n[0], tuple(n[1:])), o),
    "receipted": lambda f, n, o: f.said(Receipt(n[0]), o),
    "muttered": lambda f, n, o: f.said(Nothing(n[0]), o),
    "members": lambda f, _, o: f.members(o),
    "listing": lambda f, _, o: f.members(o, begin=True, end=True),
    "listing-begins": lambda f, _, o: f.members(o, begin=True),
    "listing-ends": lambda f, _, o: f.members(o, end=True),
    "destroyed": lambda f, _, o: RoomDestroyedEvent(position=f.position(), account=near(o), at=f.at(o)),
}
