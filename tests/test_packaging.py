from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ["harness", "models", "tasks"]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text())


def test_the_packages_are_listed_one_by_one(project: dict[str, Any]) -> None:
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == PACKAGES


def test_the_distribution_cannot_be_uploaded_by_mistake(project: dict[str, Any]) -> None:
    assert "Private :: Do Not Upload" in project["project"]["classifiers"]


def test_every_dependency_has_an_upper_bound(project: dict[str, Any]) -> None:
    assert not [need for need in project["project"]["dependencies"] if ",<" not in need]


def test_the_core_needs_no_library_that_replaces_torch(project: dict[str, Any]) -> None:
    needs = " ".join(project["project"]["dependencies"])
    assert not [name for name in ("torchaudio", "torchvision", "timm") if name in needs]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_with_code_is_a_package_with_a_docstring(package: str) -> None:
    folders = {file.parent for file in (REPOSITORY / package).rglob("*.py")}
    without = [folder for folder in folders if not (folder / "__init__.py").is_file()]
    assert without == []
    assert not [folder for folder in folders if not (folder / "__init__.py").read_text().startswith('"""')]


def test_the_console_script_is_the_module(project: dict[str, Any]) -> None:
    assert project["project"]["scripts"] == {"lalm-harness": "harness.cli:main"}


def test_the_console_script_and_the_module_give_the_same_help() -> None:
    script = Path(sys.executable).with_name("lalm-harness")
    if not script.exists():
        pytest.skip("the project is not installed in this environment")
    helps = [
        subprocess.run([*command, "--help"], capture_output=True, text=True, cwd=REPOSITORY, check=True).stdout
        for command in ([str(script)], [sys.executable, "-m", "harness"])
    ]
    assert helps[0] == helps[1] and "Usage: lalm-harness" in helps[0]


def test_the_installed_version_is_that_of_the_project(project: dict[str, Any]) -> None:
    try:
        installed = metadata.version("lalm-harness")
    except metadata.PackageNotFoundError:
        pytest.skip("the project is not installed in this environment")
    assert installed == project["project"]["version"]


@pytest.mark.slow
def test_the_wheel_ships_code_and_data_and_nothing_else(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(REPOSITORY)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in shipped} == set(PACKAGES)
    in_tree = {
        file.relative_to(REPOSITORY).as_posix()
        for package in PACKAGES
        for file in (REPOSITORY / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert shipped == in_tree
