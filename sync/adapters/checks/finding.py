"""What a check found: one line, and the configuration's field that mends it."""

from dataclasses import dataclass
from enum import StrEnum

LIMIT_SECONDS = 5.0  # for each step that waits for somebody


class Level(StrEnum):
    """How bad it is; only a fault fails the check."""

    OK = "ok"
    NOTE = "note"
    FAULT = "fault"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`subject` was looked at, `detail` is what was seen, without secrets. `field` (section.key) of our configuration
    mends it, or a `line` of the server's: where it is not known which server that is, one for each.
    """

    subject: str
    level: Level
    detail: str
    field: str | None = None
    line: tuple[str, ...] = ()

    def __str__(self) -> str:
        mend = f"  → {self.field}" if self.field else ""
        return "\n        ".join((f"{self.level:<5} {self.subject}: {self.detail}{mend}", *self.line))


def ok(subject: str, detail: str) -> Finding:
    return Finding(subject=subject, level=Level.OK, detail=detail)


def note(subject: str, detail: str, field: str | None = None, line: tuple[str, ...] = ()) -> Finding:
    return Finding(subject=subject, level=Level.NOTE, detail=detail, field=field, line=line)


def fault(subject: str, detail: str, field: str | None = None, line: tuple[str, ...] = ()) -> Finding:
    return Finding(subject=subject, level=Level.FAULT, detail=detail, field=field, line=line)
