"""Time zones by their IANA names, from the system's database, or from the package `tzdata` where there is none."""

from datetime import tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError


def zone(name: str) -> tzinfo | None:
    """The zone; None where there is none of that name. What was read is kept."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None  # a name may also be that of a folder, or no name at all
