"""A command is checked once, and says what it resolves to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from harness.config import FailureLimit, RunConfig, usable_cores
from harness.errors import UsageError


@pytest.mark.parametrize(
    ("values", "part_of_message"),
    [
        ({"limit": 0}, "--limit 0"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"threads": -1}, "--threads -1"),
        ({"seed": -1}, "--seed -1"),
        ({"seed": 2**32}, "--seed 4294967296"),
        ({"device": "gpu"}, "--device 'gpu'"),
        ({"dtype": "int8"}, "--dtype 'int8'"),
        ({"limit": 3, "items": Path("items.txt")}, "--limit and --items"),
        ({"variant": "tiny", "model_options": {"variant": "130m"}}, "given twice"),
        ({"scorers": ("exact", "exact")}, "more than once"),
    ],
)
def test_a_bad_value_is_refused_by_name(values: dict[str, Any], part_of_message: str) -> None:
    with pytest.raises(UsageError, match=part_of_message):
        RunConfig(model="echo", task="esc50", **values)


def test_values_that_are_not_given_resolve_to_the_defaults() -> None:
    config = RunConfig(model="echo", task="esc50")
    resolved = (config.resolved_batch_size(), config.resolved_dtype(), config.resolved_threads())
    assert resolved == (8, "float32", usable_cores())


def test_a_cuda_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.config._has_cuda", lambda: False)
    with pytest.raises(UsageError, match="no CUDA device"):
        RunConfig(model="echo", task="esc50", device="cuda").resolved_device()


def test_an_apple_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.config.sys.platform", "linux")
    with pytest.raises(UsageError, match="no Apple GPU"):
        RunConfig(model="echo", task="esc50", device="mps").resolved_device()


def test_without_cuda_the_device_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.config._has_cuda", lambda: False)
    assert RunConfig(model="echo", task="esc50", device="auto").resolved_device() == "cpu"


def test_usable_cores_lie_between_one_and_all() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("text", "n_failed", "n_items", "is_exceeded"),
    [
        ("0", 0, 10, False),
        ("0", 1, 10, True),
        ("5", 5, 10, False),
        ("5", 6, 10, True),
        ("5%", 5, 100, False),
        ("5%", 6, 100, True),
        ("0.05", 5, 100, False),
        ("0.05", 6, 100, True),
        ("100%", 10, 10, False),
    ],
)
def test_the_failure_limit_counts_items_or_a_share(text: str, n_failed: int, n_items: int, is_exceeded: bool) -> None:
    assert FailureLimit.parse(text).is_exceeded(n_failed, n_items) is is_exceeded


@pytest.mark.parametrize("text", ["", "-1", "five", "101%", "1.5", "5 %%", "nan"])
def test_a_failure_limit_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--max-failures"):
        FailureLimit.parse(text)


def test_the_record_of_a_config_holds_every_field() -> None:
    config = RunConfig(model="echo", task="esc50", data_root=Path("somewhere"))
    assert set(config.as_record()) == set(RunConfig.__dataclass_fields__)
