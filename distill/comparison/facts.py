"""What a comparison cost, in what its runs differ beside the method, and how to repeat it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch

from distill.comparison.results import Comparison, Run
from distill.errors import InputError
from distill.networks import checkpoint, registry
from distill.networks.checkpoint import Described
from distill.networks.costs import HEIGHT, WIDTH, multiply_accumulates

__all__ = ["Cost", "Reproduction", "costs", "reproduction"]

_COMPARED = ("teacher", "student", "distillation.", "data.unlabelled")
"""Keys of a recipe that a comparison is about; a method and its controls have the same student in any case."""
_OF_THE_RUN = ("training.seed", "training.device", "data.workers", "distillation.cache")
"""Keys that a fair comparison may differ in: they change neither what is learnt from nor for how long."""


@dataclass(frozen=True)
class Cost:
    """What one student costs, whatever taught it.

    Attributes:
        network: its name.
        keywords: that it was built with.
        methods: that trained it.
        parameters: of it.
        macs: multiply-accumulates of what it restores at a time, of 180x120 low-resolution pixels.
        minutes: method -> minutes of its runs, by their logs.
        devices: that the runs were trained on.
        size: of the low-resolution frame.
    """

    network: str
    keywords: Mapping[str, Any]
    methods: tuple[str, ...]
    parameters: int
    macs: int
    minutes: Mapping[str, tuple[float, ...]]
    devices: tuple[str, ...]
    size: str = f"{WIDTH}x{HEIGHT}"


@dataclass(frozen=True)
class Reproduction:
    """How to make the same again.

    Attributes:
        command: that made the folder.
        recipe: dotted key -> value, what all runs share.
        differences: key -> method -> value, what the comparison is about.
        unfair: key -> "method at seed" -> value, keys in which they should not.
        environment: versions and machine of the first run; what later runs had otherwise is joined by " / ".
    """

    command: str
    recipe: Mapping[str, Any]
    differences: Mapping[str, Mapping[str, Any]]
    unfair: Mapping[str, Mapping[str, Any]]
    environment: Mapping[str, str]


def costs(comparison: Comparison) -> list[Cost]:
    """Of every student, usually one; of those whose files can be read."""
    found: dict[tuple[str, str], tuple[Described, list[str]]] = {}
    for method in comparison.methods:
        run = comparison.runs[method, comparison.seeds_of(method)[0]]
        with suppress(InputError):
            described = checkpoint.read(run.path).described
            key = described.name, json.dumps(dict(described.keywords), sort_keys=True, default=str)
            found.setdefault(key, (described, []))[1].append(method)
    return [_cost(comparison, described, tuple(methods)) for described, methods in found.values()]


def _cost(comparison: Comparison, described: Described, methods: tuple[str, ...]) -> Cost:
    with torch.device("meta"):
        network = registry.find(described.name, typed=False).build(**described.keywords).eval()
    runs = {method: [run for (one, _), run in comparison.runs.items() if one == method] for method in methods}
    minutes = {method: tuple(run.minutes for run in found if run.minutes is not None) for method, found in runs.items()}
    devices = {_device(run) for found in runs.values() for run in found}
    parameters = sum(parameter.numel() for parameter in network.parameters())
    macs = multiply_accumulates(network)
    return Cost(described.name, dict(described.keywords), methods, parameters, macs, minutes, tuple(sorted(devices)))


def _device(run: Run) -> str:
    cuda = None if run.config.get("training.device") == "cpu" else run.environment.get("cuda")
    return str(cuda or run.environment.get("processor"))


def reproduction(comparison: Comparison) -> Reproduction:
    """Of the whole comparison."""
    runs = comparison.runs
    keys = list(dict.fromkeys(key for run in runs.values() for key in run.config))
    recipe: dict[str, Any] = {}
    differences: dict[str, dict[str, Any]] = {}
    unfair: dict[str, dict[str, Any]] = {}
    for key in keys:
        values = {name: run.config.get(key) for name, run in runs.items()}
        first = next(iter(values.values()))
        if all(value == first for value in values.values()):
            recipe[key] = first
        elif key in _OF_THE_RUN:
            continue
        elif key.startswith(_COMPARED) and _same_at_all_seeds(values):
            differences[key] = {method: value for (method, _), value in values.items()}
        else:
            unfair[key] = {f"{method} at seed {seed}": value for (method, seed), value in values.items()}
    environment: dict[str, str] = {}
    for key in dict.fromkeys(key for run in runs.values() for key in run.environment):
        found = dict.fromkeys(str(run.environment.get(key)) for run in runs.values())
        environment[key] = " / ".join(found)
    return Reproduction(comparison.command, recipe, differences, unfair, environment)


def _same_at_all_seeds(values: Mapping[tuple[str, int], Any]) -> bool:
    first: dict[str, Any] = {}
    return all(first.setdefault(method, value) == value for (method, _), value in values.items())
