"""What sends pushes: the gates of all routes behind one sender."""

from sync.app import settings
from sync.app.drivers import Drivers
from sync.config import Config
from sync.model.device import Route
from sync.service.sender import Sender


def make_sender(config: Config, drivers: Drivers) -> Sender:
    """The sender of a process that serves."""
    return Sender(
        gates={Route.APNS: drivers.gate},
        sealer=drivers.sealer,
        clock=drivers.clock,
        observer=drivers.metrics,
        apps=settings.apps(config),
        wordings=settings.wordings(config),
    )
