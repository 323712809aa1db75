"""The adapter that every audio language model of ours shares: features, batching, answering, scoring, training.

A model's own file says which network to build and how its encoder wants its input (`LalmSpec`); everything below is
the same for both families, so that a difference in results is a difference of networks.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.contracts import (
    TEACHER_FLOOR,
    Answer,
    AudioClip,
    Component,
    Meter,
    ModelDescription,
    OptionValue,
    Query,
    Question,
    StateBytes,
    TrainingExample,
    Work,
)
from harness.errors import ItemError, OptionError, UsageError
from harness.foreign import pass_over_broken_torchaudio
from harness.hashing import file_sha256
from models._trained_folder import fill_from_folder, read_folder_header
from models._weights_files import (
    TOKENIZER_FILE,
    WEIGHTS_FOLDER,
    WeightsFile,
    combined_sha256,
    folder_sha256,
    read_weights_header,
    tokenizer_hash,
)
from models.nn.sampling import Sampling

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from models.nn.features import Normalisation
    from models.nn.lalm import AudioLanguageModel
    from models.nn.text import TextCodec

SAMPLE_RATE_HZ = 16_000
TINY = "tiny"
# What a training adds to the network beside what is saved.
TEACHER_HEAD = "teacher_head"
# Every label of a 50-way task after every clip of a batch holds a copy of that clip's cache. So many candidate answers
# go through the language model together, and fewer where the caches are large.
ANSWERS_AT_ONCE = 512
CACHE_BYTES_AT_ONCE = 256 * 2**20


@dataclass(frozen=True)
class Decoding:
    """How an answer is made: greedily where `sampling` is None. `seed` and an item's id begin its random numbers."""

    name: str
    max_new_tokens: int
    sampling: Sampling | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise OptionError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}")

    def as_record(self) -> dict[str, OptionValue]:
        """What a record must tell of it."""
        record: dict[str, OptionValue] = {"decoding": self.name, "max_new_tokens": self.max_new_tokens}
        return record if self.sampling is None else {**record, **asdict(self.sampling), "seed": self.seed}


@dataclass(frozen=True)
class Sources:
    """Where weights come from. What no file gives is drawn from `seed` where `is_random`, and else cannot be had.

    `weights` is a file that `LalmAdapter.save` wrote, or a folder of `save_trained`; `encoder` holds a published
    encoder; `lm` is the folder of a language model with its tokenizer, in transformers' layout.
    """

    weights: Path | None = None
    encoder: Path | None = None
    lm: Path | None = None
    is_random: bool = False
    seed: int = 0


@dataclass(frozen=True)
class LalmSpec:
    """What distinguishes one model from another.

    `build` makes the network on a device of torch, in a floating type by torch's name, with random weights but for
    those that `sources` names a published file of; `normalisation` says what the encoder was trained on; both import
    torch and so are functions. `max_audio_s` is the longest clip that `length_policy` can take, None when any will do;
    shorter ones are padded to `min_frames`. `audio_tokens_per_s` is None where the network must be asked. `scan` names
    the backend of the selective scan.
    """

    name: str
    variant: str
    summary: str
    build: Callable[[str, str], AudioLanguageModel]
    normalisation: Callable[[], Normalisation]
    length_policy: str
    max_audio_s: float | None
    min_frames: int
    audio_tokens_per_s: float | None
    decoding: Decoding
    sources: Sources
    scan: str = "auto"

    @property
    def full_name(self) -> str:
        """As it is typed, such as "ssalm:tiny"."""
        return f"{self.name}:{self.variant}"


def _error_text(error: Exception) -> str:
    """As `Answer.error` has it."""
    return f"{type(error).__name__}: {error}"


def _check_device(device: str) -> None:
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter from a build without CUDA
        reason = (str(error).splitlines() or [""])[0]
        raise UsageError(f"The device '{device}' cannot be used: {reason}") from error


class LalmAdapter:
    """A `TrainableModel` around an `AudioLanguageModel`."""

    sample_rate_hz = SAMPLE_RATE_HZ

    def __init__(self, spec: LalmSpec) -> None:
        self.spec = spec
        self.name = spec.name
        self._weights: WeightsFile | None = None
        self._sources_sha256: str | None = None
        self._network: AudioLanguageModel | None = None
        self._sketch: AudioLanguageModel | None = None
        self._device = "cpu"

    # --- ModelAdapter -------------------------------------------------------------------------------------------------

    def load(self, device: str, dtype: str) -> None:
        """Build the network and read its weights.

        Raises:
            UsageError: the weights are missing, unreadable or of another model; the dtype is not a floating type; the
                scan that was asked for cannot run here.
        """
        import torch

        torch_dtype = getattr(torch, dtype, None)
        if not isinstance(torch_dtype, torch.dtype) or not torch_dtype.is_floating_point:
            raise UsageError(f"'{dtype}' is no floating type of torch; use float32, bfloat16 or float16")
        _check_device(device)
        missing = self.missing()
        if missing:
            raise UsageError(missing)
        self._weights, self._sources_sha256 = self._read_header(), None
        try:
            with torch.random.fork_rng(enabled=self.spec.sources.is_random):
                if self.spec.sources.is_random:
                    torch.manual_seed(self.spec.sources.seed)
                network = self._build(device, dtype)
        except ValueError as error:
            raise UsageError(f"{self.spec.full_name} cannot be built: {error}") from error
        if self._weights is not None:
            self._fill(network, self._weights)
        self._network = network.to(device=device, dtype=torch_dtype).eval()
        self._device = device
        self._read_text()
        self.kernels_on(device, dtype)  # a scan that cannot run here is told now, not at every item

    def answer(self, queries: Sequence[Query]) -> Sequence[Answer]:
        """Answers, and label scores where a query names labels."""
        import torch

        answers: dict[int, Answer] = {}
        with torch.inference_mode(), self._scanning():
            clips = [self._hear(query, index) for index, query in enumerate(queries)]
            for clip in clips:
                if clip.error is not None:
                    answers[clip.index] = Answer(text="", error=clip.error)
                elif clip.features is None:
                    answers[clip.index] = self._answer_long(clip.index, queries)
            short = [clip for clip in clips if clip.features is not None]
            tokens = self._encode(short)
            for labels in dict.fromkeys(queries[clip.index].labels for clip in short):
                group = [clip for clip in short if queries[clip.index].labels == labels]
                answers.update(self._answer_group(group, [tokens[clip.index] for clip in group], queries, labels))
        return [answers[index] for index in range(len(queries))]

    def describe(self) -> ModelDescription:
        """Facts for the record. Torch is not imported where the header of a file of weights tells the parameters."""
        spec = self.spec
        # Hashed here and once more by load, not at every description: a file of weights may hold many gigabytes.
        self._weights = self._weights or self._read_header()
        weights_sha256 = self._hash_of_sources()
        generation = spec.decoding.as_record()
        decides = [spec.name, spec.variant, spec.summary, spec.length_policy, generation, weights_sha256]
        parameters, trainable = self._parameters()
        return ModelDescription(
            name=spec.name,
            variant=spec.variant,
            summary=spec.summary,
            parameters=parameters,
            sample_rate_hz=SAMPLE_RATE_HZ,
            audio_tokens_per_s=spec.audio_tokens_per_s or self._tokens_per_s(),
            length_policy=spec.length_policy,
            weights_sha256=weights_sha256,
            generation=generation,
            kernels={} if self._network is None else self._kernels(self._device, self._dtype()),
            fingerprint=hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest(),
            can_score_labels=True,
            max_audio_s=spec.max_audio_s,
            trained_on=self._trained_on(),
            trainable_parameters=trainable,
        )

    def close(self) -> None:
        """Drop the network."""
        self._network = None

    # --- InspectableModel ---------------------------------------------------------------------------------------------

    def missing(self) -> str:
        """What `load` needs and does not find; a path that was given is `load`'s to complain of."""
        sources, shipped = self.spec.sources, self._shipped_path()
        if sources.is_random or sources.weights is not None or (shipped is not None and shipped.is_file()):
            return ""
        hint = "Give them with -m weights=PATH, or -m weights=random to measure cost alone."
        if shipped is None:
            return f"{self.spec.full_name} comes without weights. {hint}"
        return f"The weights {shipped} cannot be read: there is no such file. {hint}"

    def kernels_on(self, device: str, dtype: str) -> Mapping[str, str]:
        """Which implementations would run there.

        Raises:
            UsageError: the scan that was asked for cannot run there.
        """
        import torch

        try:
            return self._kernels(device, getattr(torch, dtype))
        except ValueError as error:
            raise UsageError(f"{self.spec.full_name} cannot run with scan={self.spec.scan}: {error}") from error

    # --- TrainableModel -----------------------------------------------------------------------------------------------

    def start_training(self, teacher_prior: npt.NDArray[np.float32] | None, device: str) -> Any:
        """A network with fresh weights, in float32, and a head for the teacher's scores that is not saved.

        The head hears the encoder's output over time, its frequencies averaged.
        """
        import torch
        from torch import nn

        if self.spec.sources.weights is not None:
            raise UsageError("Training begins with fresh weights: leave out -m weights=")
        _check_device(device)
        network = self._build()
        self._read_text()
        self._device = device
        if teacher_prior is not None:
            head = nn.Linear(network.hear.width, len(teacher_prior))
            # Nearly all scores are near zero. A head that begins far from the teacher's mean log-odds drives the
            # encoder at first, step after step in one direction, to where every clip looks alike, and DASS has then
            # taken up to a thousand steps to come back. So it begins at them (after RetinaNet's prior, arXiv
            # 1708.02002, section 3.3). Zeros in place of what was drawn: two models with one encoder learn to hear in
            # the very same steps.
            nn.init.zeros_(head.weight)
            with torch.no_grad():
                head.bias.copy_(torch.from_numpy(teacher_prior))
            network.add_module(TEACHER_HEAD, head)
        self._network = network.to(device)
        return self._network

    def losses(self, examples: Sequence[TrainingExample]) -> Mapping[str, Any]:
        """Means over the batch: "text" (nats per answer token) where there are answers; and where there is a teacher,
        "teacher" (nats for each moment that it heard) and "teacher_logits" (squared error of its log-odds).

        An example with several answers counts each by its weight: the label of a mixture is the mixture of labels.
        """
        import torch

        with self._scanning():
            return self._losses(torch.stack([self._training_features(example) for example in examples]), examples)

    def _losses(self, features_BTM: torch.Tensor, examples: Sequence[TrainingExample]) -> dict[str, Any]:
        import torch

        network = self._require_network()
        encoded = network.hear.encode(features_BTM)
        losses: dict[str, Any] = {}
        if any(example.answers for example in examples):
            questions = [Question(example.prompt, example.answers) for example in examples]
            losses["text"] = self._text_loss(network.hear.connect(encoded), questions)
        if all(example.teacher_scores is not None for example in examples):
            targets = torch.stack([torch.as_tensor(e.teacher_scores).float() for e in examples]).to(encoded.device)
            losses |= self._teacher_losses(network.hear.timeline(encoded), targets)
        return losses

    def encode(self, examples: Sequence[TrainingExample]) -> npt.NDArray[np.float16]:
        """The encoder's maps of examples, shape (B, F, T, C): what the connector takes."""
        import torch

        with self._scanning():
            features = torch.stack([self._training_features(example) for example in examples])
            encoded: npt.NDArray[np.float16] = self._require_network().hear.encode(features).half().cpu().numpy()
        return encoded

    def answering_losses(self, encoded: npt.NDArray[np.float16], questions: Sequence[Question]) -> Mapping[str, Any]:
        """The mean "text" loss of `losses`, from what `encode` gave."""
        import torch

        with self._scanning():
            maps = torch.from_numpy(encoded).to(self._device).float()
            return {"text": self._text_loss(self._require_network().hear.connect(maps), questions)}

    def _text_loss(self, audio: torch.Tensor, examples: Sequence[Question]) -> torch.Tensor:
        import torch

        rows = [(i, answer, weight) for i, e in enumerate(examples) for answer, weight in e.answers]
        losses_N = self._require_network().answer_losses(
            audio[torch.tensor([i for i, *_ in rows], device=audio.device)],
            [self._text.prompt_ids(examples[i].prompt) for i, *_ in rows],
            [self._text.answer_ids(answer) for _, answer, _ in rows],
        )
        weights_N = torch.tensor([weight for *_, weight in rows], device=audio.device)
        return (losses_N * weights_N).sum() / len(examples)

    def _teacher_losses(self, timeline_BTC: torch.Tensor, targets_BTS: torch.Tensor) -> dict[str, Any]:
        """How far the teacher's scores, shape (B, T', S), are from what the head makes of the encoder's output."""
        import torch
        from torch.nn import functional

        moments_BCT = functional.adaptive_avg_pool1d(timeline_BTC.transpose(1, 2), targets_BTS.shape[1])
        logits_BTS = self._require_network().get_submodule(TEACHER_HEAD)(moments_BCT.transpose(1, 2)).float()
        # Summed over classes: nearly all of the 521 targets are near zero, and a mean would drown the few.
        summed = functional.binary_cross_entropy_with_logits(logits_BTS, targets_BTS, reduction="sum")
        # Log-odds tell how far from each class the rest are, which scores near zero hide.
        wanted_BTS = torch.logit(targets_BTS.clamp(TEACHER_FLOOR, 1 - TEACHER_FLOOR))
        return {
            "teacher": summed / (targets_BTS.shape[0] * targets_BTS.shape[1]),
            "teacher_logits": functional.mse_loss(logits_BTS, wanted_BTS),
        }

    def save(self, path: Path, trained_on: str) -> None:
        """Write the weights in half precision, with what `describe` needs in the header."""
        from safetensors.torch import save_file

        network = self._require_network()
        kept = {name: t for name, t in network.state_dict().items() if name.partition(".")[0] != TEACHER_HEAD}
        # A weight that two modules share is kept once, under its first name.
        owners = {tensor.data_ptr(): name for name, tensor in reversed(kept.items())}
        kept = {name: tensor for name, tensor in kept.items() if owners[tensor.data_ptr()] == name}
        metadata = {
            "model": self.spec.name,
            "variant": self.spec.variant,
            "parameters": json.dumps(network.parameter_counts()),
            "tokenizer_sha256": self._tokenizer_sha256(),
            "trained_on": trained_on,
        }
        save_file({name: tensor.detach().half().cpu().contiguous() for name, tensor in kept.items()}, path, metadata)

    # --- CurriculumModel (harness/curriculum.py) ----------------------------------------------------------------------

    def start_stages(self, lora_dropout: float, precision: str, is_recomputed: bool, device: str) -> Any:
        """The network with the weights that the options name, a LoRA on its language model, and nothing learning."""
        from models._staged import start

        return start(self, lora_dropout, precision, is_recomputed, device)

    def train_parts(self, parts: Sequence[str]) -> Mapping[str, int]:
        """Let these parts learn, of "encoder", "connector" and "lora", and no other; parameters of each."""
        from models._staged import train_parts

        return train_parts(self._require_network(), parts)

    def features(self, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """What the encoder is given of a clip in training, shape (frames, mel)."""
        from models._staged import features

        return features(self, samples)

    def text_tokens(self, question: Question, limit: int) -> tuple[Sequence[int], int]:
        """Prompt and first answer as at most `limit` token ids, and where the answer begins."""
        from models._staged import text_tokens

        return text_tokens(self, question, limit)

    def text_losses(
        self, heard: npt.NDArray[np.float32], texts: Sequence[Sequence[int]], starts: Sequence[int]
    ) -> tuple[Any, Any, Any]:
        """Of each token that counts: its loss, whether it was the likeliest, and its row."""
        from models._staged import text_losses

        return text_losses(self, heard, texts, starts)

    def n_audio_tokens(self) -> int:
        """Audio tokens of one clip in training."""
        from models._staged import n_audio_tokens

        return n_audio_tokens(self)

    def save_trained(self, folder: Path, trained_on: str) -> None:
        """Write the folder that `-m weights=FOLDER` reads."""
        from models._staged import save

        save(self, folder, trained_on)

    def training_needs(
        self, parts: Sequence[str], n_clips: int, n_text_tokens: int, precision: str, is_recomputed: bool
    ) -> Mapping[str, Mapping[str, int]]:
        """Counts and bytes of a training step, from shapes alone."""
        from models._staged import needs

        return needs(self, parts, n_clips, n_text_tokens, precision, is_recomputed)

    # --- CostedModel --------------------------------------------------------------------------------------------------

    def answer_metered(
        self, clips: Sequence[AudioClip], prompt: str, n_answer_tokens: int, meter: Meter
    ) -> Sequence[Sequence[int]]:
        """The way of `answer`, with exactly so many tokens a clip.

        Raises:
            ItemError: a clip cannot be answered.
        """
        from models._metered import answer_metered

        return answer_metered(self, clips, prompt, n_answer_tokens, meter)

    def train_step(self, clips: Sequence[AudioClip], prompt: str, answer: str, meter: Meter) -> float:
        """Forward and backward through what training would change, on whole clips of one length; the loss."""
        from models._metered import train_step

        return train_step(self, clips, prompt, answer, meter)

    def work(self, n_samples: int, prompt: str, n_answer_tokens: int, n_clips: int = 1) -> Mapping[Component, Work]:
        """Operations of `answer_metered`, from sizes alone, before `load` too.

        Raises:
            ModelLimitError: the length policy does not take so much audio.
        """
        from models._metered import work

        return work(self, n_samples, prompt, n_answer_tokens, n_clips)

    def state_bytes(self, n_tokens: int) -> StateBytes:
        """Of one clip, in the type that the model was loaded in; in float32 before `load`."""
        from models._metered import state_bytes

        return state_bytes(self, n_tokens)

    # --- steps --------------------------------------------------------------------------------------------------------

    def _require_network(self) -> AudioLanguageModel:
        if self._network is None:
            raise RuntimeError(f"{self.name}: load() or start_training() comes first")
        return self._network

    def _build(self, device: str = "cpu", dtype: str = "float32") -> AudioLanguageModel:
        """The network; on `meta` an outline of it.

        Raises:
            UsageError: a published size would begin from a language model that nobody trained, and nobody asked for it.
        """
        sources = self.spec.sources
        is_given = self.spec.variant == TINY or sources.is_random or sources.lm is not None or self._weights is not None
        if device != "meta" and not is_given:
            raise UsageError(f"{self.spec.full_name} needs a language model: -m lm=FOLDER, or -m weights=random")
        pass_over_broken_torchaudio()
        return self.spec.build(device, dtype)

    def _fill(self, network: AudioLanguageModel, weights: WeightsFile) -> None:
        """Copy a file's weights into the network; it must hold all that no other source gave, and nothing else."""
        from safetensors import SafetensorError, safe_open
        from safetensors.torch import load_model

        sources = self.spec.sources
        if sources.weights is not None and sources.weights.is_dir():
            if sources.encoder is not None:
                raise UsageError(f"The folder {sources.weights} holds the encoder too: leave out -m encoder_weights=")
            fill_from_folder(network, sources.weights, lm_is_given=sources.lm is not None)
            return
        options = {"hear.encoder.": ("encoder_weights", sources.encoder), "lm.": ("lm", sources.lm)}
        given = [prefix for prefix, (_, path) in options.items() if path]
        try:
            with safe_open(weights.path, framework="pt") as file:
                twice = [name for name in file.keys() if name.startswith(tuple(given)) and "lora_" not in name]
            if twice:
                option = next(option for prefix, (option, _) in options.items() if twice[0].startswith(prefix))
                raise UsageError(f"The weights {weights.path} hold {twice[0]} too: leave out -m {option}=")
            absent, unexpected = load_model(network, weights.path, strict=not given)
        except (SafetensorError, RuntimeError) as error:
            first_line = str(error).strip().splitlines()[0]
            raise UsageError(f"The weights {weights.path} do not fit: {first_line}") from error
        lacking = [name for name in absent if not name.startswith(tuple(given)) or "lora_" in name]
        if lacking or unexpected:
            names = ", ".join(sorted([*lacking, *unexpected])[:5])
            raise UsageError(f"The weights {weights.path} do not fit: missing or unexpected {names}")

    def _read_text(self) -> None:
        from models.nn.text import FolderText, Text

        self._text: TextCodec
        if self.spec.sources.lm is None:
            self._text = Text.from_file(TOKENIZER_FILE)
            return
        pass_over_broken_torchaudio()
        try:
            self._text = FolderText(self.spec.sources.lm)
        except ValueError as error:
            raise UsageError(f"{error} (-m lm={self.spec.sources.lm})") from error

    def _shipped_path(self) -> Path | None:
        """Where this model's own weights lie, or would lie once trained; None for the published sizes."""
        if self.spec.variant != TINY:
            return None
        return WEIGHTS_FOLDER / f"{self.spec.name}-{self.spec.variant}.safetensors"

    def _read_header(self) -> WeightsFile | None:
        """What the file of weights tells of itself; None where there is none to read.

        Raises:
            UsageError: a file that was asked for cannot be read, or is of another model.
        """
        if self.spec.sources.is_random or self.missing():
            return None
        path = self.spec.sources.weights or self._shipped_path()
        assert path is not None
        if path.is_dir():
            lm = self.spec.sources.lm
            lm_sha256 = folder_sha256(lm) if lm else None
            return read_folder_header(path, self.spec.full_name, self._tokenizer_sha256(), lm_sha256)
        return read_weights_header(path, self.spec.full_name, self._tokenizer_sha256())

    def _tokenizer_sha256(self) -> str:
        lm = self.spec.sources.lm
        return tokenizer_hash() if lm is None else folder_sha256(lm, "*token*")

    def _hash_of_sources(self) -> str | None:
        """One hash for all weights: the file's own where there is one file; None where none are there."""
        if self._sources_sha256 is None:
            sources = self.spec.sources
            parts = {}
            if self._weights is not None:
                parts["weights"] = self._weights.sha256
            if sources.is_random:
                parts["random"] = f"{self.spec.summary}, seed {sources.seed}"
            if sources.encoder is not None:
                is_folder = sources.encoder.is_dir()
                parts["encoder"] = folder_sha256(sources.encoder) if is_folder else file_sha256(sources.encoder)
            if sources.lm is not None:
                parts["lm"] = folder_sha256(sources.lm)
            own = parts.get("weights") if len(parts) == 1 else None
            self._sources_sha256 = own or (combined_sha256(parts) if parts else None)
        return self._sources_sha256

    def _trained_on(self) -> str:
        if self._weights is not None:
            return self._weights.trained_on
        sources = self.spec.sources
        files = [f"{part} of {path.name}" for part, path in (("encoder", sources.encoder), ("lm", sources.lm)) if path]
        if not sources.is_random:
            return ""
        kept = f"; {' and '.join(files)} as published, the rest is random" if files else ""
        tokens = "" if self.spec.variant == TINY or sources.lm else "; read and written with the tiny models' tokenizer"
        return f"nothing: random weights (seed {sources.seed}){kept}{tokens}"

    def _parameters(self) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """Parameters per part: all, and what training would change."""
        if self._weights is not None and self.spec.sources.weights is not None and self.spec.sources.weights.is_dir():
            counts = self._weights.parameters
            return counts, {part: count for part, count in counts.items() if part != "language_model"}
        if self.spec.variant == TINY and self._weights is not None:
            return self._weights.parameters, self._weights.parameters
        from models.nn.parts import part_counts, trainable_counts

        network = self._network or self._outline()
        return part_counts(network), trainable_counts(network)

    def _outline(self) -> AudioLanguageModel:
        """The network without weights, on torch's meta device: shapes alone, at any size within seconds."""
        self._sketch = self._sketch or self._build("meta")
        return self._sketch

    def _tokens_per_s(self) -> float:
        from models.nn.features import FRAMES_PER_S

        hear = (self._network or self._outline()).hear
        return hear.n_tokens(self.spec.min_frames) * FRAMES_PER_S / self.spec.min_frames

    def _kernels(self, device: str, dtype: torch.dtype) -> Mapping[str, str]:
        from models.nn.parts import kernels_of

        return kernels_of(self._network or self._outline(), device, dtype, self.spec.scan)

    def _dtype(self) -> torch.dtype:
        return next(self._require_network().parameters()).dtype

    def _scanning(self) -> contextlib.AbstractContextManager[None]:
        from models.nn.selective_scan import scan_backend_as

        return contextlib.nullcontext() if self.spec.scan == "auto" else scan_backend_as(self.spec.scan)

    def _choose(self, reads: Sequence[_Read], queries: Sequence[Query]) -> Any:
        """What picks the next token of each item."""
        from models.nn.generation import Sampler, greedy

        decoding = self.spec.decoding
        if decoding.sampling is None:
            return greedy
        asked = [queries[read.clip.index] for read in reads]
        texts = [f"{decoding.seed}/{query.item_id}/{query.prompt}" for query in asked]
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big") for text in texts]
        return Sampler(decoding.sampling, [read.prompt_ids for read in reads], seeds)

    def _hear(self, query: Query, index: int) -> _Clip:
        """A clip's features, or the reason why not."""
        try:
            return self._features(query, index)
        except ItemError as error:  # an unread clip is found bad only now
            return _Clip(index, error=_error_text(error))

    def _streams(self, n_samples: int) -> bool:
        """Whether a clip of that length is heard block by block, even where it is in memory."""
        from models.nn.features import n_frames
        from models.nn.hearing import WINDOW_FRAMES

        return self.spec.max_audio_s is None and n_frames(n_samples) > WINDOW_FRAMES

    def _features(self, query: Query, index: int) -> _Clip:
        """Log-mel features, padded to the least length and normalised; or the reason why not.

        A clip that is unread, or of more than one window, has none: they are computed while it is heard.
        """
        import torch

        from models.nn.features import fbank, n_frames, normalise, pad_frames

        if self.spec.max_audio_s is not None and query.clip.duration_s > self.spec.max_audio_s:
            return _Clip(
                index,
                error=f"ModelLimitError: {query.clip.duration_s:.1f} s of audio; {self.spec.full_name} "
                f"takes at most {self.spec.max_audio_s:.0f} s under its policy '{self.spec.length_policy}'",
            )
        if self.spec.max_audio_s is None and query.clip.is_unread:
            return _Clip(index)
        samples = query.clip.samples
        n_heard = max(1, n_frames(len(samples)))
        if self._streams(len(samples)):
            return _Clip(index)
        log_mel = fbank(torch.from_numpy(samples))
        n_padded = max(self.spec.min_frames, self._require_network().hear.padded_frames(len(log_mel)))
        how = self.spec.normalisation()
        padded = normalise(pad_frames(log_mel, n_padded, how), how)
        return _Clip(index, features=padded.to(self._device), n_frames=n_heard)

    def _answer_long(self, index: int, queries: Sequence[Query]) -> Answer:
        """One clip that is never held as a whole: neither its samples, nor its features, nor its audio tokens.

        Its mean is not known beforehand and so not subtracted; every frame loses its own, so only rounding differs.
        """
        import torch

        from models.nn.features import fbank_stream, n_frames

        network, query = self._require_network(), queries[index]
        prompt = self._text.prompt_ids(query.prompt)
        try:
            log_mel = fbank_stream(torch.from_numpy(block) for block in query.clip.blocks())
            tokens = network.hear_stream(log_mel, self.spec.normalisation(), self.spec.min_frames)
            last, cache, n_tokens = network.read_stream(tokens, prompt)
            clip = _Clip(index, n_frames=max(1, n_frames(query.clip.n_samples)))
        except ItemError as error:
            return Answer(text="", error=_error_text(error))
        return self._speak([_Read(clip, prompt, n_tokens)], last, cache, queries, query.labels)[index]

    def _encode(self, clips: Sequence[_Clip]) -> dict[int, torch.Tensor]:
        """Audio tokens of each clip, by its index; clips of one length go through the encoder together."""
        network = self._require_network()
        dtype = next(network.parameters()).dtype
        by_length: dict[int, list[_Clip]] = {}
        for clip in clips:
            by_length.setdefault(len(clip.features), []).append(clip)
        tokens: dict[int, torch.Tensor] = {}
        for group in by_length.values():
            batch = network.audio_tokens(self._stack(group).to(dtype))
            tokens.update({clip.index: row for clip, row in zip(group, batch, strict=True)})
        return tokens

    @staticmethod
    def _stack(clips: Sequence[_Clip]) -> torch.Tensor:
        import torch

        return torch.stack([clip.features for clip in clips])

    def _answer_group(
        self,
        clips: Sequence[_Clip],
        audio: Sequence[torch.Tensor],
        queries: Sequence[Query],
        labels: tuple[str, ...] | None,
    ) -> dict[int, Answer]:
        """Answers, by index, to clips whose queries name the same labels."""
        prompts = [self._text.prompt_ids(queries[clip.index].prompt) for clip in clips]
        last, cache = self._require_network().read(audio, prompts)
        reads = [_Read(clip, ids, len(tokens)) for clip, ids, tokens in zip(clips, prompts, audio, strict=True)]
        return self._speak(reads, last, cache, queries, labels)

    def _speak(
        self,
        reads: Sequence[_Read],
        last: torch.Tensor,
        cache: Any,
        queries: Sequence[Query],
        labels: tuple[str, ...] | None,
    ) -> dict[int, Answer]:
        """Label scores and text, by index, once audio and prompts are read."""
        network = self._require_network()
        # Before generating: transformers' cache grows in place.
        scores = self._label_scores(last, cache, labels)
        choose = self._choose(reads, queries)
        said = network.generate(last, cache, self._text.end_id, self.spec.decoding.max_new_tokens, choose)
        return {
            read.clip.index: Answer(
                text=self._text.decode(ids),
                n_audio_tokens=read.n_audio_tokens,
                n_prompt_tokens=len(read.prompt_ids),
                n_answer_tokens=len(ids),
                frames_total=read.clip.n_frames,
                frames_heard=network.hear.frames_heard(read.clip.n_frames),
                label_scores=row,
                stopped="end" if ids[-1] == self._text.end_id else "length",
            )
            for read, ids, row in zip(reads, said, scores, strict=True)
        }

    def _label_scores(
        self, last: torch.Tensor, cache: Any, labels: tuple[str, ...] | None
    ) -> list[tuple[float, ...] | None]:
        """Nats per token of each label as the whole answer, for each item."""
        import torch

        if labels is None:
            return [None] * len(last)
        network = self._require_network()
        answers = [self._text.answer_ids(label) for label in labels]
        step = max(1, min(ANSWERS_AT_ONCE // len(last), CACHE_BYTES_AT_ONCE // cache.n_bytes()))
        parts = [
            network.answer_log_likelihoods(last, cache, answers[i : i + step]) for i in range(0, len(answers), step)
        ]
        return [tuple(row) for row in torch.cat(parts, dim=1).tolist()]

    def _training_features(self, example: TrainingExample) -> torch.Tensor:
        """Features, padded to the shortest or to whole steps, the example's masks (SpecAugment) at the clip's mean."""
        import torch

        from models.nn.features import fbank, normalise, pad_frames

        # Features are float32 wherever they are used, in a training that computes in bfloat16 too.
        with torch.autocast("cpu", enabled=False):
            log_mel = fbank(torch.from_numpy(example.samples))
        how = self.spec.normalisation()
        n_frames = max(self.spec.min_frames, self._require_network().hear.padded_frames(len(log_mel)))
        features = normalise(pad_frames(log_mel, n_frames, how), how)
        mean = features.mean()
        for start, length in example.frame_masks:
            features[start : start + length] = mean
        for start, length in example.mel_masks:
            features[:, start : start + length] = mean
        return features.to(self._device)


@dataclass(frozen=True, eq=False)
class _Clip:
    """One query's features, shape (frames, mel), or the error that stands in for them; neither where it is long."""

    index: int
    features: Any = None
    n_frames: int = 0
    error: str | None = None


@dataclass(frozen=True, eq=False)
class _Read:
    """A clip whose audio tokens and prompt went through the language model."""

    clip: _Clip
    prompt_ids: Sequence[int]
    n_audio_tokens: int
