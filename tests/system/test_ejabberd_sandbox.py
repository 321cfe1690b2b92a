"""The sandbox's ejabberd: what it listens on, how it ends, what is said when it is not there."""

import asyncio
from pathlib import Path

import pytest

from sync.sandbox import ejabberd
from sync.sandbox.launch import LaunchError
from tests.system.ejabberd_server import Ejabberd
from tests.system.surgery import sockets


def listening(pid: int) -> set[str]:
    """Where a process listens, of all addresses of IPv4 and IPv6: `address:port` in hexadecimal digits."""
    mine = set(sockets(pid).values())
    rows = [line.split() for file in ("tcp", "tcp6") for line in Path(f"/proc/net/{file}").read_text().splitlines()[1:]]
    return {row[1] for row in rows if row[3] == "0A" and row[9] in mine}


async def test_the_process_is_the_server_on_two_ports_and_ends_on_sigterm(tmp_path: Path) -> None:
    server = Ejabberd(tmp_path)
    await server.start()
    client = await server.client(f"{server.name()}/a", sm=True)
    feed = await server.feed()
    ports = server.c2s_port, server.component_port
    assert listening(server.pid) == {f"0100007F:{port:04X}" for port in ports}  # none for other Erlang nodes
    stopping = asyncio.get_running_loop().run_in_executor(None, server.stop)
    assert await stopping == 0  # with a client and a component that do not go by themselves
    await client.cut()
    await feed.cut()


@pytest.mark.parametrize("missing", ["erlang", "server", "driver"])
def test_a_missing_server_says_what_to_install(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    there = ejabberd._applications
    if missing == "erlang":
        monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    hidden = {"server": "ejabberd", "driver": "p1_sqlite3"}.get(missing, "")
    monkeypatch.setattr(
        ejabberd, "_applications", lambda root, place, *names: [] if hidden in names else there(root, place, *names)
    )
    with pytest.raises(LaunchError, match="apt-get install ejabberd erlang-p1-sqlite3"):
        ejabberd.find_ejabberd()


def test_a_module_that_does_not_compile_is_no_server(tmp_path: Path) -> None:
    source = tmp_path / "mod_convsync_feed"
    with pytest.raises(LaunchError, match="There is no ejabberd module"):
        ejabberd.compile_module(source, tmp_path / "beams", ejabberd.find_ejabberd())
    (source / "src").mkdir(parents=True)
    (source / "src" / "broken.erl").write_text("-module(broken).\n-export([f/0]).\n")
    with pytest.raises(LaunchError, match=r"does not compile:\n(.|\n)*f/0 undefined"):
        ejabberd.compile_module(source, tmp_path / "beams", ejabberd.find_ejabberd())
