"""Options of a plugin are the parameters of its function: texts become values by the parameters' annotations."""

from __future__ import annotations

import difflib
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union

from harness.contracts import OptionValue
from harness.errors import OptionError, PluginError

_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")
_OPTION_KINDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True)
class ResolvedOptions:
    """Arguments to call the function with, and the same as plain values for the record; defaults included.

    `changed` are the recorded values that differ from their defaults, or have none.
    """

    arguments: Mapping[str, Any]
    recorded: Mapping[str, OptionValue]
    changed: Mapping[str, OptionValue]


def resolve_options(
    function: Callable[..., Any], given: Mapping[str, object], owner: str, *, skip_first: bool = False
) -> ResolvedOptions:
    """Convert the given options by the function's annotations, and fill in its defaults.

    Args:
        function: The plugin's function.
        given: Texts from the command line, or values from Python that already have the right type.
        owner: How messages call the plugin, such as "model 'ssalm'".
        skip_first: The first parameter is data and no option, as in a metric.

    Raises:
        OptionError: an option is unknown, missing, or has a value it cannot take.
        PluginError: a parameter's annotation is missing or of a kind that no text converts to.
    """
    parameters = _option_parameters(function, skip_first)
    _refuse_unknown(given, parameters, owner)
    arguments: dict[str, Any] = {}
    for name, parameter in parameters.items():
        if name in given:
            arguments[name] = _convert(given[name], _hint(function, parameter, owner), name, owner)
        elif parameter.default is inspect.Parameter.empty:
            raise OptionError(f"The {owner} needs the option '{name}': give it as {name}=VALUE.")
        else:
            arguments[name] = parameter.default
    recorded = {name: _plain(value) for name, value in arguments.items()}
    changed = {name: recorded[name] for name, value in arguments.items() if value != parameters[name].default}
    return ResolvedOptions(arguments, recorded, changed)


def _option_parameters(function: Callable[..., Any], skip_first: bool) -> dict[str, inspect.Parameter]:
    parameters = list(inspect.signature(function).parameters.values())
    return {p.name: p for p in parameters[1 if skip_first else 0 :] if p.kind in _OPTION_KINDS}


def _refuse_unknown(given: Iterable[str], known: Iterable[str], owner: str) -> None:
    known = list(known)
    for name in given:
        if name not in known:
            available = f"Options: {', '.join(known)}." if known else "It has none."
            raise OptionError(f"The {owner} has no option '{name}'.{_near(name, known)} {available}")


def _near(text: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(text, list(known), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(near)}?" if near else ""


def _hint(function: Callable[..., Any], parameter: inspect.Parameter, owner: str) -> Any:
    """A parameter's type. Only this one annotation is evaluated: others may name types that need heavy imports."""
    if parameter.annotation is inspect.Parameter.empty:
        raise PluginError(f"The option '{parameter.name}' of the {owner} has no type annotation.")
    holder = types.SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    namespace = getattr(inspect.unwrap(function), "__globals__", {})
    try:
        return typing.get_type_hints(holder, namespace)[parameter.name]
    except NameError as error:
        raise PluginError(f"The type of the option '{parameter.name}' of the {owner} is unknown: {error}.") from error


def _convert(value: object, hint: Any, name: str, owner: str) -> Any:
    try:
        return _to_type(value, hint)
    except _UnsupportedType:
        raise PluginError(
            f"The option '{name}' of the {owner} has the type {hint}; "
            "options can be str, int, float, bool, Path, Literal, or one of these or None."
        ) from None
    except ValueError:
        accepted = _accepted(hint)
        near = _near(value, accepted) if isinstance(value, str) else ""
        raise OptionError(
            f"The option '{name}' of the {owner} cannot be {value!r}.{near} Accepted: {', '.join(accepted)}."
        ) from None


class _UnsupportedType(Exception):
    """A parameter's type that no text converts to."""


def _to_type(value: object, hint: Any) -> Any:
    """The value as that type.

    Raises:
        ValueError: it is not one of that type.
    """
    origin = typing.get_origin(hint)
    if origin is Literal:
        return _to_choice(value, typing.get_args(hint))
    if origin in (Union, types.UnionType):
        return _to_first(value, typing.get_args(hint))
    converters: dict[Any, Callable[[object], Any]] = {
        str: _to_str,
        int: _to_int,
        float: _to_float,
        bool: _to_bool,
        Path: _to_path,
        type(None): _to_none,
    }
    if hint not in converters:
        raise _UnsupportedType
    return converters[hint](value)


def _to_choice(value: object, choices: tuple[Any, ...]) -> Any:
    for choice in choices:
        same_type = type(value) is type(choice)
        if (same_type and value == choice) or (isinstance(value, str) and value == str(choice)):
            return choice
    raise ValueError


def _to_first(value: object, members: tuple[Any, ...]) -> Any:
    # Any text is a str, so str gets its turn last.
    for member in sorted(members, key=lambda member: member in (str, Path)):
        try:
            return _to_type(value, member)
        except ValueError:
            continue
    raise ValueError


def _to_str(value: object) -> str:
    if isinstance(value, str):
        return value
    raise ValueError


def _to_int(value: object) -> int:
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return int(value)
    raise ValueError


def _to_float(value: object) -> float:
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        number = float(value)
        # No option means anything by these, and no record can hold them.
        if math.isfinite(number):
            return number
    raise ValueError


def _to_bool(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _TRUE + _FALSE:
        return value.lower() in _TRUE
    raise ValueError


def _to_path(value: object) -> Path:
    if isinstance(value, str | Path) and str(value):
        return Path(value)
    raise ValueError


def _to_none(value: object) -> None:
    if value is None or (isinstance(value, str) and value.lower() == "none"):
        return None
    raise ValueError


def _accepted(hint: Any) -> list[str]:
    """What to tell a user that an option takes."""
    origin = typing.get_origin(hint)
    if origin is Literal:
        return [str(choice) for choice in typing.get_args(hint)]
    if origin in (Union, types.UnionType):
        return [text for member in typing.get_args(hint) for text in _accepted(member)]
    words = {
        str: "a text",
        int: "a whole number",
        float: "a finite number",
        bool: "true or false",
        Path: "a path",
        type(None): "none",
    }
    return [words[hint]]


def _plain(value: Any) -> OptionValue:
    return value if isinstance(value, str | int | float | bool | None) else str(value)
