"""Every kind of odd file has a defined outcome in a run: heard as it is, or failed with its reason."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from harness.audio import FileSource
from harness.config import RunConfig
from harness.contracts import AudioClip
from harness.records import Prediction, load_predictions
from harness.registry import add_plugin_file
from harness.runner import RunOutcome, run

PLUGINS = Path(__file__).parent / "plugins"
RATE_HZ = 16_000
THREE_HOURS_S = 3 * 3600
# Name of the file: its rate, subtype and channels, and how far a decoded sample may lie from the tone that was written.
FORMATS = {
    "8bit.wav": (16_000, "PCM_U8", 1, 0.01),
    "24bit.wav": (16_000, "PCM_24", 1, 1e-6),
    "8khz.wav": (8_000, "PCM_16", 1, 2e-4),
    "96khz.wav": (96_000, "PCM_16", 1, 2e-4),
    "stereo.wav": (16_000, "PCM_16", 2, 1e-4),
}


def tone(rate_hz: int) -> npt.NDArray[np.float64]:
    """One second of 440 Hz."""
    return 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate_hz) / rate_hz)


def write_files(folder: Path) -> None:
    """One second in many forms, and files that hold none."""
    for name, (rate_hz, subtype, channels, _) in FORMATS.items():
        # The second channel is the first at half its height, turned over: their mean is a quarter of the tone.
        frames = np.stack([tone(rate_hz), -0.5 * tone(rate_hz)][:channels], axis=1)
        soundfile.write(folder / name, frames, rate_hz, subtype)
    soundfile.write(folder / "silent.wav", np.zeros(8_000), RATE_HZ)
    broken = np.where(np.arange(8_000) == 77, np.nan, tone(RATE_HZ)[:8_000])
    soundfile.write(folder / "nan.wav", broken, RATE_HZ, "FLOAT")
    soundfile.write(folder / "no_samples.wav", np.zeros(0), RATE_HZ)
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("this is no sound")
    (folder / "folder.wav").mkdir()


def write_three_hours(path: Path) -> None:
    """8 bits at 8 kHz: 86 MB that take no place on disk but for the header."""
    soundfile.write(path, np.zeros(1), 8_000, "PCM_U8")
    content = bytearray(path.read_bytes())
    n_bytes = THREE_HOURS_S * 8_000
    start = content.index(b"data") + 8
    content[4:8] = (start - 8 + n_bytes).to_bytes(4, "little")
    content[start - 4 : start] = n_bytes.to_bytes(4, "little")
    with path.open("wb") as file:
        file.write(content[:start])
        file.truncate(start + n_bytes)


def run_on(folder: Path, results: Path, **options: object) -> RunOutcome:
    """Let the listener hear a folder; empty options are left out."""
    for name in ("any_folder", "listener"):
        add_plugin_file(PLUGINS / f"{name}.py")
    config = RunConfig(
        "listener",
        "any_folder",
        model_options=options,  # type: ignore[arg-type]
        task_options={"folder": str(folder)},
        results=results,
        device="cpu",
        batch_size=3,
    )
    return run(config, say=lambda line: None)


def heard() -> dict[str, AudioClip]:
    """What the listener heard last."""
    return dict(sys.modules["lalm_harness_plugin_listener"].HEARD)


@pytest.fixture(scope="module", autouse=True)
def _no_data_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("current"))
        patch.delenv("LALM_HARNESS_DATA", raising=False)
        yield


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Prediction], dict[str, AudioClip]]:
    """What became of each file in one run, and what the model heard."""
    folder = tmp_path_factory.mktemp("files")
    write_files(folder)
    done = run_on(folder, tmp_path_factory.mktemp("results"))
    return {row.item_id: row for row in load_predictions(done.folder)}, heard()


@pytest.fixture
def rows(outcome: tuple[dict[str, Prediction], dict[str, AudioClip]]) -> dict[str, Prediction]:
    return outcome[0]


@pytest.fixture
def clips(outcome: tuple[dict[str, Prediction], dict[str, AudioClip]]) -> dict[str, AudioClip]:
    return outcome[1]


@pytest.mark.parametrize("name", [*FORMATS, "silent.wav"])
def test_an_odd_format_is_heard(rows: dict[str, Prediction], name: str) -> None:
    assert (rows[name].status, rows[name].error) == ("ok", None)


@pytest.mark.parametrize("name", FORMATS)
def test_an_odd_format_is_heard_as_what_was_written(clips: dict[str, AudioClip], name: str) -> None:
    tolerance, scale = FORMATS[name][3], 0.25 if FORMATS[name][2] == 2 else 1.0
    assert (clips[name].sample_rate_hz, clips[name].samples.shape) == (RATE_HZ, (RATE_HZ,))
    # A resampling filter rings at both ends.
    middle = slice(RATE_HZ // 10, -RATE_HZ // 10)
    assert np.abs(clips[name].samples - scale * tone(RATE_HZ))[middle].max() < tolerance


@pytest.mark.parametrize("name", FORMATS)
def test_rate_channels_and_length_of_the_file_are_recorded(rows: dict[str, Prediction], name: str) -> None:
    rate_hz, _, channels, _ = FORMATS[name]
    row = rows[name]
    assert (row.source_rate_hz, row.source_channels, row.duration_s) == (rate_hz, channels, 1.0)


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


def test_three_hours_are_heard_whole(tmp_path: Path) -> None:
    write_three_hours(tmp_path / "long.wav")
    done = run_on(tmp_path, tmp_path / "results", rate_hz=1_000)
    row = next(row for row in load_predictions(done.folder) if row.item_id == "long.wav")
    assert (row.status, row.duration_s, row.source_rate_hz) == ("ok", THREE_HOURS_S, 8_000)
    assert len(heard()["long.wav"].samples) == THREE_HOURS_S * 1_000


def test_three_hours_fail_undecoded_for_a_model_that_takes_ten_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_three_hours(tmp_path / "long.wav")
    soundfile.write(tmp_path / "short.wav", tone(RATE_HZ), RATE_HZ)
    decoded = []
    load = FileSource.load
    monkeypatch.setattr(FileSource, "load", lambda self, rate: decoded.append(self.path.name) or load(self, rate))
    done = run_on(tmp_path, tmp_path / "results", max_audio_s=600)
    rows = {row.item_id: row for row in load_predictions(done.folder)}
    assert (rows["long.wav"].error_type, rows["long.wav"].error) == (
        "ModelLimitError",
        "the clip lasts 10800.0 s; the model takes at most 600 s",
    )
    assert rows["short.wav"].status == "ok" and "long.wav" not in decoded


def test_a_name_that_no_file_can_have_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [tmp_path / "a\0b.wav"]
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(names))
    (row, missing) = load_predictions(run_on(tmp_path, tmp_path / "results").folder)
    assert (row.item_id, row.error_type, missing.error_type) == ("a\0b.wav", "AudioError", "AudioError")
