"""What may be asked about a scene, in the very words of the tasks that ask it, and the right answer.

An answer is made from what the scene was composed of: the first sound, how many there are, which, whether one is there,
and a sentence that tells of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from harness import registry
from harness.contracts import Task
from harness.recipes._augment import Generator
from harness.recipes._scenes import MOST_REPEATS, Scene
from harness.scene_captions import scene_captions

Asked = tuple[str, str]  # prompt and answer
SOUND_PLACE = "{sound}"
ASKED_SOUND = "dog"  # stands in the task's questions where SOUND_PLACE stands here


@dataclass(frozen=True)
class SceneQuestions:
    """Questions and answers about scenes. `texts` maps the name of a class to its words.

    `presence` holds questions with SOUND_PLACE for the words of a class.
    """

    texts: Mapping[str, str]
    name: Sequence[str]
    first: Sequence[str]
    count: Sequence[str]
    which: Sequence[str]
    describe: Sequence[str]
    presence: Sequence[str]
    numbers: Sequence[str]

    def ask(self, scene: Scene, random: Generator) -> Asked:
        """One of the questions that this scene has an answer to, each kind alike likely."""
        kinds: list[Callable[[Scene, Generator], Asked]] = [self._describe, self.ask_presence]
        different = set(scene.labels)
        if len(different) == 1:
            kinds += [self._name, self._count]
        if len(different) == len(scene.labels):
            kinds.append(self._which)
        if len(different) > 1:
            kinds.append(self._first)
        return kinds[int(random.integers(len(kinds)))](scene, random)

    def ask_presence(self, scene: Scene, random: Generator) -> Asked:
        """Whether a sound is there: as often one that is as one that is not."""
        is_there = bool(random.random() < 0.5)
        others = [label for label in self.texts if label not in scene.labels]
        choices = list(scene.labels) if is_there else others
        label = choices[int(random.integers(len(choices)))]
        prompt = _one_of(self.presence, random).replace(SOUND_PLACE, self.texts[label])
        return prompt, "yes" if is_there else "no"

    def _name(self, scene: Scene, random: Generator) -> Asked:
        return _one_of(self.name, random), self.texts[scene.labels[0]]

    def _count(self, scene: Scene, random: Generator) -> Asked:
        return _one_of(self.count, random), self.numbers[len(scene.labels) - 1]

    def _which(self, scene: Scene, random: Generator) -> Asked:
        return _one_of(self.which, random), ", ".join(self.texts[label] for label in scene.labels)

    def _first(self, scene: Scene, random: Generator) -> Asked:
        # All but the first of the questions speak of two sounds.
        fitting = self.first if len(scene.labels) == 2 else self.first[:1]
        return _one_of(fitting, random), self.texts[scene.labels[0]]

    def _describe(self, scene: Scene, random: Generator) -> Asked:
        labels = tuple(dict.fromkeys(scene.labels))
        return _one_of(self.describe, random), _one_of(scene_captions(labels, scene.behind), random)


def scene_questions(texts: Mapping[str, str]) -> SceneQuestions:
    """The questions of `needle`, `sound_order`, `sound_count`, `soundscape` and `sound_presence`.

    Args:
        texts: class name to the words that name it, of the classes that scenes are made of.
    """
    count: Task = registry.create("tasks", "sound_count", {"most": MOST_REPEATS}).value
    needle = _prompts("needle")
    presence = _prompts("sound_presence", sound=ASKED_SOUND)
    return SceneQuestions(
        texts=texts,
        name=(needle["classify"], needle["which"]),
        first=tuple(_prompts("sound_order").values()),
        count=tuple(count.prompts.values()),
        which=(_prompts("soundscape")["which"],),
        describe=tuple(_prompts("soundscape", answer="caption").values()),
        presence=tuple(text.replace(f"'{ASKED_SOUND}'", f"'{SOUND_PLACE}'") for text in presence.values()),
        numbers=tuple(label.text for label in count.labels),
    )


def _prompts(task: str, **options: str) -> Mapping[str, str]:
    made: Task = registry.create("tasks", task, options).value
    return made.prompts


def _one_of(choices: Sequence[str], random: Generator) -> str:
    return choices[int(random.integers(len(choices)))]
