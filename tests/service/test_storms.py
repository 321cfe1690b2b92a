"""PUSH §2: one dead token is news of a device, very many are news of us."""

from datetime import UTC, datetime, timedelta

from sync.service.storms import MANY, WINDOW, DeathWatch

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def watched(*answers: bool, every: timedelta = timedelta(0)) -> DeathWatch:
    watch = DeathWatch()
    for number, dead in enumerate(answers):
        watch.note(dead, NOW + number * every)
    return watch


def storms(watch: DeathWatch, number: int = 0, every: timedelta = timedelta(0)) -> bool:
    return watch.storms(NOW + number * every)


def test_a_few_are_no_storm() -> None:
    assert not storms(watched(*[True] * (MANY - 1)))


def test_many_at_once_are() -> None:
    assert storms(watched(*[True] * MANY))


def test_many_among_more_that_live_are_not() -> None:
    assert not storms(watched(*[True, False] * MANY))


def test_many_over_a_long_time_are_not() -> None:
    every = WINDOW / (MANY - 2)
    assert not storms(watched(*[True] * 3 * MANY, every=every), 3 * MANY, every)


def test_a_storm_is_over_when_it_has_been_quiet() -> None:
    watch = watched(*[True] * MANY)
    assert watch.storms(NOW + WINDOW)
    assert not watch.storms(NOW + WINDOW + timedelta(seconds=1))
