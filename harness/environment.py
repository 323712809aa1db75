"""What a record says of the machine and the software that ran, read anew whenever a record is written."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from pydantic import BaseModel, ConfigDict

_GIT_TIMEOUT_S = 10
_DRIVER_TIMEOUT_S = 20
# Numbers, and so answers, may differ in their last digits from one version of these to the next.
_DECIDING_PACKAGES = (
    "numba",
    "numpy",
    "onnxruntime",
    "soundfile",
    "soxr",
    "tokenizers",
    "torch",
    "transformers",
)
# What decides results; a result written into the checkout must not make the next run look altered.
_CODE_PATHS = ("harness", "models", "tasks", "pyproject.toml")


class Gpu(BaseModel):
    """The CUDA device that was used."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    memory_bytes: int
    capability: str
    cuda_version: str | None
    driver_version: str | None


class Environment(BaseModel):
    """Machine and software.

    `git_commit` and `git_is_dirty` are None unless the code runs from a checkout; dirty means that code differs from
    the commit. `packages` maps each distribution that was imported to its version.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    python: str
    platform: str
    cpu: str
    logical_cores: int
    ram_bytes: int | None
    gpu: Gpu | None
    git_commit: str | None
    git_is_dirty: bool | None
    packages: dict[str, str]


def describe_environment(device: str) -> Environment:
    """Look at this process and its machine. `device` is torch's name of the device that was used."""
    commit, is_dirty = git_state(Path(__file__).resolve().parents[1])
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        cpu=cpu_model(),
        logical_cores=os.cpu_count() or 1,
        ram_bytes=ram_bytes(),
        gpu=_describe_gpu(device) if device.startswith("cuda") else None,
        git_commit=commit,
        git_is_dirty=is_dirty,
        packages=imported_packages(),
    )


def git_state(root: Path) -> tuple[str | None, bool | None]:
    """The commit of the checkout at `root`, and whether its code differs from it; two None when it is none."""
    if not (root / ".git").exists():
        return None, None
    commit = _output_of(["git", "-C", str(root), "rev-parse", "HEAD"], _GIT_TIMEOUT_S)
    changes = _output_of(["git", "-C", str(root), "status", "--porcelain", "--", *_CODE_PATHS], _GIT_TIMEOUT_S)
    if commit is None or changes is None:
        return None, None
    return commit.strip(), bool(changes.strip())


def cpu_model() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def ram_bytes() -> int | None:
    """The machine's memory; None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def peak_rss_bytes() -> int:
    """The most memory that this process has held so far."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return peak if sys.platform == "darwin" else peak * 1024


def imported_packages() -> dict[str, str]:
    """This distribution and each one with a module that this process imported, with versions, sorted by name."""
    imported = {name.partition(".")[0] for name in sys.modules}
    owners, versions = _installed()
    # An editable installation does not list its modules, so ours is named outright.
    names = {"lalm-harness"} | {name for module in imported for name in owners.get(module, ())}
    return {name: versions[name] for name in sorted(names, key=str.lower) if name in versions}


def deciding_versions() -> dict[str, str]:
    """Python and the installed packages that can change an answer, with versions; imports none of them."""
    versions = {"python": f"{sys.version_info.major}.{sys.version_info.minor}"}
    for package in _DECIDING_PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


@functools.cache
def _installed() -> tuple[Mapping[str, list[str]], Mapping[str, str]]:
    """Which distributions bring each top-level module, and the version of each distribution."""
    versions = {distribution.name: distribution.version for distribution in metadata.distributions()}
    return metadata.packages_distributions(), versions


def _describe_gpu(device: str) -> Gpu:
    import torch

    facts = torch.cuda.get_device_properties(device)
    driver = _output_of(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], _DRIVER_TIMEOUT_S)
    return Gpu(
        name=facts.name,
        memory_bytes=facts.total_memory,
        capability=f"{facts.major}.{facts.minor}",
        cuda_version=torch.version.cuda,
        driver_version=driver.strip().splitlines()[0] if driver and driver.strip() else None,
    )


def _output_of(command: list[str], timeout_s: float) -> str | None:
    """Standard output of a command; None when it is missing, slow or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
