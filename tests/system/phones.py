"""Phones that register, come back and fetch, and what the ledger says of their pushes."""

from typing import Any

from tests.system.box import Box, eventually
from tests.system.person import Person, Phone


async def home(box: Box, **fields: Any) -> tuple[Person, Person, Phone]:
    """Two friends; the first has a phone, and nobody is online there."""
    ann, bob = await box.friends("phone", "desk")
    phone = await box.phone(ann, **fields)
    await ann.close()
    return ann, bob, phone


async def back(box: Box, ann: Person, resource: str = "phone") -> Person:
    """The app has been woken: logged in, not yet available, and asks."""
    session = await box.person(ann.account, resource, presence=False)
    await session.sync()
    return session


async def fetched(box: Box, ann: Person) -> None:
    """Until the last query counts as a fetch: it is recorded after the answer."""

    async def look() -> bool:
        (row,) = await box.sql(
            "SELECT fetched_version >= woken_version AS yes FROM device WHERE account = $1", ann.account
        )
        return bool(row["yes"])

    await eventually(look)
