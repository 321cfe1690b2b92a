"""How the log looks: one line for each event, JSON or for eyes, with UTC times; and what every key in it means.

Decides which libraries are heard (from WARNING on, whatever our own level is: at DEBUG, slixmpp prints whole stanzas)
and takes out what must never be written, as a last line of defence behind code that does not log it. Refuses to know
what is worth logging: that is said where it happens, in a fixed sentence with the keys of `KEYS`.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

# Keys of `log.info("event", key=…)`, and of `extra={"key": …}` with the standard library's loggers.
KEYS = {
    "account": "bare JID of the owner",
    "accounts": "how many accounts",
    "acked": "the highest n that was acknowledged",
    "address": "host:port",
    "apns_id": "the push's id, as in the ledger and at Apple",
    "app": "configured name of the app",
    "attempts": "how often it was tried",
    "component": "the component's JID",
    "constraint": "name of the database's constraint that refused a row",
    "count": "how many",
    "device": "the device's id within its account",
    "dialect": "the protocol that a client spoke",
    "environment": "production or sandbox",
    "error": "class of the exception, or its fixed text",
    "events": "how many feed events",
    "generation": "counts the holders of a lease",
    "high": "the highest n that the module holds",
    "holder": "who holds a lease",
    "host": "a host whose feed is taken",
    "job": "id of a push job",
    "kind": "which kind, in the words of the event's source",
    "lane": "lane of accounts, 0-15, or of push jobs",
    "listen": "the address that is listened on",
    "low": "the lowest n that the module holds",
    "n": "a feed position",
    "name": "what it is called in the configuration",
    "namespaces": "XML namespaces",
    "outcome": "what became of it",
    "pid": "process id",
    "port": "a port",
    "queue": "the way that pushes take: a route, and the app or domain at its end",
    "reason": "the vendor's or the server's own word",
    "seconds": "a duration",
    "server": "the XMPP server, or its name",
    "shard": "shard of the feed",
    "statement": "name of a statement of sync/adapters/postgres/*.sql",
    "status": "a status code",
    "stream": "stream of the feed",
    "task": "name of one of this process's tasks",
    "topic": "topic of the bus",
    "version": "of the program or protocol that is named",
    "why": "one of a few fixed words",
}
ADDED = {
    "timestamp": "when, in UTC, ISO 8601",
    "level": "debug, info, warning, error, critical",
    "logger": "the module",
    "event": "what happened: a fixed word or sentence of ours, or a library's own",
    "exception": "traceback, without the values of variables",
}

REDACTED = "[redacted]"
_SECRET = (
    "token",
    "secret",
    "password",
    "authorization",
    "body",
    "stanza",
    "payload",
    "dsn",
    "url",
    "key",
    "keys",
    "jwt",
)
_FOREIGN_TEXT = 300  # characters of a library's own sentence; what is longer quotes data
_FOREIGN = ("slixmpp", "aioapns", "asyncio", "aiohttp", "asyncpg", "redis", "hpack", "h2")


def configure(
    level: Literal["debug", "info", "warning", "error"], form: Literal["json", "console"], stream: TextIO | None = None
) -> None:
    """Send everything through one handler to `stream` (default: standard error). May be called again."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*_common(), structlog.stdlib.ExtraAdder(), shorten],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, redact, *_rendering(form)],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("sync").setLevel(level.upper())
    for name in _FOREIGN:
        foreign = logging.getLogger(name)
        foreign.setLevel(max(logging.WARNING, logging.getLogger("sync").level))
        foreign.handlers.clear()
        foreign.propagate = True
    logging.captureWarnings(True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_common(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,  # tests configure again; the cost is microseconds on lines that are rare
    )


def redact(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Blank every value whose key says that it is a secret or a user's text, at any depth."""
    return _redacted(event)


def shorten(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """A library's sentence may quote what it received: keep its beginning."""
    event["event"] = str(event.get("event", ""))[:_FOREIGN_TEXT]
    return event


def is_secret(key: str) -> bool:
    """`token` and `alert_token`, but not `token_age_seconds`."""
    return key.lower().endswith(_SECRET) and key.lower().rpartition("_")[2] in _SECRET


def _redacted(values: MutableMapping[str, object]) -> MutableMapping[str, object]:
    for key, value in values.items():
        if is_secret(str(key)):
            values[key] = REDACTED
        elif isinstance(value, dict):
            values[key] = _redacted(dict(value))
    return values


def _common() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _rendering(form: str) -> list[Processor]:
    if form == "json":
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]
    return [structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)]
