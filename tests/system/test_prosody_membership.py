"""Random comings and goings in a room of a real Prosody: what was told change by change is what a listing says at the
end (docs/feed.md §5.3).
"""

import asyncio
import random
from collections.abc import Iterable

import pytest

from tests.system.prosody_server import ROOMS, Prosody
from tests.system.room_client import MUC, Cast, members
from tests.system.xmpp_client import XmppClient
from tests.system.xmpp_component import Event, FeedComponent

pytest_plugins = ("tests.system.prosody_feed",)

STEPS = 120
NICKS = ("Bob", "Robert", "Cat", "Dog")


def fold(events: Iterable[Event]) -> dict[str, dict[str, str]]:
    """Who belongs to the room after these events, as a component would reckon."""
    room: dict[str, dict[str, str]] = {}
    for event in events:
        if event.kind != "room-members":
            continue
        if event.element.get("begin") == "true":
            room = {}
        for account, m in members(event).items():
            affiliation, present = m.get("affiliation", ""), m.get("present") == "true"
            if affiliation in ("owner", "admin", "member") or (present and affiliation == "none"):
                room[account] = {k: v for k, v in m.attrib.items() if k != "why"}
            else:
                room.pop(account, None)
    return room


def step(dice: random.Random, cast: Cast, sessions: list[XmppClient]) -> tuple[XmppClient, str]:
    """Something that somebody does; the room may well refuse it."""
    session, nick, owner = dice.choice(sessions), dice.choice(NICKS), cast.ann
    address, account = f"{cast.room}/{nick}", dice.choice([s.account for s in sessions])
    join = f"<presence to='{address}'><x xmlns='{MUC}'><history maxstanzas='0'/></x></presence>"
    match dice.randrange(6):
        case 0 | 1:
            return session, join
        case 2:
            return session, f"<presence to='{address}' type='unavailable'/>"
        case 3:
            return owner, admin(cast.room, f"<item nick='{nick}' role='none'/>")
        case 4:
            wanted = dice.choice(["outcast", "none", "member", "admin"])
            return owner, admin(cast.room, f"<item jid='{account}' affiliation='{wanted}'/>")
        case _:
            value = dice.randrange(2)
            form = f"<field var='FORM_TYPE'><value>{MUC}#roomconfig</value></field>"
            form += f"<field var='muc#roomconfig_membersonly'><value>{value}</value></field>"
            inner = f"<query xmlns='{MUC}#owner'><x xmlns='jabber:x:data' type='submit'>{form}</x></query>"
            return owner, f"<iq to='{cast.room}' type='set' id='step'>{inner}</iq>"


def admin(room: str, item: str) -> str:
    return f"<iq to='{room}' type='set' id='step'><query xmlns='{MUC}#admin'>{item}</query></iq>"


@pytest.mark.parametrize("seed", range(6))
async def test_changes_add_up_to_the_listing(prosody: Prosody, rooms: FeedComponent, seed: int) -> None:
    dice, cast = random.Random(seed), Cast(prosody, rooms)  # noqa: S311 - repeatable
    await cast.arrive()
    await cast.open()
    people = [cast.accounts["bob"], cast.accounts["cid"], prosody.name()]
    sessions = await asyncio.gather(*(prosody.client(f"{who}/{r}") for who in people for r in "ab"))
    for _ in range(STEPS):
        actor, stanza = step(dice, cast, sessions)
        actor.send(stanza)
        await actor.ping()
    gone = sessions.pop()
    await gone.close()
    await cast.said()
    told = [e for e in cast.feed.events if e.element.get("account") == cast.room]
    assert len(told) > STEPS / 4
    await cast.server.control(cast.ann, "reload", host=ROOMS)
    await cast.subscribed_again()
    cast.say(cast.ann, "list it")
    await cast.said()
    again = [e for e in cast.feed.events if e.stream == cast.feed.current and e.element.get("account") == cast.room]
    assert fold(told) == fold(again)
    assert told[-1].element.get("private") == again[0].element.get("private")
    for session in sessions:
        await session.close()
    await cast.depart()
