"""The terms of the loss by name, and the methods that are made of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from distill.errors import ConfigError, did_you_mean
from distill.losses.affinity import Affinity
from distill.losses.attention import AttentionMax, AttentionSum, Space
from distill.losses.attention_transfer import AttentionTransfer
from distill.losses.charbonnier import Output
from distill.losses.consistency import Consistency
from distill.losses.fitnet import FitNet
from distill.losses.frequency import Frequency
from distill.losses.intermediate import Intermediate
from distill.losses.mean_map import Mean
from distill.losses.memory import Time
from distill.losses.motion import Motion
from distill.losses.perceptual import Perceptual
from distill.losses.star import StarFlow, StarSpace, StarSpaceTime, StarTime
from distill.losses.temporal_difference import Temporal
from distill.losses.term import Term

__all__ = ["METHODS", "TERMS", "Method", "method_facts", "method_named", "method_table", "resolve"]

TERMS: Mapping[str, type[Term]] = {
    each.name: each
    for each in (
        Output,
        Space,
        AttentionSum,
        AttentionMax,
        Time,
        FitNet,
        Mean,
        AttentionTransfer,
        Affinity,
        Frequency,
        Temporal,
        Motion,
        Consistency,
        StarSpace,
        StarTime,
        StarSpaceTime,
        StarFlow,
        Intermediate,
        Perceptual,
    )
}
"""Every term by its name."""


@dataclass(frozen=True)
class Method:
    """A composition of terms.

    Attributes:
        summary: one line for people.
        weights: of the terms, for short recipes; a recipe may change them.
        features: what is compared, unless the recipe says: "hr" is F^SR, "lr" F^LR, "auto" F^SR where both networks
            have it.
        truth: weight of the reconstruction loss after the warm-up, unless the recipe says.
    """

    summary: str
    weights: Mapping[str, float] = field(default_factory=dict)
    features: Literal["auto", "hr", "lr"] = "auto"
    truth: float = 1.0


_SPACE_TIME = {"space": 0.1, "time": 10.0}  # the paper's ratio, 1 to 100, at a tenth of its size

METHODS: Mapping[str, Method] = {
    "none": Method("the student alone: the control of every method"),
    "output": Method("the teacher's frames (Charbonnier)", {"output": 1.0}),
    "std": Method("space-time distillation (STD Eq. 9)", _SPACE_TIME),
    "std-lr": Method("space-time distillation of F^LR (STD Table 4)", _SPACE_TIME, "lr"),
    "space": Method("attention maps alone (STD Eqs. 2, 5)", {"space": 0.1}),
    "time": Method("temporal memories alone (STD Eqs. 6, 7)", {"time": 10.0}),
    "attention-sum": Method("attention maps as sums of |F| (STD Eq. 1)", {"attention-sum": 0.002}),
    "attention-max": Method("attention maps as the largest F^2 (STD Eq. 3)", {"attention-max": 0.2}),
    "output+std": Method("the teacher's frames and space-time", {"output": 1.0, **_SPACE_TIME}),
    "fitnet": Method("the features themselves (KD-MSE of STD Table 3)", {"fitnet": 1.0}),
    "fitnet-lr": Method("the features themselves, F^LR (STD Table 4)", {"fitnet": 0.5}, "lr"),
    "mean": Method("the squared mean of F^LR over channels (KD-M^2_mean of STD Table 3)", {"mean": 25_000.0}),
    "attention-transfer": Method("normalised attention maps (Zagoruyko and Komodakis)", {"attention-transfer": 0.005}),
    "affinity": Method("which places of a frame look alike (FAKD)", {"affinity": 0.015}),
    "frequency": Method("the spectra of the teacher's frames", {"frequency": 0.5}),
    "temporal": Method("how the teacher's frames change along the motion", {"temporal": 0.5}),
    "motion": Method("motion consistency (STINet Eqs. 2, 3)", {"motion": 0.01}),
    "consistency": Method("space-then-time agrees with time-then-space (Lin et al. Eq. 7)", {"consistency": 0.1}),
    "perceptual": Method("features of VGG (STARnet Eq. 13)", {"perceptual": 0.001}),
    "stinet": Method("STINet's own objective (Eq. 4) without l_per", {"intermediate": 1.0, "motion": 0.01}),
    "star": Method(
        "STARnet: space, time and both", {"star-space": 1.0, "star-time": 1.0, "star-space-time": 1.0}, truth=0
    ),
    "star-st": Method(
        "STARnet fine-tuned for all high-resolution frames", {"star-space": 1.0, "star-space-time": 1.0}, truth=0
    ),
    "star-s": Method("STARnet fine-tuned for the given frames", {"star-space": 1.0}, truth=0),
    "star-t": Method("STARnet fine-tuned for low-resolution frames between", {"star-time": 1.0}, truth=0),
}
"""Every method by its name."""


def method_named(name: str) -> Method:
    """The method of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in METHODS:
        raise ConfigError(
            f"There is no method {name!r}.{did_you_mean(name, METHODS)} The methods are {', '.join(METHODS)}; compose "
            "others by distillation.weights."
        )
    return METHODS[name]


def resolve(
    name: str,
    weights: Mapping[str, Any],
    *,
    truth: float | None = None,
    features: Literal["auto", "hr", "lr"] | None = None,
) -> Method:
    """The method of that name with a recipe's changes applied; terms of weight 0 are left out.

    Args:
        name: of the method.
        weights: term -> weight instead of the method's, or beside them.
        truth: instead of the method's; None leaves it.
        features: likewise.

    Raises:
        ConfigError: there is no such method or term, or a weight is no number from 0 up.
    """
    method = method_named(name)
    return replace(
        method,
        weights=_changed(method.weights, weights),
        truth=method.truth if truth is None else truth,
        features=method.features if features is None else features,
    )


def _changed(weights: Mapping[str, float], changes: Mapping[str, Any]) -> dict[str, float]:
    """Term -> weight, those that are not 0."""
    problems = []
    merged = dict(weights)
    for term, weight in changes.items():
        if term not in TERMS:
            problems.append(f"distillation.weights has no term {term!r}.{did_you_mean(term, TERMS)}")
            continue
        try:  # YAML reads 1e-4 as text
            merged[term] = math.nan if isinstance(weight, bool) else float(weight)
        except (TypeError, ValueError):
            merged[term] = math.nan
        if not 0 <= merged[term] < math.inf:
            problems.append(f"distillation.weights.{term} is {weight!r}, expected a number from 0 up.")
    if problems:
        raise ConfigError(" ".join(problems))
    return {term: weight for term, weight in merged.items() if weight}


def method_facts() -> list[dict[str, object]]:
    """Every method as JSON."""
    return [
        {
            "name": name,
            "summary": each.summary,
            "weights": dict(each.weights),
            "features": each.features,
            "truth": each.truth,
        }
        for name, each in METHODS.items()
    ]


def method_table() -> str:
    """Lines for people."""
    lines = []
    for name, each in METHODS.items():
        terms = ", ".join(f"{term} {weight:g}" for term, weight in each.weights.items()) or "-"
        terms += "" if each.truth == 1 else f", truth {each.truth:g}"
        lines.append(f"{name:<20} {terms:<36} {each.summary}")
    return "\n".join(lines)
