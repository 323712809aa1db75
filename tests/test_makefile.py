"""`make` brings a fresh machine to a working environment, or says in one line what it lacks."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).resolve().parents[1] / "Makefile"

# Notes its words; "-m venv" leaves an environment whose python takes every command.
PYTHON = """#!/bin/sh
echo "$@" >> calls.txt
case "$*" in
  *ensurepip*) exit {without_venv} ;;
  "-m venv "*) mkdir -p .venv/bin && printf '#!/bin/sh\\nexit 0\\n' > .venv/bin/python && chmod +x .venv/bin/python ;;
esac
"""


def make(folder: Path, without_venv: int = 0) -> subprocess.CompletedProcess[str]:
    """Make the environment with a fake interpreter."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    shutil.copy(MAKEFILE, folder)
    write_script(folder / "python", PYTHON.replace("{without_venv}", str(without_venv)))
    command = ["make", ".venv/.torch", "PYTHON=./python"]
    # What `make test` leaves for the makes below it is not for this one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def write_script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def test_an_environment_without_pip_is_made_anew(tmp_path: Path) -> None:
    write_script(tmp_path / ".venv/bin/python", "#!/bin/sh\nexit 1\n")
    done = make(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "-m venv --clear .venv" in (tmp_path / "calls.txt").read_text()


def test_an_environment_with_pip_is_kept(tmp_path: Path) -> None:
    write_script(tmp_path / ".venv/bin/python", "#!/bin/sh\nexit 0\n")
    assert make(tmp_path).returncode == 0
    assert "venv" not in (tmp_path / "calls.txt").read_text()


def test_a_python_without_venv_is_one_clear_line(tmp_path: Path) -> None:
    done = make(tmp_path, without_venv=1)
    errors = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert done.returncode == 2 and len(errors) == 1 and "python3-venv" in errors[0]
    assert not (tmp_path / ".venv").exists()
