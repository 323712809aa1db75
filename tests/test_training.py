"""The training loop, with a model and a recipe small enough to train in a second."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.errors import RecordError, UsageError
from harness.training import TrainConfig, Trainer, check_same_model, claim_folder, learning_rate

REPOSITORY = Path(__file__).resolve().parents[1]

MODEL = '''
"""A model of one matrix with dropout: it learns to say the mean of what it hears."""
import numpy as np
from harness.contracts import ModelDescription, TrainableModel


class Small:
    name, sample_rate_hz = "small", 16_000

    def load(self, device, dtype): ...
    def answer(self, queries): return []
    def close(self): ...
    def describe(self):
        return ModelDescription("small", "", "", {}, 16_000, None, "full", None, {}, {}, "small")

    def start_training(self, teacher_prior, device):
        import torch
        self.net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))
        return self.net

    def losses(self, examples):
        import torch
        x = torch.stack([torch.from_numpy(e.samples) for e in examples])
        return {"text": (self.net(x)[:, 0] - x.mean(1)).square().mean()}

    def save(self, path, trained_on):
        from safetensors.torch import save_file
        save_file(self.net.state_dict(), path)


def small() -> TrainableModel:
    return Small()
'''

RECIPE = '''
"""Noise to learn from; a step takes as long as `pause_s` says."""
import time
import numpy as np
from harness.contracts import TrainingExample
from harness.training import Prepared, Recipe, TrainConfig

DEFAULTS = TrainConfig(steps=40, batch_size=4, learning_rate=0.01, weight_decay=0.1, warmup_steps=5, second_share=0.25,
    second_rate=0.005, second_batch_size=4, second_pool=0, second_freezes=False, average=0.9, second_average=0.9,
    teacher_weight=0.0, logit_weight=0.0, gradient_clip=1.0, precision="float32", seed=0, threads=1, device="cpu",
    checkpoint_every=3, log_every=2)


class Noise:
    name, version, defaults = "noise", 1, DEFAULTS

    def __init__(self, pause_s): self.pause_s = pause_s

    def prepare(self, config, data_root):
        def batches(step):
            time.sleep(self.pause_s)
            draw = np.random.default_rng((config.seed, step)).normal(size=(config.batch_size, 4)).astype(np.float32)
            return [TrainingExample(row, "", (("", 1.0),)) for row in draw]
        return Prepared(batches, 0, None, (), {"recipe": "noise"}, "noise")


def noise(pause_s: float = 0.0) -> Recipe:
    return Noise(pause_s)
'''


@pytest.fixture
def plugins(tmp_path: Path) -> list[str]:
    (tmp_path / "small.py").write_text(MODEL)
    (tmp_path / "noise.py").write_text(RECIPE)
    return ["--plugin", str(tmp_path / "small.py"), "--plugin", str(tmp_path / "noise.py")]


def _words(plugins: list[str], out: Path, *more: str) -> list[str]:
    return ["train", "--model", "small", "--recipe", "noise", *plugins, "--out", str(out), *more]


def _command(plugins: list[str], out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "harness", *_words(plugins, out, *more)]


def _train(plugins: list[str], out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _command(plugins, out, *more), cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False
    )


def _curve(folder: Path) -> list[Mapping[str, float]]:
    lines = [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "clips_per_s"} for line in lines]


def _changed_at(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


@pytest.mark.parametrize("n_kills", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_training_killed_at_random_ends_in_the_weights_and_the_curve_of_an_unbroken_one(
    plugins: list[str], tmp_path: Path, n_kills: int
) -> None:
    whole = tmp_path / "whole"
    done = _train(plugins, whole)
    assert done.returncode == 0, done.stderr
    broken, pause = tmp_path / "broken", ["-r", "pause_s=0.03"]
    draw = random.Random(0)
    for _ in range(n_kills):
        before = _changed_at(broken / "checkpoint.pt")
        process = subprocess.Popen(
            _command(plugins, broken, *pause), cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        while _changed_at(broken / "checkpoint.pt") == before and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(draw.uniform(0.0, 0.2))
        assert process.poll() is None, "the training ended before it could be killed"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    done = _train(plugins, broken, *pause)
    assert done.returncode == 0, done.stderr
    assert (broken / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()
    assert _curve(broken) == _curve(whole)


def test_a_finished_training_is_not_repeated(
    plugins: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = _words(plugins, tmp_path / "run", "--steps", "4")
    assert main(words) == 0
    before = (tmp_path / "run" / "record.json").stat().st_mtime_ns
    assert main(words) == 0
    assert "finished before" in capsys.readouterr().out
    assert (tmp_path / "run" / "record.json").stat().st_mtime_ns == before


def test_a_finished_training_does_not_answer_for_another_configuration(
    plugins: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(_words(plugins, tmp_path / "run", "--steps", "4")) == 0
    assert main(_words(plugins, tmp_path / "run", "--steps", "5")) == 2
    assert "a training with other steps" in capsys.readouterr().err


def test_a_model_that_cannot_be_trained_is_refused(
    plugins: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word if word != "small" else "echo" for word in _words(plugins, tmp_path / "run")]
    assert main(words) == 2
    assert capsys.readouterr().err.strip() == "error: the model 'echo' cannot be trained"


CONFIG = TrainConfig(
    steps=10,
    batch_size=2,
    learning_rate=1.0,
    weight_decay=0.1,
    warmup_steps=2,
    second_share=0.0,
    second_rate=1.0,
    second_batch_size=2,
    second_pool=0,
    second_freezes=False,
    average=0.9,
    second_average=0.9,
    teacher_weight=0.0,
    logit_weight=0.0,
    gradient_clip=1.0,
    precision="float32",
    seed=0,
    threads=1,
    device="cpu",
    checkpoint_every=100,
    log_every=1,
)


def test_the_rate_rises_in_warm_up_and_falls_as_a_cosine() -> None:
    rates = [learning_rate(CONFIG, step) for step in range(10)]
    assert rates[:3] == pytest.approx([0.5, 1.0, 1.0])
    assert rates[6] == pytest.approx(0.5)
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_the_last_share_of_the_steps_is_a_round_of_its_own() -> None:
    from dataclasses import replace

    config = replace(CONFIG, steps=20, second_share=0.5, second_rate=0.1, warmup_steps=0)
    assert config.first_round == 10
    assert learning_rate(config, 9) < 0.05
    assert learning_rate(config, 10) == pytest.approx(0.1)


class _TwoParts:
    """An ear that both rounds train, and a mouth that the first round leaves alone."""

    name = "two parts"

    def __init__(self, mouths: int = 1) -> None:
        self.mouths = mouths

    def start_training(self, teacher_prior: object, device: str) -> Any:
        import torch

        parts = {"ear": torch.nn.Linear(2, 2), "drop": torch.nn.Dropout(0.5), "mouth": torch.nn.Linear(2, self.mouths)}
        self.net = torch.nn.ModuleDict(parts)
        return self.net

    def losses(self, examples: Any) -> Mapping[str, Any]:
        import torch

        heard = self.net["drop"](self.net["ear"](torch.ones(4, 2)))
        losses = {"teacher": (heard - 1.0).square().mean()}
        return losses | ({"text": self.net["mouth"](heard).square().mean()} if examples else {})


def _two_rounds(folder: Path, model: Any, first_round: Path | None = None) -> Trainer:
    from dataclasses import replace

    config = replace(CONFIG, second_share=0.5, second_rate=0.1, learning_rate=0.1, teacher_weight=1.0)
    folder.mkdir()
    trainer = Trainer(model, lambda step: [step] if step >= config.first_round else [], config, folder, None)  # type: ignore[list-item]
    if first_round is not None:
        trainer.skip_first_round(first_round)
    return trainer


def test_a_first_round_keeps_what_it_trained_and_nothing_else(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    _two_rounds(tmp_path / "a", _TwoParts()).run(lambda line: None)
    assert load_file(tmp_path / "a" / "first_round.safetensors").keys() == {"ear.weight", "ear.bias"}


def test_two_models_with_one_ear_learn_to_hear_in_the_very_same_steps(tmp_path: Path) -> None:
    for name, mouths in (("one", 1), ("three", 3)):
        _two_rounds(tmp_path / name, _TwoParts(mouths)).run(lambda line: None)
    files = [tmp_path / name / "first_round.safetensors" for name in ("one", "three")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_training_that_takes_over_a_first_round_ends_as_if_it_had_taken_it_itself(tmp_path: Path) -> None:
    whole = _two_rounds(tmp_path / "whole", _TwoParts())
    whole.run(lambda line: None)
    taken = _two_rounds(tmp_path / "taken", _TwoParts(), tmp_path / "whole" / "first_round.safetensors")
    taken.run(lambda line: None)
    for name, tensor in whole.average.module.state_dict().items():
        assert bool((taken.average.module.state_dict()[name] == tensor).all()), name


def test_what_a_short_second_round_leaves_is_what_it_learned(tmp_path: Path) -> None:
    """An average as slow as the first round's would leave mostly the weights that the round began with."""
    from dataclasses import replace

    trainer = _two_rounds(tmp_path / "a", _TwoParts())
    trainer.config = replace(trainer.config, average=0.999, second_average=0.1)
    trainer.run(lambda line: None)
    averaged, last = (net.state_dict()["mouth.weight"] for net in (trainer.average.module, trainer.network))
    assert float((averaged - last).norm()) < 0.1 * float(last.norm())


def test_a_second_round_that_freezes_leaves_alone_what_the_first_trained(tmp_path: Path) -> None:
    from dataclasses import replace

    from safetensors.torch import load_file

    trainer = _two_rounds(tmp_path / "a", _TwoParts())
    trainer.config = replace(trainer.config, second_freezes=True)
    trainer.run(lambda line: None)
    kept, left = load_file(tmp_path / "a" / "first_round.safetensors"), trainer.network.state_dict()
    assert all(bool((kept[name] == left[name]).all()) for name in kept)


class _Pooled(_TwoParts):
    """Hears an example once, and learns to answer from what it heard."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[int] = []
        self.drawn: list[list[float]] = []

    def encode(self, examples: Any) -> Any:
        import numpy as np

        self.heard += [int(example.samples[0]) for example in examples]
        return np.stack([example.samples[:2] for example in examples]).astype(np.float16)

    def answering_losses(self, encoded: Any, questions: Any) -> Mapping[str, Any]:
        import torch

        assert [question.prompt for question in questions] == [f"{row[0]:.0f}" for row in encoded]
        self.drawn.append([float(row[0]) for row in encoded])
        return {"text": self.net["mouth"](torch.from_numpy(encoded).float()).square().mean()}


def _pooled(folder: Path, model: Any) -> Trainer:
    from dataclasses import replace

    import numpy as np

    from harness.contracts import TrainingExample

    config = replace(CONFIG, second_share=0.5, second_freezes=True, second_batch_size=3, second_pool=9)

    def batches(step: int) -> Any:
        first = 3 * (step - config.first_round)
        numbers = range(first, first + 3) if first >= 0 else range(0)
        return [TrainingExample(np.full(4, n, np.float32), str(n), (("", 1.0),)) for n in numbers]

    folder.mkdir()
    return Trainer(model, batches, config, folder, None)


def test_the_frozen_encoder_hears_each_example_of_the_pool_once(tmp_path: Path) -> None:
    model = _Pooled()
    _pooled(tmp_path / "a", model).run(lambda line: None)
    assert model.heard == list(range(9))


def test_every_example_of_the_pool_is_drawn_before_any_comes_again(tmp_path: Path) -> None:
    model = _Pooled()
    _pooled(tmp_path / "a", model).run(lambda line: None)
    drawn = [number for batch in model.drawn for number in batch]
    assert len(drawn) == 15
    assert sorted(drawn[:9]) == list(range(9))
    assert len(set(drawn[9:])) == 6 and drawn[9:] != drawn[:6]


class _Interrupted(Exception):
    pass


def _interrupted_in_its_second_round(folder: Path) -> Trainer:
    """A training whose pool is whole, and whose last checkpoint is of the end of the first round."""

    def stop(line: Mapping[str, float]) -> None:
        if line["step"] == 7:
            raise _Interrupted

    trainer = _pooled(folder, _Pooled())
    with pytest.raises(_Interrupted):
        trainer.run(stop)
    return trainer


def _resumed(folder: Path, trainer: Trainer) -> _Pooled:
    """What a model is shown that goes on in the folder of another's training."""
    again = _Pooled()
    resumed = Trainer(again, trainer.batches, trainer.config, folder, None)  # type: ignore[arg-type]
    resumed.resume()
    resumed.run(lambda line: None)
    return again


def test_a_pool_that_is_whole_is_not_heard_again(tmp_path: Path) -> None:
    trainer = _interrupted_in_its_second_round(tmp_path / "a")
    again = _resumed(tmp_path / "a", trainer)
    assert again.heard == []
    assert again.drawn[:2] == trainer.model.drawn  # type: ignore[attr-defined]


def test_a_pool_of_other_frozen_weights_is_heard_again(tmp_path: Path) -> None:
    """The checkpoint was exchanged for one whose ear is another: the pool's name tells nothing of that."""
    import torch

    trainer = _interrupted_in_its_second_round(tmp_path / "a")
    path = tmp_path / "a" / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    state["network"]["ear.bias"] += 1e-6
    torch.save(state, path)
    assert _resumed(tmp_path / "a", trainer).heard == list(range(9))


@pytest.mark.parametrize("damage", ["index", "shelf"])
def test_a_pool_that_is_torn_is_heard_again(tmp_path: Path, damage: str) -> None:
    trainer = _interrupted_in_its_second_round(tmp_path / "a")
    path = tmp_path / "a" / {"index": "encoded.json", "shelf": "encoded-0.f16"}[damage]
    path.write_bytes(path.read_bytes()[:-7])
    assert _resumed(tmp_path / "a", trainer).heard == list(range(9))


def test_encoding_the_pool_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _pooled(tmp_path / "a", _Pooled()).run(lambda line: None)
    said = capsys.readouterr().err
    assert "encoding the second round's examples: 0 of 9 items done" in said
    assert "encoding the second round's examples: 9 of 9 items done in" in said


def test_a_pool_is_refused_where_the_encoder_goes_on_learning() -> None:
    from dataclasses import replace

    with pytest.raises(UsageError, match="second_freezes"):
        replace(CONFIG, second_pool=8)


def test_a_second_round_that_has_nothing_left_to_train_is_refused(tmp_path: Path) -> None:
    from dataclasses import replace

    trainer = _two_rounds(tmp_path / "a", _TwoParts())
    trainer.config = replace(trainer.config, second_freezes=True)
    trainer.batches = lambda step: [step]  # type: ignore[list-item]  # the first round answers too
    with pytest.raises(UsageError, match="nothing to do"):
        trainer.run(lambda line: None)


def test_a_model_that_cannot_encode_once_is_told_to_do_without_a_pool(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="second_pool to 0"):
        _pooled(tmp_path / "a", _TwoParts())


def test_a_first_round_of_another_network_is_refused(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"nose.weight": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    with pytest.raises(UsageError, match="nose.weight"):
        _two_rounds(tmp_path / "a", _TwoParts(), tmp_path / "other.safetensors")


def _continuing(folder: Path, kept: Sequence[str], prefix: str, model: Any) -> Trainer:
    """A training that is all second round, from a file with the parts `kept` of such a network, untrained."""
    from dataclasses import replace

    from safetensors.torch import save_file

    folder.mkdir()
    config = replace(CONFIG, second_share=1.0, second_freezes=True, second_rate=0.1)
    if isinstance(model, _Pooled):
        config = replace(config, second_pool=4)
    trainer = Trainer(model, lambda step: [step], config, folder, None)  # type: ignore[list-item]
    state = trainer.network.state_dict()
    save_file({name: state[name] for name in state if name.split(".")[0] in kept}, folder / "start.safetensors")
    trainer.skip_first_round(folder / "start.safetensors", prefix)
    return trainer


def test_of_a_whole_network_only_what_begins_with_the_prefix_stays_as_it_is(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    trainer = _continuing(tmp_path / "a", ["ear", "mouth"], "ear.", _TwoParts())
    trainer.run(lambda line: None)
    before, after = load_file(tmp_path / "a" / "start.safetensors"), trainer.network.state_dict()
    changed = {name for name in before if not bool((before[name] == after[name]).all())}
    assert changed == {"mouth.weight", "mouth.bias"}


def test_a_file_that_lacks_a_part_of_the_network_to_go_on_with_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not the whole of two parts: it lacks mouth.bias"):
        _continuing(tmp_path / "a", ["ear"], "ear.", _TwoParts())


def test_a_pool_without_anything_frozen_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing that stays as it is \(nose\.\*\)"):
        _continuing(tmp_path / "a", ["ear", "mouth"], "nose.", _Pooled())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ssalm", {"variant": "tiny", "sizes": (1, 2)}, "a training of ltu, not of ssalm"),
        ("ltu", {"variant": "small", "sizes": (1, 3)}, "trained with other sizes, variant"),
        ("ltu", {"variant": "tiny", "sizes": (1, 2), "lm": "x"}, "trained with other lm"),
    ],
)
def test_a_training_of_another_model_is_not_gone_on_with(name: str, options: Any, message: str) -> None:
    found = {"model": "ltu", "model_options": {"variant": "tiny", "sizes": [1, 2]}}
    with pytest.raises(UsageError, match=message):
        check_same_model(found, name, options)


def test_a_training_of_the_same_model_is_gone_on_with() -> None:
    found = {"model": "ltu", "model_options": {"variant": "tiny", "sizes": [1, 2]}}
    check_same_model(found, "ltu", {"variant": "tiny", "sizes": (1, 2)})  # type: ignore[dict-item]


def test_a_folder_of_another_configuration_is_refused(tmp_path: Path) -> None:
    claim_folder(tmp_path / "run", CONFIG, {"model": "a"})
    with pytest.raises(UsageError, match="other model"):
        claim_folder(tmp_path / "run", CONFIG, {"model": "b"})


def test_a_loss_that_is_not_finite_stops_training_and_names_the_step(tmp_path: Path) -> None:
    import torch

    class Broken:
        def start_training(self, teacher_prior: object, device: str) -> torch.nn.Module:
            self.net = torch.nn.Linear(1, 1)
            return self.net

        def losses(self, examples: object) -> Mapping[str, torch.Tensor]:
            return {"text": self.net(torch.tensor([[float("nan")]])).sum()}

    trainer = Trainer(Broken(), lambda step: [], CONFIG, tmp_path, None)  # type: ignore[arg-type]
    with pytest.raises(RecordError, match="nan at step 0"):
        trainer.run(lambda line: None)


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(tmp_path: Path) -> None:
    import torch

    class Steep:
        def start_training(self, teacher_prior: object, device: str) -> torch.nn.Module:
            self.net = torch.nn.Linear(1, 1)
            return self.net

        def losses(self, examples: object) -> Mapping[str, torch.Tensor]:
            return {"text": (self.net(torch.zeros(1, 1)) * 0).sqrt().sum()}

    trainer = Trainer(Steep(), lambda step: [], CONFIG, tmp_path, None)  # type: ignore[arg-type]
    with pytest.raises(RecordError, match="gradient's norm is nan at step 0"):
        trainer.run(lambda line: None)
    assert all(bool(p.isfinite().all()) for p in trainer.network.parameters())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("average", 1.0),
        ("precision", "int8"),
        ("seed", -1),
        ("learning_rate", float("nan")),
        ("second_rate", 0.0),
        ("second_rate", float("inf")),
        ("second_pool", -2),
        ("weight_decay", -0.1),
        ("weight_decay", float("nan")),
        ("gradient_clip", 0.0),
        ("gradient_clip", float("inf")),
        ("warmup_steps", -1),
    ],
)
def test_a_configuration_out_of_range_is_refused(field: str, value: object) -> None:
    from dataclasses import replace

    with pytest.raises(UsageError, match=field):
        replace(CONFIG, **{field: value})  # type: ignore[arg-type]
