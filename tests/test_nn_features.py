"""Log-mel features against torchaudio's function, whose values were taken with torchaudio 2.11.0."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.nn import features

GOLDEN = Path(__file__).parent / "golden" / "fbank" / "torchaudio_2_11_kaldi.npz"


@pytest.fixture(scope="module")
def golden() -> tuple[torch.Tensor, torch.Tensor]:
    stored = np.load(GOLDEN)
    return torch.from_numpy(stored["samples"].astype(np.float32) / 32768), torch.from_numpy(stored["log_mel"])


def test_log_mel_energies_equal_torchaudios(golden: tuple[torch.Tensor, torch.Tensor]) -> None:
    samples, expected = golden
    torch.testing.assert_close(features.fbank(samples), expected, atol=5e-4, rtol=0)


def test_the_mel_filter_without_any_fft_bin_stays_at_the_floor(golden: tuple[torch.Tensor, torch.Tensor]) -> None:
    floor = np.log(np.finfo(np.float32).eps)
    assert features.fbank(golden[0])[:, 3].unique().tolist() == pytest.approx([floor])


def test_blocks_of_frames_give_what_one_pass_gives(
    golden: tuple[torch.Tensor, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = features.fbank(golden[0])
    monkeypatch.setattr(features, "BLOCK_FRAMES", 7)
    torch.testing.assert_close(features.fbank(golden[0]), whole)


@pytest.mark.parametrize("n_samples", [1, 399, 400, 559, 560, 16_000])
def test_the_number_of_frames_is_known_from_the_number_of_samples(n_samples: int) -> None:
    assert len(features.fbank(torch.randn(n_samples))) == max(1, features.n_frames(n_samples))


def test_padded_frames_become_the_published_constant() -> None:
    padded = features.pad_frames(torch.ones(3, 128), 5)
    assert features.normalise(padded, features.LTU_NORMALISATION)[4].unique().item() == pytest.approx(1.133, abs=1e-3)
    assert features.normalise(padded, features.DASS_NORMALISATION)[4].unique().item() == pytest.approx(0.467, abs=1e-3)


@pytest.mark.parametrize("cut", [1, 160, 399, 7_777, 10**9])
def test_blocks_of_samples_give_the_features_of_the_whole_clip(
    golden: tuple[torch.Tensor, torch.Tensor], monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    monkeypatch.setattr(features, "BLOCK_FRAMES", 16)
    samples = golden[0][:8_000] + 0.1
    blocks = features.fbank_stream(samples.split(cut), samples.mean())
    assert torch.equal(torch.cat(list(blocks)), features.fbank(samples))


@pytest.mark.parametrize("n_samples", [0, 1, 399, 400, 559, 560, 16 * 160 + 240, 16 * 160 + 400])
def test_blocks_of_samples_give_every_frame_and_none_twice(monkeypatch: pytest.MonkeyPatch, n_samples: int) -> None:
    monkeypatch.setattr(features, "BLOCK_FRAMES", 16)
    found = torch.cat(list(features.fbank_stream(torch.randn(n_samples).split(100), 0.0)))
    assert len(found) == max(1, features.n_frames(n_samples))


def test_a_mean_that_is_not_known_beforehand_makes_no_difference_to_speak_of(
    golden: tuple[torch.Tensor, torch.Tensor],
) -> None:
    samples = golden[0] + 0.1
    found = torch.cat(list(features.fbank_stream(samples.split(5_000))))
    torch.testing.assert_close(found, features.fbank(samples), atol=2e-3, rtol=0)


@pytest.mark.parametrize(("n", "padded"), [(1, 128), (128, 128), (129, 192), (192, 192)])
def test_a_stream_of_features_is_padded_like_a_clip(n: int, padded: int) -> None:
    log_mel = torch.randn(n, 128)
    stream = features.normalised_stream(log_mel.split(50), features.LTU_NORMALISATION, 128, 64)
    expected = features.normalise(features.pad_frames(log_mel, padded), features.LTU_NORMALISATION)
    torch.testing.assert_close(torch.cat(list(stream)), expected)


def test_a_clip_that_is_padded_with_silence_is_heard_as_one_that_goes_on_in_silence() -> None:
    how = features.Normalisation(0.0, 1.0, pads_with_silence=True)
    n_frames, clip = 64, torch.randn(4000, generator=torch.Generator().manual_seed(0))
    silent = torch.cat([clip, torch.zeros(n_frames * features.FRAME_SHIFT - len(clip))])
    padded = features.pad_frames(features.fbank(clip), n_frames, how)
    expected = features.pad_frames(features.fbank(silent), n_frames)
    straddling = features.n_frames(len(clip))  # here and in the next two, a window holds the clip's end and silence
    alike = [i for i in range(n_frames) if not straddling <= i < straddling + 3]
    torch.testing.assert_close(padded[alike], expected[alike], rtol=0, atol=2e-3)


def test_a_stream_is_padded_with_silence_as_a_whole_clip_is() -> None:
    how = features.Normalisation(-4.0, 9.0, pads_with_silence=True)
    log_mel = torch.randn(100, 128)
    stream = features.normalised_stream(log_mel.split(30), how, 160, 64)
    expected = features.normalise(features.pad_frames(log_mel, 192, how), how)
    assert torch.equal(torch.cat(list(stream)), expected)
