"""The module's `hello` and `sessions` (docs/feed.md §2, §8): what it holds, what it lost, who is connected.

Only reads; what a gap between what both sides claim means is decided elsewhere (§6). Sessions of other domains than
the host's are left out (domain rule); states of later versions, too.
"""

from dataclasses import dataclass
from xml.etree.ElementTree import Element

from sync.model.event import Session, SessionState
from sync.model.jid import MAX_JID_BYTES, bare, domain, resource
from sync.protocol.feed import FrameError, count, key
from sync.protocol.fields import moment, number, storable
from sync.protocol.names import FEED, clark

HELLO = clark(FEED, "hello")
SESSIONS = clark(FEED, "sessions")
VERSION = 1
_STREAM, _REGRESSED, _SESSION = clark(FEED, "stream"), clark(FEED, "regressed"), clark(FEED, "session")
_UNSUPPORTED = clark(FEED, "unsupported-version")
_STATES = {state.value: state for state in SessionState}


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldStream:
    """What the module still holds of a stream: n from `low` to `high` (`low` = `high` + 1: nothing)."""

    id: str
    low: int
    high: int
    acked: int
    current: bool


@dataclass(frozen=True, slots=True)
class PresentSession:
    """A session of an account of the host."""

    account: str
    session: Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """The module's answer to a subscription. `streams` oldest first; at least one is current. `regressed`: streams of
    which the component has acknowledged more than it claims now. `rooms`: the host keeps rooms and no accounts.
    """

    host: str
    shard: str
    server: str
    server_version: str
    module_version: str
    ordered_archive: bool
    streams: tuple[HeldStream, ...]
    regressed: tuple[str, ...]
    sessions: tuple[PresentSession, ...]
    rooms: bool = False


def decode_hello(hello: Element, *, host: str) -> Hello:
    """A `<hello/>` that came from `host`. Raises FrameError."""
    if hello.tag != HELLO:
        raise FrameError("'hello' is missing.")
    if count(hello, "version") != VERSION:
        raise FrameError("'version' is not the one that was asked for.")
    if hello.get("host") != host:
        raise FrameError("'host' is not the sender.")
    elements = hello.findall(_STREAM)
    if not elements:
        raise FrameError("There must be a current stream.")
    # §2: each node of a cluster may have one; where none says so, it is the last one.
    current = [element for element in elements if element.get("current") == "true"] or elements[-1:]
    return Hello(
        host=host,
        shard=key(hello, "shard"),
        server=hello.get("server", ""),
        server_version=hello.get("server-version", ""),
        module_version=hello.get("module-version", ""),
        ordered_archive=hello.get("ordered-archive") == "true",
        streams=tuple(_held(element, element in current) for element in elements),
        regressed=tuple(key(element, "stream") for element in hello.iterfind(_REGRESSED)),
        sessions=_sessions(hello, host),
        rooms=hello.get("rooms") == "true",
    )


def versions_of(refusal: Element) -> tuple[int, ...] | None:
    """The versions that the module speaks, out of its refusal of ours (§2); None where it says nothing of versions."""
    for element in refusal.iter(_UNSUPPORTED):
        found = (number(text) for text in element.get("versions", "").replace(",", " ").split()[:16])
        return tuple(sorted(version for version in found if version is not None))
    return None


def decode_sessions(sessions: Element, *, host: str) -> tuple[PresentSession, ...]:
    """The answer to a request for all sessions. Raises FrameError."""
    if sessions.tag != SESSIONS:
        raise FrameError("'sessions' is missing.")
    return _sessions(sessions, host)


def _held(element: Element, current: bool) -> HeldStream:
    low, high, acked = count(element, "low"), count(element, "high"), count(element, "acked")
    if low > high + 1:
        raise FrameError("'low' is beyond 'high'.")
    return HeldStream(id=key(element, "id"), low=low, high=high, acked=acked, current=current)


def _sessions(element: Element, host: str) -> tuple[PresentSession, ...]:
    found = []
    for child in element.iterfind(_SESSION):
        jid, state = child.get("jid", ""), _STATES.get(child.get("state", ""))
        name = resource(jid)
        if state is None or name is None or not storable(jid) or len(jid.encode()) > MAX_JID_BYTES:
            continue
        if "@" in bare(jid) and domain(jid) == host:
            acked = moment(child.get("acked")) if state is SessionState.HIBERNATED else None
            found.append(PresentSession(bare(jid), Session(name, state, acked)))
    return tuple(found)
