"""A story: scenes in order, each checked. The first that does not happen as told ends it, and is named.

Refuses to know what happens in a scene and how anything is shown.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

SCENE_SECONDS = 90.0


class StepFailed(Exception):
    """Something did not happen as told; the text is a sentence about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A title for the visitor, and what happens."""

    title: str
    play: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One row of the closing table, in milliseconds: from the stanza that leaves to APNs' answer, from the wake to
    the end of the login, from the question to the answer. `push` None: nothing had to be pushed.
    """

    what: str
    push: float | None = None
    login: float | None = None
    answer: float | None = None


class Teller(Protocol):
    """Shows what is going on."""

    def scene(self, number: int, title: str) -> None:
        """A scene begins."""

    def failed(self, step: str, why: str) -> None:
        """The story ended here."""


def check(holds: bool, sentence: str) -> None:
    """Raise StepFailed with the sentence unless it holds."""
    if not holds:
        raise StepFailed(sentence)


async def tell(scenes: Sequence[Scene], teller: Teller, *, seconds: float = SCENE_SECONDS) -> bool:
    """Play the scenes, each for at most so many seconds. True when all of them happened as told."""
    for number, scene in enumerate(scenes, start=1):
        teller.scene(number, scene.title)
        try:
            async with asyncio.timeout(seconds):
                await scene.play()
        except StepFailed as failure:
            teller.failed(scene.title, str(failure))
            return False
        except TimeoutError:
            teller.failed(scene.title, f"It did not end within {seconds:g} s.")
            return False
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the visitor is told where
            teller.failed(scene.title, f"{type(error).__name__}: {error}")
            return False
    return True
