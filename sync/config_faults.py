"""What is wrong with a configuration, in sentences: file, section.field, fault, and the key that was probably meant.

Decides wording only. Every fault of a file is told at once. Values are not repeated here, so that no secret can be:
where a value helps, `sync.config_forms` has put it into its own sentence.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_settings import SettingsError

CONFIG_VARIABLE = "CONVSYNC_CONFIG"  # names the file; the one variable that is no key

Place = tuple[int | str, ...]


class ConfigError(Exception):
    """The configuration cannot be used; `faults` has a line for each reason."""

    def __init__(self, path: Path, faults: list[str]) -> None:
        self.path, self.faults = path, tuple(faults)
        super().__init__("\n".join(f"{path}: {fault}" for fault in faults))


def explain(error: ValidationError, model: type[BaseModel], environ: Mapping[str, str], prefix: str) -> list[str]:
    """A line for each fault, in the order of the file's sections."""
    lines = []
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        place = fault["loc"]
        if fault["type"] == "extra_forbidden":
            text = f"unknown key{suggestion(str(place[-1]), _keys(model, place[:-1]))}"
        elif fault["type"] == "missing":
            text = "is missing"
        else:
            text = fault["msg"].removeprefix("Value error, ")
        lines.append(f"{_name(place)}: {text}{_origin(place, environ, prefix)}")
    return lines


def unparsed(error: SettingsError) -> str:
    """A variable of the environment that is a list or a section, and not JSON. Its value stays out of the text."""
    name = str(error).partition('"')[2].partition('"')[0]
    return f"{name}: the environment variable for it must be JSON"


def unknown_variables(environ: Mapping[str, str], prefix: str, model: type[BaseModel]) -> list[str]:
    """Variables with our prefix that name no section: without this check they would be passed over."""
    sections = [name.upper() for name in model.model_fields]
    found = []
    for variable in sorted(environ):
        upper = variable.upper()
        section = upper.removeprefix(prefix).partition("__")[0]
        if upper.startswith(prefix) and section not in sections and upper != CONFIG_VARIABLE:
            found.append(f"environment variable {variable}: unknown section{suggestion(section, sections)}")
    return found


def suggestion(word: str, known: list[str]) -> str:
    """`; did you mean "…"?`, or nothing where nothing is near."""
    near = get_close_matches(word, known, n=1, cutoff=0.6)
    return f'; did you mean "{near[0]}"?' if near else ""


def _name(place: Place) -> str:
    """`apns.apps.1.name`: the first app is 1."""
    return ".".join(str(part + 1) if isinstance(part, int) else part for part in place) or "the file"


def _origin(place: Place, environ: Mapping[str, str], prefix: str) -> str:
    """Where the value did not come from the file."""
    variable = prefix + "__".join(str(part) for part in place).upper()
    return f" (set by the environment variable {variable})" if variable in environ else ""


def _keys(model: type[BaseModel], place: Place) -> list[str]:
    """The keys that are known at a place."""
    for part in place:
        if isinstance(part, str) and part in model.model_fields:
            model = _section(model.model_fields[part].annotation) or model
    return list(model.model_fields)


def _section(annotation: object) -> type[BaseModel] | None:
    """The model inside of an annotation such as `Redis | None` or `tuple[ApnsApp, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _section(inner))), None)
