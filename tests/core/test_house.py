"""The house keeps its order: sizes, docstrings, purity, direction of imports. Each rule is shown to be able to fail."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
FILES = sorted((ROOT / "sync").rglob("*.py"))
PURE = [path for path in FILES if path.relative_to(ROOT / "sync").parts[0] in ("model", "rules", "protocol")]
PURE_OF_CLIENT = ("cache", "codec", "errors", "events", "storage", "values")
PURE += [ROOT / "sync" / "client" / f"{name}.py" for name in PURE_OF_CLIENT]

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_DOCSTRING_LINES = 16

# What a pure module may not do: ask for the time, throw dice, read, write, wait, log.
IMPURE_MODULES = {
    *("asyncio", "io", "logging", "os", "pathlib", "random", "secrets", "socket", "ssl", "structlog", "subprocess"),
    *("sys", "tempfile", "threading", "time", "uuid"),
}
IMPURE_CALLS = {
    *("open", "print", "input", "exec", "eval", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"),
    *("uuid.uuid1", "uuid.uuid4"),
}
PURE_NAMES = {"uuid": {"UUID", "uuid5", "uuid3"}}  # functions of their arguments, in modules that have others too


def named(node: ast.expr) -> str:
    """`datetime.now` of a call's function, as far as it is names and dots; the module's own name is left out."""
    if isinstance(node, ast.Attribute):
        return f"{named(node.value)}.{node.attr}".replace("datetime.date", "date")
    return node.id if isinstance(node, ast.Name) else ""


def impurities(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (f"import {one.name}" for one in node.names if one.name.partition(".")[0] in IMPURE_MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in IMPURE_MODULES:
            allowed = PURE_NAMES.get(node.module or "", set())
            yield from (f"from {node.module} import {one.name}" for one in node.names if one.name not in allowed)
        elif isinstance(node, ast.Call) and named(node.func) in IMPURE_CALLS:
            yield f"{named(node.func)}()"
        elif isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.Global):
            yield type(node).__name__


def untidy(source: str) -> Iterator[str]:
    """A file or function that is too long, a module without a docstring or with a long one."""
    tree = ast.parse(source)
    if (lines := len(source.splitlines())) > MAX_FILE_LINES:
        yield f"{lines} lines"
    docstring = ast.get_docstring(tree)
    if source.strip() and not docstring:
        yield "no docstring"
    if docstring and len(docstring.splitlines()) > MAX_DOCSTRING_LINES:
        yield f"a docstring of {len(docstring.splitlines())} lines"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            length = node.end_lineno - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                yield f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_tidy(path: Path) -> None:
    assert list(untidy(path.read_text())) == []


@pytest.mark.parametrize("path", PURE, ids=lambda path: str(path.relative_to(ROOT)))
def test_values_rules_and_protocol_are_pure(path: Path) -> None:
    assert list(impurities(path.read_text())) == []


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ('"""D."""\n' + "x = 1\n" * 400, "401 lines"),
        ("x = 1\n", "no docstring"),
        ('"""' + "long\n" * 17 + '"""\n', "a docstring of 17 lines"),
        ('"""D."""\ndef f():\n' + "    x = 1\n" * 60, "f has 61 lines"),
        ('"""D."""\nasync def f():\n' + "    x = 1\n" * 60, "f has 61 lines"),
    ],
)
def test_and_an_untidy_one_would_be_found(source: str, fault: str) -> None:
    assert list(untidy(source)) == [fault]


@pytest.mark.parametrize(
    "source",
    [
        "datetime.now(UTC)",
        "datetime.datetime.now()",
        "date.today()",
        "open('x')",
        "print(1)",
        "import time",
        "import asyncio.tasks",
        "from time import monotonic",
        "from random import random",
        "from uuid import uuid4",
        "import logging",
        "async def f(): pass",
    ],
)
def test_and_an_impure_one_would_be_found(source: str) -> None:
    assert list(impurities(source))


@pytest.mark.parametrize("source", ["from uuid import UUID, uuid5", "from datetime import datetime", "x.now", "f(now)"])
def test_and_a_pure_one_is_left_alone(source: str) -> None:
    assert list(impurities(source)) == []


# ---- imports: the contracts are in pyproject.toml --------------------------------------------------------------------


def linted(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts on the `sync` of a folder."""
    program = "import sys; from importlinter.cli import lint_imports_command; lint_imports_command(['--no-cache'])"
    return subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "sync", tmp_path / "sync", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_imports_point_inwards() -> None:
    result = linted(ROOT)
    assert result.returncode == 0, result.stdout


def test_and_imports_that_do_not_would_be_found(copy: Path) -> None:
    """One offence against each contract, in one run: a run takes seconds."""
    for file, offence in {
        "model/jid.py": "import sync.rules.decide",
        "service/ingest.py": "import asyncpg",
        "adapters/metrics.py": "import sync.adapters.sealing",
        "adapters/http.py": "import sync.config",
        "rules/decide.py": "import time",
        "client/stanza.py": "import aiohttp",
    }.items():
        path = copy / "sync" / file
        path.write_text(path.read_text() + f"\n{offence}\n")
    result = linted(copy)
    assert result.returncode == 1
    assert "Contracts: 0 kept, 6 broken." in result.stdout
