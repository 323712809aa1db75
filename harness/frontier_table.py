"""The table of `frontier`, made from its record and its probes alone: one row a model."""

from __future__ import annotations

from collections.abc import Sequence

from harness.frontier import full_name
from harness.frontier_rows import FrontierRecord, FrontierRow, ProbeRow
from harness.progress import duration_text
from harness.tables import Table

_HEADER = (
    "model",
    "longest audio",
    "passed",
    "breaks at",
    "by",
    "answer s",
    "resident MiB",
    "device MiB",
    "second way",
)


def frontier_table(record: FrontierRecord, probes: Sequence[ProbeRow]) -> Table:
    """Times and memory are those of the longest answer that passed, at their worst."""
    return Table(_HEADER, tuple(_cells(record, row, probes) for row in record.rows))


def closing_lines(record: FrontierRecord) -> list[str]:
    """What a reader must know of the table, and what each model said when it broke."""
    config = record.config
    cap = config["memory_bytes"]
    limit = config["time_limit_s"]
    lines = [
        f"one clip on {config['device']} in {config['dtype']}, {config['threads']} CPU threads at most; "
        f"memory cap {'none' if cap is None else f'{cap / 2**30:g} GiB by {record.memory_cap}'}; "
        f"time limit {'none' if limit is None else f'{limit:g} s'} an answer",
        "answer s is of a first call in a fresh process, where compilers and caches have their turn",
        "resident MiB hold shared libraries, which the cap does not count",
    ]
    named = [(model_name(row), row) for row in record.rows]
    lines += [f"{name}: weights are random" for name, row in named if row.options.get("weights") == "random"]
    return lines + [f"{name}: {row.breaks_message}" for name, row in named if row.breaks_message]


def model_name(row: FrontierRow) -> str:
    """As it is typed, such as "ssalm:tiny"."""
    return full_name(row.model)


def length_text(length_s: float) -> str:
    """Such as "14.14 s", "3 min 20 s" or "2 h 05 min"."""
    return f"{length_s:g} s" if length_s < 60 else duration_text(length_s)


def _cells(record: FrontierRecord, row: FrontierRow, probes: Sequence[ProbeRow]) -> tuple[str, ...]:
    name = model_name(row)
    at_edge = [probe for probe in probes if probe.model == name and probe.length_s == row.edge_s and probe.kind == "ok"]
    return (
        name,
        _edge_text(record, row),
        str(row.n_passes),
        "-" if row.breaks_at_s is None else length_text(row.breaks_at_s),
        _breaks_by_text(row, [probe for probe in probes if probe.model == name]),
        _most(at_edge, "answer_s", 1.0, ".3g"),
        _most(at_edge, "peak_rss_bytes", 2**20, ".0f"),
        _most(at_edge, "peak_device_reserved_bytes", 2**20, ".0f"),
        _second_way(probes, name),
    )


def _edge_text(record: FrontierRecord, row: FrontierRow) -> str:
    if row.edge_s is None:
        return f"less than {length_text(record.config['ladder']['shortest_s'])}"
    if row.breaks_by is None:
        return f"at least {length_text(row.edge_s)} (the search's longest)"
    return length_text(row.edge_s)


def _breaks_by_text(row: FrontierRow, probes: Sequence[ProbeRow]) -> str:
    """What broke it; "in the proof" where the answer itself came, so that the edge is a bound from below."""
    if row.breaks_by is None:
        return "-"
    failed = next((p for p in probes if p.length_s == row.breaks_at_s and p.kind == row.breaks_by), None)
    only_proof = failed is not None and failed.answer is not None and row.breaks_by != "wrong_numbers"
    return row.breaks_by.replace("_", " ") + (" in the proof" if only_proof else "")


def _most(probes: Sequence[ProbeRow], field: str, unit: float, form: str) -> str:
    found = [getattr(probe.answer, field) for probe in probes if probe.answer is not None]
    return "-" if not found or None in found else f"{max(found) / unit:{form}}"


def _second_way(probes: Sequence[ProbeRow], name: str) -> str:
    found = [probe.second_way for probe in probes if probe.model == name and probe.second_way is not None]
    compared = [way for way in found if way.difference is not None]
    if not compared:
        return "none" if all(way.result == "same kernels" for way in found) else "not done"
    n_agree = sum(way.result == "agrees" for way in compared)
    return f"{n_agree} of {len(found)} agree"
