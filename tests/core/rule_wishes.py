"""What devices ask for with their `enable`, when an account wants to be left alone, and phones that ask in pages: steps
of the vectors, in their words.
"""

from datetime import time
from functools import partial
from typing import TYPE_CHECKING

from sync.adapters.zones import zone
from sync.model.books import Keys
from sync.model.quiet import FOR_EVER, Hours, Quiet
from sync.model.wishes import NO_WISHES, Allow, RoomWish, Wishes
from sync.rules.backlog import begun
from sync.rules.quiet import keep_quiet
from tests.contract.samples import after
from tests.core.rule_feed import Options, own, yes

if TYPE_CHECKING:
    from tests.core.rule_vectors import World


def wishes(options: Options) -> Wishes:
    """`muted=` and `rooms=` are lists with commas, a room is `jid:allow`; `unknown=no`: nothing of strangers."""
    named = [pair.rpartition(":") for pair in options.get("rooms", "").split(",") if pair]
    found = Wishes(
        muted=frozenset(filter(None, options.get("muted", "").split(","))),
        ignore_unknown=options.get("unknown") == "no",
        rooms=tuple(RoomWish(jid, Allow(allow)) for jid, _, allow in named) if "rooms" in options else None,
    )
    return NO_WISHES if found == Wishes() else found


def quiet(world: "World", named: list[str], options: Options) -> None:
    """`quiet 22:00-07:00 zone=UTC until=60 calls=yes`: from now on; nothing named = never."""
    hours = None
    if named:
        begin, _, end = named[0].partition("-")
        hours = Hours(time.fromisoformat(begin), time.fromisoformat(end), options.get("zone", "UTC"))
    until = options.get("until")
    instant = None if until is None else FOR_EVER if until == "ever" else after(float(until))
    wish = None
    if hours is not None or instant is not None:
        wish = Quiet(until=instant, hours=hours, calls=yes(options, "calls"))
    rule = partial(keep_quiet, own(options), wish, zone)
    world.store.apply(Keys(accounts=frozenset({own(options)}), devices=True), rule)


def part(world: "World", named: list[str], options: Options) -> None:
    """A device was told a part of what there is."""
    owner = own(options)
    newest = world.store.tables.accounts[owner].version
    rule = partial(begun, owner, named[0], newest, policies=world.policies)
    world.store.apply(Keys(accounts=frozenset({owner}), devices=True), rule)
