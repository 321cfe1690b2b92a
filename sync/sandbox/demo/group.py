"""A group of this server: its members are woken, told and kept in step, though they were never in the room.

What Bob writes to Carol before wakes nobody and is in the same answer: the room has to stand above it.
"""

from sync.sandbox.demo.people import Person, Sent
from sync.sandbox.demo.stage import Stage, taken_back, text_of
from sync.sandbox.demo.story import check

NAME, ELSEWHERE, QUESTION = "tea", "Back soon.", "Bob, tea?"


async def group(stage: Stage) -> None:
    room = f"{NAME}@{stage.ready['muc']}"
    async with stage.another_client("web") as web:
        await stage.alice.makes_room(room, "Alice", stage.bob)
        stage.screen.line("alice", f"makes {room}, for members only")
        stage.screen.line("alice", "makes Bob a member; his phone is locked")
        web.says(stage.carol.bare, stage.says("web", ELSEWHERE, " (Bob, to Carol)"))
        await web.waits()
        await stage.silence()
        said = await _is_mentioned(stage, room)
        await stage.silence()
        await _reads(stage, web, room, said)
    await stage.silence()
    await _takes_back(stage, room, said)


async def _is_mentioned(stage: Stage, room: str) -> Sent:
    said = stage.alice.mentions(room, stage.bob, stage.says("alice", QUESTION, " (mentions him by XEP-0372)"))
    await stage.pushed(said, "message", what="a mention in a group")
    woken = await stage.woken()
    found = woken.of(room)
    stage.shows(found)
    before = stage.unread.get(room, 0)
    check((text_of(found), found.unread) == (QUESTION, before + 1), f"Expected {before + 1} unread and “{QUESTION}”.")
    named = await stage.alice.name_of(said)
    check(
        bool(found.unread_mention) and (before > 0 or found.unread_mention == named),
        "The phone was not told of the mention.",
    )
    rows = [row.jid for row in woken.conversations]
    check(rows == [room, stage.carol.bare], f"Expected the room above Carol, not {rows}.")
    stage.screen.line("phone", f"has it in row 1 of {len(rows)}, above what Bob wrote to Carol")
    return said


async def _reads(stage: Stage, web: Person, room: str, said: Sent) -> None:
    await web.enters(room, "Bob")
    stage.screen.line("web", "enters the room, shows it to Bob, and says so (XEP-0490)")
    await stage.pushed(await web.has_read_in(room, said), "read", what="a group read elsewhere")
    found = (await stage.woken()).of(room)
    stage.shows(found)
    check((found.unread, found.unread_mention) == (0, None), "The room was read; nothing may be unread.")
    stage.screen.line("phone", "removes the notification")


async def _takes_back(stage: Stage, room: str, said: Sent) -> None:
    stage.screen.line("alice", "takes the message back")
    await stage.pushed(await stage.alice.retracts_in(room, said), "withdraw", what="a retraction in a group")
    found = (await stage.woken()).of(room)
    stage.shows(found)
    check(taken_back(found), "The last message was to be a tombstone without text.")
    check((found.unread, found.unread_mention) == (0, None), "What was taken back may not be unread.")
