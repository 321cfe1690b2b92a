"""The plugin in a slixmpp client that has no connection: what it listens to, in which order it tells, what ends its
requests. Against servers it is tried in tests/system/test_client.py.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from slixmpp import ClientXMPP
from slixmpp.stanza import Iq

from sync.client import (
    BadAnswer,
    Cache,
    CallEnded,
    CallRings,
    ConversationChanged,
    Convsync,
    NoAnswer,
    NotConnected,
    NotSupported,
    Settings,
    TotalsChanged,
    TryLater,
)
from sync.client import requests as asking
from sync.client.requests import LONGEST_PAUSE_SECONDS, pause_seconds
from sync.protocol.names import CONVSYNC
from sync.protocol.serialise import parse

ANN = "ann@example.org"
CALL = (
    "<call id='s1' jid='bob@example.net' state='ringing' version='5' proposed='2026-01-01T00:00:00Z' age='1' "
    "left='{}'/>"
)
ROW = "<conversation jid='bob@example.net' kind='chat' version='5' status='active' unread='1'/>"
TOTALS = "<totals unread='1' mentions='0' conversations='1'/>"


class App:
    """A client and what it was told."""

    def __init__(self, **config: Any) -> None:
        self.client: Any = ClientXMPP(f"{ANN}/desk", "secret")
        self.client.register_plugin("convsync", {"auto": False, **config})
        self.plugin: Convsync = self.client.plugin["convsync"]
        self.told: list[Any] = []
        for name in ("call", "call_ended", "conversation", "totals", "cache", "behind", "failed"):
            self.client.add_event_handler(f"convsync_{name}", self.told.append)
        self.client.boundjid.full = f"{ANN}/desk"

    def notice(self, sender: str | None, content: str, previous: str = "4", version: str = "5") -> None:
        about = f"previous='{previous}' version='{version}' token='t5' time='2026-01-01T00:00:01Z'"
        origin = "" if sender is None else f" from='{sender}'"
        live = f"<live xmlns='{CONVSYNC}' {about}>{content}</live>"
        xml = parse(f"<message xmlns='jabber:client' type='headline'{origin}>{live}</message>")
        self.client._spawn_event(xml)

    def begin(self) -> None:
        """A session, as slixmpp tells of it."""
        self.client.event("session_start")

    async def asked(self) -> Any:
        """The next request that was put into the queue."""
        async with asyncio.timeout(60):
            while True:
                stanza, _ = await self.client.waiting_queue.get()
                if isinstance(stanza, Iq):
                    return stanza

    def answer(self, iq: Any, error: str | None = None, kind: str = "wait") -> None:
        inner = f"<error type='{kind}'><{error} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>" if error else ""
        type_ = "error" if error else "result"
        xml = parse(f"<iq xmlns='jabber:client' type='{type_}' id='{iq['id']}' from='{ANN}'>{inner}</iq>")
        self.client._spawn_event(xml)


@pytest.fixture
async def app() -> AsyncIterator[App]:
    """Made within the loop: slixmpp would else make one of its own where none is set."""
    found = App(attempts=3)
    found.plugin.cache = Cache(version=4, token="t4")
    yield found
    found.plugin.plugin_end()


async def test_a_notice_is_told_calls_first_and_the_cache_is_stored_last(app: App) -> None:
    app.notice(ANN, f"{TOTALS}{CALL.format(50)}{ROW}")
    assert [type(told) for told in app.told] == [CallRings, ConversationChanged, TotalsChanged, Cache]
    assert app.told[-1] is app.plugin.cache
    assert (app.plugin.cache.version, app.plugin.cache.token) == (5, "t5")


@pytest.mark.parametrize("sender", ["bob@example.net", f"{ANN}/phone", f"{ANN}/desk", "example.org"])
async def test_nobody_else_makes_notices(app: App, sender: str) -> None:
    app.notice(sender, f"{TOTALS}{ROW}")
    assert app.told == []
    app.notice(None, f"{TOTALS}{ROW}")
    assert app.told != []


@pytest.mark.parametrize(("previous", "version"), [("5", "6"), ("x", "6"), ("4", "")])
async def test_a_hole_and_a_notice_that_cannot_be_read_are_questions(app: App, previous: str, version: str) -> None:
    cache = app.plugin.cache
    app.notice(ANN, TOTALS, previous, version)
    assert app.told == [cache]
    assert app.plugin.cache == cache


async def test_a_handler_that_fails_stops_nothing(app: App) -> None:
    def fails(_: object) -> None:
        raise ZeroDivisionError

    app.client.add_event_handler("convsync_call", fails)
    app.notice(ANN, f"{TOTALS}{CALL.format(50)}{ROW}")
    assert len(app.told) == 4


async def test_a_call_stops_when_its_time_is_up_or_the_user_has_dealt_with_it(app: App) -> None:
    app.notice(ANN, f"{TOTALS}{CALL.format(0)}{ROW}")
    async with asyncio.timeout(60):
        await app.client.wait_until("convsync_call_ended")
    assert [told.call.state for told in app.told if isinstance(told, CallRings | CallEnded)] == ["ringing", "gone"]
    app.told.clear()
    app.notice(ANN, f"{TOTALS}{CALL.format(50).replace('s1', 's2')}", "5", "6")
    app.plugin.silence(app.plugin.cache.ringing[0].key)
    assert [told.call.id for told in app.told if isinstance(told, CallEnded)] == ["s2"]
    assert app.plugin._timers == {}


async def test_without_a_session_nothing_is_asked_and_its_end_ends_what_was(app: App) -> None:
    with pytest.raises(NotConnected):
        await app.plugin.sync()
    app.begin()
    asking_ = asyncio.create_task(app.plugin.conversation("bob@example.net"))
    await app.asked()
    app.client.event("disconnected")
    with pytest.raises(NotConnected):
        await asking_
    # Where it waits to ask again, too.
    app.begin()
    asking_ = asyncio.create_task(app.plugin.conversation("bob@example.net"))
    app.answer(await app.asked(), "resource-constraint")
    await asyncio.sleep(0)
    app.client.event("session_end")
    with pytest.raises(NotConnected):
        await asking_


async def test_it_asks_again_where_it_is_told_to_wait_and_gives_up(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "FIRST_PAUSE_SECONDS", 0.001)
    app.begin()
    asking_ = asyncio.create_task(app.plugin.set(Settings(jid="bob@example.net", pinned=1)))
    for _ in range(3):
        iq = await app.asked()
        assert iq["type"] == "set"
        app.answer(iq, "internal-server-error")
    with pytest.raises(TryLater) as caught:
        await asking_
    assert caught.value.condition == "internal-server-error"


async def test_who_was_served_waits_for_a_component_that_is_away(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "FIRST_PAUSE_SECONDS", 0.001)
    app.begin()
    for served in (False, True):
        asking_ = asyncio.create_task(app.plugin.conversation("bob@example.net"))
        app.answer(await app.asked(), "service-unavailable", "cancel")
        if served:
            app.answer(await app.asked())
        with pytest.raises(BadAnswer if served else NotSupported):
            await asking_
        if not served:
            first = asyncio.create_task(app.plugin.conversation("bob@example.net"))
            app.answer(await app.asked())
            with pytest.raises(BadAnswer):
                await first


async def test_no_answer_is_an_error_and_is_not_asked_again(app: App) -> None:
    app.plugin.timeout = 0.01
    app.begin()
    asking_ = asyncio.create_task(app.plugin.call("s1"))
    await app.asked()
    with pytest.raises(NoAnswer):
        await asking_


def test_pauses_grow_and_are_not_all_the_same() -> None:
    found = [{pause_seconds(failures) for _ in range(20)} for failures in (1, 2, 3, 20, 10_000)]
    assert all(len(pauses) > 1 for pauses in found)
    assert [max(pauses) <= 1.5 * at for pauses, at in zip(found, (0.5, 1, 2, 60, 60), strict=True)] == [True] * 5
    assert min(found[-1]) >= LONGEST_PAUSE_SECONDS / 2


async def test_a_plugin_that_is_unloaded_listens_no_more(app: App) -> None:
    app.client.plugin.disable("convsync")
    assert not [one for one in app.client._XMLStream__handlers if one.name == "Convsync live"]


async def test_a_plugin_that_is_loaded_amid_a_session_can_ask() -> None:
    client: Any = ClientXMPP(f"{ANN}/desk", "secret")
    client.session_bind_event.set()
    client.register_plugin("convsync", {"auto": False, "timeout": 0.01})
    with pytest.raises(NoAnswer):
        await client.plugin["convsync"].sync()
