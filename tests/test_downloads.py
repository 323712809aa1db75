"""A download is whole and right, or an error: against a server that drops, lies, refuses and changes its mind."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import random
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from harness import downloads
from harness.byte_progress import PlainMeter, bytes_text
from harness.downloads import DownloadError, Patience, Wanted, download, free_bytes, remote_bytes

CONTENT = random.Random(1).randbytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SHA1 = hashlib.sha1(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()
PATIENT = Patience(tries=3, first_wait_s=0.0, timeout_s=5.0)

Behaviour = Callable[["Handler"], None]


class Server(ThreadingHTTPServer):
    """Serves `content` with ranges and an ETag. Each GET first takes what `script` has next for it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.etag: str | None = '"one"'
        self.script: list[Behaviour] = []
        self.asked: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/set/clips.bin"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.close_connection = True
        self.server.asked.append(dict(self.headers))
        behaviour = self.server.script.pop(0) if self.server.script else serve
        behaviour(self)

    def do_HEAD(self) -> None:
        self.close_connection = True
        self.reply(200, {"Content-Length": str(len(self.server.content))}, b"")

    def log_message(self, *_: object) -> None:
        pass

    def reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def first_byte(self) -> int:
        """Where the answer begins, by Range and If-Range."""
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range", self.server.etag) == self.server.etag
        return int(found[1]) if found and same else 0

    def serve(self, n_bytes: int | None = None, **changed: str) -> None:
        """A right answer, cut after `n_bytes` of its body, with changed headers (underscores stand for hyphens)."""
        content, first = self.server.content, self.first_byte()
        if first and first >= len(content):
            self.reply(416, {"Content-Range": f"bytes */{len(content)}", "Content-Length": "0"}, b"")
            return
        headers = {"Content-Length": str(len(content) - first)}
        if self.server.etag:
            headers["ETag"] = self.server.etag
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        headers |= {name.replace("_", "-"): value for name, value in changed.items()}
        body = content[first:]
        self.reply(206 if first else 200, headers, body if n_bytes is None else body[:n_bytes])


def serve(handler: Handler) -> None:
    handler.serve()


def drop_after(n_bytes: int) -> Behaviour:
    return lambda handler: handler.serve(n_bytes)


def ignore_range(n_bytes: int | None = None) -> Behaviour:
    def behave(handler: Handler) -> None:
        del handler.headers["Range"]
        handler.serve(n_bytes)

    return behave


def answer(status: int, **headers: str) -> Behaviour:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler: handler.reply(status, {"Content-Length": "0"} | named, b"")


def chunked(n_bytes: int | None = None) -> Behaviour:
    """No length; the last chunk is missing when only `n_bytes` come."""

    def behave(handler: Handler) -> None:
        body = handler.server.content[:n_bytes]
        end = b"0\r\n\r\n" if n_bytes is None else b""
        handler.reply(200, {"Transfer-Encoding": "chunked"}, b"%x\r\n%s\r\n" % (len(body), body) + end)

    return behave


def close_without_answer(handler: Handler) -> None:
    handler.connection.close()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=lambda: running.serve_forever(poll_interval=0.01))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "data" / "clips.bin"


def fetch(server: Server, target: Path, patience: Patience = PATIENT, **known: object) -> bool:
    return download(Wanted(server.url, target, **known), patience=patience)  # type: ignore[arg-type]


def ranges(server: Server) -> list[str | None]:
    """The Range of each request so far."""
    return [headers.get("Range") for headers in server.asked]


def left_in(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


# --- whole and right --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [{}, {"sha256": SHA256}, {"sha1": SHA1}, {"md5": MD5}, {"n_bytes": len(CONTENT)}])
def test_a_file_comes_whole_and_leaves_nothing_else(server: Server, target: Path, known: dict[str, object]) -> None:
    assert fetch(server, target, **known) is True
    assert target.read_bytes() == CONTENT and left_in(target) == ["clips.bin"]


def test_a_file_without_a_length_comes_whole(server: Server, target: Path) -> None:
    server.script = [chunked()]
    fetch(server, target)
    assert target.read_bytes() == CONTENT


def test_a_digest_in_capitals_is_the_same_digest(server: Server, target: Path) -> None:
    assert fetch(server, target, sha256=SHA256.upper())


def test_a_redirect_is_followed(server: Server, target: Path) -> None:
    server.script = [answer(302, Location="/elsewhere")]
    fetch(server, target, sha256=SHA256)
    assert target.read_bytes() == CONTENT


def test_the_meter_is_told_how_far_it_is(server: Server, target: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    download(Wanted(server.url, target), lambda done, total: seen.append((done, total)), PATIENT)
    assert (seen[0], seen[-1]) == ((0, len(CONTENT)), (len(CONTENT), len(CONTENT)))
    assert seen == sorted(seen)


def test_the_size_is_asked_for_without_the_file(server: Server) -> None:
    assert (remote_bytes(server.url), server.asked) == (len(CONTENT), [])


def test_a_server_that_is_not_there_gives_no_size() -> None:
    assert remote_bytes("http://127.0.0.1:9/none") is None


# --- broken off and continued -----------------------------------------------------------------------------------------


def test_a_dropped_connection_is_continued_where_it_broke_off(server: Server, target: Path) -> None:
    server.script = [drop_after(100_000), drop_after(50_000)]
    fetch(server, target)
    assert target.read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=100000-", "bytes=150000-"]
    assert server.asked[1]["If-Range"] == '"one"'


def test_drops_that_each_bring_something_do_not_tire_it(server: Server, target: Path) -> None:
    server.script = [drop_after(10_000)] * 10
    fetch(server, target)
    assert target.read_bytes() == CONTENT


def test_an_interrupted_command_is_continued_by_the_next(server: Server, target: Path) -> None:
    server.script = [drop_after(100_000), *[drop_after(0)] * 3]
    with pytest.raises(DownloadError, match="100.0 kB are kept .*clips.bin.part: the same command continues there"):
        fetch(server, target)
    assert left_in(target) == ["clips.bin.part", "clips.bin.part.json"]
    server.asked.clear()
    fetch(server, target)
    assert (target.read_bytes(), ranges(server)) == (CONTENT, ["bytes=100000-"])


def test_a_killed_command_is_continued_by_the_next(server: Server, target: Path) -> None:
    def stop(done: int, total: int | None) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(Wanted(server.url, target), stop, PATIENT)
    n_kept = target.with_name("clips.bin.part").stat().st_size
    fetch(server, target)
    assert (target.read_bytes(), ranges(server)) == (CONTENT, [None, f"bytes={n_kept}-"])


def test_a_part_that_is_whole_is_not_asked_for_again(server: Server, target: Path) -> None:
    server.script = [drop_after(100_000), *[drop_after(0)] * 3]
    with pytest.raises(DownloadError):
        fetch(server, target)
    target.with_name("clips.bin.part").write_bytes(CONTENT)
    server.asked.clear()
    fetch(server, target, sha256=SHA256)
    assert (target.read_bytes(), server.asked) == (CONTENT, [])


def test_a_server_that_says_the_part_is_all_there_is_believed(server: Server, target: Path) -> None:
    target.parent.mkdir()
    target.with_name("clips.bin.part").write_bytes(CONTENT)
    target.with_name("clips.bin.part.json").write_text(f'{{"url": "{server.url}", "etag": "\\"one\\""}}')
    fetch(server, target)
    assert (target.read_bytes(), ranges(server)) == (CONTENT, [f"bytes={len(CONTENT)}-"])


def test_a_server_that_ignores_ranges_sends_it_from_the_beginning(server: Server, target: Path) -> None:
    server.script = [drop_after(100_000), ignore_range()]
    fetch(server, target)
    assert target.read_bytes() == CONTENT


def test_a_server_that_ignores_ranges_and_drops_at_one_place_is_given_up(server: Server, target: Path) -> None:
    server.script = [ignore_range(100_000)] * 9
    with pytest.raises(DownloadError, match="ended after 100000 of 300000 bytes; given up after 3 tries"):
        fetch(server, target)
    assert len(server.asked) == 4 and not target.exists()


def test_another_version_of_the_file_is_fetched_from_the_beginning(server: Server, target: Path) -> None:
    def change(handler: Handler) -> None:
        handler.server.content, handler.server.etag = CONTENT[::-1], '"two"'
        handler.serve()

    server.script = [drop_after(100_000), change]
    fetch(server, target)
    assert target.read_bytes() == CONTENT[::-1]


def test_a_piece_of_another_version_is_not_put_behind_the_first(server: Server, target: Path) -> None:
    server.script = [drop_after(100_000), lambda handler: handler.serve(ETag='"two"')]
    fetch(server, target)
    assert (target.read_bytes(), ranges(server)) == (CONTENT, [None, "bytes=100000-", None])


def test_a_piece_from_another_place_is_not_put_behind_the_first(server: Server, target: Path) -> None:
    shifted = "bytes 99999-299999/300000"
    server.script = [drop_after(100_000), lambda handler: handler.serve(Content_Range=shifted)]
    fetch(server, target)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_strong_version_or_a_digest_a_part_is_not_continued(
    server: Server, target: Path, etag: str | None
) -> None:
    server.etag, server.script = etag, [drop_after(100_000)]
    fetch(server, target)
    assert (target.read_bytes(), ranges(server)) == (CONTENT, [None, None])


def test_without_a_version_a_part_is_continued_when_a_digest_will_tell(server: Server, target: Path) -> None:
    server.etag, server.script = None, [drop_after(100_000)]
    fetch(server, target, sha256=SHA256)
    assert (target.read_bytes(), ranges(server)) == (CONTENT, [None, "bytes=100000-"])


def test_pieces_that_do_not_fit_are_fetched_once_more_in_one(server: Server, target: Path) -> None:
    server.etag = None
    target.parent.mkdir()
    target.with_name("clips.bin.part").write_bytes(b"x" * 1000)
    target.with_name("clips.bin.part.json").write_text(f'{{"url": "{server.url}"}}')
    fetch(server, target, sha256=SHA256)
    assert (target.read_bytes(), ranges(server)) == (CONTENT, ["bytes=1000-", None])


def test_a_part_from_another_address_is_not_continued(server: Server, target: Path) -> None:
    target.parent.mkdir()
    target.with_name("clips.bin.part").write_bytes(b"x" * 1000)
    target.with_name("clips.bin.part.json").write_text('{"url": "http://other.example/clips.bin", "etag": "\\"one\\""}')
    fetch(server, target)
    assert (target.read_bytes(), ranges(server)) == (CONTENT, [None])


@pytest.mark.parametrize("notes", ["", "[]", "{not json", '{"url": 3, "total": "many"}'])
def test_torn_notes_of_a_part_make_it_begin_anew(server: Server, target: Path, notes: str) -> None:
    target.parent.mkdir()
    target.with_name("clips.bin.part").write_bytes(b"x" * 1000)
    target.with_name("clips.bin.part.json").write_text(notes)
    fetch(server, target)
    assert target.read_bytes() == CONTENT


def test_a_chunked_answer_without_its_end_is_not_whole(server: Server, target: Path) -> None:
    server.script = [chunked(100_000)]
    fetch(server, target)
    assert (target.read_bytes(), len(server.asked)) == (CONTENT, 2)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(server: Server, target: Path, status: int) -> None:
    server.script = [answer(status), answer(status, Retry_After="0")]
    fetch(server, target)
    assert (target.read_bytes(), len(server.asked)) == (CONTENT, 3)


def test_a_server_that_stays_busy_is_given_up(server: Server, target: Path) -> None:
    server.script = [answer(503)] * 9
    with pytest.raises(DownloadError, match="503 Service Unavailable; given up after 3 tries"):
        fetch(server, target)
    assert len(server.asked) == 3


def test_the_wait_is_the_one_the_server_asks_for_or_grows(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(downloads.time, "sleep", waits.append)
    server.script = [answer(503), answer(503), answer(503, Retry_After="7"), answer(503, Retry_After="99999")]
    fetch(server, target, Patience(tries=9, first_wait_s=1.0))
    assert waits == [1.0, 2.0, 7.0, 120.0]


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_said_at_once(server: Server, target: Path, status: int) -> None:
    server.script = [answer(status)]
    with pytest.raises(DownloadError, match=f"the server answers {status}"):
        fetch(server, target)
    assert len(server.asked) == 1 and left_in(target) == []


def test_a_file_that_is_missing_for_a_while_is_continued_by_the_next_command(server: Server, target: Path) -> None:
    server.script = [drop_after(100_000), answer(404)]
    with pytest.raises(DownloadError, match="404 Not Found. 100.0 kB are kept"):
        fetch(server, target)
    fetch(server, target)
    assert (target.read_bytes(), ranges(server)[-1]) == (CONTENT, "bytes=100000-")


def test_a_server_that_hangs_up_is_asked_again(server: Server, target: Path) -> None:
    server.script = [close_without_answer]
    fetch(server, target)
    assert target.read_bytes() == CONTENT


def test_a_server_that_is_silent_is_given_up(server: Server, target: Path) -> None:
    enough = threading.Event()
    server.script = [lambda handler: void(enough.wait(5))]
    with pytest.raises(DownloadError, match="timed out"):
        fetch(server, target, Patience(tries=1, timeout_s=0.1))
    enough.set()


def void(_: object) -> None:
    """Nothing."""


def test_no_server_is_one_line(target: Path) -> None:
    with pytest.raises(DownloadError, match="refused") as caught:
        download(Wanted("http://127.0.0.1:9/x", target), patience=PATIENT)
    assert "\n" not in str(caught.value)


def test_a_redirect_in_a_circle_is_one_line(server: Server, target: Path) -> None:
    server.script = [answer(302, Location="/set/clips.bin")] * 30
    with pytest.raises(DownloadError, match="302") as caught:
        fetch(server, target)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.org/x", "clips.bin"])
def test_only_the_web_is_fetched_from(url: str, target: Path) -> None:
    with pytest.raises(DownloadError, match="no http or https address"):
        download(Wanted(url, target))


def test_a_redirect_to_another_protocol_is_not_followed(server: Server, target: Path) -> None:
    server.script = [answer(302, Location="ftp://127.0.0.1:9/x")]
    with pytest.raises(DownloadError, match="leads from http to ftp"):
        fetch(server, target)


# --- lies -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [{"sha256": SHA256}, {"sha1": SHA1}, {"md5": MD5}])
def test_wrong_bytes_are_thrown_away(server: Server, target: Path, known: dict[str, object]) -> None:
    server.content = CONTENT[:-1] + b"?"
    with pytest.raises(DownloadError, match="not the published file: its (sha|md5)"):
        fetch(server, target, **known)
    assert left_in(target) == []


def test_a_file_of_another_size_is_refused_before_it_comes(server: Server, target: Path) -> None:
    with pytest.raises(DownloadError, match="has 300000 bytes instead of 299999"):
        fetch(server, target, n_bytes=299_999)
    assert left_in(target) == []


def test_a_length_that_is_too_large_is_not_believed(server: Server, target: Path) -> None:
    server.script = [lambda handler: handler.serve(Content_Length="400000")] * 9
    with pytest.raises(DownloadError, match="300000 of 400000 bytes; given up|another length than before; given up"):
        fetch(server, target)
    assert not target.exists()


def test_a_length_that_is_too_small_is_found_by_the_digest(server: Server, target: Path) -> None:
    server.script = [lambda handler: handler.serve(Content_Length="200000")] * 9
    with pytest.raises(DownloadError, match="sha256"):
        fetch(server, target, sha256=SHA256)
    assert not target.exists()


def test_more_than_was_promised_is_not_taken(server: Server, target: Path) -> None:
    server.script = [chunked()] * 9
    with pytest.raises(DownloadError, match="more than the 1000 bytes"):
        fetch(server, target, n_bytes=1000)
    assert not target.exists()


def test_a_total_that_changes_midway_begins_anew(server: Server, target: Path) -> None:
    server.script = [
        drop_after(100_000),
        lambda handler: handler.serve(Content_Range="bytes 100000-299999/300001"),
    ]
    fetch(server, target)
    assert (target.read_bytes(), ranges(server)) == (CONTENT, [None, "bytes=100000-", None])


def test_an_end_that_only_the_connection_marks_is_not_trusted(server: Server, target: Path) -> None:
    server.script = [lambda handler: handler.reply(200, {"Connection": "close"}, CONTENT[:1000])]
    with pytest.raises(DownloadError, match="does not say how long the file is"):
        fetch(server, target)


def test_an_end_that_only_the_connection_marks_is_judged_by_the_digest(server: Server, target: Path) -> None:
    server.script = [lambda handler: handler.reply(200, {"Connection": "close"}, CONTENT)]
    assert fetch(server, target, sha256=SHA256)


def test_a_web_page_instead_of_the_file_is_named(server: Server, target: Path) -> None:
    page = b"<html>Please sign in</html>"
    headers = {"Content-Type": "text/html; charset=utf-8", "Content-Length": str(len(page))}
    server.script = [lambda handler: handler.reply(200, headers, page)]
    with pytest.raises(DownloadError, match="a web page instead of the file; a form or a log-in"):
        fetch(server, target)


def test_a_packed_answer_that_was_not_asked_for_is_refused(server: Server, target: Path) -> None:
    server.script = [lambda handler: handler.serve(Content_Encoding="gzip")]
    with pytest.raises(DownloadError, match="'gzip'"):
        fetch(server, target)


# --- what is there already, and room ----------------------------------------------------------------------------------


def test_a_file_that_is_there_is_kept_and_not_asked_for(server: Server, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(CONTENT)
    assert fetch(server, target, sha256=SHA256, n_bytes=len(CONTENT)) is False
    assert server.asked == []


@pytest.mark.parametrize("known", [{"sha256": SHA256}, {"n_bytes": len(CONTENT)}])
def test_another_file_of_that_name_is_not_written_over(server: Server, target: Path, known: dict[str, object]) -> None:
    target.parent.mkdir()
    target.write_bytes(b"mine")
    with pytest.raises(DownloadError, match="there already and is not written over"):
        fetch(server, target, **known)
    assert target.read_bytes() == b"mine"


def test_a_link_of_that_name_is_not_written_through(server: Server, target: Path) -> None:
    target.parent.mkdir()
    target.symlink_to(target.parent / "elsewhere")
    with pytest.raises(DownloadError, match="no plain file"):
        fetch(server, target)
    assert left_in(target) == ["clips.bin"]


def test_a_file_that_comes_into_being_meanwhile_is_not_written_over(server: Server, target: Path) -> None:
    def other(handler: Handler) -> None:
        target.write_bytes(b"mine")
        handler.serve()

    server.script = [other]
    with pytest.raises(DownloadError, match="meanwhile"):
        fetch(server, target)
    assert target.read_bytes() == b"mine"


def test_two_processes_do_not_write_one_part(server: Server, target: Path) -> None:
    problems: list[str] = []

    def ask_too(handler: Handler) -> None:
        with pytest.raises(DownloadError, match="Another process is fetching"):
            fetch(server, target)
        problems.append("refused")
        handler.serve()

    server.script = [ask_too]
    fetch(server, target)
    assert (problems, target.read_bytes()) == (["refused"], CONTENT)


def test_a_file_that_does_not_fit_on_the_disk_is_not_begun(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "free_bytes", lambda folder: 200_000)
    with pytest.raises(DownloadError, match="200.0 kB to spare, and clips.bin needs 300.0 kB more"):
        fetch(server, target)
    assert left_in(target) == []


def test_a_disk_that_fills_up_is_one_line(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __init__(self, file: io.FileIO) -> None:
            self._file = file

        def write(self, _: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        def __getattr__(self, name: str) -> object:
            return getattr(self._file, name)

    make = downloads._Part.__init__
    monkeypatch.setattr(downloads._Part, "__init__", lambda self, path, file, url: make(self, path, Full(file), url))
    with pytest.raises(DownloadError, match="cannot be written: No space left on device"):
        fetch(server, target)


def test_a_folder_that_cannot_be_made_is_one_line(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(DownloadError, match="cannot be written"):
        fetch(server, tmp_path / "data" / "clips.bin")


def test_free_space_is_that_of_the_nearest_folder_less_a_reserve(tmp_path: Path) -> None:
    status = os.statvfs(tmp_path)
    expected = status.f_bavail * status.f_frsize - downloads.RESERVED_BYTES
    assert free_bytes(tmp_path / "not" / "yet") == pytest.approx(max(0, expected), abs=50 * 10**6)


# --- what is shown ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (645_700_000, "645.7 MB"), (2 * 10**9, "2.0 GB")],
)
def test_sizes_read_as_people_write_them(n_bytes: int, text: str) -> None:
    assert bytes_text(n_bytes) == text


def test_a_log_gets_a_line_at_the_beginning_now_and_then_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("harness.byte_progress.time.monotonic", lambda: now)
    stream = io.StringIO()
    meter = PlainMeter("clips.bin", stream)
    for now in range(0, 21, 4):  # noqa: B007
        meter(now * 10**6, 20 * 10**6)
    meter(20 * 10**6, 20 * 10**6)
    assert stream.getvalue().splitlines() == [
        "clips.bin: 0 bytes of 20.0 MB",
        "clips.bin: 12.0 MB of 20.0 MB, 8 s left",
        "clips.bin: 20.0 MB of 20.0 MB",
    ]


def test_a_log_says_how_much_is_there_when_the_whole_is_unknown() -> None:
    stream = io.StringIO()
    PlainMeter("clips.bin", stream)(1500, None)
    assert stream.getvalue() == "clips.bin: 1.5 kB are there\n"
