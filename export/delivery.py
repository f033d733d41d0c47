"""One export from order to proven file: written, checked against PyTorch, judged against truth, put in its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distill.data import Clip
from export.artifact import Artifact, replacing_whole
from export.exported import ExportedNetwork
from export.footage import low_resolution_clips
from export.formats import Format, Order, export
from export.parity import Parity, parity
from export.quality import Quality, quality

__all__ = ["Delivery", "deliver", "file_name"]


@dataclass(frozen=True)
class Delivery:
    """An exported file and what is proven of it.

    Attributes:
        artifact: the file.
        parity: against PyTorch.
        quality: against truth, where the export is compressed.
        unit: what computed the exported side, as its runtime says.
        metadata: what the file says of itself.
    """

    artifact: Artifact
    parity: Parity
    quality: Quality | None
    unit: str
    metadata: dict[str, str]

    def text(self) -> str:
        """A line such as `onnx  fp32  ok  1.2 s  student.onnx (0.4 MB)  max|diff| 2e-06  116.9 dB`, and quality."""
        artifact, proof = self.artifact, self.parity
        line = (
            f"{artifact.format}  {artifact.precision}  ok  {artifact.seconds:.1f} s  {artifact.path} "
            f"({artifact.bytes / 1e6:.1f} MB)  max|diff| {proof.max_abs:.0e}  {proof.psnr_db:.1f} dB  ({self.unit})"
        )
        return line if self.quality is None else f"{line}\n{self.quality.table()}"

    def document(self) -> dict[str, Any]:
        """What json.dumps can write."""
        artifact = self.artifact
        return {
            "file": str(artifact.path),
            "format": artifact.format,
            "precision": artifact.precision,
            "bytes": artifact.bytes,
            "sha256": artifact.sha256,
            "seconds": artifact.seconds,
            "metadata": self.metadata,
            "unit": self.unit,
            "parity": self.parity.document(),
            "quality": None if self.quality is None else self.quality.document(),
        }


def file_name(stem: str, kind: Format, order: Order) -> str:
    """Such as `student-streaming-int8.onnx`: what is not the format's default is named."""
    parts = [stem]
    if order.streaming:
        parts.append("streaming")
    if order.precision != kind.precisions[0]:
        parts.append(order.precision)
    return "-".join(parts) + kind.suffix


def deliver(
    order: Order, kind: Format, target: Path, clips: Sequence[Clip], degradation: str, *, floor: float | None = None
) -> Delivery:
    """Write a file, prove it, and only then put it in its place.

    Args:
        order: what to export.
        kind: to what.
        target: where to; a file of that name is replaced.
        clips: high-resolution footage for the proof.
        degradation: that the network was trained on.
        floor: PSNR against PyTorch in dB that is demanded; None for the precision's own.

    Raises:
        ConfigError: the format has no such precision or sizes.
        InputError: the file cannot be written, or what the format needs is not installed.
        CheckFailed: the network cannot be expressed in the format, or the file computes something else.
    """
    scale = order.network.scale
    low = low_resolution_clips(clips, degradation, scale, order.sizes[0] if order.sizes else None)
    with replacing_whole(target) as unproven:
        artifact = export(order, kind, unproven)
        exported = ExportedNetwork(unproven, kind)
        proof = parity(order.network, exported, low, floor=floor)
        compressed = order.precision not in ("fp32", "fp16")
        judged = quality(order, kind, exported, clips, degradation) if compressed else None
        program = exported.program
    return Delivery(replace(artifact, path=target), proof, judged, program.unit_got, dict(program.metadata))
