"""The codec is started once for each worker that asks for it."""

from collections.abc import Iterator

import pytest

from sync.sandbox.launch import LaunchError
from tests.proofs.codec import Codec


@pytest.fixture(scope="session")
def codec() -> Iterator[Codec]:
    """ejabberd's codec, where it is installed: `make test` sees to that."""
    try:
        running = Codec()
    except LaunchError as missing:
        pytest.skip(str(missing))
    with running:
        yield running
