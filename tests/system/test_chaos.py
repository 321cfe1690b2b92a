"""Everything dies while people talk, and nothing is lost, doubled or out of date (invariants 1, 3, 4, 6, 7, 10).

Here is one performance for each server, of half a minute on an idle machine, and the proof that its judge would notice.
`make soak` plays for as long as one likes (docs/reliability.md). CHAOS_SEED throws other dice.
"""

import json
import os
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.chaos import truth
from tests.chaos.faults import plan
from tests.chaos.judge import Judge
from tests.chaos.scenario import perform
from tests.chaos.truth import Step
from tests.chaos.witnesses import Auditor, Watcher
from tests.system.box import Box

SEED = os.environ.get("CHAOS_SEED", "everyday")


@pytest.mark.timeout(900)  # on a machine with much else to do
async def test_whatever_dies_the_archive_is_the_truth(box: Box) -> None:
    async with perform(box, SEED, plan(SEED, 1)) as (stage, weather):
        judge = Judge(stage, weather)
        assert await judge.findings() == [], (SEED, dict(weather.happened))
        assert judge.figures["messages checked"] > 500
        assert weather.happened.total() >= 12


# ---- and the judge would notice --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tampering:
    """Two statements on the rows of the account $1, to and fro, and what the judge must say."""

    there: str
    back: str
    says: str

    def statements(self) -> tuple[str, str]:
        words = {
            "NEWEST": "rank = (SELECT max(rank) FROM message WHERE account = $1 AND counted AND peer = BUSIEST)",
            "BUSIEST": "(SELECT peer FROM message WHERE account = $1 GROUP BY peer ORDER BY -count(*) LIMIT 1)",
            "COLUMNS": "account, peer, kind, outgoing, counted, sent_at, message_key, archive_key",
        }
        there, back = self.there, self.back
        for word, meaning in words.items():
            there, back = there.replace(word, meaning), back.replace(word, meaning)
        return there, back


TAMPERINGS = {
    "lost": Tampering(
        "UPDATE message SET archive_key = '-' || archive_key WHERE account = $1 AND NEWEST",
        "UPDATE message SET archive_key = substr(archive_key, 2) WHERE account = $1 AND NEWEST",
        "was never taken",
    ),
    "doubled": Tampering(
        "INSERT INTO message (COLUMNS, rank) SELECT COLUMNS, 1 FROM message WHERE account = $1 AND NEWEST",
        "DELETE FROM message WHERE account = $1 AND rank = 1",
        "should not have been",
    ),
    "out of order": Tampering(
        "UPDATE message SET rank = -rank WHERE account = $1 AND NEWEST",
        "UPDATE message SET rank = -rank WHERE account = $1 AND rank < 0",  # to its own place: others may be behind it
        "another order",
    ),
    "miscounted": Tampering(
        "UPDATE account SET unread = unread + 1 WHERE jid = $1",
        "UPDATE account SET unread = unread - 1 WHERE jid = $1",
        "differ from a recount",
    ),
    "unread": Tampering(
        "UPDATE conversation SET unread = unread + 1 WHERE account = $1",
        "UPDATE conversation SET unread = unread - 1 WHERE account = $1",
        "unread, should be",
    ),
    "not read": Tampering(
        "UPDATE conversation SET read_id = 'x' || coalesce(read_id, '') WHERE account = $1 AND read_rank > 0",
        "UPDATE conversation SET read_id = nullif(substr(read_id, 2), '') WHERE account = $1 AND read_rank > 0",
        "read up to 0",
    ),
    "another text": Tampering(
        "UPDATE conversation SET last_stanza = replace(last_stanza, '</body>', '!</body>') WHERE account = $1",
        "UPDATE conversation SET last_stanza = replace(last_stanza, '!</body>', '</body>') WHERE account = $1",
        "should say",
    ),
    "another call": Tampering(
        "UPDATE call SET session_id = '-' || session_id WHERE $1 <> ''",  # anybody's: nobody is sure to call all others
        "UPDATE call SET session_id = substr(session_id, 2) WHERE $1 <> ''",
        "should be {None}",
    ),
    "set aside": Tampering(
        "INSERT INTO quarantine (host, stream, shard, n, account, why, event) VALUES ('h', 's', '0', 1, $1, 'w', '')",
        "DELETE FROM quarantine WHERE account = $1",
        "set aside",
    ),
    "behind": Tampering(
        "INSERT INTO feed_stream (host, stream, shard, committed, seen) SELECT 'h', 's', '0', 1, 2 WHERE $1 <> ''",
        "DELETE FROM feed_stream WHERE host = 'h' AND $1 <> ''",
        "the feed is not level",
    ),
}


@pytest.mark.one_server
@pytest.mark.timeout(900)
async def test_a_judge_would_notice(box: Box) -> None:
    async with perform(box, "calm", [], least=30) as (stage, weather):
        assert await Judge(stage, weather).findings() == []
        jid = stage.jids[0]
        for name, tampering in TAMPERINGS.items():
            there, back = tampering.statements()
            await box.sql(there, jid)
            said = await Judge(stage, weather, patience=0).findings()
            await box.sql(back, jid)
            assert any(tampering.says in one for one in said), (name, said)
        rung = {"token": stage.phones[jid].voip, "status": 200, "payload": {"x": {"k": "call", "c": "the same"}}}
        for _ in range(2):
            add(Path(box.ready["apns"]["log"]), json.dumps(rung))
        said = await Judge(stage, weather, patience=10).findings()
        assert [one for one in said if "rang 2 times" in one] == said != []


def add(log: Path, line: str) -> None:
    with log.open("a") as file:
        file.write(line + "\n")


def test_a_watcher_would_notice() -> None:
    watcher = Watcher(SimpleNamespace(), "ann@example.org")  # type: ignore[arg-type]
    conversation = SimpleNamespace(unread=1, read_to="0")
    watcher.note(5, {"bob": conversation})  # type: ignore[dict-item]
    watcher.note(6, {"bob": conversation})  # type: ignore[dict-item]
    watcher.note(6, {})
    assert watcher.findings == []
    watcher.note(6, {"bob": conversation})  # type: ignore[dict-item]
    watcher.note(5, {})
    assert len(watcher.findings) == 2


async def test_an_auditor_would_notice() -> None:
    auditor = Auditor(SimpleNamespace(), ["ann"])  # type: ignore[arg-type]

    async def look(version: int, seen: str, account: int) -> None:
        row = {"account": "ann", "peer": "bob", "kind": "chat", "version": version, "seen": seen}
        answers = iter([[row], [{"jid": "ann", "version": account, "epoch": 1, "unread": 0}]])

        async def fetch(*_: object, **__: object) -> object:
            return next(answers)

        await auditor.look(SimpleNamespace(fetch=fetch))

    for version, seen, account in ((5, "a", 5), (5, "a", 5), (6, "b", 6), (7, "b", 7)):
        await look(version, seen, account)
    assert auditor.findings == []
    for version, seen, account in ((7, "c", 7), (6, "c", 7), (8, "c", 6)):
        await look(version, seen, account)
    assert len(auditor.findings) == 3


def test_what_a_call_may_be() -> None:
    propose, lost = Step(False, "propose", 0, True), Step(False, "retract", 1, False)
    assert truth.ends([propose]) == {"ringing"}
    assert truth.ends([propose, lost]) == {"ringing", "missed"}
    assert truth.ends([propose, Step(True, "proceed", 50, True)]) == {"answered", "missed"}
    assert truth.ends([propose, Step(True, "proceed", 5, True, taken_by=70)]) == {"answered", "missed"}
    assert truth.ends([propose, Step(True, "proceed", 5, True, taken_by=40)]) == {"answered"}
    items = [truth.Item(one, 0.0, ET.Element("message")) for one in "abcd"]
    assert truth.Word([], {}, taken={"b": 2.0, "c": 3.0}).taken_by(items) == [2.0, 2.0, 3.0, 0.0]
    crossing = [Step(True, "proceed", 1.0, True), Step(False, "retract", 1.5, True)]
    assert truth.ends([propose, *crossing]) == {"ended"}
    assert truth.ends([propose, *crossing], loose=True) == {"ended", "missed", "closed"}
