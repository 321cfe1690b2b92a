"""What users ask for and what they are told, independent of the dialect they speak."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sync.model.call import Call
from sync.model.conversation import Change, Conversation, ConversationKey, Kind, LastMessage, Notify, Status
from sync.model.publish import Options
from sync.model.push import Environment, Vendor
from sync.model.quiet import Quiet
from sync.model.wishes import NO_WISHES, PushKey, Wishes


@dataclass(frozen=True, slots=True, kw_only=True)
class SortKey:
    """Where a conversation stands in a list: ringing ones first, then pinned ones where asked for, then by activity,
    newest first.

    `activity` in microseconds since the epoch; peer and kind make the order total. `pinned` is 0 throughout unless
    `pinned_first`.
    """

    ringing: bool
    pinned: int
    activity: int
    peer: str
    kind: Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """The place of one row in a list: the answer's `since` and newest version as page one saw them, the filters of that
    list as in `ListQuery`, and the row's sort key.
    """

    since: int
    newest: int
    sort: SortKey
    pinned_first: bool = False
    pinned: bool | None = None
    archived: bool | None = None


EVERYTHING = 1  # as `since`: all that ever had a version, tombstones included


@dataclass(frozen=True, slots=True, kw_only=True)
class ListQuery:
    """A list of conversations.

    `since` 0 = all but deleted ones; else only what has a higher version, tombstones included. `pinned` True/False =
    only pinned / unpinned ones; `archived` likewise. `limit` None = everything, 0 = only the count. `after` continues
    a list behind a row, `before` ends a page right in front of one, `at_end` asks for the last page of a list; at most
    one of them.
    """

    since: int = 0
    pinned_first: bool = False
    pinned: bool | None = None
    archived: bool | None = None
    limit: int | None = None
    after: Cursor | None = None
    before: Cursor | None = None
    at_end: bool = False

    @property
    def place(self) -> Cursor | None:
        """The row that the page lies behind or in front of; None of a list that begins."""
        return self.after or self.before

    @property
    def whole_since(self) -> int:
        """The version since which nothing may have been dropped, lest the answer leave something out: the client's own
        stamp, tombstones behind which may stand on any page; of a list of everything that is continued, that of its
        first page; 0 of one that begins.
        """
        if self.since > EVERYTHING:
            return self.since
        return self.place.newest if self.place else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedConversation:
    """A conversation with the calls that ring in it, newest first, and the archive id of its first unread mention."""

    conversation: Conversation
    calls: tuple[Call, ...] = ()
    mention_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationPage:
    """An answer: `newest` is the version to ask from next time; `total` counts the whole list; `query` is what was
    answered, with `since` as it was taken. `floor`: the oldest version that a token may name, out of the same
    snapshot.
    """

    query: ListQuery
    newest: int
    items: tuple[ListedConversation, ...]
    total: int
    floor: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxPlace:
    """Where an entry stood in an inbox that was begun at version `newest`. Forwards, entries that have not changed
    since come first, newest activity first; behind them those that have (`version` > `newest`), in the order in which
    they did. `activity` in microseconds since the epoch; `peer` and `kind` make the order total.
    """

    newest: int
    version: int
    activity: int
    peer: str
    kind: Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxQuery:
    """A page of an inbox: every conversation but deleted ones, newest activity first.

    `limit` 0 = only the counts. At most one of `after`, `before` and `at_end` (the last page). What is in front of
    `before` is a matter of the present order. `preview_bytes`: the largest last message to bring, None = none.
    `merged`: all conversations with one peer are one entry, that of the plain chat.
    """

    unread_only: bool = False
    merged: bool = False
    preview_bytes: int | None = None
    limit: int
    after: InboxPlace | None = None
    before: InboxPlace | None = None
    at_end: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxEntry:
    """A conversation in an inbox. `archive_id`: the newest id that its archive is known to have given; None = nothing
    of it is archived. `last` is None where nothing was said, or was not to be brought.
    """

    key: ConversationKey
    version: int
    activity: int
    unread: int
    archive_id: str | None = None
    last: LastMessage | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxPage:
    """An answer. `version` is the account's. The whole inbox, whatever was asked for, has `total` conversations,
    `unread_conversations` of them with the `unread` messages. `floor`: as in `ConversationPage`.
    """

    query: InboxQuery
    version: int = 0
    items: tuple[InboxEntry, ...] = ()
    total: int = 0
    unread_conversations: int = 0
    unread: int = 0
    floor: int = 0

    @property
    def newest(self) -> int:
        """The version at which the inbox was begun."""
        return self.query.after.newest if self.query.after else self.version

    @property
    def stands(self) -> bool:
        """False where it goes on from a place of an earlier epoch, or of a future that the database has lost."""
        place = self.query.after or self.query.before
        return place is None or self.floor <= place.newest <= self.version >= place.version

    @property
    def count(self) -> int:
        """How many conversations all pages of this query have."""
        return self.unread_conversations if self.query.unread_only else self.total


@dataclass(frozen=True, slots=True, kw_only=True)
class RewriteQuery:
    """Corrections and retractions since a version; more than `limit` of them invalidate the conversations concerned."""

    since: int
    limit: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class RewritePage:
    """An answer: changes oldest first; `invalidated` conversations are to be loaded anew, each with the version of
    its newest change.
    """

    newest: int
    changes: tuple[Change, ...]
    invalidated: tuple[tuple[ConversationKey, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangesQuery:
    """What happened in one conversation since a version, 0 = ever; more than `limit` entries start over."""

    peer: str
    kind: Kind = Kind.CHAT
    since: int = 0
    limit: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangesPage:
    """The change log of one conversation since a version, oldest first. `reset`: there were too many, or some of them
    are not held any more: the client loads the conversation anew. `version`: the conversation's, out of the same
    snapshot; None = there is no such conversation.
    """

    version: int | None = None
    changes: tuple[Change, ...] = ()
    reset: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationQuery:
    """One conversation as it stands."""

    peer: str
    kind: Kind = Kind.CHAT


@dataclass(frozen=True, slots=True)
class Unmute:
    """No longer muted."""


@dataclass(frozen=True, slots=True)
class Mute:
    """Muted from now for a duration; None = for ever."""

    duration: timedelta | None


@dataclass(frozen=True, slots=True)
class MuteUntil:
    """Muted up to an instant; one that is over ends it."""

    at: datetime


@dataclass(frozen=True, slots=True)
class SetNotify:
    """For which messages to be notified from now on; None = the default of the conversation's kind."""

    notify: Notify | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SetProperties:
    """Properties of one conversation to set, all or nothing; None = leave as it is. `read`: the archive's id of the
    message up to which it is read. `if_version`: only if the conversation is still at that version.
    """

    peer: str
    kind: Kind = Kind.CHAT
    pinned: int | None = None
    mute: Mute | MuteUntil | Unmute | None = None
    status: Status | None = None
    marked_unread: bool | None = None
    notify: SetNotify | None = None
    read: str | None = None
    if_version: int | None = None


@dataclass(frozen=True, slots=True)
class SetQuiet:
    """When the account wants to be left alone from now on; None = never."""

    quiet: Quiet | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterDevice:
    """A phone introduces itself (`register-device`). `resource` of the sender; APNs' tokens hexadecimal. `app`: its
    configured name, or the id that its vendor knows it by; None = the one that is configured for the vendor.
    """

    account: str
    resource: str
    device_id: str
    app: str | None
    alert_token: str = field(repr=False)
    voip_token: str | None = field(default=None, repr=False)
    name: str | None = None
    vendor: Vendor = Vendor.APNS


@dataclass(frozen=True, slots=True, kw_only=True)
class UnregisterDevice:
    """A phone leaves; named by its token."""

    account: str
    app: str
    alert_token: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnablePush:
    """XEP-0357 §5: push to this node. `jid` the app server named, `options` the fields of the publish-options, `secret`
    one of them. `push_key` is what `wishes.encrypt` is made of.
    """

    account: str
    resource: str | None
    jid: str
    node: str
    secret: str | None = field(default=None, repr=False)
    options: Options = field(default=(), repr=False)
    wishes: Wishes = NO_WISHES
    push_key: PushKey | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DisablePush:
    """XEP-0357 §6: stop; `node` None = all of that jid."""

    account: str
    jid: str
    node: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What a phone gets back: the node and secret to enable with."""

    node: str
    secret: str = field(repr=False)
    features: tuple[str, ...] = ()
    max_payload_bytes: int = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """An app as configured: `name` is its provider name in commands."""

    name: str
    bundle_id: str
    environment: Environment
    filtering: bool
    time_sensitive: bool = False
