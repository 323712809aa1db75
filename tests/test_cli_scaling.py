"""The command: what it prints, writes and returns, with a model of known cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import harness.scaling
import harness.scaling_figures
from harness.cli import main
from harness.fresh_process import Outcome, kind_of
from harness.measure_point import measure

PLUGIN = Path(__file__).parent / "plugins" / "costed.py"


def _in_this_process(target: str, arguments: Mapping[str, Any], **limits: Any) -> Outcome:
    if "coverage" in target:
        return Outcome("ok", {"formula_flops": {}, "counted_flops": {}, "uncovered": []}, "", 0.1, 0)
    try:
        return Outcome("ok", measure(**arguments), "", 0.1, 0)
    except Exception as error:
        return Outcome(kind_of(error), None, str(error), 0.1, 0)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three short lengths of the model of known cost."""
    monkeypatch.setattr(harness.scaling, "run_fresh", _in_this_process)
    monkeypatch.setattr(harness.scaling_figures, "draw_figures", lambda points, folder: [])
    words = ["scaling", "--model", "costed", "--plugin", str(PLUGIN), "--results", str(tmp_path), "--device", "cpu"]
    return [*words, "--seconds", "0.5,1,2", "--tokens", "3", "--most-seconds", "0.05", "--half-width", "10"]


def test_the_command_writes_points_record_and_tables(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 0
    (folder,) = (path for path in (tmp_path / "scaling").iterdir() if path.is_dir())
    assert {"points.jsonl", "record.json", "points.md", "crossovers.tex", "exponents.csv"} <= {
        path.name for path in folder.iterdir()
    }
    printed = capsys.readouterr()
    assert "Operations" in printed.out and str(folder) in printed.out
    assert "costed" in json.loads((folder / "record.json").read_text())["sessions"][0]["config"]["models"]


def test_a_point_that_fails_makes_the_exit_code_one_and_is_told(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "-m", "breaks=memory", "-m", "breaks_beyond_s=1"]) == 1
    assert "costed, 2 s: out of memory: no room" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seconds", "1,soon"], "is not a list of numbers"),
        (["--seconds", "-1"], "must be positive"),
        (["--tokens", "1"], "--tokens 1"),
        (["--model", "nobody"], "Unknown model"),
        (["--device", "abacus"], "--device 'abacus'"),
    ],
)
def test_a_mistake_is_one_line(
    command: list[str], words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, *words]) == 2
    printed = capsys.readouterr().err
    assert message in printed and "Traceback" not in printed
