"""One account, three dialects, one story: after lively traffic Client Synchronization, Inbox and urn:convsync:0 agree
on conversations, unread, totals, last messages, read pointers and calls; and a client of each that reads in small pages
while everything moves ends with exactly what a full list says: no hole, nothing stale, nothing that is gone.
"""

import asyncio

import pytest

from tests.system.box import Box, eventually
from tests.system.dialects import (
    Cache,
    Delta,
    Facts,
    InboxCache,
    OwnCache,
    Story,
    SynchronizationCache,
    delta,
    of_inbox,
    of_own,
    of_synchronization,
)
from tests.system.inbox import Page, inbox
from tests.system.lively import Circle
from tests.system.person import SYNC, Person

MOVES, TOGETHER = 120, 3
LEAST = 10  # pages that are read while the others write


def differences(one: Story, other: Story) -> list[str]:
    """Where two stories have a word for the same and do not say the same."""
    found = [f"{name} is only in one" for name in sorted(one.keys() ^ other.keys())]
    for name in sorted(one.keys() & other.keys()):
        left, right = one[name], other[name]
        found += [
            f"{name}: {fact} is {left[fact]!r} and {right[fact]!r}"
            for fact in sorted(left.keys() & right.keys())
            if left[fact] != right[fact]
        ]
    return found


async def all_of(asker: Person) -> tuple[Story, Page, Delta]:
    """The full list in each dialect."""
    query = (await asker.iq("get", f"<query xmlns='{SYNC}'/>"))[0]
    rows = query.findall(f"{{{SYNC}}}conversation")
    listed = dict(of_synchronization(row, asker.account) for row in rows)
    return listed, await inbox(asker), await delta(asker, max=200)


async def agree(asker: Person) -> Story:
    """The full lists tell the same; it."""
    listed, page, own = await all_of(asker)
    kinds = dict(iter(listed))
    inboxed = {(jid, kinds.get(jid, kind)): facts for (jid, kind), facts in of_inbox(page, asker.account).items()}
    assert differences(listed, inboxed) == []
    assert differences(listed, own.story) == []
    assert not own.more
    unread = [facts["unread"] for facts in own.story.values()]
    assert own.totals == {
        "unread": page.all_unread,
        "conversations": page.unread,
        "mentions": sum(int(str(facts["mentions"])) for facts in own.story.values()),
    }
    assert (page.total, page.all_unread) == (len(listed), sum(int(str(one)) for one in unread))
    assert page.unread == sum(1 for one in unread if one)
    ringing = sorted(sid for facts in listed.values() for sid in facts["calls"])  # type: ignore[attr-defined]
    assert sorted(sid for sid, state in own.calls.items() if state == "ringing") == ringing
    return own.story


async def portraits(asker: Person, story: Story) -> None:
    """Each conversation by itself is as it is in the list."""
    for (jid, kind), facts in story.items():
        answer = await asker.iq("get", f"<conversation xmlns='urn:convsync:0' jid='{jid}' kind='{kind}'/>")
        alone: Facts = of_own(answer[0], asker.account)
        told = {
            key: value for key, value in facts.items() if key not in ("body", "id", "archive", "retracted", "calls")
        }
        assert {key: alone[key] for key in told} == told


@pytest.mark.parametrize("seed", [1, 2])
async def test_three_dialects_tell_one_story(seed: int, box: Box) -> None:
    circle = await Circle.meet(box, seed)
    for _ in range(3):
        await circle.live(MOVES // 3, TOGETHER)
        await circle.settle()

        async def same() -> Story:
            return await agree(circle.ann)

        story = await eventually(same)
        assert len(story) > 3
    await portraits(circle.ann, story)
    await box.sound(circle.ann.account)


@pytest.mark.parametrize("most", [1, 4])
async def test_clients_of_each_dialect_keep_up_while_everything_moves(most: int, box: Box) -> None:
    circle = await Circle.meet(box, most)
    account = circle.ann.account
    kinds: tuple[type[Cache], ...] = (SynchronizationCache, InboxCache, OwnCache)
    clients = [kind(await box.person(account, f"reader{number}"), most) for number, kind in enumerate(kinds)]
    moving = asyncio.create_task(circle.live(MOVES, TOGETHER))
    pages: list[int] = []
    while not moving.done() or len(pages) < LEAST:  # whoever is slower, both go on until there was something to read
        if moving.done():
            await moving
            moving = asyncio.create_task(circle.live(MOVES // 4, TOGETHER))
        await asyncio.gather(*(client.catch_up(between=lambda: pages.append(1)) for client in clients))
    await moving
    await circle.settle()

    async def caught_up() -> bool:
        for client in clients:
            await client.catch_up()
        story = await agree(circle.ann)
        synchronized, inboxed, own = (client.story for client in clients)
        assert differences(synchronized, story) == []
        assert differences(own, story) == []
        # An inbox is not told of deletions.
        jids = {jid: name for name in story for jid in [name[0]]}
        there = {jids[jid]: facts for (jid, _), facts in inboxed.items() if jid in jids}
        assert differences(there, story) == []
        return True

    await eventually(caught_up)
    await box.sound(account)
