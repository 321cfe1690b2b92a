"""What was found on the server's side: for each host whether the feed module answers, what is delegated, which rooms
nobody covers. What of it is a fault, and which line mends it, is for whoever shows it.
"""

from dataclasses import dataclass

UNKNOWN = "unknown"  # of an archive: there was nobody to ask it for
OLD = "old"  # the module is too old to be asked


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSurvey:
    """One configured host. `server`: its software's name, as far as it says. `module`: empty where the feed module
    answers, else the condition. `why`: why the running service has not subscribed; empty where it has, or none runs.
    `archive`: empty where it may be read, else the condition, `UNKNOWN` or `OLD`. `missing`: namespaces that are not
    delegated. `uncovered`: hosts of rooms of that server that are not configured.
    """

    host: str
    rooms: bool
    server: str = ""
    module: str = ""
    module_version: str = ""
    why: str = ""
    archive: str = UNKNOWN
    missing: tuple[str, ...] = ()
    uncovered: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """All of them. `large`: whether the server takes a stanza of a megabyte from us; None where that was not tried."""

    component: str
    hosts: tuple[HostSurvey, ...]
    large: bool | None = None
