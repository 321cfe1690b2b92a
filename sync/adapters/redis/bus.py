"""Hints between processes over Redis's publish/subscribe, which delivers to whoever listens at that moment.

Decides how a listener comes back after a loss: by itself, with growing pauses, and then with an empty hint, since
what was said meanwhile is gone. Listeners in this process hear a hint at once, whether Redis answers or not. Refuses
to know what a hint is about.
"""

import asyncio
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import msgpack
import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from sync.adapters.redis.link import FAILURES, READ_SECONDS, WRITE_SECONDS, Link
from sync.adapters.redis.nodes import pool
from sync.ports import Hint

VERSION = 1
_CHANNEL = "convsync:1:bus:"
_MAX_HINT_BYTES = 4096
_QUIET_SECONDS = 10.0  # after it a ping is sent; after another such time without any answer the connection is dropped
_PAUSES_SECONDS = (0.1, 0.5, 1.0, 2.0, 5.0)
_STAND_SECONDS = 1.0  # how long `subscribe` waits to stand

log = structlog.get_logger(__name__)


class RedisBus:
    """`Bus`. Publishes over the link, listens over one connection of its own."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._myself = secrets.token_hex(8)  # our own hints come back over Redis and are heard already
        self._listeners: dict[str, list[Callable[[Hint], None]]] = {}
        self._stands: dict[str, asyncio.Event] = {}
        self._missed: set[str] = set()
        self._pubsub: PubSub | None = None
        self._failures = 0
        self._task: asyncio.Task[None] | None = None

    async def publish(self, topic: str, hint: Hint) -> None:
        self._call(topic, hint)
        packed = msgpack.packb([VERSION, self._myself, dict(hint)])
        await self._link.run(lambda redis: redis.publish(_CHANNEL + topic, packed), READ_SECONDS)

    async def subscribe(self, topic: str, callback: Callable[[Hint], None]) -> None:
        self._listeners.setdefault(topic, []).append(callback)
        stands = self._stands.setdefault(topic, asyncio.Event())
        if self._task is None:
            self._task = asyncio.create_task(self._listen(), name="redis-bus")
        elif self._pubsub is not None:
            with suppress(*FAILURES):  # the listener notices the same and starts over with all topics
                await self._pubsub.subscribe(_CHANNEL + topic)
        try:
            async with asyncio.timeout(_STAND_SECONDS):
                await stands.wait()
        except TimeoutError:
            self._missed.add(topic)

    async def close(self) -> None:
        self._listeners.clear()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _listen(self) -> None:
        """Listen, for ever. Each failure leads to a new connection and a new subscription of everything."""
        while True:
            url = self._link.nodes.url
            client = Redis(connection_pool=pool(url, read_seconds=WRITE_SECONDS))
            try:
                async with client.pubsub() as pubsub:
                    await self._follow(pubsub)
            except FAILURES as error:
                self._link.nodes.passed_over(url)
                if not self._failures:
                    log.info("bus_lost", error=type(error).__name__)
            finally:
                await client.aclose()
                await client.connection_pool.disconnect()
            self._lose()
            await asyncio.sleep(_PAUSES_SECONDS[min(self._failures, len(_PAUSES_SECONDS) - 1)])
            self._failures += 1

    async def _follow(self, pubsub: PubSub) -> None:
        """Subscribe to every topic and hear until it fails; raises what it fails with."""
        first = tuple(self._listeners)
        await pubsub.subscribe(*(_CHANNEL + topic for topic in first))
        self._pubsub = pubsub
        if since := [topic for topic in self._listeners if topic not in first]:
            await pubsub.subscribe(*(_CHANNEL + topic for topic in since))
        asked = False
        while True:
            message = await pubsub.get_message(timeout=_QUIET_SECONDS)
            if message is not None:
                asked = False
                self._hear(message)
            elif asked:
                raise TimeoutError
            else:
                await pubsub.ping()
                asked = True

    def _lose(self) -> None:
        self._pubsub = None
        self._missed.update(self._listeners)
        for stands in self._stands.values():
            stands.clear()

    def _hear(self, message: Mapping[str, Any]) -> None:
        topic = (message["channel"] or b"").decode().removeprefix(_CHANNEL)
        if message["type"] == "subscribe":
            self._failures = 0
            self._stands[topic].set()
            if topic in self._missed:
                self._missed.discard(topic)
                self._call(topic, {})
        elif message["type"] == "message" and (hint := self._foreign(message["data"])) is not None:
            self._call(topic, hint)

    def _foreign(self, data: object) -> Hint | None:
        """Another process's hint; None for our own, and for what is no hint of this version."""
        if not isinstance(data, bytes) or len(data) > _MAX_HINT_BYTES:
            return None
        try:
            version, sender, hint = msgpack.unpackb(data, max_array_len=3, max_map_len=64, max_ext_len=0)
        except (ValueError, TypeError, msgpack.UnpackException):
            return None
        if version != VERSION or sender == self._myself or not isinstance(hint, dict):
            return None
        if not all(isinstance(key, str) and isinstance(value, str | int) for key, value in hint.items()):
            return None
        return hint

    def _call(self, topic: str, hint: Hint) -> None:
        loop = asyncio.get_running_loop()
        for callback in self._listeners.get(topic, ()):
            loop.call_soon(callback, dict(hint))  # a callback that raises is the loop's affair, not the listener's end
