"""The service side of publishes by other servers (XEP-0357 §7): finds the node's device, runs the rule, and hands the
job to the pusher. Of a node that is no more the user's server is told where the user is known.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from xml.etree.ElementTree import Element

from sync.model.books import Keys
from sync.model.device import PushJob
from sync.model.errors import InternalServerError, ItemNotFound, RequestError
from sync.model.notification import Notification, Published
from sync.ports import Observer, Sealer, Store, Wire
from sync.protocol import envelope
from sync.protocol.notification import decode_notification, revoked
from sync.rules.fold import Policies
from sync.rules.publishes import Terms, publish

log = logging.getLogger(__name__)


class Publishes:
    """The component's pubsub service. `due` is told of jobs that are committed."""

    def __init__(
        self,
        *,
        component: str,
        wire: Wire,
        store: Store,
        sealer: Sealer,
        terms: Terms,
        policies: Policies,
        due: Callable[[Sequence[PushJob]], None],
        observer: Observer,
    ) -> None:
        self._component, self._wire, self._store, self._sealer = component, wire, store, sealer
        self._terms, self._policies = terms, policies
        self._due, self._observer = due, observer

    def admits(self, host: str) -> bool:
        """True where this host's users may have devices here."""
        return self._terms.admit(host)

    async def take(self, payload: Element, *, kind: str, sender: str) -> None:
        """One request to our pubsub service; returns once its push is committed, or needless."""
        outcome = "failed"
        try:
            outcome = (await self._publish(decode_notification(payload, kind=kind, sender=sender))).value
        except RequestError as refusal:
            outcome = refusal.condition
            raise
        finally:
            self._observer.publish_received(outcome)

    async def _publish(self, told: Notification) -> Published:
        owners = await self._store.node_owners(told.node)
        digest = self._sealer.digest(told.secret) if told.secret is not None else None
        rule = partial(publish, told, digest, self._terms, self._policies.wakes)
        try:
            if not owners:
                raise ItemNotFound("There is no such node.")
            found = await self._store.transact(Keys(accounts=owners, devices=True), rule)
        except ItemNotFound:
            self._revoke(told)
            raise
        except InternalServerError:
            log.error("a server publishes for a device whose app is not configured any more")
            raise
        if found.job is not None:
            self._due([found.job])
            if found.published is Published.JOINED:
                self._observer.coalesced(found.job.kind)
        return found.published

    def _revoke(self, told: Notification) -> None:
        """A server that publishes in its user's name can be told of the node in that name; one that publishes in its
        own knows whom it meant by the error alone.
        """
        if "@" in told.publisher and "/" not in told.publisher:
            account = told.publisher
            self._wire.send(envelope.message(sender=self._component, to=account, payload=revoked(told.node, account)))
