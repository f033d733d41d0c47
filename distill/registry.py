"""From the name of a network to the network, with a suggestion when nothing fits."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

import students
import teachers
from distill.errors import CheckpointError, ConfigError
from distill.interfaces import Published, VideoNetwork

__all__ = ["Entry", "Role", "did_you_mean", "entries", "find", "names", "recognise"]

Role = Literal["teacher", "student"]


@dataclass(frozen=True)
class Entry:
    """A network that can be named on the command line.

    Attributes:
        name: as typed, or "package.module:Class" for a network from elsewhere.
        role: what it is made for; None for one from elsewhere, which may do either.
        network: its class.
        keywords: what the class is built with under this name.
        weights: of the file that ships with this package, if one does.
    """

    name: str
    role: Role | None
    network: type[VideoNetwork]
    keywords: Mapping[str, Any]
    weights: Path | None = None

    def build(self, **keywords: Any) -> VideoNetwork:
        """The network with fresh weights; `keywords` go before the entry's own.

        Raises:
            ConfigError: the class does not take these keywords or refuses their values.
        """
        try:
            return self.network(**{**self.keywords, **keywords})
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{self.name} cannot be built: {error}.") from error


def entries() -> list[Entry]:
    """Every network known by name, teachers first."""
    heavy = [
        Entry(name, "teacher", network, keywords, teachers.shipped_weights(name))
        for name, (network, keywords) in teachers.NETWORKS.items()
    ]
    compact = [Entry(name, "student", network, keywords) for name, (network, keywords) in students.NETWORKS.items()]
    return heavy + compact


def names() -> set[str]:
    """Every name that `find` knows, aliases too."""
    return {entry.name for entry in entries()} | set(teachers.ALIASES)


def find(name: str, role: Role | None = None) -> Entry:
    """The entry called `name`, an alias of it, or "package.module:Class".

    Raises:
        ConfigError: nothing is called so, or it is made for another role.
    """
    module, colon, attribute = name.partition(":")
    if colon and attribute.isidentifier() and all(part.isidentifier() for part in module.split(".")):
        return Entry(name, None, _import_class(name), {})
    known = {entry.name: entry for entry in entries()}
    entry = known.get(teachers.ALIASES.get(name, name))
    fitting = [each.name for each in known.values() if role in (None, each.role)]
    if entry is None:
        what = role or "network"
        # every name helps a guess: somebody may have swapped teacher and student
        hint = did_you_mean(name, [*known, *teachers.ALIASES])
        raise ConfigError(f"There is no {what} {name!r}.{hint} Known: {', '.join(fitting)}.")
    if role is not None and entry.role != role:
        raise ConfigError(f"{name!r} is a {entry.role}, not a {role}; the {role}s are {', '.join(fitting)}.")
    return entry


def recognise(state: Mapping[str, Tensor]) -> Published:
    """Which network a published state_dict is of, in our terms.

    Args:
        state: tensors by published name, with or without the `module.` that DataParallel puts before each.

    Raises:
        CheckpointError: the names are of no network known here, or of a variant that is not built here.
    """
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    for network in dict.fromkeys(entry.network for entry in entries()):
        published = network.recognise(state)
        if published is not None:
            return published
    shown = ", ".join(list(state)[:3])
    known = ", ".join(dict.fromkeys(entry.network.__name__ for entry in entries()))
    raise CheckpointError(f"The tensors ({shown}, ...) are of no network known here; known are {known}.")


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """' Did you mean ...?' for the nearest known word, or nothing."""
    near = difflib.get_close_matches(given, list(known), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def _import_class(name: str) -> type[VideoNetwork]:
    module_name, _, class_name = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # a class beside the caller, as with `python -m`
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{name!r} cannot be imported: {error}.") from error
    if not (isinstance(found, type) and issubclass(found, VideoNetwork)):
        raise ConfigError(f"{name!r} is not a class derived from distill.interfaces.VideoNetwork.")
    return found
