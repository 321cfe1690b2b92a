"""The device registry's service side: seals tokens, makes nodes and secrets, and runs the registry's rules."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

from sync.model.books import Keys
from sync.model.device import SealedToken
from sync.model.errors import BadRequest, Conflict, ItemNotFound, TokenHeld
from sync.model.push import Vendor
from sync.model.query import App, DisablePush, EnablePush, RegisterDevice, Registration, UnregisterDevice
from sync.model.registry import ListDevices, ListedDevice, LogOut, UnregisterPush
from sync.model.wishes import Encrypt
from sync.ports import Observer, Sealer, Store
from sync.protocol.names import COMMANDS
from sync.rules.devices import (
    MAX_DEVICES,
    NewPhone,
    disable,
    enable,
    log_out,
    register,
    unregister,
    unregister_named,
)
from sync.service.app_servers import AppServers

PAYLOAD = ("bad-payload", COMMANDS)
ATTEMPTS = 5  # at a token that changes hands meanwhile


class Registrations:
    """Register, list, unregister, enable, disable. `random_name` gives an unguessable URL-safe text; `most`: devices
    of an account.
    """

    def __init__(
        self,
        *,
        component: str,
        store: Store,
        sealer: Sealer,
        apps: Mapping[str, App],
        random_name: Callable[[], str],
        observer: Observer,
        most: int = MAX_DEVICES,
        app_servers: AppServers | None = None,
    ) -> None:
        self._component, self._store, self._sealer, self._apps = component, store, sealer, apps
        self._random_name, self._observer, self._most = random_name, observer, most
        self._app_servers = app_servers

    @property
    def offered(self) -> frozenset[Vendor]:
        """The vendors of the apps that a phone can register with."""
        return frozenset({Vendor.APNS} if self._apps else ())

    @property
    def providers(self) -> Collection[str]:
        """The names of those apps."""
        return self._apps.keys()

    async def register(self, request: RegisterDevice) -> Registration:
        """`register-device` and its older names (PUSH §4)."""
        app = self._app(request)
        secret = self._random_name()
        phone = NewPhone(
            alert_token=self._sealed(request.alert_token),
            voip_token=self._sealed(request.voip_token) if request.voip_token else None,
            node=self._random_name(),
            secret_digest=self._sealer.digest(secret),
        )
        digests = [token.digest for token in (phone.alert_token, phone.voip_token) if token is not None]
        for _ in range(ATTEMPTS):
            owners = await self._store.token_owners(app.name, app.environment, digests)
            # Whoever holds one of the tokens loses it: both accounts are locked.
            keys = Keys(accounts=owners | {request.account}, create=True, devices=True)
            try:
                entered = await self._store.transact(keys, partial(register, request, app, phone, most=self._most))
            except TokenHeld:
                continue
            self._removed("taken-over", entered.taken_over)
            self._removed("crowded-out", entered.crowded_out)
            return Registration(node=entered.node, secret=secret)
        raise Conflict("Other devices register with these tokens at the same time.")

    async def list(self, request: ListDevices) -> Sequence[ListedDevice]:
        """`list-push-registrations`."""
        return await self._store.devices(request.account)

    async def unregister(self, request: UnregisterDevice) -> None:
        """`unregister-device`."""
        digest = self._sealer.digest(request.alert_token)
        await self._store.transact(self._keys(request.account), partial(unregister, request, digest))
        self._removed("unregistered", 1)

    async def unregister_named(self, request: UnregisterPush) -> tuple[str, ...]:
        """`unregister-push`: the nodes that are gone."""
        nodes = await self._store.transact(self._keys(request.account), partial(unregister_named, request))
        self._removed("unregistered", len(nodes))
        return nodes

    async def log_out(self, request: LogOut) -> bool:
        """Without a login: whether there was a device that fits. It takes the same steps whether or not there is one of
        that name.
        """
        token = self._sealer.digest(request.token) if request.token is not None else None
        secret = self._sealer.digest(request.secret) if request.secret is not None else None
        if request.node is not None:
            owners = await self._store.node_owners(request.node)
        else:
            app = self._apps.get(request.app or "")
            digests = [token] if token is not None else []
            owners = await self._store.token_owners(app.name, app.environment, digests) if app else frozenset()
        keys = Keys(accounts=owners, devices=True)
        gone = await self._store.transact(keys, partial(log_out, request, token, secret))
        self._removed("logged-out", int(gone))
        return gone

    @property
    def pushes(self) -> bool:
        """True where push can be enabled at all: to us, or to app servers of others."""
        return bool(self.offered) or (self._app_servers is not None and self._app_servers.offered)

    async def give_up(self, sender: str, node: str) -> None:
        """An app server that is not ours wants no more publishes to a node of its own."""
        if self._app_servers is not None:
            await self._app_servers.give_up(sender, node)

    async def enable(self, request: EnablePush) -> None:
        """XEP-0357 enable, at one of our nodes or at those of an app server that is not ours."""
        request = self._keyed(request)
        if request.jid != self._component:
            await self._foreign().enable(request)
            return
        digest = self._sealer.digest(request.secret) if request.secret is not None else None
        await self._store.transact(self._keys(request.account), partial(enable, request, digest))

    async def disable(self, request: DisablePush) -> None:
        """XEP-0357 disable."""
        if request.jid != self._component:
            await self._foreign().disable(request)
            return
        await self._store.transact(self._keys(request.account), partial(disable, request))

    def _keys(self, account: str) -> Keys:
        return Keys(accounts=frozenset({account}), devices=True)

    def _app(self, request: RegisterDevice) -> App:
        # PUSH §4: a vendor or app that is not configured is not found.
        if request.vendor not in self.offered:
            raise ItemNotFound("No app of this push service is configured here.")
        if request.app is None:
            found = list(self._apps.values())
            if len(found) > 1:
                raise BadRequest("'application-id' is missing: there are several apps.", application=PAYLOAD)
        elif request.app in self._apps:
            found = [self._apps[request.app]]
        else:
            found = [app for app in self._apps.values() if app.bundle_id == request.app]
        if not found:
            raise ItemNotFound("No app of this name is configured here.")
        if len(found) > 1:  # one for each environment
            raise BadRequest("'application-id' names several apps.", application=PAYLOAD)
        return found[0]

    def _removed(self, why: str, count: int) -> None:
        for _ in range(count):
            self._observer.token_removed(why)

    def _foreign(self) -> AppServers:
        if self._app_servers is None:
            raise ItemNotFound("'jid' names an app server that is not served here.")
        return self._app_servers

    def _keyed(self, request: EnablePush) -> EnablePush:
        """The same request, its key sealed."""
        key = request.push_key
        if key is None:
            return request
        encrypt = Encrypt(key.max_bytes, self._sealer.seal(key.text))
        return replace(request, wishes=replace(request.wishes, encrypt=encrypt), push_key=None)

    def _sealed(self, token: str) -> SealedToken:
        return SealedToken(self._sealer.digest(token), self._sealer.seal(token))
