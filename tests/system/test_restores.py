"""Something is put back from an older copy, torn, or gone after a power cut: it is noticed, clients start over, and
what the archive has is there again (docs/feed.md §6).

Each test lives two or three lives of one sandbox on one data folder: something is said, perhaps a copy is made and more
is said, something is damaged while nothing runs, and in the last life it must come right.
"""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.chaos import truth
from tests.chaos.device import Device
from tests.system.box import Box, boxed, eventually
from tests.system.person import Listing, Person
from tests.system.xmpp_client import StanzaError

pytestmark = pytest.mark.timeout(1200)  # three sandboxes, one behind the other, on a machine with much else to do
HOSTS = ("localhost", "conference%2elocalhost")  # as Prosody writes them


class Lives:
    """One data folder, and who talks in it."""

    def __init__(self, folder: Path, server: str) -> None:
        self.folder, self.server = folder, server
        self.data, self.copies = folder / "data", folder / "copies"
        self.said = 0
        self.stamp: int | None = None  # the token that a client of ann's keeps
        self.epoch = self.fetched = 0

    @asynccontextmanager
    async def life(self, *, crash: bool = False) -> AsyncIterator[Box]:
        """The sandbox; `crash`: it ends by kill -9 of everything."""
        (self.folder / "ready.json").unlink(missing_ok=True)  # of a life that ended by kill -9
        async with boxed(self.folder, 4, self.server) as box:
            yield box
            if crash:
                pids = [*box.ready["pids"].values()]
                box.process.kill()
                await box.process.wait()
                await eventually(lambda: gone(pids))

    async def talk(self, box: Box, many: int = 10) -> None:
        """Bob writes to Ann, and in a room to which she belongs; returns when the server has taken it."""
        bob = await Device.log_in(box, box.ready["accounts"][1]["jid"], "desk")
        ann, room = box.ready["accounts"][0]["jid"], self.room(box)
        if self.said:
            await bob.enter(room, "Bob")
        else:
            # What a room says before the first contact with a member is read for that member.
            await (await self.ann(box)).close()
            await eventually(lambda: shown(box, ann))
            await bob.found(room, "Bob", [ann], private=True)
        for _ in range(many):
            self.said += 1
            bob.write(ann, f"number {self.said}")
            bob.message(room, f"<body>number {self.said}</body>", kind="groupchat", message_id=f"r{self.said}")
        await bob.acked()
        await bob.close()

    def room(self, box: Box) -> str:
        return f"tea@{box.ready['muc']}"

    async def ann(self, box: Box) -> Person:
        return await box.person(box.ready["accounts"][0]["jid"], "watch", presence=False)

    async def look(self, box: Box) -> None:
        """Ann's client takes the list and keeps its token."""
        ann = await self.ann(box)
        self.stamp = (await ann.sync()).stamp
        self.epoch = await epoch(box)
        await ann.close()

    def freeze(self, box: Box) -> None:
        """The component hangs: what the server takes from now on stays in its outbox."""
        box.signal("component", signal.SIGSTOP)
        self.fetched = self.newest().stat().st_size

    # ---- the files, while nothing runs -------------------------------------------------------------------------------

    def outboxes(self) -> list[Path]:
        """The folders that hold them. ejabberd keeps its outbox beside its other tables, which come with it."""
        if self.server == "ejabberd":
            return [self.data / "ejabberd" / "mnesia"]
        return [self.data / "prosody" / "data" / host / "convsync_feed.d" for host in HOSTS]

    def newest(self) -> Path:
        """The file to which the users' host's events are written."""
        (folder, *_), pattern = self.outboxes(), "LATEST.LOG" if self.server == "ejabberd" else "*.seg"
        return max(folder.glob(pattern), key=lambda path: path.stat().st_mtime_ns)

    def copy(self, *folders: Path) -> None:
        for folder in folders:
            shutil.copytree(folder, self.copies / folder.relative_to(self.data), symlinks=True)
        for folder in folders:
            own(self.copies / folder.relative_to(self.data), folder)

    def restore(self, *folders: Path) -> None:
        for folder in folders:
            copied = self.copies / folder.relative_to(self.data)
            shutil.rmtree(folder)
            shutil.copytree(copied, folder, symlinks=True)
            own(folder, copied)

    # ---- what must hold ----------------------------------------------------------------------------------------------

    async def noticed(self, box: Box) -> None:
        """Clients start over: the old token is answered by the whole list, though nothing in it changed."""

        async def raised() -> bool:
            return await epoch(box) > self.epoch

        await eventually(raised)
        ann = await self.ann(box)
        listing = await eventually(lambda: listed(ann, self.stamp))
        assert set(listing.jids) == {box.ready["accounts"][1]["jid"], self.room(box)}
        stamp = listing.stamp

        async def quiet() -> bool:
            """Once the archives are read, the token is good again."""
            nonlocal stamp
            more = await ann.sync(stamp)
            stamp = more.stamp
            return not more.items

        await eventually(quiet)
        await ann.close()

    async def unnoticed(self, box: Box) -> None:
        """Nothing was lost, so nobody starts over."""
        ann = await self.ann(box)
        await ann.sync()
        assert await epoch(box) == self.epoch
        await ann.close()

    async def complete(self, box: Box) -> None:
        """What the archives have is in the state, once, in their order, and is unread."""
        ann, room = await self.ann(box), self.room(box)
        archives = {ann.account: await truth.archive(ann), room: await truth.archive(ann, room)}
        bodies = {owner: [item.archive_id for item in items if item.body] for owner, items in archives.items()}
        assert {len(ids) for ids in bodies.values()} == {self.said}

        async def same() -> bool:
            for owner, ids in bodies.items():
                rows = await box.sql(
                    "SELECT archive_key FROM message WHERE account = $1 AND counted ORDER BY rank", owner
                )
                assert [row["archive_key"] for row in rows] == ids, owner
            listed = {item.jid: (item.unread, item.body) for item in (await ann.sync()).items}
            last = (self.said, f"number {self.said}")
            assert listed == {box.ready["accounts"][1]["jid"]: last, room: last}
            return True

        await eventually(same, 60)
        await box.sound(ann.account)
        await ann.close()

    async def goes_on(self, box: Box) -> None:
        """What is said from now on comes."""
        await self.talk(box, 3)
        ann = await self.ann(box)
        assert {item.body for item in (await ann.sync()).items} == {f"number {self.said}"}
        await ann.close()


async def epoch(box: Box) -> int:
    rows = await box.sql("SELECT epoch FROM account WHERE jid = $1", box.ready["accounts"][0]["jid"])
    return int(rows[0]["epoch"]) if rows else 0


async def listed(ann: Person, stamp: int | None) -> Listing | None:
    """The answer, once there is one: while the component is behind it asks clients to wait."""
    try:
        return await ann.sync(stamp)
    except StanzaError as refused:
        if refused.type != "wait":
            raise
        return None


async def shown(box: Box, jid: str) -> bool:
    return bool(await box.sql("SELECT FROM account WHERE jid = $1", jid))


async def gone(pids: list[int]) -> bool:
    return not any(os.path.exists(f"/proc/{pid}") for pid in pids)  # noqa: ASYNC240 - no file, no waiting


def own(folder: Path, like: Path) -> None:
    """The owner and the rights of the folder that it is a copy of: Postgres insists on them."""
    owner = like.stat()
    for path in (folder, *folder.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
    folder.chmod(owner.st_mode & 0o7777)


@pytest.fixture
def lives(server: str) -> Iterator[Lives]:
    folder = Path(tempfile.mkdtemp(prefix="convsync-lives-"))
    folder.chmod(0o755)  # Postgres may run as somebody else
    yield Lives(folder, server)
    shutil.rmtree(folder)


async def test_the_database_is_restored_from_an_older_copy(lives: Lives) -> None:
    postgres = lives.data / "postgres"
    async with lives.life() as box:
        await lives.talk(box)
        await lives.look(box)
    lives.copy(postgres)
    async with lives.life() as box:
        await lives.talk(box)
        await lives.look(box)
    lives.restore(postgres)
    async with lives.life() as box:
        await lives.noticed(box)
        await lives.complete(box)
        await lives.goes_on(box)


async def test_the_outbox_is_restored_from_an_older_copy(lives: Lives) -> None:
    async with lives.life() as box:
        await lives.talk(box)
        await lives.look(box)
    lives.copy(*lives.outboxes())
    async with lives.life(crash=True) as box:
        await lives.talk(box)
        await lives.look(box)
        lives.freeze(box)
        await lives.talk(box, 20)
    lives.restore(*lives.outboxes())
    async with lives.life() as box:
        await lives.noticed(box)
        await lives.complete(box)
        await lives.goes_on(box)


def deleted(lives: Lives) -> None:
    for folder in lives.outboxes():
        shutil.rmtree(folder)


def another_boot(lives: Lives) -> None:
    """The machine was started anew: what the outbox remembers of it, if it does, is another machine's life."""
    this = Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    for folder in lives.outboxes():
        for path in folder.rglob("*"):
            if path.is_file() and this in (content := path.read_bytes()):
                path.write_bytes(content.replace(this, b"0123abcd-4567-89ab-cdef-0123456789ab"))


def torn(lives: Lives) -> None:
    """A power cut, in the middle of an event that nobody has fetched."""
    another_boot(lives)
    newest = lives.newest()
    size = newest.stat().st_size
    os.truncate(newest, size - (size - lives.fetched) // 3)


def zeroed(lives: Lives) -> None:
    """A power cut: the file's length had reached the disk, its newest content had not."""
    another_boot(lives)
    newest = lives.newest()
    size = newest.stat().st_size
    os.truncate(newest, size - 2000)
    os.truncate(newest, size)


def cut_off(lives: Lives) -> None:
    """A power cut: what nobody had fetched never reached the disk, to the byte."""
    another_boot(lives)
    os.truncate(lives.newest(), lives.fetched)


def emptied(lives: Lives) -> None:
    """A power cut: not one event reached the disk."""
    another_boot(lives)
    os.truncate(lives.newest(), 0)


@pytest.mark.parametrize("damage", [deleted, torn, zeroed, cut_off, emptied])
async def test_the_outbox_loses_what_nobody_had_fetched(lives: Lives, damage: Callable[[Lives], None]) -> None:
    async with lives.life(crash=True) as box:
        await lives.talk(box)
        await lives.look(box)
        lives.freeze(box)
        await lives.talk(box, 20)
    damage(lives)
    async with lives.life() as box:
        await lives.noticed(box)
        await lives.complete(box)
        await lives.goes_on(box)


async def test_everything_is_killed_at_once_and_nothing_is_lost(lives: Lives) -> None:
    async with lives.life(crash=True) as box:
        await lives.talk(box)
        await lives.look(box)
        lives.freeze(box)
        await lives.talk(box, 20)
    async with lives.life() as box:
        await lives.unnoticed(box)
        await lives.complete(box)
        await lives.goes_on(box)


async def test_a_killed_database_has_what_it_said_that_it_has(lives: Lives) -> None:
    async with lives.life() as box:
        await lives.talk(box)
        await lives.look(box)
        for _ in range(3):
            talking = asyncio.ensure_future(lives.talk(box, 60))
            await box.killed("postgres")
            await talking
        await lives.unnoticed(box)
        await lives.complete(box)
        assert await box.sql("SHOW synchronous_commit") == [{"synchronous_commit": "on"}]
