"""What mod_convsync_feed makes of an outbox that was damaged while the server was down: nothing that can still be read
is lost, and what is lost is told (docs/feed.md §6).
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.prosody_server import Prosody, prosody_of_its_own
from tests.system.xmpp_client import XmppClient
from tests.system.xmpp_component import FeedComponent

Damage = Callable[[Path], None]


async def say(client: XmppClient, to: str, *texts: str) -> None:
    for text in texts:
        client.chat(to, text)
    await client.ping()


async def told(prosody: Prosody, end: str) -> tuple[FeedComponent, list[str]]:
    """Everything that a component is sent that knows nothing, in short: bodies of what came in, and gaps."""
    client = await prosody.client(f"{prosody.name()}/end")
    await say(client, prosody.name(), end)
    feed = await prosody.component()
    await feed.subscribe()
    await feed.message(end)
    words = [e.element.get("reason") or e.body or "" for e in feed.events if e.kind in ("message", "gap")]
    gaps = [e for e in feed.events if e.kind == "gap"]
    assert all(g.n == 1 for g in gaps)
    # Everything is in twice, for both ends; a damaged one perhaps once.
    return feed, list(dict.fromkeys(w for w in words if w != end))


def segment(outbox: Path) -> Path:
    return min(outbox.glob("*.seg"))


def torn(outbox: Path) -> None:
    segment(outbox).write_bytes(segment(outbox).read_bytes()[:-7])


def flipped(outbox: Path) -> None:
    segment(outbox).write_bytes(segment(outbox).read_bytes().replace(b"<body>e2</body>", b"<body>e#</body>"))


def garbage_inside(outbox: Path) -> None:
    content = segment(outbox).read_bytes()
    place = content.index(b"<body>e2</body>")
    segment(outbox).write_bytes(
        content[:place] + os.urandom(3000) + b"\n99 99999999999999999999 01234567\n" + content[place:]
    )


def garbage_first(outbox: Path) -> None:
    segment(outbox).write_bytes(b"\0" * 4096 + segment(outbox).read_bytes())


def emptied(outbox: Path) -> None:
    segment(outbox).write_bytes(b"")


def removed(outbox: Path) -> None:
    segment(outbox).unlink()


def unreadable(outbox: Path) -> None:
    path = segment(outbox)  # the tests may run as root, whom no permission stops
    path.unlink()
    path.mkdir()


def no_state(outbox: Path) -> None:
    (outbox / "state").unlink()


def no_sense_in_state(outbox: Path) -> None:
    (outbox / "state").write_bytes(os.urandom(100))


def empty_state(outbox: Path) -> None:
    (outbox / "state").write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "left"),
    [
        (torn, ["e0", "e1", "e2", "e3", "e4", "torn"]),  # of both events of e4 one is there
        (flipped, ["e0", "e1", "torn", "e3", "e4"]),
        (garbage_inside, ["e0", "e1", "torn", "e2", "e3", "e4"]),  # the other event of e2
        (garbage_first, ["torn", "e0", "e1", "e2", "e3", "e4"]),
        (emptied, ["torn"]),
        (removed, ["torn"]),
        (unreadable, ["torn"]),
        (no_state, ["e0", "e1", "e2", "e3", "e4", "torn"]),
        (no_sense_in_state, ["e0", "e1", "e2", "e3", "e4", "torn"]),
        (empty_state, ["e0", "e1", "e2", "e3", "e4", "torn"]),
    ],
)
async def test_what_is_whole_is_sent_and_what_is_lost_is_told(tmp_path: Path, damage: Damage, left: list[str]) -> None:
    async with prosody_of_its_own(tmp_path) as prosody:
        client = await prosody.client(f"{prosody.name()}/a")
        await say(client, prosody.name(), *(f"e{i}" for i in range(5)))
        prosody.kill()
        damage(prosody.outbox)
        await prosody.start()
        feed, words = await told(prosody, "end")
        # What was in work when the server was killed is in the archive: the newest, and what came in the same second.
        archived = words[len(left) :]
        assert words == left + archived
        assert archived == ([f"e{i}" for i in range(5)][-len(archived) :] if left == ["torn"] else [])
        assert "The feed has a gap (torn)" in prosody.log()
        assert bool(list(prosody.outbox.glob("*.unreadable"))) == (damage is unreadable)
        feed.ack_all()
        await feed.caught_up()
        await feed.cut()
        prosody.stop()
        await prosody.start()
        assert prosody.log().count("The feed has a gap") == 1  # it is told once


async def test_what_was_whole_keeps_its_place(tmp_path: Path) -> None:
    async with prosody_of_its_own(tmp_path) as prosody:
        to = prosody.name()
        for word in "ef":
            client = await prosody.client(f"{prosody.name()}/a")
            await say(client, to, *(f"{word}{i}" for i in range(4)))
            prosody.kill()
            if word == "f":
                flipped(prosody.outbox)
            await prosody.start()
        _, words = await told(prosody, "end")
        assert words == ["e0", "e1", "torn", "e3", "f0", "f1", "f2", "f3"]


async def test_a_hole_between_files_costs_what_was_in_it(tmp_path: Path) -> None:
    async with prosody_of_its_own(tmp_path) as prosody:
        client = await prosody.client(f"{prosody.name()}/a")
        await say(client, prosody.name(), *(f"{i}" + "x" * 200_000 for i in range(12)))
        prosody.stop()
        files = sorted(prosody.outbox.glob("*.seg"))
        assert len(files) >= 4
        files[1].unlink()
        await prosody.start()
        _, words = await told(prosody, "end")
        numbers = [w.rstrip("x") for w in words]
        lost = [str(i) for i in range(12) if str(i) not in numbers]
        assert 1 <= len(lost) <= 4
        assert numbers == [*map(str, range(int(lost[0]))), "torn", *map(str, range(int(lost[-1]) + 1, 12))]


async def test_what_turns_out_to_be_unreadable_while_it_is_sent_is_told_once(tmp_path: Path) -> None:
    async with prosody_of_its_own(tmp_path) as prosody:
        client = await prosody.client(f"{prosody.name()}/a")
        await say(client, prosody.name(), *(f"e{i}" for i in range(100)))  # the newest are in memory
        content = segment(prosody.outbox).read_bytes()
        with segment(prosody.outbox).open("r+b") as file:
            file.seek(content.index(b"<body>e2</body>"))
            file.write(b"<body>e#</body>")
        feed = await prosody.component()
        await feed.subscribe()
        await feed.event(lambda e: e.kind == "gap")
        words = [e.element.get("reason") or e.body or "" for e in feed.events if e.kind in ("message", "gap")]
        assert list(dict.fromkeys(words)) == ["e0", "e1", "unreadable"]
        feed.ack_all()
        await feed.caught_up()
        await feed.cut()
        await told(prosody, "again")
        assert prosody.log().count("The feed has a gap") == 1


async def test_the_outbox_of_a_later_version_is_set_aside(tmp_path: Path) -> None:
    async with prosody_of_its_own(tmp_path) as prosody:
        client = await prosody.client(f"{prosody.name()}/a")
        await say(client, prosody.name(), "kept")
        prosody.stop()
        state = prosody.outbox / "state"
        state.write_text(state.read_text().replace("outbox 1 ", "outbox 2 "))
        await prosody.start()
        _, words = await told(prosody, "end")
        assert words == ["unreadable"]
        aside = prosody.outbox.with_name(prosody.outbox.name + ".format-2")
        assert b"kept" in segment(aside).read_bytes()
        assert f"set aside as {aside}" in prosody.log()


async def test_an_outbox_that_nobody_touched_has_no_gap(tmp_path: Path) -> None:
    async with prosody_of_its_own(tmp_path) as prosody:
        for i in range(4):
            client = await prosody.client(f"{prosody.name()}/a")
            await say(client, prosody.name(), f"e{i}")
            if i % 2:
                prosody.kill()
            else:
                prosody.stop()
            await prosody.start()
        _, words = await told(prosody, "end")
        assert words == ["e0", "e1", "e2", "e3"]
