"""Which scores may share a column: those of one task, item set, question, metric and scorer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harness.records import RunRecord, ScoreRow
from harness.report.published import task_order
from harness.report.weights import Trained, row_names
from harness.results_frame import KeptRun, model_order
from harness.scoring import VERBATIM

METRIC_NAMES: Mapping[str, str] = {
    "accuracy": "acc.",
    "micro_f1": "mi-F1",
    "macro_f1": "ma-F1",
    "mean_ap": "mAP",
    "mean_ap_ltu": "mAP (LTU)",
    "spice": "SPICE",
    "spider": "SPIDEr",
    "cider_d": "CIDEr-D",
    "meteor": "METEOR",
    "rouge_l": "ROUGE-L",
    "wer": "WER",
}
# The origin of items that the harness makes.
GENERATED = "generated"
KINDS = ("classification", "captioning", "transcription")


@dataclass(frozen=True)
class Setting:
    """What tells one accuracy table from another: the origin of the data and the way of asking."""

    origin: str
    asked: str

    @classmethod
    def of(cls, record: RunRecord) -> Setting:
        """The setting of a run: its protocol, or its prompt where that is not the task's first."""
        if record.protocol is not None:
            return cls(record.task.origin, f"protocol {record.protocol}")
        return cls(record.task.origin, "" if record.prompt.is_default else f"prompt {record.prompt.name}")

    def __str__(self) -> str:
        return f"{self.origin}, {self.asked}" if self.asked else self.origin


@dataclass(frozen=True)
class Column:
    """One task and metric by one scorer, over one set of items and one question."""

    task: str
    task_version: int
    kind: str
    options: str
    metric: str
    scorer: str
    scorer_version: int
    n_items: int
    n_declared: int
    item_set_sha256: str
    prompt_sha256: str

    @classmethod
    def of(cls, record: RunRecord, score: ScoreRow) -> Column:
        """The column of a score."""
        task = record.task
        options = ", ".join(f"{name}={value}" for name, value in sorted(task.options_changed.items()))
        hashes = (task.item_set_sha256, record.prompt.sha256)
        named = (task.name, task.version, task.kind, options, score.metric, score.scorer, score.scorer_version)
        return cls(*named, score.n_items, task.n_declared, *hashes)

    @property
    def scorer_name(self) -> str:
        """The scorer without its options: "ltu" of "ltu[cut=audio_caption]"."""
        return self.scorer.partition("[")[0]

    @property
    def distinction(self) -> str:
        """What tells it from another column of the same task, options and number of items."""
        versions = f"task version {self.task_version}, scorer version {self.scorer_version}"
        return f"{versions}, items {self.item_set_sha256[:8]}, prompt {self.prompt_sha256[:4]}"

    @property
    def order(self) -> tuple[object, ...]:
        """By kind, then as in the field's tables."""
        kind = KINDS.index(self.kind) if self.kind in KINDS else len(KINDS)
        return (kind, task_order(self.task), self.options, self.n_items, self.task_version, str(self))

    def __str__(self) -> str:
        options = f" {self.options}" if self.options else ""
        part = "" if self.n_items == self.n_declared else f" of {self.n_declared}"
        cut = self.scorer.removeprefix(self.scorer_name)
        options += f" {cut}" if cut else ""
        return f"{self.task}{options} {METRIC_NAMES.get(self.metric, self.metric)} (n {self.n_items}{part})"


@dataclass(frozen=True)
class Entry:
    """One score in a column, with the run that it is of."""

    run: KeptRun
    score: ScoreRow


@dataclass(frozen=True)
class Grid:
    """The scores of one table: columns in order, rows by what the model is called, and cells by both.

    `scorer` is a name without options: a protocol may ask other ones of the same scorer on another task.
    """

    setting: Setting
    scorer: str
    columns: tuple[Column, ...]
    rows: tuple[str, ...]
    cells: Mapping[tuple[str, Column], Entry]
    left_out: tuple[str, ...]

    def is_whole(self, column: Column) -> bool:
        """Whether a column is the benchmark as published: no item left out, and no option changed but by a protocol."""
        is_by_protocol = self.setting.asked.startswith("protocol ")
        return column.n_items == column.n_declared and (is_by_protocol or not column.options)

    @property
    def titles(self) -> tuple[str, ...]:
        """What each column is called: with what tells it from others of its name where there are any."""
        plain = [str(column) for column in self.columns]
        return tuple(
            title if plain.count(title) == 1 else f"{title} [{column.distinction}]"
            for title, column in zip(plain, self.columns, strict=True)
        )


def grids(runs: Iterable[KeptRun], trained: Mapping[str, Trained]) -> list[Grid]:
    """One grid a setting and scorer of labels; columns of captions and transcripts stand in each.

    Args:
        runs: what was asked.
        trained: what left the weights of each hash, by which rows of several seeds are told apart.
    """
    kept = list(runs)
    names = row_names(kept, trained)
    by_setting: dict[Setting, list[Entry]] = {}
    for run in kept:
        headline = run.record.task.metrics[:1]
        entries = [Entry(run, score) for score in run.scores if score.metric in headline]
        by_setting.setdefault(Setting.of(run.record), []).extend(entries)
    found = []
    for setting in sorted(by_setting, key=str):
        entries = by_setting[setting]
        scorers = sorted({_plain(entry) for entry in entries} - {VERBATIM}) or [VERBATIM]
        for scorer in scorers:
            found.append(_grid(setting, scorer, [e for e in entries if _plain(e) in (scorer, VERBATIM)], names))
    return [grid for grid in found if grid.columns]


def _plain(entry: Entry) -> str:
    return entry.score.scorer.partition("[")[0]


def _grid(setting: Setting, scorer: str, entries: list[Entry], names: Mapping[str, str]) -> Grid:
    cells: dict[tuple[str, Column], Entry] = {}
    left_out = []
    for entry in sorted(entries, key=lambda entry: (entry.run.started_utc, entry.run.place)):
        place = (names[entry.run.place], Column.of(entry.run.record, entry.score))
        if place in cells:
            left_out.append(f"{cells[place].run.place} is left out for a newer run of the same.")
        cells[place] = entry
    columns = sorted({column for _, column in cells}, key=lambda column: column.order)
    rows = sorted(
        {row for row, _ in cells}, key=lambda row: (model_order(row.partition(":")[0].partition(" ")[0]), row)
    )
    return Grid(setting, scorer, tuple(columns), tuple(rows), cells, tuple(sorted(set(left_out))))
