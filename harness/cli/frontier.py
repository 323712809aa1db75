"""`frontier`: the longest audio that models answer before they break; with --streaming, what each minute costs."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli._exit_codes import EXIT_INTERRUPTED
from harness.cli._options import ModelOptions, PluginFiles, add_plugins, parse_options

if TYPE_CHECKING:
    from harness.frontier import FrontierConfig

DEFAULT_MODELS = ("ssalm:tiny", "hybrid:tiny", "ast_mamba:tiny", "ltu:tiny")
DEFAULT_MEMORY = "4G"
DEFAULT_TIME_LIMIT_S = 120.0
DEFAULT_SECOND_WAY = "scan=torch"
_LONGEST, _LONGEST_STREAMING = "24h", "30m"
_MEMORY_UNITS = {"M": 2**20, "G": 2**30, "T": 2**40}
_TIME_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def frontier(
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[:VARIANT]", help="Repeatable. [default: the four tiny models]"),
    ] = None,
    model_option: ModelOptions = None,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE|none",
            help="Cap on an answer's memory, such as 4G or 512M: the process's on the CPU, torch's on CUDA. "
            "[default: 4G on the CPU, the whole card on CUDA]",
        ),
    ] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            help="Seconds that one answer may take once the model is loaded; with --streaming the whole process. "
            "[default: 120; with --streaming none]",
        ),
    ] = None,
    shortest: Annotated[str, typer.Option(metavar="TIME", help="Where the search begins.")] = "10s",
    longest: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Where it ends if nothing broke, such as 90s, 30m or 2.5h; with --streaming, how long models listen. "
            "[default: 24h; with --streaming 30m]",
        ),
    ] = None,
    second_way: Annotated[
        str,
        typer.Option(
            metavar="KEY=VALUE|none",
            help="A model option that makes it compute the same in another way; every success is compared with it.",
        ),
    ] = DEFAULT_SECOND_WAY,
    streaming: Annotated[
        bool, typer.Option("--streaming", help="Do not search: measure each further minute of one long answer.")
    ] = False,
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="auto, cpu, cuda or cuda:N. [default: auto]")
    ] = None,
    dtype: Annotated[str | None, typer.Option(metavar="TYPE", help="Number type. [default: float32]")] = None,
    threads: Annotated[int | None, typer.Option(metavar="N", help="CPU threads. [default: every usable core]")] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Decides the noise that is heard.")] = 0,
    results: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the record goes.")] = Path("results"),
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin anew, even where the same command was interrupted.")
    ] = False,
    plugin: PluginFiles = None,
) -> int:
    """Find the longest audio that models answer: growth to the first failure, then bisection, in fresh processes.

    A length passes when the answer comes within the caps, its numbers are finite, and they heed the last second. A row
    says what broke the model, or that nothing did up to the search's longest. The same command again continues a search
    that was interrupted.
    """
    from harness.config import RunConfig
    from harness.edge import Ladder
    from harness.errors import UsageError
    from harness.frontier import FrontierConfig

    if time_limit is not None and not 0 < time_limit < math.inf:
        raise UsageError(f"--time-limit {time_limit:g} is out of range: it must be positive.")
    add_plugins(plugin)
    # For the checks and defaults that every verb shares.
    shared = RunConfig(model="", task="", device=device, dtype=dtype, threads=threads, seed=seed)
    on_device = shared.resolved_device()
    default_memory = "none" if on_device.startswith("cuda") else DEFAULT_MEMORY
    longest_s = parse_time(longest or (_LONGEST_STREAMING if streaming else _LONGEST), "--longest")
    config = FrontierConfig(
        models=tuple(model or DEFAULT_MODELS),
        options=parse_options(model_option, "-m"),
        memory_bytes=parse_memory(memory or default_memory),
        time_limit_s=time_limit if time_limit is not None or streaming else DEFAULT_TIME_LIMIT_S,
        # Models that listen once have no search, and so no shortest.
        ladder=Ladder(longest_s if streaming else parse_time(shortest, "--shortest"), longest_s),
        device=on_device,
        dtype=shared.resolved_dtype(),
        threads=shared.resolved_threads(),
        seed=seed,
        second_way={} if second_way == "none" else parse_options([second_way], "--second-way"),
        plugins=tuple(str(path.resolve()) for path in plugin or ()),
    )
    try:
        return _measure_streaming(config, results, fresh) if streaming else _search(config, results, fresh)
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return EXIT_INTERRUPTED


def parse_memory(text: str) -> int | None:
    """Bytes of "4G" or "512M" (powers of 1024); None for "none".

    Raises:
        UsageError: it is neither.
    """
    from harness.errors import UsageError

    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([MGT])(?:i?B)?", text.strip(), re.IGNORECASE)
    if text == "none":
        return None
    if found is None or float(found[1]) == 0:
        raise UsageError(f"--memory '{text}' is no size: write 4G, 512M or none.")
    return int(float(found[1]) * _MEMORY_UNITS[found[2].upper()])


def parse_time(text: str, flag: str) -> float:
    """Seconds of "90s", "90", "30m" or "2.5h".

    Raises:
        UsageError: it is none of these.
    """
    from harness.errors import UsageError

    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h)?", text.strip())
    if found is None or float(found[1]) == 0:
        raise UsageError(f"{flag} '{text}' is no length of time: write 90s, 30m or 2.5h.")
    return float(found[1]) * _TIME_UNITS[found[2] or "s"]


def _search(config: FrontierConfig, results: Path, fresh: bool) -> int:
    """1 where a model was broken by an error that is no limit."""
    from harness.frontier import search
    from harness.frontier_rows import load_probes
    from harness.frontier_table import closing_lines, frontier_table
    from harness.progress import say_on_stderr
    from harness.tables import plain_text

    folder, record = search(config, results, ["lalm-harness", *sys.argv[1:]], say_on_stderr, fresh)
    print(plain_text(frontier_table(record, load_probes(folder))))
    for line in closing_lines(record):
        print(line)
    print(f"record: {folder / 'record.json'}")
    return int(any(row.breaks_by == "error" for row in record.rows))


def _measure_streaming(config: FrontierConfig, results: Path, fresh: bool) -> int:
    """1 where a model did not answer."""
    from harness.progress import say_on_stderr
    from harness.streaming_cost import TABLE_NOTE, measure_streaming, streaming_table
    from harness.tables import plain_text

    folder, record, points = measure_streaming(config, results, ["lalm-harness", *sys.argv[1:]], say_on_stderr, fresh)
    print(plain_text(streaming_table(record, points)))
    print(TABLE_NOTE)
    print(f"record: {folder / 'record.json'}")
    return int(any(row.kind != "ok" for row in record.rows))
