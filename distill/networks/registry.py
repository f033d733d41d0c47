"""From the name of a network to the network, with a suggestion when nothing fits."""

from __future__ import annotations

import importlib
import inspect
import logging
import pkgutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from distill.errors import CheckpointError, ConfigError, did_you_mean
from distill.interfaces import Published, VideoNetwork, WindowNetwork

__all__ = ["PLUG_IN_GROUPS", "Entry", "Role", "entries", "find", "names", "recognise"]

Role = Literal["teacher", "student"]

PLUG_IN_GROUPS: Mapping[str, Role] = {"distill_vsr.teachers": "teacher", "distill_vsr.students": "student"}
"""Entry-point groups in which other packages name their networks, as `name = "package.module:Class"`."""

_OWN: Mapping[Role, str] = {"teacher": "teachers", "student": "students"}
# packages that stand above this one, and so are found by name at first use; each has `entries()`
_SPACE_TIME = "students.space_time:SpaceTime"

log = logging.getLogger("distill")


@dataclass(frozen=True)
class Entry:
    """A network that can be named on the command line.

    Attributes:
        name: as typed, or "package.module:Class" for a network from elsewhere.
        role: what it is made for; None for "package.module:Class", which may do either.
        network: its class.
        keywords: what the class is built with under this name.
        weights: a file that ships with this package or with an installed extra, if there is one.
        extra: the extra of this package that brings the weights, if one does.
        degradation: that the weights of the extra were trained on; files of ours say so themselves.
        aliases: other names, for what is meant by most who give a family's name.
        elsewhere: whether the class comes from another package, and so has whatever weights it gives itself.
    """

    name: str
    role: Role | None
    network: type[VideoNetwork]
    keywords: Mapping[str, Any]
    weights: Path | None = None
    extra: str | None = None
    degradation: str | None = None
    aliases: tuple[str, ...] = ()
    elsewhere: bool = False

    def build(self, **keywords: Any) -> VideoNetwork:
        """The network with fresh weights; `keywords` go before the entry's own.

        With `time_scale=2` a student of windows becomes one that doubles the frame rate, see `students.space_time`.

        Raises:
            ConfigError: the class does not take these keywords or refuses their values.
        """
        taken = inspect.signature(self.network).parameters
        time_scale = 1 if "time_scale" in taken else keywords.pop("time_scale", 1)
        network = self._built(keywords, taken)
        return network if time_scale == 1 else self._doubled(network, time_scale)

    def _built(self, keywords: Mapping[str, Any], taken: Mapping[str, inspect.Parameter]) -> VideoNetwork:
        open_ended = any(each.kind is each.VAR_KEYWORD for each in taken.values())
        if not open_ended and (unknown := [name for name in keywords if name not in taken]):
            hint = did_you_mean(unknown[0], taken)
            raise ConfigError(f"{self.name} takes no {unknown[0]!r}.{hint} It takes: {', '.join(taken) or 'nothing'}.")
        try:
            return self.network(**{**self.keywords, **keywords})
        except (TypeError, ValueError, RuntimeError, ArithmeticError, LookupError) as error:
            raise ConfigError(f"{self.name} cannot be built: {error}.") from error

    def _doubled(self, network: VideoNetwork, time_scale: Any) -> VideoNetwork:
        if time_scale != 2:
            raise ConfigError(
                f"time_scale is {time_scale!r}; a network keeps the frame rate with 1 or doubles it with 2."
            )
        if self.role == "teacher":
            raise ConfigError(f"{self.name} is a teacher, and time_scale=2 is for students; leave time_scale out.")
        if not isinstance(network, WindowNetwork) or network.scale == 1:
            why = "keeps the size of its frames" if network.scale == 1 else "sees no window of frames"
            raise ConfigError(
                f"{self.name} {why}, and time_scale=2 is for students that upscale frames in windows; take another one."
            )
        doubled: VideoNetwork = pkgutil.resolve_name(_SPACE_TIME)(network)
        return doubled


def entries() -> list[Entry]:
    """Every network known by name, teachers first, then what installed packages plug in."""
    return _own() + _plugged_in(tuple(sys.path))


def names() -> set[str]:
    """Every name that `find` knows, aliases too."""
    return {name for entry in entries() for name in (entry.name, *entry.aliases)}


def find(name: str, role: Role | None = None, *, typed: bool = True) -> Entry:
    """The entry called `name`, an alias of it, or "package.module:Class".

    Args:
        name: of a network.
        role: that it must be made for.
        typed: whether the user gave the name, who may mean a module in the folder they stand in. A file that names
            a class may only name what is installed, so that opening it runs nothing that lies about.

    Raises:
        ConfigError: nothing is called so, or it is made for another role.
    """
    module, colon, attribute = name.partition(":")
    if colon and attribute.isidentifier() and all(part.isidentifier() for part in module.split(".")):
        if typed and "" not in sys.path:
            sys.path.insert(0, "")  # a class beside the caller, as with `python -m`
        return Entry(name, None, _import_class(name), {}, elsewhere=True)
    all_of_them = entries()
    known = {name: entry for entry in all_of_them for name in (entry.name, *entry.aliases)}
    entry = known.get(name)
    of_role = [each for each in all_of_them if role in (None, each.role)]
    fitting = [alias for each in of_role for alias in each.aliases] + [each.name for each in of_role]
    if entry is None:
        what = role or "network"
        # every name helps a guess: somebody may have swapped teacher and student
        hint = did_you_mean(name, [*fitting, *known])
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
    for network, elsewhere in dict.fromkeys((entry.network, entry.elsewhere) for entry in entries()):
        try:
            published = network.recognise(state)
        except CheckpointError:
            raise
        except Exception as error:
            if not elsewhere:
                raise CheckpointError(
                    f"The tensors have the names of {network.__name__}'s, but not their shapes ({error})."
                ) from error
            log.warning("%s failed to look at the file and is passed over: %r", network.__name__, error)
            continue
        if published is not None:
            return published
    shown = ", ".join(list(state)[:3])
    known = ", ".join(dict.fromkeys(entry.network.__name__ for entry in entries()))
    raise CheckpointError(f"The tensors ({shown}, ...) are of no network known here; known are {known}.")


def _own() -> list[Entry]:
    return [entry for package in _OWN.values() for entry in importlib.import_module(package).entries()]


@lru_cache(maxsize=1)
def _plugged_in(_path: tuple[str, ...]) -> list[Entry]:
    """Networks that other installed packages name in the entry-point groups of `PLUG_IN_GROUPS`.

    One that cannot be used costs a warning, not the command. Looked for once for each state of `sys.path`.
    """
    taken = {name for entry in _own() for name in (entry.name, *entry.aliases)}
    found = []
    for group, role in PLUG_IN_GROUPS.items():
        for point in entry_points(group=group):
            try:
                network = _import_class(f"{point.module}:{point.attr}")
            except ConfigError as error:
                log.warning("the %s %r of an installed package is left out: %s", role, point.name, error)
                continue
            if point.name in taken:
                log.warning("the %s %r (%s) is left out: the name is taken", role, point.name, point.value)
                continue
            taken.add(point.name)
            found.append(Entry(point.name, role, network, {}, elsewhere=True))
    return found


def _import_class(name: str) -> type[VideoNetwork]:
    module_name, _, class_name = name.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except Exception as error:  # whatever code from elsewhere raises
        raise ConfigError(f"{name!r} cannot be imported: {error}.") from error
    if not (isinstance(found, type) and issubclass(found, VideoNetwork)):
        raise ConfigError(f"{name!r} is not a class derived from distill.interfaces.VideoNetwork.")
    return found
