"""What models, tasks, scorers and metrics agree on. Standard library only, so that it imports in no time.

The way of one datum: a `Task` reads `AudioItem`s; the runner loads an item's `AudioSource` into an `AudioClip`
and asks a `ModelAdapter` a `Query`; its `Answer` becomes a line of `predictions.jsonl`; a `Scorer` turns that
line into a `Decision`; a `Metric` sees `Scored` items and returns a number.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

TaskKind = Literal["classification", "captioning", "transcription"]
DataOrigin = Literal["official", "starter", "generated"]
OptionValue = str | int | float | bool | None


# --- audio -----------------------------------------------------------------------------------------------------------


_BLOCK_SAMPLES = 1 << 18


@dataclass(frozen=True, eq=False)
class AudioClip:
    """Mono audio, as a model hears it: in memory here, or read when it is heard (`harness.clips.UnreadClip`).

    `samples` has shape (n_samples,), float32, finite, full scale at 1.0. `source_rate_hz`, `source_channels` and
    `source_frames` describe the file before it was mixed down and resampled; `notes` names what a reader should
    know of it, such as "silent".

    A model may simply use `samples`. One that takes clips of any length goes through `blocks` where `is_unread`: the
    clip then is never in memory as a whole. An unread clip's audio is found bad only while it is heard, so anything
    but its sample rate may raise `AudioError`, which a model may let pass or turn into the item's `Answer.error`.
    """

    samples: npt.NDArray[np.float32]
    sample_rate_hz: int
    source_rate_hz: int
    source_channels: int
    source_frames: int
    notes: tuple[str, ...] = ()

    @property
    def n_samples(self) -> int:
        """Length of the clip in samples."""
        return len(self.samples)

    @property
    def duration_s(self) -> float:
        """Length of the clip in seconds."""
        return self.n_samples / self.sample_rate_hz

    @property
    def is_unread(self) -> bool:
        """Whether `samples` would first have to be read: the clip is long, and `blocks` hold little at a time."""
        return False

    def blocks(self) -> Iterator[npt.NDArray[np.float32]]:
        """The samples in order, in blocks of shape (n,), n at least 1, a few megabytes at most. Anew at every call."""
        for start in range(0, self.n_samples, _BLOCK_SAMPLES):
            yield self.samples[start : start + _BLOCK_SAMPLES]


@dataclass(frozen=True)
class AudioFacts:
    """What is known of audio once all of it was heard; the fields are those of `AudioClip`."""

    source_rate_hz: int
    source_channels: int
    source_frames: int
    notes: tuple[str, ...] = ()


class AudioSource(Protocol):
    """Something that can be heard later: cheap to hold until then."""

    def load(self, sample_rate_hz: int) -> AudioClip:
        """Decode, mix to mono and resample.

        Raises:
            AudioError: the audio is unreadable, empty or not finite.
        """

    def identity(self) -> str:
        """A text that is the same whenever the audio is; part of the item set's hash."""

    def duration_s(self) -> float | None:
        """Length from the header alone, in seconds; None when the header does not tell."""


@runtime_checkable
class BlockSource(AudioSource, Protocol):
    """Audio that can also be heard block by block, so that hours of it never are in memory at once."""

    def blocks(self, sample_rate_hz: int) -> Generator[npt.NDArray[np.float32], None, AudioFacts | None]:
        """The samples that `load` would give, in order; each block is float32, shape (n,), a few megabytes at most.

        Every call begins anew. A generator function: what it returns in the end are the facts of the clip that `load`
        would give, or None where the samples tell them all, as those of generated sound do.

        Raises:
            AudioError: as `load` would, when the trouble is reached.
        """


# --- tasks -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AudioItem:
    """One question of a benchmark. Knows nothing of models.

    `references` are labels for classification (at least one is right), captions for captioning. Items of one
    recording share `cluster`: the bootstrap draws clusters, not clips.
    """

    item_id: str
    source: AudioSource
    references: tuple[str, ...]
    cluster: str
    metadata: Mapping[str, OptionValue] = field(default_factory=dict)


@dataclass(frozen=True)
class Label:
    """One class: the data set's own name, and how it reads in a sentence."""

    name: str
    text: str


@dataclass(frozen=True)
class ItemSet:
    """What a task found on disk.

    `origin` tells the benchmark from its starter set, and from items that are generated; `n_declared` is the size of
    the full set that was asked for (all of ESC-50: 2000), so that a partial copy never passes for the whole; `root` is
    where it was found.
    """

    items: tuple[AudioItem, ...]
    origin: DataOrigin
    n_declared: int
    root: Path


@dataclass(frozen=True)
class RemoteFile:
    """One file of a data set's own home.

    `folder` is where it lands, or is unpacked, below the task's folder. `sha256` and `n_bytes` are None where the home
    publishes none; `md5` is for a home that publishes no other digest; `unpack` says that it is an archive.
    """

    url: str
    folder: str = "."
    sha256: str | None = None
    n_bytes: int | None = None
    unpack: bool = False
    md5: str | None = None


@dataclass(frozen=True)
class Task:
    """A benchmark as data, and one function that reads it.

    `version` rises when scores would change. `prompts` maps a prompt's name to its text; the first is the default.
    `sample_rows` are a few real lines of the metadata file, for tests and for readers. `find(folder)` answers
    whether an official copy lies in that folder (the folder itself, or one below with a usual name) and where.
    """

    name: str
    version: int
    kind: TaskKind
    summary: str
    labels: tuple[Label, ...]
    prompts: Mapping[str, str]
    metrics: tuple[str, ...]
    citation: str
    licence: str
    homepage: str
    download: str
    sample_rows: tuple[str, ...]
    find: Callable[[Path], Path | None]
    read_items: Callable[[Path], ItemSet]
    starter_root: Path | None = None
    read_starter: Callable[[Path], ItemSet] | None = None
    remote_files: tuple[RemoteFile, ...] = ()
    published_counts: Mapping[str, int] = field(default_factory=dict)


# --- models ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Query:
    """One clip and one question about it.

    `labels`, when given, are candidate answers; a model that can, returns one score for each.
    """

    item_id: str
    clip: AudioClip
    prompt: str
    labels: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Answer:
    """What a model said.

    `label_scores` holds one length-normalised log-likelihood (nats per token) for each of the query's labels, or
    None. `frames_total` are the feature frames of the whole clip, `frames_heard` those that reached the encoder; a
    model that hears samples, or nothing, counts samples, or 0. `error` is set instead of `text` when this one item
    failed: "ErrorType: message".
    """

    text: str
    n_audio_tokens: int = 0
    n_prompt_tokens: int = 0
    n_answer_tokens: int = 0
    frames_total: int = 0
    frames_heard: int = 0
    label_scores: tuple[float, ...] | None = None
    stopped: Literal["end", "length"] = "end"
    error: str | None = None


@dataclass(frozen=True)
class ModelDescription:
    """What a record must say of the model that ran.

    `parameters` counts them per part ("encoder", "connector", "language_model"); `trainable_parameters` those that
    training would change, per part or finer ("connector.linear"), empty when that is not told. `length_policy` says
    what happens to long audio. `kernels` names the implementations in use. `weights_sha256` is None for a model without
    weights. `fingerprint` changes whenever answers might: weights, options, generation settings. A model with
    `needs_labels` chooses among the query's labels, and so is always given them. `trained_on` says in a few words which
    of the clips that it may be asked about the model learned from, such as "esc50: folds 1-4"; empty when none. A clip
    longer than `max_audio_s` seconds fails before it is decoded; None when any length will do.
    """

    name: str
    variant: str
    summary: str
    parameters: Mapping[str, int]
    sample_rate_hz: int
    audio_tokens_per_s: float | None
    length_policy: str
    weights_sha256: str | None
    generation: Mapping[str, OptionValue]
    kernels: Mapping[str, str]
    fingerprint: str
    can_score_labels: bool = False
    needs_labels: bool = False
    trained_on: str = ""
    max_audio_s: float | None = None
    trainable_parameters: Mapping[str, int] = field(default_factory=dict)


@runtime_checkable
class ModelAdapter(Protocol):
    """A model as the runner sees it. Tokenisers, templates, chunking and devices stay inside.

    A file `models/<name>.py` defines a function `<name>(variant=..., ...) -> ModelAdapter` that is cheap to call:
    weights are read in `load`.
    """

    def load(self, device: str, dtype: str) -> None:
        """Read weights and get ready. `device` and `dtype` are torch's names ("cpu", "cuda:0"; "float32")."""

    def answer(self, queries: Sequence[Query]) -> Sequence[Answer]:
        """Answer each query: same order, same length. The answer to one query does not depend on the others.

        One item's own trouble goes into its `Answer.error`; an exception fails the whole batch.
        """

    def describe(self) -> ModelDescription:
        """Facts for the record. May be called before `load`, from the options alone, except for the weights hash."""

    def close(self) -> None:
        """Give memory back."""


@runtime_checkable
class InspectableModel(ModelAdapter, Protocol):
    """A model that can be looked at where its weights are not: optional, for models of any size.

    `describe` then gives its parameters although `load` could not succeed.
    """

    def missing(self) -> str:
        """What `load` needs and does not find, in one sentence that says how to give it; empty when nothing."""

    def kernels_on(self, device: str, dtype: str) -> Mapping[str, str]:
        """The implementations that would run on a device of torch, as `ModelDescription.kernels` names them."""


# --- cost ------------------------------------------------------------------------------------------------------------

Component = Literal["front_end", "encoder", "connector", "prefill", "decode"]


class Meter(Protocol):
    """What a model tells while it answers, so that time, memory and operations can be told apart by component."""

    def enter(self, component: Component) -> None:
        """The work goes over to this component; long audio goes through them in turns, block by block."""

    def token(self) -> None:
        """One more answer token is known on the host."""


@dataclass(frozen=True)
class Work:
    """Floating-point operations of one component: one multiplication or one addition is one.

    `flops` are those of matrix products, convolutions, attention and scans, from shapes alone; `macs` the
    multiply-additions among them; `other` norms, activations and the like. `parts` splits `flops` finer
    ("attention", "scan", "linear", ...).
    """

    flops: int
    macs: int
    other: int
    parts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class StateBytes:
    """What a language model keeps to go on after some tokens: a cache that grows, a state that does not."""

    growing: int
    constant: int


@runtime_checkable
class CostedModel(ModelAdapter, Protocol):
    """A model whose cost can be measured and computed by component: optional."""

    def answer_metered(
        self, clips: Sequence[AudioClip], prompt: str, n_answer_tokens: int, meter: Meter
    ) -> Sequence[Sequence[int]]:
        """Answer with exactly so many tokens a clip, the likeliest each time, the end token no end.

        The very path of `answer`, but for that. Returns token ids.
        """

    def train_step(self, clips: Sequence[AudioClip], prompt: str, answer: str, meter: Meter) -> float:
        """One forward and backward pass through the trainable parts, without a step of an optimiser; the loss."""

    def work(self, n_samples: int, prompt: str, n_answer_tokens: int, n_clips: int = 1) -> Mapping[Component, Work]:
        """Operations of `answer_metered` on clips of so many samples, from formulas and without running anything."""

    def state_bytes(self, n_tokens: int) -> StateBytes:
        """Bytes of what the language model keeps for one clip after so many tokens, audio and text together."""


# --- scoring ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Decision:
    """What a scorer makes of one answer: a label or None (unparsed), and a score per label where it has them.

    A scorer that decides for any number of labels puts all of them, sorted, into `labels`, and into `label` the one
    where there is one. One that decides for a single label leaves `labels` None.
    """

    label: str | None
    scores: tuple[float, ...] | None = None
    labels: tuple[str, ...] | None = None

    def decided(self, as_set: bool = True) -> tuple[str, ...]:
        """Every label that was decided; where no set is wanted, the one alone."""
        if as_set and self.labels is not None:
            return self.labels
        return () if self.label is None else (self.label,)


@dataclass(frozen=True)
class ScorableAnswer:
    """The part of a prediction that a scorer may see."""

    text: str
    label_scores: tuple[float, ...] | None


class Scorer(Protocol):
    """Text, or label scores, to label. `name` and `version` are part of a result's identity.

    A file `harness/scorers/<name>.py` defines a function `<name>(...) -> Scorer`.
    """

    name: str
    version: int
    needs_label_scores: bool

    def decide(self, answers: Sequence[ScorableAnswer], labels: Sequence[Label]) -> Sequence[Decision]:
        """One decision an answer, in order."""


@dataclass(frozen=True)
class Scored:
    """One item as a metric sees it. A failed item has `answered` False, `decision.label` None and no text.

    `text` is what the model said: metrics of captions and transcripts read it, those of labels read the decision.
    """

    item_id: str
    references: tuple[str, ...]
    cluster: str
    answered: bool
    decision: Decision
    text: str = ""


class Metric(Protocol):
    """A file `harness/metrics/<name>.py` defines a function `<name>(scored) -> float`."""

    def __call__(self, scored: Sequence[Scored]) -> float: ...


# --- training --------------------------------------------------------------------------------------------------------

# A teacher's scores nearer to 0 or 1 than this are taken as this near where their log-odds are learned.
TEACHER_FLOOR = 1e-5


@dataclass(frozen=True, eq=False)
class TrainingExample:
    """One clip to learn from, made by a recipe and the same for every model.

    `samples` has shape (n_samples,), float32, at the model's sample rate. `answers` are texts with weights that sum to
    1: a mixture of two clips has two; an example that only teaches to hear has none. `teacher_scores`, shape
    (n_times, n_teacher), each in [0, 1], are what a teacher heard at moments spread evenly over the clip. Masks are
    (start, length) in feature frames and in mel bins (SpecAugment, arXiv 1904.08779).
    """

    samples: npt.NDArray[np.float32]
    prompt: str
    answers: tuple[tuple[str, float], ...]
    teacher_scores: npt.NDArray[np.floating[Any]] | None = None
    frame_masks: tuple[tuple[int, int], ...] = ()
    mel_masks: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Question:
    """What an example asks, and its weighted answers, as in `TrainingExample`."""

    prompt: str
    answers: tuple[tuple[str, float], ...]


@runtime_checkable
class TrainableModel(ModelAdapter, Protocol):
    """A model that a recipe can train. Tensors are torch's; the type stays open so that this file needs no torch."""

    name: str
    sample_rate_hz: int

    def start_training(self, teacher_prior: npt.NDArray[np.float32] | None, device: str) -> Any:
        """Fresh weights; returns the `torch.nn.Module` to optimise.

        Args:
            teacher_prior: with a teacher, the log-odds that it gives each of its classes on average, shape
                (n_teacher,): what the head that learns its scores says before it has heard anything.
        """

    def losses(self, examples: Sequence[TrainingExample]) -> Mapping[str, Any]:
        """Named scalar losses of a batch, with gradients: "text" where there are answers, and where there are teacher
        scores "teacher" and any other name that begins so.
        """

    def save(self, path: Path, trained_on: str) -> None:
        """Write the weights (safetensors) that `load` reads, and one sentence on what they learned from."""


@runtime_checkable
class EncodingModel(Protocol):
    """A trainable model whose encoder can hear an example once, for many lessons of what comes after it: optional."""

    def encode(self, examples: Sequence[TrainingExample]) -> npt.NDArray[np.float16]:
        """What the encoder makes of each example, without gradients; the first axis is the examples'."""

    def answering_losses(self, encoded: npt.NDArray[np.float16], questions: Sequence[Question]) -> Mapping[str, Any]:
        """As `losses`, from what `encode` gave; each question is an example's prompt and answers."""


@runtime_checkable
class Tagger(Protocol):
    """A model that can teach: it gives a score to each of a fixed list of sound classes."""

    n_classes: int

    def load(self, device: str, dtype: str) -> None:
        """Read weights and get ready."""

    def tag(self, clips: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        """Scores in [0, 1], shape (n_clips, n_times, n_classes), of mono clips of one length at 16 kHz.

        The times are spread evenly over the clip.
        """


# --- benches ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BenchCase:
    """One way to do a bench's work. `make` prepares the inputs and returns what is timed: each call does it once.

    The counts say what the work cannot do without: exponentials to compute, bytes to read and write. Their time at the
    machine's own rates is the floor that the case is compared with; 0 where no floor is claimed.
    """

    name: str
    make: Callable[[], Callable[[], object]]
    n_exponentials: int = 0
    n_bytes: int = 0


@dataclass(frozen=True)
class Bench:
    """The same work done in several ways, timed in turns in one process.

    `baseline` is the case that the others are compared with. `goals` maps a case to how many times as fast as the
    baseline it should be; a goal below is reported, and no error.
    """

    name: str
    summary: str
    baseline: str
    cases: tuple[BenchCase, ...]
    goals: Mapping[str, float] = field(default_factory=dict)


Benches = tuple[Bench, ...]
"""A file `models/benches/<name>.py` defines a function `<name>() -> Benches`."""
