"""The contract of `Presence`, on the one in memory, the one in Redis and the one in a Redis Cluster."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
import pytest_asyncio

from sync.adapters.memory import MemoryPresence
from sync.adapters.redis import Link, RedisPresence
from sync.model.event import FeedPosition, Session, SessionChange, SessionEvent, SessionState
from sync.ports import Presence
from tests.cluster import warm
from tests.contract.fakes_observer import RecordingObserver

HOST, ANN, BEN = "ex.org", "ann@ex.org", "ben@ex.org"
PHONE = Session("phone", SessionState.ACTIVE)
WEB = Session("web", SessionState.INACTIVE)


AT = datetime(2026, 11, 5, tzinfo=UTC)
ACKED = datetime(2026, 11, 4, 23, 59, 59, 123456, tzinfo=UTC)


def event(
    change: SessionChange, resource: str = "phone", account: str = ANN, acked_at: datetime | None = None
) -> SessionEvent:
    position = FeedPosition("ex.org", "s", "0", 1)
    return SessionEvent(position=position, account=account, at=AT, resource=resource, change=change, acked_at=acked_at)


@pytest_asyncio.fixture(loop_scope="session", params=["memory", "redis", "cluster"])
async def presence(request: pytest.FixtureRequest, redis_url: str, cluster_urls: list[str]) -> AsyncIterator[Presence]:
    if request.param == "memory":
        yield MemoryPresence()
        return
    urls = [redis_url] if request.param == "redis" else cluster_urls
    observer = RecordingObserver()
    link = Link(urls[0], cluster=urls[1:], observer=observer)
    await warm(link, HOST)
    player = RedisPresence(link, observer=observer)
    yield player
    await player.close()
    await link.close()


async def test_nothing_is_known_before_the_host_was_asked(presence: Presence) -> None:
    await presence.apply([event(SessionChange.AVAILABLE)])
    assert await presence.sessions(ANN) is None
    assert not await presence.complete(HOST)


async def test_after_a_reset_absence_is_certain(presence: Presence) -> None:
    await presence.reset(HOST, {})
    assert await presence.sessions(ANN) == ()
    assert await presence.complete(HOST)


async def test_a_reset_brings_all_sessions_in_the_order_of_resources(presence: Presence) -> None:
    await presence.reset(HOST, {ANN: [WEB, PHONE], BEN: []})
    assert await presence.sessions(ANN) == (PHONE, WEB)
    assert await presence.sessions(BEN) == ()


async def test_a_reset_forgets_what_it_does_not_name(presence: Presence) -> None:
    await presence.reset(HOST, {ANN: [PHONE], BEN: [WEB]})
    await presence.reset(HOST, {BEN: [PHONE]})
    assert await presence.sessions(ANN) == ()
    assert await presence.sessions(BEN) == (PHONE,)


async def test_one_host_vouches_for_no_other(presence: Presence) -> None:
    await presence.reset("other.org", {"ann@other.org": [PHONE], ANN: [PHONE]})
    assert await presence.sessions(ANN) is None
    await presence.reset(HOST, {})
    assert await presence.sessions(ANN) == ()
    assert await presence.sessions("ann@other.org") == (PHONE,)


async def test_many_accounts_are_looked_up_at_a_time(presence: Presence) -> None:
    await presence.reset(HOST, {ANN: [WEB, PHONE]})
    elsewhere = "ann@other.org"
    assert await presence.sessions_of([ANN, BEN, elsewhere]) == {ANN: (PHONE, WEB), BEN: (), elsewhere: None}
    many = [f"user{n}@{HOST}" for n in range(150)]
    assert await presence.sessions_of(many) == dict.fromkeys(many, ())
    assert await presence.sessions_of([]) == {}


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ([SessionChange.BOUND], SessionState.BOUND),
        ([SessionChange.BOUND, SessionChange.AVAILABLE], SessionState.ACTIVE),
        ([SessionChange.AVAILABLE, SessionChange.INACTIVE], SessionState.INACTIVE),
        ([SessionChange.INACTIVE, SessionChange.ACTIVE], SessionState.ACTIVE),
        ([SessionChange.AVAILABLE, SessionChange.UNAVAILABLE], SessionState.BOUND),
        ([SessionChange.AVAILABLE, SessionChange.HIBERNATED], SessionState.HIBERNATED),
        ([SessionChange.HIBERNATED, SessionChange.RESUMED], SessionState.ACTIVE),
        ([SessionChange.AVAILABLE, SessionChange.UNBOUND], None),
        ([SessionChange.UNBOUND], None),
        ([SessionChange.UNBOUND, SessionChange.BOUND], SessionState.BOUND),
    ],
)
async def test_changes_take_effect_in_their_order(
    presence: Presence, changes: list[SessionChange], state: SessionState | None
) -> None:
    await presence.reset(HOST, {})
    await presence.apply([event(change) for change in changes])
    assert await presence.sessions(ANN) == ((Session("phone", state),) if state else ())


async def test_how_far_a_hibernated_client_has_everything_is_kept_until_it_is_back(presence: Presence) -> None:
    asleep = Session("phone", SessionState.HIBERNATED, ACKED)
    await presence.reset(HOST, {ANN: [asleep]})
    assert await presence.sessions(ANN) == (asleep,)
    await presence.apply([event(SessionChange.RESUMED)])
    assert await presence.sessions(ANN) == (PHONE,)
    await presence.apply([event(SessionChange.HIBERNATED, acked_at=AT)])
    assert await presence.sessions(ANN) == (Session("phone", SessionState.HIBERNATED, AT),)


async def test_sessions_of_one_account_come_and_go_apart(presence: Presence) -> None:
    await presence.reset(HOST, {ANN: [PHONE]})
    await presence.apply([event(SessionChange.AVAILABLE, "web"), event(SessionChange.AVAILABLE, account=BEN)])
    await presence.apply([event(SessionChange.UNBOUND, "phone"), event(SessionChange.INACTIVE, "web")])
    assert await presence.sessions(ANN) == (WEB,)
    assert await presence.sessions(BEN) == (PHONE,)


async def test_resources_may_be_anything(presence: Presence) -> None:
    odd = Session("ü \x7f{}*" + "x" * 1000, SessionState.ACTIVE)
    await presence.reset(HOST, {ANN: [odd]})
    assert await presence.sessions(ANN) == (odd,)


async def test_a_large_host_fits(presence: Presence) -> None:
    await presence.reset(HOST, {f"user{n}@ex.org": [PHONE] for n in range(1501)})
    await presence.reset(HOST, {f"user{n}@ex.org": [WEB] for n in range(700)})
    assert await presence.sessions("user699@ex.org") == (WEB,)
    assert await presence.sessions("user1500@ex.org") == ()


async def test_after_closing_nothing_is_vouched_for(presence: Presence) -> None:
    await presence.reset(HOST, {ANN: [PHONE]})
    await presence.close()
    assert await presence.sessions(ANN) is None
