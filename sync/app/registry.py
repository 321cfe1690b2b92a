"""The device registry, joined: who registers, and what phones post that have no login any more."""

import secrets
from collections.abc import Callable, Sequence

from sync.adapters.http import Post
from sync.app import settings
from sync.app.drivers import Drivers
from sync.app.senders import make_app_servers
from sync.config import Config
from sync.model.registry import LogOut
from sync.ports import Store
from sync.protocol.logout import decode_device_logout, decode_logout
from sync.service.registration import Registrations


def make_registrations(config: Config, drivers: Drivers, store: Store) -> Registrations:
    """The registry of the configured apps."""
    return Registrations(
        component=config.component.jid,
        store=store,
        sealer=drivers.sealer,
        apps=settings.apps(config),
        random_name=lambda: secrets.token_urlsafe(24),
        observer=drivers.metrics,
        most=config.push.max_devices,
        app_servers=make_app_servers(config, drivers, store),
    )


def posts(component: str, registrations: Registrations) -> Sequence[Post]:
    """What may be posted; nothing where no app is configured."""

    def leaving(path: str, decode: Callable[[bytes], LogOut]) -> Post:
        async def take(body: bytes) -> bool:
            return await registrations.log_out(decode(body))

        return Post(path, take)

    if not registrations.offered:
        return ()
    return leaving("/v1/unregister", decode_logout), leaving(f"/unregister-device/{component}", decode_device_logout)
