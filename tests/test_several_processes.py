"""Two processes on the CPU: what they tell each other, and `run` and `train --recipe openaqa` in them as in one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from harness.cli import main
from harness.errors import UsageError
from harness.records import PREDICTIONS_FILE, load_predictions, load_record

REPOSITORY = Path(__file__).resolve().parents[1]
PLUGINS = Path(__file__).parent / "plugins"


# Each process has its rank and rank + 1 to tell; the second has no gradient of `b`, neither has one of `c`.
TELLING = """
import json
import torch
from harness.processes import joined

with joined("cpu") as processes:
    a, b, c = (torch.nn.Parameter(torch.zeros(2)) for _ in range(3))
    a.grad = torch.full((2,), 1.0 + processes.rank)
    b.grad = None if processes.rank else torch.full((2,), 5.0)
    processes.add_gradients([a, b, c])
    own = torch.full((2,), float(processes.rank))
    processes.copy_from_main([own])
    told = {
        "rank": processes.rank,
        "sums": processes.sums([processes.rank, processes.rank + 1]),
        "largest": processes.largest(processes.rank),
        "gathered": processes.gather(f"process {processes.rank}"),
        "from_main": processes.from_main(f"process {processes.rank}"),
        "gradients": [None if p.grad is None else p.grad.tolist() for p in (a, b, c)],
        "copied": own.tolist(),
    }
    print(json.dumps(told))
"""


def launch(words: list[str], count: int = 2, **environment: str) -> list[subprocess.Popen[str]]:
    """Start a Python command once for each process, as a launcher does on one node."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, *words],
            cwd=REPOSITORY,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


def finish(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of each."""
    ends = [process.communicate(timeout=600) for process in processes]
    return [(process.returncode, out, err) for process, (out, err) in zip(processes, ends, strict=True)]


@pytest.fixture(scope="module")
def told() -> list[dict[str, Any]]:
    """What each of two processes had to say."""
    ends = finish(launch(["-c", TELLING]))
    assert [code for code, _, _ in ends] == [0, 0], ends
    return [json.loads(out) for _, out, _ in ends]


@pytest.mark.slow
def test_processes_know_their_places(told: list[dict[str, Any]]) -> None:
    assert [one["rank"] for one in told] == [0, 1]


@pytest.mark.slow
def test_numbers_are_added_up_in_every_process(told: list[dict[str, Any]]) -> None:
    assert [one["sums"] for one in told] == [[1.0, 3.0]] * 2
    assert [one["largest"] for one in told] == [1.0] * 2


@pytest.mark.slow
def test_things_come_from_every_process_or_from_the_main_one(told: list[dict[str, Any]]) -> None:
    assert [one["gathered"] for one in told] == [["process 0", "process 1"]] * 2
    assert [one["from_main"] for one in told] == ["process 0"] * 2
    assert [one["copied"] for one in told] == [[0.0, 0.0]] * 2


@pytest.mark.slow
def test_gradients_are_added_up_and_one_that_nobody_has_stays_none(told: list[dict[str, Any]]) -> None:
    assert [one["gradients"] for one in told] == [[[3.0, 3.0], [5.0, 5.0], None]] * 2


def _alone(words: list[str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *words], cwd=REPOSITORY, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


# --- run --------------------------------------------------------------------------------------------------------------


def _run_words(results: Path, *more: str) -> list[str]:
    words = ["-m", "harness", "run", "--model", "moody", "--task", "beeps", "-t", "n=23", "--batch-size", "3"]
    words += ["--plugin", str(PLUGINS / "moody.py"), "--plugin", str(PLUGINS / "beeps.py")]
    return [*words, "--threads", "1", "--device", "cpu", "--results", str(results), *more]


def _run_folder(results: Path) -> Path:
    (folder,) = (path for path in (results / "runs/moody/beeps").iterdir() if path.is_dir())
    return folder


def _lasting(results: Path) -> list[dict[str, Any]]:
    """Predictions without what the clock decides."""
    return [row.model_dump(exclude={"load_s", "answer_s"}) for row in load_predictions(_run_folder(results))]


def _record_facts(results: Path) -> dict[str, Any]:
    """What a record says, but for when, where and by which command."""
    record = load_record(_run_folder(results))
    assert record is not None
    clock = {"sessions", "times", "peak_rss_bytes", "predictions_sha256", "command", "environment"}
    facts = record.model_dump(exclude=clock)
    return facts | {name: {**facts[name], "results": ""} for name in ("config_passed", "config_resolved")}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[tuple[int, str, str]]]:
    """Results of one process, those of two, and how these two ended."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    _alone(_run_words(one))
    return one, two, finish(launch(_run_words(two)))


def test_two_processes_predict_as_one_in_the_same_order(
    runs: tuple[Path, Path, list[tuple[int, str, str]]],
) -> None:
    one, two, ends = runs
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert _lasting(two) == _lasting(one)


def test_two_processes_leave_one_record_that_says_the_same(
    runs: tuple[Path, Path, list[tuple[int, str, str]]],
) -> None:
    one, two, _ = runs
    assert _record_facts(two) == _record_facts(one)


def test_the_main_process_alone_prints_the_table(runs: tuple[Path, Path, list[tuple[int, str, str]]]) -> None:
    (_, first, _), (_, second, _) = runs[2]
    assert "moody" in first and second == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victims", "outcome"), [((1,), "stopped"), ((0,), "killed"), ((0, 1), "killed")], ids=["helper", "main", "both"]
)
def test_processes_killed_while_they_answer_lose_nothing(
    tmp_path: Path, victims: tuple[int, ...], outcome: str
) -> None:
    """One that is left ends by itself, and says why."""
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    _alone(_run_words(calm))
    processes = launch(_run_words(rough, "-m", "delay_s=0.2"))
    deadline = time.monotonic() + 120
    while sum(path.read_bytes().count(b"\n") for path in rough.rglob(PREDICTIONS_FILE)) < 5:
        assert time.monotonic() < deadline and all(process.poll() is None for process in processes)
        time.sleep(0.01)
    for victim in victims:
        processes[victim].send_signal(signal.SIGKILL)
        processes[victim].wait()
    for rank, (code, _, errors) in enumerate(finish(processes)):
        if rank not in victims:
            assert code > 0, "a survivor that was not ended from outside"
            assert "error: another process of this command ended or does not answer: " in errors
            assert "Traceback" not in errors and ".cc:" not in errors
    ends = finish(launch(_run_words(rough, "-m", "delay_s=0.2")))
    assert [code for code, _, _ in ends] == [0, 0], ends
    record = load_record(_run_folder(rough))
    assert record is not None and [session.outcome for session in record.sessions] == [outcome, "complete"]
    assert _lasting(rough) == _lasting(calm)


# --- train ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with an OpenAQA file of 23 tones of three pitches, and one item whose clip is missing."""
    root = tmp_path_factory.mktemp("toy")
    (root / "audio").mkdir()
    items = []
    for number in range(23):
        hertz = (200, 1000, 3000)[number % 3]
        tone = 0.3 * np.sin(2 * np.pi * hertz * np.arange(8000 + 400 * number) / 16_000)
        soundfile.write(root / "audio" / f"{number}.flac", tone.astype(np.float32), 16_000)
        answer = ("a low tone", "a tone in the middle", "high")[number % 3]
        items.append({"instruction": "What is heard?", "input": "", "audio_id": f"audio/{number}.flac"})
        items[-1] |= {"dataset": "toy", "task": "open-ended question", "output": answer}
    (root / "toy.json").write_text(json.dumps([*items, {**items[0], "audio_id": "audio/gone.flac"}]))
    return root


def _train_words(model: str, toy: Path, out: Path, *more: str) -> list[str]:
    """The first stage, in which nothing is dropped at random: shares of a step say what the whole says."""
    words = ["-m", "harness", "train", "--recipe", "openaqa", "--model", model, "-r", f"data={toy / 'toy.json'}"]
    words += ["-r", "last_stage=1", "-r", "held_out=3", "-r", "warmup_steps=2", "--data-root", str(toy)]
    words += ["--batch-size", "7", "--micro-batch", "2", "--precision", "float32", "--log-every", "1"]
    return [*words, "--checkpoint-every", "2", "--out", str(out), *more]


def _curve(out: Path) -> list[Mapping[str, Any]]:
    return [json.loads(line) for line in (out / "curve.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trainings(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[tuple[int, str, str]]]:
    """The folder that one process left, that of two, and how these two ended. A step has 7 items: 4 and 3."""
    out = tmp_path_factory.mktemp("trained")
    assert main(_train_words("ltu", toy, out / "one", "--steps", "4")[2:]) == 0
    return out / "one", out / "two", finish(launch(_train_words("ltu", toy, out / "two", "--steps", "4")))


def test_two_processes_take_the_steps_of_one(trainings: tuple[Path, Path, list[tuple[int, str, str]]]) -> None:
    one, two, ends = trainings
    assert [code for code, _, _ in ends] == [0, 0], ends
    for mine, theirs in zip(_curve(one), _curve(two), strict=True):
        names = mine.keys() - {"clips_per_s", "tokens_per_s", "peak_memory_bytes", "stage"}
        assert {name: theirs[name] for name in names} == pytest.approx({name: mine[name] for name in names}, rel=1e-5)


def test_two_processes_leave_the_weights_of_one(trainings: tuple[Path, Path, list[tuple[int, str, str]]]) -> None:
    from safetensors.torch import load_file

    one, two = (load_file(folder / "stage1" / "weights.safetensors") for folder in trainings[:2])
    assert one.keys() == two.keys()
    assert all(bool((one[name] - two[name]).abs().max() < 1e-5) for name in one)


def test_an_item_that_any_process_cannot_hear_is_named_once(
    trainings: tuple[Path, Path, list[tuple[int, str, str]]],
) -> None:
    files = [(folder / "bad_items.jsonl").read_text() for folder in trainings[:2]]
    assert files[0] == files[1] and files[0].count("gone.flac") == 2  # the path, and in the reason


def test_the_record_says_how_many_trained_and_one_of_them_speaks(
    trainings: tuple[Path, Path, list[tuple[int, str, str]]],
) -> None:
    (_, first, _), (_, second, _) = trainings[2]
    assert "by 2 processes" in first and second == ""
    assert json.loads((trainings[1] / "record.json").read_text())["n_processes"] == 2


def test_more_processes_than_items_in_a_step_are_refused(toy: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    from harness import registry
    from harness.processes import Processes
    from harness.recipes import openaqa
    from harness.staged_training import StagedTrainer

    config = replace(openaqa.DEFAULTS, batch_size=2, micro_batch_size=1)
    prepared = openaqa.openaqa(data=toy / "toy.json").prepare(config, toy)
    with pytest.raises(UsageError, match="batch_size 2 leaves some of 3 processes without items"):
        StagedTrainer(registry.create("models", "ltu").value, prepared, config, tmp_path, Processes(0, 3))


@pytest.mark.slow
@pytest.mark.parametrize("model", ["ssalm", "ltu"])
def test_the_loss_of_two_is_that_of_one_for_fifty_steps(model: str, toy: Path, tmp_path: Path) -> None:
    more = ["--steps", "50", "--batch-size", "4"]
    (tmp_path / "a.json").write_text(json.dumps(50 * json.loads((toy / "toy.json").read_text())))
    words = {
        out: [word.replace(str(toy / "toy.json"), str(tmp_path / "a.json")) for word in _train_words(model, toy, out)]
        for out in (tmp_path / "one", tmp_path / "two")
    }
    _alone([*words[tmp_path / "one"], *more])
    ends = finish(launch([*words[tmp_path / "two"], *more]))
    assert [code for code, _, _ in ends] == [0, 0], ends
    one, two = ([line["loss"] for line in _curve(out) if "loss" in line] for out in words)
    assert len(one) == 50
    assert two[0] == pytest.approx(one[0], rel=1e-5)
    assert two == pytest.approx(one, rel=1e-3)


_EIGHT_STEPS = ["--steps", "8", "-r", "first_stage=1"]


def _train_two_and_kill_them(toy: Path, out: Path) -> None:
    """After their first checkpoint."""
    processes = launch(_train_words("ltu", toy, out, *_EIGHT_STEPS))
    deadline = time.monotonic() + 120
    while not (out / "checkpoint.pt").exists():
        assert time.monotonic() < deadline and all(process.poll() is None for process in processes)
        time.sleep(0.01)
    for process in processes:
        process.send_signal(signal.SIGKILL)
    finish(processes)
    assert not (out / "record.json").exists(), "the training ended before it could be killed"


def _untimed_curve(out: Path) -> list[dict[str, Any]]:
    """The curve without what the clock decides."""
    timed = ("clips_per_s", "tokens_per_s", "peak_memory_bytes")
    return [{name: value for name, value in line.items() if name not in timed} for line in _curve(out)]


@pytest.mark.slow
def test_a_training_of_two_killed_at_once_goes_on_as_if_it_had_not_been(toy: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert [end[0] for end in finish(launch(_train_words("ltu", toy, whole, *_EIGHT_STEPS)))] == [0, 0]
    _train_two_and_kill_them(toy, broken)
    ends = finish(launch(_train_words("ltu", toy, broken, *_EIGHT_STEPS)))
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert any("continues at step" in text for text in ends[0][1:])
    assert _untimed_curve(broken) == _untimed_curve(whole)


@pytest.mark.slow
def test_what_two_had_begun_goes_on_in_one(toy: Path, tmp_path: Path) -> None:
    """To rounding: one process adds up a step's gradients in another order than two."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    _alone(_train_words("ltu", toy, whole, *_EIGHT_STEPS))
    _train_two_and_kill_them(toy, broken)
    again = _alone(_train_words("ltu", toy, broken, *_EIGHT_STEPS))
    assert "continues at step" in again.stdout + again.stderr
    for mine, theirs in zip(_untimed_curve(whole), _untimed_curve(broken), strict=True):
        numbers = [name for name, value in mine.items() if isinstance(value, float)]
        assert {name: theirs[name] for name in numbers} == pytest.approx(
            {name: mine[name] for name in numbers}, rel=1e-4
        )


# A step of stages 3 and 4's parts, in which encoder, connector and LoRA learn, with nothing dropped.
STEPS = """
import json, sys
from dataclasses import replace
from pathlib import Path
from harness import registry
from harness.processes import joined
from harness.recipes import openaqa
from harness.sharding import is_asked_for
from harness.staged_training import StagedTrainer
from models.nn import causal_conv

causal_conv.numba_installed = lambda: False  # as on a GPU: numba would hold on to weights that torch frees
toy, out, model, poisoned = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
config = replace(openaqa.DEFAULTS, stages=openaqa.STAGES[2:3], batch_size=5, micro_batch_size=2, warmup_steps=1,
                 max_steps=2, precision="float32", lora_dropout=0.0, recompute=poisoned == "recompute")
prepared = openaqa.openaqa(data=toy / "toy.json", first_stage=3, last_stage=3, held_out=3).prepare(config, toy)
out.mkdir(exist_ok=True)
with joined("cpu") as processes:
    adapter = registry.create("models", model, {"scan": "torch"} if model == "ssalm" else {}).value
    trainer = StagedTrainer(adapter, prepared, config, out, processes, is_asked_for())
    trainer.network.hear.encoder.eval()  # its branches are not dropped then
    read = trainer.batches.reader.read
    if poisoned == "second" and processes.rank == 1:
        trainer.batches.reader.read = lambda files: [x * float("nan") for x in read(files)]
    try:
        steps = [trainer.take_step() for _ in range(2)]
        told = {"steps": steps, "held_out": trainer.held_out()}
        told["held"] = sum(p.to_local().numel() if hasattr(p, "to_local") else p.numel()
                           for p in trainer.network.parameters())
    except Exception as error:
        told = {"error": f"{type(error).__name__}: {error}"}
    trainer.close()
    print(json.dumps(told))
"""


def _steps(toy: Path, out: Path, model: str, how: str = "whole", **environment: str) -> list[dict[str, Any]]:
    ends = finish(launch(["-c", STEPS, str(toy), str(out), model, how], 2, **environment))
    assert [code for code, _, _ in ends] == [0, 0], ends
    return [json.loads(text) for _, text, _ in ends]


@pytest.mark.slow
def test_every_process_sees_that_the_loss_of_one_is_not_finite(toy: Path, tmp_path: Path) -> None:
    errors = [told["error"] for told in _steps(toy, tmp_path / "a", "ltu", "second")]
    assert errors[0] == errors[1] and errors[0].startswith("RecordError: the loss is nan at step 0 of stage closed, on")
    items = json.loads((tmp_path / "a" / "not_finite.json").read_text())["items"]
    assert 1 <= len(items) <= 2 and all(item["item"].startswith("toy.json:") for item in items)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "how"), [("ltu", "whole"), ("ltu", "recompute"), ("ssalm", "whole")])
def test_weights_that_are_shared_out_give_the_steps_of_whole_ones(
    model: str, how: str, toy: Path, tmp_path: Path
) -> None:
    """Five items make two micro-batches of the first process and one of the second, which goes on with silence."""
    settings = {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
        "FSDP_TRANSFORMER_CLS_TO_WRAP": "LlamaDecoderLayer,MambaMixer",
    }
    alone = json.loads(_alone(["-c", STEPS, str(toy), str(tmp_path / "one"), model, how]).stdout)
    shared = _steps(toy, tmp_path / "two", model, how, **settings)
    assert shared[0]["steps"] == shared[1]["steps"]
    assert all(one["held"] < 0.95 * alone["held"] for one in shared)
    for one, two in zip(
        [*alone["steps"], alone["held_out"]], [*shared[0]["steps"], shared[0]["held_out"]], strict=True
    ):
        assert two == pytest.approx(one, rel=1e-5)
