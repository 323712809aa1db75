"""`exact`: the labels whose words stand in the answer; where a clip has one, the one that stands alone.

Rules, in order.

1. Fold. Case, accents' encoding, underscores, hyphens and slashes do not matter; a possessive "'s" is dropped.
   Words are compared whole ("train" is not in "training") and without their plural ending ("dogs" is "dog",
   "babies" is "baby"), in label and answer alike. Other forms ("barks", "laughter", "sneeze") are other words.
2. Find. A label is mentioned where its words stand in order and side by side within one sentence; commas,
   slashes, quotes and brackets between them do not matter, nor does a full stop where the label itself has one
   ("bee, wasp, etc. buzzing"). A label also counts when it is written as one word
   ("handsaw") or, being one word, as two of at least three letters ("chain saw").
3. Longest first. A mention inside a longer one is dropped: "crying baby" hides "baby".
4. Negation. A mention is dropped when a word such as "no", "not", "n't", "without" or "instead of" stands before it
   in the same clause, or right after it ("the dog is not heard", "Rain? No."). Clauses end at punctuation and at
   words such as "but" and "only". "No doubt" is no negation.
5. Decide. One label left, however often: that one. None: unparsed. Several: if the part after the last "Label:"
   (or "Labels:") mentions exactly one, that one; else unparsed. No label is preferred for its place in the answer or
   in the list, and nothing is drawn at random.
6. Several. Metrics of clips with several labels get all of them: those after the last "Label:" where there are some,
   else those of the whole answer.

What this costs: a clause such as "it is not raining and a dog barks" is read as denying the dog, and a foreign word
that is spelt like a label counts as that label.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from harness.contracts import Decision, Label, ScorableAnswer, Scorer

_NEGATIONS = frozenset(
    "no not never without neither nor none non nothing cannot except excluding unlike doubt "
    "isnt arent wasnt werent dont doesnt didnt cant couldnt wont wouldnt hasnt havent".split()
)
_TWO_WORD_NEGATIONS = frozenset(
    {("instead", "of"), ("rather", "than"), ("other", "than"), ("absence", "of"), ("lack", "of"), ("free", "of")}
)
_CLAUSE_WORDS = frozenset("but only just however although though while whereas because".split())
_VERBS_BEFORE_NOT = frozenset("is are was were does do did can could has have".split())
_NOT_A_NEGATION = re.compile(r"\b(?:no|without(?: a| any)?) (?:doubt|question)\b")
_LABEL_MARKER = re.compile(r"\blabels?\s*:", re.IGNORECASE)
_PIECES = re.compile(r"[^\W_]+(?:'[^\W_]+)*|[.!?;:\n]+|[,()\[\]{}\"\u2013\u2014]|\s-+\s")
_SENTENCE_END = frozenset(".!?;:\n")
_MIN_PART_LETTERS = 3


@dataclass(frozen=True)
class _Word:
    """A folded word with the sentence and the clause it stands in."""

    raw: str
    stem: str
    sentence: int
    clause: int


@dataclass(frozen=True)
class _Mention:
    """Words `start` to `end` (exclusive) name the label of that position."""

    start: int
    end: int
    label: int


class _Forms:
    """How each label can be written: as a run of stems, and as one string without spaces."""

    def __init__(self, labels: Sequence[Label]) -> None:
        self.by_words: dict[tuple[str, ...], set[int]] = {}
        self.by_letters: dict[str, set[int]] = {}
        self.with_stops: set[tuple[str, ...]] = set()
        for position, label in enumerate(labels):
            for spelling in (label.name, label.text):
                words = _words(spelling)
                stems = tuple(word.stem for word in words)
                if stems:
                    if words[0].sentence != words[-1].sentence:
                        self.with_stops.add(stems)
                    self.by_words.setdefault(stems, set()).add(position)
                    self.by_letters.setdefault("".join(stems), set()).add(position)
        self.longest = max((len(stems) for stems in self.by_words), default=0)


def exact() -> Scorer:
    """The labels whose words stand in the answer; where one is wanted, none or several is unparsed."""
    return _Exact()


class _Exact:
    name = "exact"
    version = 2
    needs_label_scores = False
    gives_scores = False

    def decide(self, answers: Sequence[ScorableAnswer], labels: Sequence[Label]) -> Sequence[Decision]:
        forms = _Forms(labels)
        return [_decision(_named(answer.text, forms), labels) for answer in answers]


def _decision(named: set[int], labels: Sequence[Label]) -> Decision:
    # By name: a decision does not depend on the order of the labels.
    found = tuple(sorted(labels[position].name for position in named))
    return Decision(found[0] if len(found) == 1 else None, labels=found)


def _named(text: str, forms: _Forms) -> set[int]:
    """Positions of the labels that the text names."""
    found = _mentioned(text, forms)
    markers = list(_LABEL_MARKER.finditer(text)) if len(found) > 1 else []
    behind = _mentioned(text[markers[-1].end() :], forms) if markers else set()
    return behind or found


def _mentioned(text: str, forms: _Forms) -> set[int]:
    """Labels with a mention that is not negated."""
    words = _words(text)
    mentions = _without_inner(_mentions(words, forms))
    return {mention.label for mention in mentions if not _is_negated(words, mention)}


# --- words -----------------------------------------------------------------------------------------------------------


def _words(text: str) -> list[_Word]:
    """The words of a text, folded, each knowing its sentence and clause."""
    folded = unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'").replace("_", " ")
    words: list[_Word] = []
    sentence = clause = 0
    for piece in _PIECES.findall(_NOT_A_NEGATION.sub(" ", folded)):
        if not piece[0].isalnum():
            sentence += piece[0] in _SENTENCE_END
            clause += 1
            continue
        clause += piece in _CLAUSE_WORDS
        words.append(_Word(piece, _stem(piece), sentence, clause))
    return words


def _stem(word: str) -> str:
    """The word without possessive and plural ending."""
    word = word.removesuffix("'s").removesuffix("'").replace("'", "")
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("sses", "shes", "ches", "xes", "zes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


# --- mentions --------------------------------------------------------------------------------------------------------


def _mentions(words: Sequence[_Word], forms: _Forms) -> list[_Mention]:
    found: set[_Mention] = set()
    for start in range(len(words)):
        for end in range(start + 1, min(start + max(forms.longest, 2), len(words)) + 1):
            run = words[start:end]
            if run[0].sentence != run[-1].sentence and tuple(word.stem for word in run) not in forms.with_stops:
                continue
            found.update(_Mention(start, end, label) for label in _labels_of(run, forms))
    return sorted(found, key=lambda mention: (mention.start, mention.end, mention.label))


def _labels_of(run: Sequence[_Word], forms: _Forms) -> Iterable[int]:
    labels = forms.by_words.get(tuple(word.stem for word in run), set())
    if len(run) == 1:
        return labels | forms.by_letters.get(run[0].stem, set())
    if len(run) == 2 and all(len(word.raw) >= _MIN_PART_LETTERS for word in run):
        together = run[0].raw + run[1].stem
        single = forms.by_words.get((together,), set())
        return labels | single
    return labels


def _without_inner(mentions: Sequence[_Mention]) -> list[_Mention]:
    """Drop each mention that lies inside a longer one."""
    return [
        inner
        for inner in mentions
        if not any(
            outer.start <= inner.start and inner.end <= outer.end and outer.end - outer.start > inner.end - inner.start
            for outer in mentions
        )
    ]


# --- negation --------------------------------------------------------------------------------------------------------


def _is_negated(words: Sequence[_Word], mention: _Mention) -> bool:
    return _negated_before(words, mention) or _negated_after(words, mention)


def _negated_before(words: Sequence[_Word], mention: _Mention) -> bool:
    clause = words[mention.start].clause
    before = [word for word in words[: mention.start] if word.clause == clause]
    raws = [word.raw for word in before]
    return any(map(_is_negation, raws)) or any(pair in _TWO_WORD_NEGATIONS for pair in pairwise(raws))


def _negated_after(words: Sequence[_Word], mention: _Mention) -> bool:
    """ "... is not heard", "... isn't there", and a lone "no" as the next clause."""
    after = words[mention.end : mention.end + 3]
    last = words[mention.end - 1]
    if len(after) > 1 and after[0].raw in _VERBS_BEFORE_NOT and after[0].clause == last.clause:
        return after[1].raw in {"not", "never"} and after[1].clause == last.clause
    if after and after[0].clause == last.clause and after[0].raw.endswith("n't"):
        return True
    is_alone = len(after) == 1 or (len(after) > 1 and after[1].clause != after[0].clause)
    return bool(after) and after[0].raw == "no" and after[0].clause != last.clause and is_alone


def _is_negation(raw: str) -> bool:
    return raw in _NEGATIONS or raw.endswith("n't")
