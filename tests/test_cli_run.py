"""`run` and `score` on the command line: what they print and which exit code they leave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from harness.cli import main

PLUGINS = Path(__file__).parent / "plugins"
REPOSITORY = Path(__file__).resolve().parents[1]
FAKES = ("--plugin", str(PLUGINS / "moody.py"), "--plugin", str(PLUGINS / "beeps.py"))
RUN = ("run", "--model", "moody", "--task", "beeps", "--threads", "1", "--device", "cpu", *FAKES)


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs a command in an empty folder, and leaves the environment as it was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LALM_HARNESS_DATA", raising=False)
    monkeypatch.setattr("os.environ", dict(os.environ))
    return lambda *words: main(list(words))


def test_a_complete_run_prints_its_table_and_leaves_0(
    call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*RUN) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("model") and out[1].startswith("moody") and out[3].startswith("Record: results")


def test_failures_beyond_the_limit_leave_1(call: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*RUN, "-t", "broken=beep-01") == 1
    assert "1 of 12 items failed; --max-failures allows 0" in capsys.readouterr().err


def test_failures_within_the_limit_leave_0(call: Callable[..., int]) -> None:
    assert call(*RUN, "-t", "broken=beep-01", "--max-failures", "10%") == 0


@pytest.mark.parametrize("mood", ["no text", "nan in generation", "has no weights"])
def test_a_broken_contract_is_one_line_and_leaves_2(
    call: Callable[..., int], capsys: pytest.CaptureFixture[str], mood: str
) -> None:
    assert call(*RUN, "-m", f"mood={mood}", "-m", "on=beep-00") == 2
    *progress, error = capsys.readouterr().err.splitlines()
    assert error.startswith("error: The model") and all("items done" in line for line in progress)


@pytest.mark.parametrize(
    ("words", "part_of_message"),
    [
        (("--limit", "0"), "--limit 0"),
        (("--max-failures", "some"), "--max-failures 'some'"),
        (("--scorer", "exakt"), "Did you mean exact"),
        (("--prompt", "clasify"), "Did you mean classify"),
        (("--data-root", "nowhere"), "no such folder"),
        (("--items", "nowhere.txt"), "cannot be read"),
        (("-m", "mod=fine"), "Did you mean mood"),
        (("-m", "delay_s=nan"), "cannot be 'nan'"),
        (("--device", "mps"), "no Apple GPU"),
        (("--limit", "few"), "'--limit'"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_2(
    call: Callable[..., int], capsys: pytest.CaptureFixture[str], words: tuple[str, ...], part_of_message: str
) -> None:
    assert call(*RUN, *words) == 2
    err = capsys.readouterr().err
    assert part_of_message in err and err.count("\n") == 1


def test_a_second_call_says_that_the_run_is_complete(
    call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    call(*RUN)
    capsys.readouterr()
    assert call(*RUN) == 0
    assert "This run is complete" in capsys.readouterr().err


def test_scorers_are_named_by_commas_or_one_by_one(call: Callable[..., int]) -> None:
    call(*RUN, "--scorer", "exact,loglik", "--results", "a")
    call(*RUN, "--scorer", "loglik", "--scorer", "exact", "--results", "b")
    records = [json.loads(path.read_text()) for path in sorted(Path().glob("*/runs/*/*/*/record.json"))]
    assert [[row["scorer"] for row in record["scores"]] for record in records] == [
        ["exact", "loglik"],
        ["loglik", "exact"],
    ]


def test_score_prints_a_table_and_writes_its_file(call: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    call(*RUN)
    capsys.readouterr()
    (folder,) = (path.parent for path in Path("results/runs").rglob("record.json"))
    assert call("score", str(folder), "--scorer", "exact") == 0
    assert "exact" in capsys.readouterr().out.splitlines()[1] and (folder / "scores-exact.json").exists()


def test_score_without_a_scorer_leaves_2(call: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("score", ".") == 2
    assert "--scorer NAME" in capsys.readouterr().err


def test_an_interrupt_from_the_keyboard_leaves_130(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "LALM_HARNESS_DATA"}
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", *RUN, "-m", "delay_s=0.05", "-t", "n=200"],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts what runs in the background deaf to this signal, and a child takes that over.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "The same command continues there." in err and "Traceback" not in err


def test_run_and_controls_make_the_same_config_of_the_same_words(
    call: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(import_module("harness.cli.run"), "_carry_out", lambda config: seen.append(config) or 0)
    monkeypatch.setattr(import_module("harness.cli.controls"), "_carry_out", lambda config: seen.append(config) or 0)
    words = ("--model", "ltu:tiny", "--task", "esc50", "--protocol", "ltu", "--limit", "3", "--seed", "5", "--fresh")
    more = ("-m", "seed=1", "-t", "fold=2", "--scorer", "embed,exact", "--threads", "1", "--results", "r")
    assert (call("run", *words, *more), call("controls", *words, *more)) == (0, 0)
    assert seen[0] == seen[1] and seen[0].protocol == "ltu" and seen[0].scorers == ("embed", "exact")
