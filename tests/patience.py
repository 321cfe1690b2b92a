"""Patience: what the product gives up after a moment, no test gives up because this machine is busy."""

import pytest

from sync.adapters.redis import bus, link, nodes, presence


@pytest.fixture(autouse=True)
def patience_with_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """The product waits a tenth of a second for Redis. Tests in which it is silent set their limits themselves."""
    for module in (bus, link, nodes, presence):
        for name in ("READ_SECONDS", "WRITE_SECONDS", "BULK_SECONDS", "CONNECT_SECONDS", "_STAND_SECONDS"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, 60.0)
