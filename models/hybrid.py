"""Hybrid-LALM: DASS audio encoder and LLaMA language model (arXiv 2411.15685)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from harness.contracts import TrainableModel
from models._cells import Cell, Choices, Connector, DecodingName, Scan, make_lalm

CELL = Cell("hybrid", hear="dass", speak="llama", sizes={"7b": "llama-7b"})
Variant = Literal["tiny", "7b"]


def hybrid(
    variant: Variant = "tiny",
    weights: str | None = None,
    max_new_tokens: int | None = None,
    length_policy: Literal["window", "full", "first_10_24s"] = "window",
    decoding: DecodingName = "greedy",
    scan: Scan = "auto",
    seed: int = 0,
    encoder: Literal["small", "medium"] | None = None,
    encoder_weights: Path | None = None,
    lm: Path | None = None,
    connector: Connector | None = None,
    lora: bool | None = None,
) -> TrainableModel:
    """State-space encoder, transformer language model.

    The last five options are of the published sizes alone.

    Args:
        variant: "tiny" has 1.7 M parameters; "7b" is the published size. Neither has weights here yet.
        weights: a safetensors file of this harness, or a stage's folder of `train`, instead of the shipped one; or
            "random" for seeded random weights, which measure cost and nothing else.
        max_new_tokens: the longest answer; 32, or 400 with decoding=ltu.
        length_policy: "window" hears up to 81.92 s in one pass and longer clips in windows that overlap; "full" hears
            any clip up to 600 s in one pass; "first_10_24s" is LTU's cut.
        decoding: "greedy", or LTU's published sampling, whose answers differ with the seed and not with the batch.
        scan: the implementation of the selective scan; "auto" takes the fastest that runs.
        seed: of random weights and of sampling.
        encoder: DASS "small" or "medium"; small unless said.
        encoder_weights: a released file of DASS.
        lm: a folder in transformers' layout with the language model and its tokenizer; any supported family.
        connector: "conv" (ssLALM), "pool" (LTU) or "concat" (SAM); conv unless said.
        lora: low-rank adapters on the language model; true unless said.
    """
    choices = Choices(
        variant=variant,
        weights=weights,
        max_new_tokens=max_new_tokens,
        length_policy=length_policy,
        decoding=decoding,
        scan=scan,
        seed=seed,
        encoder=encoder,
        encoder_weights=encoder_weights,
        lm=lm,
        connector=connector,
        lora=lora,
    )
    return make_lalm(CELL, choices)
