"""Is a data set on disk the one that was published? Every clip is decoded once, and every fault has a name.

A clip is one audio file, however many items ask about it. The kinds of fault:

- missing: an item names a file that is not there.
- extra: an audio file beside the clips that no item names, of any of the task's splits.
- unreadable: it cannot be decoded, or holds NaN or infinite samples.
- zero_length: 0 bytes, or a header without a sample after it.
- silent: its mono mix never reaches one step of a 24-bit file (`harness.audio.SILENCE_PEAK`).
- ends_early: shorter than its header says. A cut OGG file looks whole: its length stands on its last page alone.
- wrong_rate, wrong_channels: other than the published ones, where the task says them (`sample_rate_hz` and `channels`
  among its published counts), else other than those of most clips.
- duplicate: the same samples as another clip, whatever the file format; silent clips are left out.
- wrong_count: the numbers of items, clips, captions, labels, rows or speakers are not the published ones.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args, get_type_hints

import soundfile

from harness.audio import FileSource
from harness.clips import UnreadClip
from harness.contracts import AudioClip, AudioItem, AudioSource, BlockSource, DataOrigin, ItemSet, Task
from harness.errors import AudioError, HarnessError

KINDS = (
    "missing",
    "extra",
    "unreadable",
    "zero_length",
    "silent",
    "ends_early",
    "wrong_rate",
    "wrong_channels",
    "duplicate",
    "wrong_count",
)
AUDIO_SUFFIXES = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".m4a", ".mp4", ".webm"}
)
_GENERATED_RATE_HZ = 16_000


@dataclass(frozen=True)
class Fault:
    """One fault: its kind, the clip (its path below the set's folder) or the count, and what is wrong."""

    kind: str
    clip: str
    detail: str


@dataclass(frozen=True)
class Report:
    """What was found. `rate_hz` and `channels` are those that clips should have; None where that is not known.

    `unchecked` names published counts that nothing here can be compared with.
    """

    task: str
    version: int
    origin: DataOrigin
    root: str
    n_items: int
    n_declared: int
    n_clips: int
    n_heard: int
    rate_hz: int | None
    channels: int | None
    faults: tuple[Fault, ...]
    unchecked: tuple[str, ...]

    @property
    def is_clean(self) -> bool:
        """Whether there is no fault."""
        return not self.faults

    def of_kind(self, kind: str) -> list[Fault]:
        """The faults of one kind, in the order in which they were found."""
        return [fault for fault in self.faults if fault.kind == kind]

    def as_json(self) -> dict[str, Any]:
        """Everything, for a file."""
        by_kind = {kind: [asdict(fault) for fault in self.of_kind(kind)] for kind in KINDS}
        values = {name: value for name, value in asdict(self).items() if name != "faults"}
        return {**values, "clean": self.is_clean, "n_faults": len(self.faults), "faults": by_kind}


@dataclass(frozen=True)
class _Clip:
    """One audio file, or one generated sound, and the items that ask about it."""

    name: str
    path: Path | None
    source: AudioSource
    items: tuple[AudioItem, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(sorted({label for item in self.items for label in item.references}))


@dataclass
class _Heard:
    """What decoding a clip tells. `digest` is that of the samples, None where there are none to compare."""

    faults: list[tuple[str, str]] = field(default_factory=list)
    rate_hz: int | None = None
    channels: int | None = None
    digest: str | None = None


def verify(
    task: Task, item_set: ItemSet, other_paths: Collection[Path] = (), advance: Callable[[int], None] = lambda n: None
) -> Report:
    """Decode every clip of a set and compare it with what was published.

    Args:
        task: the task that read the set.
        item_set: what it read.
        other_paths: files that belong to other splits of the set, and so are not extra.
        advance: is told how many more clips are done.
    """
    clips = _clips(item_set)
    heard = {}
    for clip in clips:
        heard[clip.name] = _hear(clip)
        advance(1)
    published = dict(task.published_counts) if item_set.origin == "official" else {}
    rate_hz = published.pop("sample_rate_hz", None) or _usual(h.rate_hz for h in heard.values())
    channels = published.pop("channels", None) or _usual(h.channels for h in heard.values())
    counts, unchecked = _wrong_counts(task, item_set, clips, published)
    faults = [
        *(Fault(kind, clip.name, detail) for clip in clips for kind, detail in heard[clip.name].faults),
        *_extra(item_set.root, clips, other_paths),
        *_unusual(clips, heard, rate_hz, channels),
        *_duplicates(clips, heard),
        *counts,
    ]
    return Report(
        task=task.name,
        version=task.version,
        origin=item_set.origin,
        root=str(item_set.root),
        n_items=len(item_set.items),
        n_declared=item_set.n_declared,
        n_clips=len(clips),
        n_heard=sum(h.rate_hz is not None for h in heard.values()),
        rate_hz=rate_hz,
        channels=channels,
        faults=tuple(sorted(faults, key=lambda fault: KINDS.index(fault.kind))),
        unchecked=unchecked,
    )


def count_clips(item_set: ItemSet) -> int:
    """How many clips `verify` will decode."""
    return len(_clips(item_set))


def missing_clips(item_set: ItemSet) -> int:
    """How many clips have no file, without decoding any."""
    return sum(clip.path is not None and not clip.path.exists() for clip in _clips(item_set))


def paths_of_other_splits(
    function: Callable[..., Task], options: Mapping[str, object], root: Path, origin: DataOrigin
) -> set[Path]:
    """The files that the task names under its other options, one option changed at a time.

    Options of a few named values (`Literal`) are tried, and the defaults. A split that is not there names none.

    Args:
        function: the task's own.
        options: those that the set was read with.
        root: where it was read.
        origin: whether that is the official set or the starter set.
    """
    paths: set[Path] = set()
    for changed in _other_options(function, options):
        try:
            task = function(**changed)
            read = task.read_items if origin == "official" else task.read_starter
            items = read(root).items if read is not None else ()
        except (HarnessError, OSError, ValueError):
            continue
        paths |= {item.source.path for item in items if isinstance(item.source, FileSource)}
    return paths


def _other_options(function: Callable[..., Task], options: Mapping[str, object]) -> Iterator[dict[str, object]]:
    if options:
        yield {}
    for name, hint in get_type_hints(function).items():
        for value in get_args(hint):
            if name != "return" and isinstance(value, str) and options.get(name) != value:
                yield {**options, name: value}


# --- the clips --------------------------------------------------------------------------------------------------------


def _clips(item_set: ItemSet) -> list[_Clip]:
    """The set's clips in the order of its items; items of one file are one clip."""
    grouped: dict[Path | str, list[AudioItem]] = defaultdict(list)
    for item in item_set.items:
        grouped[item.source.path if isinstance(item.source, FileSource) else item.item_id].append(item)
    clips = []
    for key, items in grouped.items():
        path = key if isinstance(key, Path) else None
        name = _below(path, item_set.root) if path is not None else str(key)
        clips.append(_Clip(name, path, items[0].source, tuple(items)))
    return clips


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _hear(clip: _Clip) -> _Heard:
    heard = _Heard()
    problem = _without_decoding(clip.path)
    if problem is not None:
        heard.faults.append(problem)
        return heard
    try:
        decoded, digest = _decoded(clip.source, _native_rate_hz(clip.path))
    except AudioError as error:
        reason = str(error).removeprefix(f"{clip.path} ")
        heard.faults.append(("zero_length" if reason.endswith("holds no samples") else "unreadable", reason))
        return heard
    except (HarnessError, OSError, ValueError) as error:
        heard.faults.append(("unreadable", f"{type(error).__name__}: {error}"))
        return heard
    heard.rate_hz, heard.channels = decoded.source_rate_hz, decoded.source_channels
    heard.faults += [("ends_early", note) for note in decoded.notes if note.startswith("ends early")]
    if "silent" in decoded.notes:
        heard.faults.append(("silent", f"{decoded.duration_s:.2f} s of silence"))
    else:
        heard.digest = digest
    return heard


def _decoded(source: AudioSource, rate_hz: int) -> tuple[AudioClip, str]:
    """A clip that was heard to its end, a block at a time where it has blocks, and the SHA-256 of its samples.

    Raises:
        AudioError: it cannot be decoded.
    """
    clip = UnreadClip(source, rate_hz) if isinstance(source, BlockSource) else source.load(rate_hz)
    digest = hashlib.sha256()
    for block in clip.blocks():
        digest.update(block.tobytes())
    return clip, digest.hexdigest()


def _without_decoding(path: Path | None) -> tuple[str, str] | None:
    """What is wrong before anything is decoded: kind and detail."""
    if path is None:
        return None
    try:
        n_bytes = path.stat().st_size
    except FileNotFoundError:
        return ("unreadable", "a link that leads nowhere") if path.is_symlink() else ("missing", "no such file")
    except (OSError, ValueError) as error:
        return "unreadable", str(error)
    return ("zero_length", "0 bytes") if n_bytes == 0 and path.is_file() else None


def _native_rate_hz(path: Path | None) -> int:
    """The rate that needs no resampling; any other does where the header cannot be read: decoding says why."""
    if path is None:
        return _GENERATED_RATE_HZ
    try:
        return int(soundfile.info(str(path)).samplerate)
    except (soundfile.SoundFileError, TypeError):
        return _GENERATED_RATE_HZ


# --- the set as a whole -----------------------------------------------------------------------------------------------


def _usual(values: Iterable[int | None]) -> int | None:
    """The most frequent value; the larger one of two that are equally frequent."""
    counted = Counter(value for value in values if value is not None)
    return max(counted, key=lambda value: (counted[value], value)) if counted else None


def _unusual(
    clips: Sequence[_Clip], heard: Mapping[str, _Heard], rate_hz: int | None, channels: int | None
) -> Iterator[Fault]:
    for clip in clips:
        found = heard[clip.name]
        if found.rate_hz not in (None, rate_hz) and clip.path is not None:
            yield Fault("wrong_rate", clip.name, f"{found.rate_hz} Hz instead of {rate_hz}")
        if found.channels not in (None, channels) and clip.path is not None:
            yield Fault("wrong_channels", clip.name, f"{_channels(found.channels)} instead of {channels}")


def _channels(number: int | None) -> str:
    return "1 channel" if number == 1 else f"{number} channels"


def _extra(root: Path, clips: Sequence[_Clip], other_paths: Collection[Path]) -> Iterator[Fault]:
    paths = [clip.path for clip in clips if clip.path is not None]
    if not paths:
        return
    known = {*paths, *other_paths}
    for path in _audio_files(root, {path.parent for path in paths}):
        if path not in known:
            yield Fault("extra", _below(path, root), "no item names it")


def _audio_files(root: Path, folders: Collection[Path]) -> list[Path]:
    """Audio files in and below the folder that holds all clips.

    Where that is the set's own folder, which may hold other sets, too, only the clips' folders are looked into.
    """
    common = Path(os.path.commonpath(folders))
    if common != root and common.is_relative_to(root):
        found: Iterable[Path] = common.rglob("*")
    else:
        found = (path for folder in folders if folder.is_dir() for path in folder.iterdir())
    return sorted(p for p in found if p.suffix.lower() in AUDIO_SUFFIXES and not p.name.startswith(".") and p.is_file())


def _duplicates(clips: Sequence[_Clip], heard: Mapping[str, _Heard]) -> Iterator[Fault]:
    first: dict[str, _Clip] = {}
    for clip in clips:
        digest = heard[clip.name].digest
        if digest is None:
            continue
        twin = first.setdefault(digest, clip)
        if twin is not clip:
            labels = "" if twin.labels == clip.labels else f", with other labels ({_few(twin.labels)})"
            yield Fault("duplicate", clip.name, f"same audio as {twin.name}{labels}")


def _few(labels: Sequence[str]) -> str:
    return ", ".join(labels[:3]) + (", ..." if len(labels) > 3 else "")


def _wrong_counts(
    task: Task, item_set: ItemSet, clips: Sequence[_Clip], published: Mapping[str, int]
) -> tuple[list[Fault], tuple[str, ...]]:
    """Counts that are not the published ones, and the names of those that cannot be compared."""
    found = {
        "items": len(item_set.items),
        "clips": len(clips),
        "captions": sum(len(clip.items[0].references) for clip in clips),
        "labels": len({label for clip in clips for label in clip.labels}),
        "rows": sum(len(clip.labels) for clip in clips),
        "speakers": len({item.cluster for item in item_set.items}),
    }
    per_label = Counter(label for clip in clips for label in clip.labels)
    found |= {label.name: per_label[label.name] for label in task.labels if label.name not in found}
    expected = {"items": item_set.n_declared, **published}
    faults = [
        Fault("wrong_count", name, f"{found[name]} instead of {number}")
        for name, number in expected.items()
        if name in found and found[name] != number
    ]
    return faults, tuple(name for name in expected if name not in found)
