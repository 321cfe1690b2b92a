"""Registrations at app servers that are not ours (XEP-0357 §§5, 6, 8): the devices of route `publish`.

One is named by the app server's JID and node, made by enabling it, renewed by enabling it again, and gone when it is
disabled: unlike a phone that registered with us, nothing else is known of it.
"""

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256

from sync.model.books import Books, Ruling, Writes
from sync.model.device import Device, Route, SealedToken
from sync.model.errors import ItemNotFound
from sync.model.push import Environment
from sync.model.query import DisablePush, EnablePush


def device_id_of(jid: str, node: str) -> str:
    """The device id, and the node that it goes by here: what a node is, some app servers keep secret."""
    return "publish:" + sha256(f"{jid}\0{node}".encode()).hexdigest()[:32]


def enable(request: EnablePush, token: SealedToken, limit: int, books: Books) -> Ruling[None]:
    """XEP-0357 §5. An account has at most `limit` devices of any route, the oldest leave."""
    device_id = device_id_of(request.jid, request.node)
    devices = books.devices.get(request.account, [])
    former = next((device for device in devices if device.device_id == device_id), None)
    others = sorted((device for device in devices if device is not former), key=lambda device: device.registered_at)
    leaving = others[: max(0, len(others) + 1 - limit)]
    made = Device(
        account=request.account,
        device_id=device_id,
        route=Route.PUBLISH,
        app=request.jid,
        environment=Environment.PRODUCTION,
        alert_token=token,
        node=device_id,
        enabled=True,
        wishes=request.wishes,
        bound_to=request.resource,
        registered_at=books.now,
    )
    if former is not None and former.route is Route.PUBLISH:
        # What it was woken for, and how often it failed: clients enable with every login, which proves neither.
        made = replace(
            former, alert_token=token, wishes=request.wishes, bound_to=request.resource, registered_at=books.now
        )
    account = books.accounts[request.account]
    account = replace(account, devices=account.devices + (former is None) - len(leaving))
    gone = [(device.account, device.device_id) for device in leaving]
    return Ruling(writes=Writes(devices=[made], deleted_devices=gone, accounts=[account]), value=None)


def disable(request: DisablePush, books: Books) -> Ruling[None]:
    """XEP-0357 §6: one node of an app server, or all of them."""
    wanted = device_id_of(request.jid, request.node) if request.node is not None else None
    gone = _without(
        request.account,
        books,
        lambda device: device.app == request.jid if wanted is None else device.device_id == wanted,
    )
    if wanted is not None and not gone.deleted_devices:
        raise ItemNotFound("No push is enabled to this node.")
    return Ruling(writes=gone, value=None)


def give_up(account: str, device_id: str, books: Books) -> Ruling[bool]:
    """XEP-0357 §8: the app server wants no more publishes to this node. The value: was there one?"""
    gone = _without(account, books, lambda device: device.device_id == device_id)
    return Ruling(writes=gone, value=bool(gone.deleted_devices))


def _without(jid: str, books: Books, leaves: Callable[[Device], bool]) -> Writes:
    """Without these devices of route `publish`."""
    found = [device for device in books.devices.get(jid, ()) if device.route is Route.PUBLISH and leaves(device)]
    if not found:
        return Writes()
    account = books.accounts[jid]
    account = replace(account, devices=account.devices - len(found))
    return Writes(deleted_devices=[(device.account, device.device_id) for device in found], accounts=[account])
