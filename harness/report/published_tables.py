"""The published numbers as tables of their own, in the layout of the field: one a scorer of labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.report.columns import METRIC_NAMES
from harness.report.published import SIGNS, PublishedNumber, percent_text, task_order
from harness.report.rendering import DASH, ReportTable, file_name
from harness.scoring import VERBATIM


def published_tables(published: Sequence[PublishedNumber]) -> list[ReportTable]:
    """One table a scorer of labels, in the same layout; captions and transcripts stand beside their system's labels."""
    found = []
    for scorer in sorted({number.scorer for number in published} - {VERBATIM}):
        numbers = [n for n in published if n.scorer in (scorer, VERBATIM) and _scorer_of(n.system, published) == scorer]
        columns = sorted({(n.task, n.metric) for n in numbers}, key=lambda column: task_order(column[0]))
        systems = list(dict.fromkeys(n.system for n in numbers))
        by_place = {(n.system, (n.task, n.metric)): n for n in numbers}
        cells = [[by_place.get((system, column)) for column in columns] for system in systems]
        rows = [
            (name, *(DASH if n is None else f"{percent_text(n)}{SIGNS[n.mark]}" for n in line))
            for name, line in zip(systems, cells, strict=True)
        ]
        origins: dict[str, list[str]] = {}
        for name, line in zip(systems, cells, strict=True):
            origins.setdefault(_origins(n for n in line if n is not None), []).append(name)
        notes = [f"{'; '.join(names)}: {origin}" for origin, names in origins.items()]
        found.append(
            ReportTable(
                name=file_name("published", scorer),
                title=f"Published by others, in percent; labels by: {scorer}",
                header=("system", *(f"{task} {METRIC_NAMES.get(metric, metric)}" for task, metric in columns)),
                rows=tuple(rows),
                sources=(),
                notes=tuple(notes),
            )
        )
    return found


def _scorer_of(system: str, published: Sequence[PublishedNumber]) -> str:
    """The scorer of a system's labels; that of its captions where it has no labels."""
    return next((n.scorer for n in published if n.system == system and n.scorer != VERBATIM), VERBATIM)


def _origins(numbers: Iterable[PublishedNumber]) -> str:
    used = list(numbers)
    sources = "; ".join(sorted({n.source for n in used}))
    notes = sorted({n.note for n in used if n.note})
    return f"{sources}.{' ' + '; '.join(notes) + '.' if notes else ''}"
