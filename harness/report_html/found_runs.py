"""The runs below a folder of results that can be shown, and why the others cannot."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError
from harness.records import PREDICTIONS_FILE, RECORD_FILE, Prediction, RunRecord, ScoreRow, load_predictions
from harness.scores import load_finished, stored_scores


@dataclass(frozen=True, eq=False)
class FoundRun:
    """A finished run with all its scores. `key` is its folder's path below the results, and its name in links."""

    key: str
    folder: Path
    record: RunRecord
    predictions: tuple[Prediction, ...]
    scores: tuple[ScoreRow, ...]

    @property
    def place(self) -> str:
        """Its folder below the results, by which names are given."""
        return self.key


@dataclass(frozen=True)
class Skipped:
    """A folder that is not shown; `reason` is one sentence."""

    key: str
    reason: str


def find_runs(results: Path) -> tuple[list[FoundRun], list[Skipped]]:
    """Every folder `[.../]runs/<model>/<task>/<run>` below the results, in the order of their paths.

    A run that is damaged, unfinished or changed since is skipped with its reason, never shown in part.
    """
    found: list[FoundRun] = []
    skipped: list[Skipped] = []
    for folder in sorted(_run_folders(results)):
        key = folder.relative_to(results).as_posix()
        try:
            found.append(_load(key, folder))
        except HarnessError as error:
            skipped.append(Skipped(key, str(error).replace(str(folder), key)))
    return found, skipped


def repeats(runs: Iterable[FoundRun]) -> list[str]:
    """One line for each identity that several runs have: they are one command's, given again with --fresh."""
    by_identity: dict[str, list[str]] = {}
    for run in runs:
        by_identity.setdefault(run.record.identity_sha256, []).append(run.key)
    return [f"The same command made {', '.join(keys)}." for keys in by_identity.values() if len(keys) > 1]


def _run_folders(results: Path) -> Iterable[Path]:
    for folder in results.glob("**/runs/*/*/*"):
        if any((folder / name).exists() for name in (RECORD_FILE, PREDICTIONS_FILE)):
            yield folder


def _load(key: str, folder: Path) -> FoundRun:
    record = load_finished(folder)
    scores = stored_scores(folder, record)
    return FoundRun(
        key, folder, record, tuple(load_predictions(folder)), tuple(scores[identity] for identity in sorted(scores))
    )
