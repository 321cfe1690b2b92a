"""When an account wants to be left alone ⇄ one jsonb value that has only what was asked for; NULL for most accounts."""

import json
from datetime import datetime, time
from typing import Any

from sync.model.quiet import Hours, Quiet


def quiet(text: str | None) -> Quiet | None:
    """The column `quiet`."""
    if text is None:
        return None
    found = json.loads(text)
    hours = found.get("hours")
    return Quiet(
        until=datetime.fromisoformat(found["until"]) if "until" in found else None,
        hours=None if hours is None else Hours(time.fromisoformat(hours[0]), time.fromisoformat(hours[1]), hours[2]),
        calls="calls" in found,
    )


def quiet_text(value: Quiet | None) -> str | None:
    """The column `quiet`."""
    if value is None:
        return None
    held: dict[str, Any] = {}
    if value.until is not None:
        held["until"] = value.until.isoformat()
    if value.hours is not None:
        held["hours"] = [f"{value.hours.begin:%H:%M}", f"{value.hours.end:%H:%M}", value.hours.zone]
    if value.calls:
        held["calls"] = True
    return json.dumps(held)
