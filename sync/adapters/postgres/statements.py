"""The named statements of this folder's *.sql files, and delete statements that are the same for every table.

A file holds the statements of one topic; a name is used once in all of them. What is not a list of statements (the
schema, which lies beside them in an installed package) has no heads and gives none.
"""

import re
from functools import cache, partial
from importlib.resources import files
from typing import Final

STATE_TABLES: Final = (
    "conversation",
    "message",
    "change",
    "call",
    "device",
    "device_token",
    "push_job",
    "room_member",
    "bootstrap",
    "watcher",
    "quarantine",  # the events themselves: texts of the account's messages
)

_PARAMETER = re.compile(r"\$(\d+)")
_HEAD = re.compile(r"^-- name: (\w+)\n-- (.+)\n", re.MULTILINE)


@cache
def statements() -> dict[str, str]:
    """name → SQL."""
    found = {name: text for _, name, text in written()}
    found |= {f"delete_{table}s_of": f"DELETE FROM {table} WHERE account = ANY ($1::text[])" for table in STATE_TABLES}  # noqa: S608 - names of ours
    found["delete_accounts"] = "DELETE FROM account WHERE jid = ANY ($1::text[])"
    return found


def written() -> list[tuple[str, str, str]]:
    """(file, name, SQL) of every statement in the files."""
    found: list[tuple[str, str, str]] = []
    for file in sorted(files(__package__).iterdir(), key=lambda item: item.name):
        if file.name.endswith(".sql"):
            text = file.read_text(encoding="utf-8")
            heads = list(_HEAD.finditer(text))
            ends = [head.start() for head in heads[1:]] + [len(text)]
            for head, end in zip(heads, ends, strict=True):
                found.append((file.name, head.group(1), text[head.end() : end].strip().rstrip(";")))
    return found


def sql(name: str) -> str:
    """The statement of that name."""
    return statements()[name]


@cache
def together(names: tuple[str, ...]) -> str:
    """Statements that write to different tables as one, their parameters numbered on: a round trip for all of them.

    They all see what was there before the first of them; none of them reads what another writes.
    """
    if len(names) == 1:
        return sql(names[0])
    parts: list[str] = []
    shift = 0
    for name in names:
        text = sql(name)
        numbers = {int(number) for number in _PARAMETER.findall(text)}
        parts.append(f"{name}_done AS ({_PARAMETER.sub(partial(_shifted, shift), text)})")
        shift += max(numbers)
    return f"WITH {', '.join(parts)} SELECT 1"


def _shifted(shift: int, parameter: re.Match[str]) -> str:
    return f"${int(parameter.group(1)) + shift}"
