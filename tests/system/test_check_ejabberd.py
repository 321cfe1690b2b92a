"""The component's side beside a real ejabberd: what it grants and when, what `check` says of it, and TLS to its
component port.
"""

import json
from pathlib import Path

import pytest

from sync.protocol.names import CONVSYNC, SYNC
from sync.sandbox.ejabberd import CONFIGURATION
from tests.adapters.component_port import certified
from tests.system.ejabberd_server import ABROAD, Ejabberd
from tests.system.prosody_server import DOMAIN, ELSEWHERE, ROOMS, SECRET
from tests.system.station import Station
from tests.system.test_check import installed, paragraph

assert installed  # a fixture


def edited(server: Ejabberd, change: object) -> None:
    """The configuration as `change` leaves it."""
    file = server.folder / CONFIGURATION
    settings = json.loads(file.read_text())
    change(settings)  # type: ignore[operator]
    file.write_text(json.dumps(settings))


def station(folder: Path, server: Ejabberd, dsn: str, **options: object) -> Station:
    given: dict[str, object] = {"hosts": [DOMAIN], "muc_hosts": [ROOMS], **options}
    return Station(folder, dsn=dsn, port=server.component_port, secret=SECRET, **given)  # type: ignore[arg-type]


async def test_what_is_missing_is_named_with_the_line_that_mends_it(installed: str, tmp_path: Path) -> None:
    server = Ejabberd(tmp_path / "server")

    def without_one(settings: dict[str, dict[str, dict[str, dict[str, object]]]]) -> None:
        del settings["modules"]["mod_delegation"]["namespaces"][CONVSYNC]

    edited(server, without_one)
    await server.start()
    try:
        it = station(tmp_path, server, installed, hosts=[DOMAIN, ABROAD])
        status, visited = await it.command("check")
        async with it.serving():
            await it.until({f"feed:{ABROAD}"})
            await it.why(f"delegation:{DOMAIN}", CONVSYNC)
            assert await it.metric(f'convsync_delegation_held{{dialect="synchronization",host="{DOMAIN}"}}') == 1
            notes = (await it.ready())[1]["notes"]
            assert SYNC not in notes[f"delegation:{DOMAIN}"]
            again, told = await it.command("check")
    finally:
        server.stop()
    assert (status, again) == (1, 1), visited
    for output in (visited, told):
        assert paragraph(output, f"feed {DOMAIN}").startswith("ok    "), output
        assert paragraph(output, f"archive {DOMAIN}").startswith("ok    "), output
        assert paragraph(output, f"feed {ROOMS}").startswith("ok    "), output
        abroad = paragraph(output, f"feed {ABROAD}")
        assert abroad.startswith("fault ")
        assert 'ejabberd.yml, modules: mod_convsync_feed: components: ["sync.localhost"]' in abroad
        lacking = paragraph(output, f"delegation {DOMAIN}")
        assert f'ejabberd.yml, modules: mod_delegation: namespaces: "{CONVSYNC}": access: convsync' in lacking
        # ejabberd lists a service under the host that its name is below.
        uncovered = paragraph(output, f"rooms {DOMAIN}")
        assert uncovered.startswith(f"note  rooms {DOMAIN}: {ELSEWHERE} has rooms")
        assert 'ejabberd.yml, modules: mod_convsync_feed: components: ["sync.localhost"], rooms: true' in uncovered
        assert "prosody" not in output
    assert "component_stanza_size_limit" not in visited


@pytest.mark.parametrize("trusted", [True, False])
async def test_tls_to_the_component_port(installed: str, tmp_path: Path, trusted: bool) -> None:
    server = Ejabberd(tmp_path / "server")
    _, pem = certified(tmp_path, DOMAIN)

    def encrypted(settings: dict[str, object]) -> None:
        listeners: list[dict[str, object]] = settings["listen"]  # type: ignore[assignment]
        service = next(one for one in listeners if one["module"] == "ejabberd_service")
        # Of the listener's own: the global certfiles are not looked at for components (ejabberd 23.01).
        service |= {"tls": True, "certfile": str(pem)}

    edited(server, encrypted)
    await server.start()
    try:
        more = 'tls = true\ntls_name = "localhost"\n' + (f'tls_ca = "{pem}"\n' if trusted else "")
        it = station(tmp_path, server, installed, more=more)
        status, output = await it.command("check")
        if not trusted:
            assert status == 1
            assert "is not trusted: self" in paragraph(output, "component")
            assert "→ component.tls_ca" in paragraph(output, "component")
            return
        assert status == 0, output
        assert paragraph(output, f"feed {DOMAIN}").startswith("ok    "), output
        async with it.serving():
            await it.until(set())
        plain = station(tmp_path, server, installed)
        status, output = await plain.command("check")
        assert status == 1
        assert paragraph(output, "component").startswith("fault "), output
    finally:
        server.stop()
