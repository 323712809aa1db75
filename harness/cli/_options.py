"""Options that several verbs share, and what becomes of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from harness.errors import OptionError

PluginFiles = Annotated[
    list[Path] | None,
    typer.Option("--plugin", metavar="FILE.py", help="A file with a model, task, scorer or metric. Repeatable."),
]
ModelOptions = Annotated[
    list[str] | None,
    typer.Option("-m", "--model-option", metavar="KEY=VALUE", help="An option of the model. Repeatable."),
]
TaskOptions = Annotated[
    list[str] | None,
    typer.Option("-t", "--task-option", metavar="KEY=VALUE", help="An option of the task. Repeatable."),
]
ResultsFolder = Annotated[Path, typer.Option("--results", metavar="FOLDER", help="Where records lie.")]


def parse_options(pairs: Sequence[str] | None, flag: str) -> dict[str, str]:
    """Take ["fold=5", ...] apart into {"fold": "5", ...}.

    Args:
        pairs: Texts as typed; None stands for none.
        flag: The option they came with, for messages.

    Raises:
        OptionError: one is not KEY=VALUE, or a key comes twice.
    """
    options: dict[str, str] = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise OptionError(f"{flag} '{pair}' is not KEY=VALUE.")
        if key in options:
            raise OptionError(f"{flag} gives '{key}' twice: {options[key]} and {value}.")
        options[key] = value
    return options


def add_plugins(files: Sequence[Path] | None) -> None:
    """Make the files given with --plugin known.

    Raises:
        PluginError: one of them is no plugin.
    """
    from harness.registry import add_plugin_file

    for file in files or ():
        add_plugin_file(file)
