"""PUSH §2: one dead token is news of a device, very many are news of us."""

from datetime import UTC, datetime, timedelta

from sync.service.storms import MANY, WINDOW, DeathWatch

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def watched(*answers: bool, every: timedelta = timedelta(0)) -> DeathWatch:
    watch = DeathWatch()
    for number, dead in enumerate(answers):
        watch.note(dead, NOW + number * every)
    return watch


def test_a_few_are_no_storm() -> None:
    assert not watched(*[True] * (MANY - 1)).is_storm


def test_many_at_once_are() -> None:
    assert watched(*[True] * MANY).is_storm


def test_many_among_more_that_live_are_not() -> None:
    assert not watched(*[True, False] * MANY).is_storm


def test_many_over_a_long_time_are_not() -> None:
    assert not watched(*[True] * 3 * MANY, every=WINDOW / (MANY - 2)).is_storm
