"""What many tests share: data outside the repository, sounds, and a registry that forgets."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import registry

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"


def pytest_collection_finish() -> None:
    """What the imports made stays to the end: full collections, of which measuring memory does many, can pass it by."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of development data beside the repository; skips the test where there is none."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the development data beside the repository is not there")
    return SHARED_DATA


@pytest.fixture(autouse=True)
def _registry_forgets_plugin_files() -> Iterator[None]:
    """Plugin files that a test adds are gone after it."""
    before = dict(registry._added_files)
    yield
    registry._added_files.clear()
    registry._added_files.update(before)
