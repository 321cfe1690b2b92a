"""When somebody's rows are looked through for what need not be held any longer."""

from datetime import datetime, timedelta
from hashlib import sha256

from sync.rules.times import EPOCH


def next_turn(jid: str, now: datetime, every: timedelta) -> datetime:
    """The first instant after `now` that is the turn of this account or room. All of its turns are `every` apart, and
    whose turns are when follows from the JID: so they spread, though all came at once.
    """
    phase = every * (int.from_bytes(sha256(jid.encode()).digest()[:6], "big") / 2**48)
    return now + every - (now - EPOCH - phase) % every
