"""The page of `report --html` in a real browser: Chromium without a window, or a skip where there is none.

The browser is spoken to over its debugging pipe (Chrome DevTools Protocol): JSON texts that end with a zero byte, read
by it on descriptor 3 and written on descriptor 4. So the tests need no driver, no port and no package.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from harness.config import RunConfig
from harness.contracts import OptionValue
from harness.records import load_predictions, load_record, predictions_sha256
from harness.report_html import write_page
from harness.runner import run
from harness.scores import compute_scores

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
HOSTILE = "</script><script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">"
N_MANY = 20_000
PATIENCE_S = 60.0
# Puts its two descriptors where the browser looks for them.
START = "import os, sys; os.dup2({0}, 3); os.dup2({1}, 4); os.execv(sys.argv[1], sys.argv[1:])"
FLAGS = (
    "--headless=new --remote-debugging-pipe --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync --disable-extensions --mute-audio"
).split()
KEY_CODES = {"ArrowDown": 40, "End": 35, "Enter": 13, "Escape": 27}


class Browser:
    """One browser with one page. `requests` are the addresses that it asked for, `complaints` what went wrong in it."""

    def __init__(self, program: str, home: Path) -> None:
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        # Copies out of the way of 3 and 4, which are about to be taken.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 16) for end in (to_browser, from_browser)]
        command = [sys.executable, "-c", START.format(*ends), program, *FLAGS, f"--user-data-dir={home}", "about:blank"]
        folders = {name: str(home) for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")}
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, pass_fds=ends, env={**os.environ, **folders}, **quiet)
        for end in (to_browser, from_browser, *ends):
            os.close(end)
        self._unread = b""
        self._n_sent = 0
        self._session: str | None = None
        self.requests: list[str] = []
        self.complaints: list[str] = []
        pages = [one for one in self.call("Target.getTargets")["targetInfos"] if one["type"] == "page"]
        self._session = self.call("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask the browser for something and wait for its answer."""
        self._n_sent += 1
        message: dict[str, Any] = {"id": self._n_sent, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._n_sent:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            is_ready = select.select([self._in], [], [], PATIENCE_S)[0]
            piece = os.read(self._in, 1 << 16) if is_ready else b""
            assert piece, "the browser ended, or says nothing any more"
            self._unread += piece
        text, _, self._unread = self._unread.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, method: str, told: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif method == "Runtime.exceptionThrown" or (method == "Runtime.consoleAPICalled" and told["type"] != "log"):
            self.complaints.append(json.dumps(told))
        elif method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.complaints.append(json.dumps(told))

    def open(self, page: Path, **state: str) -> None:
        """Load a page at a deep link, and wait until it is all there."""
        self.requests.clear()
        self.complaints.clear()
        self.call("Page.navigate", url="about:blank")
        self.wait_for("location.href === 'about:blank'")
        address = "&".join(f"{name}={quote(value)}" for name, value in state.items())
        self.call("Page.navigate", url=f"{page.as_uri()}#{address}")
        self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'")

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript gives in the page; promises are waited for."""
        asked = {"expression": expression, "returnByValue": True, "awaitPromise": True, "userGesture": True}
        told = self.call("Runtime.evaluate", **asked)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Wait until an expression is true in the page."""
        deadline = time.monotonic() + PATIENCE_S
        while not self.value(expression):
            assert time.monotonic() < deadline, f"this never came true: {expression}"
            time.sleep(0.02)

    def press(self, key: str) -> None:
        """A key goes down and up where the focus is."""
        text = {"text": "\r" if key == "Enter" else key} if len(key) == 1 or key == "Enter" else {}
        code = KEY_CODES.get(key, 0)
        for kind, more in (("keyDown", text), ("keyUp", {})):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **more)

    def choose(self, select_id: str, value: str) -> None:
        """Choose an option of a select, as a person does."""
        self.value(
            f"{{ const box = document.getElementById({json.dumps(select_id)}); box.value = {json.dumps(value)};"
            " box.dispatchEvent(new Event('change')); }"
        )

    def texts(self, selector: str) -> list[str]:
        """The texts of all elements that a selector finds."""
        found: list[str] = self.value(
            f"Array.from(document.querySelectorAll({json.dumps(selector)}), (node) => node.textContent.trim())"
        )
        return found

    def close(self) -> None:
        """End the browser."""
        self._session = None
        try:
            self.call("Browser.close")
            self._process.wait(PATIENCE_S)
        finally:
            self._process.kill()
            self._process.wait()
            os.close(self._out)
            os.close(self._in)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests; skips where this machine has none."""
    program = next((path for name in NAMES if (path := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"no browser is installed here: looked for {', '.join(NAMES)}")
    opened = Browser(program, tmp_path_factory.mktemp("browser"))
    yield opened
    opened.close()


Results = dict[str, str]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    """The page of four runs over starter clips, and the runs' keys by name."""
    folder = tmp_path_factory.mktemp("results")
    options: dict[str, tuple[str, dict[str, OptionValue], int]] = {
        "chance": ("chance", {}, 40),
        "majority": ("majority", {}, 40),
        "hostile": ("echo", {"text": HOSTILE}, 40),
        "many": ("echo", {"text": "a dog barks"}, 8),
    }
    keys = {}
    for name, (model, model_options, limit) in options.items():
        asked: dict[str, Any] = {"limit": limit, "device": "cpu", "scorers": ("exact",), "results": folder}
        made = run(RunConfig(model, "esc50", model_options=model_options, **asked), say=lambda line: None).folder
        if name == "many":
            _enlarge(made, N_MANY)
        keys[name] = made.relative_to(folder).as_posix()
    return write_page(folder, folder / "pages" / "index.html").resolve(), keys


def _enlarge(folder: Path, n: int) -> None:
    """Ask the items of a run over and over, as it were, and score the lot."""
    record, rows = load_record(folder), load_predictions(folder)
    assert record is not None
    many = [rows[k % len(rows)].model_copy(update={"item_id": f"item-{k:05d}"}) for k in range(n)]
    (folder / "predictions.jsonl").write_text("".join(row.model_dump_json() + "\n" for row in many))
    scores = compute_scores(many, record.task.labels, "exact", ["accuracy"])
    changed = record.model_copy(
        update={"predictions_sha256": predictions_sha256(folder), "scores": tuple(scores), "leakage": None}
    )
    (folder / "record.json").write_text(changed.model_dump_json())


def _column(browser: Browser, name: str) -> list[str]:
    """The cells of one column of the first table, as they stand."""
    heads = browser.texts("table th")
    return browser.texts(f"table tbody td:nth-child({heads.index(name) + 1})")


def test_the_page_opens_without_a_complaint_and_asks_for_nothing(
    browser: Browser, results: tuple[Path, Results]
) -> None:
    page, keys = results
    browser.open(page, run=keys["hostile"])
    browser.wait_for("document.querySelectorAll('#rows [role=row]').length > 5")
    outside = [address for address in browser.requests if not address.startswith(("data:", page.as_uri()))]
    assert (browser.complaints, outside) == ([], [])


def test_markup_in_an_answer_is_text_and_runs_nothing(browser: Browser, results: tuple[Path, Results]) -> None:
    page, keys = results
    browser.open(page, run=keys["hostile"])
    browser.value("document.querySelector('#rows [role=row]').click()")
    assert browser.texts("#detail pre.answer") == [HOSTILE]
    assert browser.value("document.title") == "lalm-harness: results"
    assert browser.value("document.querySelectorAll('main img').length") == 0


def test_a_click_on_a_head_sorts_and_says_how(browser: Browser, results: tuple[Path, Results]) -> None:
    page, _ = results
    browser.open(page)
    click = "document.querySelectorAll('table th button')[0].click()"
    browser.value(click)
    up = _column(browser, "model")
    assert up == sorted(up)
    browser.value(click)
    assert _column(browser, "model") == sorted(up, reverse=True)
    assert browser.value("document.querySelector('table th').getAttribute('aria-sort')") == "descending"
    assert browser.texts("#said") == ["Sorted by model, descending."]


def test_numbers_are_sorted_as_numbers(browser: Browser, results: tuple[Path, Results]) -> None:
    page, _ = results
    browser.open(page)
    browser.value("document.querySelectorAll('table th button')[3].click()")
    assert _column(browser, "n") == ["40", "40", "40", "8"]


def test_filters_leave_the_items_that_are_like_that(browser: Browser, results: tuple[Path, Results]) -> None:
    page, keys = results
    browser.open(page, run=keys["majority"])
    browser.choose("show", "right")
    n_right = int(browser.texts("#count")[0].split()[0])
    marks = browser.texts("#rows .mark-r")
    browser.choose("show", "counted-wrong")
    n_wrong = int(browser.texts("#count")[0].split()[0])
    assert n_right + n_wrong == 40
    assert len(marks) == n_right and browser.texts("#rows .mark-r") == []


def test_a_class_and_a_text_narrow_the_list(browser: Browser, results: tuple[Path, Results]) -> None:
    page, keys = results
    browser.open(page, run=keys["many"])
    wanted = browser.value("document.getElementById('class').options[1].value")
    browser.choose("class", wanted)
    assert set(browser.texts("#rows [role=row] > :nth-child(3)")) == {wanted}
    browser.choose("class", "")
    browser.value("document.getElementById('text').value = 'ITEM-0012'")
    browser.value("document.getElementById('text').dispatchEvent(new Event('input'))")
    browser.wait_for("document.getElementById('count').textContent.startsWith('10 of')")
    assert browser.texts("#rows [role=row] > :nth-child(2)") == [f"item-0012{k}" for k in range(10)]


def test_the_player_has_the_clip_and_plays_it(browser: Browser, results: tuple[Path, Results]) -> None:
    page, keys = results
    browser.open(page, run=keys["chance"])
    browser.value("document.querySelector('#rows [role=row]').click()")
    name = browser.texts("#detail-title")[0]
    source = browser.value("document.querySelector('#detail audio').src")
    assert source.startswith("file:") and source.endswith(f"/{name}.flac")
    browser.value("{ const player = document.querySelector('#detail audio'); player.muted = true; player.play(); }")
    browser.wait_for("document.querySelector('#detail audio').currentTime > 0")
    assert browser.complaints == []


def test_a_link_leads_to_two_runs_and_an_item(browser: Browser, results: tuple[Path, Results]) -> None:
    page, keys = results
    browser.open(page, run=keys["chance"])
    browser.value("document.querySelectorAll('#rows [role=row]')[3].click()")
    name = browser.texts("#detail-title")[0]
    browser.open(page, **{"run": keys["chance"], "with": keys["majority"], "item": name})
    assert browser.texts("#detail-title") == [name]
    assert browser.texts("#detail .runs h3") == ["chance", "majority"]
    assert browser.texts("#list-head [role=columnheader]")[3:] == ["chance", "", "majority"]


def test_a_link_to_a_run_that_is_not_there_says_so(browser: Browser, results: tuple[Path, Results]) -> None:
    browser.open(results[0], run="nowhere")
    assert browser.texts("#detail") == ["This page has no run 'nowhere'."]


def test_keys_search_walk_the_list_and_open_an_item(browser: Browser, results: tuple[Path, Results]) -> None:
    page, keys = results
    browser.open(page, run=keys["many"])
    browser.press("/")
    assert browser.value("document.activeElement.id") == "text"
    browser.press("Escape")
    assert browser.value("document.activeElement.id") == "list"
    for key in ("End", "ArrowUp", "ArrowDown", "Enter"):
        browser.press(key)
    assert browser.texts("#detail-title") == [f"item-{N_MANY - 1:05d}"]
    assert browser.value("document.activeElement.id") == "detail"


def test_many_items_are_a_few_rows(browser: Browser, results: tuple[Path, Results]) -> None:
    page, keys = results
    browser.open(page, run=keys["many"])
    assert browser.value("document.getElementById('list').getAttribute('aria-rowcount')") == str(N_MANY + 1)
    browser.value("document.getElementById('list').scrollTop = 15000 * 30")
    browser.wait_for("document.querySelector('#rows').textContent.includes('item-15005')")
    assert browser.value("document.querySelectorAll('#rows [role=row]').length") < 100
    assert page.stat().st_size < 4e6


@pytest.mark.parametrize("wide", [1280, 600])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_texts_stand_out_and_nothing_is_wider_than_the_window(
    theme: str, wide: int, browser: Browser, results: tuple[Path, Results]
) -> None:
    page, keys = results
    media = [{"name": "prefers-color-scheme", "value": theme}]
    browser.call("Emulation.setEmulatedMedia", features=media)
    browser.call("Emulation.setDeviceMetricsOverride", width=wide, height=900, deviceScaleFactor=1, mobile=False)
    browser.open(page, **{"run": keys["chance"], "with": keys["hostile"]})
    browser.value("document.querySelector('#rows [role=row]').click()")
    assert browser.value("document.documentElement.scrollWidth") <= wide
    assert min(browser.value(CONTRASTS)) >= 4.5
    browser.call("Emulation.clearDeviceMetricsOverride")


# Contrast of the text in each kind of place with what lies behind it (WCAG 2.1, relative luminance).
CONTRASTS = """
(() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
  const luminance = ([r, g, b]) => 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b);
  const behind = (node) => {
    const colour = channels(getComputedStyle(node).backgroundColor);
    return (colour.length === 3 || colour[3] > 0) || !node.parentElement ? colour : behind(node.parentElement);
  };
  const places = "h1, nav a, button, caption small, td, td a, label, .hints, .mark, #rows span, dt, pre";
  return Array.from(document.querySelectorAll(places), (node) => {
    const pair = [luminance(channels(getComputedStyle(node).color)), luminance(behind(node))];
    return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
  });
})()
"""


def test_the_switch_overrules_the_system(browser: Browser, results: tuple[Path, Results]) -> None:
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}])
    browser.open(results[0])
    click = "document.getElementById('theme').click()"
    colour = "getComputedStyle(document.body).backgroundColor"
    light = browser.value(colour)
    browser.value(f"{click}; {click}")
    assert browser.texts("#theme") == ["Theme: dark"] and browser.value(colour) != light
    browser.value(click)
    assert browser.texts("#theme") == ["Theme: system"] and browser.value(colour) == light
