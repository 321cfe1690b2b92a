"""Devices, push jobs and the ledger: what may be pushed where, what is due, and what became of it."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum

from sync.model.conversation import ConversationKey, Kind
from sync.model.jid import domain
from sync.model.push import Environment
from sync.model.wishes import NO_WISHES, Wishes


@dataclass(frozen=True, slots=True)
class SealedToken:
    """A push token that only the sender can read. `digest` (32 bytes) is the same for the same token, so that it can
    be compared.
    """

    digest: bytes = field(repr=False)
    sealed: bytes = field(repr=False, compare=False)


class Route(StrEnum):
    """The way to a device."""

    APNS = "apns"
    PUBLISH = "publish"  # to an app server that is not ours, which knows the way on (XEP-0357)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One registered phone of an account.

    `node` names the registration to XEP-0357, `enabled` once the user's server was told to push to it, with `wishes`.
    `bound_to` is the resource that last spoke for the device (DESIGN §3); None = unbound. `woken_*` describe the newest
    wake, up to when the push service keeps what is unfetched, and `fetched_*` the newest query of the device; `chased`
    counts the wakes of kind sync since. Of route `publish` the app is the app server's JID, and the alert
    token its node and publish-options (`sync.protocol.publish.written`); `failures` counts its refusals in a row since
    `failing_since`.
    """

    account: str
    device_id: str
    route: Route = Route.APNS
    app: str
    environment: Environment
    alert_token: SealedToken
    voip_token: SealedToken | None = None
    node: str = ""
    secret_digest: bytes = field(default=b"", repr=False)
    name: str | None = None
    enabled: bool = False
    wishes: Wishes = NO_WISHES
    bound_to: str | None = None
    registered_at: datetime
    woken_version: int = 0
    woken_at: datetime | None = None
    woken_until: datetime | None = None
    chased: int = 0
    fetched_version: int = 0
    fetched_at: datetime | None = None
    failures: int = 0
    failing_since: datetime | None = None

    @property
    def queue(self) -> str:
        """The way that its pushes take, and wait for together: what stops one of them stops all."""
        return f"{self.route}:{self.app if self.route is Route.APNS else domain(self.app)}"

    @property
    def is_registered(self) -> bool:
        """False for a phone of which only publishes to its token are known: it has no secret."""
        return self.route is not Route.APNS or self.secret_digest != b""

    @property
    def rings(self) -> bool:
        """True where a call can be pushed as one: there is a VoIP token, or the client reads calls that an app server
        is told of.
        """
        if self.route is Route.PUBLISH:
            return self.wishes.jingle and self.wishes.encrypt is not None
        return self.voip_token is not None

    @property
    def wake_unfetched(self) -> bool:
        """True while the newest wake has not been answered by a query."""
        return self.woken_version > self.fetched_version


class Lane(IntEnum):
    """The order in which due jobs are claimed."""

    CALLS = 1
    MESSAGES = 2
    UPDATES = 3


class PushKind(StrEnum):
    """What a push tells the app (`x.k` of the payload)."""

    MESSAGE = "message"
    CALL = "call"  # the ringing itself: VoIP where there is a token, an alert otherwise
    CALL_FALLBACK = "call-fallback"  # an alert for a call that was pushed as VoIP and not fetched, or is uncertain
    CALL_END = "callend"  # answered or declined elsewhere
    MISSED = "missed"
    CORRECTED = "corrected"
    WITHDRAW = "withdraw"
    READ = "read"
    REACTED = "reacted"
    INVITED = "invited"
    SUBSCRIPTION = "subscription"
    REMOVED = "removed"  # the account is no more; never in the queue (`sync.rules.farewell`)
    SYNC = "sync"  # nothing new: a wake may have been lost, or a phone has not come to the end
    TEST = "test"  # an operator's (`convsync push-test`); as VoIP it rings


class JobState(StrEnum):
    """queued → attempted → done. A job that is `attempted` without an outcome left for the vendor and nobody knows
    more.
    """

    QUEUED = "queued"
    ATTEMPTED = "attempted"
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class PushJob:
    """One push that is due, under way, or done; done rows are the ledger.

    `job_id` is a random UUID and the push's apns-id. `version` is the account version that the push announces, 0: none.
    `peer`/`sid` name the call of call pushes, `peer` and `about`, its kind, the conversation of others. `voip`: goes to
    the VoIP token. `silent`: without sound. `not_before` and `deadline` bound the time of sending. `target_rank`: the
    message that a correction or withdrawal is about. `joined`: how many later events it speaks for. `outcome` is a
    Verdict's value or `suppressed:<why>`, `status` and `reason` are the vendor's (of a queued job `quiet`: it is kept
    for the end of quiet hours), `done_at` is when the outcome was recorded. `repeat` counts how often the wake was sent
    again because it stayed unfetched. `queue` is its device's.
    """

    account: str
    job_id: str
    device_id: str
    lane: Lane
    kind: PushKind
    version: int
    peer: str
    about: Kind = Kind.CHAT
    sid: str | None = None
    voip: bool = False
    silent: bool = False
    collapse: str | None = None
    target_rank: int | None = None
    joined: int = 0
    queue: str = ""
    created_at: datetime
    not_before: datetime
    deadline: datetime
    state: JobState = JobState.QUEUED
    attempts: int = 0
    repeat: int = 0
    attempted_at: datetime | None = None
    outcome: str | None = None
    status: int | None = None
    reason: str | None = None
    done_at: datetime | None = None

    @property
    def published(self) -> bool:
        """True where another server asked for the push (XEP-0357 §7): what it is about is not known here."""
        return self.kind is PushKind.MESSAGE and self.version == 0

    @property
    def conversation(self) -> ConversationKey | None:
        """The conversation that the push is about; None where it is about several."""
        return conversation_of(self.account, self.peer, self.about)


def conversation_of(account: str, peer: str, about: Kind) -> ConversationKey | None:
    """The key of a job's conversation, None where it has none."""
    return ConversationKey(account, peer, about) if peer else None
