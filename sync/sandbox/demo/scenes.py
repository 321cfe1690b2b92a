"""What happens in the demo: who does what, which push has to come, what the phone has to learn.

Every scene is the same figure: somebody acts at an ordinary client, a push reaches the APNs simulator, the phone wakes
and asks, and what it was told is checked. Between scenes is a pause, because a phone that has fetched is woken at most
once a second.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sync.sandbox.demo.people import Person, Sent, online
from sync.sandbox.demo.phone import Conversation, Phone, Woken
from sync.sandbox.demo.pushes import Pushes
from sync.sandbox.demo.screen import Screen
from sync.sandbox.demo.story import Measured, Scene, check

PAUSE_SECONDS = 1.1  # a little more than the second that pushes to one phone are coalesced for
ALERT, VOIP = "alert", "voip"
FIRST, SECOND = "Meet me at noon?", "Meet me at one?"


@dataclass(slots=True, kw_only=True)
class Stage:
    """The cast and what was measured."""

    screen: Screen
    alice: Person
    carol: Person
    phone: Phone
    pushes: Pushes
    ready: dict[str, Any]
    written: Sent | None = None  # Alice's message that is corrected and taken back
    unread: int = 0  # of the conversation with Alice, as it has to be
    stanza_id: str = ""
    shown: set[str] = field(default_factory=set)  # push types of which the visitor has seen a whole one
    measured: list[Measured] = field(default_factory=list)

    def message_before(self) -> Sent:
        """What Alice wrote in an earlier scene."""
        assert self.written is not None, "the scenes are in order"  # noqa: S101
        return self.written

    @property
    def bob(self) -> str:
        return self.phone.jid

    async def pause(self) -> None:
        """Let the second pass in which a further wake would be held back, and forget the pushes until now."""
        await asyncio.sleep(PAUSE_SECONDS)
        self.pushes.mark()

    async def pushed(self, cause: Sent, kind: str, *, what: str, by: str = ALERT) -> None:
        """The push that has to come; it must be accepted, ours in form, and give nothing away."""
        token = self.phone.voip_token if by == VOIP else self.phone.alert_token
        push = await self.pushes.next(token, kind)
        check(push.status == 200, f"APNs answered {push.status} to the push.")
        check((push.push_type, push.priority) == (by, 10), f"It was {push.push_type}, priority {push.priority}.")
        said = json.dumps(push.payload, ensure_ascii=False).lower()
        told = [word for word in ("@", "alice", FIRST.lower(), SECOND.lower()) if word in said]
        check(not told, f"The push gives away {', '.join(told)}.")
        self.measured.append(Measured(what=what, push=(push.at - cause.at) * 1000))
        self.screen.push(push, ms=self.measured[-1].push, whole=push.push_type not in self.shown)
        self.shown.add(push.push_type)

    async def woken(self) -> Woken:
        """The phone asks; how long that took belongs to the push that woke it."""
        woken = await self.phone.wake()
        row = self.measured[-1]
        self.measured[-1] = Measured(what=row.what, push=row.push, login=woken.login, answer=woken.answer)
        self.screen.line("phone", "wakes and logs in", woken.login)
        self.screen.line("phone", "asks what changed since it last knew", woken.answer)
        return woken

    def shows(self, conversation: Conversation) -> None:
        text = "" if conversation.text is None else f" · “{conversation.text}”"
        self.screen.line("phone", f"shows {conversation.jid} · {conversation.unread} unread{text}")


@asynccontextmanager
async def cast(ready: dict[str, Any], screen: Screen) -> AsyncIterator[Stage]:
    """Alice and Carol online, Bob's phone new and still in its box."""
    known = {account["jid"].partition("@")[0]: account for account in ready["accounts"]}
    place = {"host": ready["c2s"]["host"], "port": ready["c2s"]["port"]}
    async with AsyncExitStack() as stack:
        alice, carol = [await stack.enter_async_context(online(**known[name], **place)) for name in ("alice", "carol")]
        yield Stage(
            screen=screen,
            alice=alice,
            carol=carol,
            phone=Phone(**known["bob"], **place),
            pushes=Pushes(Path(ready["apns"]["log"])),
            ready=ready,
        )


def scenes(stage: Stage) -> Sequence[Scene]:
    """The story."""
    told = (
        ("Bob sets up his phone and puts it away", phone_is_set_up),
        ("Alice writes", message),
        ("Alice corrects what she wrote", edit),
        ("Alice takes it back", retraction),
        ("Alice calls, and hangs up", call),
        ("Alice calls, and twenty messages follow", call_under_messages),
        ("Alice calls, and Bob answers on his laptop", answered_elsewhere),
        ("Alice writes, and Bob reads it on his laptop", read_elsewhere),
    )
    return [Scene(title=title, play=partial(play, stage)) for title, play in told]


async def phone_is_set_up(stage: Stage) -> None:
    contacts = (stage.alice.bare, stage.carol.bare)
    app = stage.ready["apns"]["app"]
    known = await stage.phone.set_up(component=stage.ready["component"], app=app, contacts=contacts)
    stage.unread = next((row.unread for row in known.conversations if row.jid == stage.alice.bare), 0)
    stage.screen.line("phone", f"registers an alert and a VoIP token of {app}")
    stage.screen.line("phone", f"knows {len(known.conversations)} conversations and goes offline", known.answer)


async def message(stage: Stage) -> None:
    await stage.pause()
    stage.screen.line("alice", f"“{FIRST}”")
    stage.written = stage.alice.says(stage.bob, FIRST)
    await stage.pushed(stage.written, "message", what="a message")
    found = (await stage.woken()).of(stage.alice.bare)
    stage.unread += 1
    stage.shows(found)
    check((found.text, found.unread) == (FIRST, stage.unread), f"Expected {stage.unread} unread and “{FIRST}”.")


async def edit(stage: Stage) -> None:
    await stage.pause()
    stage.screen.line("alice", f"corrects it to “{SECOND}”")
    await stage.pushed(stage.alice.corrects(stage.bob, stage.message_before(), SECOND), "corrected", what="an edit")
    woken = await stage.woken()
    found = woken.of(stage.alice.bare)
    stage.shows(found)
    check((found.text, found.unread) == (SECOND, stage.unread), f"Expected {stage.unread} unread and “{SECOND}”.")
    told = [(rewrite.name, rewrite.conversation, rewrite.text) for rewrite in woken.rewrites]
    check(told == [("replace", stage.alice.bare, SECOND)], f"Expected one message to replace, not {told}.")
    stage.stanza_id = woken.rewrites[0].stanza_id
    stage.screen.line("phone", "replaces the text of one stored message")


async def retraction(stage: Stage) -> None:
    await stage.pause()
    stage.screen.line("alice", "takes the message back")
    await stage.pushed(stage.alice.retracts(stage.bob, stage.message_before()), "withdraw", what="a retraction")
    woken = await stage.woken()
    found = woken.of(stage.alice.bare)
    stage.unread -= 1
    stage.shows(found)
    check(found.unread == stage.unread, f"Expected {stage.unread} unread.")
    check(found.text is None and found.retracted, "The last message was to be a tombstone without text.")
    told = [(rewrite.name, rewrite.stanza_id) for rewrite in woken.rewrites]
    check(told == [("retract-message", stage.stanza_id)], f"Expected the same message to be withdrawn, not {told}.")
    stage.screen.line("phone", "removes the message and its notification")


async def call(stage: Stage) -> None:
    await stage.pause()
    ringing = await _rings(stage, what="a call")
    _first_is(stage, await stage.woken(), ringing)
    await _gives_up(stage, ringing, what="the caller hangs up")


async def call_under_messages(stage: Stage) -> None:
    await stage.pause()
    ringing = await _rings(stage, what="a call under 20 messages")
    for n in range(10):
        stage.alice.says(stage.bob, f"Pick up! ({n + 1})")
        stage.carol.says(stage.bob, f"Are you there? ({n + 1})")
    stage.unread += 10
    stage.screen.line("alice", "and Carol write ten messages each")
    # By way of the server, so that the phone comes after all of them.
    await stage.alice.waits()
    await stage.carol.waits()
    woken = await stage.woken()
    _first_is(stage, woken, ringing)
    unread = (woken.of(stage.alice.bare).unread, woken.of(stage.carol.bare).unread)
    check(unread[1] >= 10, f"Of Carol's ten messages {unread[1]} are unread.")
    stage.screen.line("phone", f"and shows {unread[0]} unread of Alice, {unread[1]} of Carol")
    await _gives_up(stage, ringing, what="the caller hangs up again")


async def answered_elsewhere(stage: Stage) -> None:
    async with _laptop(stage) as laptop:
        await stage.pause()
        ringing = await _rings(stage, what="a call while a laptop is online")
        stage.screen.line("laptop", "answers; the phone has not asked yet")
        await stage.pushed(laptop.answers(stage.alice.bare, ringing), "callend", what="answered elsewhere")
        _none_rings(stage, await stage.woken())


async def read_elsewhere(stage: Stage) -> None:
    async with _laptop(stage) as laptop:
        await stage.pause()
        stage.screen.line("alice", f"“{FIRST}”")
        sent = stage.alice.says(stage.bob, FIRST)
        await stage.pushed(sent, "message", what="a message while a laptop is online")
        stage.shows((await stage.woken()).of(stage.alice.bare))
        await stage.pause()
        stage.screen.line("laptop", "shows the message to Bob, and says so (XEP-0333)")
        await stage.pushed(laptop.has_read(stage.alice.bare, sent), "read", what="read elsewhere")
        found = (await stage.woken()).of(stage.alice.bare)
        stage.shows(found)
        check(found.unread == 0, "Everything was read; nothing may be unread.")
        stage.screen.line("phone", "removes the notification")


@asynccontextmanager
async def _laptop(stage: Stage) -> AsyncIterator[Person]:
    bob = next(account for account in stage.ready["accounts"] if account["jid"] == stage.bob)
    place = {"host": stage.ready["c2s"]["host"], "port": stage.ready["c2s"]["port"]}
    async with online(f"{bob['jid']}/laptop", bob["password"], **place) as laptop:
        yield laptop


async def _rings(stage: Stage, *, what: str) -> Sent:
    stage.screen.line("alice", "calls")
    ringing = stage.alice.calls(stage.bob)
    await stage.pushed(ringing, "call", what=what, by=VOIP)
    return ringing


async def _gives_up(stage: Stage, ringing: Sent, *, what: str) -> None:
    stage.screen.line("alice", "hangs up")
    await stage.pushed(stage.alice.hangs_up(stage.bob, ringing), "missed", what=what)
    _none_rings(stage, await stage.woken())


def _first_is(stage: Stage, woken: Woken, ringing: Sent) -> None:
    """The call that rings stands before everything else."""
    check(bool(woken.conversations), "Nothing was answered.")
    first = woken.conversations[0]
    check((first.jid, list(first.calls)) == (stage.alice.bare, [ringing.id]), "The first row is not the call.")
    stage.screen.line("phone", f"rings: {first.jid} is calling (row 1 of {len(woken.conversations)})")


def _none_rings(stage: Stage, woken: Woken) -> None:
    check(not woken.of(stage.alice.bare).calls, "The call still rings.")
    stage.screen.line("phone", "stops: the call is gone from the answer")
