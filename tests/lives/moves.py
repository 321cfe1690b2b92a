"""All moves of a life by topic, and lives made of them at random. A move is chosen as often as it is named."""

from collections.abc import Callable
from random import Random

from tests.lives import apart, laws, people, phones, policy, rooms
from tests.lives.clients import READERS, Clients
from tests.lives.world import ACCOUNTS, World

Move = Callable[[World], None]

CHATS: tuple[Move, ...] = (people.talk, people.talk, people.change, people.change, people.burst, people.read_mds)
CALLS: tuple[Move, ...] = (people.ring, people.ring, people.ring_out)
TALKS: tuple[Move, ...] = (people.call_up, people.go_on_calling, people.hear, people.hear, people.hear)
ABROAD: tuple[Move, ...] = (people.club, people.club, people.speak_in_club)
AT_HOME: tuple[Move, ...] = (rooms.say, rooms.say, rooms.say, rooms.change, rooms.read, rooms.come_and_go)
TO_MEMBERS: tuple[Move, ...] = (rooms.fan, rooms.fan, rooms.fan, rooms.fan, rooms.catch_up)
OWNERS: tuple[Move, ...] = (people.ask, people.block, people.set_some, people.set_some)
TURNS: tuple[Move, ...] = (apart.turn_the_option,)
TIME: tuple[Move, ...] = (people.pass_time, people.pass_time, people.trim, people.delete_and_bury)
FEED: tuple[Move, ...] = (people.repeat_the_feed, people.quarantine, people.lose_events, people.remove_account)
SELDOM: tuple[Move, ...] = (rooms.list_members, rooms.destroy)
PHONES: tuple[Move, ...] = (
    phones.register_phone,
    phones.claim_jobs,
    phones.claim_jobs,
    phones.answer_push,
    phones.fetch,
    phones.leave,
    phones.enable_anew,
    policy.keep_still,
    policy.ask_in_part,
)
COMINGS: tuple[Move, ...] = (
    rooms.come_and_go,
    rooms.list_members,
    rooms.say,
    rooms.say,
    rooms.moderate,
    rooms.tell_all,
)
HAILS: tuple[Move, ...] = (
    rooms.hail,
    rooms.hail,
    rooms.hail,
    rooms.fan,
    rooms.tell_all,
    rooms.catch_up,
    rooms.come_and_go,
    rooms.destroy,
    rooms.say,
    people.ring_out,
    people.pass_time,
)
OFTEN = (*CHATS, *CALLS, *TALKS, *ABROAD, *AT_HOME, *TO_MEMBERS, *HAILS, *OWNERS, *TIME, *PHONES)
MOVES = (*OFTEN, *OFTEN, *OFTEN, *FEED, *SELDOM, *COMINGS, *TURNS)


def some(random: Random) -> tuple[Move, ...]:
    """Moves for one life: mostly it is about few things, which then meet each other more often."""
    if random.randrange(3) == 0:
        return MOVES
    topics = (
        CHATS,
        CALLS,
        (*TALKS, *CALLS),
        ABROAD,
        (*AT_HOME, *TO_MEMBERS),
        OWNERS,
        TIME,
        PHONES,
        (*FEED, *SELDOM, *TURNS),
        (*COMINGS, *COMINGS),
        (*HAILS, *PHONES),
    )
    chosen = random.sample(topics, 3)
    return tuple(move for topic in (*chosen, chosen[0]) for move in topic)


def begun(random: Random) -> World:
    """A world whose people have phones and rooms."""
    world = World(random)
    phones.everybody_has_one(world)
    for _ in range(2):
        rooms.list_members(world)
    return world


def live(random: Random, steps: int) -> World:
    """A whole life in memory, with clients, under the laws."""
    world = begun(random)
    clients, made, former = Clients(world), some(random), world.tables
    for _ in range(steps):
        match random.randrange(10):
            case 0:
                clients.read(random.choice(ACCOUNTS), random.randrange(READERS), random.choice([None, 1, 2]))
            case 1:
                clients.follow(random.choice(ACCOUNTS), random.choice([1, 3, 100]))
            case _:
                random.choice(made)(world)
        laws.hold(world, former)
        former = world.tables
    clients.finish()
    return world
