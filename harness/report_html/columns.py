"""Items as columns, small enough that a page holds tens of thousands: what runs share is written once.

An item set holds what the data says (ids, references, lengths, audio); a run holds what the model made of it. Texts
that repeat stand once in a list, and the column holds places in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from harness.records import Prediction, was_cut
from harness.report_html.audio_links import link_audio
from harness.report_html.found_runs import FoundRun
from harness.report_html.outcomes import item_outcomes
from harness.tables import task_text

Columns = dict[str, Any]
_STATUS_LETTERS = {"ok": "o", "truncated": "t", "failed": "f"}


class Texts:
    """A list of texts without repeats; `place` gives a text's place in it."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def place(self, text: str) -> int:
        """The text's place, a new one when it is new."""
        return self._places.setdefault(text, len(self._places))

    @property
    def all(self) -> list[str]:
        """The texts in the order of their places."""
        return list(self._places)


def browsable(runs: Sequence[FoundRun], page_folder: Path) -> tuple[list[Columns], list[Columns]]:
    """Item sets, and runs that each name the place of theirs in `set`; runs of one set list the same items."""
    order: dict[object, list[FoundRun]] = {}
    for run in runs:
        order.setdefault(_set_identity(run), []).append(run)
    item_sets: list[Columns] = []
    columns: dict[str, Columns] = {}
    for together in order.values():
        ids = [prediction.item_id for prediction in together[0].predictions]
        item_sets.append(_item_set(together[0], page_folder))
        for run in together:
            columns[run.key] = {"set": len(item_sets) - 1, **_run(run, ids)}
    return item_sets, [columns[run.key] for run in runs]


def _set_identity(run: FoundRun) -> object:
    asked = sorted((row.item_id, row.references) for row in run.predictions)
    return run.record.task.name, run.record.task.item_set_sha256, tuple(asked)


def _item_set(run: FoundRun, page_folder: Path) -> Columns:
    rows, texts = run.predictions, Texts()
    audio = link_audio(run.record, rows, page_folder)
    base = _shared_folder([url for url in audio.urls if url is not None])
    return {
        "task": run.record.task.name,
        "kind": run.record.task.kind,
        "ids": [row.item_id for row in rows],
        "references": [[texts.place(text) for text in row.references] for row in rows],
        "texts": texts.all,
        "seconds": [_short(row.duration_s) for row in rows],
        "audio_base": base,
        "audio": [0 if url is None else url[len(base) :] for url in audio.urls],
        "audio_note": audio.note,
    }


def _run(run: FoundRun, ids: Sequence[str]) -> Columns:
    position = {row.item_id: place for place, row in enumerate(run.predictions)}
    order = [position[item_id] for item_id in ids]
    rows = [run.predictions[place] for place in order]
    answers = Texts()
    return {
        "prompt": run.record.prompt.text,
        "length_policy": run.record.model.length_policy,
        "status": "".join(_status(row, run.record.model.length_policy) for row in rows),
        "answers": [answers.place(row.text) for row in rows],
        "texts": answers.all,
        "load_s": [_short(row.load_s) for row in rows],
        "answer_s": [_short(row.answer_s) for row in rows],
        "tokens": [[row.n_audio_tokens, row.n_prompt_tokens, row.n_answer_tokens] for row in rows],
        "heard": _where(rows, lambda r: [r.frames_heard, r.frames_total] if r.frames_heard != r.frames_total else None),
        "errors": _where(rows, lambda r: f"{r.error_type}: {r.error}" if r.status == "failed" else None),
        "notes": _where(rows, lambda r: "; ".join(r.notes) or None),
        "stopped": [place for place, row in enumerate(rows) if row.stopped == "length"],
        "scorers": _scorers(run, order),
    }


def headline(run: FoundRun, name: str) -> Columns:
    """What the lists of runs show, without reading the run's columns; `name` is what its model is called."""
    return {
        "key": run.key,
        "model": name,
        "task": task_text(run.record),
        "prompt_name": run.record.prompt.name,
        "n": len(run.predictions),
    }


def _scorers(run: FoundRun, order: Sequence[int]) -> list[Columns]:
    """Labels are places in `names`; one a single number, several or none a list."""
    columns = []
    for found in item_outcomes(run):
        names = Texts()
        labels = [[names.place(label) for label in found.labels[place]] for place in order if found.labels]
        columns.append(
            {
                "name": found.scorer,
                "reason": found.reason,
                "outcomes": "".join(found.outcomes[place] for place in order if found.outcomes),
                "labels": [places[0] if len(places) == 1 else places for places in labels],
                "names": names.all,
            }
        )
    return columns


def _status(row: Prediction, length_policy: str) -> str:
    """o ok, t truncated, c cut as the model's length policy says, f failed."""
    return "c" if was_cut(row, length_policy) else _STATUS_LETTERS[row.status]


def _where(rows: Iterable[Prediction], value_of: Callable[[Prediction], Any]) -> Columns:
    """Place to value, for the few items that have one."""
    values = ((place, value_of(row)) for place, row in enumerate(rows))
    return {str(place): value for place, value in values if value is not None}


def _short(seconds: float | None) -> float | None:
    """Four digits are more than a reader sees."""
    return None if seconds is None else float(f"{seconds:.4g}")


def _shared_folder(urls: Sequence[str]) -> str:
    """The longest start, up to a slash, that all have."""
    if not urls:
        return ""
    low, high = min(urls), max(urls)
    n_alike = next((n for n, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
    return low[: low.rfind("/", 0, n_alike) + 1]
