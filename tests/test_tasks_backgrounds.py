"""Backgrounds of long audio: made from any point on, of known power and peak, and of what they say."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from harness.errors import AudioError
from tasks._backgrounds import Ambience, Background, Recording, make_background
from tasks._clips import power, starter_words
from tasks._long_task import AMBIENCES, BACKGROUNDS, RATE_HZ
from tasks._mean_level import MeanLevelNoise, _convolved

SOUNDING = tuple(name for name in BACKGROUNDS if name != "silence")
N = 45 * RATE_HZ


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """3 s of a tone that grows, at another rate."""
    time_s = np.arange(3 * 22_050) / 22_050
    soundfile.write(tmp_path / "own.wav", 0.3 * np.sin(2 * np.pi * 441 * time_s) * (0.5 + time_s / 6), 22_050)
    return tmp_path / "own.wav"


def made(name: str, recording: Path, seed: int = 3) -> Background:
    return make_background(str(recording) if name == "file" else name, seed)


@pytest.mark.parametrize("name", [*BACKGROUNDS, "file"])
def test_a_section_is_the_same_however_it_is_asked(name: str, recording: Path) -> None:
    background = made(name, recording)
    cuts = [0, 1, 7, 160_003, 160_004, 500_000, N]
    pieces = [background.section(start, stop) for start, stop in zip(cuts, cuts[1:], strict=False)]
    # The filter of mean_level goes through FFTs, whose rounding depends on where they begin.
    np.testing.assert_allclose(np.concatenate(pieces), background.section(0, N), atol=1e-6)


@pytest.mark.parametrize("name", [*BACKGROUNDS, "file"])
def test_a_section_has_the_length_and_type_that_were_asked(name: str, recording: Path) -> None:
    section = made(name, recording).section(12_345, 12_345 + 40_000)
    assert section.shape == (40_000,)
    assert section.dtype == np.float32


@pytest.mark.parametrize("name", ["white", "babble", "ambience", "file"])
def test_the_power_is_about_one(name: str, recording: Path) -> None:
    assert 10 * np.log10(power(made(name, recording).section(0, N))) == pytest.approx(0.0, abs=1.0)


@pytest.mark.parametrize("name", [*BACKGROUNDS, "file"])
def test_no_sample_is_above_the_peak_that_is_told(name: str, recording: Path) -> None:
    background = made(name, recording)
    assert np.abs(background.section(0, N)).max() <= background.peak() * (1 + 1e-6)


@pytest.mark.parametrize("name", SOUNDING)
def test_another_seed_is_another_sound_and_another_identity(name: str, recording: Path) -> None:
    one, other = made(name, recording, 1), made(name, recording, 2)
    assert one.identity() != other.identity()
    assert not np.array_equal(one.section(0, 1000), other.section(0, 1000))


@pytest.mark.parametrize("name", SOUNDING)
def test_one_seed_is_one_sound(name: str, recording: Path) -> None:
    one, other = made(name, recording), made(name, recording)
    assert one.identity() == other.identity()
    assert np.array_equal(one.section(0, 1000), other.section(0, 1000))


@pytest.mark.parametrize("seed", range(40))
def test_an_ambience_has_no_gap(seed: int) -> None:
    background = make_background("ambience", seed)
    assert isinstance(background, Ambience)
    assert background.clip.label in AMBIENCES
    windows = background.section(0, 20 * RATE_HZ).reshape(-1, RATE_HZ // 4)
    assert 10 * np.log10(min(power(window) for window in windows)) > -16


def test_babble_is_made_of_all_twelve_voices() -> None:
    assert len({clip.recording for clip in starter_words()}) == 12


def test_babble_has_no_gap() -> None:
    windows = make_background("babble", 0).section(0, 60 * RATE_HZ).reshape(-1, RATE_HZ // 4)
    assert 10 * np.log10(min(power(window) for window in windows)) > -12


def test_a_recording_is_looped_without_a_step(recording: Path) -> None:
    loop = Recording(recording, 0).section(0, 10 * RATE_HZ)
    # A tone of 441 Hz at amplitude below 1.7 moves by less than 0.31 a sample.
    assert np.abs(np.diff(loop)).max() < 0.31


def test_a_recording_is_in_memory_once_while_it_is_made_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks._backgrounds.FILE_SECONDS", 240.0)
    tone = np.sin(np.arange(RATE_HZ * 300, dtype=np.float32) * 0.1) * np.float32(0.3)
    soundfile.write(tmp_path / "long.wav", tone, RATE_HZ)
    del tone
    background = Recording(tmp_path / "long.wav", 2**63 - 1)
    tracemalloc.start()
    try:
        background.section(0, 10)
        background.peak()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.1 * 4 * 240 * RATE_HZ + 24e6  # and the blocks beside it


def test_a_changed_recording_has_another_identity(recording: Path) -> None:
    before = Recording(recording, 0).identity()
    soundfile.write(recording, np.full(RATE_HZ, 0.1), RATE_HZ)
    assert Recording(recording, 0).identity() != before


@pytest.mark.parametrize("samples", [np.zeros(3 * RATE_HZ), np.full(100, 0.1)], ids=["silent", "short"])
def test_a_recording_that_makes_no_background_is_refused(samples: np.ndarray, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "bad.wav", samples, RATE_HZ)
    with pytest.raises(AudioError, match=r"bad\.wav is silent or shorter than 0\.5 s"):
        Recording(tmp_path / "bad.wav", 0).section(0, 10)


def test_blockwise_convolution_equals_the_plain_one() -> None:
    rng = np.random.default_rng(0)
    samples, taps = rng.standard_normal(50_000).astype(np.float32), rng.standard_normal(301).astype(np.float32)
    np.testing.assert_allclose(_convolved(samples, taps), np.convolve(samples, taps, "valid"), atol=1e-3)


def test_mean_level_noise_lies_at_the_mean_that_dass_subtracts() -> None:
    torch = pytest.importorskip("torch")
    from models.nn.features import fbank

    features = fbank(torch.from_numpy(MeanLevelNoise(0).section(0, 20 * RATE_HZ)))
    means = ((features + 4.2677393) / (2 * 4.5689974)).mean(0).numpy()
    assert np.abs(means[20:]).max() < 0.08
    assert float(np.median(np.abs(means[:20]))) < 0.12
