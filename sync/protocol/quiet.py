"""Our own dialect's `quiet`: when an account wants to be left alone, in a `set` and in answers and notices
(docs/protocol.md). Whether a zone exists is for the rules to say, which are given the zones.
"""

import re
from datetime import datetime, time
from xml.etree.ElementTree import Element

from sync.model.errors import BadRequest
from sync.model.quiet import FOR_EVER, Hours, Quiet
from sync.protocol.conversations import stamp
from sync.protocol.fields import boolean, instant
from sync.protocol.names import CONVSYNC, clark
from sync.protocol.strict import only

QUIET = clark(CONVSYNC, "quiet")
_HOURS = ("from", "to", "zone")
_GIVEN = frozenset({"until", "calls", *_HOURS})
_TIME = re.compile(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]")
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+)*")
_MAX_ZONE = 64  # the longest name of the database has half of that


def read_quiet(element: Element) -> Quiet | None:
    """A `quiet` of a request; None = from now on there is to be none. Raises BadRequest naming the attribute."""
    only(element, _GIVEN)
    given = element.attrib
    if not _GIVEN & given.keys():
        return None
    missing = [name for name in _HOURS if name not in given]
    if missing and len(missing) < len(_HOURS):
        raise BadRequest(f"'{missing[0]}' is missing: hours have 'from', 'to' and 'zone'.")
    if missing and "until" not in given:
        raise BadRequest("'calls' says nothing without 'until' or hours.")
    return Quiet(
        until=None if "until" not in given else _until(given["until"]),
        hours=None if missing else _hours(given),
        calls=boolean(given["calls"], "calls") if "calls" in given else False,
    )


def _until(text: str) -> datetime:
    return FOR_EVER if text == "forever" else instant(text, "until")


def _hours(given: dict[str, str]) -> Hours:
    begin, end = _time(given["from"], "from"), _time(given["to"], "to")
    if begin == end:
        raise BadRequest("'from' and 'to' must not be the same.")
    zone = given["zone"]
    if len(zone) > _MAX_ZONE or not _ZONE.fullmatch(zone):
        raise BadRequest("'zone' is no time zone of the IANA database.")
    return Hours(begin, end, zone)


def _time(text: str, field: str) -> time:
    if not _TIME.fullmatch(text):
        raise BadRequest(f"'{field}' must be a time of the day like 07:30.")
    return time.fromisoformat(text)


def quiet_element(quiet: Quiet | None, now: datetime) -> Element | None:
    """What an answer says of it; None where nothing holds, now or later."""
    if quiet is None:
        return None
    said: dict[str, str] = {}
    if quiet.until is not None and quiet.until > now:
        said["until"] = "forever" if quiet.until == FOR_EVER else stamp(quiet.until)
    if (hours := quiet.hours) is not None:
        said |= {"from": f"{hours.begin:%H:%M}", "to": f"{hours.end:%H:%M}", "zone": hours.zone}
    if not said:
        return None
    if quiet.calls:
        said["calls"] = "true"
    return Element(QUIET, said)
