"""The command line: one module a verb. Parsing and printing only; the work is done by the modules below.

Exit codes: 0 complete; 1 finished with failures; 2 the user's mistake, one line; 130 interrupted.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from typing import Any

import typer

from harness.cli._exit_codes import EXIT_INTERRUPTED, EXIT_MISTAKE
from harness.cli.bench import bench
from harness.cli.check import check
from harness.cli.compare import compare
from harness.cli.controls import controls
from harness.cli.data import data_group
from harness.cli.frontier import frontier
from harness.cli.list import list_plugins
from harness.cli.report import report
from harness.cli.run import run
from harness.cli.scaling import scaling
from harness.cli.score import score
from harness.cli.train import train
from harness.errors import HarnessError

PROGRAM = "lalm-harness"
# Base of typer's own errors, which has another name and home in each of its versions.
_TYPED_WRONG: type[Exception] = typer.BadParameter.mro()[2]
_LOGGERS = ("harness", "models", "tasks")

# Help as plain text: rendering it through rich would take longer than everything else that --help does.
app = typer.Typer(
    name=PROGRAM,
    help="Measure large audio language models: state-space and transformer, on one set of tasks.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)


def main(argv: list[str] | None = None) -> int:
    """Carry out one command and return its exit code.

    Args:
        argv: The words after the program's name; `sys.argv` by default.
    """
    _set_up_logging()
    words = argv if argv is not None else sys.argv[1:]
    command = typer.main.get_command(app)
    try:
        # typer's own way with a mistake is three lines; not standalone, it hands the error over, and exits as codes.
        code = command.main(args=words or ["--help"], prog_name=PROGRAM, standalone_mode=False)
        if not words:
            return EXIT_MISTAKE
    except HarnessError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_MISTAKE
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_INTERRUPTED
    except _TYPED_WRONG as error:
        print(f"error: {_one_line(error)}", file=sys.stderr)
        return EXIT_MISTAKE
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else int(leave.code is not None)
    return code if isinstance(code, int) else 0


def _one_line(error: Exception) -> str:
    """What typer has to say of a word it cannot make sense of, and where the right ones are listed."""
    message = " ".join(error.format_message().split())  # type: ignore[attr-defined]
    stop = "" if message.endswith((".", "?")) else "."
    context = getattr(error, "ctx", None)
    words = context.command_path if context is not None else PROGRAM
    return f"{message}{stop} See '{words} --help'."


def _set_up_logging() -> None:
    """Warnings of our own packages go to standard error; how others log is left alone."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.WARNING)
        if not logger.handlers:
            logger.addHandler(handler)


def _with_exit_code(verb: Callable[..., int | None]) -> Callable[..., None]:
    """A verb returns its exit code; typer wants it raised."""

    @functools.wraps(verb)
    def exiting(*args: Any, **kwargs: Any) -> None:
        code = verb(*args, **kwargs)
        if code:
            raise typer.Exit(code)

    return exiting


for _name, _verb in (
    ("run", run),
    ("score", score),
    ("compare", compare),
    ("controls", controls),
    ("scaling", scaling),
    ("frontier", frontier),
    ("report", report),
    ("train", train),
    ("list", list_plugins),
    ("check", check),
    ("bench", bench),
):
    app.command(_name)(_with_exit_code(_verb))
app.add_typer(data_group(_with_exit_code), name="data")
