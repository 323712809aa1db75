"""A training's curve for TensorBoard, beside the lines in the run's folder. Needs the extra `tensorboard`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import MissingExtraError

FOLDER = "tensorboard"


class TensorBoardLines:
    """Writes each number of a line under its name, at the line's step."""

    def __init__(self, run_folder: Path, first_step: int) -> None:
        """Begin, or go on: what an interrupted run wrote after `first_step` is hidden.

        Raises:
            MissingExtraError: tensorboard is not installed.
        """
        require_tensorboard()
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(run_folder / FOLDER), purge_step=first_step + 1)

    def line(self, line: Mapping[str, Any]) -> None:
        """Add a line of the curve."""
        for name, value in line.items():
            if name != "step" and isinstance(value, int | float):
                self._writer.add_scalar(name, value, line["step"])
        self._writer.flush()


def require_tensorboard() -> None:
    """Look for the package before anything long begins.

    Raises:
        MissingExtraError: it is not installed.
    """
    import importlib.util

    if importlib.util.find_spec("tensorboard") is None:
        raise MissingExtraError("tensorboard", "tensorboard", "--tensorboard")
