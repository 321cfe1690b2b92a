"""A pytest plugin (`-p tests.proofs.recorder`): writes down every element that the encoders of sync/protocol return
while the tests of a run make them.

An encoder is a public function of sync/protocol that returns elements. They are wrapped before anything imports them by
name. The file named in CONVSYNC_RECORDED gets a line for each: module.function, a tab, the text in Base64; of elements
of the same shape (names of elements and attributes) the first few. Nothing is decided about what they hold.
"""

import functools
import importlib
import inspect
import os
import pkgutil
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, TextIO
from xml.etree.ElementTree import Element

import sync.protocol
from sync.protocol.serialise import serialise

FILE = "CONVSYNC_RECORDED"
OF_A_SHAPE = 5
READERS = {"serialise.parse", "serialise.written"}  # return what they were given


def protocol_modules() -> list[ModuleType]:
    names = [info.name for info in pkgutil.iter_modules(sync.protocol.__path__)]
    return [importlib.import_module(f"sync.protocol.{name}") for name in names]


def encoders() -> Iterator[tuple[str, ModuleType, FunctionType]]:
    """`module.function`, and both."""
    for module in protocol_modules():
        for name, function in inspect.getmembers(module, inspect.isfunction):
            known = f"{module.__name__.rpartition('.')[2]}.{name}"
            own = function.__module__ == module.__name__ and name[0] != "_" and known not in READERS
            if own and "Element" in str(inspect.signature(function).return_annotation):
                yield known, module, function


def shape(element: Element) -> Any:
    return element.tag, sorted(element.attrib), [shape(child) for child in element]


class Recorder:
    """What was written down."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._seen = file, Counter[str]()

    def note(self, name: str, made: object) -> None:
        """What an encoder returned: an element, or several."""
        for element in made if isinstance(made, tuple | list) else (made,):
            if isinstance(element, Element):
                key = f"{name} {shape(element)}"
                self._seen[key] += 1
                if self._seen[key] <= OF_A_SHAPE:
                    self._file.write(f"{name}\t{b64encode(serialise(element).encode()).decode()}\n")

    def wrapped(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def each(*args: Any, **kwargs: Any) -> Iterator[Any]:
                for made in function(*args, **kwargs):
                    self.note(name, made)
                    yield made

            return each

        @functools.wraps(function)
        def once(*args: Any, **kwargs: Any) -> Any:
            made = function(*args, **kwargs)
            self.note(name, made)
            return made

        return once


def pytest_configure(config: Any) -> None:
    """Before any test module, and with it any service, is imported."""
    file = Path(os.environ[FILE]).open("a", buffering=1)  # noqa: SIM115 - closed when the run ends
    config.add_cleanup(file.close)
    recorder, modules = Recorder(file), protocol_modules()
    for name, _, function in list(encoders()):
        wrapped = recorder.wrapped(name, function)
        for module in modules:  # those that import it by its name
            for attribute, value in list(vars(module).items()):
                if value is function:
                    setattr(module, attribute, wrapped)
