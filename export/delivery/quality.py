"""What compression costs in quality: a file and its network against truth, clip by clip."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from distill.data import Clip
from distill.errors import DataError
from distill.interfaces import SlidingNetwork, VideoNetwork
from distill.metrics.evaluate import Evaluation, evaluate
from export.exported import ALLOWED_LOSS_DB, ExportedNetwork
from export.footage import FRAMES, low_resolution_clips
from export.formats import export
from export.interfaces import Format, Order

__all__ = ["CompressionLoss", "Reference", "measure_loss"]


@dataclass(frozen=True)
class CompressionLoss:
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


class Reference:
    """The PyTorch network on footage of known truth, evaluated once for all files that are compared with it.

    Args:
        network: what is exported.
        clips: high-resolution clips of known truth.
        degradation: that the network was trained on, a name that `distill.data.degrade` knows.
        frames: of each clip that are measured, at most.

    Raises:
        DataError: there is no clip.
    """

    def __init__(self, network: SlidingNetwork, clips: Sequence[Clip], degradation: str, frames: int = FRAMES) -> None:
        if not clips:
            raise DataError("There is no clip to measure quality on; give footage with --data.")
        self.network = network
        self._clips, self._degradation, self._frames = clips, degradation, frames
        self._evaluations: dict[bool, Evaluation] = {}

    @cached_property
    def low_resolution(self) -> list[Tensor]:
        """Frames of the first clips, degraded: (T, 3, h, w) each, RGB in [0, 1]."""
        return low_resolution_clips(self._clips, self._degradation, self.network.scale)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the first clip in low resolution."""
        return self._size(self._clips[0])

    def evaluation(self, *, one_size: bool) -> Evaluation:
        """The network's.

        Args:
            one_size: on the clips of the first clip's size alone.
        """
        if one_size not in self._evaluations:
            self._evaluations[one_size] = self.evaluate(self.network, one_size=one_size)
        return self._evaluations[one_size]

    def evaluate(self, network: VideoNetwork, *, one_size: bool) -> Evaluation:
        """Another network's, on the same frames."""
        clips = [clip for clip in self._clips if not one_size or self._size(clip) == self.size]
        return evaluate(network, clips, degradation=self._degradation, scale=self.network.scale, frames=self._frames)

    def _size(self, clip: Clip) -> tuple[int, int]:
        height, width = clip.size
        return height // self.network.scale, width // self.network.scale


def measure_loss(order: Order, kind: Format, exported: ExportedNetwork, reference: Reference) -> CompressionLoss:
    """Measure a file and its network on the first frames of each clip, degraded.

    A file that is fixed to a size other than the clips' is measured by a twin. Where the format has one size a file,
    only the clips of the first clip's size count.

    Args:
        order: what the file was made of.
        kind: its format.
        exported: the file.
        reference: the network, and the clips.
    """
    one_size = bool(exported.sizes)
    before = reference.evaluation(one_size=one_size)
    if not one_size or reference.size in exported.sizes:
        return CompressionLoss(before, reference.evaluate(exported, one_size=one_size), twin=False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"twin{kind.suffix}"
        export(replace(order, sizes=(reference.size,)), kind, path)
        twin = ExportedNetwork(kind.open(path), path)
        return CompressionLoss(before, reference.evaluate(twin, one_size=one_size), twin=True)
