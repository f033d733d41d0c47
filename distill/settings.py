"""Settings from YAML files, key=value pairs and flags, as strict dataclasses."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from distill.errors import ConfigError, did_you_mean

__all__ = ["Layer", "complain", "flat", "read_settings", "read_yaml", "to_yaml"]


_Settings = TypeVar("_Settings")

Layer = tuple[str, Mapping[str, Any]]
"""Settings, after what to call them in errors."""


def read_settings(
    kind: type[_Settings],
    file: Path | None,
    settings: Iterable[str],
    flags: Mapping[str, Any],
    *,
    before: Layer | None = None,
    after: Layer | None = None,
) -> _Settings:
    """A dataclass of dataclasses: its defaults, then a YAML file, then "key.sub=value" settings, then flags.

    Args:
        kind: the dataclass; each leaf is a setting.
        file: a YAML file.
        settings: each "key.sub=value".
        flags: by dotted key; None is not given.
        before: settings that come before the file, with what to call it in errors.
        after: settings that win over all others, likewise.

    Raises:
        ConfigError: everything that is wrong, together, each with where it stands.
    """
    layers = [(where, flat(content)) for where, content in _layers(file, settings, flags, before, after)]
    known = _leaves(kind)
    values: dict[str, Any] = {}
    problems = []
    for where, given in layers:
        for key, value in given.items():
            leaf = key if key in known else key.rpartition(".")[0]
            if leaf not in known or (leaf != key and not _is_mapping(known[leaf])):
                problems.append(f"{where}: there is no key {key!r}.{did_you_mean(key, known)}")
                continue
            if key != leaf:
                values[leaf] = {**values.get(leaf, {}), key.rpartition(".")[2]: value}
                continue
            values[key], problem = _fit(value, known[key])
            if problem:
                problems.append(f"{where}: {key} is {value!r}, expected {problem}")
    complain(problems)
    built: _Settings = _build(kind, values, "")
    return built


def to_yaml(settings: Any) -> str:
    """A dataclass of settings as YAML, every default written out."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return {each.name: plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
        return list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value

    return yaml.safe_dump(plain(settings), sort_keys=False, allow_unicode=True)


def _layers(
    file: Path | None, settings: Iterable[str], flags: Mapping[str, Any], before: Layer | None, after: Layer | None
) -> Iterator[Layer]:
    """What was given, the weakest first."""
    if before is not None:
        yield before
    if file is not None:
        yield str(file), read_yaml(file)
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting} has no '='; expected key.sub=value.")
        yield f"--set {setting}", {key: _scalar(text, setting)}
    yield "the command line", {key: value for key, value in flags.items() if value is not None}
    if after is not None:
        yield after


def complain(problems: list[str]) -> None:
    """Raise all problems together, if there are any.

    Raises:
        ConfigError: there are.
    """
    if len(problems) == 1:
        raise ConfigError(problems[0].rstrip(".") + ".")
    if problems:
        raise ConfigError(
            f"{len(problems)} things are wrong: " + "; ".join(each.rstrip(".") for each in problems) + "."
        )


def read_yaml(file: Path) -> Mapping[str, Any]:
    """What a YAML file holds, keys with values.

    Raises:
        ConfigError: it cannot be read, or holds something else.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"The recipe {file} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"The recipe {file} is not YAML: {' '.join(str(error).split())}.") from error
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise ConfigError(f"The recipe {file} holds a {type(content).__name__}, expected keys with values.")
    return content


def _scalar(text: str, setting: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {setting}: {text!r} is not a YAML value.") from error


def flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys."""
    leaves: dict[str, Any] = {}
    for key, value in content.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            leaves |= flat(value, f"{dotted}.")
        else:
            leaves[dotted] = value
    return leaves


def _leaves(kind: type, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> type, for every setting."""
    leaves: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            leaves |= _leaves(typing.cast(type, hint), f"{prefix}{name}.")
        else:
            leaves[prefix + name] = hint
    return leaves


def _is_mapping(hint: Any) -> bool:
    return typing.get_origin(hint) is Mapping


def _fit(value: Any, hint: Any) -> tuple[Any, str]:
    """The value as the hint wants it, or what was expected."""
    origin, choices = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None, ""
        fitted, problem = _fit(value, next(each for each in choices if each is not type(None)))
        return fitted, problem and f"{problem} or null"
    if origin is Literal:
        return value, "" if value in choices else f"one of {', '.join(map(repr, choices))}"
    if origin is tuple:
        fits = isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)
        return (tuple(value), "") if fits else (value, "a list of names")
    if _is_mapping(hint):
        return value, "" if isinstance(value, Mapping) else "keys with values"
    if hint is float:
        return _fit_number(value)
    fits = isinstance(value, hint) and not (hint is int and isinstance(value, bool))
    return value, "" if fits else {int: "a whole number", str: "text", bool: "true or false"}[hint]


def _fit_number(value: Any) -> tuple[Any, str]:
    try:  # YAML reads 1e-4 as text
        return (float(value), "") if not isinstance(value, bool) else (value, "a number")
    except (TypeError, ValueError):
        return value, "a number"


def _build(kind: Any, values: Mapping[str, Any], prefix: str) -> Any:
    arguments = {}
    for name, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            arguments[name] = _build(hint, values, f"{prefix}{name}.")
        elif prefix + name in values:
            arguments[name] = values[prefix + name]
    return kind(**arguments)
