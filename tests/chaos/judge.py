"""Compares what Convsync has with what the archives mean, for every account of a cast, when all is quiet.

A finding is a sentence; there should be none. What the server may forget in the moment of its own death is counted
among the figures: `archived, no event` (it wrote into the archive and died before it told anybody) and `event, not
archived`.
"""

import asyncio
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING

from tests.chaos import truth
from tests.chaos.device import GONE
from tests.chaos.truth import CROSSING_SECONDS, Chat, Item, Word
from tests.system.box import REPOSITORY, Row, eventually
from tests.system.person import Conversation, Person
from tests.system.xmpp_client import StanzaError

if TYPE_CHECKING:
    from tests.chaos.faults import Weather
    from tests.chaos.scenario import Stage

DEATH_SECONDS = (-3.0, 2.0)  # around a kill of the server nobody can be sure; archives know seconds
AGREE_SECONDS = 60
INDEX = (
    "SELECT account, peer, rank, message_key, sent_at, coalesce(archive_id, archive_key) AS id "
    "FROM message WHERE account = ANY ($1) ORDER BY rank"
)


class Judge:
    """Of one performance."""

    def __init__(self, stage: "Stage", weather: "Weather", patience: float = AGREE_SECONDS) -> None:
        self.patience = patience
        self.stage, self.weather, self.box = stage, weather, stage.box
        self.jids, self.rooms = stage.jids, [place.jid for place in stage.places]
        self.loose = self.box.ready["server"] != "prosody"  # it does several things at once
        self.taken = set().union(*(actor.taken for actor in stage.actors))
        self.refused = set().union(*(actor.refused for actor in stage.actors))
        self.figures: Counter[str] = Counter()
        self.archives: dict[str, list[Item]] = {}
        self.rows: dict[str, list[Row]] = {}

    async def findings(self) -> list[str]:
        """Everything that is wrong; empty when nothing is."""
        found = [*self.stage.auditor.findings, *(line for one in self.stage.watchers for line in one.findings)]
        readers = {jid: await self.box.person(jid, "reader", presence=False) for jid in self.jids}
        for jid, reader in readers.items():
            self.archives[jid] = truth.told_apart(await truth.archive(reader))
        for room in self.rooms:
            self.archives[room] = truth.told_apart(await truth.archive(readers[self.jids[0]], room))
        for look in (self._states(readers), self._marks(), self._pushes(), self._counted(), self._deltas(readers)):
            found += await look
        if self.stage.auditor.epochs != {1}:
            found.append(f"clients were told to start over: epochs {self.stage.auditor.epochs}")
        self._count()
        return found

    # ---- the state of each account -----------------------------------------------------------------------------------

    async def _states(self, readers: Mapping[str, Person]) -> list[str]:
        """Asked again until all is as it should be, or time is up: members of rooms are told in the background."""
        end = asyncio.get_running_loop().time() + self.patience
        while True:
            found: list[str] = []
            self.figures.clear()
            try:
                listed = {jid: {item.jid: item for item in (await one.sync()).items} for jid, one in readers.items()}
                await self._read_rows()
                rooms = {room: self._room(room, found) for room in self.rooms}
                for jid in self.jids:
                    await self._account(jid, listed[jid], rooms, found)
            except (StanzaError, *GONE) as error:
                found.append(f"no answer: {error!r}")
            if not found or asyncio.get_running_loop().time() > end:
                return found
            await asyncio.sleep(0.3)

    async def _read_rows(self) -> None:
        self.rows = defaultdict(list)
        names = {account: {item.archive_id for item in items} for account, items in self.archives.items()}
        for row in await self.box.sql(INDEX, [*self.jids, *self.rooms]):
            own = truth.apart(row["id"], row["message_key"])
            shared = own in names[row["account"]]
            self.rows[row["account"]].append({**row, "id": own} if shared else row)

    def _word(self, owner: str) -> Word:
        """The server's word: on what it has acknowledged to the sender; where it does everything in one go, for the
        addressee too. And it lived when it had done it.
        """
        sure = {
            item.archive_id: not self._near_death(item.at)
            or (item.id in self.taken and (not self.loose or item.bare("from") == owner))
            for item in self.archives[owner]
        }
        rows = self.rows[owner]
        return Word([row["id"] for row in rows], sure, self.loose, {row["id"]: row["rank"] / 1e6 for row in rows})

    def _near_death(self, at: float) -> bool:
        return any(DEATH_SECONDS[0] <= at - death <= DEATH_SECONDS[1] for death in self.weather.server_deaths)

    def _room(self, room: str, found: list[str]) -> Chat:
        """What the room's archive means; the room's own index is held to it."""
        nicks = {nick: jid for place in self.stage.places if place.jid == room for jid, nick in place.nicks.items()}
        chat = truth.room(self.archives[room], self._word(room), nicks)
        self._index(room, room, chat, found)
        self._published(room, chat)
        return chat

    def _published(self, peer: str, chat: Chat, *readers: str) -> None:
        """Markers that only XEP-0490 tells of."""
        for actor in self.stage.actors:
            for one in actor.published:
                if one.peer == peer and (not readers or actor.jid in readers):
                    chat.mark(actor.jid, one.stanza_id, sure=one.sure)

    async def _account(
        self, jid: str, listed: Mapping[str, Conversation], rooms: Mapping[str, Chat], found: list[str]
    ) -> None:
        archive = [item for item in self.archives[jid] if item.message.get("type") in ("chat", "normal", None)]
        archive = [item for item in archive if not {item.bare("from"), item.bare("to")} & set(self.rooms)]
        chats = truth.chats(jid, archive, self._word(jid))
        if set(listed) != {*chats, *rooms}:
            found.append(f"{jid}: has {sorted(listed)}, should have {sorted({*chats, *rooms})}")
            return
        for peer, chat in chats.items():
            self._published(peer, chat, jid)
            self._index(jid, peer, chat, found)
        for peer, chat in {**chats, **rooms}.items():
            self._conversation(jid, listed[peer], chat, found)
        await self._calls(jid, chats, found)
        self._acknowledged(jid, found)
        (row,) = await self.box.sql("SELECT * FROM account WHERE jid = $1", jid)
        total = sum(item.unread or 0 for item in listed.values())
        if row["unread"] != total:
            found.append(f"{jid}: {row['unread']} unread in all, {total} in its conversations")

    def _index(self, account: str, peer: str, chat: Chat, found: list[str]) -> None:
        """The message index has what the archive has, once, and in its order."""
        rows = [row for row in self.rows[account] if row["peer"] == peer]
        have, wanted = Counter(row["id"] for row in rows), Counter(chat.index)
        items = {item.archive_id: item for item in self.archives[account]}
        for one in wanted - have:
            item = items[one]
            told = f"{item.id}, {'' if item.id in self.taken else 'not '}acknowledged, {item.at:.3f}"
            found.append(f"{account} / {peer}: {one} is archived ({told}) and was never taken")
        for one in (have - wanted).elements():
            if one not in items and any(row["id"] == one and self._died(row) for row in rows):
                self.figures["event, not archived"] += 1
            else:
                known = [(row["message_key"], f"{row['sent_at'].timestamp():.3f}") for row in rows if row["id"] == one]
                found.append(f"{account} / {peer}: {one} was taken and should not have been: {known}")
        if not self._ordered([row["id"] for row in rows if row["id"] in wanted], chat, items):
            found.append(f"{account} / {peer}: taken in another order than archived")
        self.figures["archived, no event"] += len(chat.dropped)
        self.figures["archived and acknowledged, no event"] += sum(item.id in self.taken for item in chat.dropped)
        self.figures["messages checked"] += len(chat.index)

    def _ordered(self, order: list[str], chat: Chat, items: Mapping[str, Item]) -> bool:
        """The index is in the archive's order, but for what may have crossed."""
        if self.loose:
            return all(items[one].at - items[other].at <= CROSSING_SECONDS for one, other in pairwise(order))
        return order == chat.index or Counter(order) != Counter(chat.index)

    def _died(self, row: Row) -> bool:
        return self._near_death(row["sent_at"].timestamp())

    def _conversation(self, jid: str, item: Conversation, chat: Chat, found: list[str]) -> None:
        """Last message, its text as it stands, read pointer and what is behind it."""
        where, last = f"{jid} / {item.jid}", chat.order[-1] if chat.order else None
        shown = None if item.last is None else item.last.get("id")
        if shown != (chat.id[last] if last else None):
            found.append(f"{where}: the last message is {shown}, should be {last and chat.id[last]}")
        elif last and item.retracted != (last in chat.retracted):
            found.append(f"{where}: the last message is {'' if item.retracted else 'not '}retracted")
        elif last and not item.retracted and item.body != chat.text[last]:
            found.append(f"{where}: the last message says {item.body!r}, should say {chat.text[last]!r}")
        read = item.read_to or "0"
        place = chat.order.index(read) + 1 if read in chat.order else 0
        if place not in chat.places(jid):
            found.append(f"{where}: read up to {place} ({read}), should be {sorted(chat.places(jid))}")
        elif item.unread != chat.unread(jid, place):
            found.append(f"{where}: {item.unread} unread, should be {chat.unread(jid, place)}")
        if item.calls:
            found.append(f"{where}: still rings")
        self.figures["conversations checked"] += 1

    async def _calls(self, jid: str, chats: Mapping[str, Chat], found: list[str]) -> None:
        rows = await self.box.sql("SELECT peer, session_id, state FROM call WHERE account = $1", jid)
        states = {(row["peer"], row["session_id"]): row["state"] for row in rows}
        steps = {(peer, sid): steps for peer, chat in chats.items() for sid, steps in chat.calls.items()}
        for key in states.keys() | steps.keys():
            possible = truth.ends(steps.get(key, []), loose=self.loose)
            if "answered" in possible and truth.goes_on(key, steps):
                possible.add("ended")
            if states.get(key) not in possible and not (key not in steps and self._dead_call(key[1])):
                said = [(step.name, step.out, step.sure) for step in steps.get(key, [])]
                found.append(f"{jid}: call {key} is {states.get(key)}, should be {possible} after {said}")
        self.figures["calls checked"] += len(states)

    def _dead_call(self, sid: str) -> bool:
        """A call that the server took and did not archive before it died."""
        return self.loose and bool(self.weather.server_deaths) and sid.startswith("call-")

    def _acknowledged(self, jid: str, found: list[str]) -> None:
        """What was acknowledged to this sender is there, on both sides."""
        actor = next(actor for actor in self.stage.actors if actor.jid == jid)
        index = {(account, row["peer"], row["message_key"]) for account, rows in self.rows.items() for row in rows}
        at_once = not self.loose or not self.weather.server_deaths
        for message_id in actor.taken & actor.sent.keys() - self.refused:
            to = actor.sent[message_id]
            keys = [(to, to, message_id)] if to in self.rooms else [(jid, to, message_id), (to, jid, message_id)]
            if not at_once:  # it had taken it from its sender; how far it was then nobody knows
                keys = [] if to in self.rooms else keys[:1]
            missing = [key[0] for key in keys if key not in index]
            found += [f"{jid}: {message_id} to {to} was acknowledged and {one} does not have it" for one in missing]
            self.figures["acknowledged"] += 1
        self.figures["sent"] += len(actor.sent)

    # ---- what else must hold -----------------------------------------------------------------------------------------

    async def _marks(self) -> list[str]:
        """Both ends of the feed agree, every member was told, and nothing was set aside."""

        async def level() -> bool:
            behind = await self.box.sql("SELECT host, stream, committed, seen FROM feed_stream WHERE committed < seen")
            owed = await self.box.sql("SELECT jid FROM room WHERE jid = ANY ($1) AND fanned < version", self.rooms)
            assert not behind, f"the feed is not level: {behind}"
            assert not owed, f"members were not told: {owed}"
            return True

        found = []
        try:
            await eventually(level, self.patience)
        except AssertionError as error:
            found.append(str(error))
        rows = await self.box.sql(
            "SELECT account, why FROM quarantine WHERE account = ANY ($1)", [*self.jids, *self.rooms]
        )
        return found + [f"{row['account']}: an event was set aside: {row['why']}" for row in rows]

    async def _counted(self) -> list[str]:
        """Every counter equals its recount; the command says so too."""
        found = []
        for jid in self.jids:
            with suppress(AssertionError):
                await self.box.sound(jid)
                continue
            found.append(f"{jid}: counters differ from a recount")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sync", "repair", self.jids[0], "--dry-run"),
            *("--config", str(self.box.data / "convsync.toml")),
            cwd=REPOSITORY,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        if b"nothing differs" not in said:
            found.append(said.decode())
        return found

    async def _deltas(self, readers: Mapping[str, Person]) -> list[str]:
        """Who kept the token has the list."""
        found = []
        for watcher in self.stage.watchers:
            try:
                await eventually(lambda w=watcher: agreed(w, readers[w.jid]), self.patience)  # type: ignore[misc]
            except AssertionError as error:
                found.append(str(error))
            found += watcher.findings
        return found

    async def _pushes(self) -> list[str]:
        """A call rings once at each device; nothing is announced that was read before."""
        found = []
        for jid, phone in self.stage.phones.items():
            await self.box.settled(jid, under_way=False, seconds=30)
            rung = Counter(push["payload"]["x"]["c"] for push in self.box.pushes(str(phone.voip), status=None))
            found += [f"{jid}: call {call} rang {many} times" for call, many in rung.items() if many > 1]
            self.figures["VoIP pushes"] += len(rung)
            self.figures["pushes"] += len(self.box.pushes(*phone.tokens, status=None))
            found += await self._read_before(jid)
        return found

    async def _read_before(self, jid: str) -> list[str]:
        """Pushes for what a client of the account had been told was read, before they left: a conversation, or all."""
        ranks = {row["id"]: row["rank"] for rows in self.rows.values() for row in rows}
        watcher = next(one for one in self.stage.watchers if one.jid == jid)
        jobs = await self.box.sql(
            "SELECT peer, version, attempted_at, state, reason FROM push_job WHERE account = $1 AND kind = 'message'",
            jid,
        )
        left = [job for job in jobs if job["attempted_at"] is not None]
        self.figures["message pushes"] += len(left)
        self.figures["message pushes called off"] += len(jobs) - len(left)
        found = []
        for job in left:
            for sample in watcher.samples:
                pointer = ranks.get(sample.read.get(job["peer"]) or "", 0)
                all_read = sample.unread == 0 and sample.stamp >= job["version"]
                if sample.at < job["attempted_at"].timestamp() and (pointer >= job["version"] or all_read):
                    found.append(f"{jid}: pushed for version {job['version']} of {job['peer']}, which was read")
        return found

    def _count(self) -> None:
        """Figures for the report."""
        stage = self.stage
        for actor in stage.actors:
            self.figures.update({f"did: {name}": many for name, many in actor.did.items()})
        self.figures["deltas"] += sum(len(one.samples) for one in stage.watchers)
        self.figures["deltas refused"] += sum(sum(one.refused.values()) for one in stage.watchers)
        self.figures["audits"] += stage.auditor.looks
        self.figures["archived"] += sum(map(len, self.archives.values()))


async def agreed(watcher: object, reader: Person) -> bool:
    with suppress(*GONE, StanzaError):
        await watcher.agree(reader)  # type: ignore[attr-defined]
        return True
    return False
