"""Data is found in a fixed order, and items are chosen the same way each time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.contracts import AudioItem, ItemSet, Task
from harness.datasets import find_items, item_set_hash, select_items
from harness.errors import MissingDataError, PluginError, UsageError
from harness.registry import add_plugin_file, create

PLUGINS = Path(__file__).parent / "plugins"


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    """The test task, with no data in the current folder and no variable set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LALM_HARNESS_DATA", raising=False)
    add_plugin_file(PLUGINS / "beeps.py")
    made: Task = create("tasks", "beeps").value
    return made


@pytest.fixture
def items(task: Task) -> tuple[AudioItem, ...]:
    """Twelve items."""
    return find_items(task, None).items


def _with_data(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "beeps.txt").touch()
    return folder


def test_without_data_the_starter_set_is_read(task: Task) -> None:
    assert find_items(task, None).origin == "starter"


def test_the_data_folder_comes_before_the_starter_set(task: Task) -> None:
    _with_data(Path("data"))
    assert find_items(task, None).origin == "official"


def test_the_variable_comes_before_the_data_folder(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _with_data(Path("data"))
    monkeypatch.setenv("LALM_HARNESS_DATA", str(_with_data(tmp_path / "named")))
    assert find_items(task, None).root == tmp_path / "named"


def test_a_variable_without_the_data_is_passed_over_with_one_line(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LALM_HARNESS_DATA", str(tmp_path))
    assert find_items(task, None).origin == "starter"
    assert capsys.readouterr().err == f"$LALM_HARNESS_DATA ({tmp_path}) has no data of 'beeps': it is passed over.\n"


@pytest.mark.parametrize(("name", "problem"), [("nothing", "no folder that exists"), ("file", "a file, not a folder")])
def test_a_variable_that_names_no_folder_is_refused(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, problem: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LALM_HARNESS_DATA", str(tmp_path / name))
    with pytest.raises(MissingDataError, match=problem):
        find_items(task, None)


def test_the_named_root_comes_first(task: Task, tmp_path: Path) -> None:
    _with_data(Path("data"))
    assert find_items(task, _with_data(tmp_path / "mine")).root == tmp_path / "mine"


def test_a_named_root_without_the_data_is_no_reason_for_the_starter_set(task: Task, tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="neither in it"):
        find_items(task, tmp_path)


def test_a_named_root_that_does_not_exist_is_refused(task: Task, tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="no such folder"):
        find_items(task, tmp_path / "nothing")


def test_a_named_root_that_is_a_file_is_refused(task: Task, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MissingDataError, match=r"file: it is a file, not a folder\. Get it"):
        find_items(task, tmp_path / "file")


def test_no_data_and_no_starter_set_is_one_message_with_source_and_licence(task: Task) -> None:
    with pytest.raises(MissingDataError, match=r"not set.*they are generated\. Licence: none needed\. Then"):
        find_items(replace(task, read_starter=None, starter_root=None), None)


def test_a_task_that_reads_one_id_twice_breaks_its_contract(task: Task, items: tuple[AudioItem, ...]) -> None:
    twice = replace(task, read_starter=lambda root: ItemSet((items[0], items[0]), "starter", 2, root))
    with pytest.raises(PluginError, match="beep-00"):
        find_items(twice, None)


def test_a_task_that_reads_nothing_breaks_its_contract(task: Task) -> None:
    with pytest.raises(PluginError, match="no item"):
        find_items(replace(task, read_starter=lambda root: ItemSet((), "starter", 2, root)), None)


def test_a_limit_is_a_draw_in_the_order_of_the_data(items: tuple[AudioItem, ...]) -> None:
    ids = [item.item_id for item in select_items(items, 5, None, seed=1)]
    assert ids == sorted(ids) and len(set(ids)) == 5 and ids != [item.item_id for item in items[:5]]


def test_a_limit_draws_the_same_items_for_the_same_seed(items: tuple[AudioItem, ...]) -> None:
    assert select_items(items, 5, None, seed=1) == select_items(items, 5, None, seed=1)


def test_a_limit_above_the_number_of_items_takes_all(items: tuple[AudioItem, ...]) -> None:
    assert select_items(items, 100, None, seed=0) == items


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_an_items_file_chooses_in_the_order_of_the_data(
    items: tuple[AudioItem, ...], tmp_path: Path, encoding: str
) -> None:
    file = tmp_path / "items.txt"
    file.write_text("beep-07\n# two beeps\n\nbeep-02\n", encoding=encoding)
    assert [item.item_id for item in select_items(items, None, file, 0)] == ["beep-02", "beep-07"]


@pytest.mark.parametrize(
    ("content", "part_of_message"),
    [("beep-99\nbeep-01\n", "beep-99"), ("\n", "names no item"), ("beep-01\nbeep-01\n", "more than once")],
)
def test_a_bad_items_file_is_refused(
    items: tuple[AudioItem, ...], tmp_path: Path, content: str, part_of_message: str
) -> None:
    file = tmp_path / "items.txt"
    file.write_text(content)
    with pytest.raises(UsageError, match=part_of_message):
        select_items(items, None, file, 0)


def test_a_missing_items_file_is_refused(items: tuple[AudioItem, ...], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        select_items(items, None, tmp_path / "nothing.txt", 0)


def test_the_hash_of_an_item_set_does_not_depend_on_order(items: tuple[AudioItem, ...]) -> None:
    identities = [item.source.identity() for item in items]
    assert item_set_hash(items, identities) == item_set_hash(items[::-1], identities[::-1])


def test_the_hash_of_an_item_set_changes_with_one_clip(items: tuple[AudioItem, ...]) -> None:
    identities = [item.source.identity() for item in items]
    assert item_set_hash(items, identities) != item_set_hash(items, [*identities[:-1], "another"])


def test_the_hash_of_an_item_set_changes_with_one_reference(items: tuple[AudioItem, ...]) -> None:
    identities = [item.source.identity() for item in items]
    other = (replace(items[0], references=("high",)), *items[1:])
    assert item_set_hash(items, identities) != item_set_hash(other, identities)


def test_the_hash_of_an_item_set_changes_with_one_cluster(items: tuple[AudioItem, ...]) -> None:
    identities = [item.source.identity() for item in items]
    other = (replace(items[0], cluster="another"), *items[1:])
    assert item_set_hash(items, identities) != item_set_hash(other, identities)
