"""Every call of the observer reaches a metric, and labels stay few."""

import inspect

import pytest

from sync.adapters.metrics import Metrics
from sync.ports import Observer
from tests.contract.fakes_observer import METHODS, RecordingObserver

SAMPLE = {"str": "word", "str | None": "word", "int": 3, "float": 0.5, "bool": True}


def call(observer: Observer, name: str) -> None:
    parameters = list(inspect.signature(getattr(Observer, name)).parameters.values())[1:]
    kinds = {one.name: getattr(one.annotation, "__name__", str(one.annotation)) for one in parameters}
    given = {key: SAMPLE[kind if kind in SAMPLE else "str | None"] for key, kind in kinds.items()}
    positional = [given[one.name] for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
    named = {one.name: given[one.name] for one in parameters if one.kind is one.KEYWORD_ONLY}
    getattr(observer, name)(*positional, **named)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_each_observation_changes_the_exposition(name: str) -> None:
    metrics = Metrics()
    observer: Observer = metrics
    before = metrics.exposition()
    call(observer, name)
    assert metrics.exposition() != before


@pytest.mark.parametrize("name", sorted(METHODS))
def test_the_recording_observer_plays_the_same_part(name: str) -> None:
    recorded = RecordingObserver()
    call(recorded, name)
    (arguments,) = recorded.told(name)
    assert set(arguments) == set(inspect.signature(getattr(Observer, name)).parameters) - {"self"}


def test_the_recording_observer_refuses_what_the_port_lacks() -> None:
    with pytest.raises(AttributeError):
        RecordingObserver().events_comitted("message", 1)


def test_names_have_our_prefix_and_a_unit() -> None:
    units = ("seconds", "total", "events", "rooms", "jobs", "devices", "archives", "sessions")
    states = ("open", "connected", "up", "held", "info")
    for family in Metrics().registry.collect():
        assert family.name.startswith("convsync_")
        assert family.name.endswith((*units, *states)) or family.type in ("counter", "info")


def test_a_vendor_cannot_make_labels_without_end() -> None:
    metrics = Metrics()
    for n in range(1000):
        metrics.token_removed(f"Reason{n}")
        metrics.suppressed("two words\n")
    lines = metrics.exposition().decode().splitlines()
    removed = [line for line in lines if line.startswith("convsync_tokens_removed_total{")]
    assert len(removed) == 65
    assert 'convsync_pushes_suppressed_total{why="other"} 1000.0' in lines


def test_two_processes_in_one_do_not_share_metrics() -> None:
    one, other = Metrics(), Metrics()
    one.lease(True)
    assert "convsync_lease_held 1.0" in one.exposition().decode()
    assert "convsync_lease_held 0.0" in other.exposition().decode()
