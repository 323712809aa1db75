"""Parses of captions kept between runs: SPICE's own database, lent as a copy and handed back whole.

SPICE parses 30 captions a second and keeps each parse in an LMDB database of one file (`-cache`). Processes must not
share that file: a reader fails while another makes it larger, and LMDB does not work on network file systems, where
home folders of clusters lie. So each run works on a private copy, which takes the shared file's place by a rename when
it has changed. Of two runs at a time one may lose the other's new parses, which costs time and changes no number.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness.hashing import file_sha256

_DATABASE = "data.mdb"
# The machines that the LMDB libraries beside SPICE are built for.
_SUPPORTED_MACHINES = frozenset({"x86_64", "amd64"})

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def lent_parses(shared: Path) -> Iterator[Path | None]:
    """A private folder with the parses made so far, for `-cache`; kept when the block ends without an error.

    Args:
        shared: folder of the shared database; made where it is not there.

    Yields:
        The folder, or None on a machine for which SPICE has no database library: it then parses everything.
    """
    if platform.machine().lower() not in _SUPPORTED_MACHINES:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="spice-parses-") as folder:
        private = Path(folder, _DATABASE)
        _borrow(shared / _DATABASE, private)
        before = _digest(private)
        yield Path(folder)
        if _digest(private) != before:
            _hand_back(private, shared)


def _digest(database: Path) -> str:
    """Of the content: LMDB reuses pages, so that a file with more parses need not be larger."""
    return file_sha256(database) if database.exists() else ""


def _borrow(database: Path, private: Path) -> None:
    try:
        shutil.copyfile(database, private)
    except FileNotFoundError:
        pass
    except OSError as error:
        private.unlink(missing_ok=True)
        _log.warning("The parses of SPICE in %s cannot be read: %s", database, error)


def _hand_back(private: Path, shared: Path) -> None:
    """Let the copy take the shared file's place, unless that has become the larger one meanwhile."""
    try:
        shared.mkdir(parents=True, exist_ok=True)
        target = shared / _DATABASE
        if target.exists() and target.stat().st_size > private.stat().st_size:
            return
        handle, name = tempfile.mkstemp(prefix=f"{_DATABASE}.", dir=shared)
        os.close(handle)
        try:
            shutil.copyfile(private, name)
            os.replace(name, target)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        # A full or read-only disk loses time, not scores.
        _log.warning("The parses of SPICE cannot be kept in %s: %s", shared, error)
