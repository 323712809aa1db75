"""From a name to a plugin: a file is its own registration, and nothing is imported until it is asked for.

One rule: file name = function name = name on the command line. Models live in `models/`, tasks in `tasks/`, scorers,
metrics and recipes in the `harness` package of that name, benches in `models/benches`; files that start with "_" and
sub-packages are no plugins. Other distributions join through the entry-point groups `lalm_harness.<kind>`, single files
through `add_plugin_file`. A name that two of them claim is an error.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

import harness
from harness.contracts import OptionValue
from harness.errors import HarnessError, OptionError, PluginError, UnknownNameError
from harness.options import resolve_options

Kind = str
"""One of the keys of `KINDS`."""

KINDS: Mapping[Kind, str] = {
    "models": "models",
    "tasks": "tasks",
    "scorers": "harness.scorers",
    "metrics": "harness.metrics",
    "recipes": "harness.recipes",
    "benches": "models.benches",
}
"""Each kind of plugin, and the package its built-in files live in."""

# What the function of a plugin file returns tells its kind; the last part of the annotation counts.
_KIND_BY_ANNOTATION: Mapping[str, Kind] = {
    "ModelAdapter": "models",
    "TrainableModel": "models",
    "Task": "tasks",
    "Scorer": "scorers",
    "Metric": "metrics",
    "float": "metrics",
    "Recipe": "recipes",
    "Benches": "benches",
}
_CODE_PACKAGES = ("harness", "models", "tasks")

_added_files: dict[tuple[Kind, str], Path] = {}


@dataclass(frozen=True)
class PluginInfo:
    """What `list` shows of a plugin without importing it. `origin` is "built in", a distribution or a file."""

    name: str
    summary: str
    origin: str


@dataclass(frozen=True)
class Created:
    """A plugin that was made, and how: the options as given, all with defaults, and those that differ from them."""

    value: Any
    name: str
    options_passed: Mapping[str, OptionValue]
    options_resolved: Mapping[str, OptionValue]
    options_changed: Mapping[str, OptionValue]
    source: Path | None


@dataclass(frozen=True)
class _Plugin:
    """Where a plugin is, before anything of it is imported."""

    kind: Kind
    name: str
    origin: str
    file: Path | None
    load_function: Callable[[], object]


# --- finding ---------------------------------------------------------------------------------------------------------


def names(kind: Kind) -> list[str]:
    """Names of all plugins of a kind, sorted.

    Raises:
        PluginError: a name is claimed twice, or a package of ours was taken from elsewhere.
    """
    return sorted(_plugins(kind))


def summaries(kind: Kind) -> list[PluginInfo]:
    """Name, one line and origin of each plugin of a kind, sorted by name. Imports no plugin."""
    found = _plugins(kind)
    return [PluginInfo(name, _summary(name, found[name].file), found[name].origin) for name in sorted(found)]


def load(kind: Kind, name: str) -> Callable[..., Any]:
    """Import one plugin and give its function, without calling it.

    Raises:
        UnknownNameError: no plugin has that name.
        PluginError: it cannot be imported, or holds no function of its name.
    """
    return _load(_find(kind, name))


def create(kind: Kind, name: str, options: Mapping[str, object] | None = None) -> Created:
    """Make a plugin's object: convert the options by the function's annotations, and call it.

    A metric is itself the function that is wanted: it is not called, and its options follow its first parameter.

    Raises:
        UnknownNameError: no plugin has that name.
        OptionError: an option is unknown, missing, or has a value it cannot take.
        PluginError: the plugin cannot be imported.
    """
    plugin = _find(kind, name)
    function = _load(plugin)
    owner = f"{_singular(kind)} '{name}'"
    resolved = resolve_options(function, options or {}, owner, skip_first=kind == "metrics")
    return Created(
        value=_make(kind, function, resolved.arguments, owner),
        name=name,
        options_passed={key: resolved.recorded[key] for key in options or {}},
        options_resolved=resolved.recorded,
        options_changed=resolved.changed,
        source=plugin.file,
    )


def split_model(text: str) -> tuple[str, str | None]:
    """Take "ssalm:tiny" apart into name and variant; the variant is None where none is given."""
    name, colon, variant = text.partition(":")
    if not name or (colon and not variant):
        raise OptionError(f"'{text}' is not a model: write NAME or NAME:VARIANT.")
    return name, variant or None


def _load(plugin: _Plugin) -> Callable[..., Any]:
    function = plugin.load_function()
    if not callable(function):
        raise PluginError(f"The {_singular(plugin.kind)} '{plugin.name}' is not a function.")
    return function


def _make(kind: Kind, function: Callable[..., Any], arguments: Mapping[str, Any], owner: str) -> Any:
    if kind == "metrics":
        return functools.partial(function, **arguments) if arguments else function
    try:
        return function(**arguments)
    except ValueError as error:
        raise OptionError(f"The {owner} refuses its options: {error}") from error


def _find(kind: Kind, name: str) -> _Plugin:
    found = _plugins(kind)
    if name not in found:
        raise UnknownNameError(_singular(kind), name, found)
    return found[name]


def _singular(kind: Kind) -> str:
    return kind.removesuffix("es") if kind == "benches" else kind.removesuffix("s")


def _plugins(kind: Kind) -> dict[str, _Plugin]:
    if kind not in KINDS:
        raise UnknownNameError("kind of plugin", kind, KINDS)
    found: dict[str, _Plugin] = {}
    for plugin in (*_built_in(kind), *_from_entry_points(kind), *_from_files(kind)):
        if plugin.name in found:
            raise PluginError(
                f"Two plugins claim the {_singular(kind)} name '{plugin.name}': "
                f"{_owner(found[plugin.name])} and {_owner(plugin)}. Rename or remove one."
            )
        found[plugin.name] = plugin
    return found


def _owner(plugin: _Plugin) -> str:
    if plugin.file is None or str(plugin.file) == plugin.origin:
        return plugin.origin
    return f"{plugin.origin} ({plugin.file})"


def _built_in(kind: Kind) -> Iterator[_Plugin]:
    package_name = KINDS[kind]
    for folder in _package_folders(package_name):
        for module in pkgutil.iter_modules([str(folder)]):
            if module.ispkg or module.name.startswith("_"):
                continue
            file = folder / f"{module.name}.py"
            load_function = functools.partial(_load_from_module, f"{package_name}.{module.name}", module.name, file)
            yield _Plugin(kind, module.name, "built in", file, load_function)


def _from_entry_points(kind: Kind) -> Iterator[_Plugin]:
    for point in _entry_points(f"lalm_harness.{kind}", tuple(sys.path)):
        origin = point.dist.name if point.dist else point.module
        load_function = functools.partial(_load_from_entry_point, point, origin)
        yield _Plugin(kind, point.name, origin, _module_file(point.module), load_function)


@functools.lru_cache
def _entry_points(group: str, search_path: tuple[str, ...]) -> tuple[importlib.metadata.EntryPoint, ...]:
    """Those of the packages on a search path. Kept for the process, as finding them reads a file of every package: what
    is installed meanwhile is not seen."""
    return tuple(importlib.metadata.entry_points(group=group))


def _from_files(kind: Kind) -> Iterator[_Plugin]:
    for (file_kind, name), file in _added_files.items():
        if file_kind == kind:
            yield _Plugin(kind, name, str(file), file, functools.partial(_load_from_file, file))


def _package_folders(package_name: str) -> list[Path]:
    """Folders of a package of ours.

    Raises:
        PluginError: it does not lie beside `harness`; other projects also ship packages called `models` and `tasks`.
    """
    package = importlib.import_module(package_name)
    folders = [Path(folder).resolve() for folder in package.__path__]
    top = Path(harness.__file__).resolve().parents[1]
    expected = top.joinpath(*package_name.split("."))
    if folders != [expected]:
        taken_from = ", ".join(map(str, folders)) or "nowhere"
        raise PluginError(
            f"The package '{package_name}' was taken from {taken_from}, not from {expected}: "
            f"another '{package_name}' comes first on sys.path."
        )
    return folders


# --- plugin files ----------------------------------------------------------------------------------------------------


def add_plugin_file(path: Path | str) -> tuple[Kind, str]:
    """Make the plugin of one file known for the rest of this process. Imports nothing yet.

    The file defines a function named like the file; the annotation of what it returns tells its kind. Adding the
    same file again changes nothing.

    Returns:
        The plugin's kind and name.

    Raises:
        PluginError: there is no such file or function, or its kind cannot be told.
    """
    file = Path(path).resolve()
    name = file.stem
    if not file.is_file() or file.suffix != ".py":
        raise PluginError(f"No plugin file '{path}': it must be an existing .py file.")
    if not name.isidentifier() or name.startswith("_"):
        raise PluginError(f"'{file.name}' cannot be a plugin: its name must be a Python name without a leading '_'.")
    kind = _kind_of_file(file)
    earlier = _added_files.setdefault((kind, name), file)
    if earlier != file:
        raise PluginError(f"Two plugin files claim the {_singular(kind)} name '{name}': {earlier} and {file}.")
    return kind, name


def _kind_of_file(file: Path) -> Kind:
    function = _function_in(file)
    accepted = "ModelAdapter or TrainableModel for a model, Task, Scorer, float for a metric, Recipe, Benches"
    if function.returns is None:
        raise PluginError(
            f"The function '{file.stem}' in {file} does not say what it returns, so its kind cannot be told. "
            f"Annotate it: {accepted}."
        )
    kind = _KIND_BY_ANNOTATION.get(_annotation_name(function.returns))
    if kind is None:
        raise PluginError(
            f"The function '{file.stem}' in {file} returns '{ast.unparse(function.returns)}', "
            f"which is no kind of plugin. Annotate it: {accepted}."
        )
    return kind


def _function_in(file: Path) -> ast.FunctionDef:
    for node in _parse(file).body:
        if isinstance(node, ast.FunctionDef) and node.name == file.stem:
            return node
    raise PluginError(f"{file} defines no function '{file.stem}': a plugin's function is named like its file.")


def _annotation_name(annotation: ast.expr) -> str:
    """Last part of a dotted name: `contracts.Task`, `Task` and the text "Task" all give "Task"."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return annotation.value.rpartition(".")[2]
    if isinstance(annotation, ast.Attribute):
        return annotation.attr
    return annotation.id if isinstance(annotation, ast.Name) else ""


# --- importing -------------------------------------------------------------------------------------------------------


def _load_from_module(module_name: str, name: str, file: Path) -> object:
    return _named_function(_import(lambda: importlib.import_module(module_name), str(file)), name)


def _load_from_entry_point(point: importlib.metadata.EntryPoint, origin: str) -> object:
    loaded: object = _import(point.load, f"{origin} ({point.value})")
    return loaded


def _load_from_file(file: Path) -> object:
    module_name = f"lalm_harness_plugin_{file.stem}"
    module = sys.modules.get(module_name)
    if module is None or getattr(module, "__file__", None) != str(file):
        module = _import(functools.partial(_execute, module_name, file), str(file))
    return _named_function(module, file.stem)


def _execute(module_name: str, file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(module_name, file)
    if spec is None or spec.loader is None:
        raise PluginError(f"{file} cannot be loaded as Python.")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name while the file is still being executed.
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


def _import(load_it: Callable[[], Any], owner: str) -> Any:
    """Run an import; whatever the plugin's own code raises becomes one line that names the plugin."""
    try:
        return load_it()
    except HarnessError:
        raise
    except Exception as error:
        raise PluginError(f"The plugin {owner} cannot be imported: {type(error).__name__}: {error}") from error


def _named_function(module: ModuleType, name: str) -> object:
    function = getattr(module, name, None)
    if not inspect.isfunction(function):
        raise PluginError(
            f"{module.__file__} defines no function '{name}': a plugin's function is named like its file."
        )
    return function


# --- reading without importing ---------------------------------------------------------------------------------------


def _summary(name: str, file: Path | None) -> str:
    """First line of a module's docstring, without "`name`:" and its full stop; empty when there is none."""
    if file is None:
        return ""
    docstring = ast.get_docstring(_parse(file)) or ""
    return docstring.partition("\n")[0].removeprefix(f"`{name}`: ").rstrip(".")


def _parse(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_bytes(), filename=str(file))
    except (SyntaxError, ValueError) as error:
        raise PluginError(f"The plugin {file} is not valid Python: {error}") from error


def _module_file(module_name: str) -> Path | None:
    """Source file of a module, found without importing its parents (`importlib.util.find_spec` would)."""
    search: list[str] | None = None
    parts = module_name.split(".")
    for depth in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:depth]), search)
        if spec is None:
            return None
        search = list(spec.submodule_search_locations or [])
    return Path(spec.origin) if spec is not None and spec.origin and spec.origin.endswith(".py") else None


# --- fingerprint -----------------------------------------------------------------------------------------------------


def code_fingerprint() -> str:
    """Hash of all code that can change an answer or a score: a run resumes only under the same one.

    Covers the .py files of the three packages, the added plugin files, and name and version of each distribution
    that brings a plugin.
    """
    digest = hashlib.sha256()
    for label, content in (*_own_code(), *_added_code(), *_foreign_versions()):
        digest.update(f"{label}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _own_code() -> Iterator[tuple[str, bytes]]:
    top = Path(harness.__file__).resolve().parents[1]
    files = [file for package in _CODE_PACKAGES for file in (top / package).rglob("*.py")]
    for label, file in sorted((file.relative_to(top).as_posix(), file) for file in files):
        yield label, file.read_bytes()


def _added_code() -> Iterator[tuple[str, bytes]]:
    for (kind, name), file in sorted(_added_files.items()):
        yield f"{kind}:{name}", file.read_bytes()


def _foreign_versions() -> Iterator[tuple[str, bytes]]:
    points = (point for kind in KINDS for point in importlib.metadata.entry_points(group=f"lalm_harness.{kind}"))
    for name, version in sorted({(point.dist.name, point.dist.version) for point in points if point.dist}):
        yield f"distribution:{name}", version.encode()
