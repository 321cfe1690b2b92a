"""Changes the rules in one place at a time, and asks types and tests whether they notice: `make mutants`.

The changes are mutmut's: it writes a copy of each function for each of them into a copy of the project, `mutants/`.
mypy reads all of them at once; those that it does not refuse meet the tests of the rules (`trial.py`). Names of files
of `sync/rules` can be given; without any it is all of them. docs/testing.md has the scores.
"""

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from multiprocessing import Pool
from pathlib import Path

from mutmut.mutation.file_mutation import mutate_file_contents

from tests.mutation.report import ROOT, RUN, report
from tests.mutation.trial import AT_ONCE
from tests.mutation.verdicts import Verdict, Verdicts

RULES = Path("sync/rules")
COPIED = ("sync", "tests", "docs", "deploy", "schema.sql", "pyproject.toml")
TYPES = ("mypy", "--strict", "--no-warn-unused-ignores", "--output=json")
# An attribute of a class has its type in each copy of `__init__`: no fault of theirs.
TWICE = "no-redef"
# Plain assertions: nobody reads what they say, and to say it takes longer than the test.
TESTS = (
    "pytest",
    "-p",
    "tests.mutation.trial",
    "-p",
    "no:cacheprovider",
    "-n0",
    "-s",
    "-q",
    "--tb=native",
    "--assert=plain",
)


def main(names: list[str]) -> int:
    """Make the mutants, try them, and print what became of them; fails when that is not complete."""
    rules = {path.stem: path.relative_to(ROOT) for path in sorted((ROOT / RULES).glob("*.py"))}
    if unknown := sorted(set(names) - set(rules)):
        sys.exit(f"There is no such file in {RULES}: {', '.join(unknown)}.")
    chosen = [rules[name] for name in names or rules]
    copy()
    with Pool(AT_ONCE) as pool:
        made = [path for path, any_of_it in pool.imap(mutate, chosen) if any_of_it]
    refuse(made)
    tests = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests/core").glob("test_rules_*.py"))
    inside([*TESTS, *tests], check=True)
    return report()


def copy() -> None:
    """The project as it is, without what others made in it."""
    shutil.rmtree(RUN, ignore_errors=True)
    for name in COPIED:
        source = ROOT / name
        ignored = shutil.ignore_patterns("__pycache__", "node_modules")
        make = partial(shutil.copytree, ignore=ignored) if source.is_dir() else shutil.copy
        RUN.mkdir(exist_ok=True)
        make(source, RUN / name)


def mutate(path: Path) -> tuple[Path, bool]:
    """Write all mutants of a file in its place; False where there is nothing to change."""
    mutated = mutate_file_contents(str(path), (ROOT / path).read_text())
    if not mutated.mutant_names:
        return path, False
    (RUN / path).write_text(mutated.code)
    module = ".".join(path.with_suffix("").parts)
    spans = {name: (span.start, span.end) for name, span in mutated.line_span_by_function_name.items()}
    verdicts = {f"{module}.{name}": None for name in mutated.mutant_names}
    Verdicts((RUN / path).with_suffix(".json"), dict(verdicts), spans).save()
    return path, True


def refuse(paths: list[Path]) -> None:
    """What mypy finds wrong needs no test: more than half of all mutants."""
    found = inside([*TYPES, *map(str, paths)], stdout=subprocess.PIPE).stdout
    faults = [fault for fault in map(json.loads, found.splitlines()) if fault["severity"] == "error"]
    faults = [fault for fault in faults if fault["code"] != TWICE]
    for path in paths:
        kept = Verdicts.load((RUN / path).with_suffix(".json"))
        module = ".".join(path.with_suffix("").parts)
        copies = {n: name for name, (start, end) in kept.spans.items() for n in range(start, end + 1)}
        for fault in faults:
            if Path(fault["file"]) == path:
                name = f"{module}.{copies.get(fault['line'], '')}"
                if name not in kept.verdicts:
                    sys.exit(f"mypy refuses what is no mutant: {path}:{fault['line']}: {fault['message']}")
                kept.verdicts[name] = Verdict.TYPES
        kept.save()


def inside(command: list[str], *, check: bool = False, stdout: int | None = None) -> "subprocess.CompletedProcess[str]":
    """Run a module in the copy of the project, on its own code."""
    whole = [sys.executable, "-m", *command]
    environment = {**os.environ, "PYTHONPATH": str(RUN), "MUTANT_UNDER_TEST": ""}
    return subprocess.run(whole, cwd=RUN, env=environment, text=True, check=check, stdout=stdout)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
