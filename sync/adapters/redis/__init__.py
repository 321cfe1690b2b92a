"""Redis or Valkey as player of `Presence` and `Bus`: the one home of its driver."""

from sync.adapters.redis.bus import RedisBus
from sync.adapters.redis.link import Link
from sync.adapters.redis.presence import RedisPresence

__all__ = ["Link", "RedisBus", "RedisPresence"]
