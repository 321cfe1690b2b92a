"""Traffic that nobody should send: ids of others, of 100 kB or of nothing, circles, everything twice and in any order,
from addresses of any characters. No exception, no wrong count; and what changes nothing is counted under a reason, so
that an operator's metrics show it (`convsync_ignored_events_total`).
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from random import Random

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from sync.model.event import Event, Malformed, MessageEvent, Nothing, RoomMessageEvent
from sync.rules.fold import take
from sync.rules.wanted import keys
from tests.contract.fakes_tables import Tables
from tests.contract.samples import BOB
from tests.core.addresses import from_anybody
from tests.core.rule_outcome import wrong
from tests.core.rule_vectors import World

IDS = ("m1", "m2", "a1", "a2", "s1", "~", "<&>'", "😀")
STRANGE = "%_%@example.net"
WHO = (f"peer={BOB}", f"peer={STRANGE}", "room=far nick=Bob occ=o1", "room=far nick=Eve occ=o2", "room=far nick=Bob")
MEMBERS = "members ann=member/Annie#o1 bob=member+/Bob#o2 carol=none+/Carol"

some_id = st.sampled_from(IDS)
maybe = lambda name: st.one_of(st.just(""), some_id.map(lambda found: f' "{name}={found}"'))  # noqa: E731
named = some_id.map(lambda found: f'"{found}"')
claims = st.tuples(maybe("id"), maybe("origin"), maybe("archive")).map("".join)
how = st.sampled_from(
    ["", "", "", "", " dir=out", " stored=no", " blocked=yes", " replayed=yes", " ago=100000", " pep=yes"]
)
about = st.sampled_from(["correct", "retract", "moderate", "receipt", "displayed", "bounce", "react"])
of_room = st.sampled_from(["corrected", "retracted", "moderated", "reacted", "marked"])
author = st.sampled_from(["by=bob", "by=carol", "occ=o1 nick=Bob", "occ=o9 nick=Bob", ""])
many = st.sampled_from(["", "", " many=3000"])
lines = st.one_of(
    st.builds(
        "{} {}{}{} {}".format, st.sampled_from(["in", "in", "out", "self"]), named, claims, how, st.sampled_from(WHO)
    ),
    st.builds("{} {}{}{} {}{}".format, about, named, claims, how, st.sampled_from(WHO), many),
    st.builds(
        "call {} {}{}{}".format,
        st.sampled_from(["propose", "proceed", "reject", "retract", "finish"]),
        named,
        claims,
        how,
    ),
    st.builds("said {}{} {}".format, named, claims, author),
    st.builds("{} {}{} {}{}".format, of_room, named, claims, author, many),
    st.sampled_from(
        ["subscription requested", "subscription settled", "invite room=far by=bob@example.net", "bookmark room=far"]
    ),
    st.sampled_from([MEMBERS, "members ann=none", "destroyed", "nothing headline"]),
)
QUIET = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def changed(before: Tables, after: Tables) -> bool:
    """True where any row is another one, positions aside."""
    return any(
        getattr(before, field.name) != getattr(after, field.name)
        for field in fields(before)
        if field.name != "positions"
    )


def ordered(events: list[Event], random: Random) -> Sequence[Event]:
    """Some twice, and all in another order, each at a position of its own: a module that errs, not one that repeats."""
    found = [*events, *random.sample(events, len(events) // 2)]
    random.shuffle(found)
    return [replace(one, position=replace(one.position, n=100 + n)) for n, one in enumerate(found)]


@QUIET
@given(st.lists(lines, min_size=2, max_size=14), st.randoms(use_true_random=False))
def test_what_changes_nothing_is_counted_and_no_count_is_wrong(said: list[str], random: Random) -> None:
    world = World(batched=True)
    for line in (MEMBERS, "in m1 archive=a1", "out m2 archive=a2", "said s1 by=bob archive=s1"):
        world.do(line)
    world.flush()
    for line in said:
        verb, _, rest = line.partition(" ")
        world.do(f"{verb} {rest}")
    made, world._waiting = world._waiting, []
    for one in ordered(made, random):
        before, counted = world.store.tables, world.ignored.total()
        world._took(take, [one], keys([one]))
        assert not (faults := wrong(world.store.tables)), (one, faults)
        if isinstance(one, MessageEvent | RoomMessageEvent) and not changed(before, world.store.tables):
            assert world.ignored.total() == counted + 1, one
    world.do("fan")
    for why in world.ignored:
        event(why)


# ---- addresses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["chat", "groupchat"])
def test_addresses_of_every_character(kind: str) -> None:
    """Legal or not: a message counts once in the conversation of its address, or is set aside under a reason."""
    events = from_anybody(kind)
    aside = [one for one in events if isinstance(one, Malformed)]
    world = World(batched=True)
    world._took(take, events, keys(events))
    tables = world.store.tables
    assert not wrong(tables)
    found = [c for c in tables.conversations.values() if c.key.account == "ann@ex.org"]
    taken = [one for one in events if isinstance(one, MessageEvent) and not isinstance(one.content, Nothing)]
    assert {c.key.peer for c in found} == {one.peer for one in taken}
    assert len(tables.quarantine) == len(aside)
    assert {one.why for one in aside} == {"from"}
    # Nothing vanishes: it counts, it is set aside, or it is passed over under a reason.
    assert sum(c.unread for c in found) + len(aside) + world.ignored.total() == len(events)
    assert set(world.ignored) <= {"duplicate", "groupchat"}
    assert sum(c.unread for c in found) > 700
