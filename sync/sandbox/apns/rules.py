"""What the simulated APNs refuses in a request, as one table in the order in which it is asked.

Decides from the request and the list of apps alone: whether the provider token is good is `provider`'s, whether the
device exists is `registry`'s. Rows cite PUSH §2, which was gathered from Apple's "Sending notification requests to
APNs".
"""

import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

PATH = "/3/device/"
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_HEX = re.compile(r"([0-9a-fA-F]{2})+")
_DIGITS = re.compile(r"[0-9]{1,18}")
_COLLAPSE_ID = re.compile(r".{1,64}")  # header values are read as Latin-1, so a character is a byte
_DEEPEST = 500  # levels; Python's own limit lies at about twice that
_BUNDLE_ID = re.compile(r"[A-Za-z0-9.-]+")
# What a type puts behind the bundle id; Apple's list of apns-push-type values.
TOPIC_SUFFIX = {
    "alert": "",
    "background": "",
    "voip": ".voip",
    "complication": ".complication",
    "controls": ".push-type.controls",
    "fileprovider": ".pushkit.fileprovider",
    "liveactivity": ".push-type.liveactivity",
    "location": ".location-query",
    "mdm": "",
    "pushtotalk": ".voip-ptt",
    "widgets": ".push-type.widgets",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An answer that is not 200. `timestamp_ms` only goes with 410."""

    status: int
    reason: str
    timestamp_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """A request as it arrived, nothing checked: header values are text or None, `payload` None unless a JSON object."""

    method: str
    path: str
    names: tuple[str, ...]
    authorization: str | None
    topic: str | None
    declared_type: str | None
    priority: str | None
    expiration: str | None
    collapse_id: str | None
    apns_id: str | None
    body: bytes
    payload: dict[str, object] | None

    @property
    def token(self) -> str:
        """The device token that the path names, empty where it names none."""
        return self.path.removeprefix(PATH) if self.path.startswith(PATH) else ""

    @property
    def push_type(self) -> str:
        """The declared type; without one APNs guesses, and so do we: by the topic, else alert."""
        return self.declared_type or ("voip" if (self.topic or "").endswith(".voip") else "alert")

    def shows(self) -> bool:
        """Whether the payload asks the system to show, play or count something."""
        aps = (self.payload or {}).get("aps")
        return isinstance(aps, dict) and any(aps.get(key) is not None for key in ("alert", "sound", "badge"))

    def alerts(self) -> bool:
        """Whether the payload has an alert."""
        aps = (self.payload or {}).get("aps")
        return isinstance(aps, dict) and aps.get("alert") is not None


def _loaded(body: bytes) -> object:
    """The JSON value, None where it is none or is nested so deeply that the log could not hold it."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if body.count(b"[") + body.count(b"{") <= _DEEPEST:
        return value  # the usual case, without a look
    level, depth = [value], 0
    while level and depth <= _DEEPEST:
        inside = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        level, depth = [each for one in inside for each in one], depth + 1
    return None if level else value


def read(headers: list[tuple[bytes, bytes]], body: bytes) -> Push:
    """The request made of these header pairs (pseudo-headers included) and this body."""
    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
    first = dict(reversed(pairs))
    payload = _loaded(body)
    return Push(
        method=first.get(":method", ""),
        path=first.get(":path", ""),
        names=tuple(name for name, _ in pairs),
        authorization=first.get("authorization"),
        topic=first.get("apns-topic"),
        declared_type=first.get("apns-push-type"),
        priority=first.get("apns-priority"),
        expiration=first.get("apns-expiration"),
        collapse_id=first.get("apns-collapse-id"),
        apns_id=first.get("apns-id"),
        body=body,
        payload=payload if isinstance(payload, dict) else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Refuse with `status` and `reason` where `when` holds; `because` is the sentence behind it."""

    when: Callable[[Push, Collection[str]], bool]
    status: int
    reason: str
    because: str


def _fits(form: re.Pattern[str], value: str | None) -> bool:
    return value is None or form.fullmatch(value) is not None


def _limit_bytes(push: Push) -> int:
    return 5120 if push.push_type == "voip" else 4096


def _repeated(push: Push) -> bool:
    ours = [name for name in push.names if name.startswith("apns-") or name == "authorization"]
    return len(ours) != len(set(ours))


def _wrong_topic(push: Push, apps: Collection[str]) -> bool:
    suffix = TOPIC_SUFFIX[push.push_type]
    return push.topic not in {app + suffix for app in apps}


def _topic_of_another_type(push: Push, apps: Collection[str]) -> bool:
    return _wrong_topic(push, apps) and push.topic in {app + end for app in apps for end in TOPIC_SUFFIX.values()}


def _is_background(push: Push) -> bool:
    return push.push_type == "alert" and push.priority == "5" and not push.shows()


def _rule(status: int, reason: str, when: Callable[[Push, Collection[str]], bool], because: str) -> Rule:
    return Rule(when=when, status=status, reason=reason, because=because)


# Asked before the provider token, which belongs to a request that is one.
ENVELOPE: tuple[Rule, ...] = (
    _rule(405, "MethodNotAllowed", lambda p, _: p.method != "POST", "POST only"),
    _rule(400, "MissingDeviceToken", lambda p, _: p.path.rstrip("/") == "/3/device", "/3/device/<hex>: the token"),
    _rule(404, "BadPath", lambda p, _: not p.path.startswith(PATH), "/3/device/<hex>: the path"),
    _rule(400, "DuplicateHeaders", lambda p, _: _repeated(p), "each header once"),
)
# Asked after it.
CONTENT: tuple[Rule, ...] = (
    _rule(400, "BadMessageId", lambda p, _: not _fits(_UUID, p.apns_id), "apns-id lower-case UUID"),
    _rule(400, "BadExpirationDate", lambda p, _: not _fits(_DIGITS, p.expiration), "epoch seconds, 0 = now or never"),
    _rule(400, "InvalidPushType", lambda p, _: p.push_type not in TOPIC_SUFFIX, "alert, background, voip, …"),
    _rule(400, "BadPriority", lambda p, _: p.priority not in {None, "10", "5", "1"}, "10, 5 or 1"),
    # A missing priority is 10 (Apple), so it is refused here too.
    _rule(400, "BadPriority", lambda p, _: p.push_type == "background" and p.priority != "5", "background only 5"),
    _rule(400, "BadCollapseId", lambda p, _: not _fits(_COLLAPSE_ID, p.collapse_id), "apns-collapse-id ≤ 64 bytes"),
    _rule(400, "MissingTopic", lambda p, _: not p.topic, "apns-topic: a provider token names no app"),
    _rule(400, "BadTopic", lambda p, _: not _fits(_BUNDLE_ID, p.topic), "apns-topic bundle id"),
    _rule(400, "BadTopic", _topic_of_another_type, ".voip for voip, and for voip only"),
    _rule(400, "TopicDisallowed", _wrong_topic, "one team per connection: this team's apps"),
    _rule(400, "PayloadEmpty", lambda p, _: not p.body, "there is a payload"),
    _rule(413, "PayloadTooLarge", lambda p, _: len(p.body) > _limit_bytes(p), "payload ≤ 4,096 bytes, voip ≤ 5,120"),
    # Apple's list has no reason for a payload that is not JSON; to APNs there is then nothing in it.
    _rule(400, "PayloadEmpty", lambda p, _: not p.payload, "the payload is a JSON object with members"),
    _rule(400, "InvalidPushType", lambda p, _: p.push_type == "background" and p.alerts(), "background: no alert"),
    _rule(400, "InvalidPushType", lambda p, _: _is_background(p), "priority 5 with nothing to show is background"),
    _rule(400, "BadDeviceToken", lambda p, _: not _fits(_HEX, p.token), "/3/device/<hex>, length not fixed"),
)


def refusal(rules: tuple[Rule, ...], push: Push, apps: Collection[str]) -> Refusal | None:
    """The first of these rules that refuses this push to an app of that team, or None."""
    for rule in rules:
        if rule.when(push, apps):
            return Refusal(status=rule.status, reason=rule.reason)
    return None
