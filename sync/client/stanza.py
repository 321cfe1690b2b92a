"""What slixmpp has to recognise in the stream: a live notice. Its content is read by `codec`, not by interfaces."""

from typing import ClassVar

from slixmpp.xmlstream import ElementBase

from sync.protocol.names import CONVSYNC


class Live(ElementBase):
    """`<live xmlns='urn:convsync:0' previous='7' version='9' token='…' time='…'/>` in a headline message."""

    namespace = CONVSYNC
    name = "live"
    plugin_attrib = "convsync_live"
    interfaces: ClassVar[set[str]] = {"previous", "version", "token", "time", "more"}
