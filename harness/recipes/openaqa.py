"""LTU's perception-to-understanding curriculum on OpenAQA: four stages, for ssLALM, the hybrid and LTU alike.

Source: YuanGongND/ltu src/ltu/train_script/stage*.sh and finetune.py (arXiv 2305.10790). ssLALM's own schedule is not
known (arXiv 2411.15685 has OpenAQA and LTU's structure), so LTU's is taken for it too.

    stage           learns                        from                           rate   epochs
    1 projection    connector                     closed-ended classification    1e-3   2
    2 all           encoder, connector, LoRA      closed-ended classification    1e-4   2
    3 closed        the same                      all closed-ended questions     1e-4   1
    4 open          the same                      everything, 5.7 M items        1e-4   1

In all: 256 items a step, AdamW without decay, 100 steps of warm-up and a linear fall, gradients clipped at 1, bfloat16,
texts cut at 108 tokens, items of like length side by side, loss on the question's tokens too, LoRA of rank 8, alpha 16
and dropout 0.05. Clips are cut or padded to what the encoder was trained on: 10.24 s.

Files are looked for under <data root>/openaqa, or in the data root, by the names that the scripts give them:
closed_ended/combine_cla.json, closed_ended/all_closed_qa.json and openaqa_5.6M.json; `data` names one for all stages,
as for the toy set. LTU's "Closed-ended question: " before half of stage 4's closed items is in its file already.

Where this differs: LTU averaged the losses of micro-batches, here every token of a step counts alike, so that the size
of a micro-batch does not matter; and stage 1 has LTU's LoRA already, whose second factor is zero, so it says nothing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from harness.config import DATA_VARIABLE
from harness.contracts import OptionValue
from harness.curriculum import CurriculumConfig, CurriculumRecipe, Lesson, Part, PreparedCurriculum, Stage
from harness.errors import MissingDataError, OptionError
from harness.hashing import file_sha256
from harness.recipes._openaqa_items import AudioFolders, OpenAqaItem, read_items
from harness.recipes._openaqa_order import OrderedLessons, lesson_of

FOLDER = "openaqa"
HOMEPAGE = "https://github.com/YuanGongND/ltu"
FILES: Mapping[str, str] = {
    "classification": "closed_ended/combine_cla.json",
    "closed": "closed_ended/all_closed_qa.json",
    "everything": "openaqa_5.6M.json",
}
EVERY_PART: tuple[Part, ...] = ("encoder", "connector", "lora")
STAGES = (
    Stage("projection", ("connector",), "classification", 1e-3, epochs=2, published_steps=9_000),
    Stage("all", EVERY_PART, "classification", 1e-4, epochs=2, published_steps=9_200),
    Stage("closed", EVERY_PART, "closed", 1e-4, epochs=1, published_steps=6_000),
    Stage("open", EVERY_PART, "everything", 1e-4, epochs=1, published_steps=20_000),
)
DEFAULTS = CurriculumConfig(
    stages=STAGES,
    batch_size=256,
    micro_batch_size=4,
    warmup_steps=100,
    weight_decay=0.0,
    gradient_clip=1.0,
    max_text_tokens=108,
    loss_on_prompt=True,
    lora_dropout=0.05,
    precision="bfloat16",
    recompute=False,
    max_steps=None,
    seed=0,
    threads=1,
    device="cpu",
    checkpoint_every=500,
    log_every=10,
    held_out_every=500,
)


@dataclass(frozen=True)
class OpenAqaRecipe:
    """See the module's text."""

    data: Path | None
    held_out: int
    features: Path | None
    defaults: CurriculumConfig
    name: str = "openaqa"
    version: int = 1

    def prepare(self, config: CurriculumConfig, data_root: Path | None) -> PreparedCurriculum:
        """Read the files, and keep the held-out clips' items back.

        Raises:
            MissingDataError: a file is not there.
            UsageError: a file is none of OpenAQA.
        """
        root = data_folder(data_root)
        folders = AudioFolders(root)
        wanted = {stage.data for stage in config.stages}
        paths = {name: self.data or root / FILES[name] for name in FILES if name in wanted}
        _require(paths.values())
        read = {path: read_items(path) for path in dict.fromkeys(paths.values())}
        back = held_out_clips([item for items, _ in read.values() for item in items], self.held_out)
        kept = {path: [item for item in items if item.audio_id not in back] for path, (items, _) in read.items()}
        sources = {
            name: OrderedLessons(path.name, kept[path], folders, config.seed, config.batch_size)
            for name, path in paths.items()
        }
        malformed = [entry for _, entries in read.values() for entry in entries]
        about: dict[str, OptionValue] = {"recipe": self.name, "recipe_version": self.version, "held_out": self.held_out}
        about |= {f"{name}_sha256": file_sha256(path) for name, path in paths.items()}
        about |= {f"{name}_items": len(lessons) for name, lessons in sources.items()}
        return PreparedCurriculum(
            sources=sources,
            held_out=_held_out_lessons(read, back, folders),
            malformed=malformed,
            about=about,
            trained_on=f"OpenAQA: {', '.join(path.name for path in read)}",
            features_folder=self.features,
        )


def data_folder(data_root: Path | None) -> Path:
    """`openaqa` in the data root where it is there, else the data root; without one, the usual places of data.

    Raises:
        MissingDataError: there is no such folder.
    """
    named = os.environ.get(DATA_VARIABLE)
    root = data_root or (Path(named) if named else Path("data"))
    if not root.is_dir():
        raise MissingDataError(
            f"{root} is no folder: say with --data-root where OpenAQA and its clips lie ({HOMEPAGE})"
        )
    return root / FOLDER if (root / FOLDER).is_dir() else root


def held_out_clips(items: Sequence[OpenAqaItem], n_clips: int) -> frozenset[str]:
    """So many clips, by their names' hashes: the same ones in whatever order the files have them.

    Raises:
        OptionError: nothing would be left to learn from.
    """
    clips = {item.audio_id for item in items}
    if n_clips >= len(clips):
        raise OptionError(f"held_out={n_clips} leaves nothing to learn from: there are {len(clips)} clips")
    by_hash = sorted(clips, key=lambda clip: hashlib.sha256(clip.encode()).digest())
    return frozenset(by_hash[:n_clips])


def _held_out_lessons(
    read: Mapping[Path, tuple[list[OpenAqaItem], object]], back: frozenset[str], folders: AudioFolders
) -> list[Lesson]:
    """One question about each clip that is kept back: the first, in the last file that has one."""
    chosen: dict[str, Lesson] = {}
    for path, (items, _) in reversed(list(read.items())):
        for item in items:
            if item.audio_id in back and item.audio_id not in chosen:
                chosen[item.audio_id] = lesson_of(path.name, item, folders)
    return [chosen[clip] for clip in sorted(chosen)]


def _require(paths: Iterable[Path]) -> None:
    missing = [str(path) for path in dict.fromkeys(paths) if not path.is_file()]
    if missing:
        raise MissingDataError(
            f"There is no {', '.join(missing)}. OpenAQA's files are linked from {HOMEPAGE}; its clips must be had from "
            "their own homes. With -r data=FILE one file serves all stages."
        )


def openaqa(
    data: Path | None = None,
    held_out: int = 0,
    features: Path | None = None,
    loss: Literal["all", "answer"] = "all",
    first_stage: int = 1,
    last_stage: int = 4,
    warmup_steps: int = 100,
) -> CurriculumRecipe:
    """OpenAQA in LTU's four stages.

    Args:
        data: one file for every stage, in place of the three published ones.
        held_out: how many clips are never learned from; one question about each is asked now and then.
        features: a folder to keep the clips' features in, 256 KiB each, so that each is decoded once.
        loss: "all" counts the question's tokens too, as published; "answer" the answer's alone.
        first_stage: where to begin, 1 to 4; the stage before should be what -m weights= names.
        last_stage: where to end.
        warmup_steps: of each stage.
    """
    if held_out < 0 or warmup_steps < 0:
        raise OptionError("held_out and warmup_steps must not be negative")
    if not 1 <= first_stage <= last_stage <= len(STAGES):
        raise OptionError(f"first_stage and last_stage must be in order and from 1 to {len(STAGES)}")
    stages = STAGES[first_stage - 1 : last_stage]
    config = replace(DEFAULTS, stages=stages, warmup_steps=warmup_steps, loss_on_prompt=loss == "all")
    return OpenAqaRecipe(data, held_out, features, config)
