"""What the commands share: how they are given their configuration, and how they end.

0 well, 1 something outside is wrong, 2 the configuration or what was typed is. Sentences about what is wrong go to
standard error.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from sync.config import Config


def configured(command: Callable[..., None]) -> Callable[..., None]:
    """The option that every command with a configuration has."""
    return click.option(
        "--config",
        "path",
        type=click.Path(path_type=Path),
        envvar="CONVSYNC_CONFIG",
        required=True,
        help="The configuration file. Also: CONVSYNC_CONFIG.",
    )(command)


def load(path: Path) -> "Config":
    """The configuration; with faults, all of them and the end."""
    from sync import config  # noqa: PLC0415

    try:
        return config.load(path)
    except config.ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(2)


def fail(sentence: str, status: int = 1) -> NoReturn:
    """End with what is wrong."""
    click.echo(sentence, err=True)
    sys.exit(status)


def cause(error: Exception) -> Exception:
    """The driver's own error, which says more."""
    return error.__cause__ if isinstance(error.__cause__, Exception) else error
