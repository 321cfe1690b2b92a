"""What sends pushes, and where users may have them sent to: Apple's service, and app servers of other makers."""

from sync.adapters.apns import ApnsGate
from sync.adapters.encryption import aes_128_gcm
from sync.app import settings
from sync.app.drivers import Drivers
from sync.config import Config
from sync.model.device import Route
from sync.ports import Store, Wire
from sync.service.app_servers import AppServers
from sync.service.publisher import Publisher
from sync.service.sender import Sender


def make_sender(config: Config, drivers: Drivers, wire: Wire) -> Sender:
    """The sender of a process that serves."""
    publisher = Publisher(
        component=config.component.jid,
        wire=wire,
        sealer=drivers.sealer,
        encrypt=aes_128_gcm,
        policy=settings.publish_policy(config),
    )
    gate, metrics, clock = drivers.gate, drivers.metrics, drivers.clock

    def measure() -> None:
        if isinstance(gate, ApnsGate):
            gate.measure(metrics, clock.now())

    return Sender(
        gate=gate,
        publisher=publisher,
        sealer=drivers.sealer,
        clock=drivers.clock,
        observer=drivers.metrics,
        apps=settings.apps(config),
        wordings=settings.wordings(config),
        measure_gate=measure,
    )


def make_app_servers(config: Config, drivers: Drivers, store: Store) -> AppServers:
    """The app servers that users may name."""
    return AppServers(
        component=config.component.jid,
        own=(*config.component.hosts, *config.component.muc_hosts),
        allowed=config.push.app_servers,
        reserved=settings.apps(config),
        most=config.push.max_devices,
        store=store,
        sealer=drivers.sealer,
        observer=drivers.metrics,
    )


def needs_server(queue: str) -> bool:
    """True for pushes that go by the XMPP server: only the process that is connected to it can send them."""
    return queue.startswith(f"{Route.PUBLISH}:")
