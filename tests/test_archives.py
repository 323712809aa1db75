"""Unpacking does no harm: nothing leaves the folder, nothing fills the disk, nothing is half in place."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import archives
from harness.archives import ArchiveError, Limits, Unpacked, UnsupportedArchiveError, unpack

FILES = {"set/meta/table.csv": b"name,label\n", "set/audio/a, b.wav": b"RIFF" * 500, "set/audio/\u00fc.wav": b""}
TAR_MODES = {"plain.tar": "w", "set.tar.gz": "w:gz", "set.tar.bz2": "w:bz2", "set.tar.xz": "w:xz"}

Change = Callable[[tarfile.TarInfo], None]


def write_zip(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(zip_info(name, method), content)
    return path


def zip_info(name: str, method: int = zipfile.ZIP_DEFLATED, mode: int = 0) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("x")
    info.filename = name  # the constructor would tidy it
    info.compress_type = method
    info.external_attr = mode << 16
    return info


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w:gz", change: Change = lambda info: None) -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            change(info)
            archive.addfile(info, io.BytesIO(content) if info.isreg() else None)
    return path


def write_any(path: Path, files: dict[str, bytes]) -> Path:
    return write_zip(path, files) if path.suffix == ".zip" else write_tar(path, files, TAR_MODES[path.name])


def found_in(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def everything(folder: Path) -> list[str]:
    """Every name below a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "outer" / "target"


def assert_refused(archive: Path, target: Path, message: str, limits: Limits | None = None) -> None:
    """It is an error of one line, and nothing is left, in the folder or beside it."""
    target.mkdir(parents=True, exist_ok=True)
    before = everything(target.parents[1])
    with pytest.raises(ArchiveError, match=message) as caught:
        unpack(archive, target, limits)
    assert everything(target.parents[1]) == before
    assert "\n" not in str(caught.value)


# --- what is good -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["set.zip", *TAR_MODES])
def test_every_file_comes_out_as_it_went_in(tmp_path: Path, target: Path, name: str) -> None:
    done = unpack(write_any(tmp_path / name, FILES), target)
    assert found_in(target) == FILES
    assert done == Unpacked(3, sum(map(len, FILES.values())))


@pytest.mark.parametrize("name", ["set.zip", *TAR_MODES])
def test_the_kind_is_known_by_content_and_not_by_name(tmp_path: Path, target: Path, name: str) -> None:
    archive = write_any(tmp_path / name, FILES).rename(tmp_path / "download")
    unpack(archive, target)
    assert found_in(target) == FILES


def test_a_stored_zip_is_unpacked(tmp_path: Path, target: Path) -> None:
    unpack(write_zip(tmp_path / "set.zip", FILES, zipfile.ZIP_STORED), target)
    assert found_in(target) == FILES


def test_folders_and_a_leading_dot_are_no_files(tmp_path: Path, target: Path) -> None:
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        for name in (".", "./audio"):
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE
            archive.addfile(info)
        info = tarfile.TarInfo("./audio/a.wav")
        archive.addfile(info)
    assert unpack(tmp_path / "set.tar", target).n_files == 1
    assert everything(target) == ["audio", "audio/a.wav"]


def test_long_names_are_read(tmp_path: Path, target: Path) -> None:
    name = "/".join(["folder" * 20] * 5) + "/a.wav"
    for format_of_tar in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / f"{format_of_tar}.tar", "w", format=format_of_tar) as archive:
            archive.addfile(tarfile.TarInfo(name))
        unpack(tmp_path / f"{format_of_tar}.tar", target / str(format_of_tar))
        assert found_in(target / str(format_of_tar)) == {name: b""}


def test_names_that_differ_only_in_case_are_two_files(tmp_path: Path, target: Path) -> None:
    (tmp_path / "Case").touch()
    if (tmp_path / "cASE").exists():
        pytest.skip("this file system does not tell them apart")
    unpack(write_zip(tmp_path / "set.zip", {"aB.wav": b"1", "Ab.wav": b"2"}), target)
    assert found_in(target) == {"aB.wav": b"1", "Ab.wav": b"2"}


def test_modes_of_the_archive_are_not_taken_over(tmp_path: Path, target: Path) -> None:
    unpack(write_tar(tmp_path / "s.tar.gz", {"a": b"x"}, change=lambda info: setattr(info, "mode", 0o6777)), target)
    assert stat.S_IMODE((target / "a").stat().st_mode) & 0o7111 == 0


@pytest.mark.parametrize("name", ["set.zip", "set.tar.gz"])
def test_the_meter_ends_at_its_total(tmp_path: Path, target: Path, name: str) -> None:
    seen: list[tuple[int, int | None]] = []
    unpack(write_any(tmp_path / name, FILES), target, meter=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen) and seen[-1][0] == seen[-1][1]


# --- nothing leaves the folder ----------------------------------------------------------------------------------------

EVIL_NAMES = [
    "/etc/evil",
    "//evil",
    "../evil",
    "a/../../evil",
    "a/..",
    "..",
    "C:/evil",
    "c:evil",
    "..\\evil",
    "a\\b",
    "a\nb",
    "a\x1b[2Jb",
    ".lalm-harness/evil",
    ".lalm-harness-unpacking/evil",
]


@pytest.mark.parametrize("name", [*EVIL_NAMES, "a\0b", ""])
def test_a_zip_with_an_evil_name_is_refused_whole(tmp_path: Path, target: Path, name: str) -> None:
    archive = write_zip(tmp_path / "set.zip", {"good.wav": b"1", name: b"2"})
    assert_refused(archive, target, "is refused|is damaged")


@pytest.mark.parametrize("name", EVIL_NAMES)
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_with_an_evil_name_is_refused_whole(tmp_path: Path, target: Path, name: str, mode: str) -> None:
    archive = write_tar(tmp_path / "set", {"good.wav": b"1", name: b"2"}, mode)
    assert_refused(archive, target, "is refused")


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE],
)
@pytest.mark.parametrize("leads_to", ["/etc/passwd", "../../outside", "good.wav"])
def test_a_tar_with_a_link_or_a_device_is_refused_whole(
    tmp_path: Path, target: Path, kind: bytes, leads_to: str
) -> None:
    def make_evil(info: tarfile.TarInfo) -> None:
        if info.name == "evil":
            info.type, info.linkname = kind, leads_to

    archive = write_tar(tmp_path / "set.tar", {"good.wav": b"1", "evil": b""}, "w", make_evil)
    assert_refused(archive, target, "'evil' is a link, a device or a file with holes")


def test_a_link_and_a_file_written_through_it_are_refused(tmp_path: Path, target: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        link = tarfile.TarInfo("door")
        link.type, link.linkname = tarfile.SYMTYPE, str(outside)
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("door/evil"))
    assert_refused(tmp_path / "set.tar", target, "'door' is a link")
    assert everything(outside) == []


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK])
def test_a_zip_with_a_link_or_a_device_is_refused_whole(tmp_path: Path, target: Path, kind: int) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("good.wav", b"1")
        archive.writestr(zip_info("evil", mode=kind | 0o777), "/etc/passwd")
    assert_refused(tmp_path / "set.zip", target, "'evil' is a link or a device")


def test_nothing_is_written_through_a_link_that_was_there(tmp_path: Path, target: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    target.mkdir(parents=True)
    (target / "set").symlink_to(outside)
    with pytest.raises(ArchiveError, match="a link that leads out of"):
        unpack(write_zip(tmp_path / "set.zip", FILES), target)
    assert everything(outside) == []


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "large_disk").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "large_disk")
    unpack(write_zip(tmp_path / "set.zip", FILES), tmp_path / "data")
    assert found_in(tmp_path / "large_disk") == FILES


@pytest.mark.parametrize("names", [["a", "a"], ["a", "a/b"], ["a/b", "a"]])
def test_one_name_for_two_things_is_refused(tmp_path: Path, target: Path, names: list[str]) -> None:
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    assert_refused(tmp_path / "set.tar", target, "holds 'a(/b)?' twice")


# --- nothing fills the disk -------------------------------------------------------------------------------------------

SMALL = Limits(max_files=10, max_ratio=100, slack_bytes=1000)
ZEROS = bytes(3_000_000)


@pytest.mark.parametrize("name", ["set.zip", "set.tar.gz", "set.tar.bz2", "set.tar.xz"])
def test_an_archive_that_unpacks_out_of_proportion_is_refused(tmp_path: Path, target: Path, name: str) -> None:
    assert_refused(write_any(tmp_path / name, {"a": ZEROS, "b": ZEROS}), target, "far more than its size", SMALL)


def test_an_archive_of_very_many_files_is_refused(tmp_path: Path, target: Path) -> None:
    files = {f"{n}.wav": b"%d" % n for n in range(11)}
    for name in ("set.zip", "plain.tar"):
        assert_refused(write_any(tmp_path / name, files), target, "more than 10 files", SMALL)


def test_very_many_empty_folders_are_refused_too(tmp_path: Path, target: Path) -> None:
    archive = write_zip(tmp_path / "set.zip", {f"{n}/": b"" for n in range(11)})
    assert_refused(archive, target, "more than 10 files", SMALL)


@pytest.mark.parametrize("name", ["set.zip", "set.tar.gz"])
def test_an_archive_that_does_not_fit_on_the_disk_is_refused(
    tmp_path: Path, target: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "free_bytes", lambda folder: 1_000)
    assert_refused(write_any(tmp_path / name, FILES), target, "unpacks to 2.0 kB or more, and .* has 1.0 kB to spare")


def test_members_that_share_their_bytes_are_refused(tmp_path: Path, target: Path) -> None:
    archive = write_zip(tmp_path / "set.zip", {"a": os.urandom(50_000), "b": os.urandom(50_000)})
    content = bytearray(archive.read_bytes())
    first, second = (match for match in range(len(content) - 4) if content[match : match + 4] == b"PK\x01\x02")
    # The second entry of the directory becomes the first one's twin, at a third name.
    content[second + 10 : second + 28] = content[first + 10 : first + 28]
    content[second + 42 : second + 46] = content[first + 42 : first + 46]
    archive.write_bytes(bytes(content[:50_100]) + bytes(content[first:]))
    assert_refused(archive, target, "overlap|damaged")


def test_a_member_longer_than_it_declares_is_refused(tmp_path: Path, target: Path) -> None:
    archive = write_zip(tmp_path / "set.zip", {"a": ZEROS})
    content = bytearray(archive.read_bytes())
    directory = content.index(b"PK\x01\x02")
    content[directory + 24 : directory + 28] = struct.pack("<I", 1000)
    archive.write_bytes(content)
    assert_refused(archive, target, "damaged")


def test_a_member_shorter_than_it_declares_is_refused(tmp_path: Path, target: Path) -> None:
    archive = write_zip(tmp_path / "set.zip", {"a": b"abc"}, zipfile.ZIP_STORED)
    content = bytearray(archive.read_bytes())
    directory = content.index(b"PK\x01\x02")
    content[directory + 24 : directory + 28] = struct.pack("<I", 1000)
    archive.write_bytes(content)
    assert_refused(archive, target, "damaged")


@pytest.mark.parametrize("size", [1 << 40, -512])
def test_a_header_of_absurd_size_takes_no_memory_and_ends(tmp_path: Path, target: Path, size: int) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type = tarfile.GNUTYPE_LONGNAME
    info.size = max(size, 0)
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    if size < 0:
        header[124:136] = b"\xff" * 4 + struct.pack(">q", size)
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "set.tar").write_bytes(bytes(header) + bytes(4096))
    assert_refused(tmp_path / "set.tar", target, "absurd size|damaged|neither")


def test_a_file_of_negative_size_ends(tmp_path: Path, target: Path) -> None:
    header = bytearray(tarfile.TarInfo("a").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 4 + struct.pack(">q", -1024)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "set.tar").write_bytes(bytes(header) + bytes(4096))
    assert_refused(tmp_path / "set.tar", target, "file with holes|damaged|neither")


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["set.zip", *TAR_MODES])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.7])
def test_a_cut_archive_is_refused(tmp_path: Path, target: Path, name: str, share: float) -> None:
    files = {f"{n}.wav": os.urandom(5_000) for n in range(4)}
    archive = write_any(tmp_path / name, files)
    content = archive.read_bytes()
    archive.write_bytes(content[: int(share * len(content))])
    assert_refused(archive, target, "damaged|cannot be unpacked")


def test_a_tar_cut_between_two_members_is_refused(tmp_path: Path, target: Path) -> None:
    archive = write_tar(tmp_path / "set.tar", {"a": bytes(512), "b": bytes(512)}, "w")
    archive.write_bytes(archive.read_bytes()[:1024])
    assert_refused(archive, target, "breaks off before its end")


def test_a_tar_with_a_broken_header_in_the_middle_is_refused(tmp_path: Path, target: Path) -> None:
    archive = write_tar(tmp_path / "set.tar", {"a": bytes(512), "b": bytes(512)}, "w")
    content = bytearray(archive.read_bytes())
    content[1024 + 150] ^= 0xFF
    archive.write_bytes(content)
    assert_refused(archive, target, "breaks off before its end")


@pytest.mark.parametrize("name", ["set.zip", "set.tar.gz", "set.tar.bz2", "set.tar.xz"])
def test_a_flipped_bit_is_found(tmp_path: Path, target: Path, name: str) -> None:
    archive = write_any(tmp_path / name, {"a.wav": os.urandom(20_000)})
    content = bytearray(archive.read_bytes())
    content[10_000] ^= 0x10
    archive.write_bytes(content)
    assert_refused(archive, target, "damaged|cannot be unpacked")


def test_a_wrong_checksum_at_the_very_end_is_found(tmp_path: Path, target: Path) -> None:
    archive = write_tar(tmp_path / "set.tar.gz", FILES)
    content = bytearray(archive.read_bytes())
    content[-8] ^= 1
    archive.write_bytes(content)
    assert_refused(archive, target, "damaged: CRC check failed")


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"<html>" * 1000, gzip.compress(b"no tar"), os.urandom(2000)],
    ids=["empty", "text", "page", "gzip", "noise"],
)
def test_what_is_no_archive_is_refused(tmp_path: Path, target: Path, content: bytes) -> None:
    (tmp_path / "set.zip").write_bytes(content)
    assert_refused(tmp_path / "set.zip", target, "neither a zip nor a tar")


def test_an_archive_without_a_file_is_refused(tmp_path: Path, target: Path) -> None:
    assert_refused(write_zip(tmp_path / "set.zip", {}), target, "holds no file")


def test_an_archive_that_is_not_there_is_one_line(tmp_path: Path, target: Path) -> None:
    assert_refused(tmp_path / "set.zip", target, "No such file")


# --- by hand ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "what", "command"),
    [
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "7z x {archive} -o{target}"),
        (b"Rar!\x1a\x07\x01\x00", "a RAR archive", "unrar x {archive} {target}/"),
        (b"\x28\xb5\x2f\xfd", "packed with zstd", "tar --zstd -xf {archive} -C {target}"),
    ],
)
def test_kinds_that_are_not_read_say_what_to_type(
    tmp_path: Path, target: Path, head: bytes, what: str, command: str
) -> None:
    archive = tmp_path / "set"
    archive.write_bytes(head + bytes(100))
    with pytest.raises(UnsupportedArchiveError) as caught:
        unpack(archive, target)
    assert what in str(caught.value)
    assert str(caught.value).endswith(f"By hand: {command.format(archive=archive, target=target)}")


def test_the_first_part_of_a_zip_in_several_says_what_to_type(tmp_path: Path, target: Path) -> None:
    archive = tmp_path / "FSD50K.dev_audio.z01"
    archive.write_bytes(b"PK\x07\x08PK\x03\x04" + bytes(100))
    with pytest.raises(UnsupportedArchiveError, match=r"zip -s 0 \S*/FSD50K.dev_audio.zip --out"):
        unpack(archive, target)


def test_the_last_part_of_a_zip_in_several_says_what_to_type(tmp_path: Path, target: Path) -> None:
    archive = write_zip(tmp_path / "FSD50K.dev_audio.zip", FILES)
    content = bytearray(archive.read_bytes())
    end = content.rindex(b"PK\x05\x06")
    content[end + 4 : end + 6] = struct.pack("<H", 5)
    archive.write_bytes(content)
    with pytest.raises(UnsupportedArchiveError, match="FSD50K.dev_audio.zip is a zip in several parts"):
        unpack(archive, target)


def test_a_zip_with_a_password_is_not_read(tmp_path: Path, target: Path) -> None:
    archive = write_zip(tmp_path / "set.zip", {"a": b"secret"})
    content = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    archive.write_bytes(content)
    assert_refused(archive, target, "asks for a password")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_of_a_rare_method_is_not_read(tmp_path: Path, target: Path, method: int) -> None:
    assert_refused(write_zip(tmp_path / "set.zip", {"a": ZEROS}, method), target, "a method that is rare")


# --- what is there already --------------------------------------------------------------------------------------------


def test_two_archives_of_one_set_are_put_together(tmp_path: Path, target: Path) -> None:
    unpack(write_zip(tmp_path / "one.zip", {"set/README": b"same", "set/dev/a.wav": b"1"}), target)
    unpack(write_zip(tmp_path / "two.zip", {"set/README": b"same", "set/eval/b.wav": b"2"}), target)
    assert found_in(target) == {"set/README": b"same", "set/dev/a.wav": b"1", "set/eval/b.wav": b"2"}


def test_another_file_in_the_way_is_kept_and_nothing_is_moved(tmp_path: Path, target: Path) -> None:
    (target / "set/audio").mkdir(parents=True)
    (target / "set/audio/a, b.wav").write_bytes(b"mine")
    assert_refused(write_zip(tmp_path / "set.zip", FILES), target, "is not written over")
    assert found_in(target) == {"set/audio/a, b.wav": b"mine"}


@pytest.mark.parametrize(("there", "comes"), [("set", "set/a"), ("set/a/b", "set/a")])
def test_a_file_is_not_taken_for_a_folder(tmp_path: Path, target: Path, there: str, comes: str) -> None:
    (target / there).parent.mkdir(parents=True)
    (target / there).write_bytes(b"mine")
    assert_refused(write_zip(tmp_path / "set.zip", {comes: b"1"}), target, "is not written over")


def test_unpacking_again_changes_nothing(tmp_path: Path, target: Path) -> None:
    archive = write_zip(tmp_path / "set.zip", FILES)
    unpack(archive, target)
    before = (target / "set/meta/table.csv").stat().st_mtime_ns
    unpack(archive, target)
    assert (target / "set/meta/table.csv").stat().st_mtime_ns == before


def test_what_an_interrupted_unpacking_left_is_cleared_away(tmp_path: Path, target: Path) -> None:
    left = target / ".lalm-harness-unpacking"
    left.mkdir(parents=True)
    (left / "half.wav").touch()
    unpack(write_zip(tmp_path / "set.zip", FILES), target)
    assert found_in(target) == FILES
