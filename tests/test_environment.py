"""What a record says of machine and software."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from harness.environment import deciding_versions, describe_environment, git_state, peak_rss_bytes

REPOSITORY = Path(__file__).resolve().parents[1]


def _git(root: Path, *words: str) -> None:
    identity = ("-c", "user.name=Tester", "-c", "user.email=tester@example.org")
    subprocess.run(["git", "-C", str(root), *identity, *words], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with one commit."""
    _git(tmp_path, "init")
    (tmp_path / "harness").mkdir()
    (tmp_path / "harness" / "code.py").write_text("one = 1\n")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-m", "first")
    return tmp_path


def test_a_folder_without_git_has_no_commit(tmp_path: Path) -> None:
    assert git_state(tmp_path) == (None, None)


def test_an_unchanged_checkout_is_clean(checkout: Path) -> None:
    commit, is_dirty = git_state(checkout)
    assert (len(commit or ""), is_dirty) == (40, False)


def test_changed_code_makes_a_checkout_dirty(checkout: Path) -> None:
    (checkout / "harness" / "code.py").write_text("one = 2\n")
    assert git_state(checkout)[1] is True


def test_results_do_not_make_a_checkout_dirty(checkout: Path) -> None:
    (checkout / "results").mkdir()
    (checkout / "results" / "record.json").write_text("{}")
    assert git_state(checkout)[1] is False


def test_imported_packages_are_listed_with_versions() -> None:
    assert "pydantic" in describe_environment("cpu").packages


def test_packages_that_decide_answers_are_known_without_importing_them() -> None:
    code = (
        "import sys; from harness.environment import deciding_versions as versions; found = versions();"
        "print(found['torch'], found['python'], [name for name in ('torch', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout.split() == [metadata.version("torch"), f"{sys.version_info[0]}.{sys.version_info[1]}", "[]"]


def test_a_package_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.environment._DECIDING_PACKAGES", ("numpy", "no-such-package"))
    assert list(deciding_versions()) == ["python", "numpy"]


def test_a_gpu_that_was_not_used_is_not_in_the_record() -> None:
    assert describe_environment("cpu").gpu is None


def test_peak_memory_is_in_bytes() -> None:
    assert peak_rss_bytes() > 10_000_000
