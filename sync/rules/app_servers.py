"""Registrations at app servers that are not ours (XEP-0357 §§5, 6, 8): the devices of route `publish`.

One is named by the app server's JID and node, made by enabling it, renewed by enabling it again, and gone when it is
disabled: unlike a phone that registered with us, nothing else is known of it.
"""

from dataclasses import replace
from hashlib import sha256

from sync.model.books import Books, Ruling
from sync.model.device import Device, Route, SealedToken
from sync.model.errors import ItemNotFound
from sync.model.push import Environment
from sync.model.query import DisablePush, EnablePush
from sync.rules.devices import crowded_out, departed


def device_id_of(jid: str, node: str) -> str:
    """The device id, and the node that it goes by here: what a node is, some app servers keep secret."""
    return f"{Route.PUBLISH}:" + sha256(f"{jid}\0{node}".encode()).hexdigest()[:32]


def enable(request: EnablePush, token: SealedToken, books: Books, *, most: int) -> Ruling[int]:
    """XEP-0357 §5. An account has at most `most` devices of any route. The value: how many left for this one."""
    device_id = device_id_of(request.jid, request.node)
    devices = books.devices.get(request.account, [])
    former = next((device for device in devices if device.device_id == device_id), None)
    crowded = crowded_out([device for device in devices if device is not former], most)
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
    writes = departed(crowded, books)
    writes.devices.append(made)
    writes.accounts = [replace(account, devices=account.devices + (former is None)) for account in writes.accounts]
    return Ruling(writes=writes, value=len(crowded))


def disable(request: DisablePush, books: Books) -> Ruling[int]:
    """XEP-0357 §6: one node of an app server, or all of them. The value: how many."""
    wanted = device_id_of(request.jid, request.node) if request.node is not None else None
    found = [
        device
        for device in of_app_servers(request.account, books)
        if (device.app == request.jid if wanted is None else device.device_id == wanted)
    ]
    if wanted is not None and not found:
        raise ItemNotFound("No push is enabled to this node.")
    return Ruling(writes=departed(found, books), value=len(found))


def give_up(account: str, device_id: str, books: Books) -> Ruling[int]:
    """XEP-0357 §8: the app server wants no more publishes to this node. The value: how many there were."""
    found = [device for device in of_app_servers(account, books) if device.device_id == device_id]
    return Ruling(writes=departed(found, books), value=len(found))


def of_app_servers(account: str, books: Books) -> list[Device]:
    """The account's devices of route `publish`."""
    return [device for device in books.devices.get(account, ()) if device.route is Route.PUBLISH]
