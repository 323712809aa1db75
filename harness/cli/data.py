"""`data`: fetch a task's data, check what is there, and list what was found where."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli._exit_codes import EXIT_INTERRUPTED
from harness.cli._options import PluginFiles, TaskOptions, add_plugins, parse_options
from harness.errors import HarnessError, UsageError

if TYPE_CHECKING:
    from harness.contracts import ItemSet, Task
    from harness.prepare import Prepared
    from harness.verify import Report

_CORENLP = "corenlp"
_N_EXAMPLES = 3

DataRoot = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Where data lies. [default: $LALM_HARNESS_DATA, then ./data]"),
]


def data_group(with_exit_code: Callable[[Callable[..., int | None]], Callable[..., None]]) -> typer.Typer:
    """The command group; `with_exit_code` makes a returned exit code the program's."""
    group = typer.Typer(help="Fetch data, check it, and list what is there.", rich_markup_mode=None)
    for name, verb in (("prepare", prepare), ("verify", verify), ("list", list_data)):
        group.command(name)(with_exit_code(verb))
    return group


def prepare(
    task: Annotated[str, typer.Argument(metavar="TASK|corenlp", help="A task, or the Java archives of SPICE.")],
    data_root: DataRoot = None,
    yes: Annotated[bool, typer.Option("--yes", help="Accept the licence and the size without being asked.")] = False,
    task_option: TaskOptions = None,
    plugin: PluginFiles = None,
) -> int:
    """Fetch a task's data from its own home, checked and unpacked; the same command continues where it stopped.

    Nothing that is there is written over. Where a form or a licence stands in the way, it says what to do by hand.
    """
    add_plugins(plugin)
    try:
        if task == _CORENLP:
            return _prepare_corenlp(data_root, yes)
        return _prepare_task(task, data_root, yes, parse_options(task_option, "-t"))
    except KeyboardInterrupt:
        print("interrupted; the same command continues where it stopped", file=sys.stderr)
        return EXIT_INTERRUPTED


def verify(
    task: Annotated[str, typer.Argument(metavar="TASK", help="The task whose data is checked.")],
    data_root: DataRoot = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write every fault into this file, as JSON.")
    ] = None,
    task_option: TaskOptions = None,
    plugin: PluginFiles = None,
) -> int:
    """Decode every clip and compare the set with what was published. Exit code 1 when there is a fault."""
    add_plugins(plugin)
    report = _verified(task, data_root, parse_options(task_option, "-t"))
    _print_report(report)
    if json_file is not None:
        import json

        from harness.record_files import write_atomically

        write_atomically(json_file, json.dumps(report.as_json(), ensure_ascii=False, indent=1) + "\n")
    return int(not report.is_clean)


def list_data(data_root: DataRoot = None, plugin: PluginFiles = None) -> None:
    """List each task: how many of its items were found, official or starter set, where, and the licence."""
    from harness.prepare import data_folder
    from harness.registry import names

    add_plugins(plugin)
    folder = data_folder(data_root)
    if folder != Path("data") and not folder.is_dir():
        raise UsageError(f"There is no folder {folder}.")
    rows = [
        ("TASK", "ITEMS", "ORIGIN", "WHERE", "LICENCE OF THE BENCHMARK"),
        *(_row(name, data_root) for name in names("tasks")),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        typer.echo("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


# --- prepare ----------------------------------------------------------------------------------------------------------


def _prepare_task(name: str, data_root: Path | None, yes: bool, options: dict[str, str]) -> int:
    from harness.prepare import prepare_task
    from harness.registry import create

    task = create("tasks", name, options).value
    done = prepare_task(task, data_root, _asking(yes))
    _print_prepared(task, done)
    return int(not done.is_complete)


def _prepare_corenlp(data_root: Path | None, yes: bool) -> int:
    from harness.prepare import corenlp_folder, prepare_corenlp

    folder = data_root or corenlp_folder()
    for path in prepare_corenlp(folder, _asking(yes)):
        typer.echo(path)
    if folder != corenlp_folder():
        typer.echo(f"SPICE looks there when the environment says LALM_HARNESS_CORENLP={folder}")
    return 0


def _asking(yes: bool) -> Callable[[str], bool]:
    """What answers the one question: --yes, or the person at the terminal."""

    def confirm(question: str) -> bool:
        if yes:
            print(question.replace("?", ":", 1), file=sys.stderr)
            return True
        if not sys.stdin.isatty():
            raise UsageError(f"{question} Say --yes to accept.")
        return typer.confirm(question, err=True)

    return confirm


def _print_prepared(task: Task, done: Prepared) -> None:
    found = done.items
    typer.echo(f"{task.name}: {len(found.items)} items of {found.n_declared} in {found.root}")
    for message in done.by_hand:
        typer.echo(message)
    if done.n_missing:
        are = "clip is" if done.n_missing == 1 else "clips are"
        typer.echo(f"{done.n_missing} {are} missing. By hand: {task.download.rstrip('.')}.")


# --- verify -----------------------------------------------------------------------------------------------------------


def _verified(name: str, data_root: Path | None, options: dict[str, str]) -> Report:
    from harness.datasets import find_items
    from harness.progress import progress
    from harness.registry import create, load
    from harness.verify import count_clips, paths_of_other_splits
    from harness.verify import verify as verify_items

    made = create("tasks", name, options)
    items = find_items(made.value, data_root)
    others = paths_of_other_splits(load("tasks", name), made.options_changed, items.root, items.origin)
    with progress(f"verifying {name}", count_clips(items)) as advance:
        return verify_items(made.value, items, others, advance)


def _print_report(report: Report) -> None:
    from harness.verify import KINDS

    channels = "1 channel" if report.channels == 1 else f"{report.channels} channels"
    form = "no clip could be heard" if report.rate_hz is None else f"{report.rate_hz} Hz, {channels}"
    typer.echo(
        f"{report.task} ({report.origin}) in {report.root}: {report.n_items} items of {report.n_declared}, "
        f"{report.n_clips} clips, {report.n_heard} heard, {form}"
    )
    for kind in KINDS:
        faults = report.of_kind(kind)
        typer.echo(f"  {kind:14} {len(faults):7}")
        for fault in faults[:_N_EXAMPLES]:
            typer.echo(f"    {fault.clip}: {fault.detail}")
        if len(faults) > _N_EXAMPLES:
            typer.echo(f"    and {len(faults) - _N_EXAMPLES} more")
    if report.unchecked:
        typer.echo(f"  published, but not checked: {', '.join(report.unchecked)}")
    n_faults = len(report.faults)
    typer.echo(f"{n_faults} {'fault' if n_faults == 1 else 'faults'}" if n_faults else "no fault")


# --- list -------------------------------------------------------------------------------------------------------------


def _row(name: str, data_root: Path | None) -> tuple[str, str, str, str, str]:
    """Name, items, origin, place and licence of a task; what is wrong instead, when it cannot be made or read."""
    from harness.datasets import find_items
    from harness.errors import MissingDataError
    from harness.registry import create

    licence = ""
    try:
        task = create("tasks", name).value
        licence = task.licence
        items = find_items(task, data_root, say=lambda line: None)
    except MissingDataError:
        return name, "-", "not found", "", licence
    except HarnessError as error:
        return name, "-", "unreadable", str(error), licence
    return name, _items_text(items), items.origin, str(_near(items.root)), licence


def _items_text(items: ItemSet) -> str:
    from harness.verify import missing_clips

    n_missing = missing_clips(items)
    without = f", {n_missing} without audio" if n_missing else ""
    return f"{len(items.items)} of {items.n_declared}{without}"


def _near(root: Path) -> Path:
    """The path as seen from here, where it lies below."""
    here = Path.cwd()
    return root.relative_to(here) if root.is_absolute() and root.is_relative_to(here) else root
