"""The tiny models: answers that do not depend on the batch, log-likelihoods that are right, weights that come back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from harness.contracts import AudioClip, Query, TrainingExample
from models._lalm import TOKENIZER_FILE, WEIGHTS_FOLDER, LalmAdapter
from models.ast_mamba import ast_mamba
from models.hybrid import hybrid
from models.ltu import ltu
from models.nn.lalm import AudioLanguageModel
from models.nn.text import Text, train_tokenizer
from models.nn.tiny import LM_WIDTH, tiny
from models.ssalm import ssalm

LABELS = ("dog", "sea waves", "door wood creaks")


def _clip(seconds: float, seed: int = 0) -> AudioClip:
    samples = np.random.default_rng(seed).normal(0, 0.1, int(seconds * 16_000)).astype(np.float32)
    return AudioClip(samples, 16_000, 16_000, 1, len(samples))


def _query(seconds: float, seed: int = 0, labels: tuple[str, ...] | None = LABELS) -> Query:
    return Query(f"{seconds}-{seed}", _clip(seconds, seed), "Classify the sound event in the audio clip.", labels)


MODELS: dict[str, Any] = {"ssalm": ssalm, "ltu": ltu, "hybrid": hybrid, "ast_mamba": ast_mamba}


@pytest.fixture(scope="module", params=MODELS)
def adapter(request: pytest.FixtureRequest) -> Iterator[LalmAdapter]:
    """Each of the four with random weights: what is claimed here holds for any."""
    torch.manual_seed(0)
    made: Any = MODELS[request.param](max_new_tokens=6)
    network = made.start_training(None, "cpu").eval()
    # Untrained, audio hardly moves an answer; louder, no test passes on answers that are alike anyway.
    loud = ("connector.linear.weight", "audio_proj.1.weight", "out_proj.weight", "o_proj.weight", "x_proj.weight")
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(loud) and "encoder" not in name:
                parameter.mul_(10)
    yield made
    made.close()


def test_an_answer_does_not_depend_on_its_neighbours(adapter: LalmAdapter) -> None:
    queries = [_query(seconds, seed) for seed, seconds in enumerate([5.0, 0.4, 5.0, 9.0, 2.0, 6.5, 5.0, 1.0])]
    together = adapter.answer(queries)
    spread = np.ptp([answer.label_scores for answer in together], axis=0).min()
    assert spread > 1e-2, "clips must differ by far more than the tolerance below"
    for query, answer in zip(queries, together, strict=True):
        alone = adapter.answer([query])[0]
        assert (alone.text, alone.n_answer_tokens) == (answer.text, answer.n_answer_tokens)
        np.testing.assert_allclose(alone.label_scores, answer.label_scores, atol=1e-4)  # type: ignore[arg-type]


def test_training_is_possible_after_answering(adapter: LalmAdapter) -> None:
    adapter.answer([_query(5.0)])
    example = TrainingExample(_clip(5.12).samples, "?", (("dog", 1.0),))
    adapter.losses([example])["text"].backward()
    adapter._require_network().zero_grad()


def test_the_training_loss_is_the_weighted_log_likelihood_of_the_answers(adapter: LalmAdapter) -> None:
    clips, prompts = [_clip(5.12, 1), _clip(5.12, 2)], ["What?", "Which sound event is in the clip?"]
    first = TrainingExample(clips[0].samples, prompts[0], (("dog", 0.75), ("door wood creaks", 0.25)))
    second = TrainingExample(clips[1].samples, prompts[1], (("sea waves", 1.0),))
    with torch.no_grad():
        loss = float(adapter.losses([first, second])["text"])
    scores = [
        adapter.answer([Query("x", clip, prompt, LABELS)])[0].label_scores
        for clip, prompt in zip(clips, prompts, strict=True)
    ]
    assert scores[0] is not None and scores[1] is not None
    dog, creaks, waves = scores[0][0], scores[0][2], scores[1][1]
    assert loss == pytest.approx(-(0.75 * dog + 0.25 * creaks + waves) / 2, abs=1e-4)


def test_a_teacher_is_learned_from_at_its_own_moments(adapter: LalmAdapter) -> None:
    fresh: Any = MODELS[adapter.name]()
    fresh.start_training(np.full(3, -6.0, dtype=np.float32), "cpu")
    scores = np.full((10, 3), 0.5, dtype=np.float16)
    with torch.autocast("cpu", torch.bfloat16):
        losses = fresh.losses([TrainingExample(_clip(5.12).samples, "?", (("dog", 1.0),), scores)])
    losses["teacher"].backward()
    assert losses["teacher"].item() > 3 * np.log(2)
    assert all(p.grad is not None for p in fresh._require_network().hear.encoder.parameters())


def test_a_head_for_a_teacher_begins_at_what_the_teacher_says_on_average(adapter: LalmAdapter) -> None:
    prior = np.array([-9.0, -2.0, 1.0], dtype=np.float32)
    fresh: Any = MODELS[adapter.name]()
    fresh.start_training(prior, "cpu")
    scores = np.tile(1 / (1 + np.exp(-prior)), (10, 1))
    losses = fresh.losses([TrainingExample(_clip(5.12).samples, "?", (), scores)])
    assert losses["teacher_logits"].item() == pytest.approx(0.0, abs=1e-9)


def test_label_scores_are_mean_log_probabilities_of_the_label_and_its_end(adapter: LalmAdapter) -> None:
    network: AudioLanguageModel = adapter._require_network()
    query = _query(5.0)
    expected = []
    with torch.no_grad():
        audio = adapter._encode([adapter._features(query, 0)])[0]
        prompt = adapter._text.prompt_ids(query.prompt)
        for label in LABELS:
            ids = adapter._text.answer_ids(label)
            text = network.lm.embed(torch.tensor([[*prompt, *ids]]))
            hidden, _ = network.lm(torch.cat([audio[None], text], dim=1))
            log_p = torch.log_softmax(network.lm.head(hidden[0, -len(ids) - 1 : -1]), dim=-1)
            expected.append(float(log_p[range(len(ids)), ids].mean()))
    np.testing.assert_allclose(adapter.answer([query])[0].label_scores, expected, atol=1e-4)  # type: ignore[arg-type]


def test_asking_for_label_scores_does_not_change_the_text(adapter: LalmAdapter) -> None:
    with_scores, without = adapter.answer([_query(5.0)])[0], adapter.answer([_query(5.0, labels=None)])[0]
    assert with_scores.text == without.text
    assert without.label_scores is None


def test_queries_with_other_labels_in_one_batch_each_get_their_own_scores(adapter: LalmAdapter) -> None:
    first, second = _query(5.0, 1), _query(5.0, 2, labels=("rain", "dog"))
    answers = adapter.answer([first, second, _query(3.0, 3, labels=None)])
    assert [answer.label_scores and len(answer.label_scores) for answer in answers] == [3, 2, None]


def test_two_clips_give_two_hearings(adapter: LalmAdapter) -> None:
    first, second = adapter.answer([_query(5.0, 1), _query(5.0, 2)])
    assert first.label_scores != second.label_scores


def test_the_last_second_of_a_long_clip_is_heard(adapter: LalmAdapter) -> None:
    clip = _clip(21.0)
    silenced = clip.samples.copy()
    silenced[-16_000:] = 0.0
    other = AudioClip(silenced, 16_000, 16_000, 1, len(silenced))
    full, cut = adapter.answer([Query("a", clip, "?", LABELS), Query("b", other, "?", LABELS)])
    assert full.frames_heard == full.frames_total == cut.frames_total
    assert full.label_scores != cut.label_scores


@pytest.mark.parametrize(("model", "policy"), [(ssalm, "full"), (ltu, "interpolate")], ids=["ssalm", "ltu"])
def test_a_clip_beyond_one_pass_is_an_error_of_that_item_only(model: Any, policy: str) -> None:
    made = model(max_new_tokens=1, length_policy=policy)
    made.start_training(None, "cpu").eval()
    too_long = AudioClip(np.zeros(16_000 * 601, dtype=np.float32), 16_000, 16_000, 1, 16_000 * 601)
    first, second = made.answer([Query("long", too_long, "?", LABELS), _query(5.0)])
    assert first.error is not None and first.error.startswith("ModelLimitError: 601.0 s")
    assert second.error is None and second.label_scores is not None


def test_generation_stops_at_the_end_token_or_at_the_limit(adapter: LalmAdapter) -> None:
    network = adapter._require_network()
    audio = [torch.randn(16, LM_WIDTH), torch.randn(16, LM_WIDTH)]
    with torch.no_grad():
        last, cache = network.read(audio, [[5, 6], [5, 6]])
        scripts = iter([[7, 8], [0, 8], [9, 8], [9, 8], [9, 8]])
        said = network.generate(last, cache, 0, 4, lambda logits: torch.tensor(next(scripts)))
    assert said == [[7, 0], [8, 8, 8, 8]]


def test_saved_weights_load_and_answer_alike(adapter: LalmAdapter, tmp_path: Any) -> None:
    path = tmp_path / "weights.safetensors"
    adapter.save(path, "noise")
    again: Any = MODELS[adapter.name](weights=str(path), max_new_tokens=6)
    assert again.describe().trained_on == "noise"
    assert again.describe().parameters == adapter._require_network().parameter_counts()
    again.load("cpu", "float32")
    first, second = adapter.answer([_query(5.0)])[0], again.answer([_query(5.0)])[0]
    # Weights are stored in half precision.
    np.testing.assert_allclose(first.label_scores, second.label_scores, atol=0.05)  # type: ignore[arg-type]


def test_weights_of_the_other_family_are_refused(adapter: LalmAdapter, tmp_path: Any) -> None:
    from harness.errors import UsageError

    path = tmp_path / "weights.safetensors"
    adapter.save(path, "noise")
    other: Any = MODELS["ltu" if adapter.name == "ssalm" else "ssalm"](weights=str(path))
    with pytest.raises(UsageError, match=f"holds weights of {adapter.name}:tiny"):
        other.load("cpu", "float32")


def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Any) -> None:
    from harness.errors import UsageError

    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"not weights")
    with pytest.raises(UsageError, match="not a safetensors file of this harness"):
        ssalm(weights=str(path)).load("cpu", "float32")


@pytest.mark.parametrize("damage", ["missing", "cut", "list", "bare", "other tokenizer"])
def test_damaged_weights_are_one_clear_error(adapter: LalmAdapter, tmp_path: Any, damage: str) -> None:
    from safetensors.torch import save_file

    from harness.errors import UsageError

    path = tmp_path / "weights.safetensors"
    adapter.save(path, "noise")
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-1000])
    elif damage == "list":
        path.write_bytes((2).to_bytes(8, "little") + b"[]")
    elif damage == "bare":
        save_file({"x": torch.zeros(1)}, path)
    else:
        path.write_bytes(path.read_bytes().replace(b'"tokenizer_sha256":"', b'"tokenizer_sha256":"0', 1)[:-1])
    made: Any = MODELS[adapter.name](weights=str(path))
    with pytest.raises(UsageError, match=r"weights\.safetensors"):
        made.load("cpu", "float32")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_answers_stay_near_those_in_float32(adapter: LalmAdapter, tmp_path: Any, dtype: str) -> None:
    path = tmp_path / "weights.safetensors"
    adapter.save(path, "noise")
    scores = []
    for name in ("float32", dtype):
        made: Any = MODELS[adapter.name](weights=str(path), max_new_tokens=2)
        made.load("cpu", name)
        scores.append(made.answer([_query(20.0)])[0].label_scores)
    np.testing.assert_allclose(scores[0], scores[1], atol=0.1)


def test_rotary_frequencies_stay_exact_in_half_precision() -> None:
    whole, half = tiny("ast", "llama"), tiny("ast", "llama").to(dtype=torch.bfloat16)
    rotary: Any = whole.lm.network.model.rotary_emb.inv_freq
    torch.testing.assert_close(half.lm.network.model.rotary_emb.inv_freq, rotary, rtol=0, atol=0)


def test_the_shipped_tokenizer_is_what_its_corpus_gives() -> None:
    corpus = (WEIGHTS_FOLDER / "tokenizer_corpus.txt").read_text(encoding="utf-8")
    lines = corpus.removesuffix("\n").split("\n\x1e\n")
    assert train_tokenizer(lines).to_str() == TOKENIZER_FILE.read_text(encoding="utf-8")


@pytest.mark.parametrize("text", ["dog", "Sea waves; rain", "Ähm 日本 \n\t x", "🎺"])
def test_text_goes_in_and_comes_out_unchanged(text: str) -> None:
    tokens = Text.from_file(TOKENIZER_FILE)
    assert tokens.decode(tokens.answer_ids(text)) == text.strip()
