"""The cost of a `LalmAdapter`: its own way of answering with a meter at the seams, a training step, and the formulas.

Nothing of the way that an answer takes is written again here. For the time of one call, the methods through which
audio and text go from part to part are wrapped, so that the meter hears of each change; long audio changes part with
every block. What answers and what is measured cannot drift apart.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from harness.contracts import AudioClip, Component, Meter, Query, StateBytes, TrainingExample, Work
from harness.errors import ItemError, ModelLimitError

if TYPE_CHECKING:
    import torch

    from models._lalm import LalmAdapter
    from models.nn.work import Operations

Item = TypeVar("Item")
# No token has this number, so no answer ends before its length.
NO_END = -1


def answer_metered(
    adapter: LalmAdapter, clips: Sequence[AudioClip], prompt: str, n_answer_tokens: int, meter: Meter
) -> list[list[int]]:
    """`CostedModel.answer_metered` by `adapter.answer`.

    Raises:
        ItemError: a clip cannot be answered; a ModelLimitError where the model does not take it.
    """
    queries = [Query(str(index), clip, prompt) for index, clip in enumerate(clips)]
    said: dict[int, list[int]] = {}
    with _metered(adapter, meter, n_answer_tokens, said):
        meter.enter("front_end")
        answers = adapter.answer(queries)
    for answer in answers:
        if answer.error is not None:
            kind, _, reason = answer.error.partition(": ")
            raise ModelLimitError(reason) if kind == ModelLimitError.__name__ else ItemError(answer.error)
    return [said[index] for index in range(len(clips))]


@contextlib.contextmanager
def _metered(adapter: LalmAdapter, meter: Meter, n_tokens: int, said: dict[int, list[int]]) -> Iterator[None]:
    """The adapter with the meter at its seams; token ids of each query end up in `said`, by its index."""
    network = adapter._require_network()
    hear, reading, streaming, generate, speak = (
        network.hear,
        network.read,
        network.read_stream,
        network.generate,
        adapter._speak,
    )
    encode: Any = hear.encode_stream
    indices: list[int] = []

    def encode_stream(blocks: Iterable[Any]) -> Iterator[Any]:
        return _in_turns(encode(_in_turns(blocks, "front_end", "encoder", meter)), "encoder", "connector", meter)

    def read(*args: Any) -> Any:
        meter.enter("prefill")
        return reading(*args)

    def read_stream(chunks: Iterable[Any], *args: Any) -> Any:
        return streaming(_in_turns(chunks, "connector", "prefill", meter), *args)

    def speak_of(reads: Sequence[Any], *args: Any) -> Any:
        indices[:] = [read.clip.index for read in reads]
        return speak(reads, *args)

    def generate_all(last: Any, cache: Any, end_id: int, max_new_tokens: int, choose: Any) -> Any:
        rows = generate(last, cache, NO_END, n_tokens, _announced(meter))
        said.update(zip(indices, rows, strict=True))
        return rows

    wrapped: list[tuple[object, str, Callable[..., Any]]] = [
        (hear, "encode_stream", encode_stream),
        (network, "read", read),
        (network, "read_stream", read_stream),
        (network, "generate", generate_all),
        (adapter, "_speak", speak_of),
    ]
    with contextlib.ExitStack() as stack:
        for owner, name, function in wrapped:
            stack.enter_context(_replaced(owner, name, function))
        yield


@contextlib.contextmanager
def _replaced(owner: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """The owner's method replaced for this one object."""
    setattr(owner, name, function)
    try:
        yield
    finally:
        delattr(owner, name)


def _in_turns(items: Iterable[Item], inside: Component, after: Component, meter: Meter) -> Iterator[Item]:
    """The same items; the meter hears that each is made `inside`, and that work goes on in `after` with it.

    Asked for the next item, `inside` may in turn ask for its own input: the meter then hears of very short turns.
    """
    iterator = iter(items)
    while True:
        meter.enter(inside)
        try:
            item = next(iterator)
        except StopIteration:
            meter.enter(after)
            return
        meter.enter(after)
        yield item


def _announced(meter: Meter) -> Callable[[torch.Tensor], torch.Tensor]:
    """Greedy choice that tells of each token when it is known on the host; the first one ends the prefill."""
    from models.nn.generation import greedy

    is_first = True

    def choose(logits_BV: torch.Tensor) -> torch.Tensor:
        nonlocal is_first
        ids_B = greedy(logits_BV)
        ids_B.tolist()  # waits for the device
        meter.token()
        if is_first:
            meter.enter("decode")
            is_first = False
        return ids_B

    return choose


def train_step(adapter: LalmAdapter, clips: Sequence[AudioClip], prompt: str, answer: str, meter: Meter) -> float:
    """`CostedModel.train_step`: whole clips, of one length, where a training's own step hears only a part of each."""
    network = adapter._require_network()
    was_training = network.training
    network.train()
    try:
        meter.enter("front_end")
        features = _whole_features(adapter, clips)
        with _heard(adapter, meter), adapter._scanning():
            examples = [TrainingExample(clip.samples, prompt, ((answer, 1.0),)) for clip in clips]
            loss = adapter._losses(features, examples)["text"]
            loss.backward()
        return float(loss.detach())
    finally:
        network.zero_grad(set_to_none=True)
        network.train(was_training)


def _whole_features(adapter: LalmAdapter, clips: Sequence[AudioClip]) -> torch.Tensor:
    """Features of clips of one length, shape (B, T, M), padded as for an answer."""
    import torch

    from models.nn.features import fbank, normalise, pad_frames

    hear, spec = adapter._require_network().hear, adapter.spec
    rows = []
    for clip in clips:
        log_mel = fbank(torch.from_numpy(clip.samples))
        n_padded = max(spec.min_frames, hear.padded_frames(len(log_mel)))
        how = spec.normalisation()
        rows.append(normalise(pad_frames(log_mel, n_padded, how), how))
    return torch.stack(rows).to(device=adapter._device, dtype=adapter._dtype())


@contextlib.contextmanager
def _heard(adapter: LalmAdapter, meter: Meter) -> Iterator[None]:
    """The meter at the seams of training: forward by calls, backward by the gradients that arrive there."""
    network = adapter._require_network()
    hear, losses = network.hear, network.answer_losses
    encoding, connecting = hear.encode, hear.connect

    def encode(features: torch.Tensor) -> torch.Tensor:
        meter.enter("encoder")
        return _told_backwards(encoding(features), "encoder", meter)

    def connect(encoded: torch.Tensor) -> torch.Tensor:
        meter.enter("connector")
        return _told_backwards(connecting(encoded), "connector", meter)

    def answer_losses(*args: Any) -> torch.Tensor:
        meter.enter("prefill")
        return losses(*args)

    with (
        _replaced(hear, "encode", encode),
        _replaced(hear, "connect", connect),
        _replaced(network, "answer_losses", answer_losses),
    ):
        yield


def _told_backwards(x: torch.Tensor, component: Component, meter: Meter) -> torch.Tensor:
    """x; when its gradient is there, what made it goes on with the backward pass."""
    if x.requires_grad:
        x.register_hook(lambda gradient: meter.enter(component))
    return x


def work(
    adapter: LalmAdapter, n_samples: int, prompt: str, n_answer_tokens: int, n_clips: int
) -> Mapping[Component, Work]:
    """`CostedModel.work`: the formulas of `models/nn` on this network's sizes, or on those of its outline.

    Raises:
        ModelLimitError: the model does not take audio of that length.
    """
    from models.nn.hearing_work import hearing_work
    from models.nn.lm_work import reading_work, speaking_work

    spec, network = adapter.spec, adapter._network or adapter._outline()
    _check_length(adapter, n_samples)
    streams = adapter._streams(n_samples)
    heard = hearing_work(network.hear, n_samples, spec.min_frames, streams)
    if not hasattr(adapter, "_text"):
        adapter._read_text()
    n_prompt = len(adapter._text.prompt_ids(prompt))
    chunks = _regrouped(heard.chunks) + [n_prompt] if streams else [sum(heard.chunks) + n_prompt]
    by_component: dict[Component, Operations] = {
        "front_end": heard.front_end,
        "encoder": heard.encoder,
        "connector": heard.connector,
        "prefill": reading_work(network.lm, chunks),
        "decode": speaking_work(network.lm, sum(chunks), n_answer_tokens - 1),
    }
    return {component: _as_work(operations.times(n_clips)) for component, operations in by_component.items()}


def _check_length(adapter: LalmAdapter, n_samples: int) -> None:
    limit, duration_s = adapter.spec.max_audio_s, n_samples / adapter.sample_rate_hz
    if limit is not None and duration_s > limit:
        raise ModelLimitError(f"{duration_s:.1f} s of audio; {adapter.spec.full_name} takes at most {limit:.0f} s")


def _regrouped(chunks: Sequence[int]) -> list[int]:
    """Lengths of what `streaming.regroup` makes of chunks of tokens."""
    from models.nn.lalm import TOKENS_AT_ONCE

    groups, held = [], 0
    for n in chunks:
        held += n
        if held >= TOKENS_AT_ONCE:
            groups.append(held)
            held = 0
    return [*groups, held] if held else groups


def _as_work(operations: Operations) -> Work:
    return Work(
        flops=operations.flops,
        macs=operations.macs,
        other=operations.other,
        parts={**operations.parts, **operations.equivalents},
    )


def state_bytes(adapter: LalmAdapter, n_tokens: int) -> StateBytes:
    """`CostedModel.state_bytes`, in the type that the model was loaded in; in float32 where it was not."""
    from models.nn.lm_work import kept_bytes

    network = adapter._network or adapter._outline()
    kept = kept_bytes(network.lm, n_tokens, next(network.parameters()).dtype)
    return StateBytes(growing=kept.growing, constant=kept.constant)
