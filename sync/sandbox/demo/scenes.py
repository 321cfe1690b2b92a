"""What happens in the demo: who does what, which push has to come, what the phone has to learn.

Between scenes is a pause, because a phone that has fetched is woken at most once a second. The group's scene is in
`group`.
"""

from collections.abc import Sequence
from functools import partial

from sync.sandbox.demo.group import group
from sync.sandbox.demo.people import Sent
from sync.sandbox.demo.phone import Woken
from sync.sandbox.demo.stage import VOIP, Stage, taken_back, text_of
from sync.sandbox.demo.story import Scene, check

FIRST, SECOND, THIRD = "Meet me at noon?", "Meet me at one?", "Meet me at two?"
ANSWER, REACTION = "Noon is fine.", "👍"


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
        ("Alice makes a group and mentions Bob, who was never in it", group),
        ("Alice reacts and corrects, and nothing new is unread", nothing_unread),
    )
    return [Scene(title=title, play=partial(play, stage)) for title, play in told]


async def phone_is_set_up(stage: Stage) -> None:
    contacts = (stage.alice.bare, stage.carol.bare)
    app = stage.ready["apns"]["app"]
    tokens = {"alert_token": stage.phone.alert_token, "voip_token": stage.phone.voip_token}
    await stage.handset.describe(app=app, **tokens)
    known = await stage.phone.set_up(component=stage.ready["component"], app=app, contacts=contacts)
    stage.unread = {row.jid: row.unread for row in known.conversations}
    stage.screen.line("phone", f"registers an alert and a VoIP token of {app}")
    stage.screen.line("phone", f"knows {len(known.conversations)} conversations and goes offline", known.answer)


async def message(stage: Stage) -> None:
    await stage.pause()
    stage.written = stage.alice.says(stage.bob, stage.says("alice", FIRST))
    await stage.pushed(stage.written, "message", what="a message")
    found = (await stage.woken()).of(stage.alice.bare)
    unread = _count(stage, 1)
    stage.shows(found)
    check((text_of(found), found.unread) == (FIRST, unread), f"Expected {unread} unread and “{FIRST}”.")


async def edit(stage: Stage) -> None:
    await stage.pause()
    _corrects_to(stage, SECOND)
    await stage.pushed(stage.alice.corrects(stage.bob, stage.message_before(), SECOND), "corrected", what="an edit")
    woken = await stage.woken()
    found = woken.of(stage.alice.bare)
    stage.shows(found)
    unread = _count(stage, 0)
    check((text_of(found), found.unread) == (SECOND, unread), f"Expected {unread} unread and “{SECOND}”.")
    told = [(change.kind, jid, change.body) for jid, change in woken.changes]
    check(told == [("corrected", stage.alice.bare, SECOND)], f"Expected one message to replace, not {told}.")
    stage.stanza_id = woken.changes[0][1].id
    stage.screen.line("phone", "replaces the text of one stored message")


async def retraction(stage: Stage) -> None:
    await stage.pause()
    stage.screen.line("alice", "takes the message back")
    await stage.pushed(stage.alice.retracts(stage.bob, stage.message_before()), "withdraw", what="a retraction")
    woken = await stage.woken()
    found = woken.of(stage.alice.bare)
    unread = _count(stage, -1)
    stage.shows(found)
    check(found.unread == unread, f"Expected {unread} unread.")
    check(taken_back(found), "The last message was to be a tombstone without text.")
    told = [(change.kind, change.id) for _, change in woken.changes]
    check(told == [("retracted", stage.stanza_id)], f"Expected the same message to be withdrawn, not {told}.")
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
    async with stage.another_client("laptop") as laptop:
        await stage.pause()
        ringing = await _rings(stage, what="a call while a laptop is online")
        stage.screen.line("laptop", "answers; the phone has not asked yet")
        await stage.pushed(laptop.answers(stage.alice.bare, ringing), "callend", what="answered elsewhere")
        _stops(stage, await stage.woken(), ringing, "answered", "laptop")


async def read_elsewhere(stage: Stage) -> None:
    async with stage.another_client("laptop") as laptop:
        await stage.pause()
        stage.written = stage.alice.says(stage.bob, stage.says("alice", FIRST))
        await stage.pushed(stage.written, "message", what="a message while a laptop is online")
        stage.shows((await stage.woken()).of(stage.alice.bare))
        await stage.pause()
        stage.screen.line("laptop", "shows the message to Bob, and says so (XEP-0333)")
        await stage.pushed(laptop.has_read(stage.alice.bare, stage.written), "read", what="read elsewhere")
        found = (await stage.woken()).of(stage.alice.bare)
        stage.shows(found)
        check(found.unread == 0, "Everything was read; nothing may be unread.")
        stage.screen.line("phone", "removes the notification")


async def nothing_unread(stage: Stage) -> None:
    async with stage.another_client("laptop") as laptop:
        answer = laptop.says(stage.alice.bare, stage.says("laptop", ANSWER))
        await laptop.waits()
    found = (await stage.looks(what="sent from a laptop")).of(stage.alice.bare)
    stage.shows(found)
    check((text_of(found), found.unread) == (ANSWER, 0), f"Expected nothing unread and “{ANSWER}”.")

    stage.screen.line("alice", f"reacts to that with {REACTION} (XEP-0444)")
    stage.alice.reacts(stage.bob, answer, REACTION)
    await stage.alice.waits()
    woken = await stage.looks(what="a reaction")
    stage.shows(woken.of(stage.alice.bare))
    _only_alice(stage, woken, text=ANSWER)
    told = [(change.kind, change.reactions) for _, change in woken.changes]
    check(told == [("reacted", (REACTION,))], f"Expected one reaction, not {told}.")
    stage.screen.line("phone", "shows the reaction; the conversation has no new message")

    _corrects_to(stage, SECOND, what=f"“{FIRST}”")
    once = stage.alice.corrects(stage.bob, stage.message_before(), SECOND)
    _corrects_to(stage, THIRD, what="the correction")
    stage.alice.corrects(stage.bob, once, THIRD)
    await stage.alice.waits()
    woken = await stage.looks(what="a chain of edits")
    stage.shows(woken.of(stage.alice.bare))
    _only_alice(stage, woken, text=ANSWER)
    edits = [change for _, change in woken.changes]
    check({change.kind for change in edits} == {"corrected"}, f"Expected edits, not {edits}.")
    check(len({change.id for change in edits}) == 1, "Both edits are of one message.")
    check(edits[-1].body == THIRD, f"Expected “{THIRD}” at the end, not “{edits[-1].body}”.")
    stage.screen.line("phone", f"replaces the text of one stored message: “{edits[-1].body}”")
    await stage.silence()
    stage.screen.line("APNs", "no push: nothing of this has to wake anybody")
    counted = await stage.handset.state()
    check(counted["strikes"] == counted["rung_twice"] == 0, f"iOS would object: {counted}.")
    rung = len(counted["calls"])
    stage.screen.line("phone", f"has rung for {rung} calls, once each, and never was woken for a call without ringing")


def _only_alice(stage: Stage, woken: Woken, *, text: str) -> None:
    """The delta is her conversation, as it was."""
    rows = [(row.jid, row.unread, text_of(row)) for row in woken.conversations]
    check(rows == [(stage.alice.bare, 0, text)], f"Expected only {stage.alice.bare}, nothing unread, not {rows}.")


def _corrects_to(stage: Stage, text: str, what: str = "it") -> None:
    stage.screen.line("alice", f"corrects {what} to “{text}”")
    stage.secrets.add(text)


def _count(stage: Stage, more: int) -> int:
    """How many messages of Alice's are unread now, so many more than before."""
    stage.unread[stage.alice.bare] = stage.unread.get(stage.alice.bare, 0) + more
    return stage.unread[stage.alice.bare]


async def _rings(stage: Stage, *, what: str) -> Sent:
    stage.screen.line("alice", "calls")
    ringing = stage.alice.calls(stage.bob)
    await stage.pushed(ringing, "call", what=what, by=VOIP)
    return ringing


async def _gives_up(stage: Stage, ringing: Sent, *, what: str) -> None:
    stage.screen.line("alice", "hangs up")
    await stage.pushed(stage.alice.hangs_up(stage.bob, ringing), "missed", what=what)
    _stops(stage, await stage.woken(), ringing, "missed")


def _first_is(stage: Stage, woken: Woken, ringing: Sent) -> None:
    """The call that rings stands before everything else."""
    call = woken.first_call
    check(
        call is not None and (call.jid, call.id) == (stage.alice.bare, ringing.id), "The call is not the first thing."
    )
    left = 0 if call is None else call.left
    stage.screen.line("phone", f"rings before anything else: {stage.alice.bare} is calling, {left} s left")


def _stops(stage: Stage, woken: Woken, ringing: Sent, state: str, by: str | None = None) -> None:
    """How the call ended comes before everything else, too."""
    told = [(call.id, call.state, call.by) for call in woken.ended]
    check(told == [(ringing.id, state, by)], f"Expected one call that ended, {state}, not {told}.")
    check(not woken.first_call, "The call still rings.")
    stage.screen.line("phone", f"stops: {state}" + (f" on the {by}" if by else ""))
