"""What compression costs in quality: a file and its network against truth, clip by clip."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distill.data import Clip
from distill.errors import DataError
from distill.metrics.evaluate import Evaluation, evaluate
from export.exported import ALLOWED_LOSS_DB, ExportedNetwork
from export.footage import FRAMES
from export.formats import export
from export.interfaces import Format, Order

__all__ = ["Quality", "quality"]


@dataclass(frozen=True)
class Quality:
    """PSNR and SSIM against truth.

    Attributes:
        before: of the PyTorch network.
        after: of the exported file, or of its twin for the clips' size.
        twin: whether a twin was measured: a file of the same weights made for the clips' size, where the exported
            one is fixed to another.
    """

    before: Evaluation
    after: Evaluation
    twin: bool

    @property
    def losses(self) -> dict[str, float]:
        """PSNR in dB lost, by clip; negative where the file is nearer to truth."""
        return {name: score.psnr - self.after.clips[name].psnr for name, score in self.before.clips.items()}

    @property
    def within(self) -> bool:
        """No clip loses more than `ALLOWED_LOSS_DB`."""
        return all(loss <= ALLOWED_LOSS_DB for loss in self.losses.values())

    def document(self) -> dict[str, Any]:
        """What json.dumps can write."""
        figures = {"before": self.before.to_json(), "after": self.after.to_json(), "lost_psnr_db": self.losses}
        return figures | {"within_0.1_db": self.within, "twin": self.twin}

    def table(self) -> str:
        """Lines for people, a clip each, then the convention."""
        wide = max(len(name) for name in self.losses)
        lines = [f"{'clip':<{wide}}  PyTorch dB    SSIM   file dB    SSIM    lost dB"]
        for name, loss in self.losses.items():
            before, after = self.before.clips[name], self.after.clips[name]
            mark = "  MORE THAN 0.1" if loss > ALLOWED_LOSS_DB else ""
            lines.append(
                f"{name:<{wide}}  {before.psnr:>10.3f}  {before.ssim:>6.4f}  {after.psnr:>8.3f}  {after.ssim:>6.4f}  "
                f"{loss:>9.3f}{mark}"
            )
        twin = "; of a twin of the file made for the clips' size" if self.twin else ""
        return "\n".join([*lines, f"({self.before.convention_sentence}{twin})"])


def quality(
    order: Order,
    kind: Format,
    exported: ExportedNetwork,
    clips: Sequence[Clip],
    degradation: str,
    frames: int = FRAMES,
) -> Quality:
    """Measure both on the first frames of each clip, degraded.

    A file that is fixed to a size other than the clips' is measured by a twin. Where the format has one size a file,
    only the clips of the first clip's size count.

    Args:
        order: what the file was made of.
        kind: its format.
        exported: the file.
        clips: high-resolution clips of known truth.
        degradation: a name that `distill.data.degrade` knows.
        frames: of each clip, at most.

    Raises:
        DataError: there is no clip.
    """
    if not clips:
        raise DataError("There is no clip to measure quality on; give footage with --data.")
    scale = order.network.scale
    sizes = {clip.name: (clip.size[0] // scale, clip.size[1] // scale) for clip in clips}
    first = sizes[clips[0].name]
    if exported.sizes:
        clips = [clip for clip in clips if sizes[clip.name] == first]

    def measured(network: Any) -> Evaluation:
        return evaluate(network, clips, degradation=degradation, scale=scale, frames=frames)

    before = measured(order.network)
    if not exported.sizes or first in exported.sizes:
        return Quality(before, measured(exported), twin=False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"twin{kind.suffix}"
        export(replace(order, sizes=(first,)), kind, path)
        return Quality(before, measured(ExportedNetwork(kind.open(path), path)), twin=True)
