"""Every kind of odd file has a defined outcome in a run: heard, or failed with its reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from harness.config import RunConfig
from harness.records import Prediction, load_predictions
from harness.registry import add_plugin_file
from harness.runner import run

PLUGINS = Path(__file__).parent / "plugins"


def _make_files(folder: Path) -> None:
    """One second of noise in many forms, and files that hold none."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 8_000)
    for name, rate_hz, subtype in (
        ("8bit", 16_000, "PCM_U8"),
        ("24bit", 16_000, "PCM_24"),
        ("8khz", 8_000, "PCM_16"),
        ("96khz", 96_000, "PCM_16"),
    ):
        soundfile.write(folder / f"{name}.wav", noise, rate_hz, subtype)
    soundfile.write(folder / "stereo.wav", np.stack([noise, -0.5 * noise], axis=1), 16_000)
    soundfile.write(folder / "silent.wav", np.zeros(8_000), 16_000)
    soundfile.write(folder / "nan.wav", np.where(np.arange(8_000) == 77, np.nan, noise), 16_000, "FLOAT")
    soundfile.write(folder / "no_samples.wav", np.zeros(0), 16_000)
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("this is no sound")
    (folder / "folder.wav").mkdir()


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Prediction]:
    """What became of each file in one run."""
    folder, results = tmp_path_factory.mktemp("files"), tmp_path_factory.mktemp("results")
    _make_files(folder)
    add_plugin_file(PLUGINS / "any_folder.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(results)
        patch.delenv("LALM_HARNESS_DATA", raising=False)
        options = {"folder": str(folder)}
        config = RunConfig("echo", "any_folder", task_options=options, results=results, device="cpu", batch_size=3)
        outcome = run(config, say=lambda line: None)
    return {row.item_id: row for row in load_predictions(outcome.folder)}


@pytest.mark.parametrize("name", ["8bit.wav", "24bit.wav", "8khz.wav", "96khz.wav", "stereo.wav", "silent.wav"])
def test_an_odd_format_is_heard(rows: dict[str, Prediction], name: str) -> None:
    assert (rows[name].status, rows[name].error) == ("ok", None)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nan.wav", "NaN"),
        ("no_samples.wav", "no samples"),
        ("empty.wav", "empty"),
        ("text.wav", "cannot be decoded"),
        ("folder.wav", "not a file"),
        ("missing.wav", "no such file"),
    ],
)
def test_a_file_without_sound_fails_with_its_reason(rows: dict[str, Prediction], name: str, reason: str) -> None:
    assert rows[name].error_type == "AudioError" and reason in (rows[name].error or "")


def test_silence_is_noted(rows: dict[str, Prediction]) -> None:
    assert "silent" in rows["silent.wav"].notes


def test_rate_and_channels_of_the_file_are_recorded(rows: dict[str, Prediction]) -> None:
    facts = [(rows[name].source_rate_hz, rows[name].source_channels) for name in ("96khz.wav", "stereo.wav")]
    assert facts == [(96_000, 1), (16_000, 2)]
