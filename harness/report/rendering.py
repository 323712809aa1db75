"""A table of the report, and how it reads as Markdown, LaTeX and CSV. What users and models wrote is text in each.

Cells are plain text. Marks beside a number are single signs, and `MARKS` says in the notes what each means.
"""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.latex import latex_escaped, one_line, tabular
from harness.tables import csv_rows

DASH = "-"
TIED, INCOMPLETE, LEARNED = "≈", "*", "#"
DIFFERS, SECONDARY, INFERRED, RECALLED = "§", "†", "¶", "‡"
MARKS: Mapping[str, str] = {
    TIED: "tied with the best of the column",
    INCOMPLETE: "some items failed, were cut short or named no label, and count as wrong",
    LEARNED: "the model learned from some of these clips; scores.csv has the score without them",
    DIFFERS: "published under another protocol than the runs of this table",
    SECONDARY: "read in a digest, not in the source itself",
    INFERRED: "inferred; see the notes of `published.csv`",
    RECALLED: "recalled from memory and not checked",
}


@dataclass(frozen=True)
class Source:
    """What a table or figure was made of: a folder below the results folder, its id, and how it came about."""

    place: str
    identity: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ReportTable:
    """A table that is ready to print. `bold` holds places (row, column); `rules` rows with a line above them.

    `data` is what goes to the CSV file: header and rows of plain values, the printed cells where it is None.
    """

    name: str
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    sources: tuple[Source, ...]
    notes: tuple[str, ...] = ()
    bold: frozenset[tuple[int, int]] = frozenset()
    rules: frozenset[int] = frozenset()
    data: tuple[tuple[Any, ...], ...] | None = None

    def all_notes(self) -> list[str]:
        """The notes, what each mark in a cell means, and the runs that made the table."""
        # A mark stands behind a number; a name may hold the same sign.
        cells = " ".join(cell for row in self.rows for cell in row[1:] if re.match(r"[-+]?\d", cell))
        marks = [f"{mark} {meaning}." for mark, meaning in MARKS.items() if mark in cells]
        return [*self.notes, *marks, sources_note(self.sources, self.name)]


def sources_note(sources: Sequence[Source], name: str, most: int = 6) -> str:
    """Which runs made a table or figure, in one line, such as "Made of: 28cb7fcf, 1e83a0bb (commit 53051531d2)."."""
    if not sources:
        return "Made of published numbers alone; each one's source stands in published.csv."
    ids = list(dict.fromkeys(source.identity for source in sources))
    commits = sorted({str(source.facts["git_commit"])[:10] for source in sources if source.facts.get("git_commit")})
    dirty = ", with changes" if any(source.facts.get("git_is_dirty") for source in sources) else ""
    shown = ", ".join(ids) if len(ids) <= most else f"{len(ids)} runs, named in {name}.json"
    commit = f" (commit {', '.join(commits)}{dirty})" if commits else ""
    return f"Made of: {shown}{commit}."


# --- formats ---------------------------------------------------------------------------------------------------------


def to_markdown(table: ReportTable) -> str:
    """Title, table and notes as GitHub shows them."""
    lines = [f"**{markdown_escaped(table.title)}**", ""]
    lines.append("| " + " | ".join(map(markdown_escaped, table.header)) + " |")
    lines.append("| " + " | ".join(_rule(table, column) for column in range(len(table.header))) + " |")
    for number, row in enumerate(table.rows):
        cells = [_strong(markdown_escaped(cell), (number, column) in table.bold) for column, cell in enumerate(row)]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *(f"- {markdown_escaped(note)}" for note in table.all_notes())]
    return "\n".join(lines) + "\n"


def _rule(table: ReportTable, column: int) -> str:
    return "---:" if _is_numeric(table, column) else ":---"


def _strong(text: str, is_bold: bool) -> str:
    return f"**{text}**" if is_bold else text


def markdown_escaped(text: str) -> str:
    """Text that Markdown shows as it is: no HTML, no emphasis, no links, no new cell and no new line."""
    text = html.escape(one_line(text), quote=False)
    text = re.sub(r"([\\`*|])", r"\\\1", text)
    text = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)
    # Brackets alone are an interval; before a parenthesis or a colon they would be a link.
    return re.sub(r"\](?=[(\[:])", r"\\]", text)


def to_latex(table: ReportTable) -> str:
    """A tabular with booktabs' rules, the title as a comment above it and the notes as a paragraph below."""
    columns = "".join("r" if _is_numeric(table, column) else "l" for column in range(len(table.header)))
    lines = ["% " + one_line(table.title), "% needs \\usepackage{booktabs} and \\usepackage[T1]{fontenc}"]
    lines += tabular(table.header, table.rows, columns, table.bold, table.rules)
    lines += ["", r"\par\smallskip{\footnotesize"]
    lines += [rf"{latex_escaped(note)}\par" for note in table.all_notes()]
    return "\n".join([*lines, "}"]) + "\n"


def to_csv(table: ReportTable) -> str:
    """Values for other programs (RFC 4180, but for line ends)."""
    return csv_rows(table.data if table.data is not None else (table.header, *table.rows))


def _is_numeric(table: ReportTable, column: int) -> bool:
    """Whether every cell that says something begins with a number."""
    cells = [row[column] for row in table.rows if row[column] not in ("", DASH)]
    return column > 0 and bool(cells) and all(re.match(r"[-+~≥]?\d", cell) for cell in cells)


def file_name(*parts: str) -> str:
    """Parts with dashes between; what a file's name cannot hold becomes a line, and a hash tells it from others."""
    return "-".join(_file_part(part) for part in parts if part)


def _file_part(part: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9_.=]+", "_", part).strip("_.")
    return plain if plain == part.replace(" ", "_") else f"{plain}-{hashlib.sha256(part.encode()).hexdigest()[:6]}"
