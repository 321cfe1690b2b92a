"""What `convsync check` looks at, one file for each thing outside that can be wrong.

The exception to "a driver has one home": a check speaks to the outside itself, in the plainest way, so that it names
the fault even where the adapter proper could not be built. Checks change nothing and disturb nobody.
"""

from sync.adapters.checks.apns import apns
from sync.adapters.checks.component import component
from sync.adapters.checks.finding import Finding, Level, fault, note
from sync.adapters.checks.postgres import DATABASE_ERRORS, lease_holders, postgres, why
from sync.adapters.checks.redis import redis
from sync.adapters.checks.server import server

__all__ = [
    "DATABASE_ERRORS",
    "Finding",
    "Level",
    "apns",
    "component",
    "fault",
    "lease_holders",
    "note",
    "postgres",
    "redis",
    "server",
    "why",
]
