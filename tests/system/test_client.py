"""The client library against whole sandboxes: it goes and comes back, follows live, notices what it missed, starts
over, rings first.
"""

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from sync.client import (
    CallEnded,
    CallRings,
    ConversationChanged,
    ConversationRemoved,
    Happened,
    NotFound,
    StartedOver,
    TotalsChanged,
)
from tests.system.app import App, calls_first, same, written
from tests.system.box import REPOSITORY, Box, boxed, eventually
from tests.system.person import JMI

OWN = "urn:convsync:0"


# ---- away, and back --------------------------------------------------------------------------------------------------


async def test_it_goes_away_and_is_told_what_happened_meanwhile(box: Box) -> None:
    ann, bob, carl, dora = await box.friends("a", "b", "c", "d")
    first, second, _ = await written(ann, bob, carl, dora)
    app = await App.open(box, ann.account)
    await app.plugin.sync()
    assert {one.jid: (one.unread, one.last and one.last.body) for one in app.cache.by_activity()} == {
        who.account: (1, "hello") for who in (bob, carl, dora)
    }
    stored = await app.close()

    bob.correct(ann.account, first, "hello, Ann")
    bob.react(ann.account, first, "👍")
    carl.retract(ann.account, second)
    await bob.ping()
    await carl.ping()
    await ann.set(dora.account, status="deleted")

    app = await App.open(box, ann.account, stored=stored)
    news = await app.plugin.sync()
    assert list(news) == [event for event in app.told if event in news]
    assert app.kinds(bob.account) == ["corrected", "reacted"]
    corrected, reacted = next(event.changes for event in app.of(Happened) if event.key.jid == bob.account)
    assert (corrected.body, reacted.reactions) == ("hello, Ann", ("👍",))
    assert app.kinds(carl.account) == ["retracted"]
    assert [event.conversation.jid for event in app.of(ConversationRemoved)] == [dora.account]
    last = app.with_(bob.account).last
    assert last is not None
    assert (last.body, last.id, last.retracted) == ("hello, Ann", first, False)
    assert app.plugin.message(last.stanza or "")["body"] == "hello, Ann"
    gone = app.with_(carl.account).last
    assert gone is not None
    assert (gone.retracted, gone.body) == (True, None)
    assert app.cache.totals is not None
    assert app.cache.totals.unread == sum(one.unread for one in app.cache.conversations.values())
    await same(app, box)
    # And now nothing is new.
    app.told.clear()
    assert await app.plugin.sync() == ()
    assert app.told == []
    await app.close()


async def test_a_list_that_was_interrupted_goes_on_and_rings_first(box: Box) -> None:
    ann, bob = await box.friends("a", "b")
    others = [await box.person() for _ in range(7)]
    await written(ann, *others)
    app = await App.open(box, ann.account, page_size=2)
    page = app.plugin.page

    async def once(*arguments: object, **options: object) -> object:
        if options.get("continued"):
            raise asyncio.CancelledError
        return await page(*arguments, **options)  # type: ignore[arg-type]

    app.plugin.page = once  # type: ignore[assignment, method-assign]
    with pytest.raises(asyncio.CancelledError):
        await app.plugin.sync()
    assert len(app.cache.conversations) == 2
    assert app.cache.chain is not None
    before = {key.jid for key in app.cache.conversations}
    stored = await app.close()

    bob.call("propose", ann.account, "sid-1")
    await bob.ping()
    await written(ann, *others[:4])
    app = await App.open(box, ann.account, stored=stored, page_size=2)
    news = await app.plugin.sync()
    assert isinstance(news[0], CallRings)
    assert (news[0].call.id, news[0].call.jid, news[0].call.media) == ("sid-1", bob.account, ("audio",))
    assert len(app.of(CallRings)) == 1
    shown = {event.conversation.jid for event in news if isinstance(event, ConversationChanged)}
    assert shown >= {bob.account, *(other.account for other in others[:4])}
    assert shown | before >= {other.account for other in others}
    assert not app.of(StartedOver)
    await same(app, box)
    await app.close()


async def test_a_call_rings_before_anything_else_of_the_answer(box: Box) -> None:
    ann, bob = await box.friends("a", "b")
    others = [await box.person() for _ in range(5)]
    bob.call("propose", ann.account, "first")
    await bob.ping()
    await written(ann, *others)
    app = await App.open(box, ann.account)
    news = list(await app.plugin.sync())
    assert isinstance(app.told[0], CallRings)
    assert calls_first(news)
    call = app.told[0].call
    assert 0 < call.left <= 60
    assert f"{{{JMI}}}propose" in app.plugin.message(call.stanza or "").xml[0].tag
    assert (await app.plugin.call("first")).rings
    # It is told once, also to an app that was stopped meanwhile and finds nothing new.
    await app.plugin.sync()
    assert len(app.of(CallRings)) == 1
    again = await App.open(box, ann.account, "again", stored=app.stored)
    assert [type(event) for event in await again.plugin.sync()] == [CallRings]
    await again.close()
    # Answered elsewhere: that is first, too.
    ann.call("proceed", bob.account, "first")
    await ann.ping()
    app.told.clear()
    await app.plugin.sync()
    assert isinstance(app.told[0], CallEnded)
    assert (app.told[0].call.state, app.told[0].call.by) == ("answered", "a")
    assert app.cache.ringing == ()
    assert (await app.plugin.call("first", bob.account)).state == "answered"
    with pytest.raises(NotFound):
        await app.plugin.call("second")
    await app.close()


# ---- live ------------------------------------------------------------------------------------------------------------


async def test_it_follows_live(box: Box) -> None:
    ann, bob, carl = await box.friends("a", "b", "c")
    (first,) = await written(ann, bob)
    app = await App.open(box, ann.account, auto=True)
    await app.until(lambda: app.cache.complete)
    app.told.clear()
    carl.write(ann.account, "live")
    await app.until(lambda: app.with_(carl.account).unread)
    await app.until(lambda: app.of(TotalsChanged)[-1].totals.unread == 2)
    bob.correct(ann.account, first, "better")
    await app.until(lambda: app.kinds(bob.account) == ["corrected"])
    bob.call("propose", ann.account, "ring")
    await app.until(lambda: app.of(CallRings))
    bob.call("retract", ann.account, "ring")
    await app.until(lambda: app.of(CallEnded))
    assert app.of(CallEnded)[0].call.state == "missed"
    await ann.set(carl.account, status="deleted")
    await app.until(lambda: app.of(ConversationRemoved))
    await same(app, box)
    assert not app.of(StartedOver)
    await app.close()


async def test_what_somebody_else_says_is_no_notice(box: Box) -> None:
    ann, bob = await box.friends("a", "b")
    await written(ann, bob)
    app = await App.open(box, ann.account)
    await app.plugin.sync()
    version, token = app.cache.version, app.cache.token
    app.client.send_presence()
    heard: list[str] = []

    def hear(message: Any) -> None:
        if message["id"] == "after":
            heard.append(message["from"].bare)

    app.client.add_event_handler("message", hear)
    live = f"<live xmlns='{OWN}' previous='{version}' version='{version + 5}' token='t' time='2026-01-01T00:00:00Z'>"
    bob.message(app.client.boundjid.full, f"{live}<totals unread='99'/></live>", kind="headline")
    bob.message(app.client.boundjid.full, "<body>after it</body>", message_id="after")
    await app.until(lambda: heard == [bob.account])
    ann.message(app.client.boundjid.full, f"{live}<totals unread='99'/></live>", kind="headline")
    ann.message(app.client.boundjid.full, "<body>after that</body>", message_id="after")
    await app.until(lambda: heard == [bob.account, ann.account])
    await app.until(lambda: app.cache.version > version)
    assert app.cache.token not in (token, "t")
    assert app.cache.totals is not None
    assert app.cache.totals.unread < 10
    await app.close()


@pytest.mark.parametrize("auto", [True, False])
async def test_a_hole_is_noticed_also_after_the_component_died(box: Box, auto: bool) -> None:
    ann, bob, carl = await box.friends("a", "b", "c")
    await written(ann, bob, carl)
    app = await App.open(box, ann.account, auto=auto)
    if not auto:
        await app.plugin.sync()
    await app.until(lambda: app.cache.complete)
    lost = app.drop_notice()
    bob.write(ann.account, "this one is lost")
    await asyncio.wait_for(lost.wait(), 45)
    version = app.cache.version

    async def written_down() -> bool:
        """What was told in the second before the component dies would be told again, and close the hole."""
        rows = await box.sql("SELECT told FROM watcher WHERE (account, resource) = ($1, 'app')", ann.account)
        return [row["told"] > version for row in rows] == [True]

    await eventually(written_down)
    await box.killed("component")
    carl.write(ann.account, "this one comes")
    if not auto:
        await app.until(lambda: app.told[-1] is app.cache)
        assert app.cache.version == version
        await app.plugin.sync()
    await app.until(lambda: app.cache.version > version and app.with_(bob.account).unread == 2)
    await carl.ping()
    await ann.fresh()
    await app.until(lambda: app.with_(carl.account).unread == 2)
    assert app.with_(bob.account).unread == 2
    await same(app, box)
    assert not app.of(StartedOver)
    await app.close()


# ---- starting over ---------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(loop_scope="session")
async def own_box(server: str) -> AsyncIterator[Box]:
    """A sandbox of the test's own: all clients of it start over."""
    folder = Path(tempfile.mkdtemp(prefix="convsync-client-"))
    os.chmod(folder, 0o755)  # noqa: S103 - Postgres may run as somebody else
    try:
        async with boxed(folder, 4, server) as box:
            await box.whole()
            yield box
    finally:
        shutil.rmtree(folder)


async def test_a_restored_database_makes_it_start_over(own_box: Box) -> None:
    box = own_box
    ann, bob, carl = await box.friends("a", "b", "c")
    await written(ann, bob, carl)
    live = await App.open(box, ann.account, auto=True)
    await live.until(lambda: live.cache.complete)
    away = await App.open(box, ann.account, "away")
    await away.plugin.sync(live=False)
    stored = await away.close()
    said = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sync", "restored", "--config", str(box.data / "convsync.toml"), "--yes"),
        cwd=REPOSITORY,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await said.communicate())[0]
    assert said.returncode == 0, output
    back = await App.open(box, ann.account, "back", stored=stored)
    news = await back.plugin.sync()
    assert [event.reason for event in news if isinstance(event, StartedOver)] == ["epoch"]
    # Who is online hears of it with the next notice.
    await written(ann, bob, text="after the restore")
    await live.until(lambda: live.of(StartedOver))
    await live.until(lambda: live.cache.complete and live.with_(bob.account).unread == 2)

    async def settled() -> bool:
        await back.plugin.sync()
        await same(back, box, 0)
        await same(live, box, 0)
        return True

    await eventually(settled, 60)
    await back.close()
    await live.close()


async def test_it_starts_over_when_it_is_told_to_or_holds_another_accounts_token(box: Box) -> None:
    ann, bob, carl = await box.friends("a", "b", "c")
    await written(ann, bob)
    await written(bob, carl, ann)
    other = await App.open(box, bob.account)
    await other.plugin.sync()
    stored = await other.close()
    app = await App.open(box, ann.account, stored=stored)
    await app.plugin.sync()
    assert [event.reason for event in app.of(StartedOver)] == [""]
    await same(app, box)
    app.told.clear()
    await app.plugin.sync(start_over=True)
    assert isinstance(app.told[0], StartedOver)
    await same(app, box)
    # A push that names a version which nobody has reached.
    app.told.clear()
    await app.plugin.sync(at_least=2**62)
    assert [event.reason for event in app.of(StartedOver)] == ["future"]
    await app.close()
