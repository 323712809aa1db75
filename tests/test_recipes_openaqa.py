"""Recipe openaqa: OpenAQA as published, LTU's four stages, and what each of them leaves.

The toy set is made here: clips of one tone each, asked about with OpenAQA's six keys.
"""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from harness import registry
from harness.audio import FileSource
from harness.contracts import Query, Question
from harness.curriculum import CurriculumConfig, Lesson, PreparedCurriculum, linear_rate
from harness.curve import CURVE
from harness.errors import MissingDataError, OptionError, RecordError, UsageError
from harness.feature_cache import FeatureCache, FeatureReader
from harness.recipes import openaqa as recipe
from harness.recipes._openaqa_items import AudioFolders, OpenAqaItem, read_items
from harness.recipes._openaqa_order import OrderedLessons
from harness.staged_training import StagedTrainer

MODELS = ("ssalm", "ltu")
TONES = {"a low tone": 200, "a middle tone": 1000, "a high tone": 3000}
N_CLIPS = 12
QUESTION = "What is heard?"


def _item(clip: str, answer: str, **other: object) -> dict[str, object]:
    keys = {"instruction": QUESTION, "input": "", "audio_id": f"/data/sls/toy/audio/{clip}", "dataset": "toy"}
    return {**keys, "task": "open-ended question", "output": answer, **other}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with an OpenAQA file, its clips, one item whose clip is missing, and one that is none."""
    root = tmp_path_factory.mktemp("toy")
    (root / "audio").mkdir()
    items = []
    for number in range(N_CLIPS):
        answer = list(TONES)[number % 3]
        tone = 0.3 * np.sin(2 * np.pi * TONES[answer] * np.arange(8000 + 400 * number) / 16_000)
        soundfile.write(root / "audio" / f"{number}.flac", tone.astype(np.float32), 16_000)
        items.append(_item(f"{number}.flac", answer))
    items += [_item("gone.flac", "nothing"), {"instruction": "What?"}]  # type: ignore[list-item]
    (root / "toy.json").write_text(json.dumps(items))
    return root


def _config(**changes: Any) -> CurriculumConfig:
    settings = {"batch_size": 4, "micro_batch_size": 2, "warmup_steps": 1, "max_steps": 3, "precision": "float32"}
    return replace(recipe.DEFAULTS, **{**settings, "log_every": 1, "checkpoint_every": 2, **changes})


def _prepared(toy: Path, config: CurriculumConfig, **options: Any) -> PreparedCurriculum:
    made = recipe.openaqa(data=toy / "toy.json", **options)
    return made.prepare(config, toy)


def _trainer(name: str, toy: Path, folder: Path, config: CurriculumConfig, **options: Any) -> StagedTrainer:
    folder.mkdir(exist_ok=True)
    return StagedTrainer(registry.create("models", name).value, _prepared(toy, config, **options), config, folder)


def _run(trainer: StagedTrainer, on_line: Callable[[Mapping[str, Any]], None] = lambda line: None) -> None:
    try:
        trainer.run(on_line)
    finally:
        trainer.close()


@dataclass(frozen=True)
class Trained:
    """A whole training of a tiny model on the toy set."""

    name: str
    folder: Path
    trainer: StagedTrainer
    curve: list[Mapping[str, Any]]


@pytest.fixture(scope="module", params=MODELS)
def trained(request: pytest.FixtureRequest, toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("run")
    trainer = _trainer(request.param, toy, folder, _config(), held_out=2)
    _run(trainer)
    return Trained(request.param, folder, trainer, _curve(folder))


def _curve(folder: Path) -> list[Mapping[str, Any]]:
    timed = ("clips_per_s", "tokens_per_s", "peak_memory_bytes")
    lines = [json.loads(line) for line in (folder / CURVE).read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in timed} for line in lines]


def _weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {**load_file(folder / "weights.safetensors"), **load_file(folder / "adapter_model.safetensors")}


# --- the published plan -----------------------------------------------------------------------------------------------


def test_the_stages_are_those_of_ltus_scripts() -> None:
    """YuanGongND/ltu src/ltu/train_script/stage1_proj_cla.sh to stage4_all_mix.sh: parts, file, rate, epochs."""
    every = ("encoder", "connector", "lora")
    assert [(s.trains, recipe.FILES[s.data], s.learning_rate, s.epochs) for s in recipe.STAGES] == [
        (("connector",), "closed_ended/combine_cla.json", 1e-3, 2),
        (every, "closed_ended/combine_cla.json", 1e-4, 2),
        (every, "closed_ended/all_closed_qa.json", 1e-4, 1),
        (every, "openaqa_5.6M.json", 1e-4, 1),
    ]


def test_the_settings_are_those_of_ltus_scripts() -> None:
    """The same scripts and finetune.py; decay and clipping are transformers' defaults there."""
    config = recipe.DEFAULTS
    assert (config.batch_size, config.micro_batch_size, config.max_text_tokens) == (256, 4, 108)
    assert (config.warmup_steps, config.weight_decay, config.gradient_clip) == (100, 0.0, 1.0)
    assert (config.loss_on_prompt, config.lora_dropout, config.precision) == (True, 0.05, "bfloat16")


def test_the_rate_rises_and_falls_in_lines() -> None:
    assert [linear_rate(1.0, step, 10, 2) for step in (0, 1, 2, 6, 9)] == pytest.approx([0.5, 1.0, 1.0, 0.5, 0.125])


@pytest.mark.parametrize(
    ("name", "variant", "count"),
    [
        pytest.param("ltu", "7b", 93_065_216, marks=pytest.mark.slow),
        ("hybrid", "7b", 42_132_512),
        ("ssalm", "2.8b", 43_310_624),
    ],
)
def test_as_many_parameters_learn_as_were_published(name: str, variant: str, count: int) -> None:
    """LTU's from its README to the digit; the others' were published as "42M" and "about 40M to 60M"."""
    from models._staged import _sketch, train_parts

    network = _sketch(registry.create("models", name, {"variant": variant}).value, "bfloat16")
    assert sum(train_parts(network, recipe.EVERY_PART).values()) == count


# --- OpenAQA's file ---------------------------------------------------------------------------------------------------


def test_an_item_that_is_none_is_named_and_passed_over(toy: Path) -> None:
    items, malformed = read_items(toy / "toy.json")
    assert len(items) == N_CLIPS + 1
    assert malformed == [("toy.json:13", "no text under 'audio_id'")]


def test_text_beside_the_question_stands_where_ltus_template_has_it(tmp_path: Path) -> None:
    from models.nn.prompts import in_template

    (tmp_path / "a.json").write_text(json.dumps([_item("a.flac", "sadness", input="I am so sad")]))
    items, _ = read_items(tmp_path / "a.json")
    assert in_template(items[0].prompt) == in_template(QUESTION, "I am so sad")


@pytest.mark.parametrize("content", ["{}", "[]", "no json", '[{"instruction": "?"}]'])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(UsageError, match=r"a\.json"):
        read_items(tmp_path / "a.json")


def test_the_longest_end_of_a_published_path_that_is_here_leads_to_the_clip(tmp_path: Path) -> None:
    for folder in ("audioset/audio", "audio"):
        (tmp_path / folder).mkdir(parents=True)
    folders = AudioFolders(tmp_path)
    assert folders.path_of("/data/sls/audioset/audio/x.flac") == tmp_path / "audioset" / "audio" / "x.flac"
    assert folders.path_of("/data/other/audio/x.flac") == tmp_path / "audio" / "x.flac"
    assert folders.path_of("../../etc/x.flac") == tmp_path / "x.flac"


def test_a_missing_file_is_named_with_its_home(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"combine_cla\.json.*github\.com/YuanGongND/ltu"):
        recipe.openaqa().prepare(_config(), tmp_path)


def test_clips_kept_back_are_in_no_stage(toy: Path) -> None:
    prepared = _prepared(toy, _config(), held_out=4)
    back = {str(lesson.audio) for lesson in prepared.held_out}
    assert len(back) == 4
    assert not back & {file for lessons in prepared.sources.values() for file in lessons.files()}


def test_keeping_every_clip_back_is_refused(toy: Path) -> None:
    with pytest.raises(OptionError, match="nothing to learn from"):
        _prepared(toy, _config(), held_out=N_CLIPS + 1)


# --- the order --------------------------------------------------------------------------------------------------------


def _ordered(n: int, batch_size: int) -> OrderedLessons:
    items = [OpenAqaItem(i, QUESTION, "a" * (1 + i * 7 % n), f"{i}.flac") for i in range(n)]
    return OrderedLessons("x.json", items, AudioFolders(Path("nowhere")), 0, batch_size)


def test_every_item_comes_once_before_any_comes_again() -> None:
    lessons = _ordered(20, 4)
    epochs = [
        [lesson.item for step in range(start, start + 5) for lesson in lessons.batch(step, 4)] for start in (0, 5)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) and len(set(epochs[0])) == 20
    assert epochs[0] != epochs[1]


def test_a_batch_depends_on_its_step_alone() -> None:
    straight, jumped = _ordered(20, 4), _ordered(20, 4)
    jumped.batch(7, 4)
    assert straight.batch(3, 4) == jumped.batch(3, 4)


def test_texts_of_like_length_come_together() -> None:
    lessons = _ordered(400, 10)
    spreads = [np.ptp([len(lesson.question.answers[0][0]) for lesson in lessons.batch(s, 10)]) for s in range(40)]
    assert np.mean(spreads) < 80  # of 400; of ten drawn at random it would be about 330


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_exactly_the_published_parts_learn_in_each_stage(name: str) -> None:
    model = registry.create("models", name).value
    network = model.start_stages(0.05, "float32", False, "cpu")
    for stage in recipe.STAGES:
        model.train_parts(stage.trains)
        learns = {n for n, p in network.named_parameters() if p.requires_grad}
        prefixes = {"encoder": "hear.encoder.", "connector": "hear.connector.", "lora": "lm."}
        wanted = tuple(prefixes[part] for part in stage.trains)
        assert learns == {
            n for n, _ in network.named_parameters() if n.startswith(wanted) and (n[:3] != "lm." or "lora_" in n)
        }


def test_a_stage_changes_what_it_trains_and_nothing_else(trained: Trained) -> None:
    stages = [_weights(trained.folder / f"stage{number}") for number in (1, 2)]
    changed = {name for name in stages[0] if not bool((stages[0][name] == stages[1][name]).all())}
    assert {name for name in changed if name.startswith("lm.")} == set()
    assert {name.rpartition(".lora_")[1] for name in changed if name.startswith("base_model.")} == {".lora_"}
    assert {name.split(".")[1] for name in changed if name.startswith("hear.")} == {"encoder", "connector"}


def test_the_first_stage_trains_the_connector_alone(trained: Trained) -> None:
    model = registry.create("models", trained.name).value
    model.load("cpu", "float32")
    shipped, first = model._network.state_dict(), _weights(trained.folder / "stage1")
    changed = {name for name, tensor in shipped.items() if name in first and not bool((first[name] == tensor).all())}
    assert changed and {name.split(".")[1] for name in changed} == {"connector"}


def test_the_loss_falls(trained: Trained) -> None:
    losses = [line["loss"] for line in trained.curve if "loss" in line]
    assert len(losses) == 10 and np.mean(losses[-3:]) < 0.97 * np.mean(losses[:3])


def test_held_out_clips_are_asked_after_each_stage(trained: Trained) -> None:
    asked = [(line["stage"], line["n_held_out"]) for line in trained.curve if "held_out_loss" in line]
    assert asked == [(stage.name, 2) for stage in recipe.STAGES]


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_what_a_stage_leaves_answers_as_a_model(trained: Trained, toy: Path, number: int) -> None:
    model = registry.create("models", trained.name, {"weights": str(trained.folder / f"stage{number}")}).value
    model.load("cpu", "float32")
    query = Query("a", FileSource(toy / "audio" / "0.flac").load(16_000), QUESTION, tuple(TONES))
    (answer,) = model.answer([query])
    assert answer.error is None and len(answer.label_scores) == 3
    assert "toy.json" in model.describe().trained_on
    assert model.describe().parameters["lora"] == trained.trainer.n_trained["all"]["lora"]


def test_a_folder_of_weights_answers_as_the_network_that_was_trained(trained: Trained, toy: Path) -> None:
    model = registry.create("models", trained.name, {"weights": str(trained.folder / "stage4")}).value
    model.load("cpu", "float32")
    trained.trainer.network.eval()
    query = Query("a", FileSource(toy / "audio" / "1.flac").load(16_000), QUESTION, tuple(TONES))
    first, second = (m.answer([query])[0].label_scores for m in (model, trained.trainer.model))
    assert first == pytest.approx(second, abs=1e-5)


def test_an_item_without_its_clip_is_noted_once_and_training_goes_on(trained: Trained) -> None:
    lines = [json.loads(line) for line in (trained.folder / "bad_items.jsonl").read_text().splitlines()]
    assert [(line["item"], Path(line["audio"]).name) for line in lines] == [("toy.json:12", "gone.flac")]
    assert trained.curve[-2]["n_skipped"] > 0


def test_an_interrupted_training_ends_in_the_curve_and_the_weights_of_an_unbroken_one(
    trained: Trained, toy: Path, tmp_path: Path
) -> None:
    class Interrupted(Exception):
        pass

    def stop_at(step: int) -> Callable[[Mapping[str, Any]], None]:
        def on_line(line: Mapping[str, Any]) -> None:
            if line["step"] == step:
                raise Interrupted

        return on_line

    for step in (5, 6, 9):  # inside a stage, at the end of one, in the last one
        trainer = _trainer(trained.name, toy, tmp_path / "run", _config(), held_out=2)
        trainer.resume()
        with pytest.raises(Interrupted):
            _run(trainer, stop_at(step))
    trainer = _trainer(trained.name, toy, tmp_path / "run", _config(), held_out=2)
    assert trainer.resume() == 8
    _run(trainer)
    assert _curve(tmp_path / "run") == trained.curve
    ends = [_weights(folder / "stage4") for folder in (tmp_path / "run", trained.folder)]
    assert all(bool((ends[0][name] == tensor).all()) for name, tensor in ends[1].items())


def test_a_next_training_goes_on_from_a_stages_weights(trained: Trained, toy: Path, tmp_path: Path) -> None:
    model = registry.create("models", trained.name, {"weights": str(trained.folder / "stage1")}).value
    config = _config(stages=recipe.STAGES[1:2], max_steps=1)
    prepared = _prepared(toy, config, first_stage=2, last_stage=2)
    trainer = StagedTrainer(model, prepared, config, tmp_path)
    begun = _weights(trained.folder / "stage1")
    own = {name.replace(".base_layer", ""): tensor for name, tensor in trainer.network.state_dict().items()}
    trainer.close()
    assert all(bool((own[name] == tensor).all()) for name, tensor in begun.items() if name in own)


@pytest.mark.parametrize("name", MODELS)
def test_the_size_of_a_micro_batch_changes_rounding_alone(name: str, toy: Path, tmp_path: Path) -> None:
    """In the first stage, where nothing is dropped."""
    numbers = []
    for size in (1, 4):
        config = _config(micro_batch_size=size, lora_dropout=0.0)
        trainer = _trainer(name, toy, tmp_path / str(size), config)
        numbers.append([trainer.take_step() for _ in range(2)])
        trainer.close()
    for one, four in zip(*numbers, strict=True):
        assert one["loss"] == pytest.approx(four["loss"], rel=1e-5)
        assert one["gradient_norm"] == pytest.approx(four["gradient_norm"], rel=1e-4)


def test_a_training_in_bfloat16_learns(toy: Path, tmp_path: Path) -> None:
    import torch

    trainer = _trainer("ssalm", toy, tmp_path, _config(precision="bfloat16"))
    first = trainer.take_step()
    kinds = {p.dtype for p in trainer.network.hear.parameters()}, {trainer.network.lm.embed(torch.tensor([[1]])).dtype}
    trainer.close()
    assert kinds == ({torch.float32}, {torch.bfloat16})
    assert np.isfinite(first["loss"]) and first["gradient_norm"] > 0


def test_a_loss_that_is_not_finite_stops_training_and_names_the_items(toy: Path, tmp_path: Path) -> None:
    trainer = _trainer("ltu", toy, tmp_path, _config(micro_batch_size=1))
    lesson = trainer.prepared.sources["classification"].batch(0, 4)[0]
    read = trainer.batches.reader.read

    def poisoned(files: Any) -> Any:
        return [x * np.nan if file == lesson.audio else x for file, x in zip(files, read(files), strict=True)]

    trainer.batches.reader.read = poisoned  # type: ignore[method-assign]
    with pytest.raises(RecordError, match=rf"loss is nan at step 0 of stage projection, on {lesson.item};"):
        trainer.take_step()
    trainer.close()
    assert json.loads((tmp_path / "not_finite.json").read_text())["items"][0]["item"] == lesson.item


def test_a_step_without_any_clip_is_an_error_that_says_why(toy: Path, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([_item("gone.flac", "x")]))
    prepared = recipe.openaqa(data=tmp_path / "a.json").prepare(_config(), tmp_path)
    trainer = StagedTrainer(registry.create("models", "ltu").value, prepared, _config(), tmp_path)
    with pytest.raises(RecordError, match=r"no item of step 0 .*gone\.flac"):
        trainer.take_step()
    trainer.close()


# --- parts of the loop ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_token_losses_are_those_of_one_text_after_the_other(name: str) -> None:
    import torch

    from models.nn.token_losses import token_losses

    model = registry.create("models", name).value
    model.load("cpu", "float32")
    network = model._network
    torch.manual_seed(0)
    audio, texts, starts = torch.randn(2, 5, network.lm.width), [[4, 9, 7, 3], [8, 2]], [1, 0]
    with torch.inference_mode():
        found = token_losses(network, audio, texts, starts)
        expected = []
        for row, (text, start) in enumerate(zip(texts, starts, strict=True)):
            for place in range(start, len(text)):
                before = network.lm.embed(torch.tensor([text[:place]], dtype=torch.long))
                hidden, _ = network.lm(torch.cat([audio[row : row + 1], before], dim=1))
                expected.append(-torch.log_softmax(network.lm.head(hidden[0, -1]), -1)[text[place]].item())
    assert found.losses_N.tolist() == pytest.approx(expected, rel=1e-4)
    assert found.rows_N.tolist() == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("name", MODELS)
def test_a_clip_of_any_length_is_cut_or_padded_to_one_length(name: str) -> None:
    model = registry.create("models", name).value
    model.load("cpu", "float32")
    lengths = [len(model.features(np.ones(seconds * 16_000, np.float32))) for seconds in (1, 5, 12)]
    assert len(set(lengths)) == 1


def test_a_text_is_cut_at_the_limit_and_its_end_token_with_it() -> None:
    model = registry.create("models", "ltu").value
    model.load("cpu", "float32")
    question = Question(QUESTION, (("a low tone", 1.0),))
    whole, start = model.text_tokens(question, 108)
    assert whole[-1] == model._text.end_id and start == len(model._text.prompt_ids(QUESTION))
    assert model.text_tokens(question, len(whole) - 1)[0] == whole[:-1]


def test_an_answer_that_is_cut_away_is_no_lesson_where_answers_alone_count(toy: Path, tmp_path: Path) -> None:
    trainer = _trainer("ltu", toy, tmp_path, _config(max_text_tokens=6, loss_on_prompt=False))
    with pytest.raises(RecordError, match="nothing of its answer lies within 6 tokens"):
        trainer.take_step()
    trainer.close()


@pytest.mark.parametrize("name", MODELS)
def test_blocks_that_recompute_give_the_same_gradients(name: str) -> None:
    import torch

    heard = np.random.default_rng(0).normal(size=(2, 512, 128)).astype(np.float32)
    norms = []
    for is_recomputed in (False, True):
        torch.manual_seed(0)
        model = registry.create("models", name).value
        network = model.start_stages(0.05, "float32", is_recomputed, "cpu")
        model.train_parts(recipe.EVERY_PART)
        torch.manual_seed(1)
        model.text_losses(heard, [[5, 6, 7], [8, 9]], [1, 1])[0].sum().backward()
        norms.append([float(p.grad.norm()) for p in network.parameters() if p.grad is not None])
    assert norms[1] == pytest.approx(norms[0], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_the_forecast_of_activations_is_what_autograd_keeps(name: str) -> None:
    import torch

    from models.nn.saved_bytes import step_on_zeros

    model = registry.create("models", name).value
    told = model.training_needs(recipe.EVERY_PART, 2, 20, "float32", False)["bytes"]["activations"]
    network = model.start_stages(0.0, "float32", False, "cpu")
    model.train_parts(recipe.EVERY_PART)
    owned = {t.untyped_storage().data_ptr() for t in (*network.parameters(), *network.buffers())}
    kept: dict[int, int] = {}
    alive = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in owned:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step_on_zeros(2, 512, 128, 20)(network)
    assert told == pytest.approx(sum(kept.values()), rel=0.02)


def test_lines_for_tensorboard_have_the_curves_numbers_at_their_steps(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With a writer in the place of TensorBoard's own, which is an extra."""
    from harness import tensorboard_lines

    written: list[tuple[Any, ...]] = []

    class Writer:
        def __init__(self, folder: str, purge_step: int) -> None:
            written.append((Path(folder).name, purge_step))

        def add_scalar(self, *scalar: Any) -> None:
            written.append(scalar)

        def flush(self) -> None: ...

    fake: Any = types.ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    monkeypatch.setattr(tensorboard_lines, "require_tensorboard", lambda: None)
    board = tensorboard_lines.TensorBoardLines(tmp_path, first_step=4)
    board.line({"step": 5, "stage": "all", "loss": 0.5})
    assert written == [("tensorboard", 5), ("loss", 0.5, 5)]


# --- a language model from a folder -----------------------------------------------------------------------------------


def _lm_folder(folder: Path, seed: int) -> Path:
    """A small Mamba in transformers' layout, with the tiny models' tokenizer."""
    import torch
    from transformers import MambaConfig, MambaForCausalLM

    from models._weights_files import TOKENIZER_FILE

    torch.manual_seed(seed)
    MambaForCausalLM(MambaConfig(vocab_size=1024, hidden_size=64, num_hidden_layers=2)).save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(TOKENIZER_FILE.read_bytes())
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Any]:
    """A language model's folder, the weights of a published size trained on it, and that network."""
    import torch

    folder = tmp_path_factory.mktemp("grown")
    lm = _lm_folder(folder / "lm", 0)
    model = registry.create("models", "ssalm", {"variant": "130m", "weights": "random", "lm": str(lm)}).value
    network = model.start_stages(0.05, "bfloat16", False, "cpu")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter) if parameter.dtype == torch.float32 else 0)
    model.save_trained(folder / "weights", "nothing")
    return lm, folder / "weights", network


def _published(lm: Path | None, weights: Path) -> Any:
    options = {"variant": "130m", "weights": str(weights), **({"lm": str(lm)} if lm else {})}
    return registry.create("models", "ssalm", options).value


def test_trained_weights_of_a_published_size_leave_the_language_model_in_its_folder(
    grown: tuple[Path, Path, Any],
) -> None:
    lm, weights, network = grown
    assert not [name for name in _weights(weights) if name.startswith("lm.")]
    model = _published(lm, weights)
    model.load("cpu", "float32")
    wanted = dict(network.named_parameters())
    found = dict(model._network.named_parameters())
    assert found.keys() == wanted.keys()
    assert all(bool((found[name] == p).all()) for name, p in wanted.items() if "lora_" in name or "hear." in name)


def test_trained_weights_without_their_language_model_are_refused(grown: tuple[Path, Path, Any]) -> None:
    with pytest.raises(UsageError, match="-m lm=FOLDER"):
        _published(None, grown[1]).load("cpu", "float32")


def test_trained_weights_on_another_language_model_are_refused(grown: tuple[Path, Path, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="trained on another language model"):
        _published(_lm_folder(tmp_path / "other", 1), grown[1]).load("cpu", "float32")


def test_a_folder_of_weights_that_is_not_whole_is_refused(grown: tuple[Path, Path, Any], tmp_path: Path) -> None:
    lm, weights, _ = grown
    (tmp_path / "weights.safetensors").write_bytes((weights / "weights.safetensors").read_bytes())
    with pytest.raises(UsageError, match=r"adapter_config\.json"):
        _published(lm, tmp_path).load("cpu", "float32")


# --- features ---------------------------------------------------------------------------------------------------------


def _halves(samples: Any) -> Any:
    """A front end of four frames."""
    return np.stack([np.full(3, 1 + i + samples.mean(), np.float32) for i in range(4)])


def _cache(folder: Path, files: list[str]) -> FeatureCache:
    return FeatureCache(folder, files, _halves(np.zeros(8, np.float32)))


def test_a_clip_in_the_cache_is_not_decoded_again(toy: Path, tmp_path: Path) -> None:
    clip = tmp_path / "a.flac"
    clip.write_bytes((toy / "audio" / "0.flac").read_bytes())
    reader = FeatureReader(_halves, 16_000, 1, _cache(tmp_path / "f", [str(clip)]))
    (first,) = reader.read([clip])
    clip.unlink()
    (again,) = FeatureReader(_halves, 16_000, 1, _cache(tmp_path / "f", [str(clip)])).read([clip])
    np.testing.assert_array_equal(first, again)


def test_a_torn_row_of_the_cache_is_computed_again(tmp_path: Path) -> None:
    cache = _cache(tmp_path, ["a", "b"])
    cache.put(Path("a"), _halves(np.ones(8, np.float32)))
    assert cache.get(Path("a")) is not None and cache.get(Path("b")) is None
    cache._array[0, 2] = 0.0
    assert cache.get(Path("a")) is None


def test_a_cache_of_another_front_end_is_refused(tmp_path: Path) -> None:
    _cache(tmp_path, ["a"])
    with pytest.raises(UsageError, match="of other clips or of another model"):
        FeatureCache(tmp_path, ["a"], 2 * _halves(np.zeros(8, np.float32)))


def test_a_training_from_the_cache_takes_the_same_steps(toy: Path, tmp_path: Path) -> None:
    numbers = []
    for folder in ("first", "again"):
        trainer = _trainer("ltu", toy, tmp_path / folder, _config(), features=tmp_path / "features")
        numbers.append(trainer.take_step())
        trainer.close()
    assert numbers[0] == numbers[1]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch_size", 0),
        ("max_steps", 0),
        ("precision", "int8"),
        ("max_text_tokens", 1),
        ("lora_dropout", 1.0),
        ("gradient_clip", float("inf")),
        ("weight_decay", -1.0),
    ],
)
def test_a_configuration_out_of_range_is_refused(field: str, value: object) -> None:
    with pytest.raises(UsageError, match=field):
        replace(recipe.DEFAULTS, **{field: value})  # type: ignore[arg-type]


def test_a_folder_of_the_same_curriculum_is_accepted_again(tmp_path: Path) -> None:
    from harness.training import claim_folder

    for _ in range(2):
        claim_folder(tmp_path, recipe.DEFAULTS, {"model": "a"})
    assert json.loads((tmp_path / "config.json").read_text())["stages"][0] == {
        **asdict(recipe.STAGES[0]),
        "trains": ["connector"],
    }


def test_lessons_name_where_they_stand(toy: Path) -> None:
    lesson: Lesson = _prepared(toy, _config()).sources["everything"].batch(0, 1)[0]
    assert lesson.item.startswith("toy.json:") and lesson.audio.parent == toy / "audio"
