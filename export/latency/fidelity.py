"""How good the pictures of what is profiled are, on footage of known truth."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from distill.errors import InputError
from distill.networks.opening import opened

if TYPE_CHECKING:
    from distill.data import Clip
    from distill.metrics.evaluate import Evaluation
    from export.latency.row import Fidelity

__all__ = ["fidelities"]

log = logging.getLogger("distill")


def fidelities(sources: Sequence[str], data: Path) -> dict[str, Fidelity]:
    """How good each is on footage of known truth, and how it compares with PyTorch where the network is given too."""
    from distill.data import find_clips
    from export.formats import is_exported
    from export.latency.row import Fidelity

    clips = find_clips(data)
    found_of, references = {}, {}
    # networks first: a file is compared with the one that it was made of, if that is there
    for source in sorted(sources, key=lambda source: is_exported(Path(source))):
        found, origin = _evaluation(source, clips)
        if found is None:
            continue
        if not is_exported(Path(source)):
            references[origin] = found.psnr
        change = found.psnr - references[origin] if origin in references else None
        found_of[source] = Fidelity(found.psnr, change, found.table().splitlines()[-1])
    return found_of


def _evaluation(source: str, clips: Sequence[Clip]) -> tuple[Evaluation | None, str]:
    """None where a file of fixed size does not take the footage; and what tells the weights apart."""
    from distill.metrics.evaluate import evaluate
    from export.exported import ExportedNetwork
    from export.footage import FRAMES
    from export.interfaces import GIVEN_METADATA

    network, described = opened(source)
    # the metadata of a file are as_text() of what it was made of, and more
    facts = network.program.metadata if isinstance(network, ExportedNetwork) else described.as_text()
    origin = json.dumps([facts[name] for name in GIVEN_METADATA])
    try:
        found = evaluate(network, clips, degradation=described.degradation or "bi", scale=network.scale, frames=FRAMES)
    except InputError as error:
        log.warning("no quality of %s: %s", source, error)
        return None, origin
    return found, origin
