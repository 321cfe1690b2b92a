"""Time zones by name."""

from datetime import UTC, datetime, timedelta
from zoneinfo import available_timezones

import pytest

from sync.adapters.zones import zone

NOISE = {"Factory", "localtime", "posixrules"}


@pytest.mark.parametrize(
    "name", ["", "Europe", "Europe/Atlantis", "../UTC", "/etc/localtime", "localtime", "posixrules", "Factory", "a\0b"]
)
def test_what_is_no_zone(name: str) -> None:
    assert zone(name) is None


def test_a_zone_has_its_summer_time() -> None:
    berlin = zone("Europe/Berlin")
    assert datetime(2026, 1, 1, tzinfo=UTC).astimezone(berlin).utcoffset() == timedelta(hours=1)
    assert datetime(2026, 7, 1, tzinfo=UTC).astimezone(berlin).utcoffset() == timedelta(hours=2)


def test_none_is_read_twice() -> None:
    names = sorted(available_timezones() - NOISE)
    first = [zone(name) for name in names]
    assert None not in first
    assert all(zone(name) is found for name, found in zip(names, first, strict=True))
    assert zone.cache_info().currsize >= len(names)
