"""XMPP: the component's connection (XEP-0114) on slixmpp."""
