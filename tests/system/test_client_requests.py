"""The client library sets, asks, registers and waits, with both servers."""

import asyncio
import secrets

import pytest

from sync.client import (
    Conflict,
    ConversationChanged,
    ListedDevice,
    NotFound,
    Settings,
)
from tests.system.app import App, same, written
from tests.system.box import Box, eventually


async def test_setting_with_a_precondition_reading_and_asking(box: Box) -> None:
    ann, bob, carl = await box.friends("a", "b", "c")
    first, _ = await written(ann, bob, carl)
    app = await App.open(box, ann.account)
    await app.plugin.sync()
    before = app.with_(bob.account)
    versions = await app.plugin.set(
        Settings(jid=bob.account, pinned=3, muted=True, notify="never", if_version=before.version),
        Settings(jid=carl.account, marked_unread=True),
    )
    assert [key.jid for key in versions] == [bob.account, carl.account]
    with pytest.raises(Conflict) as caught:
        await app.plugin.set(
            Settings(jid=carl.account, pinned=1), Settings(jid=bob.account, pinned=9, if_version=before.version)
        )
    assert (caught.value.condition, caught.value.type, bool(caught.value.text)) == ("conflict", "cancel", True)
    now = await app.plugin.conversation(bob.account)
    assert (now.pinned, now.notify, now.version) == (3, "never", versions[before.key])
    assert now.muted_until is not None
    assert (await app.plugin.conversation(carl.account)).pinned == 0
    assert before.last is not None
    assert await app.plugin.mark_read(bob.account, before.last.stanza_id or "") > now.version
    await app.plugin.sync()
    assert (app.with_(bob.account).unread, app.with_(bob.account).read) == (0, before.last.stanza_id)
    with pytest.raises(NotFound):
        await app.plugin.mark_read(bob.account, "nobody-said-this")
    with pytest.raises(NotFound):
        await app.plugin.conversation("nobody@localhost")
    bob.correct(ann.account, first, "better")
    await bob.ping()

    async def corrected() -> bool:
        history = await app.plugin.changes(bob.account, since=before.version)
        named = before.last and before.last.stanza_id
        return [(one.kind, one.id, one.body) for one in history.changes] == [("corrected", named, "better")]

    await eventually(corrected)
    page = await app.plugin.page(unread=True, max=1)
    assert [row.conversation.jid for row in page.rows] == [carl.account]  # type: ignore[union-attr]
    await app.close()


async def test_a_phone_registers_is_woken_and_asks_as_that_device(box: Box) -> None:
    ann, bob = await box.friends("a", "b")
    await written(ann, bob)
    app = await App.open(box, ann.account, "phone")
    await app.plugin.sync(live=False)
    assert await app.plugin.supported()
    token = "a" + secrets.token_hex(32)[1:]
    device = await app.plugin.register_device(box.ready["apns"]["app"], token)
    assert device.component == box.ready["component"]
    await app.plugin.enable_push(device)
    assert device.secret not in repr(device)
    stored = await app.close()
    await ann.close()
    (message,) = await written(ann, bob, text="wake up")
    (push,) = await box.pushed(token)
    # An extension asks under another resource.
    woken = await App.open(box, ann.account, "extension", stored=stored)
    news = await woken.plugin.sync(live=False, device=device.node, at_least=push["payload"]["x"]["v"])
    changed = [event.conversation for event in news if isinstance(event, ConversationChanged)]
    assert [(one.jid, one.last and one.last.id) for one in changed] == [(bob.account, message)]
    await box.settled(ann.account)
    with pytest.raises(NotFound):
        await woken.plugin.sync(device="nobody's")
    await woken.plugin.disable_push(device)
    await woken.plugin.unregister_device(box.ready["apns"]["app"], token)
    assert await box.sql("SELECT 1 FROM device WHERE account = $1", ann.account) == []
    await woken.close()


async def test_a_phone_that_is_lost_is_logged_out(box: Box) -> None:
    ann = await box.person()
    app = await App.open(box, ann.account, "phone")
    name: str = box.ready["apns"]["app"]
    lost, kept = [
        await app.plugin.register_device(
            name, "a" + secrets.token_hex(32)[1:], device_id=f"d{n}", device_name=f"Phone {n}"
        )
        for n in (1, 2)
    ]
    await app.plugin.enable_push(lost)
    two, one = await app.plugin.devices()
    assert one == ListedDevice(node=lost.node, device_id="d1", app=name, enabled=True, name="Phone 1")
    assert two == ListedDevice(node=kept.node, device_id="d2", app=name, enabled=False, name="Phone 2")
    assert await app.plugin.log_out(lost.node, "nobody's") == (lost.node,)
    assert [found.node for found in await app.plugin.devices()] == [kept.node]
    with pytest.raises(NotFound):
        await app.plugin.log_out(lost.node)
    await app.close()


async def test_it_waits_where_the_server_asks_it_to(box: Box) -> None:
    ann, bob = await box.friends("a", "b")
    await written(ann, bob)
    app = await App.open(box, ann.account, attempts=60)
    await app.plugin.sync()
    refusals = 0

    def count(stanza: object) -> object:
        nonlocal refusals
        refusals += "internal-server-error" in str(stanza)
        return stanza

    app.client.add_filter("in", count)
    for _ in range(5):  # it may be back before anybody has asked
        killed = asyncio.create_task(box.killed("postgres"))
        while not killed.done():
            await app.plugin.sync()
        await killed
        if refusals:
            break
    assert refusals
    await same(app, box)
    await app.close()
