"""`data prepare`: fetched, checked, unpacked and counted once; what stands in the way is one message."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile

from harness import prepare
from harness.archives import ArchiveError
from harness.contracts import RemoteFile, Task
from harness.downloads import DownloadError, Patience
from harness.errors import MissingDataError, PluginError, UsageError
from harness.prepare import CORENLP_FILES, Ways, corenlp_folder, data_folder, prepare_corenlp, prepare_task
from tasks.esc50 import CATEGORIES, COLUMNS, esc50

N_CLIPS = 3
NAMES = [f"1-{number}-A-{number}.wav" for number in range(N_CLIPS)]


class Home:
    """A data set's home: a folder behind a web server that counts what is asked of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        self.url = ""

    def put(self, name: str, content: bytes) -> RemoteFile:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return RemoteFile(f"{self.url}/{name}", ".", hashlib.sha256(content).hexdigest(), len(content))


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    served = Home(tmp_path / "home")
    served.folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked.append(self.path)
            super().do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(served.folder))) as server:
        served.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
        thread.start()
        yield served
        server.shutdown()
        thread.join()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def ways(said: list[str]) -> Ways:
    return Ways(said.append, lambda label: nullcontext(lambda done, total: None), Patience(tries=2, first_wait_s=0.0))


def table() -> bytes:
    rows = [f"{name},1,{number},{CATEGORIES[number]},True,{number},A" for number, name in enumerate(NAMES)]
    return "\n".join([",".join(COLUMNS), *rows]).encode()


def clip(number: int) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, np.random.default_rng(number).uniform(-1, 1, 100), 8_000, format="WAV")
    return stream.getvalue()


def archive(n_clips: int = N_CLIPS, **more: bytes) -> bytes:
    """ESC-50's layout in a zip, with that many of its clips."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("meta/esc50.csv", table())
        for number, name in enumerate(NAMES[:n_clips]):
            zipped.writestr(f"audio/{name}", clip(number))
        for name, content in more.items():
            zipped.writestr(name, content)
    return stream.getvalue()


def task_of(*files: RemoteFile) -> Task:
    """ESC-50 with three clips, and another list of files."""
    task = esc50()
    read = task.read_items
    return replace(task, remote_files=files, read_items=lambda found: replace(read(found), n_declared=N_CLIPS))


def zipped(home: Home, content: bytes | None = None, name: str = "master.zip") -> RemoteFile:
    return replace(home.put(name, archive() if content is None else content), unpack=True)


def yes(question: str) -> bool:
    return True


def never(question: str) -> bool:
    raise AssertionError(f"asked: {question}")


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


NOTES = [".lalm-harness/lock", ".lalm-harness/master.zip.unpacked.json"]
CLIPS = [*(f"audio/{name}" for name in NAMES), "meta/esc50.csv"]

# --- a task -----------------------------------------------------------------------------------------------------------


def test_an_archive_is_fetched_unpacked_counted_and_removed(home: Home, root: Path, ways: Ways) -> None:
    done = prepare_task(task_of(zipped(home)), root, yes, ways)
    assert (done.is_complete, len(done.items.items), done.items.root) == (True, 3, root / "esc50")
    assert files_in(root / "esc50") == [*NOTES, *CLIPS]


def test_the_note_says_what_was_unpacked(home: Home, root: Path, ways: Ways) -> None:
    file = zipped(home)
    prepare_task(task_of(file), root, yes, ways)
    note = json.loads((root / "esc50" / NOTES[1]).read_text())
    assert (note["url"], note["sha256"], note["n_bytes"], note["n_files"]) == (file.url, file.sha256, file.n_bytes, 4)


def test_single_files_go_into_their_folder(home: Home, root: Path, ways: Ways) -> None:
    files = [replace(home.put("esc50.csv", table()), folder="meta")]
    files += [replace(home.put(name, clip(number)), folder="audio") for number, name in enumerate(NAMES)]
    assert prepare_task(task_of(*files), root, yes, ways).is_complete
    assert files_in(root / "esc50") == [NOTES[0], *CLIPS]


def test_preparing_again_asks_nothing_and_fetches_nothing(home: Home, root: Path, ways: Ways, said: list[str]) -> None:
    task = task_of(zipped(home))
    prepare_task(task, root, yes, ways)
    home.asked.clear()
    assert prepare_task(task, root, never, ways).is_complete
    assert (home.asked, said[-1]) == ([], f"The data of 'esc50' is in {root / 'esc50'} already; nothing is fetched.")


def test_data_that_the_user_put_there_is_left_alone(home: Home, root: Path, ways: Ways) -> None:
    (root / "ESC-50-master/meta").mkdir(parents=True)
    (root / "ESC-50-master/meta/esc50.csv").write_bytes(table())
    done = prepare_task(task_of(zipped(home)), root, never, ways)
    assert (home.asked, done.is_complete, done.n_missing) == ([], False, 3)


def test_a_command_that_was_stopped_between_files_is_continued(home: Home, root: Path, ways: Ways) -> None:
    first = replace(home.put("esc50.csv", table()), folder="meta")
    second = zipped(home, archive(meta_more=b"x"), "audio.zip")
    gone = replace(second, url=f"{home.url}/gone.zip")
    with pytest.raises(DownloadError, match="404"):
        prepare_task(task_of(first, gone), root, yes, ways)
    home.asked.clear()
    assert prepare_task(task_of(first, second), root, yes, ways).is_complete
    assert home.asked == ["/audio.zip"]


def test_two_archives_make_one_set(home: Home, root: Path, ways: Ways) -> None:
    task = task_of(zipped(home), zipped(home, archive(1, README=b"more"), "more.zip"))
    assert prepare_task(task, root, yes, ways).is_complete
    assert "README" in files_in(root / "esc50")


def test_an_archive_that_the_user_put_there_is_used_and_kept(home: Home, root: Path, ways: Ways) -> None:
    file = zipped(home)
    (root / "esc50").mkdir(parents=True)
    (root / "esc50" / "master.zip").write_bytes(archive())
    done = prepare_task(task_of(replace(file, sha256=None, n_bytes=None)), root, never, ways)
    assert (done.is_complete, home.asked, (root / "esc50/master.zip").is_file()) == (True, [], True)


@pytest.mark.parametrize("digest", [{"sha256": "0" * 64}, {"sha256": None, "md5": "0" * 32}])
def test_a_wrong_digest_puts_nothing_in_place(home: Home, root: Path, ways: Ways, digest: dict[str, str]) -> None:
    file = replace(zipped(home), **digest)
    with pytest.raises(DownloadError, match="its (sha256|md5) is"):
        prepare_task(task_of(file), root, yes, ways)
    assert files_in(root) == ["esc50/.lalm-harness/lock"]


def test_an_evil_archive_puts_nothing_in_place(home: Home, root: Path, ways: Ways) -> None:
    with pytest.raises(ArchiveError, match="leads out of its folder"):
        prepare_task(task_of(zipped(home, archive(**{"../evil": b"x"}))), root, yes, ways)
    assert files_in(root) == ["esc50/.lalm-harness/lock", "esc50/master.zip"]


def test_a_file_that_is_there_is_not_written_over(home: Home, root: Path, ways: Ways) -> None:
    (root / "esc50/audio").mkdir(parents=True)
    (root / "esc50/audio" / NAMES[0]).write_bytes(b"mine")
    with pytest.raises(ArchiveError, match="is not written over"):
        prepare_task(task_of(zipped(home)), root, yes, ways)
    assert (root / "esc50/audio" / NAMES[0]).read_bytes() == b"mine"


def test_clips_that_the_archive_lacks_are_counted(home: Home, root: Path, ways: Ways) -> None:
    done = prepare_task(task_of(zipped(home, archive(1))), root, yes, ways)
    assert (done.is_complete, done.n_missing) == (False, 2)


# --- what stands in the way -------------------------------------------------------------------------------------------


def test_without_an_automatic_way_one_message_says_how_by_hand(root: Path, ways: Ways) -> None:
    task = replace(
        esc50(), remote_files=(), download="fill in the form at https://example.org.", licence="for research only"
    )
    with pytest.raises(MissingDataError) as caught:
        prepare_task(task, root, never, ways)
    assert str(caught.value) == (
        "The data of 'esc50' cannot be fetched automatically. By hand: fill in the form at https://example.org. "
        f"Licence: for research only. The data root is {root}."
    )


def test_a_7z_archive_is_fetched_and_named_with_its_command(home: Home, root: Path, ways: Ways) -> None:
    csv = replace(home.put("esc50.csv", table()), folder="meta")
    packed = replace(home.put("audio.7z", b"7z\xbc\xaf\x27\x1c" + bytes(50)), unpack=True)
    done = prepare_task(task_of(csv, packed), root, yes, ways)
    (message,) = done.by_hand
    assert f"7z x {root / 'esc50/audio.7z'} -o{root / 'esc50'}" in message and not done.is_complete
    assert (root / "esc50/audio.7z").is_file()


def test_what_was_done_by_hand_is_not_asked_for_again(home: Home, root: Path, ways: Ways) -> None:
    csv = replace(home.put("esc50.csv", table()), folder="meta")
    packed = replace(home.put("audio.7z", b"7z\xbc\xaf\x27\x1c" + bytes(50)), unpack=True)
    prepare_task(task_of(csv, packed), root, yes, ways)
    (root / "esc50/audio.7z").unlink()
    (root / "esc50/audio").mkdir()
    for number, name in enumerate(NAMES):
        (root / "esc50/audio" / name).write_bytes(clip(number))
    home.asked.clear()
    assert prepare_task(task_of(csv, packed), root, never, ways).is_complete
    assert home.asked == []


def test_the_parts_of_one_zip_are_one_message(home: Home, root: Path, ways: Ways) -> None:
    csv = replace(home.put("esc50.csv", table()), folder="meta")
    last = bytearray(archive())
    last[last.rindex(b"PK\x05\x06") + 4] = 1
    parts = [home.put("audio.z01", b"PK\x07\x08" + bytes(50)), home.put("audio.zip", bytes(last))]
    (message,) = prepare_task(task_of(csv, *parts), root, yes, ways).by_hand
    assert f"zip -s 0 {root / 'esc50/audio.zip'}" in message


def test_an_archive_by_hand_without_which_nothing_is_found_is_an_error(home: Home, root: Path, ways: Ways) -> None:
    packed = replace(home.put("all.7z", b"7z\xbc\xaf\x27\x1c" + bytes(50)), unpack=True)
    with pytest.raises(MissingDataError, match="7z x "):
        prepare_task(task_of(packed), root, yes, ways)


def test_nothing_is_fetched_without_a_yes(home: Home, root: Path, ways: Ways) -> None:
    with pytest.raises(UsageError, match="not confirmed"):
        prepare_task(task_of(zipped(home)), root, lambda question: False, ways)
    assert (home.asked, root.exists()) == ([], False)


def test_the_question_names_files_place_and_licence(home: Home, root: Path, ways: Ways) -> None:
    asked: list[str] = []
    prepare_task(task_of(zipped(home)), root, lambda question: not asked.append(question), ways)
    assert asked == [
        f"Fetch master.zip from https://github.com/karolpiczak/ESC-50 into {root / 'esc50'}? "
        "Licence: CC BY-NC 3.0 (the ESC-10 subset: CC BY)."
    ]


def test_the_room_that_is_needed_is_said_first(
    home: Home, root: Path, ways: Ways, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "free_bytes", lambda folder: 5 * 10**9)
    csv, packed = home.put("more.csv", bytes(500)), zipped(home, bytes(2000))
    with pytest.raises(UsageError):
        prepare_task(task_of(csv, replace(packed, n_bytes=None)), root, lambda question: False, ways)
    assert said == [
        "The data of 'esc50': 2 files, 2.5 kB to fetch (4.5 kB while archives are unpacked); "
        f"{root / 'esc50'} has 5.0 GB to spare."
    ]


def test_a_size_that_nobody_tells_is_said_to_be_unknown(
    home: Home, root: Path, ways: Ways, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "remote_bytes", lambda url: None)
    with pytest.raises(UsageError):
        prepare_task(task_of(replace(zipped(home), n_bytes=None)), root, lambda question: False, ways)
    assert "1 file, at least 0 bytes to fetch;" in said[0]


def test_too_little_room_is_said_before_anything_is_asked(
    home: Home, root: Path, ways: Ways, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "free_bytes", lambda folder: 100)
    with pytest.raises(UsageError, match="has 100 bytes to spare, and the data of 'esc50' needs about"):
        prepare_task(task_of(zipped(home)), root, never, ways)


def test_two_commands_on_one_task_keep_off_each_other(home: Home, root: Path, ways: Ways) -> None:
    task = task_of(zipped(home))
    store = prepare._Store(task, root)
    with store.locked(), pytest.raises(UsageError, match="Another process is preparing"):
        prepare_task(task, root, yes, ways)


def test_a_data_root_that_is_a_file_is_refused(home: Home, root: Path, ways: Ways) -> None:
    root.write_text("a file")
    with pytest.raises(UsageError, match="is a file, not a folder"):
        prepare_task(task_of(zipped(home)), root, never, ways)


# --- what a task may ask for ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["../elsewhere", "/etc", "a/../../b", "..\\b", ".lalm-harness"])
def test_a_task_cannot_put_files_outside_its_folder(root: Path, ways: Ways, folder: str) -> None:
    with pytest.raises(PluginError, match="outside its own folder"):
        prepare_task(task_of(RemoteFile("https://example.org/a.csv", folder)), root, never, ways)


@pytest.mark.parametrize(
    "url", ["https://example.org/", "https://example.org", "https://example.org/..", "https://e.org/%2e%2e%2fa"]
)
def test_an_address_without_a_file_name_is_refused(root: Path, ways: Ways, url: str) -> None:
    with pytest.raises(PluginError, match="ends in no file name"):
        prepare_task(task_of(RemoteFile(url)), root, never, ways)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://zenodo.org/records/1/files/a%20b.zip?download=1", "a b.zip"),
        ("https://zenodo.org/api/records/1/files/a.zip/content", "a.zip"),
        ("https://www.dropbox.com/s/xyz/vs_release_16k.zip?dl=1", "vs_release_16k.zip"),
    ],
)
def test_the_name_is_the_one_at_home(url: str, name: str) -> None:
    assert prepare._file_name(RemoteFile(url)) == name


def test_two_files_of_one_name_are_refused(root: Path, ways: Ways) -> None:
    files = (RemoteFile("https://one.example/a.csv"), RemoteFile("https://two.example/a.csv"))
    with pytest.raises(PluginError, match="two files called"):
        prepare_task(task_of(*files), root, never, ways)


def test_files_that_do_not_make_the_set_are_the_tasks_fault(home: Home, root: Path, ways: Ways) -> None:
    with pytest.raises(PluginError, match="does not find its data"):
        prepare_task(task_of(home.put("unrelated.csv", b"x")), root, yes, ways)


def test_data_goes_where_it_is_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LALM_HARNESS_DATA", raising=False)
    assert (data_folder(None), data_folder(tmp_path)) == (Path("data"), tmp_path)
    monkeypatch.setenv("LALM_HARNESS_DATA", str(tmp_path / "named"))
    assert data_folder(None) == tmp_path / "named"


# --- corenlp ----------------------------------------------------------------------------------------------------------


def put_jars(home: Home, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """A Maven repository with small jars and the SHA-1 of each; content by file name."""
    jars = {}
    for name in CORENLP_FILES:
        content = name.encode()
        home.put(name, content)
        home.put(f"{name}.sha1", hashlib.sha1(content).hexdigest().encode())
        jars[Path(name).name] = content
        monkeypatch.setitem(CORENLP_FILES, name, None)
    return jars


def test_all_jars_are_fetched_and_nothing_else_is_left(
    home: Home, root: Path, ways: Ways, monkeypatch: pytest.MonkeyPatch
) -> None:
    jars = put_jars(home, monkeypatch)
    paths = prepare_corenlp(root, yes, ways, home.url)
    assert {path.name: path.read_bytes() for path in paths} == jars
    assert files_in(root) == sorted(jars)


def test_the_jars_are_those_that_spice_looks_for(
    home: Home, root: Path, ways: Ways, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.captioning.corenlp import CODE_JAR, MODELS_JAR

    put_jars(home, monkeypatch)
    names = {path.name for path in prepare_corenlp(root, yes, ways, home.url)}
    assert names == {CODE_JAR, MODELS_JAR, "rhino-1.7.14.jar", "rhino-engine-1.7.14.jar"}


def test_jars_that_are_there_are_not_fetched(home: Home, root: Path, ways: Ways) -> None:
    root.mkdir()
    for name in CORENLP_FILES:
        (root / Path(name).name).write_bytes(b"mine")
    prepare_corenlp(root, never, ways, home.url)
    assert home.asked == []


def test_a_jar_that_is_not_the_published_one_is_refused(
    home: Home, root: Path, ways: Ways, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_jars(home, monkeypatch)
    name = next(iter(CORENLP_FILES))
    home.put(name, b"something else")
    with pytest.raises(DownloadError, match="sha1"):
        prepare_corenlp(root, yes, ways, home.url)
    assert files_in(root) == []


def test_the_sha256_that_is_known_is_checked_too(
    home: Home, root: Path, ways: Ways, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_jars(home, monkeypatch)
    monkeypatch.setitem(CORENLP_FILES, "org/mozilla/rhino/1.7.14/rhino-1.7.14.jar", "0" * 64)
    with pytest.raises(DownloadError, match="rhino-1.7.14.jar: .*sha256"):
        prepare_corenlp(root, yes, ways, home.url)


@pytest.mark.parametrize("content", [b"", b"not a digest", b"abc"])
def test_a_jar_without_a_published_digest_is_not_fetched(
    home: Home, root: Path, ways: Ways, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    put_jars(home, monkeypatch)
    home.put(f"{next(iter(CORENLP_FILES))}.sha1", content)
    with pytest.raises(DownloadError, match="holds no SHA-1"):
        prepare_corenlp(root, yes, ways, home.url)
    assert files_in(root) == []


def test_jars_are_not_fetched_without_a_yes(home: Home, root: Path, ways: Ways) -> None:
    with pytest.raises(UsageError, match="not confirmed"):
        prepare_corenlp(root, lambda question: "GPL-3" not in question, ways, home.url)
    assert home.asked == []


def test_jars_go_where_spice_looks_for_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LALM_HARNESS_CORENLP", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert corenlp_folder() == tmp_path / "lalm-harness" / "corenlp"
    monkeypatch.setenv("LALM_HARNESS_CORENLP", str(tmp_path / "named"))
    assert corenlp_folder() == tmp_path / "named"


def test_the_digest_that_is_known_is_that_of_the_real_file(shared_data: Path) -> None:
    content = (shared_data / "corenlp" / "rhino-1.7.14.jar").read_bytes()
    assert CORENLP_FILES["org/mozilla/rhino/1.7.14/rhino-1.7.14.jar"] == hashlib.sha256(content).hexdigest()
