"""The configuration: what is accepted, and that every fault is named with its place and its remedy."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from cryptography.fernet import Fernet
from pydantic import BaseModel, ValidationError

from sync.config import Config, ConfigError, load

SAMPLE = Path(__file__).parent.parent.parent / "deploy" / "convsync.toml"
KEY = Fernet.generate_key().decode()
SMALLEST = f"""
[component]
jid = "sync.localhost"
secret = "hush-hush"
hosts = ["localhost"]
[postgres]
dsn = "postgresql://someone:pass-word@127.0.0.1/convsync"
[secrets]
keys = ["{KEY}"]
"""
APNS = """
[apns]
team_id = "TEAMTEAM01"
key_id = "KEYKEYKEY1"
key_file = "{key}"
[[apns.apps]]
name = "chat"
bundle_id = "org.example.chat"
environment = "sandbox"
filtering = true
"""


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("CONVSYNC_")]:
        monkeypatch.delenv(name)


def written(folder: Path, text: str) -> Path:
    path = folder / "convsync.toml"
    path.write_text(text)
    path.chmod(0o600)
    return path


def faults(folder: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(written(folder, text))
    return caught.value.faults


def test_the_smallest_configuration_has_the_documented_defaults(tmp_path: Path) -> None:
    config = load(written(tmp_path, SMALLEST))
    assert config.redis is None
    assert config.apns is None
    assert (config.ingest.workers, config.ingest.batch, config.postgres.pool) == (2, 512, 10)
    assert config.push.repeat_seconds == (60, 600)
    assert (config.push.app_servers, config.push.publish_max_errors) == (("*",), 16)
    assert config.component.password == "hush-hush"
    assert config.secrets.ring == (KEY,)
    assert config.warnings(tmp_path / "convsync.toml") == ()


def test_nothing_changes_after_loading(tmp_path: Path) -> None:
    config = load(written(tmp_path, SMALLEST))
    with pytest.raises(ValidationError):
        config.http.port = 1


def test_all_faults_are_told_at_once_with_file_and_place(tmp_path: Path) -> None:
    text = SMALLEST.replace("dsn =", "dns =") + "[ingest]\nworkers = 17\n[http]\nport = 0\n"
    found = faults(tmp_path, text)
    assert 'postgres.dns: unknown key; did you mean "dsn"?' in found
    assert "postgres.dsn: is missing" in found
    assert any(line.startswith("ingest.workers: ") and "16" in line for line in found)
    assert any(line.startswith("http.port: ") for line in found)
    with pytest.raises(ConfigError, match=re.escape(f"{tmp_path}/convsync.toml: postgres.dns")):
        load(written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (SMALLEST + "[inject]\n", 'inject: unknown key; did you mean "ingest"?'),
        (SMALLEST + "[zzzz]\n", "zzzz: unknown key"),
        (SMALLEST.replace('"sync.localhost"', '"a@b"'), "component.jid: 'a@b' is not a component's JID"),
        (SMALLEST.replace('["localhost"]', "[]"), "component.hosts: "),
        (SMALLEST.replace('["localhost"]', '["a b"]'), "component.hosts.1: 'a b' is not a host name"),
        (SMALLEST.replace('["localhost"]', '["a.org", "A.org"]'), "component: hosts names a host twice"),
        (SMALLEST.replace('secret = "hush-hush"', ""), "component: give secret or secret_file"),
        (SMALLEST.replace("postgresql:", "mysql:"), "postgres.dsn: wanted is a URL: postgresql://"),
        (SMALLEST.replace(KEY, "short"), "secrets.keys.1: this is not a Fernet key"),
        (SMALLEST + '[push]\napp_servers = ["a@b"]\n', "push.app_servers.1: 'a@b' is not a host name"),
        (SMALLEST + "[push]\npublish_max_errors = 0\n", "push.publish_max_errors: "),
        (SMALLEST + '[redis]\nurl = "http://x"\n', "redis.url: wanted is a URL: redis://"),
        (SMALLEST + '[log]\nformat = "xml"\n', "log.format: Input should be 'json' or 'console'"),
        (SMALLEST + APNS.format(key="/nowhere/key.p8"), "apns.key_file: there is no file /nowhere/key.p8"),
        (SMALLEST + APNS.format(key="key.p8"), "apns.key_file: key.p8 is a relative path"),
        (SMALLEST + '[other_servers]\nserved = ["*", "a b"]\n', "other_servers.served.2: 'a b' is not a host name"),
        (SMALLEST + '[other_servers]\npublishers = ["*"]\n', "other_servers.publishers.1: '*' is not a host name"),
        (SMALLEST + '[other_servers]\ntoken_apps = ["chat"]\n', "the file: other_servers.token_apps names an app"),
        ("[component", "is not valid TOML: "),
    ],
)
def test_a_fault_is_named(tmp_path: Path, text: str, fault: str) -> None:
    assert any(line.startswith(fault) for line in faults(tmp_path, text)), faults(tmp_path, text)


def test_a_typo_in_an_app_names_the_app_and_the_key(tmp_path: Path) -> None:
    key = tmp_path / "key.p8"
    key.touch()
    text = SMALLEST + APNS.format(key=key) + "time_sensitiv = true\n"
    assert faults(tmp_path, text) == ('apns.apps.1.time_sensitiv: unknown key; did you mean "time_sensitive"?',)


def test_secrets_are_in_no_fault_and_no_repr(tmp_path: Path) -> None:
    text = SMALLEST.replace("postgresql:", "pass-word:").replace(KEY, "key-key-key") + "[http]\nport = 0\n"
    for secret in ("hush-hush", "pass-word", "key-key-key"):
        assert not any(secret in line for line in faults(tmp_path, text))
        assert secret not in repr(load(written(tmp_path, SMALLEST)))


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVSYNC_POSTGRES__POOL", "20")
    monkeypatch.setenv("CONVSYNC_COMPONENT__HOSTS", '["a.org", "b.org"]')
    monkeypatch.setenv("CONVSYNC_REDIS__URL", "redis://127.0.0.1")
    config = load(written(tmp_path, SMALLEST))
    assert (config.postgres.pool, config.component.hosts) == (20, ("a.org", "b.org"))
    assert config.redis is not None
    assert "pass-word" in config.postgres.dsn.get_secret_value()


@pytest.mark.parametrize(
    ("variable", "value", "fault"),
    [
        ("CONVSYNC_POSTGRES__POOL", "no", "postgres.pool: Input should be a valid integer"),
        ("CONVSYNC_POSTGRES__POOOL", "2", 'postgres.poool: unknown key; did you mean "pool"?'),
        ("CONVSYNC_POSTGRESS__POOL", "2", "environment variable CONVSYNC_POSTGRESS__POOL: unknown section"),
        ("CONVSYNC_LOG", "{", "log: the environment variable for it must be JSON"),
    ],
)
def test_a_faulty_variable_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, fault: str
) -> None:
    monkeypatch.setenv(variable, value)
    (line,) = faults(tmp_path, SMALLEST)
    assert line.startswith(fault)
    assert variable in line or "postgres" in line or "log" in line


def test_secrets_may_live_in_files_of_their_own(tmp_path: Path) -> None:
    secret, keys, newer = tmp_path / "secret", tmp_path / "keys", Fernet.generate_key().decode()
    secret.write_text("from-a-file\n")
    keys.write_text(f"# newest first\n{newer}\n\n{KEY}\n")
    text = SMALLEST.replace('secret = "hush-hush"', f'secret_file = "{secret}"')
    config = load(written(tmp_path, text.replace(f'keys = ["{KEY}"]', f'keys_file = "{keys}"')))
    assert config.component.password == "from-a-file"
    assert config.secrets.ring == (newer, KEY)


def test_a_secret_that_everybody_can_read_is_warned_of(tmp_path: Path) -> None:
    path = written(tmp_path, SMALLEST)
    path.chmod(0o644)
    (warning,) = load(path).warnings(path)
    assert "every user of this machine can read" in warning


def test_a_missing_file_is_one_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: cannot be read: No such file"):
        load(tmp_path / "nowhere.toml")


@pytest.mark.parametrize(
    ("server", "address"),
    [
        ("", ("api.sandbox.push.apple.com", 443)),
        ('server = "https://127.0.0.1:40002"\n', ("127.0.0.1", 40002)),
        ('server = "[::1]:2197"\n', ("::1", 2197)),
    ],
)
def test_where_an_app_is_pushed_to(tmp_path: Path, server: str, address: tuple[str, int]) -> None:
    key = tmp_path / "key.p8"
    key.touch()
    config = load(written(tmp_path, SMALLEST + APNS.format(key=key) + server))
    assert config.apns is not None
    assert config.apns.apps[0].address == address


def test_tls_to_the_component_port(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    ca = f'tls_ca = "{tmp_path}/ca.pem"\ntls_name = "xmpp.example.org"\n'
    component = load(written(tmp_path, SMALLEST.replace("[postgres]", f"tls = true\n{ca}[postgres]"))).component
    assert (component.tls, component.tls_ca, component.tls_name) == (True, tmp_path / "ca.pem", "xmpp.example.org")
    (fault,) = faults(tmp_path, SMALLEST.replace("[postgres]", f"{ca}[postgres]"))
    assert "tls_ca and tls_name need tls = true" in fault


# ---- the sample configuration ----------------------------------------------------------------------------------------


def usable_sample(folder: Path) -> str:
    """The sample with the files that it names present in `folder`."""
    files = {"component-secret": "s", "keys": KEY, "AuthKey_F6G7H8J9K0.p8": "p8", "test-ca.pem": "pem"}
    for name, content in files.items():
        (folder / name).write_text(content)
    return SAMPLE.read_text().replace("/etc/convsync/", f"{folder}/")


def test_the_sample_loads(tmp_path: Path) -> None:
    assert load(written(tmp_path, usable_sample(tmp_path))).component.jid == "sync.example.org"


def test_what_the_sample_shows_as_defaults_are_the_defaults(tmp_path: Path) -> None:
    text = usable_sample(tmp_path)
    examples = "secret|keys|server|direct_dsn|ca_file|tls_ca|tls_name|proxy|certificate_\\w+"
    shown = re.sub(r"(?m)^# (\w+ = )", r"\1", re.sub(rf"(?m)^# ({examples}) = .*\n", "", text))
    assert load(written(tmp_path, shown)) == load(written(tmp_path, text))


def models(model: type[BaseModel], section: str = "") -> Iterator[tuple[str, str]]:
    """(section, key) of every value that can be set."""
    for name, field in model.model_fields.items():
        inner = [field.annotation, *get_args(field.annotation)]
        nested = next((one for one in inner if isinstance(one, type) and issubclass(one, BaseModel)), None)
        if nested is None:
            yield section, name
        else:
            yield from models(nested, f"{section}.{name}".lstrip("."))


def shown(text: str) -> set[tuple[str, str]]:
    """(section, key) of every line of a sample, commented out or not."""
    section, found = "", set()
    for line in text.splitlines():
        if header := re.match(r"\[+([\w.]+)\]+$", line):
            section = header[1]
        elif key := re.match(r"(?:# )?(\w+) = ", line):
            found.add((section, key[1]))
    return found


def test_the_sample_explains_every_key_and_no_other() -> None:
    assert shown(SAMPLE.read_text()) == set(models(Config))


def test_and_would_notice_a_key_left_out() -> None:
    assert shown(SAMPLE.read_text().replace("# freshness_seconds", "# ")) != set(models(Config))
