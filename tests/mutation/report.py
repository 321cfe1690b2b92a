"""What a mutation run found: each survivor with its place and its mutation, and a score for each file.

`make mutants` ends with it; alone (`python -m tests.mutation.report`) it tells the last run once more. A mutant counts
as killed when a test fails, when it runs into its time limit, or when mypy refuses it. One that cannot be told from the
original is no fault of the tests: `equivalent.toml` lists those by the lines before and after, in classes with reasons.
"""

import ast
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

from tests.mutation.verdicts import NOTICED, Verdict, Verdicts

ROOT = Path(__file__).parent.parent.parent
RUN = ROOT / "mutants"

Edit = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Survivor:
    """A mutant that no test noticed, as the lines that were and those that are."""

    file: str
    line: int
    edit: Edit
    tested: bool

    def __str__(self) -> str:
        was, now = self.edit
        never = "" if self.tested else "  (never run)"
        return f"{self.file}:{self.line}{never}\n    - {was}\n    + {now}"


@dataclass(frozen=True, slots=True)
class Mutated:
    """A file of mutants: what mutmut wrote, and the file that it came from."""

    path: Path

    kept: Verdicts

    @classmethod
    def load(cls, path: Path) -> "Mutated":
        """By the file in which its verdicts were kept."""
        return cls(path.relative_to(RUN).with_suffix(".py"), Verdicts.load(path))

    def survivor(self, name: str) -> Survivor:
        """What a mutant changed, and where."""
        copy = name.rpartition(".")[2]
        original = copy.rpartition("__mutmut_")[0] + "__mutmut_orig"
        was, now = self._body(original), self._body(copy)
        first, edit = difference(was, now)
        tested = self.kept.verdicts[name] is not Verdict.UNTESTED
        return Survivor(file=str(self.path), line=self._begins(copy) + first, edit=edit, tested=tested)

    def _body(self, copy: str) -> list[str]:
        start, end = self.kept.spans[copy]
        lines = (RUN / self.path).read_text().splitlines()[start - 1 : end]
        while lines and not lines[0].lstrip().startswith("def "):  # what stands above belongs to no copy
            lines.pop(0)
        lines[0] = re.sub(r"def \w+", "def _", lines[0])
        return lines

    def _begins(self, copy: str) -> int:
        """The line of the function that was copied."""
        inside, name = re.fullmatch(r"(?:xǁ(\w+)ǁ|x_)(\w+)__mutmut_\d+", copy).groups()  # type: ignore[union-attr]
        tree: ast.AST = ast.parse((ROOT / self.path).read_text())
        if inside:
            tree = next(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == inside)
        return next(node.lineno for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name)


def difference(was: list[str], now: list[str]) -> tuple[int, Edit]:
    """The first line that differs, and all that do, before and after."""
    blocks = [block for block in SequenceMatcher(None, was, now, autojunk=False).get_opcodes() if block[0] != "equal"]
    lines = [(was[a:b], now[c:d]) for _, a, b, c, d in blocks]
    joined = (" ".join(line.strip() for side in lines for line in side[n]) for n in (0, 1))
    before, after = joined
    return blocks[0][1] if blocks else 0, (before, after)


@dataclass(frozen=True, slots=True)
class Equivalents:
    """The mutants that cannot be told from the original: listed by file, or by what was there."""

    listed: dict[str, set[Edit]]
    patterns: list[re.Pattern[str]]

    @classmethod
    def load(cls) -> "Equivalents":
        found = cls({}, [])
        for group in tomllib.loads((Path(__file__).parent / "equivalent.toml").read_text()).get("class", []):
            if "was" in group:
                found.patterns.append(re.compile(group["was"]))
            for file, edits in group.get("edits", {}).items():
                found.listed.setdefault(f"sync/rules/{file}.py", set()).update((was, now) for was, now in edits)
        return found

    def have(self, survivor: Survivor) -> bool:
        """True for a survivor that is one of them."""
        named = self.listed.get(survivor.file, ())
        return survivor.edit in named or any(pattern.search(survivor.edit[0]) for pattern in self.patterns)


def report() -> int:
    """Print survivors and scores; fails when the run is not complete."""
    known = Equivalents.load()
    scores: dict[str, Counter[str]] = {}
    complete = True
    for path in sorted(RUN.glob("sync/rules/*.json")):
        mutated = Mutated.load(path)
        complete &= None not in mutated.kept.verdicts.values()
        scores[str(mutated.path)] = looked_at(mutated, known)
    for line in table(scores):
        print(line)
    if not complete or not scores:
        print("The run is not complete.")
    return 0 if complete and scores else 1


def looked_at(mutated: Mutated, known: Equivalents) -> Counter[str]:
    """The score of a file; its survivors are printed."""
    score: Counter[str] = Counter()
    used = set()
    for name, verdict in mutated.kept.verdicts.items():
        if verdict is None:
            continue
        if verdict in NOTICED:
            score["killed"] += 1
            continue
        survivor = mutated.survivor(name)
        if known.have(survivor):
            score["equivalent"] += 1
            used.add(survivor.edit)
        else:
            score["survived"] += 1
            print(survivor)
    if None not in mutated.kept.verdicts.values():
        for was, now in sorted(known.listed.get(str(mutated.path), set()) - used):
            print(f"{mutated.path}: listed as equivalent, but no mutant survives as\n    - {was}\n    + {now}")
    return score


def table(scores: dict[str, Counter[str]]) -> Iterator[str]:
    """A line for each file, and their sum."""
    yield f"\n{'':28}{'killed':>8}{'survived':>10}{'equivalent':>12}{'score':>9}"
    for name, score in [*scores.items(), ("all", sum(scores.values(), Counter()))]:
        told = score["killed"] + score["survived"]
        share = f"{100 * score['killed'] / told:.1f} %" if told else "-"
        yield f"{name:28}{score['killed']:8}{score['survived']:10}{score['equivalent']:12}{share:>9}"


if __name__ == "__main__":
    sys.exit(report())
