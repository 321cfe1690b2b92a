"""Archives with something in them, for the tests of first contact."""

from typing import Any
from xml.etree.ElementTree import Element

from tests.contract.samples import ANN, owned, seeing
from tests.service.archives import House


def known(house: House, *accounts: str) -> None:
    house.store.apply(owned(*(accounts or (ANN,))), seeing())


def talk(house: House, many: int, account: str = ANN, days: float = 10) -> None:
    """So many messages, an hour apart, the first so many days ago."""
    for n in range(many):
        house.server.said(account, f"a{n}", house.ago(days) + n * 3_600_000_000, f"text {n}")


def of_kind(house: House, name: str) -> list[Element]:
    return [asked for asked in house.server.asked if asked.tag.endswith("}" + name)]


def refusing(name: str, condition: str) -> Any:
    return lambda asked: condition if asked.tag.endswith("}" + name) else None
