"""How good the pictures of what is profiled are, on footage of known truth."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from distill.data import Clip, find_clips
from distill.errors import InputError
from distill.interfaces import SlidingNetwork, VideoNetwork
from distill.metrics.evaluate import Evaluation, evaluate
from export.exported import ALLOWED_LOSS_DB, ExportedNetwork
from export.footage import FRAMES, low_resolution_clips
from export.formats import format_of
from export.interfaces import GIVEN_METADATA, Order
from export.latency.row import Fidelity

__all__ = ["Judged", "fidelities"]

log = logging.getLogger("distill")

_BLAMED = 3  # layers at most
_CALIBRATED = 3  # clips at most, as an export is calibrated on


@dataclass(frozen=True)
class Judged:
    """A network, or an exported file as one.

    Attributes:
        network: it.
        facts: what it says of itself, `GIVEN_METADATA` at least.
    """

    network: VideoNetwork
    facts: Mapping[str, str]

    @property
    def origin(self) -> str:
        """Tells weights apart: a file's is that of the network that it was made of."""
        return json.dumps([self.facts[name] for name in GIVEN_METADATA])

    @property
    def degradation(self) -> str:
        """That it was trained on, bicubic where it does not say."""
        return "bi" if self.facts["degradation"] == "unknown" else self.facts["degradation"]


def fidelities(judged: Mapping[str, Judged], data: Path) -> dict[str, Fidelity]:
    """How good each is on footage of known truth, by the names given, without those that do not take the footage.

    Files are compared with the network that they were made of, where that is given too; of a compressed file
    that lost more than is allowed, the layers that cost most are named where its format tells.

    Args:
        judged: networks and files.
        data: a folder of clips, as `distill.data.find_clips` takes it.
    """
    clips = find_clips(data)
    found_of: dict[str, Fidelity] = {}
    references: dict[str, tuple[VideoNetwork, float]] = {}
    # networks first: a file is compared with one of them
    for source, each in sorted(judged.items(), key=lambda item: isinstance(item[1].network, ExportedNetwork)):
        found = _evaluation(source, each, clips)
        if found is None:
            continue
        if not isinstance(each.network, ExportedNetwork):
            references[each.origin] = each.network, found.psnr
        reference, psnr = references.get(each.origin, (None, None))
        change = None if psnr is None else found.psnr - psnr
        fidelity = Fidelity(found.psnr, change, found.convention_sentence)
        if fidelity.lossy and isinstance(reference, SlidingNetwork):
            fidelity = replace(fidelity, blamed=_blamed(source, each, reference, clips))
        found_of[source] = fidelity
    return found_of


def _evaluation(source: str, judged: Judged, clips: Sequence[Clip]) -> Evaluation | None:
    """None where a file of fixed size does not take the footage."""
    network = judged.network
    if not isinstance(network, ExportedNetwork):
        network = copy.deepcopy(
            network
        )  # evaluation changes how its weights lie in memory, and it is still to be timed
    try:
        return evaluate(network, clips, degradation=judged.degradation, scale=network.scale, frames=FRAMES)
    except InputError as error:
        log.warning("no quality of %s: %s", source, error)
        return None


def _blamed(source: str, judged: Judged, reference: SlidingNetwork, clips: Sequence[Clip]) -> tuple[str, ...]:
    """The costliest layers of the network in 8 bits as the file is, calibrated on the footage that it lost on."""
    file = judged.network
    if not isinstance(file, ExportedNetwork):
        return ()
    kind, precision = format_of(file.path), judged.facts["precision"]
    if precision not in kind.calibrated:
        return ()
    log.info(
        "%s lost more than %g dB; what its layers cost is measured where its format tells", source, ALLOWED_LOSS_DB
    )
    order = Order(
        reference,
        {name: judged.facts[name] for name in GIVEN_METADATA},
        precision=precision,
        streaming=file.streaming,
        sizes=tuple((height, width) for height, width in file.sizes),
        clips=low_resolution_clips(clips, judged.degradation, reference.scale, count=_CALIBRATED),
    )
    costs = [cost for cost in kind.layer_costs(order, lossy=True)[:_BLAMED] if cost.gain_db > 0]
    return tuple(f"{cost.layer} ({cost.gain_db:+.2f} dB if it stays in float)" for cost in costs)
