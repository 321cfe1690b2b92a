"""One app on one simulated device: what APNs keeps for it while it is offline, and what happens to what reaches it.

Pure: every method is given the time (epoch seconds) and first lets happen what was due by then. Sources are Apple's
pages: one stored notification for each topic, the newest; at most 30 days; background pushes at most two or three in an
hour, of those held back the newest; what is held is lost when the app is killed. It knows nothing of tokens and HTTP.
"""

from collections import Counter
from dataclasses import dataclass

from sync.sandbox.apns.arrival import Arrival
from sync.sandbox.apns.reports import Deed, Report
from sync.sandbox.apns.ringer import CallState, Ringer
from sync.sandbox.apns.screen import Screen, Shown

LONGEST_SECONDS = 30 * 86_400  # "it may store the notification for 30 days or less"
EXTENSION_SECONDS = 30.0  # PUSH §1: a notification service extension has 20 to 30 s
_HOUR = 3600.0


class NotSo(ValueError):
    """A report that cannot be true: the sentence names the field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A device as it is described: tokens as hex in lower case. `call_at`: where a VoIP payload names its call."""

    id: str
    app: str
    alert_token: str | None = None
    voip_token: str | None = None
    online: bool = True
    focus: bool = False
    filtering: bool = False
    call_at: str = "x.c"
    grace: float = 5.0
    background_per_hour: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is different from now on; None: as before."""

    online: bool | None = None
    focus: bool | None = None
    filtering: bool | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """A push that waits at APNs, until that time."""

    push: Arrival
    until: float


class Device:
    """State of what was described, newly set up."""

    def __init__(self, description: Description) -> None:
        self.description = description
        self.online, self.focus, self.filtering = description.online, description.focus, description.filtering
        self.stored: dict[str, Stored] = {}  # by topic, in the order in which they came
        self.held: Arrival | None = None
        self.screen, self.ringer = Screen(), Ringer(description.grace)
        self.counts: Counter[str] = Counter()
        self._background: list[float] = []  # when background pushes reached the app

    def arrive(self, push: Arrival, told: CallState | None, now: float) -> None:
        """APNs has accepted this push; `told`: what is known of the call that it names."""
        self.advance(now)
        self.counts["accepted"] += 1
        if self.online:
            self._deliver(push, told, now)
        elif push.expiration == 0:
            self.counts["lost"] += 1
        else:
            if self.stored.pop(push.topic, None) is not None:
                self.counts["replaced"] += 1
            self.stored[push.topic] = Stored(push, min(push.expiration or now + LONGEST_SECONDS, now + LONGEST_SECONDS))

    def change(self, change: Change, told: dict[str, CallState], now: float) -> None:
        """Go online or offline, and so on. Coming online delivers what is stored; `told`: what is known of calls."""
        self.advance(now)
        self.focus = self.focus if change.focus is None else change.focus
        self.filtering = self.filtering if change.filtering is None else change.filtering
        self.online = self.online if change.online is None else change.online
        if self.online:
            waiting, self.stored = list(self.stored.values()), {}
            for one in waiting:
                self._deliver(one.push, told.get(self.call(one.push) or ""), now)

    def advance(self, now: float) -> None:
        """What was due by now has happened."""
        for topic in [topic for topic, one in self.stored.items() if one.until <= now]:
            del self.stored[topic]
            self.counts["expired"] += 1
        if self.ringer.advance(now):
            self._killed()
        self._background = [at for at in self._background if at > now - _HOUR]
        if self.held is not None and self.online and len(self._background) < self.description.background_per_hour:
            self.held = None
            self._background.append(now)
            self.counts["delivered"] += 1

    def call(self, push: Arrival) -> str | None:
        """The call that this push names, where VoIP payloads of this app name it."""
        return push.named(self.description.call_at)

    def report(self, report: Report, now: float) -> None:
        """The app says what it did. Raises NotSo where iOS would not have let it."""
        self.advance(now)
        if report.did is Deed.RANG:
            self.ringer.reported(report.call)
            return
        one = self.screen.find(report.push)
        if one is None:
            raise NotSo("push: no such notification is shown")
        if report.did is not Deed.REMOVED:
            self._check_extension(report, one, now)
        if report.did is Deed.CHANGED:
            self.screen.change(one, report.alert)
        else:
            self.screen.remove(one)
        self.counts[report.did.value] += 1

    def _check_extension(self, report: Report, one: Shown, now: float) -> None:
        if one.push.aps.get("mutable-content") != 1:
            raise NotSo("push: without mutable-content no extension is asked")
        if now - one.at > EXTENSION_SECONDS:
            raise NotSo(f"push: an extension has {EXTENSION_SECONDS:g} s, then the notification is shown as it came")
        if report.did is Deed.DROPPED and not self.filtering:
            raise NotSo("did: without the filtering entitlement every alert is shown")

    def _deliver(self, push: Arrival, told: CallState | None, now: float) -> None:
        if push.push_type == "voip":
            self._deliver_voip(push, told, now)
        elif push.push_type == "background" and len(self._background) >= self.description.background_per_hour:
            if self.held is not None:
                self.counts["replaced"] += 1
            self.held = push
        else:
            if push.push_type == "background":
                self._background.append(now)
            self.counts["delivered"] += 1
            if push.push_type == "alert" and self.screen.show(push, now, focus=self.focus):
                self.counts["shown"] += 1

    def _deliver_voip(self, push: Arrival, told: CallState | None, now: float) -> None:
        if self.ringer.banned:
            self.counts["withheld"] += 1
            return
        self.counts["delivered"] += 1
        before = self.ringer.strikes
        self.ringer.pushed(self.call(push), told, now)
        if self.ringer.strikes > before:
            self._killed()

    def _killed(self) -> None:
        if self.held is not None:
            self.held = None
            self.counts["lost"] += 1
