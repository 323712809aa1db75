"""One file from a web server to the disk: continued where it broke off, checked, and never written over another.

While a file comes, it is `<name>.part`; `<name>.part.json` beside it says where it comes from and what the server calls
this version of it (ETag or Last-Modified, RFC 9110 section 8.8). A part is continued only when the server confirms that
version (If-Range), or when a published digest will tell in the end. Only a whole and checked file gets its name.
"""

from __future__ import annotations

import functools
import hashlib
import http.client
import json
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import urlsplit

from harness.byte_progress import Meter, bytes_text
from harness.errors import HarnessError

RESERVED_BYTES = 100 * 10**6
"""What is left free on the disk."""

ResultT = TypeVar("ResultT")

# The server, or something on the way to it, is expected to recover from these (RFC 9110 section 15, RFC 6585).
_PASSING_CODES = frozenset({408, 425, 429, 500, 502, 503, 504})
_LONGEST_RETRY_AFTER_S = 120.0
_BLOCK_BYTES = 1 << 18
_LOOK_AT_DISK_EVERY_BYTES = 1 << 26
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)$")
_UNSATISFIED_RANGE = re.compile(r"bytes \*/(\d+)$")


class DownloadError(HarnessError):
    """A file could not be fetched, or is not the one that was wanted."""


@dataclass(frozen=True)
class Wanted:
    """A file to fetch: where from, where to, and what is known of it.

    `sha256`, `sha1` and `md5` are in hexadecimal. What is None is not checked. An MD5 tells a damaged file from a whole
    one, and a forged one from neither.
    """

    url: str
    path: Path
    sha256: str | None = None
    n_bytes: int | None = None
    sha1: str | None = None
    md5: str | None = None

    @property
    def has_digest(self) -> bool:
        """Whether the content can be recognised."""
        return not (self.sha256 is self.sha1 is self.md5 is None)


@dataclass(frozen=True)
class Patience:
    """How often to try again without having got further, and how long to wait: longer each time."""

    tries: int = 5
    first_wait_s: float = 1.0
    longest_wait_s: float = 30.0
    timeout_s: float = 60.0


class _Passing(Exception):
    """Trouble that may be over soon."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


def _show_nothing(done: int, total: int | None) -> None:
    """A meter that nobody looks at."""


def download(wanted: Wanted, meter: Meter = _show_nothing, patience: Patience | None = None) -> bool:
    """Fetch a file; say whether anything had to be fetched.

    A file of that name that is there already is kept, and checked against what is known of it.

    Raises:
        DownloadError: the server refuses, breaks off too often, or sends something else; the disk is full; another file
            of that name is there; another process is fetching it.
    """
    if urlsplit(wanted.url).scheme not in ("http", "https"):
        raise DownloadError(f"{wanted.url} is no http or https address.")
    patience = patience or Patience()
    if os.path.lexists(wanted.path):
        _require_same(wanted)
        return False
    with _locked_part(wanted) as part:
        if os.path.lexists(wanted.path):  # another process finished while this one waited for the lock
            _require_same(wanted)
            return False
        _fetch_and_check(part, wanted, meter, patience)
        part.become(wanted.path)
    return True


def remote_bytes(url: str, timeout_s: float = 20.0) -> int | None:
    """The size that a server gives for a file, in bytes; None when it does not say, or does not answer."""
    request = urllib.request.Request(url, method="HEAD", headers=_headers())
    try:
        with _opener().open(request, timeout=timeout_s) as reply:
            return _content_length(reply.headers)
    except (OSError, http.client.HTTPException, ValueError, DownloadError):
        return None


def free_bytes(folder: Path) -> int:
    """Free space of the disk that a folder lies on, or would lie on, less what is kept in reserve; at least 0."""
    place = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    return max(0, shutil.disk_usage(place).free - RESERVED_BYTES)


def file_digest(path: Path, algorithm: str) -> str:
    """The digest of a file's bytes in hexadecimal; `algorithm` is "sha256" or "sha1"."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


# --- one file ---------------------------------------------------------------------------------------------------------


def _require_same(wanted: Wanted) -> None:
    problem = "it is no plain file" if not wanted.path.is_file() else _difference(wanted.path, wanted)
    if problem:
        raise DownloadError(f"{wanted.path} is there already and is not written over, but {problem}. Move it away.")


def _fetch_and_check(part: _Part, wanted: Wanted, meter: Meter, patience: Patience) -> None:
    """Fill the part. One that was put together of several pieces and is wrong is fetched once more, in one piece."""
    while True:
        _fetch_patiently(part, wanted, meter, patience)
        problem = _difference(part.path, wanted)
        if problem is None:
            return
        was_pieced = part.n_pieces > 1
        part.restart()
        if not was_pieced:
            part.discard()
            raise DownloadError(f"{wanted.url}: what came is not the published file: {problem}. It was thrown away.")


def _difference(path: Path, wanted: Wanted) -> str | None:
    """How a file differs from the wanted one; None when nothing speaks against it."""
    n_bytes = path.stat().st_size
    if wanted.n_bytes is not None and n_bytes != wanted.n_bytes:
        return f"it has {n_bytes} bytes instead of {wanted.n_bytes}"
    for algorithm, published in (("sha256", wanted.sha256), ("sha1", wanted.sha1), ("md5", wanted.md5)):
        found = file_digest(path, algorithm) if published else None
        if published and found != published.lower():
            return f"its {algorithm} is {found} instead of {published.lower()}"
    return None


def _fetch_patiently(part: _Part, wanted: Wanted, meter: Meter, patience: Patience) -> None:
    """Ask again after passing trouble, until `patience.tries` answers in a row brought nothing new."""
    most, n_vain = part.n_bytes, 0
    while True:
        try:
            _fetch_once(part, wanted, meter, patience.timeout_s)
            return
        except _Passing as trouble:
            reason, wait_s = str(trouble), trouble.wait_s
        n_vain = 0 if part.n_bytes > most else n_vain + 1
        most = max(most, part.n_bytes)
        if n_vain >= patience.tries:
            raise DownloadError(
                f"{wanted.url}: {reason}; given up after {n_vain} tries that brought nothing new. "
                f"{bytes_text(part.n_bytes)} are kept in {part.path}: the same command continues there."
            )
        grown_s = min(patience.first_wait_s * 2 ** max(0, n_vain - 1), patience.longest_wait_s)
        time.sleep(grown_s if wait_s is None else wait_s)


def _fetch_once(part: _Part, wanted: Wanted, meter: Meter, timeout_s: float) -> None:
    """Ask for what is missing and write it down.

    Raises:
        _Passing: the server breaks off, is busy, or contradicts itself.
        DownloadError: asking again would not help.
    """
    total = part.total if part.total is not None else wanted.n_bytes
    if part.n_bytes and part.n_bytes == total:
        return
    if not part.can_continue(wanted):
        part.restart()
    with _ask(part, wanted, timeout_s) as reply:
        if reply is None:  # the part is as long as the file
            return
        total = _begin(part, wanted, reply)
        _require_space(part, total)
        _copy_body(part, reply, total, meter)
    if total is not None and part.n_bytes < total:
        raise _Passing(f"the connection ended after {part.n_bytes} of {total} bytes")
    meter(part.n_bytes, part.n_bytes)


@contextmanager
def _ask(part: _Part, wanted: Wanted, timeout_s: float) -> Iterator[http.client.HTTPResponse | None]:
    """The server's answer; None when it says that the part has all of the file already."""
    request = urllib.request.Request(wanted.url, headers=_headers(part))
    try:
        reply = _opener().open(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        with error:
            _judge_refusal(part, wanted, error)
        yield None
        return
    except (OSError, http.client.HTTPException) as error:
        cause = getattr(error, "reason", error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise DownloadError(
                f"{wanted.url}: the server's certificate is not valid: {cause.verify_message}."
            ) from None
        raise _Passing(f"no answer ({_words(cause)})") from None
    with reply:
        yield reply


def _judge_refusal(part: _Part, wanted: Wanted, error: urllib.error.HTTPError) -> None:
    """Return when the refusal means that all is there; raise otherwise."""
    if error.code == 416 and part.n_bytes:
        whole = _UNSATISFIED_RANGE.match(error.headers.get("Content-Range", ""))
        if whole and int(whole[1]) == part.n_bytes and part.total in (None, part.n_bytes):
            return
        part.restart()
        raise _Passing("the server's file has another length than before")
    reason = " ".join(f"the server answers {error.code} {error.reason}".split())
    if error.code in _PASSING_CODES:
        raise _Passing(reason, _retry_after_s(error.headers))
    kept = f" {bytes_text(part.n_bytes)} are kept in {part.path}." if part.n_bytes else ""
    raise DownloadError(f"{wanted.url}: {reason}.{kept}")


def _begin(part: _Part, wanted: Wanted, reply: http.client.HTTPResponse) -> int | None:
    """Set the part to where the body of a reply begins; the length of the whole file, None when it is not told."""
    _refuse_other_content(wanted, reply)
    if reply.status == 206:
        total = _continued_total(part, reply)
    elif reply.status == 200:
        total = _content_length(reply.headers)
        part.restart(wanted.url, reply.headers, total)
    else:
        raise DownloadError(f"{wanted.url}: the server answers {reply.status} {reply.reason} instead of the file.")
    if wanted.n_bytes is not None and total not in (None, wanted.n_bytes):
        part.discard()
        raise DownloadError(f"{wanted.url}: the server's file has {total} bytes instead of {wanted.n_bytes}.")
    is_chunked = reply.headers.get("Transfer-Encoding", "").lower() == "chunked"
    if total is None and not is_chunked and wanted.n_bytes is None and not wanted.has_digest:
        raise DownloadError(
            f"{wanted.url}: the server does not say how long the file is, so that a cut one would pass for whole."
        )
    return wanted.n_bytes if total is None else total


def _refuse_other_content(wanted: Wanted, reply: http.client.HTTPResponse) -> None:
    encoding = reply.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise DownloadError(f"{wanted.url}: the server sends the file as '{encoding}', which was not asked for.")
    if reply.headers.get_content_type() == "text/html" and wanted.path.suffix not in (".html", ".htm"):
        raise DownloadError(
            f"{wanted.url}: the server answers with a web page instead of the file; a form or a log-in may stand in "
            "the way. Open the address in a browser."
        )


def _continued_total(part: _Part, reply: http.client.HTTPResponse) -> int | None:
    """Length of the whole file, from an answer that claims to continue the part.

    Raises:
        _Passing: it continues another place or another version; the part begins anew.
    """
    match = _CONTENT_RANGE.match(reply.headers.get("Content-Range", ""))
    tag = reply.headers.get("ETag")
    is_other_version = bool(tag and part.etag and tag != part.etag)
    if not match or int(match[1]) != part.n_bytes or is_other_version:
        part.restart()
        raise _Passing("the server continues another file, or another place of it")
    total = None if match[3] == "*" else int(match[3])
    if part.total is not None and total not in (None, part.total):
        part.restart()
        raise _Passing("the server's file has another length than before")
    part.n_pieces += 1
    return part.total if total is None else total


def _copy_body(part: _Part, reply: http.client.HTTPResponse, total: int | None, meter: Meter) -> None:
    meter(part.n_bytes, total)
    since_look = 0
    while True:
        try:
            block = reply.read1(_BLOCK_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise _Passing(f"the connection broke after {part.n_bytes} bytes ({_words(error)})") from None
        if not block:
            return
        if total is not None and part.n_bytes + len(block) > total:
            part.restart()
            raise _Passing(f"the server sends more than the {total} bytes it promised")
        part.append(block)
        meter(part.n_bytes, total)
        since_look += len(block)
        if since_look >= _LOOK_AT_DISK_EVERY_BYTES:
            since_look = 0
            _require_space(part, total)


def _require_space(part: _Part, total: int | None) -> None:
    needed, free = (total or part.n_bytes + 1) - part.n_bytes, free_bytes(part.path.parent)
    if needed > free:
        raise DownloadError(
            f"{part.path.parent} has {bytes_text(free)} to spare, and {part.path.stem} needs {bytes_text(needed)} "
            "more. Make room, or name another folder."
        )


# --- what is there of a file ------------------------------------------------------------------------------------------


class _Part:
    """The piece of a file that is there, and what is known of the whole."""

    def __init__(self, path: Path, file: IO[bytes], url: str) -> None:
        self.path = path
        self.n_pieces = 1
        self._file = file
        self._notes_path = path.with_name(f"{path.name}.json")
        notes = _read_notes(self._notes_path)
        self.n_bytes = file.seek(0, os.SEEK_END)
        self.etag: str | None = notes.get("etag")
        self.last_modified: str | None = notes.get("last_modified")
        self.total: int | None = notes.get("total")
        if notes.get("url") != url:
            self.restart()

    @property
    def version(self) -> str | None:
        """What If-Range may name: a weak ETag does not promise the same bytes (RFC 9110 section 13.1.5)."""
        is_strong = self.etag is not None and self.etag.startswith('"')
        return self.etag if is_strong else self.last_modified

    def can_continue(self, wanted: Wanted) -> bool:
        """Whether what is there can be told from a piece of another file."""
        return self.n_bytes > 0 and (self.version is not None or wanted.has_digest)

    def restart(self, url: str = "", headers: Message | None = None, total: int | None = None) -> None:
        """Throw away what is there, and note what will come."""
        self._file.truncate(0)
        self._file.seek(0)
        self.n_bytes, self.n_pieces, self.total = 0, 1, total
        self.etag = headers.get("ETag") if headers else None
        self.last_modified = headers.get("Last-Modified") if headers else None
        if url:
            notes = {"url": url, "etag": self.etag, "last_modified": self.last_modified, "total": total}
            _writing(self.path, lambda: self._notes_path.write_text(json.dumps(notes), encoding="utf-8"))
        else:
            self._notes_path.unlink(missing_ok=True)

    def append(self, block: bytes) -> None:
        """Write down the next bytes, so that they outlive this process.

        Raises:
            DownloadError: the disk is full or fails.
        """
        while block:
            n_written = _writing(self.path, functools.partial(self._file.write, block))
            self.n_bytes += n_written
            block = block[n_written:]

    def become(self, path: Path) -> None:
        """Give the whole file its name.

        Raises:
            DownloadError: it is taken.
        """
        _writing(self.path, lambda: os.fsync(self._file.fileno()))
        if os.path.lexists(path):
            raise DownloadError(f"{path} came into being meanwhile; it is not written over.")
        _writing(path, lambda: os.rename(self.path, path))
        self._notes_path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Leave nothing behind."""
        self._notes_path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


def _read_notes(path: Path) -> dict[str, Any]:
    """What was noted of a part; nothing where that cannot be read, so that the part begins anew."""
    try:
        notes = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    kinds = {"url": str, "etag": str, "last_modified": str, "total": int}
    if not isinstance(notes, dict):
        return {}
    return {key: notes[key] for key, kind in kinds.items() if isinstance(notes.get(key), kind)}


@contextmanager
def _locked_part(wanted: Wanted) -> Iterator[_Part]:
    """The part of a file, which no other process can have at the same time."""
    import fcntl

    path = wanted.path.with_name(f"{wanted.path.name}.part")
    _writing(path, lambda: path.parent.mkdir(parents=True, exist_ok=True))
    while True:
        file = _open_part(path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise DownloadError(f"Another process is fetching {wanted.path}.") from None
        if path.exists() and os.path.samestat(os.stat(path), os.fstat(file.fileno())):
            break
        file.close()  # its owner finished between our opening and our locking it
    with file:
        part = _Part(path, file, wanted.url)
        try:
            yield part
        finally:
            if not part.n_bytes:
                part.discard()


def _open_part(path: Path) -> IO[bytes]:
    if path.is_symlink():
        raise DownloadError(f"{path} is a link. Remove it.")
    try:
        return path.open("ab", buffering=0)
    except OSError as error:
        raise DownloadError(f"{path} cannot be written: {error.strerror}.") from error


def _writing(path: Path, action: Callable[[], ResultT]) -> ResultT:
    try:
        return action()
    except OSError as error:
        raise DownloadError(f"{path} cannot be written: {error.strerror or error}.") from error


# --- the protocol -----------------------------------------------------------------------------------------------------


class _NoWeakerRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from an encrypted connection to an open one or to another protocol."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        before, after = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if after != before and after != "https":
            raise DownloadError(f"{req.full_url}: the server leads from {before} to {newurl}, which is not followed.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_NoWeakerRedirects)


def _headers(part: _Part | None = None) -> dict[str, str]:
    headers = {"User-Agent": "lalm-harness", "Accept-Encoding": "identity"}
    if part is not None and part.n_bytes:
        headers["Range"] = f"bytes={part.n_bytes}-"
        if part.version is not None:
            headers["If-Range"] = part.version
    return headers


def _content_length(headers: Message) -> int | None:
    text = headers.get("Content-Length", "")
    return int(text) if re.fullmatch(r"\d+", text) else None


def _retry_after_s(headers: Message) -> float | None:
    text = headers.get("Retry-After", "")
    return min(float(text), _LONGEST_RETRY_AFTER_S) if re.fullmatch(r"\d+", text) else None


def _words(error: object) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error or type(error).__name__).split())
