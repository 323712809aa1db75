"""`data prepare`, `data verify` and `data list` as typed: what is printed, and the exit codes."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile

from harness import cli, prepare
from tasks.esc50 import CATEGORIES, COLUMNS

REPOSITORY = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "transformers", "numba", "numpy", "soundfile", "rich", "urllib.request")
NAMES = [f"1-{number}-A-{number}.wav" for number in range(3)]
Capture = pytest.CaptureFixture[str]

TASK_FILE = '''"""Three clips from a server of the test."""
from __future__ import annotations
from dataclasses import replace
from harness.contracts import RemoteFile, Task
def three_clips() -> Task:
    from tasks.esc50 import esc50
    task = esc50()
    return replace(
        task, name="three_clips", licence="free", remote_files=(RemoteFile("{url}/three.zip", unpack=True),),
        read_items=lambda root: replace(task.read_items(root), n_declared=3), starter_root=None, read_starter=None,
        published_counts={},
    )
'''


def clip(number: int) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, np.random.default_rng(number).uniform(-1, 1, 100), 8_000, format="WAV")
    return stream.getvalue()


def table() -> str:
    rows = [f"{name},1,{number},{CATEGORIES[number]},True,{number},A" for number, name in enumerate(NAMES)]
    return "\n".join([",".join(COLUMNS), *rows])


def write_esc50(root: Path) -> Path:
    (root / "meta").mkdir(parents=True)
    (root / "audio").mkdir()
    (root / "meta" / "esc50.csv").write_text(table())
    for number, name in enumerate(NAMES):
        (root / "audio" / name).write_bytes(clip(number))
    return root


@pytest.fixture
def home(tmp_path: Path) -> Iterator[str]:
    """Address of a server that has three.zip."""
    folder = tmp_path / "home"
    folder.mkdir()
    with zipfile.ZipFile(folder / "three.zip", "w") as archive:
        archive.writestr("meta/esc50.csv", table())
        for number, name in enumerate(NAMES):
            archive.writestr(f"audio/{name}", clip(number))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def plugin(tmp_path: Path, home: str) -> str:
    path = tmp_path / "three_clips.py"
    path.write_text(TASK_FILE.replace("{url}", home))
    return str(path)


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither ./data nor the variable lead anywhere."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("LALM_HARNESS_DATA", raising=False)


# --- the group --------------------------------------------------------------------------------------------------------


def test_help_of_data_lists_its_verbs(capsys: Capture) -> None:
    assert cli.main(["data", "--help"]) == 0
    printed = capsys.readouterr().out
    assert not [verb for verb in ("prepare", "verify", "list") if f"\n  {verb} " not in printed]


@pytest.mark.parametrize("words", [["data", "--help"], ["data", "prepare", "--help"], ["data", "verify", "--help"]])
def test_help_of_data_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        f"import sys; from harness.cli import main; code = main({words!r});"
        f"print(code, [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout.strip().splitlines()[-1] == "0 []"


@pytest.mark.parametrize(
    ("words", "part_of_message"),
    [
        (["data"], "Missing command. See 'lalm-harness data --help'."),
        (["data", "verfy"], "Did you mean 'verify'?"),
        (["data", "verify"], "TASK"),
        (["data", "verify", "esc05"], "Did you mean esc50?"),
        (["data", "verify", "esc50", "--data-root", "nowhere"], "--data-root nowhere: there is no such folder"),
        (["data", "verify", "esc50", "-t", "fold=9"], "folds 1 to 5"),
        (["data", "prepare", "esc05"], "Did you mean esc50?"),
        (["data", "list", "--data-root", "nowhere"], "There is no folder nowhere."),
    ],
)
def test_a_mistake_is_one_line_and_code_2(words: list[str], part_of_message: str, capsys: Capture) -> None:
    assert cli.main(words) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1 and captured.out == ""
    assert part_of_message in captured.err


# --- prepare ----------------------------------------------------------------------------------------------------------


def test_prepare_fetches_and_says_what_is_there(plugin: str, capsys: Capture) -> None:
    assert cli.main(["data", "prepare", "three_clips", "--yes", "--plugin", plugin]) == 0
    captured = capsys.readouterr()
    assert captured.out == "three_clips: 3 items of 3 in data/three_clips\n"
    assert "Licence: free." in captured.err and "to spare" in captured.err


def test_what_was_prepared_is_verified_at_once(plugin: str, capsys: Capture) -> None:
    cli.main(["data", "prepare", "three_clips", "--yes", "--plugin", plugin, "--data-root", "elsewhere"])
    words = ["data", "verify", "three_clips", "--plugin", plugin, "--data-root", "elsewhere/three_clips"]
    assert cli.main(words) == 0
    assert capsys.readouterr().out.endswith("no fault\n")


def test_without_a_terminal_prepare_wants_yes(plugin: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert cli.main(["data", "prepare", "three_clips", "--plugin", plugin]) == 2
    assert "Say --yes to accept." in capsys.readouterr().err
    assert not Path("data").exists()


@pytest.mark.parametrize(("typed", "code"), [("y\n", 0), ("n\n", 2), ("", 130)])
def test_at_a_terminal_prepare_asks(
    plugin: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch, typed: str, code: int
) -> None:
    stdin = io.StringIO(typed)
    monkeypatch.setattr(stdin, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", stdin)
    assert cli.main(["data", "prepare", "three_clips", "--plugin", plugin]) == code
    assert Path("data/three_clips/meta/esc50.csv").exists() == (code == 0)


def test_an_interruption_says_that_it_can_go_on(plugin: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "download", interrupt)
    assert cli.main(["data", "prepare", "three_clips", "--yes", "--plugin", plugin]) == 130
    assert "the same command continues where it stopped" in capsys.readouterr().err


def test_a_server_that_fails_is_one_line_and_code_2(
    plugin: str, home: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(plugin).write_text(TASK_FILE.replace("{url}/three", f"{home}/gone"))
    assert cli.main(["data", "prepare", "three_clips", "--yes", "--plugin", plugin]) == 2
    assert f"error: {home}/gone.zip: the server answers 404 File not found.\n" in capsys.readouterr().err


def test_data_that_is_incomplete_is_code_1(plugin: str, capsys: Capture) -> None:
    root = write_esc50(Path("data/ESC-50"))
    (root / "audio" / NAMES[1]).unlink()
    assert cli.main(["data", "prepare", "three_clips", "--yes", "--plugin", plugin]) == 1
    assert "1 clip is missing. By hand: https://github.com/karolpiczak" in capsys.readouterr().out


def test_a_task_without_an_automatic_way_is_one_message(plugin: str, capsys: Capture) -> None:
    Path(plugin).write_text(TASK_FILE.replace('(RemoteFile("{url}/three.zip", unpack=True),)', "()"))
    assert cli.main(["data", "prepare", "three_clips", "--plugin", plugin]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: The data of 'three_clips' cannot be fetched automatically. By hand: ")
    assert captured.err.count("\n") == 1


def test_prepare_corenlp_fetches_the_jars(
    home: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "MAVEN_CENTRAL", home)
    monkeypatch.setattr(prepare, "CORENLP_FILES", {"three.zip": None})
    digest = hashlib.sha1((tmp_path / "home/three.zip").read_bytes()).hexdigest()
    (tmp_path / "home/three.zip.sha1").write_text(digest)
    assert cli.main(["data", "prepare", "corenlp", "--yes", "--data-root", "jars"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ("jars/three.zip\nSPICE looks there when the environment says LALM_HARNESS_CORENLP=jars\n")
    assert "GPL-3" in captured.err and Path("jars/three.zip").is_file()


# --- verify -----------------------------------------------------------------------------------------------------------


def test_faults_are_printed_with_their_count_and_are_code_1(plugin: str, capsys: Capture) -> None:
    root = write_esc50(Path("data/ESC-50"))
    for number in range(5):
        (root / "audio" / f"stray {number}.wav").write_bytes(b"x")
    (root / "audio" / NAMES[0]).unlink()
    assert cli.main(["data", "verify", "three_clips", "--plugin", plugin]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == ("three_clips (official) in data/ESC-50: 3 items of 3, 3 clips, 2 heard, 8000 Hz, 1 channel")
    assert "  missing              1" in lines and f"    audio/{NAMES[0]}: no such file" in lines
    assert "  extra                5" in lines and "    and 2 more" in lines
    assert "  silent               0" in lines and lines[-1] == "6 faults"


def test_a_good_set_is_code_0(plugin: str, capsys: Capture) -> None:
    write_esc50(Path("data/ESC-50"))
    assert cli.main(["data", "verify", "three_clips", "--plugin", plugin]) == 0
    assert capsys.readouterr().out.endswith("\nno fault\n")


def test_a_part_of_the_benchmark_is_code_1(capsys: Capture) -> None:
    assert cli.main(["data", "verify", "esc50", "--data-root", str(write_esc50(Path("set")))]) == 1
    assert "    items: 3 instead of 2000\n" in capsys.readouterr().out


def test_all_faults_are_written_as_json(plugin: str, tmp_path: Path) -> None:
    root = write_esc50(Path("data/ESC-50"))
    for number in range(5):
        (root / "audio" / f"stray {number}.wav").write_bytes(b"x")
    cli.main(["data", "verify", "three_clips", "--plugin", plugin, "--json", str(tmp_path / "report.json")])
    saved = json.loads((tmp_path / "report.json").read_text())
    assert (saved["task"], saved["n_faults"], len(saved["faults"]["extra"])) == ("three_clips", 5, 5)


def test_a_starter_set_is_verified_as_one(capsys: Capture) -> None:
    assert cli.main(["data", "verify", "speech_commands"]) == 0
    assert capsys.readouterr().out.startswith("speech_commands (starter) in ")


# --- list -------------------------------------------------------------------------------------------------------------


def listed(capsys: Capture, *words: str) -> dict[str, str]:
    """The lines of `data list` by their first word."""
    assert cli.main(["data", "list", *words]) == 0
    return {line.split()[0]: " ".join(line.split()[1:]) for line in capsys.readouterr().out.splitlines()}


def test_list_says_what_was_found_where(capsys: Capture) -> None:
    write_esc50(Path("data/ESC-50"))
    lines = listed(capsys)
    assert lines["esc50"] == "3 of 2000 official data/ESC-50 CC BY-NC 3.0 (the ESC-10 subset: CC BY)"


def test_list_tells_a_starter_set_from_the_benchmark(capsys: Capture) -> None:
    assert listed(capsys)["esc50"].startswith("193 of 193 starter ")


def test_list_says_what_was_not_found(capsys: Capture) -> None:
    assert listed(capsys)["clotho"].startswith("- not found captions: Tampere University")


def test_list_counts_clips_that_are_missing(capsys: Capture) -> None:
    root = write_esc50(Path("data/ESC-50"))
    (root / "audio" / NAMES[2]).unlink()
    assert listed(capsys)["esc50"].startswith("3 of 2000, 1 without audio official ")


def test_list_goes_on_after_a_table_that_cannot_be_read(capsys: Capture) -> None:
    root = write_esc50(Path("data/ESC-50"))
    (root / "meta/esc50.csv").write_text("nonsense\n")
    lines = listed(capsys)
    assert "line 1: the header is 'nonsense'" in lines["esc50"] and "vocalsound" in lines


def test_list_looks_into_the_folder_that_is_named(capsys: Capture) -> None:
    write_esc50(Path("other/ESC-50"))
    lines = listed(capsys, "--data-root", "other")
    assert lines["esc50"].startswith("3 of 2000 official other/ESC-50")
