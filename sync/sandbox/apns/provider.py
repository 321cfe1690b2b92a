"""Whether a provider token is good: signature, kid, iss, age, and how often a team changes it.

Knows one team and one key. It remembers tokens only as long as the process lives: a restarted simulator takes the
first token that it sees, as a new APNs server would.
"""

from collections.abc import Callable
from typing import Any

import jwt

from sync.sandbox.apns.rules import Refusal

LIFETIME_SECONDS = 3600  # Apple: "APNs rejects any token whose timestamp is more than one hour old"
UPDATE_SECONDS = 1200  # Apple: "Update your tokens no more than once every 20 minutes"
AHEAD_SECONDS = 60  # a sender's clock may be that much ahead of ours

_MISSING = Refusal(status=403, reason="MissingProviderToken")
_INVALID = Refusal(status=403, reason="InvalidProviderToken")
_EXPIRED = Refusal(status=403, reason="ExpiredProviderToken")
_TOO_MANY = Refusal(status=429, reason="TooManyProviderTokenUpdates")


class ProviderDesk:
    """Checks the `authorization` header of every request. `now` gives epoch seconds; `public_key` is PEM; between two
    tokens of the team must be `update_seconds`.
    """

    def __init__(
        self,
        *,
        public_key: bytes,
        team_id: str,
        key_id: str,
        now: Callable[[], float],
        update_seconds: int = UPDATE_SECONDS,
    ) -> None:
        self._update_seconds = update_seconds
        self._public_key, self._team_id, self._key_id, self._now = public_key, team_id, key_id, now
        self._issued_at: dict[str, int] = {}  # tokens whose signature, kid and iss were found good
        self._taken: dict[str, int] = {}  # those among them that the team has come to use

    @property
    def tokens_seen(self) -> int:
        """How many different tokens the team has used since start or reset."""
        return len(self._taken)

    def forget(self) -> None:
        """As after a restart."""
        self._issued_at.clear()
        self._taken.clear()

    def refusal(self, authorization: str | None) -> Refusal | None:
        """Why this `authorization` value is not accepted, or None."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return _MISSING
        issued_at = self._issued_at.get(token)
        if issued_at is None:
            issued_at = self._verified(token)
            if issued_at is None:
                return _INVALID
            self._issued_at[token] = issued_at
        if self._now() - issued_at > LIFETIME_SECONDS:
            return _EXPIRED
        if token in self._taken:
            return None
        # The limit is on changes: a token that was used before may come again from any worker and after any restart.
        if any(abs(issued_at - other) < self._update_seconds for other in self._taken.values()):
            return _TOO_MANY
        self._taken[token] = issued_at
        return None

    def _verified(self, token: str) -> int | None:
        try:
            header = jwt.get_unverified_header(token)
            claims: dict[str, Any] = jwt.decode(
                token, self._public_key, algorithms=["ES256"], options={"verify_iat": False, "verify_exp": False}
            )
        except jwt.PyJWTError:
            return None
        if header.get("kid") != self._key_id or claims.get("iss") != self._team_id:
            return None
        try:
            # A client that is in use (kalyke-apns) writes the number as text, and APNs takes it.
            issued_at = int(claims["iat"])
        except (KeyError, TypeError, ValueError):
            return None
        return issued_at if issued_at <= self._now() + AHEAD_SECONDS else None
