"""Fetching a task's data from its own home, as far as its licence lets a program do that.

Everything of a task goes below `<data root>/<task>/`. What was fetched and unpacked is noted in
`<data root>/<task>/.lalm-harness/`, so that the same command goes on where an earlier one stopped, and says so when all
is there. Nothing that is there is written over. What a form, a licence or the kind of an archive keeps from being
automatic is said in one message: what to do by hand, and where to put it.

`corenlp` is no task: it names the Java archives that SPICE needs, which come from Maven Central (Stanford CoreNLP 3.6.0
and the JavaScript engine Rhino 1.7.14) and go into a cache folder.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from harness.archives import RESERVED_NAME, UnsupportedArchiveError, refuse_unsupported, unpack
from harness.byte_progress import Meter, byte_meter, bytes_text
from harness.config import DATA_VARIABLE
from harness.contracts import ItemSet, RemoteFile, Task
from harness.downloads import DownloadError, Patience, Wanted, download, file_digest, free_bytes, remote_bytes
from harness.errors import MissingDataError, PluginError, UsageError
from harness.progress import say_on_stderr

CORENLP = "corenlp"
CORENLP_LICENCE = "GPL-3 (Stanford CoreNLP), MPL-2.0 (Rhino)"
MAVEN_CENTRAL = "https://repo1.maven.org/maven2"
# Maven Central publishes a SHA-1 beside each file (`<file>.sha1`). The SHA-256 is known of one of them.
CORENLP_FILES: dict[str, str | None] = {
    "edu/stanford/nlp/stanford-corenlp/3.6.0/stanford-corenlp-3.6.0.jar": None,
    "edu/stanford/nlp/stanford-corenlp/3.6.0/stanford-corenlp-3.6.0-models.jar": None,
    "org/mozilla/rhino/1.7.14/rhino-1.7.14.jar": "c9290b0d801bf0dbbbc44338e0f769b7650a0c5d04e6bb1aeb85775c0211b003",
    "org/mozilla/rhino-engine/1.7.14/rhino-engine-1.7.14.jar": None,
}

Confirm = Callable[[str], bool]
ShowMeter = Callable[[str], AbstractContextManager[Meter]]


@dataclass(frozen=True)
class Ways:
    """How preparing talks and waits; another one in tests."""

    say: Callable[[str], None] = say_on_stderr
    show: ShowMeter = byte_meter
    patience: Patience = Patience()


@dataclass(frozen=True)
class Prepared:
    """What came of it: where the data is, and the sentences that say what is left to do by hand."""

    items: ItemSet
    n_missing: int
    by_hand: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Whether every declared item is there, and every clip of theirs."""
        return not self.by_hand and not self.n_missing and len(self.items.items) == self.items.n_declared


def data_folder(data_root: Path | None) -> Path:
    """Where data goes: `data_root`, $LALM_HARNESS_DATA, ./data."""
    if data_root is not None:
        return data_root
    named = os.environ.get(DATA_VARIABLE)
    return Path(named) if named else Path("data")


def prepare_task(task: Task, data_root: Path | None, confirm: Confirm, ways: Ways | None = None) -> Prepared:
    """Fetch what is missing of a task's data, and count what is there.

    Args:
        task: the task.
        data_root: where its data goes; None for the usual place.
        confirm: is asked once, with what would be fetched, before anything is.
        ways: how to talk and wait.

    Raises:
        MissingDataError: nothing of the data can be fetched automatically; says how to get it.
        DownloadError: a file cannot be fetched.
        ArchiveError: an archive cannot be unpacked.
        UsageError: it was not confirmed, or the folder is a file.
        PluginError: the task's own list of files is wrong, or its data is not found where it puts it.
    """
    ways = ways or Ways()
    root = data_folder(data_root)
    if root.exists() and not root.is_dir():
        raise UsageError(f"{root} is a file, not a folder.")
    store = _Store(task, root)
    found = _locate(task, root)
    if found is not None:
        there = _count(task, found, ())
        if there.is_complete or not store.notes.is_dir():
            ways.say(f"The data of '{task.name}' is in {found} already; nothing is fetched.")
            return there
    if not task.remote_files:
        raise MissingDataError(
            f"The data of '{task.name}' cannot be fetched automatically. By hand: {_sentence(task.download)} "
            f"Licence: {_sentence(task.licence)} The data root is {root}."
        )
    pending = [file for file in task.remote_files if not store.has_fetched(file)]
    if pending:
        _announce(task, store, pending, confirm, ways)
    with store.locked():
        by_hand = [message for file in task.remote_files for message in store.bring(file, ways)]
    found = _locate(task, root)
    if found is None:
        if by_hand:
            raise MissingDataError(" ".join(dict.fromkeys(by_hand)))
        raise PluginError(
            f"All files of '{task.name}' are in {store.base}, but the task does not find its data in {root}."
        )
    return _count(task, found, tuple(dict.fromkeys(by_hand)))


def corenlp_folder() -> Path:
    """Where the Java archives for SPICE are looked for: $LALM_HARNESS_CORENLP, or the user's cache folder."""
    from harness.captioning.corenlp import FOLDER_VARIABLE, cache_folder

    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named).expanduser() if named else cache_folder() / CORENLP


def prepare_corenlp(folder: Path, confirm: Confirm, ways: Ways | None = None, home: str | None = None) -> list[Path]:
    """Fetch the Java archives that SPICE needs; the files, in the order of `CORENLP_FILES`.

    Args:
        folder: where they go.
        confirm: is asked once, before anything is fetched.
        ways: how to talk and wait.
        home: the address of the Maven repository; Maven Central when None.

    Raises:
        DownloadError: a file cannot be fetched, or is not the published one.
        UsageError: it was not confirmed.
    """
    ways = ways or Ways()
    home = MAVEN_CENTRAL if home is None else home
    wanted = {f"{home}/{name}": folder / PurePosixPath(name).name for name in CORENLP_FILES}
    pending = {url: path for url, path in wanted.items() if not path.exists()}
    if not pending:
        ways.say(f"All of {CORENLP} is in {folder} already; nothing is fetched.")
        return list(wanted.values())
    _require_space(f"{CORENLP} for SPICE", folder, [remote_bytes(url) for url in pending], 0, ways)
    _require(confirm, f"Fetch {', '.join(path.name for path in pending.values())}? Licence: {CORENLP_LICENCE}.")
    sha256 = dict(zip(wanted, CORENLP_FILES.values(), strict=True))
    for url, path in pending.items():
        sha1 = _published_sha1(url, path, ways)
        with ways.show(path.name) as meter:
            download(Wanted(url, path, sha256[url], sha1=sha1), meter, ways.patience)
    return list(wanted.values())


# --- what is asked before ---------------------------------------------------------------------------------------------


def _announce(task: Task, store: _Store, pending: Sequence[RemoteFile], confirm: Confirm, ways: Ways) -> None:
    sizes = [file.n_bytes if file.n_bytes is not None else remote_bytes(file.url) for file in pending]
    # An archive lies beside what came out of it, which is about as large, until all of it is unpacked.
    beside = max((size or 0 for file, size in zip(pending, sizes, strict=True) if file.unpack), default=0)
    _require_space(f"the data of '{task.name}'", store.base, sizes, beside, ways)
    names = ", ".join(_file_name(file) for file in pending)
    _require(confirm, f"Fetch {names} from {task.homepage} into {store.base}? Licence: {_sentence(task.licence)}")


def _require_space(what: str, folder: Path, sizes: Sequence[int | None], beside: int, ways: Ways) -> None:
    """Say how much has to be fetched and how much room there is.

    Args:
        what: what is fetched.
        folder: where it goes.
        sizes: bytes of each file; None where the server does not tell.
        beside: bytes that are needed for a while on top of these.
        ways: how to talk.

    Raises:
        UsageError: there is too little room.
    """
    known, free = sum(size or 0 for size in sizes), free_bytes(folder)
    at_least = "at least " if None in sizes else ""
    unpacking = f" ({bytes_text(known + beside)} while archives are unpacked)" if beside else ""
    ways.say(
        f"{what[0].upper()}{what[1:]}: {len(sizes)} {'file' if len(sizes) == 1 else 'files'}, {at_least}"
        f"{bytes_text(known)} to fetch{unpacking}; {folder} has {bytes_text(free)} to spare."
    )
    if known + beside > free:
        raise UsageError(
            f"{folder} has {bytes_text(free)} to spare, and {what} needs {at_least or 'about '}"
            f"{bytes_text(known + beside)}. Make room, or name another folder with --data-root."
        )


def _require(confirm: Confirm, question: str) -> None:
    if not confirm(question):
        raise UsageError("Nothing was fetched: it was not confirmed.")


# --- a task's files ---------------------------------------------------------------------------------------------------


class _Store:
    """The folder of one task below the data root, and the notes on what was put there."""

    def __init__(self, task: Task, root: Path) -> None:
        self.base = root / task.name
        self.notes = self.base / RESERVED_NAME
        self._task = task
        for file in task.remote_files:
            self._check(file)

    def has_fetched(self, file: RemoteFile) -> bool:
        """Whether a file need not be fetched, because it is there or was unpacked."""
        return self._place(file).is_file() or self._is_unpacked(file)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes off.

        Raises:
            UsageError: another one is at it, or the folder cannot be written.
        """
        import fcntl

        try:
            self.notes.mkdir(parents=True, exist_ok=True)
            lock = (self.notes / "lock").open("w")
        except OSError as error:
            raise UsageError(f"{self.notes} cannot be written: {error.strerror or error}.") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(f"Another process is preparing {self.base}.") from None
            yield

    def bring(self, file: RemoteFile, ways: Ways) -> list[str]:
        """Fetch a file and unpack it, as far as that is still to be done; what is left to do by hand.

        Raises:
            DownloadError: it cannot be fetched, or is not the published one.
            ArchiveError: it cannot be unpacked.
        """
        if self._is_unpacked(file):
            return []
        place = self._place(file)
        with ways.show(place.name) as meter:
            wanted = Wanted(file.url, place, file.sha256, file.n_bytes, md5=file.md5)
            was_fetched = download(wanted, meter, ways.patience)
        target = self.base / file.folder
        try:
            if not file.unpack:
                refuse_unsupported(place, target)
                return []
            self._unpack(file, place, target, ways)
        except UnsupportedArchiveError as error:
            return [str(error)]
        if was_fetched:
            place.unlink()
        return []

    def _unpack(self, file: RemoteFile, archive: Path, target: Path, ways: Ways) -> None:
        with ways.show(f"unpacking {archive.name}") as meter:
            unpacked = unpack(archive, target, meter=meter)
        note = {
            "url": file.url,
            "sha256": file_digest(archive, "sha256"),
            "n_bytes": archive.stat().st_size,
            "n_files": unpacked.n_files,
            "n_bytes_unpacked": unpacked.n_bytes,
        }
        temporary = self._note(file).with_suffix(".tmp")
        temporary.write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, self._note(file))

    def _place(self, file: RemoteFile) -> Path:
        """Where a file is fetched to. Archives that are unpacked here lie in the task's own folder until then."""
        return (self.base if file.unpack else self.base / file.folder) / _file_name(file)

    def _is_unpacked(self, file: RemoteFile) -> bool:
        return file.unpack and self._note(file).is_file()

    def _note(self, file: RemoteFile) -> Path:
        return self.notes / f"{_file_name(file)}.unpacked.json"

    def _check(self, file: RemoteFile) -> None:
        path = PurePosixPath(file.folder)
        others = [other for other in self._task.remote_files if other is not file]
        if path.is_absolute() or ".." in path.parts or "\\" in file.folder or RESERVED_NAME in path.parts:
            raise PluginError(f"The task '{self._task.name}' puts a file into '{file.folder}', outside its own folder.")
        if any(self._place(other) == self._place(file) for other in others):
            raise PluginError(f"The task '{self._task.name}' has two files called {self._place(file)}.")


def _file_name(file: RemoteFile) -> str:
    """The name that a file has at its home; Zenodo's addresses may end in "/content"."""
    parts = [unquote(part) for part in urlsplit(file.url).path.split("/") if part]
    if parts and parts[-1] == "content":
        parts.pop()
    if not parts or not re.fullmatch(r"[^./\\\x00-\x1f][^/\\\x00-\x1f]*", parts[-1]):
        raise PluginError(f"The address {file.url} ends in no file name.")
    return parts[-1]


def _locate(task: Task, root: Path) -> Path | None:
    """Where the task finds its data: below the data root, or below its own folder there."""
    for folder in (root, root / task.name):
        found = task.find(folder) if folder.is_dir() else None
        if found is not None:
            return found
    return None


def _count(task: Task, found: Path, by_hand: tuple[str, ...]) -> Prepared:
    from harness.verify import missing_clips

    items = task.read_items(found)
    n_missing = missing_clips(items)
    # What was left to do by hand has been done when nothing is missing.
    return Prepared(items, n_missing, by_hand if n_missing else ())


def _published_sha1(url: str, path: Path, ways: Ways) -> str:
    """The SHA-1 that a Maven repository publishes beside a file.

    Raises:
        DownloadError: it publishes none.
    """
    beside = path.with_name(f".{path.name}.sha1")
    beside.unlink(missing_ok=True)
    try:
        download(Wanted(f"{url}.sha1", beside), patience=ways.patience)
        match = re.match(r"\s*([0-9a-fA-F]{40})\b", beside.read_text(encoding="ascii", errors="replace"))
    finally:
        beside.unlink(missing_ok=True)
    if match is None:
        raise DownloadError(f"{url}.sha1 holds no SHA-1, so that {path.name} could not be checked.")
    return match[1]


def _sentence(text: str) -> str:
    return f"{text.rstrip('.')}."
