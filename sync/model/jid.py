"""JIDs as far as state needs them: bare form, domain, and the bucket an account belongs to for ever.

Servers hand over normalised JIDs (RFC 7622); this module compares and cuts them, it does not prepare them.
"""

from functools import lru_cache
from hashlib import sha256

BUCKETS = 256
LANES = 16  # a lane is 16 neighbouring buckets: the unit in which events are ordered and positions are kept

MAX_JID_BYTES = 3071  # RFC 7622 §3.1: three parts of at most 1,023 octets and two separators


def bare(jid: str) -> str:
    """`user@host` of a full or bare JID (RFC 6122 §2.1)."""
    return jid.partition("/")[0]


def resource(jid: str) -> str | None:
    """The resource of a full JID, None for a bare one."""
    return jid.partition("/")[2] or None


def domain(jid: str) -> str:
    """The domain part."""
    address = bare(jid)
    return address.partition("@")[2] or address


def bucket(account: str) -> int:
    """0–255: the first byte of SHA-256 of the bare JID (docs/feed.md §1)."""
    return sha256(account.encode()).digest()[0]


@lru_cache(maxsize=16384)  # asked several times for each event
def lane(account: str) -> int:
    """0–15: the lane of the account's bucket."""
    return bucket(account) * LANES // BUCKETS
