"""A session of slixmpp with the sandbox's server: clear text on loopback, logged in, left properly.

Refuses to know what is said in it.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from slixmpp import ClientXMPP

from sync.sandbox.demo.story import StepFailed

LOGIN_SECONDS = 30.0


@asynccontextmanager
async def logged_in(
    jid: str,
    password: str,
    *,
    host: str,
    port: int,
    plugins: Iterable[str],
    config: Mapping[str, Mapping[str, Any]] | None = None,
) -> AsyncIterator[Any]:
    """A client of slixmpp that is logged in and has sent no presence. Raises StepFailed where it is not let in."""
    # Neither encryption nor a tunnel: the sandbox listens on loopback only.
    plain = {"feature_mechanisms": {"unencrypted_plain": True, "use_mech": "PLAIN"}}
    client: Any = ClientXMPP(jid, password, plugin_config=plain)  # slixmpp's stanzas are untyped
    client.enable_starttls, client.enable_direct_tls, client.enable_plaintext = False, False, True
    for plugin in plugins:
        client.register_plugin(plugin, (config or {}).get(plugin))
    started = asyncio.get_running_loop().create_future()

    def over(outcome: str) -> None:
        if not started.done():
            started.set_result(outcome)

    client.add_event_handler("session_start", lambda _: over(""))
    client.add_event_handler("failed_all_auth", lambda _: over("The password was refused"))
    client.add_event_handler("disconnected", lambda _: over("The connection was closed"))
    client.connect(host, port)
    try:
        async with asyncio.timeout(LOGIN_SECONDS):
            if why := await started:
                raise StepFailed(f"{why} when {jid} logged in.")
        yield client
    finally:
        await leave(client)


async def leave(client: Any) -> None:
    """What was sent leaves, then nothing more: slixmpp would still answer what it is asked when the stream is gone, and
    leave the task of its send queue waiting.
    """
    queue = client._run_out_filters
    if queue is not None:
        sent = asyncio.ensure_future(client.waiting_queue.join())
        await asyncio.wait((sent,), timeout=1.0)
        for task in (sent, queue):
            task.cancel()
        await asyncio.wait((sent, queue), timeout=1.0)
    await client.disconnect(wait=1.0, ignore_send_queue=True)
