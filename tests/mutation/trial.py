"""A plugin of pytest that puts mutants to the tests that were collected, each in a process of its own.

It runs in the copy of the project that has the mutants (`__main__.py`). Once all tests run as they are, and what each
of them reaches is written down. Then a mutant meets only the tests that run its function, those first that run little
else, and ends at the first that fails. Nothing is left to chance: Hypothesis draws the same examples in each run.
"""

import gc
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol
from hypothesis import HealthCheck, Phase, settings
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.state import state

from tests.mutation.verdicts import Verdict, Verdicts

AT_ONCE = min(2, os.cpu_count() or 1)
SLOW_SECONDS = 0.2
# Of what the tests of a mutant take when nothing is changed; a loop without end costs at least ten seconds.
LIMIT, LEAST_SECONDS = 5, 10
MEMORY_BYTES = 4 * 1024**3
FAILED, BROKEN = 1, 3


def pytest_configure() -> None:
    """The same examples each time, and no search for a smaller one: that a test fails is enough."""
    everyday = settings.get_profile("everyday")
    phases, slow = (Phase.explicit, Phase.generate), list(HealthCheck)  # a busy machine is no fault of a test
    settings.register_profile(
        "mutants", everyday, derandomize=True, database=None, phases=phases, suppress_health_check=slow
    )
    settings.load_profile("mutants")


def pytest_runtestloop(session: pytest.Session) -> bool:
    """All mutants that have no verdict yet, instead of one run of all tests."""
    reach = Reach.of(session.items)
    gc.freeze()
    trials = Trials()
    for path in sorted(Path("sync/rules").glob("*.json")):
        kept = Verdicts.load(path)
        for name in kept.open():
            function = name.rpartition("__mutmut_")[0]
            tests = reach.tests(function)
            if not tests:
                kept.note(name, Verdict.UNTESTED)
            else:
                trials.begin(tests, reach.limit(tests), name, kept)
        print(f"{path.stem}: the last of {len(kept.verdicts)} mutants began, {time.strftime('%X')}", flush=True)
    trials.end()
    return True


class Reach:
    """Which functions each test runs, and how long it takes."""

    def __init__(self, items: list[pytest.Item], seconds: list[float], functions: list[list[str]]) -> None:
        self._seconds = dict(zip(items, seconds, strict=True))
        by_function: dict[str, list[pytest.Item]] = {}
        order = [(took > SLOW_SECONDS, len(names)) for took, names in zip(seconds, functions, strict=True)]
        for n in sorted(range(len(items)), key=order.__getitem__):
            for name in functions[n]:
                by_function.setdefault(name, []).append(items[n])
        self._by_function = by_function

    @classmethod
    def of(cls, items: list[pytest.Item]) -> "Reach":
        """Run all tests in a process of its own: this one is left as it is, with nothing cached and nothing set up."""
        path = Path("reach.json")
        if code := within(lambda: look(items, path)):
            sys.exit(f"A test fails where nothing is changed (exit code {code}): {path.read_text()}")
        seconds, functions = json.loads(path.read_text())
        return cls(items, seconds, functions)

    def tests(self, function: str) -> list[pytest.Item]:
        """The tests that run a function: the slow ones last, before them those that run little else first."""
        return self._by_function.get(function, [])

    def limit(self, tests: list[pytest.Item]) -> int:
        """How many seconds of a processor these tests may take."""
        return LEAST_SECONDS + round(LIMIT * sum(self._seconds[test] for test in tests))


class Trials:
    """The processes of mutants that are under way, at most `AT_ONCE`."""

    def __init__(self) -> None:
        self._running: dict[int, tuple[str, Verdicts]] = {}

    def begin(self, tests: list[pytest.Item], limit: int, name: str, kept: Verdicts) -> None:
        """Put a mutant to its tests, as soon as there is room."""
        while len(self._running) >= AT_ONCE:
            self._wait()
        self._running[begin(lambda: tried(name, tests), limit)] = name, kept

    def end(self) -> None:
        """Wait for all."""
        while self._running:
            self._wait()

    def _wait(self) -> None:
        pid, status = os.wait()
        name, kept = self._running.pop(pid)
        code = os.waitstatus_to_exitcode(status)
        late = code in (-signal.SIGXCPU, -signal.SIGKILL, -signal.SIGALRM)
        kept.note(name, Verdict.LATE if late else Verdict.FAILED if code else Verdict.SURVIVED)


def begin(what: Callable[[], int], limit: int) -> int:
    """Do something in a process of its own that ends with what it returns, or after so many seconds; its id."""
    sys.stdout.flush()
    if pid := os.fork():
        return pid
    code = BROKEN
    with suppress(BaseException):
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, sys.stdout.fileno())
        os.dup2(silence, sys.stderr.fileno())
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        signal.alarm(60 * limit)  # for what waits and takes no processor
        code = what()
    os._exit(code)


def within(what: Callable[[], int]) -> int:
    """What it returns in a process of its own."""
    _, status = os.waitpid(begin(what, 600), 0)
    return os.waitstatus_to_exitcode(status)


def tried(name: str, tests: list[pytest.Item]) -> int:
    """Fails as soon as one of the tests does."""
    set_mutant_under_test(name)
    return FAILED if any(not passed for passed in outcomes(tests)) else 0


def look(tests: list[pytest.Item], path: Path) -> int:
    """Run all tests, and write down how long each takes and what it reaches."""
    set_mutant_under_test("stats")
    seconds, functions = [], []
    begun = time.process_time()
    for test, passed in zip(tests, outcomes(tests), strict=True):
        path.write_text(test.nodeid)
        if not passed:
            return FAILED
        seconds.append(round(time.process_time() - begun, 4))
        functions.append(sorted(state()._stats))
        state()._stats.clear()
        begun = time.process_time()
    path.write_text(json.dumps([seconds, functions]))
    return 0


def outcomes(tests: list[pytest.Item]) -> Iterator[bool]:
    """Whether each of the tests passes."""
    for test, following in zip(tests, [*tests[1:], None], strict=True):
        yield not any(report.failed for report in runtestprotocol(test, log=False, nextitem=following))
