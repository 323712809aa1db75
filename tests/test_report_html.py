"""The page of `report --html`: whole, safe against what models say, and true to the records."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from harness.config import RunConfig
from harness.errors import RecordError, UsageError
from harness.frontier_rows import FrontierRecord, FrontierRow
from harness.record_files import to_json
from harness.records import load_record, predictions_sha256
from harness.registry import add_plugin_file
from harness.report_html import write_page
from harness.report_html.page import to_script_json
from harness.runner import run
from harness.scaling_rows import POINTS_FILE, PointKey, PointRow, append_point

REPOSITORY = Path(__file__).resolve().parents[1]
PLUGINS = Path(__file__).parent / "plugins"
HOSTILE = "</script><script>alert(1)</script><!-- <script> & \u2028 \u202e <img src=x onerror=alert(2)> \\end{document}"
EMPTY_ELEMENTS = {"meta", "link", "input", "img", "br"}


class Page(HTMLParser):
    """A page taken apart: elements that are open at each end, attributes, and texts by element."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.unbalanced: list[str] = []
        self.data: dict[str, str] = {}
        self.cells: list[str] = []
        self.captions: list[str] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in EMPTY_ELEMENTS:
            self.open.append(tag)
        for name, texts in (("td", self.cells), ("caption", self.captions)):
            if tag == name:
                texts.append("")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        tag, attributes = self.elements[-1] if self.elements else ("", {})
        if self.open[-1:] == ["script"]:
            if attributes.get("type") == "application/json":
                self.data[attributes["id"].removeprefix("data-")] = data
            else:
                self.scripts.append(data)
        elif self.open[-1:] == ["style"]:
            self.styles.append(data)
        else:
            self.words += data
            for name, texts in (("td", self.cells), ("caption", self.captions)):
                if name in self.open:
                    texts[-1] += data

    def columns(self, name: str) -> Any:
        """The data of one script."""
        return json.loads(self.data[name])

    def having(self, tag: str, **wanted: str) -> list[dict[str, str]]:
        """The attributes of all elements of a tag that have these."""
        return [found for name, found in self.elements if name == tag and wanted.items() <= found.items()]


Go = Callable[..., Path]


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Go:
    """Runs a model in `tmp_path/results`; gives the run's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LALM_HARNESS_DATA", raising=False)
    for name in ("beeps.py", "moody.py", "told.py"):
        add_plugin_file(PLUGINS / name)

    def make(model: str, task: str, **values: Any) -> Path:
        config = RunConfig(model, task, device="cpu", results=Path("results"), **values)
        return (tmp_path / run(config, say=lambda line: None).folder).resolve()

    return make


def _page(tmp_path: Path, out: str = "page/index.html") -> Page:
    return Page(write_page(tmp_path / "results", tmp_path / out).read_text(encoding="utf-8"))


def _changed(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Rewrite a record after a change to its JSON."""
    path = folder / "record.json"
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


# --- structure -------------------------------------------------------------------------------------------------------


def test_every_element_is_closed_and_every_id_is_there_once(go: Go, tmp_path: Path) -> None:
    go("chance", "esc50", limit=6)
    page = _page(tmp_path)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert (page.unbalanced, page.open, len(ids) - len(set(ids))) == ([], [], 0)


def test_what_a_label_or_a_title_points_to_is_there(go: Go, tmp_path: Path) -> None:
    go("chance", "esc50", limit=6)
    page = _page(tmp_path)
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    pointed = {found[name] for _, found in page.elements for name in ("aria-labelledby", "data-focus") if name in found}
    assert pointed <= ids


def test_every_table_has_a_caption_and_heads_of_columns_with_a_button(go: Go, tmp_path: Path) -> None:
    go("chance", "esc50", limit=6)
    tags = [tag for tag, _ in _page(tmp_path).elements]
    n_heads = tags.count("th")
    assert tags.count("table") == tags.count("caption") == 1
    assert sum(tags[place : place + 2] == ["th", "button"] for place in range(len(tags))) == n_heads > 5


def test_nothing_is_loaded_from_elsewhere(go: Go, tmp_path: Path) -> None:
    go("chance", "esc50", limit=6)
    loading = [
        value for _, found in _page(tmp_path).elements for name, value in found.items() if name in ("src", "href")
    ]
    assert [address for address in loading if not address.startswith(("#", "data:"))] == []


def test_the_policy_lets_run_the_script_and_the_style_of_the_page_alone(go: Go, tmp_path: Path) -> None:
    go("chance", "esc50", limit=6)
    page = _page(tmp_path)
    (policy,) = page.having("meta", **{"http-equiv": "Content-Security-Policy"})
    hashes = [
        "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in ("".join(page.styles), "".join(page.scripts))
    ]
    assert re.findall(r"sha256-[^']+", policy["content"]) == hashes
    assert "default-src 'none'" in policy["content"] and "unsafe" not in policy["content"]


def test_the_same_results_give_the_same_bytes(go: Go, tmp_path: Path) -> None:
    go("chance", "esc50", limit=6)
    first = write_page(tmp_path / "results", tmp_path / "a.html").read_bytes()
    assert write_page(tmp_path / "results", tmp_path / "a.html").read_bytes() == first


def test_a_page_needs_no_network_library(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from harness.report_html import write_page; "
        f"write_page(Path({str(REPOSITORY / 'results' / 'reference')!r}), Path({str(tmp_path / 'p.html')!r})); "
        "print([name for name in ('torch', 'transformers', 'matplotlib', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout.strip() == "[]"


# --- untrusted text --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [HOSTILE, "<!--", "]]>", "\u2028\u2029", "\ud800", "\x00\x1b[31m", "&lt;", 'a"b\\'])
def test_json_in_a_script_comes_back_as_it_was_and_holds_no_markup(text: str) -> None:
    written = to_script_json({"text": text})
    assert json.loads(written) == {"text": text}
    assert written.isascii() and not re.search(r"[<>&]", written)


def test_an_answer_with_markup_adds_no_element(go: Go, tmp_path: Path) -> None:
    go("echo", "esc50", limit=6, model_options={"text": "plain"})
    plain = [tag for tag, _ in _page(tmp_path).elements]
    shutil.rmtree(tmp_path / "results")
    go("echo", "esc50", limit=6, model_options={"text": HOSTILE})
    hostile = _page(tmp_path)
    assert [tag for tag, _ in hostile.elements] == plain
    assert hostile.columns("run-0")["texts"] == [HOSTILE]


def test_markup_in_a_record_is_shown_as_text(go: Go, tmp_path: Path) -> None:
    folder = go("chance", "esc50", limit=6)
    _changed(folder, lambda record: record["model"].update(name=HOSTILE, variant=""))
    page = _page(tmp_path)
    assert page.cells[0] == HOSTILE
    assert page.having("img") == []


# --- tables ----------------------------------------------------------------------------------------------------------


def test_a_score_stands_with_its_interval_in_the_column_of_its_scorer(go: Go, tmp_path: Path) -> None:
    record = load_record(go("moody", "beeps"))
    assert record is not None
    by_scorer = {row.scorer: row for row in record.scores}
    page = _page(tmp_path)
    heads = re.findall(r"(exact|loglik) %", page.words)
    texts = []
    for scorer in heads:
        row = by_scorer[scorer]
        assert row.value is not None and row.interval is not None
        texts.append(f"{row.value * 100:.1f} [{row.interval.low * 100:.1f}, {row.interval.high * 100:.1f}]")
    assert heads == ["exact", "loglik"]
    assert [cell[: len(text)] for cell, text in zip(page.cells[4:6], texts, strict=True)] == texts


def test_starter_and_official_data_have_tables_of_their_own(go: Go, tmp_path: Path) -> None:
    go("moody", "beeps")
    Path("data").mkdir()
    Path("data/beeps.txt").touch()
    go("moody", "beeps")
    captions = _page(tmp_path).captions
    assert [caption.split(":")[1].split()[0] for caption in captions] == ["Official", "Starter"]


def test_a_metric_that_is_not_available_says_why(go: Go, tmp_path: Path) -> None:
    def remove(record: dict[str, Any]) -> None:
        for row in record["scores"]:
            row.update(value=None, interval=None, answered_only=None, unavailable="Java is missing.")

    _changed(go("chance", "esc50", limit=6), remove)
    assert "not availableJava is missing." in _page(tmp_path).cells


def test_scaling_and_frontier_have_tables_and_a_point_without_a_number_sorts_nowhere(tmp_path: Path, go: Go) -> None:
    record = load_record(go("chance", "esc50", limit=6))
    assert record is not None
    key = PointKey(
        model="m", variant="", options={}, fingerprint="f", step="infer", seconds=10.0, batch_size=1, n_tokens=8,
        device="cpu", dtype="float32", threads=2,
    )  # fmt: skip
    point = PointRow(
        key=key, outcome="out_of_memory", message="no room", exit_code=None, wall_s=1.0,
        started_utc="2026-01-01T00:00:00Z", position=0, measured=None,
    )  # fmt: skip
    (tmp_path / "results/scaling/a").mkdir(parents=True)
    append_point(tmp_path / "results/scaling/a", point)
    row = FrontierRow(
        model=record.model, options={}, edge_s=90.0, n_passes=3, breaks_at_s=None, breaks_by=None, breaks_message="",
        n_probes=3, wall_s=9.0,
    )  # fmt: skip
    frontier = FrontierRecord(
        command=(), config={}, memory_cap="RLIMIT_DATA", prompt="", labels=(), audio="", environment=record.environment,
        started_utc="", ended_utc=None, rows=(row,),
    )  # fmt: skip
    (tmp_path / "results/frontier/b").mkdir(parents=True)
    (tmp_path / "results/frontier/b/probes.jsonl").touch()
    (tmp_path / "results/frontier/b/record.json").write_text(to_json(frontier))
    page = _page(tmp_path)
    assert [c.split(":")[0] for c in page.captions] == ["accuracy", "Cost by length", "Longest audio"]
    assert page.cells[-17:-6][5:9] == ["-"] * 4 and page.cells[-5] == "at least 1 min 30 s"
    (tmp_path / "results/scaling/a" / POINTS_FILE).write_text("{}\n")
    assert "scaling/a: " in _page(tmp_path).words


def test_figures_are_images_in_the_page(tmp_path: Path) -> None:
    (tmp_path / "results/figures").mkdir(parents=True)
    content = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
    (tmp_path / "results/figures/time_by_length.svg").write_bytes(content)
    (image,) = _page(tmp_path).having("img")
    assert base64.b64decode(image["src"].partition(",")[2]) == content
    assert image["alt"] == "figures/time_by_length"


def test_a_figure_has_the_words_of_its_sidecar(tmp_path: Path) -> None:
    (tmp_path / "results/figures").mkdir(parents=True)
    (tmp_path / "results/figures/time.svg").write_bytes(b"<svg xmlns='http://www.w3.org/2000/svg'/>")
    sidecar = tmp_path / "results/figures/time.json"
    sidecar.write_text(json.dumps({"title": "Time by length", "notes": ["Medians."]}))
    page = _page(tmp_path)
    assert page.having("img")[0]["alt"] == "Time by length" and "Medians." in page.words
    sidecar.write_text("{")
    with pytest.raises(RecordError, match="time.json is not JSON"):
        _page(tmp_path)


def test_results_without_anything_say_so(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    words = _page(tmp_path).words
    assert "no finished run" in words and "no figures" in words and "neither a scaling nor a frontier" in words


def test_a_folder_that_is_not_there_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder"):
        write_page(tmp_path / "nothing", tmp_path / "page.html")


def test_a_page_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RecordError, match="cannot be made"):
        write_page(tmp_path, tmp_path / "file" / "page.html")


# --- broken records --------------------------------------------------------------------------------------------------


def _cut(folder: Path) -> None:
    path = folder / "record.json"
    path.write_text(path.read_text()[:400])


def _from_the_future(folder: Path) -> None:
    _changed(folder, lambda record: record.update(schema_version=99))


def _without_predictions(folder: Path) -> None:
    (folder / "predictions.jsonl").unlink()


def _with_another_answer(folder: Path) -> None:
    path = folder / "predictions.jsonl"
    path.write_text(path.read_text().replace('"status": "ok"', '"status": "failed"', 1))


def _with_nan(folder: Path) -> None:
    _changed(folder, lambda record: record["scores"][0].update(value=float("nan")))


def _unfinished(folder: Path) -> None:
    _changed(folder, lambda record: record.update(is_complete=False))


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (_cut, "not JSON"),
        (_from_the_future, "schema version 99"),
        (_without_predictions, "changed after the run"),
        (_with_another_answer, "changed after the run"),
        (_with_nan, "does not fit its schema"),
        (_unfinished, "not finished"),
    ],
)
def test_a_run_that_cannot_be_trusted_is_named_with_its_reason_and_not_shown(
    harm: Callable[[Path], None], reason: str, go: Go, tmp_path: Path
) -> None:
    harm(go("moody", "beeps"))
    go("chance", "esc50", limit=6)
    page = _page(tmp_path)
    assert "runs/moody/beeps/" in page.words and reason in page.words
    assert [one["model"] for one in page.columns("index")] == ["chance"]
    assert "moody" not in "".join(page.cells)


def test_two_runs_of_one_command_are_said_to_be(go: Go, tmp_path: Path) -> None:
    folders = [go("chance", "esc50", limit=6), go("chance", "esc50", limit=6, fresh=True)]
    line = f"The same command made {', '.join(str(f.relative_to(tmp_path / 'results')) for f in sorted(folders))}."
    assert line in _page(tmp_path).words


# --- items -----------------------------------------------------------------------------------------------------------


def test_the_items_say_what_the_predictions_say(go: Go, tmp_path: Path) -> None:
    folder = go(
        "moody", "beeps", model_options={"mood": "truncates", "on": "beep-05"}, task_options={"broken": "beep-01"}
    )
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    page = _page(tmp_path)
    items, columns = page.columns("set-0"), page.columns("run-0")
    assert items["ids"] == [row["item_id"] for row in rows]
    assert [[items["texts"][n] for n in places] for places in items["references"]] == [r["references"] for r in rows]
    assert [columns["texts"][place] for place in columns["answers"]] == [row["text"] for row in rows]
    assert columns["status"] == "".join({"ok": "o", "truncated": "t", "failed": "f"}[row["status"]] for row in rows)
    assert columns["errors"] == {"1": "AudioError: this beep is broken"}
    assert columns["answer_s"] == [float(f"{row['answer_s']:.4g}") for row in rows]


def test_the_outcomes_of_items_come_to_the_stored_scores(go: Go, tmp_path: Path) -> None:
    record = load_record(go("moody", "beeps", task_options={"broken": "beep-01"}))
    assert record is not None
    scorers = _page(tmp_path).columns("run-0")["scorers"]
    stored = {row.scorer: (row.value, row.n_unparsed, row.n_failed) for row in record.scores}
    shown = {s["name"]: s["outcomes"] for s in scorers}
    assert {k: (v.count("r") / len(v), v.count("u"), v.count("f")) for k, v in shown.items()} == stored


def test_labels_that_do_not_come_to_the_stored_score_are_not_shown(go: Go, tmp_path: Path) -> None:
    folder = go("chance", "esc50", limit=6, scorers=("exact",))
    _changed(folder, lambda record: record["scores"][0]["confusion"].popitem())
    (scorer,) = _page(tmp_path).columns("run-0")["scorers"]
    assert (scorer["labels"], scorer["outcomes"]) == ([], "")
    assert "decides otherwise now" in scorer["reason"]


def test_a_scorer_that_needs_a_model_is_not_asked_again(go: Go, tmp_path: Path) -> None:
    folder = go("chance", "esc50", limit=6, scorers=("exact",))
    _changed(folder, lambda record: record["scores"][0].update(scorer="embed"))
    (scorer,) = _page(tmp_path).columns("run-0")["scorers"]
    assert scorer["outcomes"] == "" and "needs a model" in scorer["reason"]


def test_captions_have_references_and_no_labels(go: Go, tmp_path: Path) -> None:
    go("echo", "told", scorers=("verbatim",))
    page = _page(tmp_path)
    assert page.columns("set-0")["kind"] == "captioning"
    assert page.columns("run-0")["scorers"] == []


def test_runs_that_were_asked_the_same_items_share_a_set(go: Go, tmp_path: Path) -> None:
    for model, limit in (("chance", 6), ("majority", 6), ("chance", 4)):
        go(model, "esc50", limit=limit)
    sets = {(one["model"], one["n"]): one["set"] for one in _page(tmp_path).columns("index")}
    assert sets[("chance", 6)] == sets[("majority", 6)] != sets[("chance", 4)]


def test_the_items_of_a_set_are_in_one_order_whatever_that_of_the_predictions(go: Go, tmp_path: Path) -> None:
    folder = max(go("moody", "beeps"), go("moody", "beeps", fresh=True))
    before = [_page(tmp_path).columns(f"run-{place}") for place in (0, 1)]
    path = folder / "predictions.jsonl"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    _changed(folder, lambda record: record.update(predictions_sha256=predictions_sha256(folder)))
    after = [_page(tmp_path).columns(f"run-{place}") for place in (0, 1)]
    spoken = [[[c["texts"][place] for place in c["answers"]] for c in columns] for columns in (before, after)]
    assert len(set(spoken[0][0])) > 1 and spoken[0] == spoken[1]


# --- audio -----------------------------------------------------------------------------------------------------------


def _linked(page: Page, tmp_path: Path, folder: str = "page") -> list[Path | None]:
    items = page.columns("set-0")
    base = items["audio_base"]
    return [(tmp_path / folder / unquote(base + rest)).resolve() if rest else None for rest in items["audio"]]


def test_starter_clips_are_linked_by_their_path_from_the_page(go: Go, tmp_path: Path) -> None:
    go("chance", "esc50", limit=6)
    page = _page(tmp_path)
    items = page.columns("set-0")
    files = _linked(page, tmp_path)
    assert items["audio_base"].startswith("../") and items["audio_note"] == ""
    assert [file.stem if file and file.is_file() else None for file in files] == items["ids"]


def test_a_file_that_is_not_the_one_that_was_heard_is_not_linked(go: Go, tmp_path: Path) -> None:
    folder = go("chance", "esc50", limit=6)
    path = folder / "predictions.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[2]["audio_identity"] = "0" * 64
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    _changed(folder, lambda record: record.update(predictions_sha256=predictions_sha256(folder)))
    page = _page(tmp_path)
    assert [place for place, file in enumerate(_linked(page, tmp_path)) if file is None] == [2]
    assert "1 of 6 clips" in page.columns("set-0")["audio_note"]


def test_a_task_whose_data_is_not_here_says_so(go: Go, tmp_path: Path) -> None:
    def make_official(record: dict[str, Any]) -> None:
        record["task"]["origin"] = "official"

    _changed(go("chance", "esc50", limit=6), make_official)
    items = _page(tmp_path).columns("set-0")
    assert set(items["audio"]) == {0} and "not" in items["audio_note"]
