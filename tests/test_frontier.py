"""The frontier: the ladder and its search, each way to break by its name, proofs, the record and the command."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.cli import main
from harness.cli.frontier import parse_memory, parse_time
from harness.clips import LONG_S
from harness.contracts import BlockSource
from harness.edge import EDGE_PASSES, Edge, Ladder, find_edge
from harness.errors import UsageError
from harness.fresh_process import Outcome
from harness.frontier import FrontierConfig, Known, Prober, look_at, search
from harness.frontier_probe import Subject, look
from harness.frontier_rows import FrontierRecord, ProbeRow, Step, load_frontier, load_probes, schema_texts
from harness.frontier_table import frontier_table
from harness.noise_bursts import NoiseBursts
from harness.records import ModelRow
from harness.schema_files import SCHEMA_FOLDER

PLUGIN = Path(__file__).parent / "plugins" / "breaker.py"
LADDER = Ladder(10.0, 3600.0)
ON_LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a memory cap needs Linux")


# --- ladder and search -----------------------------------------------------------------------------------------------


class Tries:
    """Passes up to a rung, and remembers; fails at `moody` on its second try."""

    def __init__(self, passes_to: int, moody: int | None = None) -> None:
        self.passes_to = passes_to
        self.moody = moody
        self.steps: list[tuple[int, Step]] = []

    def __call__(self, rung: int, step: Step) -> bool:
        self.steps.append((rung, step))
        n_before = sum(tried == rung for tried, _ in self.steps[:-1])
        return rung <= self.passes_to and not (rung == self.moody and n_before)


def test_rungs_are_less_than_5_percent_apart_and_end_at_the_longest() -> None:
    lengths = [LADDER.length_s(rung) for rung in range(LADDER.last + 1)]
    assert max(later / earlier for earlier, later in zip(lengths, lengths[1:], strict=False)) < 1.05
    assert (lengths[0], lengths[-1], lengths == sorted(set(lengths))) == (10.0, 3600.0, True)


def test_a_ladder_of_one_length_has_one_rung() -> None:
    assert (Ladder(60.0, 60.0).last, Ladder(60.0, 60.0).length_s(0)) == (0, 60.0)


def test_a_longest_that_is_a_rung_comes_once() -> None:
    assert (Ladder(10.0, 80.0).last, Ladder(10.0, 80.0).length_s(47) < 80.0) == (48, True)


@pytest.mark.parametrize(("shortest_s", "longest_s"), [(0.0, 1.0), (2.0, 1.0)])
def test_a_ladder_that_leads_nowhere_is_refused(shortest_s: float, longest_s: float) -> None:
    with pytest.raises(UsageError, match="cannot go from"):
        Ladder(shortest_s, longest_s)


@pytest.mark.parametrize("edge", range(LADDER.last))
def test_the_edge_is_found_wherever_it_is_and_passes_three_times(edge: int) -> None:
    assert find_edge(LADDER, Tries(edge)) == Edge(edge, EDGE_PASSES, edge + 1)


def test_the_search_grows_by_doubling_and_then_halves_the_gap() -> None:
    tries = Tries(39)
    find_edge(LADDER, tries)
    assert [rung for rung, _ in tries.steps] == [0, 16, 32, 48, 40, 36, 38, 39, 39, 39]
    assert Counter(step for _, step in tries.steps) == {"growth": 4, "bisection": 4, "edge": 2}


def test_where_nothing_breaks_the_longest_is_tried_once() -> None:
    tries = Tries(LADDER.last)
    assert find_edge(LADDER, tries) == Edge(LADDER.last, 1, None)
    assert tries.steps.count((LADDER.last, "growth")) == 1


def test_where_the_shortest_breaks_there_is_no_edge() -> None:
    assert find_edge(LADDER, Tries(-1)) == Edge(None, 0, 0)


def test_an_edge_that_fails_when_it_is_repeated_gives_way_to_the_rung_below() -> None:
    assert find_edge(LADDER, Tries(39, moody=39)) == Edge(38, EDGE_PASSES, 39)


def test_even_the_shortest_has_to_pass_three_times() -> None:
    assert find_edge(LADDER, Tries(0, moody=0)) == Edge(None, 0, 0)


# --- the sound -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length_s", [0.5, 1.0, 3.25])
def test_blocks_of_noise_are_the_loaded_noise(length_s: float) -> None:
    sound = NoiseBursts(length_s, seed=3)
    assert isinstance(sound, BlockSource)
    whole = sound.load(1000).samples
    assert (len(whole), np.array_equal(np.concatenate(list(sound.blocks(1000))), whole)) == (1000 * length_s, True)


def test_another_ending_changes_the_last_second_and_nothing_else() -> None:
    first, other = (NoiseBursts(3.25, ending=ending).load(1000).samples for ending in (0, 1))
    changed = np.flatnonzero(first != other)
    assert (changed.min() >= 2250, len(changed) > 990) == (True, True)


def test_noise_is_loud_for_a_quarter_of_each_second_and_within_full_scale() -> None:
    samples = NoiseBursts(4.0).load(1000).samples.reshape(4, 1000)
    assert (np.abs(samples[:, :250]).mean() > 0.1, np.abs(samples[:, 250:]).mean() < 0.01) == (True, True)
    assert np.abs(samples).max() <= 1.0


def test_long_noise_reaches_a_model_unread() -> None:
    assert [NoiseBursts(length_s).heard_as(1000).is_unread for length_s in (LONG_S, LONG_S + 1)] == [False, True]


# --- probes of fakes, in fresh processes -----------------------------------------------------------------------------


def _config(**options: Any) -> FrontierConfig:
    return FrontierConfig(
        models=("breaker",),
        options=options,
        memory_bytes=None,
        time_limit_s=60.0,
        ladder=Ladder(2.0, 4.0),
        device="cpu",
        dtype="float32",
        threads=1,
        seed=0,
        second_way={},
        plugins=(str(PLUGIN),),
    )


def _probe(tmp_path: Path, config: FrontierConfig, length_s: float = 4.0) -> ProbeRow:
    prober = Prober(replace(config, ladder=Ladder(length_s, length_s)), _known(config), tmp_path / "p", print)
    prober.passes(0, "growth")
    return prober.rows[0]


def _known(config: FrontierConfig) -> Known:
    """As `look_at`, without a process of its own."""
    subject = Subject("breaker", config.options, config.plugins, config.device, config.dtype, config.seed)
    told = look(asdict(subject))
    facts = {key: told[key] for key in ("options_passed", "options_resolved", "plugin")}
    return Known("breaker", subject, ModelRow.model_validate({**told["description"], **facts}))


@pytest.mark.parametrize(
    ("mood", "kind", "message"),
    [
        ("refuses", "position_limit", "ModelLimitError: too long for me"),
        ("raises", "error", "ValueError: a shape does not fit"),
        ("dies", "killed", "by signal SIGKILL: it said nothing"),
        ("deaf", "wrong_numbers", "WrongNumbers: the last second changes nothing: label scores differ by 0.0e+00"),
        ("nan", "wrong_numbers", "WrongNumbers: the logits are not finite"),
        ("truncates", "wrong_numbers", "WrongNumbers: only 2000 of 4000 frames reached the encoder"),
    ],
)
def test_each_way_to_break_has_its_kind(tmp_path: Path, mood: str, kind: str, message: str) -> None:
    row = _probe(tmp_path, _config(mood=mood, at_s=3.0))
    assert (row.kind, row.message[: len(message)]) == (kind, message)


def test_a_success_tells_what_it_took_and_how_far_the_last_second_moves_the_scores(tmp_path: Path) -> None:
    row = _probe(tmp_path, _config(sleep_per_s=0.05))
    assert row.answer is not None and row.proof is not None
    assert (row.kind, row.answer.n_audio_tokens, row.answer.kernels) == ("ok", 40, {"scan": "fast"})
    assert 0.2 <= row.answer.answer_s < row.answer_wall_s
    assert row.proof.sensitivity > 0


@ON_LINUX
def test_memory_beyond_the_cap_breaks_it(tmp_path: Path) -> None:
    config = replace(_config(bytes_per_s=200_000_000), memory_bytes=500_000_000)
    kinds = [_probe(tmp_path, config, length_s).kind for length_s in (1.0, 4.0)]
    assert kinds == ["ok", "out_of_memory"]


def test_time_beyond_the_limit_breaks_it(tmp_path: Path) -> None:
    row = _probe(tmp_path, replace(_config(sleep_per_s=30.0), time_limit_s=1.0))
    assert (row.kind, row.message, row.answer) == ("time_limit", "not done in its time", None)


def test_a_models_own_longest_is_a_position_limit(tmp_path: Path) -> None:
    row = _probe(tmp_path, _config(max_audio_s=3.0))
    assert (row.kind, row.message) == ("position_limit", "ModelLimitError: the model takes at most 3 s of audio")


@pytest.mark.parametrize(
    ("mood", "options", "kind", "result"),
    [
        ("fine", {"scan": "torch"}, "ok", "agrees"),
        ("fine", {"scan": "fast"}, "ok", "same kernels"),
        ("disagrees", {"scan": "torch"}, "wrong_numbers", "differs"),
    ],
)
def test_a_second_way_has_to_agree(tmp_path: Path, mood: str, options: dict[str, str], kind: str, result: str) -> None:
    row = _probe(tmp_path, replace(_config(mood=mood, at_s=3.0), second_way=options))
    assert row.second_way is not None
    assert (row.kind, row.second_way.result) == (kind, result)


def test_a_model_without_that_option_has_no_second_way(tmp_path: Path) -> None:
    assert _probe(tmp_path, replace(_config(), second_way={"beam": "2"})).second_way is None


def test_a_second_way_that_cannot_be_gone_is_told_and_no_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = replace(_config(), second_way={"scan": "torch"})
    prober = Prober(config, _known(config), tmp_path / "p", print)
    done = {
        "answer": _ok({"load_s": 0.1, "answer_s": 1.0, "peak_rss_bytes": 1, "n_audio_tokens": 1, "n_answer_tokens": 1}),
        "prove": _ok({"scores": [-1.0, -2.0], "sensitivity": 0.1}),
        "scores": Outcome("time_limit", None, "not done after 240 s", 240.0, None),
    }
    monkeypatch.setattr("harness.frontier.run_fresh", lambda target, arguments, **caps: done[target.partition(":")[2]])
    assert prober.passes(0, "growth")
    assert prober.rows[0].second_way is not None
    assert (prober.rows[0].second_way.result, prober.rows[0].second_way.message) == (
        "not done",
        "time_limit: not done after 240 s",
    )


def _ok(value: dict[str, Any]) -> Outcome:
    device = {"peak_device_allocated_bytes": None, "peak_device_reserved_bytes": None} if "load_s" in value else {}
    return Outcome("ok", {**value, **device, "kernels": {}}, "", 1.0, 0)


def test_a_model_without_its_weights_is_probed_with_random_ones() -> None:
    assert look_at("breaker", _config(mood="has no weights")).subject.options["weights"] == "random"


def test_a_model_that_scores_no_labels_is_refused() -> None:
    with pytest.raises(UsageError, match="gives no label scores"):
        look_at("breaker", _config(can_score=False))


@pytest.mark.gpu
@pytest.mark.parametrize(("memory_bytes", "kind"), [(2**33, "ok"), (2**23, "out_of_memory")])
def test_on_a_gpu_the_cap_is_on_torchs_memory(tmp_path: Path, memory_bytes: int, kind: str) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    config = replace(_config(), models=("ssalm:tiny",), device="cuda", memory_bytes=memory_bytes, plugins=())
    prober = Prober(replace(config, ladder=Ladder(10.0, 10.0)), look_at("ssalm:tiny", config), tmp_path / "p", print)
    prober.passes(0, "growth")
    assert prober.rows[0].kind == kind


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_finds_the_edge_and_writes_every_probe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["frontier", "--model", "breaker", "--plugin", str(PLUGIN), "-m", "mood=refuses", "-m", "at_s=2.1"]
    words += ["--shortest", "2s", "--longest", "2.5s", "--memory", "none", "--second-way", "none", "--threads", "1"]
    assert main([*words, "--results", str(tmp_path)]) == 0
    (folder,) = (tmp_path / "frontier").iterdir()
    (row,) = load_frontier(folder).rows
    assert (row.edge_s, row.n_passes, row.breaks_at_s, row.breaks_by) == (2.09, 3, 2.18, "position_limit")
    assert [probe.length_s for probe in load_probes(folder)] == [2.0, 2.5, 2.28, 2.09, 2.18, 2.09, 2.09]
    printed = capsys.readouterr().out
    assert "2.09 s" in printed and "position limit" in printed and "too long for me" in printed


def test_a_variant_left_out_is_in_the_table_with_its_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["frontier", "--model", "breaker", "--plugin", str(PLUGIN), "-m", "variant=small", "--shortest", "2"]
    words += ["--longest", "2", "--memory", "none", "--second-way", "none", "--threads", "1"]
    assert main([*words, "--results", str(tmp_path)]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("breaker:small"))
    resident = line.split()[-3]
    assert float(resident) > 10


def test_one_model_named_twice_is_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["frontier", "--model", "breaker", "--model", "breaker", "--plugin", str(PLUGIN), "--threads", "1"]
    assert main([*words, "--results", str(tmp_path)]) == 2
    assert "names breaker more than once" in capsys.readouterr().err


class Killed(Exception):
    """Ends a search in the middle."""


def _search(tmp_path: Path, tries: list[float], ends_after: int | None = None, fresh: bool = False) -> FrontierRecord:
    """Of a model that breaks beyond 39 rungs, whose probes are only noted; killed after so many of them."""

    def tried(prober: Prober, length_s: float, step: Step) -> ProbeRow:
        if ends_after is not None and len(tries) == ends_after:
            raise Killed
        tries.append(length_s)
        answer = {"load_s": 0.1, "answer_s": 1.0, "peak_rss_bytes": 1, "peak_device_allocated_bytes": None}
        answer |= {"peak_device_reserved_bytes": None, "n_audio_tokens": 1, "n_answer_tokens": 1, "kernels": {}}
        passes = length_s <= LADDER.length_s(39)
        row = {"model": "breaker", "length_s": length_s, "step": step, "kind": "ok" if passes else "out_of_memory"}
        row |= {"message": "", "started_utc": "", "answer_wall_s": 1.0, "exit_code": 0, "answer": answer}
        return ProbeRow.model_validate({**row, "proof_wall_s": None, "proof": None, "second_way": None})

    config = replace(_config(), ladder=LADDER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Prober, "_tried", tried)
        patch.setattr("harness.frontier.look_at_all", lambda config: [_known(config)])
        return search(config, tmp_path, ["frontier"], lambda line: None, fresh)[1]


WHOLE_SEARCH = [LADDER.length_s(rung) for rung in (0, 16, 32, 48, 40, 36, 38, 39, 39, 39)]


def test_an_interrupted_search_is_continued_and_ends_as_it_would_have(tmp_path: Path) -> None:
    before: list[float] = []
    with pytest.raises(Killed):
        _search(tmp_path, before, ends_after=6)
    (folder,) = (path for path in (tmp_path / "frontier").iterdir() if path.is_dir())
    probes = folder / "probes.jsonl"
    probes.write_bytes(probes.read_bytes()[:-40])  # killed in the middle of a line
    after: list[float] = []
    record = _search(tmp_path, after)
    assert (before[:5] + after, record.rows[0].edge_s) == (WHOLE_SEARCH, LADDER.length_s(39))
    assert [row.length_s for row in load_probes(folder)] == WHOLE_SEARCH
    assert record.ended_utc is not None and record.rows[0].n_probes == len(WHOLE_SEARCH)


def test_a_search_that_ended_is_done_again(tmp_path: Path) -> None:
    tries: list[float] = []
    _search(tmp_path, tries)
    _search(tmp_path, tries)
    assert tries == WHOLE_SEARCH * 2


def test_fresh_leaves_an_interrupted_search_alone(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        _search(tmp_path, [], ends_after=6)
    tries: list[float] = []
    _search(tmp_path, tries, fresh=True)
    assert tries == WHOLE_SEARCH


def test_an_answer_without_its_proof_is_told_apart_from_an_answer_that_broke(tmp_path: Path) -> None:
    tries: list[float] = []
    record = _search(tmp_path, tries)  # whose failures came after the answer
    (folder,) = (path for path in (tmp_path / "frontier").iterdir() if path.is_dir())
    cells = frontier_table(record, load_probes(folder)).rows[0]
    assert "out of memory in the proof" in cells


def test_where_nothing_breaks_the_table_says_that_the_search_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["frontier", "--model", "breaker", "--plugin", str(PLUGIN), "--shortest", "2", "--longest", "2"]
    assert main([*words, "--memory", "none", "--threads", "1", "--results", str(tmp_path)]) == 0
    assert "at least 2 s (the search's longest)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "n_bytes"), [("4G", 4 * 2**30), ("512M", 2**29), ("1.5GiB", 3 * 2**29), ("none", None)]
)
def test_sizes_are_read(text: str, n_bytes: int | None) -> None:
    assert parse_memory(text) == n_bytes


@pytest.mark.parametrize(("text", "seconds"), [("90", 90.0), ("90s", 90.0), ("30m", 1800.0), ("2.5h", 9000.0)])
def test_lengths_are_read(text: str, seconds: float) -> None:
    assert parse_time(text, "--longest") == seconds


@pytest.mark.parametrize(
    "words",
    [
        ["--memory", "4X"],
        ["--memory", "0G"],
        ["--longest", "soon"],
        ["--shortest", "1h", "--longest", "1m"],
        ["--time-limit", "0"],
        ["--time-limit", "nan"],
        ["--second-way", "scan"],
        ["--threads", "0"],
        ["--model", "no_such_model", "--longest", "1m"],
    ],
)
def test_a_mistake_is_one_line(words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["frontier", "--results", str(tmp_path), *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_schema_files_are_those_of_the_rows() -> None:
    assert {name: (SCHEMA_FOLDER / name).read_text() for name in schema_texts()} == schema_texts()
