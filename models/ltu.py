"""LTU: patch transformer encoder with LTU's pooling, and LLaMA language model (arXiv 2305.10790)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from harness.contracts import TrainableModel
from models._cells import Cell, Choices, Connector, DecodingName, make_lalm

CELL = Cell("ltu", hear="ast", speak="llama", sizes={"7b": "llama-7b", "13b": "llama-13b"})
Variant = Literal["tiny", "7b", "13b"]


def ltu(
    variant: Variant = "tiny",
    weights: str | None = None,
    max_new_tokens: int | None = None,
    length_policy: Literal["window", "interpolate", "first_10_24s"] = "window",
    decoding: DecodingName = "greedy",
    seed: int = 0,
    encoder: Literal["ltu", "ast"] | None = None,
    encoder_weights: Path | None = None,
    lm: Path | None = None,
    connector: Connector | None = None,
    lora: bool | None = None,
) -> TrainableModel:
    """Transformer encoder and language model.

    The last five options are of the published sizes alone.

    Args:
        variant: "tiny" has 1.7 M parameters and its weights here; "7b" and "13b" are published sizes, and have none.
        weights: a safetensors file of this harness, or a stage's folder of `train`, instead of the shipped one; or
            "random" for seeded random weights, which measure cost and nothing else.
        max_new_tokens: the longest answer; 32, or 400 with decoding=ltu.
        length_policy: "window" hears one encoder pass after another; "interpolate" stretches the positions over a clip
            of up to 600 s; "first_10_24s" is LTU's cut.
        decoding: "greedy", or LTU's published sampling, whose answers differ with the seed and not with the batch.
        seed: of random weights and of sampling.
        encoder: "ltu", the audio branch of CAV-MAE as in LTU, or "ast", the stock AST of transformers; ltu unless said.
        encoder_weights: a released checkpoint of LTU, or a folder or file of stock AST.
        lm: a folder in transformers' layout with the language model and its tokenizer; any supported family.
        connector: "conv" (ssLALM), "pool" (LTU) or "concat" (SAM); pool unless said.
        lora: low-rank adapters on the language model; true unless said.
    """
    choices = Choices(
        variant=variant,
        weights=weights,
        max_new_tokens=max_new_tokens,
        length_policy=length_policy,
        decoding=decoding,
        scan="auto",
        seed=seed,
        encoder=encoder,
        encoder_weights=encoder_weights,
        lm=lm,
        connector=connector,
        lora=lora,
    )
    return make_lalm(CELL, choices)
