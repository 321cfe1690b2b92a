"""The log's lines: their form, who is heard, what is never in them, and that every key is defined."""

import ast
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from sync.logs import ADDED, KEYS, REDACTED, configure, is_secret

SYNC = Path(__file__).parent.parent.parent / "sync"
METHODS = {"debug", "info", "warning", "error", "exception", "critical"}


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_an_object_with_utc_time() -> None:
    stream = io.StringIO()
    configure("info", "json", stream)
    structlog.get_logger("sync.x").info("subscribed", host="ex.org", n=7)
    (line,) = lines(stream)
    assert str(line.pop("timestamp")).endswith("Z")
    assert line == {"event": "subscribed", "host": "ex.org", "n": 7, "level": "info", "logger": "sync.x"}


def test_the_console_shows_the_same() -> None:
    stream = io.StringIO()
    configure("info", "console", stream)
    structlog.get_logger("sync.x").info("subscribed", host="ex.org", secret="hush")
    assert "subscribed" in stream.getvalue()
    assert "ex.org" in stream.getvalue()
    assert "hush" not in stream.getvalue()


def test_our_level_is_ours_and_libraries_are_heard_from_warnings_on() -> None:
    stream = io.StringIO()
    configure("debug", "json", stream)
    structlog.get_logger("sync.x").debug("seen")
    for library in ("slixmpp.xmlstream", "aioapns", "asyncio", "somebody.else"):
        logging.getLogger(library).info("RECV: <message/>")
        logging.getLogger(library).warning("careful")
    assert [line["event"] for line in lines(stream)] == ["seen", "careful", "careful", "careful", "careful"]


def test_a_quiet_log_quiets_libraries_too() -> None:
    stream = io.StringIO()
    configure("error", "json", stream)
    structlog.get_logger("sync.x").warning("no")
    logging.getLogger("slixmpp").warning("no")
    logging.getLogger("slixmpp").error("yes")
    assert [line["event"] for line in lines(stream)] == ["yes"]


@pytest.mark.parametrize(
    "key", ["token", "alert_token", "secret", "password", "authorization", "body", "stanza", "dsn"]
)
def test_secrets_are_blanked_at_any_depth(key: str) -> None:
    stream = io.StringIO()
    configure("info", "json", stream)
    structlog.get_logger("sync.x").info("seen", **{key: "hush", "inner": {"deep": {key: "hush"}}})
    (line,) = lines(stream)
    assert line[key] == REDACTED
    assert "hush" not in stream.getvalue()


def test_what_only_sounds_like_a_secret_is_shown() -> None:
    assert not is_secret("token_age_seconds")
    assert not is_secret("somebody")


def test_a_librarys_long_sentence_is_cut() -> None:
    stream = io.StringIO()
    configure("info", "json", stream)
    logging.getLogger("slixmpp").error("bad stanza %s", "x" * 5000)
    assert len(str(lines(stream)[0]["event"])) == 300


def test_a_traceback_names_no_values() -> None:
    stream = io.StringIO()
    configure("info", "json", stream)
    hushed = "hu" + "sh"
    try:
        raise KeyError(len(hushed))
    except KeyError:
        structlog.get_logger("sync.x").exception("failed")
    assert "KeyError" in str(lines(stream)[0]["exception"])
    assert "hush'" not in stream.getvalue()


# ---- every key is defined --------------------------------------------------------------------------------------------


def undefined(source: str) -> list[str]:
    """Faults of the calls of `log.<level>("…", …)`: keys that nobody defined, events that are no fixed words."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in METHODS):
            continue
        if not (isinstance(node.func.value, ast.Name) and node.func.value.id in ("log", "logger")):
            continue
        if not (node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str)):
            found.append(f"line {node.lineno}: the event is no fixed word")
        found += [f"line {node.lineno}: {key}" for key in keys(node) if key not in {*KEYS, "exc_info"}]
    return found


def keys(call: ast.Call) -> list[str]:
    """Those given as keywords, and those in `extra`."""
    found = []
    for keyword in call.keywords:
        if keyword.arg == "extra" and isinstance(keyword.value, ast.Dict):
            found += [str(getattr(key, "value", "**")) for key in keyword.value.keys]
        else:
            found.append(keyword.arg or "**")
    return found


def modules() -> list[Path]:
    return [path for path in sorted(SYNC.rglob("*.py")) if "sandbox" not in path.parts]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SYNC)))
def test_every_key_that_is_logged_is_defined(path: Path) -> None:
    assert undefined(path.read_text()) == []


def test_and_an_undefined_key_would_be_found() -> None:
    assert undefined('log.info("seen", jid=1)') == ["line 1: jid"]
    assert undefined('log.info("seen", extra={"host": 1, "jid": 1})') == ["line 1: jid"]
    assert undefined('log.info(f"seen {n}", n=1)') == ["line 1: the event is no fixed word"]
    assert undefined('logger.info("seen %s", n)') == []


def test_the_standard_librarys_loggers_give_the_same_lines() -> None:
    stream = io.StringIO()
    configure("info", "json", stream)
    logging.getLogger("sync.x").info("the feed is %s", "up", extra={"host": "ex.org", "token": "hush"})
    (line,) = lines(stream)
    assert (line["event"], line["host"], line["token"]) == ("the feed is up", "ex.org", REDACTED)


def test_no_defined_key_is_a_secret() -> None:
    assert not [key for key in (*KEYS, *ADDED) if is_secret(key)]
