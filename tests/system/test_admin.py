"""What an operator does with one account beside a running sandbox: `convsync show`, `repair`, `export`, `delete`, on
what real clients have made; and what its clients see afterwards.
"""

import asyncio
import json
import sys

from tests.system.box import Box
from tests.system.person import CORRECT

SECRET = "nobody reads this on an operator's screen"


async def convsync(box: Box, *arguments: str) -> str:
    """What a command writes, as the operator runs it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sync", *arguments, "--config", str(box.data / "convsync.toml")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, complained = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, complained) == (0, b""), complained
    return said.decode()


async def test_an_account_is_shown_repaired_exported_and_deleted_while_all_runs(box: Box) -> None:
    ann, bob = await box.friends("phone", "desk")
    phone = await box.phone(ann)
    first = bob.write(ann.account, SECRET)
    bob.write(ann.account, "corrected", f"<replace xmlns='{CORRECT}' id='{first}'/>")
    bob.write(ann.account, "second")
    bob.call("propose", ann.account, "c1")
    await bob.ping()
    assert [(item.unread, item.body) for item in (await ann.sync()).items] == [(2, "second")]

    shown = await convsync(box, "show", ann.account)
    assert "unread 2 in 1 conversations, mentions 0, devices 1" in shown
    assert bob.account in shown
    assert "c1" in shown
    assert "Positions" in shown or "position" in shown
    for hidden in (SECRET, "second", *phone.tokens):
        assert hidden not in shown

    assert await convsync(box, "repair", ann.account) == f"{ann.account}: nothing differs.\n"
    stamp = (await ann.sync()).stamp
    await box.sql("UPDATE conversation SET unread = 9 WHERE account = $1 AND peer = $2", ann.account, bob.account)
    await box.sql("UPDATE account SET unread = 9 WHERE jid = $1", ann.account)
    assert "unread 9 → 2" in await convsync(box, "repair", ann.account)
    assert [(item.jid, item.unread) for item in (await ann.sync(stamp)).items] == [(bob.account, 2)]
    await box.sound(ann.account, bob.account)

    exported = await convsync(box, "export", ann.account)
    held = json.loads(exported)
    assert held["account"]["jid"] == ann.account
    sections = ("conversations", "messages", "calls", "devices")
    assert [len(held[name]) for name in sections] == [1, 3, 1, 1]
    assert len(held["changes"]) in (1, 2)  # on a busy machine nobody may have taken the call by now
    assert not any(token in exported for token in phone.tokens)

    assert f"{ann.account} was deleted" in await convsync(box, "delete", ann.account, "--yes")
    for table in ("conversation", "message", "change", "call", "device", "push_job"):
        assert await box.sql(f"SELECT 1 FROM {table} WHERE account = $1", ann.account) == [], table  # noqa: S608
    # Who comes again begins anew, and the others have what they had.
    bob.write(ann.account, "third")
    await bob.ping()
    assert "third" in [item.body for item in (await ann.sync()).items]
    assert (await bob.sync()).jids == [ann.account]
    await box.sound(ann.account, bob.account)
