"""The device registry's service side: seals tokens, makes nodes and secrets, and runs the registry's rules."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from sync.model.books import Keys
from sync.model.device import SealedToken
from sync.model.errors import Conflict, ItemNotFound, TokenHeld
from sync.model.query import App, DisablePush, EnablePush, RegisterDevice, Registration, UnregisterDevice
from sync.model.wishes import Encrypt
from sync.ports import Sealer, Store
from sync.rules.devices import NewPhone, disable, enable, register, unregister

ATTEMPTS = 5  # at a token that changes hands meanwhile


class Registrations:
    """Register, unregister, enable, disable. `random_name` gives an unguessable URL-safe text."""

    def __init__(
        self,
        *,
        component: str,
        store: Store,
        sealer: Sealer,
        apps: Mapping[str, App],
        random_name: Callable[[], str],
    ) -> None:
        self._component, self._store, self._sealer, self._apps = component, store, sealer, apps
        self._random_name = random_name

    @property
    def offered(self) -> bool:
        """True where there is an app that a phone can register with."""
        return bool(self._apps)

    async def register(self, request: RegisterDevice) -> Registration:
        """`register-device` (PUSH §4)."""
        app = self._app(request.app)
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
                node = await self._store.transact(keys, partial(register, request, app, phone))
            except TokenHeld:
                continue
            return Registration(node=node, secret=secret)
        raise Conflict("Other devices register with these tokens at the same time.")

    async def unregister(self, request: UnregisterDevice) -> None:
        """`unregister-device`."""
        digest = self._sealer.digest(request.alert_token)
        await self._store.transact(self._keys(request.account), partial(unregister, request, digest))

    async def enable(self, request: EnablePush) -> None:
        """XEP-0357 enable at one of our nodes."""
        self._own(request.jid)
        request = self._keyed(request)
        digest = self._sealer.digest(request.secret) if request.secret is not None else None
        await self._store.transact(self._keys(request.account), partial(enable, request, digest))

    async def disable(self, request: DisablePush) -> None:
        """XEP-0357 disable."""
        self._own(request.jid)
        await self._store.transact(self._keys(request.account), partial(disable, request))

    def _keys(self, account: str) -> Keys:
        return Keys(accounts=frozenset({account}), devices=True)

    def _app(self, name: str) -> App:
        # PUSH §4: a vendor or app that is not configured is not found.
        app = self._apps.get(name)
        if app is None:
            raise ItemNotFound("'provider' names no app that is configured here.")
        return app

    def _own(self, jid: str) -> None:
        if jid != self._component:
            raise ItemNotFound("'jid' names an app server that is not served here.")

    def _keyed(self, request: EnablePush) -> EnablePush:
        """The same request, its key sealed."""
        key = request.push_key
        if key is None:
            return request
        encrypt = Encrypt(key.max_bytes, self._sealer.seal(key.text))
        return replace(request, wishes=replace(request.wishes, encrypt=encrypt), push_key=None)

    def _sealed(self, token: str) -> SealedToken:
        return SealedToken(self._sealer.digest(token), self._sealer.seal(token))
