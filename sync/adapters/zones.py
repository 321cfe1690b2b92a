"""Time zones by their IANA names, from the system's database, or from the package `tzdata` where there is none."""

from datetime import tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

# In the folder of the zones, too: what this machine is set to, and that it is set to nothing.
_OF_A_MACHINE = frozenset({"Factory", "localtime", "posixrules"})


@lru_cache(maxsize=1024)  # all there are; `zoneinfo` itself keeps eight, and reading one is a matter of the disk
def zone(name: str) -> tzinfo | None:
    """The zone; None where there is none of that name. What was read is kept."""
    if name in _OF_A_MACHINE:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None  # a name may also be that of a folder, or no name at all
