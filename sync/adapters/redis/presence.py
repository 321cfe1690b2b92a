"""Who is online, in Redis: a hash of sessions for each account, and a marker for each host that vouches for them.

Redis may be flushed, restored from an old copy, or miss writes; then its hashes are half-truths. The marker tells: it
is set by a complete `reset` under a new random generation, counts each write of the host's one writer, and expires
unless the writer keeps it. A write that finds another marker than the one it left deletes it. No marker, no answer:
presence is unknown until the next `reset`. Decides nothing about what presence means.

convsync:1:vouched:{host}   "generation:writes", expires       convsync:1:online:{host}   accounts with a hash
convsync:1:sessions:{account}   resource → msgpack [2, state, acked µs or nil]; [1, state] of former versions is read

A Redis Cluster has all keys of a host on one node, so that they change together: convsync:1:sessions:{host}:account
there.
"""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TypeVar, cast

import msgpack
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from sync.adapters.redis.link import BULK_SECONDS, READ_SECONDS, WRITE_SECONDS, Link
from sync.model.event import Session, SessionEvent, SessionState
from sync.model.jid import domain
from sync.ports import Observer
from sync.rules.presence import becomes
from sync.rules.times import instant, microseconds

T = TypeVar("T")

KEEP_SECONDS = 15  # `complete` comes every few seconds; a copy restored later than this vouches for nothing
VERSION = 2
FORMER = 1  # without the time up to which a hibernated session has had everything
_CHUNK = 500
_LOOK = 64  # accounts at a time: an answer has to come within a moment
_MAX_VALUE_BYTES = 64
_MAX_SESSIONS = 1000

# Move the marker on if it is as it was left; otherwise something happened to Redis, and nothing in it is vouched for.
_VOUCH = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3]) return 1
end
redis.call('DEL', KEYS[1]) return 0
"""


class RedisPresence:
    """`Presence`. One object in a process: it remembers which markers this process left where."""

    def __init__(self, link: Link, *, observer: Observer) -> None:
        self._link, self._observer = link, observer
        self._left: dict[
            str, tuple[str, int]
        ] = {}  # host → generation and count of its marker, where we are the writer
        self._torn: dict[str, str] = {}  # host → our generation that is not to be believed any more; "" = none is
        self._seen: dict[str, tuple[str, int]] = {}  # host → what others' newest marker was, as far as it was seen
        self._writing = asyncio.Lock()  # markers count writes, so writes come one after the other

    async def sessions(self, account: str) -> tuple[Session, ...] | None:
        return (await self.sessions_of([account]))[account]

    async def sessions_of(self, accounts: Collection[str]) -> Mapping[str, tuple[Session, ...] | None]:
        by_host: dict[str, list[str]] = defaultdict(list)
        for account in accounts:
            # One server answers for all hosts at a time, a cluster for each.
            by_host[domain(account) if self._link.nodes.cluster else ""].append(account)
        found: dict[str, tuple[Session, ...] | None] = {}
        for host, theirs in by_host.items():
            for chunk in _chunks(theirs, _LOOK):
                found |= await self._look(host, chunk)
        return found

    async def _look(self, about: str, accounts: Sequence[str]) -> dict[str, tuple[Session, ...] | None]:
        hosts = list({domain(account) for account in accounts})

        async def look(redis: Redis) -> list[object]:
            async with redis.pipeline(transaction=True) as pipe:
                for host in hosts:
                    pipe.get(_vouched(host))
                for account in accounts:
                    pipe.hgetall(self._sessions(account))
                return await pipe.execute()

        answer = await self._link.run(look, READ_SECONDS, about)
        if answer is None:
            self._observer.presence_unknown("no-answer")
            return dict.fromkeys(accounts)
        vouched = {host for host, marker in zip(hosts, answer, strict=False) if self._vouches(host, marker)}
        found: dict[str, tuple[Session, ...] | None] = {}
        for account, entries in zip(accounts, answer[len(hosts) :], strict=True):
            found[account] = None
            if domain(account) in vouched:
                found[account] = self._told(entries)
            else:
                self._observer.presence_unknown("incomplete")
        return found

    def _vouches(self, host: str, marker: object) -> bool:
        return isinstance(marker, bytes) and self._believed(host, marker.decode("ascii", "replace"))

    def _told(self, entries: object) -> tuple[Session, ...] | None:
        try:
            return _unpacked(entries)
        except (ValueError, TypeError, OverflowError, msgpack.UnpackException):
            self._observer.presence_unknown("malformed")
            return None

    async def apply(self, events: Sequence[SessionEvent]) -> None:
        async with self._writing:
            by_host: dict[str, list[SessionEvent]] = defaultdict(list)
            for event in events:
                if domain(event.account) in self._left:  # otherwise nothing vouches for it, and `reset` brings it
                    by_host[domain(event.account)].append(event)
            for host, changes in by_host.items():
                await self._write(host, changes, WRITE_SECONDS)

    async def reset(self, host: str, sessions: Mapping[str, Sequence[Session]]) -> None:
        async with self._writing:
            self._left.pop(host, None)
            self._torn[host] = ""
            if not await self._forget(host):
                return
            del self._torn[host]  # there is no marker any more that could be believed
            online = [(account, each) for account, each in sessions.items() if each and domain(account) == host]
            for chunk in _chunks(online):

                async def fill(redis: Redis, chunk: Sequence[tuple[str, Sequence[Session]]] = chunk) -> bool:
                    async with redis.pipeline(transaction=True) as pipe:
                        for account, each in chunk:
                            pipe.hset(self._sessions(account), mapping={one.resource: _packed(one) for one in each})
                        pipe.sadd(_online(host), *(account for account, _ in chunk))
                        await pipe.execute()
                    return True

                if not await self._link.run(fill, BULK_SECONDS, host):
                    return
            generation = secrets.token_hex(8)
            marker = f"{generation}:0"
            kept = await self._link.run(
                lambda redis: redis.set(_vouched(host), marker, ex=KEEP_SECONDS), BULK_SECONDS, host
            )
            if kept:
                self._left[host] = (generation, 0)
            else:
                self._torn[host] = generation

    async def complete(self, host: str) -> bool:
        async with self._writing:
            if host in self._left:
                await self._write(host, (), WRITE_SECONDS)
            elif host in self._torn and await self._unvouch(host):
                del self._torn[host]
            return host in self._left

    async def close(self) -> None:
        """Stop vouching: from now on this process writes nothing any more. The link has its own owner."""
        async with self._writing:
            for host in tuple(self._left):
                self._torn[host] = self._left.pop(host)[0]
                await self._unvouch(host)

    async def _write(self, host: str, events: Sequence[SessionEvent], seconds: float) -> None:
        """The events and the marker's next count, all or nothing. Without an answer nothing is vouched for any more."""
        generation, count = self._left[host]
        before, after = f"{generation}:{count}", f"{generation}:{count + 1}"

        async def write(redis: Redis) -> bool:
            async with redis.pipeline(transaction=True) as pipe:
                pipe.eval(_VOUCH, 1, _vouched(host), before, after, str(KEEP_SECONDS))
                for event in events:
                    self._change(pipe, host, event)
                return bool((await pipe.execute())[0])

        if await self._link.run(write, seconds, host):
            self._left[host] = (generation, count + 1)
        else:
            self._torn[host] = self._left.pop(host)[0]

    async def _unvouch(self, host: str) -> bool:
        return await self._link.run(lambda redis: redis.delete(_vouched(host)), WRITE_SECONDS, host) is not None

    async def _forget(self, host: str) -> bool:
        """Delete the marker, then every hash of the host. The index loses an account in the same step as its hash."""

        async def some(redis: Redis) -> int:
            accounts = cast(list[bytes], await redis.srandmember(_online(host), _CHUNK))
            async with redis.pipeline(transaction=True) as pipe:
                pipe.delete(_vouched(host))
                if accounts:
                    pipe.delete(*(self._sessions(account.decode()) for account in accounts))
                    pipe.srem(_online(host), *accounts)
                await pipe.execute()
            return len(accounts)

        while (deleted := await self._link.run(some, BULK_SECONDS, host)) is not None:
            if deleted == 0:
                return True
        return False

    def _sessions(self, account: str) -> str:
        if self._link.nodes.cluster:
            return f"convsync:1:sessions:{{{domain(account)}}}:{account}"
        return f"convsync:1:sessions:{{{account}}}"

    def _change(self, pipe: Pipeline, host: str, event: SessionEvent) -> None:
        session = becomes(event)
        if session is None:
            pipe.hdel(self._sessions(event.account), event.resource)
        else:
            pipe.hset(self._sessions(event.account), event.resource, _packed(session))
            pipe.sadd(_online(host), event.account)

    def _believed(self, host: str, marker: str) -> bool:
        """In place of our own marker only our own; otherwise another process's, but not one that we left torn. A count
        only goes up: what has an older one was put back from a copy.
        """
        generation, _, told = marker.partition(":")
        count = int(told) if told.isdigit() else -1
        if host in self._left:
            return generation == self._left[host][0] and count >= self._left[host][1]
        former, seen = self._seen.get(host, ("", 0))
        if (generation == former and count < seen) or self._torn.get(host) in ("", generation):
            return False
        self._seen[host] = generation, count
        return True


def _vouched(host: str) -> str:
    return f"convsync:1:vouched:{{{host}}}"


def _online(host: str) -> str:
    return f"convsync:1:online:{{{host}}}"


def _packed(session: Session) -> bytes:
    acked = None if session.acked_at is None else microseconds(session.acked_at)
    packed: bytes = msgpack.packb([VERSION, session.state.value, acked])
    return packed


def _unpacked(entries: object) -> tuple[Session, ...]:
    """Raises ValueError, TypeError or OverflowError for what neither this version nor the former wrote."""
    if not isinstance(entries, dict) or len(entries) > _MAX_SESSIONS:
        raise TypeError("no sessions")
    found = []
    for resource, value in entries.items():
        if len(value) > _MAX_VALUE_BYTES:
            raise ValueError("too long")
        version, state, *more = msgpack.unpackb(value, max_array_len=3, max_map_len=0, max_ext_len=0)
        if (version, len(more)) not in ((VERSION, 1), (FORMER, 0)):
            raise ValueError("another version")
        acked = instant(more[0]) if more and more[0] is not None else None
        found.append(Session(resource.decode(), SessionState(state), acked))
    return tuple(sorted(found, key=lambda one: one.resource))


def _chunks(listed: Sequence[T], size: int = _CHUNK) -> Iterator[Sequence[T]]:
    for start in range(0, len(listed), size):
        yield listed[start : start + size]
