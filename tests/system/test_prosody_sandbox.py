"""The sandbox's Prosody, and the sample configuration of deploy/prosody."""

import asyncio
from pathlib import Path

import pytest

from sync.sandbox.launch import LaunchError
from sync.sandbox.prosody import DELEGATED, find_prosody
from tests.system.prosody_server import DOMAIN, ROOMS, ROOT, SECRET, Prosody
from tests.system.room_client import enter
from tests.system.xmpp_component import NS

# Whoever waited for others to close their connections would wait for an hour.
UNHURRIED = "".join(f"{name}_close_timeout = 3600\n" for name in ("c2s", "component", "s2s"))


async def test_the_process_is_the_server_and_ends_at_once_on_sigterm(tmp_path: Path) -> None:
    prosody = Prosody(tmp_path)
    config = tmp_path / "prosody.cfg.lua"
    config.write_text(UNHURRIED + config.read_text())
    await prosody.start()
    client = await prosody.client(f"{prosody.name()}/a", sm=True)
    feed = await prosody.feed()
    # With a client and a component that do not go by themselves.
    assert await asyncio.to_thread(prosody.stop) == 0
    await client.cut()
    await feed.cut()


@pytest.mark.parametrize("missing", ["server", "modules"])
def test_a_missing_server_says_what_to_install(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    if missing == "server":
        monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    else:
        monkeypatch.setattr("shutil.which", lambda *_, **__: "/usr/bin/prosody")
        monkeypatch.setattr("sync.sandbox.prosody._PLACES", ())
    with pytest.raises(LaunchError, match="apt-get install prosody prosody-modules"):
        find_prosody()


async def test_the_sample_configuration_delegates(tmp_path: Path) -> None:
    prosody = Prosody(tmp_path)
    config = tmp_path / "prosody.cfg.lua"
    sandbox = "".join(  # an option that is set twice keeps Prosody 0.12 from starting
        line
        for line in config.read_text().partition("VirtualHost")[0].splitlines(keepends=True)
        if not line.startswith(("plugin_paths", "component_ports", "component_stanza_size_limit", "gc ="))
    )
    sample = (ROOT / "deploy" / "prosody" / "convsync.cfg.lua").read_text()
    for mine, theirs in (
        ("example.org", DOMAIN),
        ("5347", str(prosody.component_port)),
        ("replace this", SECRET),
        ("/etc/prosody/convsync", str(ROOT / "deploy" / "prosody")),
    ):
        sample = sample.replace(mine, theirs)
    config.write_text(sandbox + 'modules_enabled = { "roster"; "saslauth"; "disco"; "ping" }\n' + sample)
    try:
        await prosody.start()
        feed = await prosody.component()
        advertised = await feed.wait_for(lambda e: e.find("{urn:xmpp:delegation:2}delegation") is not None, past=True)
        namespaces = {d.get("namespace") for d in advertised.iter("{urn:xmpp:delegation:2}delegated")}
        assert namespaces == set(DELEGATED)
        await feed.subscribe()
        client = await prosody.client(f"{prosody.name()}/a")
        client.chat(prosody.name(), "works")
        await feed.message("works")
        await feed.iq("set", f"<subscribe xmlns='{NS}' versions='1' buckets='0-255'/>", to=ROOMS)
        await enter(client, f"tea@{ROOMS}", "Ann")
        await feed.event(lambda e: e.kind == "room-members")
        assert "error" not in prosody.log()
    finally:
        prosody.kill()
