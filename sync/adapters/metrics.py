"""Every metric: its name, unit, labels and meaning, and the observer that feeds it (prometheus-client).

Decides names and buckets. Labels have few values by construction: words of ours, configured names, hosts; whatever
comes from outside (a vendor's reason) passes `_Words`, which bounds how many there can be. Refuses to know accounts,
tokens and texts: none of them is ever a label.
"""

import re
from importlib.metadata import version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

# A second series for each counter says nothing that a restart does not.
disable_created_metrics()  # type: ignore[no-untyped-call]

_COMMIT_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_QUERY_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_PUSH_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_CALL_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 8)  # 5 and 20 ms are the targets
_FETCH_SECONDS = (0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 300, 3600)  # a phone wakes for 20 to 30 s
_FAN_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_BATCH_EVENTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)
_WORDS = 64  # distinct values of one label, then "other"
_WORD = re.compile(r"[A-Za-z0-9_.:/-]{1,80}")


class _Words:
    """Bounds a label's values: their form, and how many there are."""

    def __init__(self) -> None:
        self._seen: dict[str, set[str]] = {}

    def __call__(self, label: str, value: str | None) -> str:
        if not value:
            return "none"
        seen = self._seen.setdefault(label, set())
        if value in seen:
            return value
        if len(seen) >= _WORDS or not _WORD.fullmatch(value):
            return "other"
        seen.add(value)
        return value


class Metrics:
    """The `Observer` of a process that serves. Each has a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._word = _Words()
        self._make_ingest()
        self._make_archives()
        self._make_answers()
        self._make_pushes()
        self._make_calls()
        self._make_health()

    def exposition(self) -> bytes:
        """All of it, in the text format of `CONTENT_TYPE`."""
        return generate_latest(self.registry)

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"convsync_{name}", meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(f"convsync_{name}", meaning, labels, registry=self.registry)

    def _histogram(self, name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"convsync_{name}", meaning, labels, buckets=buckets, registry=self.registry)

    def _make_ingest(self) -> None:
        self._events = self._counter("events_committed_total", "Feed events that took effect.", "kind")
        self._batch_events = self._histogram("batch_events", "Events in one commit.", _BATCH_EVENTS)
        self._batch_seconds = self._histogram("batch_commit_seconds", "Duration of a commit.", _COMMIT_SECONDS)
        self._retries = self._counter("transaction_retries_total", "Transactions that were tried again.", "why")
        self._quarantined = self._counter("quarantined_events_total", "Events set aside; look into them.", "why")
        self._ignored = self._counter("ignored_events_total", "Events without meaning for state.", "why")
        self._epochs = self._counter("epoch_raises_total", "Times that clients had to start over.", "why")
        self._lag = self._gauge("feed_lag_events", "Events of a host that are not committed yet.", "host")
        self._waiting = self._gauge("ingest_waiting_events", "Events in memory that wait for their commit.")
        self._rooms = self._gauge("pending_rooms", "Rooms with entries that not every member has.")
        self._fanned = self._counter("room_deliveries_total", "Members that took entries of a room.")
        self._fan_seconds = self._histogram(
            "room_fan_out_seconds", "Time of a room's pass to all members.", _FAN_SECONDS
        )

    def _make_archives(self) -> None:
        self._archives = self._gauge("archives", "Archives of accounts and rooms, by how far they were read.", "state")
        self._archives_read = self._counter("archives_read_total", "Archives that were read, by their end.", "outcome")
        self._restored = self._counter("messages_restored_total", "Messages that archives had and we had not.")

    def _make_answers(self) -> None:
        self._queries = self._counter("queries_total", "Clients' requests, by what was answered.", "dialect", "outcome")
        self._query_seconds = self._histogram("query_seconds", "Time to an answer.", _QUERY_SECONDS, "dialect")
        self._notices = self._counter("notices_total", "Live notices to connected clients.", "kind", "outcome")
        self._watchers = self._gauge("live_sessions", "Sessions that get live notices of our own dialect.")

    def _make_pushes(self) -> None:
        which = ("route", "app", "environment", "type", "priority", "kind", "outcome", "reason")
        self._pushes = self._counter("pushes_total", "Requests to push services, by their end.", *which)
        self._push_seconds = self._histogram(
            "push_request_seconds", "Time to the push service's answer.", _PUSH_SECONDS, "route", "app", "type"
        )
        self._suppressed = self._counter("pushes_suppressed_total", "Due pushes decided against.", "why")
        self._coalesced = self._counter("pushes_coalesced_total", "Pushes that a queued one stands for.", "kind")
        self._received = self._counter("publishes_received_total", "Other servers' publishes.", "outcome")
        self._depth = self._gauge("push_queue_jobs", "Due push jobs.", "lane")
        self._oldest = self._gauge("push_queue_oldest_seconds", "Age of the oldest due push job.", "lane")
        self._removed = self._counter(
            "tokens_removed_total", "Devices that left: dead by the vendor's word, or why else.", "reason"
        )
        self._breaker = self._gauge("breaker_open", "1 while the pushes of a queue are stopped.", "name")
        self._push_lines = self._gauge("apns_connections_open", "Connections to Apple that are open.")
        self._goaways = self._counter("apns_goaways_total", "Connections that Apple called off (GOAWAY).")
        self._token_age = self._gauge("apns_token_age_seconds", "Age of the provider token; an hour is too much.")
        self._dying = self._gauge("token_removal_held", "1 while too many tokens are called dead.", "app")

    def _make_calls(self) -> None:
        self._call = self._histogram("call_to_push_seconds", "From a propose to its accepted push.", _CALL_SECONDS)
        self._fetch = self._histogram(
            "push_to_fetch_seconds", "From a push to the query that proves it arrived.", _FETCH_SECONDS, "kind"
        )

    def _make_health(self) -> None:
        self._connected = self._gauge("feed_connected", "1 while the feed of a host is subscribed.", "host")
        self._delegated = self._gauge("delegation_held", "1 while a host delegates a dialect to us.", "host", "dialect")
        self._dependency = self._gauge("dependency_up", "1 while what we lean on answers.", "name")
        self._lease = self._gauge("lease_held", "1 in the process that speaks for the component.")
        self._trimmed = self._counter("rows_trimmed_total", "Rows that need not be held any longer.", "table")
        self._unknown = self._counter("presence_unknown_total", "Times that presence could not be told.", "why")
        Info("convsync_build", "The running version.", registry=self.registry).info({"version": version("convsync")})

    # ---- the observer ------------------------------------------------------------------------------------------------

    def events_committed(self, kind: str, count: int) -> None:
        self._events.labels(kind).inc(count)

    def batch_committed(self, events: int, seconds: float) -> None:
        self._batch_events.observe(events)
        self._batch_seconds.observe(seconds)

    def transaction_retried(self, why: str) -> None:
        self._retries.labels(self._word("retry", why)).inc()

    def quarantined(self, why: str) -> None:
        self._quarantined.labels(self._word("quarantine", why)).inc()

    def ignored(self, why: str, count: int = 1) -> None:
        self._ignored.labels(self._word("ignored", why)).inc(count)

    def epoch_raised(self, why: str) -> None:
        self._epochs.labels(self._word("epoch", why)).inc()

    def feed_lag(self, host: str, events: int) -> None:
        self._lag.labels(host).set(events)

    def ingest_waiting(self, events: int) -> None:
        self._waiting.set(events)

    def rooms_pending(self, rooms: int) -> None:
        self._rooms.set(rooms)

    def fanned_out(self, members: int, seconds: float) -> None:
        self._fanned.inc(members)
        self._fan_seconds.observe(seconds)

    def archives(self, state: str, count: int) -> None:
        self._archives.labels(state).set(count)

    def archive_read(self, outcome: str) -> None:
        self._archives_read.labels(self._word("archive", outcome)).inc()

    def restored(self, messages: int) -> None:
        self._restored.inc(messages)

    def query(self, dialect: str, outcome: str, seconds: float) -> None:
        self._queries.labels(dialect, self._word("outcome", outcome)).inc()
        self._query_seconds.labels(dialect).observe(seconds)

    def notice(self, kind: str, outcome: str) -> None:
        self._notices.labels(kind, outcome).inc()

    def watchers(self, sessions: int) -> None:
        self._watchers.set(sessions)

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
        reason = self._word("reason", reason)
        self._pushes.labels(route, app, environment, push_type, str(priority), kind, outcome, reason).inc()
        self._push_seconds.labels(route, app, push_type).observe(seconds)

    def suppressed(self, why: str, count: int = 1) -> None:
        self._suppressed.labels(self._word("suppressed", why)).inc(count)

    def coalesced(self, kind: str, count: int = 1) -> None:
        self._coalesced.labels(kind).inc(count)

    def publish_received(self, outcome: str) -> None:
        self._received.labels(self._word("outcome", outcome)).inc()

    def queue_depth(self, lane: str, jobs: int, oldest_seconds: float) -> None:
        self._depth.labels(lane).set(jobs)
        self._oldest.labels(lane).set(oldest_seconds)

    def token_removed(self, reason: str) -> None:
        self._removed.labels(self._word("reason", reason)).inc()

    def breaker(self, name: str, is_open: bool) -> None:
        # Users choose whom to be told by: their choices must not use up the words for our apps.
        kind = "queue-abroad" if name.startswith("publish:") else "queue"
        self._breaker.labels(self._word(kind, name)).set(is_open)

    def dying(self, app: str, many: bool) -> None:
        self._dying.labels(self._word("dying", app)).set(many)

    def push_service(self, connections: int, goaways: int) -> None:
        self._push_lines.set(connections)
        self._goaways.inc(goaways)

    def provider_token(self, age_seconds: float) -> None:
        self._token_age.set(age_seconds)

    def call_to_push(self, seconds: float) -> None:
        self._call.observe(seconds)

    def wake_to_fetch(self, kind: str, seconds: float) -> None:
        self._fetch.labels(kind).observe(seconds)

    def connection(self, host: str, up: bool) -> None:
        self._connected.labels(host).set(up)

    def delegated(self, host: str, dialect: str, granted: bool) -> None:
        self._delegated.labels(host, dialect).set(granted)

    def dependency(self, name: str, up: bool) -> None:
        self._dependency.labels(name).set(up)

    def lease(self, held: bool) -> None:
        self._lease.set(held)

    def trimmed(self, table: str, rows: int) -> None:
        self._trimmed.labels(table).inc(rows)

    def presence_unknown(self, why: str) -> None:
        self._unknown.labels(self._word("presence", why)).inc()
