"""What a push says (PUSH §5): an opaque account tag, a kind, a version or a deadline; never a name, a JID or a text.

The words that iOS shows when the app's extension does not finish in time are localisation keys of the app.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from uuid import UUID

from sync.model.call import Call
from sync.model.device import PushJob, PushKind
from sync.model.push import PushRequest, PushType
from sync.rules.claims import Claim

NOW_OR_NEVER = 0
HIGH = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """An app's localisation keys and its sounds; `ring` is that of a call. `badge`: its icon bears how many messages
    are unread, which the push service then sees.
    """

    message: str = "message.new"
    call: str = "call.incoming"
    missed: str = "call.missed"
    update: str = "conversation.updated"
    invited: str = "invitation.new"
    subscription: str = "contact.request"
    removed: str = "account.removed"
    sound: str = "default"
    ring: str = "default"
    badge: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Opaque names, made by the caller with a key: `account` tags the account, `call` a call (16 bytes, None = no
    call), `continued` the one that goes on in it.
    """

    account: str
    call: bytes | None = None
    continued: bytes | None = None


WORDS: Mapping[PushKind, str] = {
    PushKind.MESSAGE: "message",
    PushKind.CALL: "call",
    PushKind.CALL_FALLBACK: "call",
    PushKind.CALL_END: "update",
    PushKind.MISSED: "missed",
    PushKind.CORRECTED: "update",
    PushKind.WITHDRAW: "update",
    PushKind.READ: "update",
    PushKind.REACTED: "update",
    PushKind.INVITED: "invited",
    PushKind.SUBSCRIPTION: "subscription",
    PushKind.SYNC: "update",
    PushKind.REMOVED: "removed",
    PushKind.TEST: "message",
}
# PUSH §5: the rows that show something make a sound, the others only change what is shown.
AUDIBLE = frozenset(
    {
        PushKind.MESSAGE,
        PushKind.CALL,
        PushKind.CALL_FALLBACK,
        PushKind.MISSED,
        PushKind.INVITED,
        PushKind.SUBSCRIPTION,
        PushKind.REMOVED,
        PushKind.TEST,
    }
)
RINGS = frozenset({PushKind.CALL, PushKind.CALL_FALLBACK})


def request(claim: Claim, token: str, names: Names, wording: Wording, *, time_sensitive: bool = False) -> PushRequest:
    """The push of a claimed job."""
    job, device = claim.job, claim.device
    payload = voip(claim, names) if job.voip else alert(claim, names, wording, time_sensitive=time_sensitive)
    return PushRequest(
        app=device.app,
        environment=device.environment,
        token=token,
        push_type=PushType.VOIP if job.voip else PushType.ALERT,
        priority=HIGH,
        expiration=NOW_OR_NEVER if job.voip else int(job.deadline.timestamp()),
        collapse_id=None if job.voip else collapse_id(job, names),
        apns_id=job.job_id,
        payload=payload,
    )


def alert(claim: Claim, names: Names, wording: Wording, *, time_sensitive: bool) -> dict[str, object]:
    """A filtered high-priority alert."""
    job = claim.job
    aps: dict[str, object] = {
        "alert": {"loc-key": getattr(wording, WORDS[job.kind])},
        "mutable-content": 1,
    }
    if job.kind in AUDIBLE and not job.silent:
        aps["sound"] = wording.ring if job.kind in RINGS else wording.sound
    if wording.badge:
        aps["badge"] = claim.account.unread if job.kind is not PushKind.REMOVED else 0
    if time_sensitive and job.kind in RINGS:
        aps["interruption-level"] = "time-sensitive"
    kind = PushKind.CALL if job.kind is PushKind.CALL_FALLBACK else job.kind
    extra: dict[str, object] = {"a": names.account, "k": kind.value, "v": job.version}
    if job.kind is PushKind.TEST:
        extra["n"] = job.job_id
    if names.call is not None:
        extra["c"] = call_uuid(names.call)
        if claim.call is not None and job.kind in RINGS:
            extra |= call_extra(claim.call, names)
    return {"aps": aps, "x": extra}


def voip(claim: Claim, names: Names) -> dict[str, object]:
    """A push that rings: what CallKit needs at once, nothing else."""
    extra: dict[str, object] = {"a": names.account, "k": PushKind.CALL.value, "v": claim.job.version}
    if names.call is not None and claim.call is not None:
        extra |= {"c": call_uuid(names.call), **call_extra(claim.call, names)}
    if claim.job.kind is PushKind.TEST:  # a call to every app, since what wakes by VoIP has to ring
        extra["n"] = claim.job.job_id
    return {"x": extra}


def call_extra(call: Call, names: Names) -> dict[str, object]:
    """Until when it rings, with what, and which call it continues."""
    extra: dict[str, object] = {"exp": int(call.rings_until.timestamp()), "m": " ".join(call.media)}
    return extra if names.continued is None else extra | {"p": call_uuid(names.continued)}


def call_uuid(name: bytes) -> str:
    """The UUID that the app uses with CallKit: the same for every push about the call, so that it cannot ring twice."""
    return str(UUID(bytes=name[:16], version=4))


# What an app needs to fetch, and to ring.
_NEEDED = {"aps": ("alert", "mutable-content"), "x": ("a", "k", "v", "c", "exp", "m", "n")}


def shrunk(made: PushRequest) -> PushRequest | None:
    """The push without what can be left out; None where that is nothing (PUSH §2, 413)."""
    less: dict[str, object] = {}
    for part, needed in _NEEDED.items():
        said = made.payload.get(part)
        if isinstance(said, Mapping):
            less[part] = {key: said[key] for key in needed if key in said}
    return None if less == made.payload else replace(made, payload=less)


def collapse_id(job: PushJob, names: Names) -> str | None:
    """`apns-collapse-id`: one notification for each account, stranger's message, or call (at most 64 bytes)."""
    if job.collapse is None:
        return None
    if job.collapse == "c":
        return f"c:{(names.call or b'').hex()[:32]}"
    return f"{job.collapse}:{names.account}"
