"""Push to app servers that are not ours: what users enable and disable, and what such a server takes back.

Whom a user may name: any address, or those that the operator lists; never this component, a host of this server, or
the user itself. What harm the rest can do is bounded by the account's few devices and by the pace of its wakes.
"""

import logging
import re
from collections.abc import Collection
from dataclasses import replace
from functools import partial

from sync.model.books import Keys
from sync.model.device import SealedToken
from sync.model.errors import BadRequest, Forbidden, StoreUnavailable
from sync.model.jid import bare, domain, resource
from sync.model.publish import AppServer
from sync.model.query import DisablePush, EnablePush
from sync.ports import Observer, Sealer, Store
from sync.protocol import publish
from sync.rules.app_servers import device_id_of, disable, enable, give_up

log = logging.getLogger(__name__)

ANY = "*"
# What no server takes for an address need not be kept: one "@" at most, parts that are not empty, no space.
ADDRESS = re.compile(r"([^@/\s]{1,1023}@)?[^@/\s]{1,1023}(/[^\x00-\x1f]{1,1023})?")


class AppServers:
    """`component`: ours. `own`: the other domains that are no app servers. `allowed`: the domains that may be, `*` =
    any. `reserved`: names of apps, which no app server may bear. `most`: devices of an account.
    """

    def __init__(
        self,
        *,
        component: str,
        own: Collection[str],
        allowed: Collection[str],
        reserved: Collection[str],
        most: int,
        store: Store,
        sealer: Sealer,
        observer: Observer,
    ) -> None:
        self._component, self._own = component, frozenset(own) | frozenset(reserved)
        self._allowed, self._most = frozenset(allowed), most
        self._store, self._sealer, self._observer = store, sealer, observer

    @property
    def offered(self) -> bool:
        """True where users may name any."""
        return bool(self._allowed)

    async def enable(self, request: EnablePush) -> None:
        """XEP-0357 enable at a node of somebody else. The key of `request.wishes` is sealed already."""
        request = replace(request, jid=normal(request.jid))
        self._check(request)
        server = AppServer(request.jid, request.node, request.options)
        # The same node may serve several accounts of one phone: fpush's nodes are push tokens.
        digest = self._sealer.digest(f"publish {request.account} {server.jid} {server.node}")
        token = SealedToken(digest, self._sealer.seal(publish.written(server)))
        keys = Keys(accounts=frozenset({request.account}), create=True, devices=True)
        self._removed("crowded-out", await self._store.transact(keys, partial(enable, request, token, most=self._most)))

    async def disable(self, request: DisablePush) -> None:
        """XEP-0357 disable. What is not allowed any more can be disabled all the same."""
        request = replace(request, jid=normal(request.jid))
        self._removed("disabled", await self._store.transact(self._keys(request.account), partial(disable, request)))

    async def give_up(self, sender: str, node: str) -> None:
        """XEP-0357 §8: `sender` says that nobody may publish to this node of its own any more. Should that get lost,
        the next publish is refused.
        """
        try:
            for jid in sorted({normal(sender), bare(normal(sender))}):
                device_id = device_id_of(jid, node)
                for account in await self._store.node_owners(device_id):
                    rule = partial(give_up, account, device_id)
                    self._removed("affiliation-none", await self._store.transact(self._keys(account), rule))
        except StoreUnavailable as error:
            log.warning("a request met the database away", extra={"reason": str(error)})

    def _keys(self, account: str) -> Keys:
        return Keys(accounts=frozenset({account}), devices=True)

    def _removed(self, why: str, count: int) -> None:
        for _ in range(count):
            self._observer.token_removed(why)

    def _check(self, request: EnablePush) -> None:
        host = domain(request.jid)
        if not ADDRESS.fullmatch(request.jid):
            raise BadRequest("'jid' is no address.")
        if host == self._component or request.jid in self._own:
            raise BadRequest("'jid' must be an app server's.")
        if bare(request.jid) == request.account:
            raise BadRequest("'jid' must be different from the account's own.")
        if ANY not in self._allowed and host not in self._allowed:
            raise Forbidden("This app server is not allowed here.")


def normal(jid: str) -> str:
    """As servers write it in their answers: the domain and the part before it without capitals."""
    name = resource(jid)
    return bare(jid).lower() + (f"/{name}" if name is not None else "")
