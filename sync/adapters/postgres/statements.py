"""The named statements of queries.sql, and of delete statements that are the same for every table."""

import re
from functools import cache
from importlib.resources import files
from typing import Final

STATE_TABLES: Final = ("conversation", "message", "change", "call", "device", "device_token", "push_job")

_HEAD = re.compile(r"^-- name: (\w+)\n-- (.+)\n", re.MULTILINE)


@cache
def statements() -> dict[str, str]:
    """name → SQL."""
    text = files(__package__).joinpath("queries.sql").read_text(encoding="utf-8")
    heads = list(_HEAD.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    found = {head.group(1): text[head.end() : end].strip().rstrip(";") for head, end in zip(heads, ends, strict=True)}
    found |= {f"delete_{table}s_of": f"DELETE FROM {table} WHERE account = ANY ($1::text[])" for table in STATE_TABLES}  # noqa: S608 - names of ours
    found["delete_accounts"] = "DELETE FROM account WHERE jid = ANY ($1::text[])"
    return found


def sql(name: str) -> str:
    """The statement of that name."""
    return statements()[name]
