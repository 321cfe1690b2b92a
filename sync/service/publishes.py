"""The service side of publishes by other servers (XEP-0357 §7): finds the node's device, runs the rule, and hands the
job to the pusher. Of a node that is no more the user's server is told where the user is known.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from xml.etree.ElementTree import Element

from sync.model.books import Keys
from sync.model.device import PushJob, SealedToken
from sync.model.errors import Forbidden, InternalServerError, ItemNotFound, Overloaded, RequestError, TokenHeld
from sync.model.notification import Notification, Published
from sync.model.query import App
from sync.ports import Observer, Sealer, Store, Wire
from sync.protocol import envelope
from sync.protocol.commands import APNS_TOKEN
from sync.protocol.notification import decode_notification, revoked
from sync.rules.fold import Policies
from sync.rules.publishes import Guest, Outcome, Terms, may_publish_to_tokens, publish, publish_to_token

ATTEMPTS = 5  # at a token that changes hands meanwhile

log = logging.getLogger(__name__)


class Publishes:
    """The component's pubsub service. `due` is told of jobs that are committed; `token_apps` are apps, by name, whose
    tokens may be published to without a registration.
    """

    def __init__(
        self,
        *,
        component: str,
        wire: Wire,
        store: Store,
        sealer: Sealer,
        terms: Terms,
        token_apps: Mapping[str, App],
        policies: Policies,
        due: Callable[[Sequence[PushJob]], None],
        observer: Observer,
    ) -> None:
        self._component, self._wire, self._store, self._sealer = component, wire, store, sealer
        self._terms, self._token_apps, self._policies = terms, token_apps, policies
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
        try:
            found = await self._found(told)
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

    async def _found(self, told: Notification) -> Outcome:
        if owners := await self._store.node_owners(told.node):
            digest = self._sealer.digest(told.secret) if told.secret is not None else None
            rule = partial(publish, told, digest, self._terms, self._policies.wakes)
            return await self._store.transact(Keys(accounts=owners, devices=True), rule)
        token, apps = told.node.lower(), self._token_apps
        # fpush: without the name of an app the one that is the default; here, the only one.
        app = (
            apps.get(told.module) if told.module is not None else next(iter(apps.values())) if len(apps) == 1 else None
        )
        if app is None or APNS_TOKEN.fullmatch(token) is None:
            raise ItemNotFound("There is no such node.")
        if not may_publish_to_tokens(told.publisher, self._terms):
            raise Forbidden("Only servers whose users are served here may publish.")
        return await self._to_token(told, token, app)

    async def _to_token(self, told: Notification, token: str, app: App) -> Outcome:
        name = self._sealer.digest(f"guest {app.name} {token}").hex()
        sealed = SealedToken(self._sealer.digest(token), self._sealer.seal(token))
        guest = Guest(account=f"{name[:32]}@{self._component}", node=name, token=sealed, app=app)
        rule = partial(publish_to_token, told, guest, self._policies.wakes)
        for _ in range(ATTEMPTS):
            owners = await self._store.token_owners(app.name, app.environment, [sealed.digest])
            try:
                return await self._store.transact(
                    Keys(accounts=owners | {guest.account}, create=True, devices=True), rule
                )
            except TokenHeld:
                continue
        raise Overloaded

    def _revoke(self, told: Notification) -> None:
        """A server that publishes in its user's name can be told of the node in that name; one that publishes in its
        own knows whom it meant by the error alone.
        """
        if "@" in told.publisher and "/" not in told.publisher:
            account = told.publisher
            self._wire.send(envelope.message(sender=self._component, to=account, payload=revoked(told.node, account)))
