"""README: its numbers come from records, its commands and its plugin work."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from harness import registry
from harness.errors import RecordError
from harness.readme import filled_in
from harness.training_forecast import GIB, Devices, forecast

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def _harness(*words: str, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness", *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def test_the_numbers_in_readme_are_those_of_the_reference_records() -> None:
    assert filled_in(README, REPOSITORY / "results" / "reference") == README


def test_readme_opens_with_the_two_figures_and_the_main_table() -> None:
    opening = README[: README.index("## What the output means")]
    assert [opening.count(mark) for mark in ("](results/figures/", "<!-- generated: main -->")] == [2, 1]
    models = re.findall(r"^\| ([\w:]+) \| ", opening, re.MULTILINE)
    assert {"ssalm:tiny", "ltu:tiny", "hybrid:tiny", "ast_mamba:tiny", "majority", "chance"} <= set(models)


@pytest.mark.parametrize(
    ("name", "file"), [("main", "main-starter.md"), ("architecture", "architecture-tiny-scenes_1-exact.md")]
)
def test_a_table_of_readme_is_the_one_that_report_writes(name: str, file: str) -> None:
    part = README[README.index(f"<!-- generated: {name} -->") : README.index(f"<!-- end generated: {name} -->")]
    written = (REPOSITORY / "results" / "tables" / file).read_text(encoding="utf-8")
    rows = [
        [line.replace("\\", "") for line in text.splitlines() if line.startswith("| ")][2:] for text in (part, written)
    ]
    assert rows[0] == rows[1] and rows[0]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["ssalm:2.8b", "ltu:7b"])
def test_the_memory_that_readme_foretells_is_what_a_dry_run_computes(model: str) -> None:
    (told,) = re.findall(rf"^\| {model} \| ([\d. |]+) \|$", README, re.MULTILINE)
    name, variant = registry.split_model(model)
    made = registry.create("models", name, {"variant": variant}).value
    recipe = registry.create("recipes", "openaqa", {}).value
    found = []
    for is_sharded in (False, True):
        for recompute in (False, True):
            config = replace(recipe.defaults, recompute=recompute)
            stages, _ = forecast(made, recipe, config, None, None, Devices(8, is_sharded))
            found.append(max(sum(stage.needs["bytes"].values()) for stage in stages[1:]) / GIB)
    assert told == " | ".join(f"{gib:.1f}" for gib in found)


def test_results_that_are_not_whole_make_no_readme(tmp_path: Path) -> None:
    torn = tmp_path / "runs" / "ssalm-tiny" / "esc50" / "20260101T000000Z-00000000"
    torn.mkdir(parents=True)
    (torn / "record.json").write_text('{"schema_version"')
    with pytest.raises(RecordError, match="whole results alone"):
        filled_in(README, tmp_path)


def test_a_part_without_its_records_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no run"):
        filled_in("<!-- generated: needle -->\n<!-- end generated: needle -->", tmp_path)


def test_a_part_that_nothing_makes_is_an_error() -> None:
    text = "<!-- generated: weather -->\n<!-- end generated: weather -->"
    with pytest.raises(RecordError, match="weather"):
        filled_in(text, REPOSITORY / "results")


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that README shows, as a reader would copy it."""
    shown = re.search(r"<!-- plugin: (\S+) -->\n```python\n(.*?)```", README, re.DOTALL)
    assert shown is not None
    file = tmp_path_factory.mktemp("outside") / shown[1]
    file.write_text(shown[2])
    return file


def test_the_plugin_that_readme_shows_keeps_the_contract(plugin: Path) -> None:
    done = _harness("check", "--plugin", str(plugin), "--model", plugin.stem)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_plugin_that_readme_shows_runs_on_esc50(plugin: Path, tmp_path: Path) -> None:
    done = _harness(
        *("run", "--plugin", str(plugin), "--model", plugin.stem, "--task", "esc50", "-m", "threshold=0.1"),
        *("--limit", "10", "--results", str(tmp_path)),
    )
    assert done.returncode == 0, done.stderr
    assert "loudness  esc50 (starter)" in done.stdout


def test_every_file_that_readme_links_to_exists() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith(("http", "#"))]
    assert [link for link in links if not (REPOSITORY / link).exists()] == []


def test_every_heading_that_readme_links_to_exists() -> None:
    headings = re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= anchors
