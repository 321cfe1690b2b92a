"""An observer that remembers what it was told, for tests: `observer.told("push")` lists the arguments of each call."""

from collections.abc import Callable

from sync.ports import Observer

METHODS = frozenset(name for name in vars(Observer) if not name.startswith("_"))


class RecordingObserver:
    """Plays `Observer`; refuses what the port does not have, so that a typo fails the test."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, object]]] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name not in METHODS:
            raise AttributeError(name)

        def remember(*args: object, **kwargs: object) -> None:
            names = getattr(Observer, name).__annotations__
            self.calls.append((name, dict(zip(names, args, strict=False)) | kwargs))

        return remember

    def told(self, name: str) -> list[dict[str, object]]:
        """The arguments of each call of a method, in order, by their names."""
        assert name in METHODS
        return [arguments for called, arguments in self.calls if called == name]
