"""Every benchmark's official layout, with the traps that its format sets: it loads, and each planted fault is found.

The lists below are made up, in the published formats. What is odd in them is odd in the real ones: a clip in several
lines, a comma inside a name, an id that begins with "-" or "Y", one word for two, soft hyphens, three comment lines, an
encoding of its own, two ears of 24 bit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from harness.audio import FileSource
from harness.contracts import Task
from harness.registry import create
from harness.verify import Report, verify


@dataclass(frozen=True)
class Layout:
    """Texts by path, and by a clip's path what it is to be known as. Clips are written at this rate."""

    texts: Mapping[str, str]
    clips: Mapping[str, tuple[str, ...]]
    rate_hz: int = 16_000
    n_channels: int = 1
    subtype: str = "PCM_16"
    encodings: Mapping[str, str] = field(default_factory=dict)


def _lines(*rows: str, end: str = "\n") -> str:
    return "".join(f"{row}{end}" for row in rows)


def _captions(letter: str) -> tuple[str, ...]:
    return tuple(f"{letter} caption, of number {number}" for number in range(5))


_CLOTHO = {
    "Santa Motor.wav": _captions("A"),
    "MEN RUNNING, FOREST,  BREATHING (1).wav": _captions("B"),
    "Caf\u00e9.wav": _captions("C"),
}
_AUDIOCAPS = {
    ("7fmOlUlwoNg", 20): _captions("A"),
    ("-BJ455B1aAs", 0): _captions("B"),
    ("Yabcdefghij", 30): _captions("C"),
}

LAYOUTS = {
    "esc50": Layout(
        {
            "meta/esc50.csv": _lines(
                "filename,fold,target,category,esc10,src_file,take",
                "1-100032-A-0.wav,1,0,dog,True,100032,A",
                "1-100032-B-0.wav,1,0,dog,True,100032,B",
                "5-9032-A-36.wav,5,36,vacuum_cleaner,False,9032,A",
            )
        },
        {
            "audio/1-100032-A-0.wav": ("dog",),
            "audio/1-100032-B-0.wav": ("dog",),
            "audio/5-9032-A-36.wav": ("vacuum_cleaner",),
        },
        rate_hz=44_100,
    ),
    "dcase2017": Layout(
        {
            "groundtruth_release/groundtruth_weak_label_evaluation_set.csv": _lines(
                "-JMT0mK0Dbg_30.000_40.000.wav\t30.000\t40.000\tTrain horn",
                "Yabcdefghij_0.000_10.000.wav\t0.000\t10.000\tAir horn, truck horn",
                "-JMT0mK0Dbg_30.000_40.000.wav\t30.000\t40.000\tTrain",
                "0bcdefghijk_0.000_10.000.wav\t0.000\t10.000\tCar alarm",
                end="\r\n",
            )
        },
        {
            "audio/Y-JMT0mK0Dbg_30.000_40.000.wav": ("Train horn", "Train"),
            "audio/YYabcdefghij_0.000_10.000.wav": ("Air horn, truck horn",),
            "audio/0bcdefghijk_0.000_10.000.wav": ("Car alarm",),
        },
    ),
    "vocalsound": Layout(
        {
            "datafiles/te.json": '{"data": ['
            '{"wav": "/data/private/audio_16k/f0003_0_laughter.wav", "labels": "/m/01j3sz"},'
            '{"wav": "audio_16k/m0102_1_throatclearing.wav", "labels": "/m/0dl9sf8"},'
            '{"wav": "C:\\\\copy\\\\f0003_0_sniff.wav", "labels": "/m/07ppn3j"}]}'
        },
        {
            "audio_16k/f0003_0_laughter.wav": ("Laughter",),
            "audio_16k/m0102_1_throatclearing.wav": ("Throat clearing",),
            "audio_16k/f0003_0_sniff.wav": ("Sniff",),
        },
    ),
    "tut2017": Layout(
        {
            "meta.txt": _lines("audio/1.wav\tbus", "audio/2.wav\tlakeside_beach", "audio/10.wav\turban park"),
            "evaluation_setup/test.txt": _lines("audio/1.wav", "audio/2.wav", "audio/10.wav"),
            "evaluation_setup/map.txt": _lines(
                "audio/1.wav\taudio/b020_90_100.wav",
                "audio/2.wav\taudio/b020_0_10.wav",
                "audio/10.wav\taudio/a1_0_1.wav",
            ),
        },
        {"audio/1.wav": ("bus",), "audio/2.wav": ("beach",), "audio/10.wav": ("park",)},
        rate_hz=44_100,
        n_channels=2,
        subtype="PCM_24",
    ),
    "beijing_opera": Layout(
        {},
        {
            "1__a__bangu-3.wav": ("bangu",),
            "2__some__body__da\u00adluo-1.wav": ("daluo",),
            "3__a-b__naobo-12.wav": ("naobo",),
        },
        rate_hz=44_100,
    ),
    "vggsound": Layout(
        {
            "data/test.csv": _lines(
                "glLQrEijrKg_000300.mp4,playing hammond organ",
                '-abcdefghij_000030.mp4,"bird chirping, tweeting"',
                "Yabcdefghij_000000.mp4,parrot talking",
                end="\r\n",
            )
        },
        {
            "audio/glLQrEijrKg_000300.wav": ("playing hammond organ",),
            "audio/-abcdefghij_000030.wav": ("bird chirping, tweeting",),
            "audio/Yabcdefghij_000000.wav": ("parrot talking",),
        },
    ),
    "fsd50k": Layout(
        {
            "FSD50K.ground_truth/eval.csv": _lines(
                "fname,labels,mids",
                '37199,"Electric_guitar,Guitar,Music","/m/02sgy,/m/0342h,/m/04rlf"',
                '64760,"Accelerating_and_revving_and_vroom,Engine","/m/07q2z82,/m/02mk9"',
                "90,Music,/m/04rlf",
            )
        },
        {
            "FSD50K.eval_audio/37199.wav": ("Electric_guitar", "Guitar", "Music"),
            "FSD50K.eval_audio/64760.wav": ("Accelerating_and_revving_and_vroom", "Engine"),
            "FSD50K.eval_audio/90.wav": ("Music",),
        },
        rate_hz=44_100,
    ),
    "audioset": Layout(
        {
            "eval_segments.csv": _lines(
                "# Segments csv created Sun Mar  5 10:54:31 2017",
                "# num_ytids=3, num_segs=3, num_unique_labels=3, num_positive_labels=4",
                "# YTID, start_seconds, end_seconds, positive_labels",
                '--4gqARaEJE, 0.000, 10.000, "/m/0bt9lr,/m/0jbk"',
                'Yabcdefghij, 20.000, 26.000, "/m/03l9g"',
                '-abcdefghij, 1.000, 11.000, "/m/0bt9lr"',
            )
        },
        {
            "audio/--4gqARaEJE.wav": ("Dog", "Animal"),
            "audio/YYabcdefghij_20.000_26.000.wav": ("Hammer",),
            "audio/Y-abcdefghij.wav": ("Dog",),
        },
    ),
    "audiocaps": Layout(
        {
            # Captions of a clip do not stand together.
            "dataset/test.csv": _lines(
                "audiocap_id,youtube_id,start_time,caption",
                *(
                    f'{number},{video},{start},"{captions[number]}"'
                    for number in range(5)
                    for (video, start), captions in _AUDIOCAPS.items()
                ),
                end="\r\n",
            )
        },
        {
            "audio/7fmOlUlwoNg_20.wav": _captions("A"),
            "audio/Y-BJ455B1aAs_0_10.wav": _captions("B"),
            "audio/Yabcdefghij_30.wav": _captions("C"),
        },
    ),
    "clotho": Layout(
        {
            "clotho_captions_evaluation.csv": _lines(
                "file_name,caption_1,caption_2,caption_3,caption_4,caption_5",
                *(",".join(f'"{text}"' for text in (name, *captions)) for name, captions in _CLOTHO.items()),
            ),
            "clotho_metadata_evaluation.csv": _lines(
                "file_name,keywords,sound_id,sound_link,start_end_samples,manufacturer,license",
                "Caf\u00e9.wav,caf\u00e9,Not found,Not found,,M\u00fcller,Not found",
            ),
        },
        {f"evaluation/{name}": captions for name, captions in _CLOTHO.items()},
        rate_hz=44_100,
        encodings={"clotho_metadata_evaluation.csv": "iso-8859-1"},
    ),
    "speech_commands": Layout(
        {},
        {
            "_silence_/0.wav": ("_silence_",),
            "_unknown_/bed_a69b9b3e_nohash_0.wav": ("_unknown_",),
            "no/0132a06d_nohash_1.wav": ("no",),
            "yes/0132a06d_nohash_1.wav": ("yes",),
        },
    ),
    "librispeech": Layout(
        {
            "test-clean/1089/134686/1089-134686.trans.txt": _lines(
                "1089-134686-0000 HE HOPED THERE WOULD BE STEW", "1089-134686-0001 STUFF IT INTO YOU"
            ),
            "test-clean/121/121726/121-121726.trans.txt": _lines("121-121726-0000 IT'S A CONTRIVANCE", ""),
        },
        {
            "test-clean/1089/134686/1089-134686-0000.flac": ("HE HOPED THERE WOULD BE STEW",),
            "test-clean/1089/134686/1089-134686-0001.flac": ("STUFF IT INTO YOU",),
            "test-clean/121/121726/121-121726-0000.flac": ("IT'S A CONTRIVANCE",),
        },
    ),
}
# Their files are their list.
WITHOUT_LIST = ("beijing_opera", "speech_commands")


def noise(seed: int, n_channels: int) -> npt.NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (2000, n_channels))


def build(task: str, root: Path) -> Layout:
    """The layout on disk."""
    layout = LAYOUTS[task]
    for name, text in layout.texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text.encode(layout.encodings.get(name, "utf-8")))
    for number, name in enumerate(layout.clips):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write(root / name, noise(number, layout.n_channels), layout)
    if task == "speech_commands":
        for word in ("down", "go", "left", "off", "on", "right", "stop", "up"):
            (root / word).mkdir()
    return layout


def write(path: Path, samples: npt.NDArray[np.float64], layout: Layout, rate_hz: int = 0) -> None:
    soundfile.write(path, samples, rate_hz or layout.rate_hz, subtype=layout.subtype)


@functools.cache
def made(name: str) -> Task:
    task: Task = create("tasks", name).value
    return task


def found(name: str, root: Path) -> set[tuple[str, str]]:
    """Kind and clip of every fault; that so few clips are not the published number is left out."""
    report: Report = verify(made(name), made(name).read_items(root))
    return {(fault.kind, fault.clip) for fault in report.faults if fault.kind != "wrong_count"}


@pytest.fixture(scope="module", params=LAYOUTS)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A task's name, and its layout's folder, which each test leaves as it was."""
    root = tmp_path_factory.mktemp(request.param)
    build(request.param, root)
    return request.param, root


def test_each_clip_is_found_with_its_references(place: tuple[str, Path]) -> None:
    name, root = place
    assert made(name).find(root) == root
    read = {
        item.source.path.relative_to(root).as_posix(): item.references
        for item in made(name).read_items(root).items
        if isinstance(item.source, FileSource)
    }
    assert read == dict(LAYOUTS[name].clips)


def test_what_is_odd_in_a_format_is_no_fault(place: tuple[str, Path]) -> None:
    assert found(*place) == set()


# --- planted faults ---------------------------------------------------------------------------------------------------

Plant = Callable[[Path, Layout], object]


def cut(path: Path, layout: Layout) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def copy_another(path: Path, layout: Layout) -> None:
    root = next(folder for folder in path.parents if (folder / next(iter(layout.clips))).exists())
    path.write_bytes((root / next(iter(layout.clips))).read_bytes())


FAULTS: dict[str, Plant] = {
    "missing": lambda path, layout: path.unlink(),
    "unreadable": lambda path, layout: path.write_bytes(b"this is no sound"),
    "zero_length": lambda path, layout: path.write_bytes(b""),
    "silent": lambda path, layout: write(path, np.zeros((2000, layout.n_channels)), layout),
    "ends_early": cut,
    "wrong_rate": lambda path, layout: write(path, noise(50, layout.n_channels), layout, 22_050),
    "wrong_channels": lambda path, layout: write(path, noise(50, 3 - layout.n_channels), layout),
    "duplicate": copy_another,
}


# Without a list a clip that is gone is a count; a FLAC file that is cut cannot be decoded.
KNOWN_BY_ANOTHER_NAME = {
    ("beijing_opera", "missing"): [],
    ("speech_commands", "missing"): [],
    ("librispeech", "ends_early"): ["unreadable"],
}


def test_each_planted_fault_is_found_and_nothing_else(place: tuple[str, Path]) -> None:
    name, root = place
    path = root / list(LAYOUTS[name].clips)[-1]
    whole = path.read_bytes()
    kinds = {}
    for fault, plant in FAULTS.items():
        plant(path, LAYOUTS[name])
        kinds[fault] = [kind for kind, _ in found(name, root)]
        path.write_bytes(whole)
    assert kinds == {fault: KNOWN_BY_ANOTHER_NAME.get((name, fault), [fault]) for fault in FAULTS}


def test_a_clip_that_no_list_names_is_extra(place: tuple[str, Path]) -> None:
    name, root = place
    if name in WITHOUT_LIST:
        pytest.skip("every file is an item where files are their own list")
    stray = (root / next(iter(LAYOUTS[name].clips))).with_name("stray.wav")
    write(stray, noise(60, LAYOUTS[name].n_channels), LAYOUTS[name])
    extra = found(name, root)
    stray.unlink()
    assert extra == {("extra", stray.relative_to(root).as_posix())}


@pytest.mark.parametrize("name", WITHOUT_LIST)
def test_where_files_are_their_own_list_one_that_is_gone_is_counted(name: str, tmp_path: Path) -> None:
    layout = build(name, tmp_path)
    (tmp_path / list(layout.clips)[-1]).unlink()
    counts = {f.clip: f.detail for f in verify(made(name), made(name).read_items(tmp_path)).of_kind("wrong_count")}
    assert counts["clips"].startswith(f"{len(layout.clips) - 1} instead of ")


@pytest.mark.parametrize("name", ["tut2017", "fsd50k", "clotho", "beijing_opera", "speech_commands", "librispeech"])
def test_a_copy_that_was_resampled_as_a_whole_has_the_wrong_rate(name: str, tmp_path: Path) -> None:
    layout = build(name, tmp_path)
    for number, clip in enumerate(layout.clips):
        write(tmp_path / clip, noise(number, layout.n_channels), layout, 22_050)
    assert {kind for kind, _ in found(name, tmp_path)} == {"wrong_rate"}
