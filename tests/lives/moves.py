"""All moves of a life by topic, and lives made of them at random. A move is chosen as often as it is named."""

from collections.abc import Callable
from random import Random

from tests.lives import people, phones, rooms
from tests.lives.world import World

Move = Callable[[World], None]

CHATS: tuple[Move, ...] = (people.talk, people.talk, people.change, people.change, people.burst, people.read_mds)
CALLS: tuple[Move, ...] = (people.ring, people.ring, people.ring_out)
ABROAD: tuple[Move, ...] = (people.club, people.club, people.speak_in_club)
AT_HOME: tuple[Move, ...] = (rooms.say, rooms.say, rooms.say, rooms.change, rooms.read, rooms.come_and_go)
TO_MEMBERS: tuple[Move, ...] = (rooms.fan, rooms.fan, rooms.fan, rooms.fan, rooms.catch_up)
OWNERS: tuple[Move, ...] = (people.ask, people.block, people.set_some, people.set_some)
TIME: tuple[Move, ...] = (people.pass_time, people.pass_time, people.trim)
FEED: tuple[Move, ...] = (people.repeat_the_feed, people.quarantine, people.lose_events, people.remove_account)
SELDOM: tuple[Move, ...] = (rooms.list_members, rooms.destroy)
PHONES: tuple[Move, ...] = (
    phones.register_phone,
    phones.claim_jobs,
    phones.claim_jobs,
    phones.answer_push,
    phones.fetch,
)
OFTEN = (*CHATS, *CALLS, *ABROAD, *AT_HOME, *TO_MEMBERS, *OWNERS, *TIME, *PHONES)
MOVES = (*OFTEN, *OFTEN, *OFTEN, *FEED, *SELDOM)


def begun(random: Random) -> World:
    """A world whose people have phones and rooms."""
    world = World(random)
    phones.everybody_has_one(world)
    for _ in range(2):
        rooms.list_members(world)
    return world
