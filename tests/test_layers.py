"""Imports point downwards: a module may import lower layers, its own package, and earlier ones of its layer."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("harness", "models", "tasks")

# Lowest first. Within the plugin layer nothing imports another package; within the others the order counts.
PLUGINS = ("models", "tasks", "harness.scorers", "harness.metrics")
LAYERS = (
    (
        "harness.errors",
        "harness.hashing",
        "harness.contracts",
        "harness.clips",
        "harness.audio",
        "harness.foreign",
        "harness.captioning",
        "harness.scene_captions",
    ),
    PLUGINS,
    (
        "harness.options",
        "harness.registry",
        "harness.config",
        "harness.environment",
        "harness.statistics",
        "harness.progress",
        "harness.byte_progress",
        "harness.downloads",
        "harness.archives",
        "harness.length_policies",
        "harness.schema_files",
        "harness.record_files",
        "harness.records",
        "harness.run_folder",
        "harness.processes",
        "harness.fresh_process",
        "harness.datasets",
    ),
    (
        "harness.promises",
        "harness.hearing",
        "harness.answering",
        "harness.measuring",
        "harness.scoring",
        "harness.scores",
        "harness.latex",
        "harness.tables",
        "harness.pair_remarks",
        "harness.compare",
        "harness.comparison_record",
        "harness.strata",
        "harness.protocols",
        "harness.leakage",
        "harness.plan",
        "harness.run_record",
        "harness.shards",
        "harness.runner",
        "harness.shared_run",
        "harness.control_sources",
        "harness.controls",
        "harness.held_out",
        "harness.encoded_examples",
        "harness.ranges",
        "harness.curve",
        "harness.training",
        "harness.curriculum",
        "harness.feature_cache",
        "harness.lesson_batches",
        "harness.sharding",
        "harness.staged_training",
        "harness.training_forecast",
        "harness.tensorboard_lines",
        "harness.recipes",
        "harness.bootstrap_times",
        "harness.bench",
        "harness.checks",
        "harness.noise_bursts",
        "harness.frontier_rows",
        "harness.streaming_rows",
        "harness.edge",
        "harness.frontier_probe",
        "harness.frontier",
        "harness.frontier_table",
        "harness.streaming_cost",
        "harness.flop_formulas",
        "harness.flop_counting",
        "harness.timing",
        "harness.memory",
        "harness.memory_probes",
        "harness.allocator_events",
        "harness.energy",
        "harness.scaling_rows",
        "harness.point_summary",
        "harness.measure_point",
        "harness.flop_coverage",
        "harness.fits",
        "harness.scaling_curves",
        "harness.scaling",
        "harness.scaling_tables",
        "harness.scaling_figures",
        "harness.results_frame",
        "harness.report",
        "harness.report_html",
        "harness.verify",
        "harness.prepare",
        "harness.readme",
    ),
    ("harness.cli", "harness.__main__"),
)
PLACE = {unit: (layer, position) for layer, units in enumerate(LAYERS) for position, unit in enumerate(units)}
STRANGERS = {("harness.runner", "harness.training"), ("harness.training", "harness.runner")}

MODULES = {
    ".".join(file.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): file
    for package in PACKAGES
    for file in sorted((REPOSITORY / package).rglob("*.py"))
}


def imported_by(module: str) -> Iterator[str]:
    """Full names of our modules that a module imports, wherever in the file, for type checking too."""
    for node in ast.walk(ast.parse(MODULES[module].read_bytes())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.partition(".")[0] in PACKAGES)
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".")
            is_package = MODULES[module].name == "__init__.py"
            above = parts[: len(parts) + is_package - node.level] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            if source.partition(".")[0] in PACKAGES:
                names = [f"{source}.{name.name}" for name in node.names]
                yield from (name if name in MODULES else source for name in names)


def unit_of(module: str) -> str:
    """The entry of `LAYERS` that a module belongs to."""
    parts = module.split(".")
    return parts[0] if parts[0] != "harness" else ".".join(parts[:2])


def may_import(importer: str, imported: str) -> bool:
    """Whether one unit may import another."""
    if importer == imported or imported == "harness":
        return True
    if imported in ("models", "tasks") or (importer, imported) in STRANGERS:
        return False
    if imported not in PLACE:  # its own test says so
        return True
    (layer, position), (low_layer, low_position) = PLACE[importer], PLACE[imported]
    return low_layer < layer or (low_layer == layer and importer not in PLUGINS and low_position < position)


@pytest.mark.parametrize("module", [name for name in MODULES if name != "harness"])
def test_a_module_imports_only_what_lies_below_it(module: str) -> None:
    unit = unit_of(module)
    assert unit in PLACE, f"say in LAYERS of this test where {unit} belongs"
    assert [name for name in imported_by(module) if not may_import(unit, unit_of(name))] == []


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("models.nn")])
def test_network_code_knows_only_network_code(module: str) -> None:
    assert [name for name in imported_by(module) if not name.startswith("models.nn")] == []


def test_the_package_itself_imports_nothing() -> None:
    assert list(imported_by("harness")) == []


def test_the_rule_finds_what_it_forbids() -> None:
    allowed = {
        (importer, imported): may_import(importer, imported)
        for importer, imported in [
            ("tasks", "harness.audio"),
            ("harness.registry", "harness.options"),
            ("tasks", "models"),
            ("tasks", "harness.registry"),
            ("harness.metrics", "harness.scorers"),
            ("harness.registry", "models"),
            ("harness.options", "harness.registry"),
            ("harness.runner", "harness.training"),
            ("harness.contracts", "harness.audio"),
        ]
    }
    assert [pair for pair, is_allowed in allowed.items() if is_allowed] == [
        ("tasks", "harness.audio"),
        ("harness.registry", "harness.options"),
    ]
