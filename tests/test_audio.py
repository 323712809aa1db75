from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from scipy.signal import resample_poly

from harness.audio import SILENCE_PEAK, ArraySource, FileSource
from harness.contracts import AudioClip
from harness.errors import AudioError

RATE_HZ = 16_000
TONE_HZ = 440.0


def tone(
    seconds: float, rate_hz: int, frequency_hz: float = TONE_HZ, amplitude: float = 0.5
) -> npt.NDArray[np.float64]:
    return amplitude * np.sin(2 * np.pi * frequency_hz * np.arange(round(seconds * rate_hz)) / rate_hz)


def write(path: Path, samples: npt.NDArray[np.floating], rate_hz: int = RATE_HZ, subtype: str = "PCM_16") -> FileSource:
    soundfile.write(path, samples, rate_hz, subtype=subtype)
    return FileSource(path)


def middle(samples: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Without the first and last tenth, where any resampling filter rings."""
    edge = len(samples) // 10
    return samples[edge:-edge]


def assert_is_the_tone(clip: AudioClip, tolerance: float) -> None:
    expected = tone(clip.duration_s, clip.sample_rate_hz)
    assert np.abs(middle(clip.samples) - middle(expected)).max() < tolerance


# --- decoding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "subtype", "tolerance"),
    [
        ("clip.wav", "PCM_U8", 0.01),
        ("clip.wav", "PCM_16", 1e-4),
        ("clip.wav", "PCM_24", 1e-6),
        ("clip.wav", "PCM_32", 1e-6),
        ("clip.wav", "FLOAT", 1e-6),
        ("clip.wav", "DOUBLE", 1e-6),
        ("clip.flac", "PCM_16", 1e-4),
        ("clip.aiff", "PCM_16", 1e-4),
        ("clip.ogg", "VORBIS", 0.05),
        ("clip.mp3", "MPEG_LAYER_III", 0.05),
    ],
)
def test_every_format_decodes_to_the_same_tone(tmp_path: Path, name: str, subtype: str, tolerance: float) -> None:
    clip = write(tmp_path / name, tone(1.0, RATE_HZ), subtype=subtype).load(RATE_HZ)
    assert_is_the_tone(clip, tolerance)


@pytest.mark.parametrize("source_rate_hz", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_a_tone_stays_a_tone_from_any_rate(tmp_path: Path, source_rate_hz: int) -> None:
    clip = write(tmp_path / "clip.wav", tone(1.0, source_rate_hz), source_rate_hz, "FLOAT").load(RATE_HZ)
    assert len(clip.samples) == RATE_HZ
    assert_is_the_tone(clip, 1e-4)


def test_resampling_agrees_with_scipy(tmp_path: Path) -> None:
    samples = np.sum([tone(1.0, 48_000, frequency_hz, 0.2) for frequency_hz in (110.0, 1_000.0, 3_500.0)], axis=0)
    clip = write(tmp_path / "clip.wav", samples, 48_000, "FLOAT").load(RATE_HZ)
    expected = resample_poly(samples, 1, 3, window=("kaiser", 12.0))
    assert np.abs(middle(clip.samples) - middle(expected)).max() < 2e-3


def test_what_the_new_rate_cannot_hold_is_removed_not_folded_down(tmp_path: Path) -> None:
    clip = write(tmp_path / "clip.wav", tone(1.0, 48_000, 11_000.0), 48_000, "FLOAT").load(RATE_HZ)
    assert np.abs(middle(clip.samples)).max() < 1e-3


def test_block_by_block_equals_the_whole_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (30_011, 2))
    source = write(tmp_path / "clip.wav", samples, 44_100, "FLOAT")
    whole = source.load(RATE_HZ)
    monkeypatch.setattr("harness.audio._BLOCK_SAMPLES", 1_000)
    np.testing.assert_allclose(source.load(RATE_HZ).samples, whole.samples, atol=1e-6)


def test_stereo_becomes_the_mean_of_its_channels(tmp_path: Path) -> None:
    left, right = tone(0.5, RATE_HZ), 0.3 * np.ones(RATE_HZ // 2)
    clip = write(tmp_path / "clip.wav", np.stack([left, right], axis=1), subtype="FLOAT").load(RATE_HZ)
    np.testing.assert_allclose(clip.samples, (left + right) / 2, atol=1e-6)


def test_a_clip_remembers_its_file(tmp_path: Path) -> None:
    clip = write(tmp_path / "clip.wav", np.zeros((4_800, 2)) + 0.1, 48_000).load(RATE_HZ)
    described = (clip.sample_rate_hz, clip.source_rate_hz, clip.source_channels, clip.source_frames, clip.notes)
    assert described == (RATE_HZ, 48_000, 2, 4_800, ())


def test_samples_are_float32_in_one_dimension(tmp_path: Path) -> None:
    samples = write(tmp_path / "clip.wav", tone(0.1, RATE_HZ)).load(RATE_HZ).samples
    assert (samples.dtype.name, samples.ndim) == ("float32", 1)


# --- bad files -------------------------------------------------------------------------------------------------------


def nan_at_half_a_second() -> npt.NDArray[np.float64]:
    samples = tone(1.0, RATE_HZ)
    samples[RATE_HZ // 2] = np.nan
    return samples


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such file"),
        (b"", "empty \\(0 bytes\\)"),
        (b"this is a text and no sound at all", "cannot be decoded: Format not recognised"),
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", "cannot be decoded"),
    ],
)
def test_a_file_that_is_no_audio_says_why(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "clip.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AudioError, match=reason):
        FileSource(path).load(RATE_HZ)


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="is not a file"):
        FileSource(tmp_path).load(RATE_HZ)


def test_a_headerless_file_cannot_be_decoded(tmp_path: Path) -> None:
    (tmp_path / "clip.raw").write_bytes(bytes(1_000))
    with pytest.raises(AudioError, match="cannot be decoded"):
        FileSource(tmp_path / "clip.raw").load(RATE_HZ)


def test_a_file_of_zero_samples_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "clip.wav", np.zeros(0))
    with pytest.raises(AudioError, match="holds no samples"):
        source.load(RATE_HZ)


def test_less_than_one_sample_at_the_new_rate_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "clip.wav", np.array([0.5]), 96_000)
    with pytest.raises(AudioError, match="shorter than one sample"):
        source.load(8_000)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_are_refused_with_their_place(tmp_path: Path, value: float) -> None:
    samples = tone(1.0, RATE_HZ)
    samples[RATE_HZ // 2] = value
    source = write(tmp_path / "clip.wav", samples, subtype="FLOAT")
    with pytest.raises(AudioError, match="NaN or infinite samples, the first at 0.500 s"):
        source.load(RATE_HZ)


def test_finite_samples_that_become_infinite_on_the_way_are_refused(tmp_path: Path) -> None:
    square = np.sign(tone(0.5, 8_000, 441.0)) * 3.3e38
    source = write(tmp_path / "clip.wav", square, 8_000, "FLOAT")
    with pytest.raises(AudioError, match="too loud for 32-bit floats"):
        source.load(RATE_HZ)


def test_a_damaged_stream_cannot_be_decoded(tmp_path: Path) -> None:
    path = tmp_path / "clip.flac"
    write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 60_000))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(AudioError, match="cannot be decoded"):
        FileSource(path).load(RATE_HZ)


def test_a_header_that_promises_more_than_memory_holds_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "clip.wav", tone(0.1, RATE_HZ))
    monkeypatch.setattr("harness.audio.np.empty", lambda *_, **__: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(AudioError, match="too long for memory"):
        source.load(RATE_HZ)


# --- odd files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "FLOAT"])
def test_silence_is_heard_and_noted(tmp_path: Path, subtype: str) -> None:
    clip = write(tmp_path / "clip.wav", np.zeros(RATE_HZ), subtype=subtype).load(RATE_HZ)
    assert (clip.notes, len(clip.samples)) == (("silent",), RATE_HZ)


def test_channels_that_cancel_out_are_silent(tmp_path: Path) -> None:
    left = tone(0.1, RATE_HZ)
    clip = write(tmp_path / "clip.wav", np.stack([left, -left], axis=1), subtype="FLOAT").load(RATE_HZ)
    assert clip.notes == ("silent",)


def test_one_step_of_24_bits_is_not_silence(tmp_path: Path) -> None:
    samples = np.zeros(RATE_HZ)
    samples[100] = 2.0**-23
    clip = write(tmp_path / "clip.wav", samples, subtype="PCM_24").load(RATE_HZ)
    assert clip.notes == () and 2.0**-23 > SILENCE_PEAK


def test_a_float_file_above_full_scale_is_noted_and_kept(tmp_path: Path) -> None:
    clip = write(tmp_path / "clip.wav", tone(0.1, RATE_HZ, amplitude=1.5), subtype="FLOAT").load(RATE_HZ)
    assert clip.notes == ("above full scale (peak 1.5)",)
    assert clip.samples.max() > 1.4


def test_a_wav_file_that_was_cut_off_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    write(path, tone(1.0, RATE_HZ))
    path.write_bytes(path.read_bytes()[:16_044])
    clip = FileSource(path).load(RATE_HZ)
    assert (clip.source_frames, clip.notes) == (8_000, ("ends early (16000 of 32000 bytes)",))


def test_a_wav_file_written_to_a_pipe_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    write(path, tone(1.0, RATE_HZ))
    content = bytearray(path.read_bytes())
    for position in (4, content.index(b"data") + 4):
        content[position : position + 4] = b"\xff" * 4
    path.write_bytes(content)
    clip = FileSource(path).load(RATE_HZ)
    assert (clip.source_frames, clip.notes) == (RATE_HZ, ())


@pytest.fixture
def endless(tmp_path: Path) -> FileSource:
    """A FLAC file as an encoder writes it to a pipe: its header says 0 samples, which stands for "unknown"."""
    source = write(tmp_path / "clip.flac", np.tile(tone(1.0, RATE_HZ), 70))
    content = bytearray(source.path.read_bytes())
    content[21] &= 0xF0  # the last 36 bits of bytes 18 to 25 are the number of samples
    content[22:26] = bytes(4)
    source.path.write_bytes(content)
    return source


def test_a_flac_file_of_unknown_length_is_whole(endless: FileSource) -> None:
    clip = endless.load(RATE_HZ)
    assert (clip.source_frames, clip.notes) == (70 * RATE_HZ, ())
    assert np.abs(clip.samples - np.tile(tone(1.0, RATE_HZ), 70)).max() < 1e-4


def test_a_flac_file_of_unknown_length_has_no_length_in_its_header(endless: FileSource) -> None:
    assert endless.duration_s() is None


def test_an_mp3_file_that_was_cut_off_is_noted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "clip.mp3"
    write(path, tone(3.0, RATE_HZ), subtype="MPEG_LAYER_III")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    (note,) = FileSource(path).load(RATE_HZ).notes
    assert note.startswith("ends early")


def test_a_long_file_is_never_whole_in_memory_at_its_own_rate(tmp_path: Path) -> None:
    minutes, rate_hz = 4, 96_000
    path = tmp_path / "long.wav"
    with soundfile.SoundFile(path, "w", rate_hz, 2, "PCM_U8") as file:
        for _ in range(minutes * 60):
            file.write(np.full((rate_hz, 2), 0.25))
    result_bytes = minutes * 60 * RATE_HZ * 4
    tracemalloc.start()
    clip = FileSource(path).load(RATE_HZ)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(clip.samples) == minutes * 60 * RATE_HZ
    assert peak_bytes < result_bytes + 16 * 2**20


def test_twenty_minutes_of_8_bits_at_8_khz_decode_whole(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    with soundfile.SoundFile(path, "w", 8_000, 1, "PCM_U8") as file:
        for _ in range(20 * 60):
            file.write(np.full(8_000, 0.25))
    clip = FileSource(path).load(RATE_HZ)
    assert clip.duration_s == 1_200
    assert np.abs(middle(clip.samples) - 0.25).max() < 1e-3


# --- identity and length ---------------------------------------------------------------------------------------------


def test_the_same_bytes_have_the_same_identity_wherever_they_lie(tmp_path: Path) -> None:
    first = write(tmp_path / "a.wav", tone(0.1, RATE_HZ))
    second = write(tmp_path / "b.wav", tone(0.1, RATE_HZ))
    assert first.identity() == second.identity()
    assert len(first.identity()) == 64


def test_other_audio_has_another_identity(tmp_path: Path) -> None:
    source = write(tmp_path / "a.wav", tone(0.1, RATE_HZ))
    before = source.identity()
    write(tmp_path / "a.wav", tone(0.2, RATE_HZ))
    assert source.identity() != before


def test_a_file_that_cannot_be_read_has_an_identity_that_says_so(tmp_path: Path) -> None:
    assert FileSource(tmp_path / "none.wav").identity() == "missing"
    assert FileSource(tmp_path).identity().startswith("unreadable")


def test_a_name_that_no_file_can_have_fails_as_a_missing_file_does(tmp_path: Path) -> None:
    source = FileSource(tmp_path / "a\0b.wav")
    assert (source.identity(), source.duration_s()) == ("unreadable: embedded null byte", None)
    with pytest.raises(AudioError, match="no such file"):
        source.load(RATE_HZ)


def test_the_length_comes_from_the_header(tmp_path: Path) -> None:
    assert write(tmp_path / "a.wav", tone(0.5, 48_000), 48_000).duration_s() == 0.5


def test_a_file_without_a_header_has_no_length(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"nothing")
    assert FileSource(tmp_path / "a.wav").duration_s() is None


# --- arrays ----------------------------------------------------------------------------------------------------------


def test_an_array_sounds_like_the_file_of_its_samples(tmp_path: Path) -> None:
    samples = np.stack([tone(0.5, 44_100), tone(0.5, 44_100, 880.0)], axis=1).astype(np.float32)
    from_file = write(tmp_path / "a.wav", samples, 44_100, "FLOAT").load(RATE_HZ)
    from_array = ArraySource(samples, 44_100).load(RATE_HZ)
    np.testing.assert_array_equal(from_array.samples, from_file.samples)


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (np.zeros(0), "holds no samples"),
        (nan_at_half_a_second(), "NaN or infinite"),
        (np.zeros((2, 2, 2)), "shape is"),
    ],
)
def test_an_array_that_is_no_audio_says_why(samples: npt.NDArray[np.float64], reason: str) -> None:
    with pytest.raises(AudioError, match=reason):
        ArraySource(samples, RATE_HZ).load(RATE_HZ)


def test_an_arrays_identity_covers_samples_and_rate() -> None:
    samples = tone(0.1, RATE_HZ)
    sources = ArraySource(samples, RATE_HZ), ArraySource(samples, 8_000), ArraySource(samples * 0.5, RATE_HZ)
    assert len({source.identity() for source in sources}) == 3
    assert ArraySource(samples.copy(), RATE_HZ).identity() == sources[0].identity()


def test_an_array_knows_its_length() -> None:
    assert ArraySource(np.zeros(8_000), RATE_HZ).duration_s() == 0.5
