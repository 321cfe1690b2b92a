"""What a server says that it has granted (XEP-0355, XEP-0356), in both versions and as servers really write it."""

from xml.etree.ElementTree import Element

import pytest

from sync.protocol.grants import Granted, is_advertisement, learned
from sync.protocol.serialise import parse
from tests.core.protocol_vectors import check, load

ONE = "<message><delegation xmlns='urn:xmpp:delegation:{}'><delegated namespace='{}'/></delegation></message>"
MAY = "<message><privilege xmlns='urn:xmpp:privilege:1'><perm access='{}' type='get'/></privilege></message>"


@pytest.mark.parametrize("vector", load("grants"))
def test_advertisements(vector: Element) -> None:
    check(vector, lambda message: learned(message, Granted()))


def test_delegations_add_up_and_the_last_version_counts() -> None:
    granted = learned(parse(ONE.format(2, "b")), learned(parse(ONE.format(1, "a")), Granted()))
    assert (granted.delegation, granted.delegated) == ("urn:xmpp:delegation:2", {"a", "b"})


def test_privileges_are_told_as_a_whole() -> None:
    granted = learned(parse(MAY.format("message")), learned(parse(MAY.format("roster")), Granted()))
    assert granted.privileges == (("message", "get"),)


def test_there_is_an_end_to_what_is_remembered() -> None:
    many = "".join(f"<delegated namespace='{n}'/>" for n in range(1000))
    long = f"<delegated namespace='{'x' * 1000}'/>"
    message = parse(f"<message><delegation xmlns='urn:xmpp:delegation:2'>{long}{many}</delegation></message>")
    assert len(learned(message, Granted()).delegated) == 100
    assert max(map(len, learned(message, Granted()).delegated)) < 10


@pytest.mark.parametrize(
    ("message", "is_one"),
    [(ONE.format(1, "a"), True), (MAY.format("roster"), True), (ONE.format(3, "a"), False), ("<message/>", False)],
)
def test_what_is_an_advertisement(message: str, is_one: bool) -> None:
    assert is_advertisement(parse(message)) is is_one
