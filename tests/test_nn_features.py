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
