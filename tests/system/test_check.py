"""`convsync check` on the server's side of a real Prosody: what is missing is named with the line that mends it,
whether it asks the running service or looks by itself; `convsync restored`; and a module that speaks another version.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from sync.adapters.postgres.migrate import VERSION
from tests.system.prosody_server import COMPONENT, DOMAIN, ELSEWHERE, ROOMS, SECRET, Prosody
from tests.system.station import Station

HOSTS = (DOMAIN, "bare.localhost", "shut.localhost", "poor.localhost", "closed.localhost", "absent.localhost")
CONVSYNC = "urn:convsync:0"
LACKING = f"""
VirtualHost "bare.localhost"
  modules_enabled = {{ "delegation" }}
  delegations = {{}}
VirtualHost "shut.localhost"
  modules_enabled = {{ "convsync_feed" }}
  convsync_feed_components = {{ "another.localhost" }}
VirtualHost "poor.localhost"
  modules_enabled = {{ "convsync_feed"; "delegation"; "mam" }}
  convsync_feed_components = {{ "{COMPONENT}" }}
  delegations = {{ ["{CONVSYNC}"] = {{ jid = "{COMPONENT}" }} }}
VirtualHost "closed.localhost"
  modules_enabled = {{ "convsync_feed" }}
  convsync_feed_components = {{ "{COMPONENT}" }}
  convsync_feed_archive = false
"""


@asynccontextmanager
async def prosody_with(folder: Path, *changes: tuple[str, str], more: str = "") -> AsyncIterator[Prosody]:
    """A server whose configuration is changed before it starts."""
    server = Prosody(folder)
    file = folder / "prosody.cfg.lua"
    text = file.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    file.write_text(text + more)
    await server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def lacking(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Prosody]:
    async with prosody_with(tmp_path_factory.mktemp("lacking"), more=LACKING) as server:
        yield server


@pytest_asyncio.fixture(loop_scope="session")
async def installed(database: str) -> str:
    """A database as `convsync schema` leaves it."""
    connection = await asyncpg.connect(database)
    await connection.execute("INSERT INTO schema_version VALUES ($1) ON CONFLICT DO NOTHING", VERSION)
    await connection.close()
    return database


def station(folder: Path, server: Prosody, dsn: str, **options: object) -> Station:
    given: dict[str, object] = {"hosts": HOSTS, "muc_hosts": [ROOMS], **options}
    return Station(folder, dsn=dsn, port=server.component_port, secret=SECRET, **given)  # type: ignore[arg-type]


def paragraph(output: str, subject: str) -> str:
    """A finding with its further lines."""
    lines = output.splitlines()
    found = [i for i, line in enumerate(lines) if line[6:].startswith(f"{subject}: ")]
    assert found, (subject, output)
    start = found[0]
    end = next((i for i in range(start + 1, len(lines)) if not lines[i].startswith(" ")), len(lines))
    return "\n".join(lines[start:end])


def expect_all(status: int, output: str) -> None:
    assert status == 1, output
    assert paragraph(output, "feed localhost").startswith("ok    "), output
    assert paragraph(output, "archive localhost").startswith("ok    "), output
    assert paragraph(output, f"feed {ROOMS}").startswith("ok    "), output
    uncovered = paragraph(output, "rooms localhost")
    assert uncovered.startswith(f"note  rooms localhost: {ELSEWHERE} has rooms and is not covered")
    assert "→ component.muc_hosts" in uncovered
    assert f'prosody.cfg.lua, Component "{ELSEWHERE}" "muc": modules_enabled = {{ …; "convsync_feed" }}' in uncovered
    bare = paragraph(output, "feed bare.localhost")
    assert bare.startswith("fault ")
    assert 'prosody.cfg.lua, VirtualHost "bare.localhost": modules_enabled = { …; "convsync_feed" }' in bare
    shut = paragraph(output, "feed shut.localhost")
    assert shut.startswith("fault feed shut.localhost: the feed module does not let this component in")
    assert f'VirtualHost "shut.localhost": convsync_feed_components = {{ "{COMPONENT}" }}' in shut
    assert paragraph(output, "feed absent.localhost").startswith("fault ")
    assert "the server does not know this host" in paragraph(output, "feed absent.localhost")
    assert "→ component.hosts" in paragraph(output, "feed absent.localhost")
    poor = paragraph(output, "delegation poor.localhost")
    assert poor.startswith("fault ")
    assert f'["urn:xmpp:push:0"] = {{ jid = "{COMPONENT}" }}' in poor
    assert CONVSYNC + '"]' not in poor
    closed = paragraph(output, "archive closed.localhost")
    assert closed.startswith("note  ")
    assert 'VirtualHost "closed.localhost": convsync_feed_archive = true' in closed
    assert "delegation localhost" not in output
    assert "ejabberd" not in output


async def test_a_visit_names_everything_that_is_missing_and_the_line_that_mends_it(
    lacking: Prosody, installed: str, tmp_path: Path
) -> None:
    it = station(tmp_path, lacking, installed)
    status, output = await it.command("check")
    expect_all(status, output)
    assert "component_stanza_size_limit" not in output
    assert await it.sql("SELECT * FROM lease WHERE expires_at > now()") == []
    assert await it.sql("SELECT * FROM feed_stream") == []


async def test_beside_a_running_service_the_same_is_said_and_it_stays_connected(
    lacking: Prosody, installed: str, tmp_path: Path
) -> None:
    it = station(tmp_path, lacking, installed)
    async with it.serving():
        await it.until({f"feed:{host}" for host in ("bare.localhost", "shut.localhost", "absent.localhost")})
        await it.why("feed:shut.localhost", "does not let this component in")
        await it.why("feed:bare.localhost", "is it loaded")
        await it.why("feed:absent.localhost", "does not know")
        await it.why("delegation:poor.localhost", "urn:xmpp:push:0")
        notes = (await it.ready())[1]["notes"]
        assert "delegation:localhost" not in notes
        assert CONVSYNC not in notes["delegation:poor.localhost"]
        assert await it.metric('convsync_delegation_held{dialect="push",host="poor.localhost"}') == 0
        assert await it.metric('convsync_delegation_held{dialect="convsync",host="poor.localhost"}') == 1
        status, output = await it.command("check")
        expect_all(status, output)
        assert "component: sync.localhost is connected by" in output
        assert "the connection to the server is lost" not in it.said()
    lost = [line for line in it.said().splitlines() if "does not delegate everything" in line]
    assert len([line for line in lost if "poor.localhost" in line]) == 1


async def test_a_server_that_takes_no_long_lists_is_noted(installed: str, tmp_path: Path) -> None:
    limit = ("component_stanza_size_limit = 16777216\n", "")
    async with prosody_with(tmp_path / "server", limit) as server:
        status, output = await station(tmp_path, server, installed, hosts=[DOMAIN]).command("check")
    assert status == 0, output
    assert "prosody.cfg.lua, global section: component_stanza_size_limit = 16 * 1024 * 1024" in output


async def test_rooms_among_the_users_hosts_are_named(lacking: Prosody, installed: str, tmp_path: Path) -> None:
    it = station(tmp_path, lacking, installed, hosts=[DOMAIN, ROOMS], muc_hosts=[])
    async with it.serving():
        await it.until({f"feed:{ROOMS}"})
        await it.why(f"feed:{ROOMS}", "this is a host of rooms: it belongs in muc_hosts")
        status, output = await it.command("check")
        assert status == 1
        assert "it belongs in muc_hosts" in paragraph(output, f"feed {ROOMS}")


# ---- versions --------------------------------------------------------------------------------------------------------


async def test_a_module_of_another_version_is_told_apart_and_named(installed: str, tmp_path: Path) -> None:
    """The module as it would be one version on: it knows versions 2 and 3 only."""
    source = Path(__file__).parents[2] / "deploy" / "prosody" / "mod_convsync_feed"
    later = tmp_path / "plugins" / "mod_convsync_feed"
    later.mkdir(parents=True)
    for file in source.iterdir():
        text = file.read_text()
        if file.name == "subscription.lib.lua":
            assert 'version == "1"' in text
            text = text.replace('version == "1"', 'version == "2"').replace('versions = "1"', 'versions = "2 3"')
        (later / file.name).write_text(text)
    async with prosody_with(tmp_path / "server", (str(source.parent), str(later.parent))) as server:
        it = station(tmp_path, server, installed, hosts=[DOMAIN], muc_hosts=[])
        async with it.serving():
            await it.until({f"feed:{DOMAIN}"})
            words = "the module speaks version 2 3 of the feed, this program version 1: update Convsync"
            await it.why(f"feed:{DOMAIN}", words)
            _, output = await it.command("check")
            assert f"fault feed {DOMAIN}: {words}" in output


# ---- restored --------------------------------------------------------------------------------------------------------


async def test_after_a_restore_clients_of_the_named_hosts_start_over(installed: str, tmp_path: Path) -> None:
    it = Station(tmp_path, dsn=installed, port=1, secret="x", hosts=[DOMAIN, "second.localhost"], muc_hosts=[ROOMS])
    connection = await asyncpg.connect(installed)
    for jid in ("ann@localhost", "bob@localhost", "cid@second.localhost"):
        await connection.execute("INSERT INTO account (jid, version, floor) VALUES ($1, 5, 5)", jid)
    await connection.close()
    assert (await it.command("restored"))[0] == 1  # nobody to ask
    assert (await it.command("restored", "--yes", "--host", "nobody.localhost"))[0] == 2
    assert {row["epoch"] for row in await it.sql("SELECT epoch FROM account")} == {1}
    status, output = await it.command("restored", "--yes", "--host", DOMAIN)
    assert status == 0, output
    assert "localhost: 2 accounts start over." in output
    found = {row["jid"]: row["epoch"] for row in await it.sql("SELECT jid, epoch FROM account")}
    assert found == {"ann@localhost": 2, "bob@localhost": 2, "cid@second.localhost": 1}
    status, output = await it.command("restored", "--yes")
    assert "second.localhost: 1 account starts over." in output
    wanted = {row["account"] for row in await it.sql("SELECT account FROM bootstrap")}
    assert {DOMAIN, "second.localhost", ROOMS} <= wanted
