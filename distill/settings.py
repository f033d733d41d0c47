"""YAML files, key=value pairs and flags as strict dataclasses: recipes, tables of devices, tables of comparisons."""

from __future__ import annotations

import dataclasses
import datetime as dt
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import yaml

from distill.errors import ConfigError, did_you_mean

__all__ = ["Checked", "Layer", "complain", "flat", "read_file", "read_settings", "read_yaml", "to_yaml"]

_Settings = TypeVar("_Settings")

Layer = tuple[str, Mapping[str, Any]]
"""Settings, after what to call them in errors."""


@runtime_checkable
class Checked(Protocol):
    """A dataclass that a file may hold and that asks for more than types."""

    def problems(self) -> Iterable[str]:
        """What is wrong with it, each a clause that begins with the field."""


def read_file(kind: type[_Settings], file: Path, what: str) -> _Settings:
    """A YAML file as a dataclass, of which a field without default must be there.

    Fields may be dataclasses, mappings and tuples of them; `Checked` ones are asked what is wrong with them.

    Args:
        kind: the dataclass.
        file: the file.
        what: it is called in errors, such as "recipe".

    Raises:
        ConfigError: it cannot be read; or everything that is wrong in it, together, each with where it stands.
    """
    problems: list[str] = []
    content: _Settings = _fit(read_yaml(file, what), kind, "", problems)
    complain(problems, f"The {what} {file}: ")
    return content


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
            unfit: list[str] = []
            values[key] = _fit(value, known[key], key, unfit)
            problems += [f"{where}: {each}" for each in unfit]
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


def complain(problems: list[str], where: str = "") -> None:
    """Raise all problems together, if there are any; `where` they stand comes before them.

    Raises:
        ConfigError: there are.
    """
    if len(problems) == 1:
        raise ConfigError(where + problems[0].rstrip(".") + ".")
    if problems:
        together = "; ".join(each.rstrip(".") for each in problems)
        raise ConfigError(f"{where}{len(problems)} things are wrong: {together}.")


def read_yaml(file: Path, what: str = "recipe") -> Mapping[str, Any]:
    """What a YAML file holds, keys with values; `what` it is called in errors.

    Raises:
        ConfigError: it cannot be read, or holds something else.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"The {what} {file} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"The {what} {file} is not YAML: {' '.join(str(error).split())}.") from error
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise ConfigError(f"The {what} {file} holds a {type(content).__name__}, expected keys with values.")
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


def _fit(value: Any, hint: Any, key: str, problems: list[str]) -> Any:
    """The value as the hint wants it; what does not fit is added to the problems, by its dotted key."""
    is_union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    choices = typing.get_args(hint) if is_union else (hint,)
    for choice in choices:
        if _is_like(value, choice):
            return _converted(value, choice, key, problems)
    expected = [_in_words(choice) for choice in choices]
    problems.append(f"{key} is {value!r}, expected {' or '.join(expected)}")
    return value


def _is_like(value: Any, hint: Any) -> bool:
    """Whether the value is what the hint wants, whatever it may hold."""
    origin = typing.get_origin(hint)
    if hint is Any:
        return True
    if origin is Literal:
        return value in typing.get_args(hint)
    if origin is tuple:
        return isinstance(value, list | tuple)
    if _is_mapping(hint) or dataclasses.is_dataclass(hint):
        return isinstance(value, Mapping)
    if hint is float:
        return _number(value) is not None
    if hint is str:
        return isinstance(value, str | dt.date)  # which is what YAML makes of a date
    return isinstance(value, hint) and not (hint is int and isinstance(value, bool))


def _converted(value: Any, hint: Any, key: str, problems: list[str]) -> Any:
    """A value that is like the hint, with all that it holds."""
    if dataclasses.is_dataclass(hint):
        return _record(value, typing.cast(type, hint), key, problems)
    if typing.get_origin(hint) is tuple:
        kind = typing.get_args(hint)[0]
        return tuple(_fit(each, kind, f"{key}[{place}]", problems) for place, each in enumerate(value))
    if _is_mapping(hint):
        kind = typing.get_args(hint)[1]
        return {str(name): _fit(each, kind, f"{key}.{name}", problems) for name, each in value.items()}
    if hint is float:
        return _number(value)
    return value.isoformat() if isinstance(value, dt.date) else value


def _in_words(hint: Any) -> str:
    """What a value of the hint is called."""
    if typing.get_origin(hint) is Literal:
        return f"one of {', '.join(map(repr, typing.get_args(hint)))}"
    if typing.get_origin(hint) is tuple:
        return "a list of names" if typing.get_args(hint)[0] is str else "a list"
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false", types.NoneType: "null"}
    return words.get(hint, "keys with values")


def _number(value: Any) -> float | None:
    try:  # YAML reads 1e-4 as text
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None


def _record(content: Mapping[str, Any], kind: type, key: str, problems: list[str]) -> Any:
    """The dataclass, or None where something is wrong with its fields."""
    prefix = f"{key}." if key else ""
    hints, before = typing.get_type_hints(kind), len(problems)
    for name in content:
        if name not in hints:
            hint = did_you_mean(f"{prefix}{name}", [prefix + known for known in hints])
            problems.append(f"there is no key {f'{prefix}{name}'!r}.{hint}")
    nothing = dataclasses.MISSING
    for field in dataclasses.fields(kind):
        if field.name not in content and field.default is nothing and field.default_factory is nothing:
            problems.append(f"the key {prefix + field.name!r} is missing")
    given = {
        name: _fit(content[name], hint, prefix + name, problems) for name, hint in hints.items() if name in content
    }
    if len(problems) > before:
        return None
    record = kind(**given)
    if isinstance(record, Checked):
        problems += [prefix + each for each in record.problems()]
    return record


def _build(kind: Any, values: Mapping[str, Any], prefix: str) -> Any:
    arguments = {}
    for name, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            arguments[name] = _build(hint, values, f"{prefix}{name}.")
        elif prefix + name in values:
            arguments[name] = values[prefix + name]
    return kind(**arguments)
