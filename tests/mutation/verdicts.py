"""What is known of the mutants of a file: kept beside the file that has them, `mutants/sync/rules/NAME.json`."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

KEPT_EVERY = 20


class Verdict(StrEnum):
    """What became of a mutant. The last two were noticed by nobody."""

    TYPES = "types"
    FAILED = "failed"
    LATE = "late"
    SURVIVED = "survived"
    UNTESTED = "untested"


NOTICED = (Verdict.TYPES, Verdict.FAILED, Verdict.LATE)


@dataclass(slots=True)
class Verdicts:
    """The verdict of each mutant by its name, none before its trial; and on which lines each copy of a function is."""

    path: Path
    verdicts: dict[str, Verdict | None]
    spans: dict[str, tuple[int, int]]
    _unsaved: int = 0

    @classmethod
    def load(cls, path: Path) -> "Verdicts":
        """As they were kept."""
        kept = json.loads(path.read_text())
        verdicts = {name: verdict and Verdict(verdict) for name, verdict in kept["verdicts"].items()}
        return cls(path, verdicts, {name: (start, end) for name, (start, end) in kept["spans"].items()})

    def open(self) -> Iterator[str]:
        """The mutants that have none."""
        yield from [name for name, verdict in self.verdicts.items() if verdict is None]

    def note(self, name: str, verdict: Verdict) -> None:
        """Keep one; the file is written now and then, and at the last."""
        self.verdicts[name] = verdict
        self._unsaved += 1
        if self._unsaved >= KEPT_EVERY or None not in self.verdicts.values():
            self.save()

    def save(self) -> None:
        """Write the file."""
        self.path.write_text(json.dumps({"verdicts": self.verdicts, "spans": self.spans}, indent=1))
        self._unsaved = 0
