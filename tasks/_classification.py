"""What classification tasks share: labels from names, a strict table reader, and audio files by name."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from harness.contracts import Label
from harness.errors import MissingDataError, UsageError

if TYPE_CHECKING:
    from _csv import Reader

_AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au"})


@dataclass(frozen=True)
class Row:
    """One line of a table, and where it stands."""

    path: Path
    line: int
    values: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        return self.values[column]

    def error(self, problem: str) -> UsageError:
        """An error that points at this line."""
        return UsageError(f"{self.path}, line {self.line}: {problem}")

    def choice(self, column: str, allowed: Sequence[str]) -> str:
        """The column's value, which must be one of `allowed`.

        Raises:
            UsageError: it is not.
        """
        value = self.values[column]
        if value not in allowed:
            shown = ", ".join(allowed) if len(allowed) <= 6 else f"one of {len(allowed)} names"
            raise self.error(f"{column} is '{value}', expected {shown}.")
        return value


def labels_from_names(names: Sequence[str]) -> tuple[Label, ...]:
    """Labels whose text is the name in lower case with spaces for underscores, as LTU writes them."""
    return tuple(Label(name, name.lower().replace("_", " ")) for name in names)


def find_folder(folder: Path, usual_names: Sequence[str], marker: str) -> Path | None:
    """The folder itself, or the first one below it of a usual name, in which the file `marker` lies."""
    for candidate in (folder, *(folder / name for name in usual_names)):
        if (candidate / marker).is_file():
            return candidate
    return None


def read_table(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Lines of a comma-separated table whose header is exactly `columns`; empty lines are passed over.

    Raises:
        MissingDataError: the table is not there.
        UsageError: it is no UTF-8 text, has another header, or a line has another number of fields.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            yield from _rows(path, csv.reader(lines, strict=True), columns)
    except FileNotFoundError as error:
        raise MissingDataError(f"The table {path} is missing.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}.") from error


def _rows(path: Path, reader: Reader, columns: Sequence[str]) -> Iterator[Row]:
    try:
        header = next(reader, [])
        if header != list(columns):
            raise UsageError(f"{path}, line 1: the header is '{','.join(header)}', expected '{','.join(columns)}'.")
        for fields in reader:
            if not fields:
                continue
            if len(fields) != len(columns):
                problem = f"{len(fields)} fields, expected {len(columns)}."
                raise UsageError(f"{path}, line {reader.line_num}: {problem}")
            yield Row(path, reader.line_num, dict(zip(columns, fields, strict=True)))
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}: {error}.") from error


class AudioFolder:
    """The audio files of one folder, listed once, found by the name in a table.

    Copies of a data set are often recoded. When the named file is absent and exactly one other audio file has the same
    stem, that one is taken; otherwise the named path is kept, and the item fails when it is heard.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: set[str] = set()
        self._by_stem: dict[str, list[str]] = {}
        for path in folder.iterdir() if folder.is_dir() else ():
            self._names.add(path.name)
            if path.suffix.lower() in _AUDIO_SUFFIXES:
                self._by_stem.setdefault(path.stem, []).append(path.name)

    def path_of(self, name: str) -> Path:
        """Where the audio of that name lies, or would lie."""
        others = self._by_stem.get(Path(name).stem, [])
        if name not in self._names and len(others) == 1:
            return self._folder / others[0]
        return self._folder / name


def plain_file_name(row: Row, column: str, parent: str = "") -> str:
    """The file name in a column, without its folder, which must be `parent`.

    Raises:
        UsageError: the value is empty or leads to another folder.
    """
    path = PurePosixPath(row[column])
    expected = PurePosixPath(parent) / path.name if path.name else None
    if path != expected or path.name == ".." or "\\" in row[column]:
        where = f"a file in '{parent}'" if parent else "a plain file name"
        raise row.error(f"{column} is '{row[column]}', expected {where}.")
    return path.name
