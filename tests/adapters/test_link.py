"""The component's connection: what slixmpp may say of what it could not read."""

import asyncio
import logging

import pytest

from sync.adapters.xmpp.link import Stream


class Sink(asyncio.Transport):
    """A connection that takes everything."""

    def write(self, data: object) -> None: ...

    def close(self) -> None: ...


async def test_a_stanza_that_cannot_be_parsed_is_not_quoted(caplog: pytest.LogCaptureFixture) -> None:
    stream = Stream("sync.example.org", "secret", lambda stanza: None)
    stream.init_parser()
    stream.transport = Sink()
    with caplog.at_level(logging.WARNING):
        stream.data_received(b"<stream><message><body>between us</oops>")
    assert [record.getMessage() for record in caplog.records] == ["Parse error"]
    assert "between us" not in caplog.text
