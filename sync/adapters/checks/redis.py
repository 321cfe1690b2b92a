"""Does Redis answer, and does it keep what it is given. Never a reason to fail: the service runs without it."""

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from sync.adapters.checks.finding import LIMIT_SECONDS, Finding, note, ok


async def redis(url: str | None, *, cluster: bool = False) -> list[Finding]:
    """`url` None: not configured. `cluster`: it is said to be a node of one."""
    if url is None:
        return [note("redis", "not configured: presence is kept in this one process, run only one")]
    client = Redis.from_url(
        url, socket_connect_timeout=LIMIT_SECONDS, socket_timeout=LIMIT_SECONDS, retry=Retry(NoBackoff(), 0)
    )
    try:
        await client.ping()
        server = await client.info("server")
        clustered = bool((await client.info("cluster")).get("cluster_enabled"))
        policy = (await client.info("memory")).get("maxmemory_policy", "noeviction")
    except (RedisError, OSError, TimeoutError) as error:
        return [note("redis", f"{_why(error)}; the service runs on, presence is unknown meanwhile", "redis.url")]
    finally:
        await client.aclose()
    version = server.get("valkey_version") or server.get("redis_version")
    if policy != "noeviction":
        return [
            note("redis", f"{version} answers, but evicts keys ({policy}): users then count as offline", "redis.url")
        ]
    if clustered is not cluster:
        said = "is a node of a cluster: name others" if clustered else "is no node of a cluster: name none"
        return [note("redis", f"{version} answers, but {said}", "redis.cluster_nodes")]
    return [ok("redis", f"{version} answers")]


def _why(error: Exception) -> str:
    if isinstance(error, AuthenticationError) or (isinstance(error, ResponseError) and "AUTH" in str(error).upper()):
        return "the user or the password is refused"
    if isinstance(error, TimeoutError) or "imeout" in type(error).__name__:
        return f"no answer within {LIMIT_SECONDS:g} s"
    return "cannot connect"
