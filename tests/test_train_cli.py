"""`train` with a recipe in stages, as typed: the forecast, refusals, and a training killed and taken up again."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile
from safetensors.torch import load_file

from harness.cli import main

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with OpenAQA's keys: eight clips of noise."""
    root = tmp_path_factory.mktemp("toy")
    draw = np.random.default_rng(0)
    items = []
    for number in range(8):
        soundfile.write(root / f"{number}.wav", 0.1 * draw.standard_normal(8000), 16_000)
        keys = {"instruction": "What is heard?", "input": "", "audio_id": f"{number}.wav", "dataset": "toy"}
        items.append({**keys, "task": "open-ended question", "output": f"noise number {number}"})
    (root / "toy.json").write_text(json.dumps(items))
    return root


def _words(toy: Path, *more: str, recipe: str = "openaqa") -> list[str]:
    data = ["--data-root", str(toy), "-r", f"data={toy / 'toy.json'}"] if recipe == "openaqa" else []
    return ["train", "--model", "ltu:tiny", "--recipe", recipe, *data, *more]


def _command(toy: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "harness", *_words(toy, *more)]


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=240, check=False)


class Typed(NamedTuple):
    """What came of a command that was typed in this process."""

    code: int
    out: str
    err: str


@pytest.fixture
def typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[list[str]], Typed]:
    """Types a command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda words: Typed(main(words), *capsys.readouterr())


def test_a_dry_run_tells_what_each_of_several_devices_does(toy: Path, typed: Callable[[list[str]], Typed]) -> None:
    """Of eight items, two devices learn two clips a second each: half the time of one."""
    hours = []
    for many in ([], ["--devices", "2"]):
        done = typed(_words(toy, "--dry-run", "--speed", "0.001", "--batch-size", "4", "-r", "first_stage=4", *many))
        assert done.code == 0, done.err
        hours.append(float(done.out.split("all stages: ")[1].split(" h")[0]))
    assert "2 devices: 2 of a step's 4 items each at most, all weights in each;" in done.out
    assert hours[1] == pytest.approx(hours[0] / 2, rel=0.05)


def test_devices_are_for_the_dry_run_alone(toy: Path, typed: Callable[[list[str]], Typed]) -> None:
    done = typed(_words(toy, "--devices", "2"))
    assert (done.code, done.err) == (2, "error: --devices: for --dry-run alone\n")


def test_frozen_weights_are_told_as_shared_out() -> None:
    from harness.training_forecast import Devices

    whole = {"parameters": 4 * 10 + 2 * 1000, "gradients": 40, "optimiser": 80, "activations": 7}
    assert Devices(8, is_sharded=True).held_by_one(whole, 10) == {**whole, "parameters": 40 + 250}
    assert Devices(8).held_by_one(whole, 10) == whole


def test_a_dry_run_says_what_is_needed_and_leaves_nothing(
    toy: Path, tmp_path: Path, typed: Callable[[list[str]], Typed]
) -> None:
    done = typed(_words(toy, "--dry-run", "--speed", "2", "--batch-size", "4"))
    assert done.code == 0, done.err
    assert "stage 1 (projection): learns 19,584 parameters (connector 19,584)" in done.out
    assert "8 items, 4 steps at rate 0.001" in done.out
    assert "memory of one device" in done.out and "at 2 clips a second, as given" in done.out
    assert list(tmp_path.iterdir()) == []


def test_options_of_stages_are_refused_elsewhere(toy: Path, typed: Callable[[list[str]], Typed]) -> None:
    done = typed(_words(toy, "--dry-run", "--micro-batch", "2", recipe="tiny"))
    assert done.code == 2
    assert "--micro-batch, --dry-run: the recipe 'tiny' is not one in stages" in done.err


def test_a_rate_for_all_stages_is_refused(toy: Path, typed: Callable[[list[str]], Typed]) -> None:
    done = typed(_words(toy, "--learning-rate", "0.1"))
    assert done.code == 2 and "a rate of its own" in done.err


def test_settings_of_a_first_round_are_refused_where_there_is_none(
    toy: Path, typed: Callable[[list[str]], Typed]
) -> None:
    done = typed(_words(toy, "-r", "start_from=run", "--learning-rate", "0.1", "--batch-size", "2", recipe="scenes"))
    assert done.code == 2
    assert "--learning-rate, --batch-size: the recipe 'scenes' has no first round, whose they are" in done.err


def test_a_published_model_without_an_encoder_is_refused(
    toy: Path, tmp_path: Path, typed: Callable[[list[str]], Typed]
) -> None:
    words = [word if word != "ltu:tiny" else "ltu:7b" for word in _words(toy, "--out", str(tmp_path / "run"))]
    done = typed(words)
    assert done.code == 2 and "-m encoder_weights=FILE, or -m weights=random" in done.err


def test_tensorboard_is_asked_for_by_its_extra(toy: Path, tmp_path: Path, typed: Callable[[list[str]], Typed]) -> None:
    if importlib.util.find_spec("tensorboard") is not None:
        pytest.skip("tensorboard is installed")
    done = typed(_words(toy, "--tensorboard", "--out", str(tmp_path / "run")))
    assert done.code == 2 and "tensorboard" in done.err
    assert not (tmp_path / "run").exists()


def _curve(folder: Path) -> list[dict[str, Any]]:
    timed = ("clips_per_s", "tokens_per_s", "peak_memory_bytes")
    lines = [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in timed} for line in lines]


@pytest.mark.slow
def test_a_training_killed_twice_ends_in_the_curve_and_the_weights_of_an_unbroken_one(
    toy: Path, tmp_path: Path
) -> None:
    small = ["--batch-size", "2", "--steps", "6", "--checkpoint-every", "2", "--log-every", "1"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    done = _run(_command(toy, *small, "--out", str(whole)))
    assert done.returncode == 0, done.stderr
    command = _command(toy, *small, "--out", str(broken))
    for n_lines in (3, 11):
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if (broken / "curve.jsonl").exists() and len(_lines(broken)) >= n_lines:
                break
            time.sleep(0.01)
        assert process.poll() is None, "the training ended before it could be killed"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    done = _run(command)
    assert done.returncode == 0, done.stderr
    assert _curve(broken) == _curve(whole)
    for name in ("weights.safetensors", "adapter_model.safetensors"):
        ends = [load_file(folder / "stage4" / name) for folder in (broken, whole)]
        assert all(bool((ends[0][key] == tensor).all()) for key, tensor in ends[1].items())


def _lines(folder: Path) -> list[str]:
    return (folder / "curve.jsonl").read_text().splitlines()


@pytest.mark.slow
def test_a_finished_training_tells_where_its_weights_are_and_is_not_repeated(toy: Path, tmp_path: Path) -> None:
    command = _command(toy, "--batch-size", "4", "--steps", "1", "-r", "held_out=2", "--out", str(tmp_path / "run"))
    first, again = _run(command), _run(command)
    assert first.returncode == again.returncode == 0, first.stderr
    assert f"-m weights={tmp_path / 'run' / 'stage4'}" in again.stdout
    assert "finished before" in again.stdout and "held out:" in again.stdout
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert [stage["steps"] for stage in record["stages"]] == [1, 1, 1, 1]
