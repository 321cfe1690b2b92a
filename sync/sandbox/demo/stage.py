"""The stage of the demo: the cast, what a push has to be, how the phone asks, and what was measured.

Every scene is the same figure: somebody acts at an ordinary client, a push reaches the APNs simulator, the phone wakes
and asks, and what it was told is checked. Refuses to know which scenes there are.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sync.client import Conversation
from sync.sandbox.demo.handset import Handset
from sync.sandbox.demo.people import Person, Sent, online
from sync.sandbox.demo.phone import Phone, Woken
from sync.sandbox.demo.pushes import Pushes
from sync.sandbox.demo.screen import Screen
from sync.sandbox.demo.story import Measured, check

PAUSE_SECONDS = 1.1  # a little more than the second that pushes to one phone are coalesced for
ALERT, VOIP = "alert", "voip"


@dataclass(slots=True, kw_only=True)
class Stage:
    """The cast and what was measured. `unread`: of each conversation, as the phone last knew it and so has to be."""

    screen: Screen
    alice: Person
    carol: Person
    phone: Phone
    pushes: Pushes
    handset: Handset
    ready: dict[str, Any]
    written: Sent | None = None  # Alice's message that later scenes are about
    unread: dict[str, int] = field(default_factory=dict)
    stanza_id: str = ""
    secrets: set[str] = field(default_factory=set)  # what was said: no push may give it away
    shown: set[str] = field(default_factory=set)  # push types of which the visitor has seen a whole one
    measured: list[Measured] = field(default_factory=list)
    version: int | None = None  # of the last push

    def message_before(self) -> Sent:
        """What Alice wrote in an earlier scene."""
        assert self.written is not None, "the scenes are in order"  # noqa: S101
        return self.written

    @property
    def bob(self) -> str:
        return self.phone.jid

    def says(self, who: str, text: str, more: str = "") -> str:
        """Shows that somebody says this; the text."""
        self.screen.line(who, f"“{text}”{more}")
        self.secrets.add(text)
        return text

    async def pause(self) -> None:
        """Let the second pass in which a further wake would be held back, and forget the pushes until now."""
        await asyncio.sleep(PAUSE_SECONDS)
        self.pushes.mark()

    async def silence(self) -> None:
        """As `pause`; no push may have come in it, nor since the last one."""
        await asyncio.sleep(PAUSE_SECONDS)
        kinds = [push.kind for push in self.pushes.rest()]
        check(not kinds, f"There was a push too many: {', '.join(kinds)}.")

    async def pushed(self, cause: Sent, kind: str, *, what: str, by: str = ALERT) -> None:
        """The push that has to come; it must be accepted, ours in form, and give nothing away."""
        token = self.phone.voip_token if by == VOIP else self.phone.alert_token
        push = await self.pushes.next(token, kind)
        check(push.status == 200, f"APNs answered {push.status} to the push.")
        check((push.push_type, push.priority) == (by, 10), f"It was {push.push_type}, priority {push.priority}.")
        said = json.dumps(push.payload, ensure_ascii=False).lower()
        told = [word for word in ("@", "alice", *self.secrets) if word.lower() in said]
        check(not told, f"The push gives away {', '.join(told)}.")
        self.measured.append(Measured(what=what, push=(push.at - cause.at) * 1000))
        self.screen.push(push, ms=self.measured[-1].push, whole=push.push_type not in self.shown)
        self.shown.add(push.push_type)
        self.version = int(push.news["v"])
        if by == VOIP:
            await self.handset.rang(push.news["c"])

    async def woken(self) -> Woken:
        """The phone asks; how long that took belongs to the push that woke it."""
        row = self.measured.pop()
        return await self._asks("wakes and logs in", row.what, row.push, self.version)

    async def looks(self, *, what: str) -> Woken:
        """Bob looks at his phone of himself: no push has to come for that."""
        return await self._asks("is unlocked by Bob and logs in", what, None, None)

    async def _asks(self, why: str, what: str, push: float | None, version: int | None) -> Woken:
        woken = await self.phone.wake(version=version)
        self.measured.append(Measured(what=what, push=push, login=woken.login, answer=woken.answer))
        self.screen.line("phone", why, woken.login)
        self.screen.line("phone", "asks what changed since it last knew", woken.answer)
        return woken

    def shows(self, conversation: Conversation) -> None:
        last, mention = conversation.last, " · mentioned" if conversation.unread_mention else ""
        text = "" if last is None or last.body is None else f" · “{last.body}”"
        tombstone = " · message taken back" if last is not None and last.retracted else ""
        counted = f"{conversation.unread} unread{mention}"
        self.screen.line("phone", f"shows {conversation.jid} · {counted}{text}{tombstone}")

    @asynccontextmanager
    async def another_client(self, resource: str) -> AsyncIterator[Person]:
        """Bob at another client of his."""
        bob = next(account for account in self.ready["accounts"] if account["jid"] == self.bob)
        place = {"host": self.ready["c2s"]["host"], "port": self.ready["c2s"]["port"]}
        async with online(f"{bob['jid']}/{resource}", bob["password"], **place) as client:
            yield client


def text_of(conversation: Conversation) -> str | None:
    """What was said last."""
    return conversation.last.body if conversation.last is not None else None


def taken_back(conversation: Conversation) -> bool:
    """Whether the last message is a tombstone, without its text."""
    last = conversation.last
    return last is not None and last.retracted and last.body is None


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
            handset=Handset(ready["apns"]["control"], "bob"),
            ready=ready,
        )
