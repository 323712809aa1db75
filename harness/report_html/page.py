"""The page as one file: what was found in the results, the template, the style and the script, all in it.

Answers are untrusted text. The template escapes every value; the script makes text nodes only; data lies in the page as
JSON that cannot end its element; and a content security policy lets run the page's own script alone, by its hash, and
load nothing but the figures in the page and audio files beside it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from harness.errors import RecordError, UsageError
from harness.record_files import write_atomically
from harness.report.weights import row_names
from harness.report_html.columns import browsable, headline
from harness.report_html.figures import find_figures
from harness.report_html.found_runs import find_runs, repeats
from harness.report_html.page_tables import frontier_tables, scaling_tables, score_tables

_HERE = Path(__file__).parent
_TEMPLATE = "page.html.j2"
_STYLE = ("style.css",)
_SCRIPTS = ("start.js", "tables.js", "data.js", "filters.js", "item_list.js", "detail.js", "items.js")
_UNSAFE_IN_SCRIPTS = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def write_page(results: Path, out: Path) -> Path:
    """Write the page for all runs, scaling points, frontiers and figures below a folder of results.

    The same results give the same bytes. Audio is linked by its path from the page, where it is found.

    Args:
        results: a folder as `--results` names it, or one above several.
        out: the page's file; its folder is made where it is not there.

    Returns:
        `out`.

    Raises:
        UsageError: there is no such folder of results.
        RecordError: the page cannot be written, or a figure cannot be read.
    """
    if not results.is_dir():
        raise UsageError(f"There is no folder {results}.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordError(f"{out.parent} cannot be made: {error.strerror}.") from error
    write_atomically(out, _render(_content(results, out.parent)))
    return out


def to_script_json(value: Any) -> str:
    """Compact JSON, ASCII alone, that holds no character with a meaning in HTML, so that no text can end its script."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character, escape in _UNSAFE_IN_SCRIPTS.items():
        text = text.replace(character, escape)
    return text


def _content(results: Path, page_folder: Path) -> dict[str, Any]:
    """Everything that the template shows."""
    runs, skipped = find_runs(results)
    scaling, no_scaling = scaling_tables(results)
    frontier, no_frontier = frontier_tables(results)
    item_sets, columns = browsable(runs, page_folder)
    names = row_names(runs, {})
    index = [
        {**headline(run, names[run.place]), "set": column["set"]} for run, column in zip(runs, columns, strict=True)
    ]
    return {
        "score_tables": score_tables(runs, names),
        "cost_tables": [*scaling, *frontier],
        "figures": find_figures(results),
        "skipped": [*skipped, *no_scaling, *no_frontier],
        "repeats": repeats(runs),
        "n_runs": len(runs),
        "data": {
            "index": to_script_json(index),
            **{f"set-{place}": to_script_json(item_set) for place, item_set in enumerate(item_sets)},
            **{f"run-{place}": to_script_json(column) for place, column in enumerate(columns)},
        },
    }


def _render(content: dict[str, Any]) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    style, script = _joined(_STYLE), f'"use strict";\n(() => {{\n{_joined(_SCRIPTS)}}})();\n'
    return environment.get_template(_TEMPLATE).render(
        **content, style=style, script=script, policy=_policy(style, script)
    )


def _joined(names: tuple[str, ...]) -> str:
    return "".join((_HERE / name).read_text(encoding="utf-8") for name in names)


def _policy(style: str, script: str) -> str:
    """`file:` is for a page that is opened from a disk, where it has no origin of its own."""
    return (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; img-src data:; "
        "media-src 'self' file:; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
