"""Rows ⇄ values of how far archives were read."""

from sync.adapters.postgres.rows import Row
from sync.model.bootstrap import Bootstrap, BootstrapState


def bootstrap(row: Row) -> Bootstrap:
    """A row of bootstrap."""
    return Bootstrap(
        account=row["account"],
        since=row["since"],
        due_at=row["due_at"],
        state=BootstrapState(row["state"]),
        start=row["start"],
        after=row["after"],
        rank=row["rank"],
        seen=row["seen"],
        restored=row["restored"],
        turn=row["turn"],
        attempts=row["attempts"],
        why=row["why"],
    )


def bootstrap_row(value: Bootstrap) -> tuple[object, ...]:
    """In the order of move_bootstraps."""
    return (
        value.account,
        value.turn,
        value.state,
        value.start,
        value.after,
        value.rank,
        value.seen,
        value.restored,
        value.attempts,
        value.due_at,
        value.why,
    )
