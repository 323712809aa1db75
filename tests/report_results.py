"""Small results of every kind, written for the tests of `report`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.compare import compare
from harness.comparison_record import compared_runs, keep
from harness.control_sources import CONDITIONS
from harness.controls import audio_gain, sensitivity
from harness.frontier_rows import FrontierRecord, FrontierRow, ProbeRow
from harness.hashing import canonical_sha256
from harness.measuring import BoundMetric
from harness.record_files import to_json
from harness.records import (
    ComparisonRecord,
    ComparisonRow,
    ConditionRow,
    ControlsRecord,
    LabelRow,
    Prediction,
    RunRecord,
    count_outcomes,
    load_record,
    predictions_sha256,
    write_record,
)
from harness.registry import create
from harness.scaling_rows import PointRow, ScalingRecord, append_point
from harness.scores import compute_scores, decided_items
from harness.streaming_rows import MinuteRow, StreamingRecord, StreamingRow

REPOSITORY = Path(__file__).resolve().parents[1]
REFERENCE = REPOSITORY / "results" / "reference"
LABELS = ("dog", "rain", "siren")
N = 12
RIGHT = tuple(LABELS[number % 3] for number in range(N))


def _base() -> RunRecord:
    """A record of the repository, to change: its machine and versions are as good as any."""
    path = sorted((REFERENCE / "runs").glob("ssalm-tiny/esc50/*/record.json"))[0]
    record = load_record(path.parent)
    assert record is not None
    return record


BASE = _base()


def made_predictions(answers: Sequence[str], metadata: Sequence[dict[str, Any]] = ()) -> list[Prediction]:
    return [
        Prediction(
            item_id=f"clip{number}",
            cluster=f"recording{number}",
            references=(RIGHT[number],),
            status="ok",
            text=text,
            audio_identity=f"audio{number}",
            prompt_sha256=BASE.prompt.sha256,
            batch_index=0,
            duration_s=5.0,
            n_answer_tokens=2,
            answer_s=0.5,
            metadata=metadata[number] if metadata else {},
        )
        for number, text in enumerate(answers)
    ]


def _write_predictions(folder: Path, predictions: Sequence[Prediction]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(p.model_dump(mode="json")) for p in predictions]
    (folder / "predictions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_run(
    results: Path,
    model: str,
    answers: Sequence[str],
    *,
    task: str = "esc50",
    origin: str = "starter",
    scorers: Sequence[str] = ("exact",),
    started: str = "2026-01-01T00:00:00Z",
    n_parameters: int = 1000,
    metadata: Sequence[dict[str, Any]] = (),
    **changes: Any,
) -> Path:
    """A finished run of a model that gave these answers."""
    name, _, variant = model.partition(":")
    run_id = canonical_sha256({"asked": [model, task, origin, started], "answers": list(answers)})[:8]
    folder = results / "runs" / model.replace(":", "-") / task / f"{started.replace(':', '').replace('-', '')}-{run_id}"
    predictions = made_predictions(answers, metadata)
    _write_predictions(folder, predictions)
    labels = tuple(LabelRow(name=label, text=label) for label in LABELS)
    scores = [row for scorer in scorers for row in compute_scores(predictions, labels, scorer, ["accuracy"])]
    named = {"name": name, "variant": variant, "options_passed": {}, "parameters": {"all": n_parameters}}
    asked = {"name": task, "origin": origin, "n_found": N, "n_declared": N, "labels": labels, "metrics": ("accuracy",)}
    record = BASE.model_copy(
        update={
            "run_id": run_id,
            "identity_sha256": run_id * 8,
            "model": BASE.model.model_copy(update={**named, "trained_on": ""}),
            "task": BASE.task.model_copy(update=asked),
            "sessions": (BASE.sessions[0].model_copy(update={"started_utc": started}),),
            "counts": count_outcomes(predictions),
            "predictions_sha256": predictions_sha256(folder),
            "scores": tuple(scores),
            "leakage": None,
            **changes,
        }
    )
    write_record(folder, record)
    return folder


def answers(n_right: int, wrong: str = "dog") -> list[str]:
    """So many right answers from the start, then one that is wrong where it is not by chance right."""
    return [*RIGHT[:n_right], *[wrong if right != wrong else "rain" for right in RIGHT[n_right:]]]


def needle_metadata() -> list[dict[str, Any]]:
    return [{"length_s": float(10 + 10 * (n // 6)), "depth": (n // 2 % 3) / 2, "snr_db": 0.0} for n in range(N)]


# --- other kinds of results ------------------------------------------------------------------------------------------

SPREAD = {"median": 1.0, "low": 0.9, "high": 1.1, "n_samples": 3}


def point(model: str, seconds: float, total_s: float, flops: int) -> PointRow:
    """A point whose answer took so long, with a peak that grows as its time does."""
    work = {"flops": flops, "macs": flops // 2, "other": 0, "parts": {}}
    samples = [total_s * share for share in (0.9, 1.0, 1.1)]
    key = {"model": model, "variant": "tiny", "options": {}, "fingerprint": model, "step": "infer", "seconds": seconds}
    conditions = {"batch_size": 1, "n_tokens": 4, "device": "cpu", "dtype": "float32", "threads": 2}
    measured = {
        "description": BASE.model.model_dump(mode="json"),
        "kernels": {},
        "load_s": 1.0,
        "first_call_s": 1.0,
        "total": {"median": total_s, "low": None, "high": None, "n_samples": 3},
        **dict.fromkeys(("first_token", "per_token", "prefill", "device_time"), None),
        "noise": "",
        "real_time_factor": total_s / seconds,
        "clips_per_s": 1 / total_s,
        "answer_tokens_per_s": 4 / total_s,
        "work": work,
        "work_missing": "",
        "flops_per_s": flops / total_s,
        "memory": {
            "model": 100,
            "peak": {"allocated": int(1e6 * total_s) + 200, "reserved": None, "process": 10**8, "device": None},
            "base": 0,
            "reasons": {},
        },
        "components": [{"component": "encoder", "seconds": SPREAD, "work": work, "flops_per_s": 1.0, "peak": None}],
        "state": {
            "n_tokens": 4,
            "growing": 0 if model == "ssalm" else 64,
            "constant": 8,
            "formula_growth_per_token": 0.0,
            "measured_growth_per_token": 0.0,
        },
        "energy": None,
        "energy_missing": "no counter",
        "tokens_sha256": None,
        "tokens_alike": None,
        "samples": {
            "total_s": samples,
            "first_token_s": [],
            "per_token_s": [],
            "component_s": {},
            "device_s": [],
            "token_s": [],
        },
    }
    told = {"outcome": "ok", "message": "", "exit_code": 0, "wall_s": 1.0, "started_utc": "now", "position": 0}
    return PointRow.model_validate({"key": {**key, **conditions}, **told, "measured": measured})


def write_scaling(results: Path, more: Sequence[PointRow] = ()) -> None:
    """A state-space model whose time is 40 s, a transformer whose time is s^2, which cross at 40 s; and more points."""
    folder = results / "scaling" / "20260101T000000Z-5ca1e000"
    folder.mkdir(parents=True)
    for seconds in (10.0, 20.0, 50.0, 100.0):
        append_point(folder, point("ssalm", seconds, 40 * seconds, int(1e6 * seconds)))
        append_point(folder, point("ltu", seconds, seconds**2, int(1e5 * seconds**2)))
    for each in more:
        append_point(folder, each)
    told = {"record_id": "5ca1e000", "conditions": {}, "prompt": "What?", "sessions": []}
    record = ScalingRecord.model_validate({**told, "environment": BASE.environment.model_dump(mode="json")})
    (folder / "record.json").write_text(to_json(record))


def write_frontier(results: Path) -> None:
    """A model that breaks for memory at 320 s, and one that passed the search's longest."""
    folder = results / "frontier" / "20260101T000000Z-f0000000"
    folder.mkdir(parents=True)
    probes = []
    for model, length_s, kind in (("ltu", 160.0, "ok"), ("ltu", 320.0, "out_of_memory"), ("ssalm", 3600.0, "ok")):
        empty = dict.fromkeys(("exit_code", "answer", "proof_wall_s", "proof", "second_way"), None)
        told = {"message": "", "started_utc": "now", "answer_wall_s": 1.0, "step": "growth", **empty}
        probes.append(ProbeRow.model_validate({"model": f"{model}:tiny", "length_s": length_s, "kind": kind, **told}))
    (folder / "probes.jsonl").write_text("".join(f"{json.dumps(p.model_dump(mode='json'))}\n" for p in probes))
    rows = []
    for name, edge_s, at_s, by in (("ltu", 160.0, 320.0, "out_of_memory"), ("ssalm", 3600.0, None, None)):
        model = BASE.model.model_copy(update={"name": name, "variant": "tiny"})
        broken = {"breaks_at_s": at_s, "breaks_by": by, "breaks_message": ""}
        told = {"options": {}, "edge_s": edge_s, "n_passes": 1, "n_probes": 2, "wall_s": 1.0, **broken}
        rows.append(FrontierRow.model_validate({"model": model.model_dump(mode="json"), **told}))
    config = {"memory_bytes": 2**30, "time_limit_s": 60.0, "device": "cpu", "dtype": "float32", "threads": 2}
    record = FrontierRecord(
        command=("lalm-harness", "frontier"),
        config={**config, "ladder": {"shortest_s": 10.0}},
        memory_cap="RLIMIT_DATA",
        prompt="What?",
        labels=LABELS,
        audio="noise",
        environment=BASE.environment,
        started_utc="2026-01-01T00:00:00Z",
        ended_utc="2026-01-01T00:01:00Z",
        rows=tuple(rows),
    )
    (folder / "record.json").write_text(to_json(record))


def write_controls(results: Path, run: Path) -> Path:
    """Controls of the run's model: nine of twelve right with the audio, a third without."""
    record = load_record(run)
    assert record is not None
    folder = results / "controls" / run.relative_to(results / "runs")
    labels = record.task.labels
    conditions, answered = [], {}
    for name in CONDITIONS:
        answered[name] = made_predictions(answers(9 if name in ("real", "last_second_silenced") else 0))
        _write_predictions(folder / name, answered[name])
        scores = tuple(compute_scores(answered[name], labels, "exact", ["accuracy"]))
        counts = count_outcomes(answered[name])
        sha = predictions_sha256(folder / name)
        conditions.append(ConditionRow(name=name, summary="", predictions_sha256=sha, counts=counts, scores=scores))
    metric = BoundMetric("accuracy", LABELS, create("metrics", "accuracy").value)
    decided = {name: decided_items(answered[name], labels, "exact")[1] for name in CONDITIONS}
    shared = record.model_dump(include=set(ControlsRecord.model_fields) & set(RunRecord.model_fields))
    controls = ControlsRecord.model_validate(
        {
            **shared,
            "started_utc": "2026-01-01T00:00:00Z",
            "ended_utc": "2026-01-01T00:01:00Z",
            "wall_s": 1.0,
            "notes": (),
            "conditions": conditions,
            "gains": (audio_gain("exact", metric, decided),),
            "sensitivity": sensitivity(answered["real"], answered["last_second_silenced"]),
        }
    )
    (folder / "controls.json").write_text(to_json(controls))
    return folder


def write_compared(results: Path, first: Path, second: Path) -> Path:
    """What `compare` finds of two runs, kept as it keeps it."""
    report = compare(str(first), str(second), results)
    return keep(report, results, ["lalm-harness", "compare"], seed=0)


def write_training(results: Path, model: str, seed: int, weights_sha256: str, **changes: Any) -> Path:
    """A training of "tiny", version 3, that left these weights; `changes` are of the record."""
    folder = results / "training" / model.replace(":", "-") / f"tiny-seed{seed}-{weights_sha256[:4]}"
    folder.mkdir(parents=True)
    lines = [json.dumps({"step": 100 * n, "text_loss": 3 / n, "clips_per_s": 10.0}) for n in range(1, 20)]
    (folder / "curve.jsonl").write_text("\n".join(lines) + "\n")
    rounds = {"steps": 100, "batch_size": 8, "second_share": 0.5, "second_batch_size": 16}
    record = {
        "model_options": {"variant": "tiny", "weights": None},
        "learned_from": {"recipe": "tiny", "recipe_version": 3, "hold_out_fold": None, "n_clips": 381},
        "config": {"seed": seed, "threads": 1, **rounds},
        "trained_s": 3600.0,
        "weights_sha256": weights_sha256,
        "held_out": [],
        "environment": {},
    }
    (folder / "config.json").write_text(json.dumps({"batch_size": 8}))
    (folder / "record.json").write_text(json.dumps(record | changes))
    return folder


def write_seed(results: Path, model: str, seed: int, n_right: int, *, is_shipped: bool = False, **changes: Any) -> Path:
    """A run of the weights of one seed, which got so many right; no training record is written."""
    weights = weights_of(model, seed)
    passed = {} if is_shipped else {"weights": f"trained/seed{seed}.safetensors"}
    folder = write_run(results, model, answers(n_right), started=f"2026-01-0{seed + 1}T00:00:00Z", **changes)
    record = load_record(folder)
    assert record is not None
    described = record.model.model_copy(update={"weights_sha256": weights, "options_passed": passed})
    write_record(folder, record.model_copy(update={"model": described}))
    return folder


def weights_of(model: str, seed: int) -> str:
    """The hash of the weights that `write_seed` gives a seed."""
    return canonical_sha256({"model": model, "seed": seed})


def write_streaming(results: Path) -> Path:
    """A model whose minutes cost the same, and one that got slower and then ran out of memory."""
    folder = results / "streaming" / "20260101T000000Z-57000000"
    folder.mkdir(parents=True)
    lines, rows = [], []
    for name, n_minutes, growth, kind in (("ssalm", 6, 0.0, "ok"), ("ltu", 4, 0.5, "out_of_memory")):
        for minute in range(1, n_minutes + 1):
            memory = {"resident_bytes": 10**8 + minute * 2**20, "device_allocated_bytes": None}
            state = {"state_growing_bytes": int(growth * minute * 2**20), "state_constant_bytes": 64}
            times = {"wall_s": 1 + growth * minute, "cpu_s": 1.5}
            row = MinuteRow.model_validate({"model": f"{name}:tiny", "minute": minute, **times, **memory, **state})
            lines.append(json.dumps(row.model_dump(mode="json")))
        model = BASE.model.model_copy(update={"name": name, "variant": "tiny"})
        told = {"kind": kind, "message": "", "n_minutes": n_minutes, "listening_s": 60.0, "after_s": 0.5}
        rows.append(StreamingRow.model_validate({"model": model.model_dump(mode="json"), **told}))
    (folder / "points.jsonl").write_text("\n".join(lines) + "\n")
    record = StreamingRecord(
        command=("lalm-harness", "frontier", "--streaming"),
        config={"device": "cpu", "dtype": "float32", "threads": 2, "time_limit_s": 600.0},
        memory_cap="none",
        prompt="What?",
        environment=BASE.environment,
        started_utc="2026-01-01T00:00:00Z",
        ended_utc="2026-01-01T00:01:00Z",
        rows=tuple(rows),
    )
    (folder / "record.json").write_text(to_json(record))
    return folder


def write_comparison(results: Path, first: Path, second: Path, better: str) -> None:
    """A paired test of two runs by `exact`."""
    one = load_record(first)
    assert one is not None
    values = {"first": 1.0, "second": 0.5, "difference": -0.5, "interval": one.scores[0].interval}
    tested = {"test": "exact McNemar", "p_value": 0.5, "p_holm": 0.5, "better": better, "unavailable": None}
    named = {"task": f"{one.task.name} (starter)", "scorer": "exact", "metric": "accuracy", "n_items": N}
    row = ComparisonRow.model_validate({**named, "n_clusters": N, **values, **tested})
    record = ComparisonRecord(
        comparison_id="c0000000",
        asked={},
        command=("lalm-harness", "compare"),
        created_utc="2026-01-01T00:00:00Z",
        environment=BASE.environment,
        first="A",
        second="B",
        level=0.05,
        runs=(compared_runs(first, second),),
        comparisons=(row,),
        remarks=(),
    )
    folder = results / "compare" / "20260101T000000Z-c0000000"
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(to_json(record))
