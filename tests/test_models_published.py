"""The published sizes: parts from released files, random weights otherwise, and errors that name the option."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, MambaConfig, MambaForCausalLM

from harness.contracts import AudioClip, Query
from harness.errors import UsageError
from models._lalm import TOKENIZER_FILE, LalmAdapter
from models.nn.dass_encoder import DASS_SMALL, DassEncoder
from models.nn.published import Published, build_published
from models.nn.text import VOCAB_SIZE
from models.ssalm import ssalm

LABELS = ("dog", "sea waves")


def save_lm(folder: Path, kind: str) -> Path:
    """A small language model in transformers' layout, with a tokenizer."""
    torch.manual_seed(0)
    if kind == "mamba":
        config: Any = MambaConfig(vocab_size=VOCAB_SIZE, hidden_size=64, num_hidden_layers=2)
        MambaForCausalLM(config).save_pretrained(folder)
    else:
        config = LlamaConfig(
            vocab_size=VOCAB_SIZE, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
        )
        LlamaForCausalLM(config).save_pretrained(folder)
    Tokenizer.from_file(str(TOKENIZER_FILE)).save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(params=["mamba", "llama"])
def lm_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return save_lm(tmp_path / "lm", request.param)


def make(**options: Any) -> LalmAdapter:
    made: Any = ssalm(variant="130m", max_new_tokens=3, **options)
    return made  # type: ignore[no-any-return]


def query(seconds: float, seed: int = 0) -> Query:
    samples = np.random.default_rng(seed).normal(0, 0.1, int(seconds * 16_000)).astype(np.float32)
    return Query(f"{seconds}-{seed}", AudioClip(samples, 16_000, 16_000, 1, len(samples)), "What is it?", LABELS)


def test_a_language_model_from_a_folder_takes_the_place_of_the_published_one(lm_folder: Path) -> None:
    model = make(weights="random", lm=lm_folder)
    before = model.describe()
    model.load("cpu", "float32")
    first, second = model.answer([query(1.0), query(2.0, 1)])
    assert first.n_audio_tokens == second.n_audio_tokens == 32
    assert first.label_scores != second.label_scores
    assert before.parameters["language_model"] < 1_000_000
    assert model.describe().fingerprint == before.fingerprint
    assert before.trained_on.endswith("lm of lm as published, the rest is random")


def test_the_folders_weights_are_part_of_the_models_identity(tmp_path: Path) -> None:
    folder = save_lm(tmp_path / "lm", "mamba")
    before = make(weights="random", lm=folder).describe().weights_sha256
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert make(weights="random", lm=folder).describe().weights_sha256 != before


def test_a_folder_without_a_tokenizer_is_an_error_that_names_the_option(tmp_path: Path) -> None:
    folder = save_lm(tmp_path / "lm", "mamba")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UsageError, match=rf"holds no tokenizer.* \(-m lm={folder}\)"):
        make(weights="random", lm=folder).load("cpu", "float32")


def test_a_folder_without_a_model_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no language model: there is no config\.json"):
        make(weights="random", lm=tmp_path).load("cpu", "float32")


def test_no_weights_is_an_error_that_says_what_to_give() -> None:
    with pytest.raises(UsageError, match=r"ssalm:130m comes without weights\. Give them with -m weights=PATH"):
        make().load("cpu", "float32")


def test_a_released_encoder_is_what_hears(tmp_path: Path) -> None:
    torch.manual_seed(1)
    released = DassEncoder(DASS_SMALL)
    path = tmp_path / "DASS_small.safetensors"
    save_file({f"module.v.{name}": tensor for name, tensor in released.state_dict().items()}, path)
    parts = Published("dass-small", "conv", "", "window", False, path, save_lm(tmp_path / "lm", "mamba"))
    hearing = build_published(parts, "cpu", torch.float32).hear
    found = hearing.encoder.state_dict()
    assert not [name for name in found if "head" in name]
    assert all(torch.equal(tensor, released.state_dict()[name]) for name, tensor in found.items())


def test_an_encoder_file_of_something_else_is_one_clear_error(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    model = make(weights="random", encoder_weights=tmp_path / "x.safetensors", lm=save_lm(tmp_path / "lm", "mamba"))
    with pytest.raises(UsageError, match="These are not weights of DASS"):
        model.load("cpu", "float32")


def test_only_the_adapters_of_the_language_model_are_trained(lm_folder: Path) -> None:
    network = make(weights="random", lm=lm_folder).start_training(None, "cpu")
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert all(name.startswith("hear.") or "lora_" in name for name in trained)
    assert any("lora_" in name for name in trained)


def test_training_does_not_begin_from_a_random_language_model_unasked() -> None:
    with pytest.raises(UsageError, match="needs a language model: -m lm=FOLDER, or -m weights=random"):
        make().start_training(None, "cpu")
