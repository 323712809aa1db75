"""Items to clips: batches are decoded ahead of the model that will be asked, and long clips left unread.

Short clips are decoded in a thread. A long one whose source has blocks is a batch of its own and reaches the model
unread. Whatever is wrong with a clip is kept as a `Failure` of its item.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from harness.clips import LONG_S, UnreadClip
from harness.contracts import AudioClip, AudioItem, AudioSource, BlockSource
from harness.errors import ModelLimitError

_MESSAGE_LIMIT = 2000
_AUDIO_AT_ONCE_S = 1200.0
"""Clips that are held at a time last no longer together, but for a single one that does: 77 MB at 16 kHz.

Unread clips count too, since a model may ask for all their samples.
"""


@dataclass(frozen=True)
class Failure:
    """Why there is no answer."""

    error_type: str
    message: str


@dataclass(frozen=True)
class BatchItem:
    """An item with its audio's identity and the seconds that its header tells, None when it does not."""

    item: AudioItem
    identity: str
    header_s: float | None


@dataclass(frozen=True)
class HeardItem:
    """An item after its audio was decoded, or left unread, or could not be decoded."""

    item: AudioItem
    identity: str
    heard: AudioClip | Failure
    load_s: float


def partition(items: Sequence[BatchItem], size: int, max_audio_s: float | None) -> list[tuple[BatchItem, ...]]:
    """Batches of `size` items in order, or fewer where these would last longer than _AUDIO_AT_ONCE_S together.

    A clip that stays unread is alone: no other has to be answered again when it turns out to be bad.

    Args:
        items: all items of a run.
        size: most items of a batch.
        max_audio_s: longer clips are never decoded, and so count as nothing.
    """
    batches: list[tuple[BatchItem, ...]] = []
    batch: list[BatchItem] = []
    for item in items:
        is_full = len(batch) == size or _decoded_s([*batch, item], max_audio_s) > _AUDIO_AT_ONCE_S
        if batch and (is_full or any(_stays_unread(each, max_audio_s) for each in (batch[-1], item))):
            batches.append(tuple(batch))
            batch = []
        batch.append(item)
    return [*batches, tuple(batch)] if batch else batches


def hear_batches(
    batches: Sequence[Sequence[BatchItem]], sample_rate_hz: int, max_audio_s: float | None = None
) -> Generator[tuple[HeardItem, ...], None, None]:
    """Decode batch after batch, the next one in a thread while the caller works on the last.

    Two batches that would last longer than _AUDIO_AT_ONCE_S together are not held at once: the second is decoded when
    the caller asks for it, and has let go of the first.

    Args:
        batches: what to decode.
        sample_rate_hz: the model's rate.
        max_audio_s: clips whose header tells of more seconds fail without being decoded.
    """
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="decode")
    try:
        waiting: Future[tuple[HeardItem, ...]] | None = None
        for position, batch in enumerate(batches):
            current = waiting or pool.submit(_hear_batch, batch, sample_rate_hz, max_audio_s)
            following = batches[position + 1] if position + 1 < len(batches) else ()
            fits = _decoded_s([*batch, *following], max_audio_s) <= _AUDIO_AT_ONCE_S
            waiting = pool.submit(_hear_batch, following, sample_rate_hz, max_audio_s) if following and fits else None
            heard = [current.result()]
            del current
            # Popped, so that only the caller holds the clips while it works.
            yield heard.pop()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _decoded_s(batch: Sequence[BatchItem], max_audio_s: float | None) -> float:
    """Seconds that decoding the batch would bring into memory, as far as headers tell."""
    return sum(each.header_s or 0.0 for each in batch if not _is_too_long(each.header_s, max_audio_s))


def _is_too_long(duration_s: float | None, max_audio_s: float | None) -> bool:
    return duration_s is not None and max_audio_s is not None and duration_s > max_audio_s


def _stays_unread(each: BatchItem, max_audio_s: float | None) -> bool:
    """Whether its header tells that the model will get it unread."""
    is_long = each.header_s is not None and each.header_s > LONG_S
    return is_long and isinstance(each.item.source, BlockSource) and not _is_too_long(each.header_s, max_audio_s)


def _hear_batch(batch: Sequence[BatchItem], sample_rate_hz: int, max_audio_s: float | None) -> tuple[HeardItem, ...]:
    return tuple(_hear(each, sample_rate_hz, max_audio_s) for each in batch)


def _hear(each: BatchItem, sample_rate_hz: int, max_audio_s: float | None) -> HeardItem:
    started = time.perf_counter()
    heard: AudioClip | Failure
    try:
        _refuse_too_long(each.header_s, max_audio_s)
        heard = _clip(each.item.source, each.header_s, sample_rate_hz)
        # The true length of an unread clip costs reading it, so its header is believed where it has one.
        if each.header_s is None or not heard.is_unread:
            _refuse_too_long(heard.duration_s, max_audio_s)
    # A decoder fails in its own ways; whatever they are, the item failed and the run goes on.
    except Exception as error:
        heard = failure_of(error)
    return HeardItem(each.item, each.identity, heard, time.perf_counter() - started)


def _clip(source: AudioSource, header_s: float | None, sample_rate_hz: int) -> AudioClip:
    """The decoded clip, or the unread one where it is long; one whose header does not tell is measured."""
    if not isinstance(source, BlockSource):
        return source.load(sample_rate_hz)
    is_long = _lasts_longer(source, LONG_S, sample_rate_hz) if header_s is None else header_s > LONG_S
    return UnreadClip(source, sample_rate_hz) if is_long else source.load(sample_rate_hz)


def _lasts_longer(source: BlockSource, seconds: float, sample_rate_hz: int) -> bool:
    n_samples = 0
    for block in source.blocks(sample_rate_hz):
        n_samples += len(block)
        if n_samples > seconds * sample_rate_hz:
            return True
    return False


def _refuse_too_long(duration_s: float | None, max_audio_s: float | None) -> None:
    """Raises ModelLimitError."""
    if _is_too_long(duration_s, max_audio_s):
        raise ModelLimitError(f"the clip lasts {duration_s:.1f} s; the model takes at most {max_audio_s:g} s")


# --- failures --------------------------------------------------------------------------------------------------------


def failure_of(error: Exception) -> Failure:
    """An exception as a failure."""
    return named_failure(type(error).__name__, str(error))


def named_failure(error_type: str, message: str) -> Failure:
    """A failure whose message a record can hold."""
    return Failure(error_type, clean(message)[:_MESSAGE_LIMIT])


def clean(text: str) -> str:
    """Text that UTF-8 can hold: lone surrogates become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")
