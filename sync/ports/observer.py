"""The operator's role: is told what happened."""

from typing import Protocol


class Observer(Protocol):
    """Is told what happened, for the operator's eyes; decides nothing and never fails.

    Every string is one of a few fixed words, a configured name or a host: never a JID of a user, a token or an
    exception's text.
    """

    def events_committed(self, kind: str, count: int) -> None:
        """Events that took effect; `kind` of the feed: message, session, account, malformed."""
        ...

    def batch_committed(self, events: int, seconds: float) -> None:
        """One transaction of ingest, from its first statement to its commit."""
        ...

    def transaction_retried(self, why: str) -> None:
        """A transaction was rolled back and is tried again: deadlock, serialization, connection."""
        ...

    def quarantined(self, why: str) -> None:
        """An event was set aside."""
        ...

    def ignored(self, why: str, count: int = 1) -> None:
        """An event or stanza without meaning for state."""
        ...

    def epoch_raised(self, why: str) -> None:
        """Clients of a host or account have to start over: a side lost memory, or an event was set aside."""
        ...

    def rooms_pending(self, rooms: int) -> None:
        """Rooms with entries that not every member has."""
        ...

    def fanned_out(self, members: int, seconds: float) -> None:
        """Entries of one room went to that many members."""
        ...

    def feed_lag(self, host: str, events: int) -> None:
        """How far the newest event of the host is ahead of what is committed."""
        ...

    def ingest_waiting(self, events: int) -> None:
        """Events in memory that wait for their commit."""
        ...

    def query(self, dialect: str, outcome: str, seconds: float) -> None:
        """A client's IQ was answered: `outcome` is result, reset or the error's condition."""
        ...

    def notice(self, kind: str, outcome: str) -> None:
        """A live notice to connected clients: sent, refused, dropped, untaken."""
        ...

    def watchers(self, sessions: int) -> None:
        """How many sessions get live notices of our own dialect."""
        ...

    def push(
        self,
        *,
        route: str,
        app: str,
        environment: str,
        push_type: str,
        priority: int,
        kind: str,
        outcome: str,
        reason: str | None,
        seconds: float,
    ) -> None:
        """One request to a push service, or to an app server of somebody else (`route` publish, `app` none), and its
        end: `outcome` a Verdict, `reason` the vendor's word.
        """
        ...

    def suppressed(self, why: str, count: int = 1) -> None:
        """A push that was due and decided against: read, muted, online, over, late."""
        ...

    def coalesced(self, kind: str, count: int = 1) -> None:
        """A push that an earlier queued one already stands for."""
        ...

    def publish_received(self, outcome: str) -> None:
        """Another server published to a node of ours: what became of it, or the error's condition."""
        ...

    def queue_depth(self, lane: str, jobs: int, oldest_seconds: float) -> None:
        """Due jobs of a lane (calls, messages, updates), and the age of the oldest."""
        ...

    def token_removed(self, reason: str) -> None:
        """A device left: its token is dead by the vendor's word (`reason`), or taken-over, crowded-out, unregistered,
        logged-out."""
        ...

    def breaker(self, name: str, is_open: bool) -> None:
        """The pushes of a queue are stopped (open), or go on."""
        ...

    def dying(self, app: str, many: bool) -> None:
        """So many tokens of an app are called dead that its configuration is to blame, or that is over."""
        ...

    def push_service(self, connections: int, goaways: int) -> None:
        """How many connections to push services are open, and how often one of them was called off (GOAWAY) since the
        last time that this was told.
        """
        ...

    def provider_token(self, age_seconds: float) -> None:
        """How old the token is by which the push service knows us."""
        ...

    def call_to_push(self, seconds: float) -> None:
        """From the server's time of a propose to the vendor's acceptance of its push."""
        ...

    def wake_to_fetch(self, kind: str, seconds: float) -> None:
        """From a push to the query that proves its arrival: `call` or `wake`."""
        ...

    def connection(self, host: str, up: bool) -> None:
        """The feed of a host: subscribed or not."""
        ...

    def delegated(self, host: str, dialect: str, granted: bool) -> None:
        """A host has delegated a dialect's namespace to us, or has not."""
        ...

    def dependency(self, name: str, up: bool) -> None:
        """What we lean on answers or not: postgres, redis, server."""
        ...

    def lease(self, held: bool) -> None:
        """This process is the one that speaks for the component, or stands by."""
        ...

    def archives(self, state: str, count: int) -> None:
        """How many archives of accounts and rooms wait to be read, are done, or failed."""
        ...

    def archive_read(self, outcome: str) -> None:
        """An archive was read: done, or why not: no-account, a stanza error's condition, a class of error."""
        ...

    def restored(self, messages: int) -> None:
        """Messages that were not known, out of an archive."""
        ...

    def trimmed(self, table: str, rows: int) -> None:
        """Rows of a table that need not be held any longer were dropped."""
        ...

    def presence_unknown(self, why: str) -> None:
        """Presence could not be told: error, breaker, incomplete, malformed."""
        ...
