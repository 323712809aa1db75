"""The four audio language models as one table: encoder by language model, and the options that all of them share.

A model's own file names its two halves, its sizes and its options; what these come to is decided here, and answered
by `LalmAdapter`, so that a difference in results is a difference of networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import OptionError
from models._lalm import TINY, Decoding, LalmAdapter, LalmSpec, Sources
from models.nn.sampling import LTU_MAX_NEW_TOKENS, LTU_SAMPLING

if TYPE_CHECKING:
    from models.nn.features import Normalisation
    from models.nn.lalm import AudioLanguageModel

Hear = Literal["dass", "ast"]
Speak = Literal["mamba", "llama"]
Connector = Literal["conv", "pool", "concat"]
DecodingName = Literal["greedy", "ltu"]
Scan = Literal["auto", "ref", "torch", "numba", "triton", "mamba_ssm"]

# What `weights=` takes besides a path.
RANDOM = "random"
GREEDY_MAX_NEW_TOKENS = 32
TINY_FRAMES = 512
TINY_TOKENS_PER_S = 3.125
# 10.24 s: LTU and DASS were trained on it, and pad to it.
PUBLISHED_FRAMES = 1024
# Policies that hear a whole clip in one pass need memory for all of it.
ONE_PASS_LIMIT_S = 600.0
_POLICIES: Mapping[tuple[str, str], str] = {
    ("dass", "full"): "one pass over the whole clip",
    ("dass", "window"): "one pass up to 81.92 s, then windows of that length that overlap by 20.48 s",
    ("ast", "window"): "one encoder pass after another, tokens in order",
    ("ast", "interpolate"): "one pass, positions stretched over the whole clip",
    ("dass", "first_10_24s"): "LTU's cut, the rest is not heard",
    ("ast", "first_10_24s"): "LTU's cut, the rest is not heard",
}
_ENCODERS: Mapping[tuple[str, str], str] = {
    ("dass", "tiny"): "DASS encoder",
    ("dass", "small"): "DASS-small encoder",
    ("dass", "medium"): "DASS-medium encoder",
    ("ast", "tiny"): "AST encoder",
    ("ast", "ltu"): "LTU's AST encoder",
    ("ast", "ast"): "stock AST encoder",
}
_CONNECTORS = {"conv": "stride-2 convolution", "pool": "LTU pooling", "concat": "concatenated frequencies"}
_LANGUAGE_MODELS = {"mamba": "Mamba language model", "llama": "LLaMA language model"}
_OWN_CONNECTOR: Mapping[str, Connector] = {"dass": "conv", "ast": "pool"}
_OWN_ENCODER = {"dass": "small", "ast": "ltu"}


@dataclass(frozen=True)
class Cell:
    """One square of the 2x2: a model's name, its two halves, and which language model each published size has."""

    name: str
    hear: Hear
    speak: Speak
    sizes: Mapping[str, str]


@dataclass(frozen=True)
class Choices:
    """The options of a model, as its function takes them; None stands for what the model would choose."""

    variant: str
    weights: str | None
    max_new_tokens: int | None
    length_policy: str
    decoding: DecodingName
    scan: Scan
    seed: int
    encoder: str | None
    encoder_weights: Path | None
    lm: Path | None
    connector: Connector | None
    lora: bool | None


# Options that only the published sizes have: a tiny model's parts are fixed, and its weights are one file.
PUBLISHED_ONLY = ("encoder", "encoder_weights", "lm", "connector", "lora")


def make_lalm(cell: Cell, choices: Choices) -> LalmAdapter:
    """The adapter of one model with its options.

    Raises:
        OptionError: an option that this variant does not have, or a path where nothing is.
    """
    return LalmAdapter(_tiny_spec(cell, choices) if choices.variant == TINY else _published_spec(cell, choices))


def _tiny_spec(cell: Cell, choices: Choices) -> LalmSpec:
    for option in PUBLISHED_ONLY:
        if getattr(choices, option) is not None:
            raise OptionError(f"'{option}' is an option of the published sizes; {cell.name}:{TINY} is made as it is")
    connector = _CONNECTORS[_OWN_CONNECTOR[cell.hear]]
    return LalmSpec(
        summary=f"{_ENCODERS[cell.hear, TINY]}, {connector}, {_LANGUAGE_MODELS[cell.speak]}",
        build=partial(_build_tiny, cell, choices.length_policy),
        normalisation=partial(_tiny_normalisation, cell.hear),
        min_frames=TINY_FRAMES,
        audio_tokens_per_s=TINY_TOKENS_PER_S,
        **_common(cell, choices),
    )


def _published_spec(cell: Cell, choices: Choices) -> LalmSpec:
    for option, path in (("encoder_weights", choices.encoder_weights), ("lm", choices.lm)):
        if path is not None and not (path.is_dir() if option == "lm" else path.exists()):
            raise OptionError(f"-m {option}={path}: there is no such {'folder' if option == 'lm' else 'file'}")
    encoder = choices.encoder or _OWN_ENCODER[cell.hear]
    connector = choices.connector or _OWN_CONNECTOR[cell.hear]
    has_lora = choices.lora is not False
    lm = f"the language model in {choices.lm.name}" if choices.lm else cell.sizes[choices.variant]
    return LalmSpec(
        summary=f"{_ENCODERS[cell.hear, encoder]}, {_CONNECTORS[connector]}, {lm}{' with LoRA' if has_lora else ''}",
        build=partial(_build_published, cell, choices, encoder, connector, has_lora),
        normalisation=partial(_normalisation, "dass" if encoder == "ast" else cell.hear),
        min_frames=PUBLISHED_FRAMES,
        audio_tokens_per_s=None,
        **_common(cell, choices),
    )


def _common(cell: Cell, choices: Choices) -> dict[str, Any]:
    """What a spec says alike for every size."""
    is_random = choices.weights == RANDOM
    policy = choices.length_policy
    return {
        "name": cell.name,
        "variant": choices.variant,
        "length_policy": f"{policy}: {_POLICIES[cell.hear, policy]}",
        "max_audio_s": ONE_PASS_LIMIT_S if policy in ("full", "interpolate") else None,
        "decoding": _decoding(choices),
        "sources": Sources(
            weights=Path(choices.weights) if choices.weights and not is_random else None,
            encoder=choices.encoder_weights,
            lm=choices.lm,
            is_random=is_random,
            seed=choices.seed,
        ),
        "scan": choices.scan,
    }


def _decoding(choices: Choices) -> Decoding:
    if choices.decoding == "ltu":
        return Decoding("ltu", _or(choices.max_new_tokens, LTU_MAX_NEW_TOKENS), LTU_SAMPLING, choices.seed)
    return Decoding("greedy", _or(choices.max_new_tokens, GREEDY_MAX_NEW_TOKENS))


def _or(given: int | None, default: int) -> int:
    return default if given is None else given


def _normalisation(hear: str) -> Normalisation:
    """Stock AST was trained on the same one as DASS."""
    from models.nn.features import DASS_NORMALISATION, LTU_NORMALISATION

    return DASS_NORMALISATION if hear == "dass" else LTU_NORMALISATION


def _tiny_normalisation(hear: str) -> Normalisation:
    """The published one, but that a short clip goes on in silence, as every clip of the recipe does."""
    return replace(_normalisation(hear), pads_with_silence=True)


def _build_tiny(cell: Cell, policy: str, device: str, dtype: str) -> AudioLanguageModel:
    """In float32 on the CPU, so that random weights are the same for every device and type; or on meta."""
    import torch

    from models.nn.tiny import tiny

    with torch.device("meta" if device == "meta" else "cpu"):
        return tiny(cell.hear, cell.speak, policy)


def _build_published(
    cell: Cell, choices: Choices, encoder: str, connector: Connector, has_lora: bool, device: str, dtype: str
) -> AudioLanguageModel:
    import torch

    from models.nn.published import Published, build_published

    parts = Published(
        encoder=f"dass-{encoder}" if cell.hear == "dass" else encoder,  # type: ignore[arg-type]
        connector=connector,
        lm=cell.sizes[choices.variant],
        length_policy=choices.length_policy,
        has_lora=has_lora,
        encoder_file=choices.encoder_weights,
        lm_folder=choices.lm,
    )
    return build_published(parts, device, getattr(torch, dtype))
