"""One export from order to proven file: written, checked against PyTorch, judged against truth, put in its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from distill.data import Clip
from distill.files import replacing_whole
from export.delivery.parity import Parity, parity
from export.delivery.quality import Quality, quality
from export.exported import ExportedNetwork
from export.footage import FRAMES, low_resolution_clips, of_size
from export.formats import export
from export.interfaces import Artifact, Finding, Format, LayerCost, Order
from export.to_onnx.lint import lint
from export.to_onnx.sensitivity import sensitivity

__all__ = ["Delivery", "deliver", "file_name"]


_NAMED_LAYERS = 5  # of those that cost most


@dataclass(frozen=True)
class Delivery:
    """An exported file and what is proven of it.

    Attributes:
        artifact: the file.
        parity: against PyTorch.
        quality: against truth, where the export is compressed.
        unit: what computed the exported side, as its runtime says.
        metadata: what the file says of itself.
        findings: what phones would make of an ONNX graph.
        layers: of an 8-bit file, what each costs, the costliest first; empty unless asked for, or unless a clip lost
            more than is allowed.
    """

    artifact: Artifact
    parity: Parity
    quality: Quality | None
    unit: str
    metadata: dict[str, str]
    findings: Sequence[Finding] = ()
    layers: Sequence[LayerCost] = ()

    def text(self) -> str:
        """A line such as `onnx  fp32  ok  1.2 s  student.onnx (0.4 MB)  max|diff| 2e-06  116.9 dB`, and more lines."""
        artifact, proof = self.artifact, self.parity
        lines = [
            f"{artifact.format}  {artifact.precision}  ok  {artifact.seconds:.1f} s  {artifact.path} "
            f"({artifact.bytes / 1e6:.1f} MB)  max|diff| {proof.max_abs:.0e}  {proof.psnr_db:.1f} dB  ({self.unit})"
        ]
        if self.quality is not None:
            lines.append(self.quality.table())
        lines += [f"phones: {each.severity}: {each.operator} x{each.count}: {each.advice}" for each in self.findings]
        lines += [f"{each.layer}  {each.gain_db:+.2f} dB if it stays in float" for each in self.layers]
        return "\n".join(lines)

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
            "findings": [asdict(each) for each in self.findings],
            "layers": [asdict(each) for each in self.layers],
        }


def file_name(stem: str, kind: Format, order: Order) -> str:
    """Such as `student-180x120-streaming-int8.onnx`: what is not the format's default is named."""
    parts = [stem, *(f"{width}x{height}" for height, width in order.sizes)]
    if order.images:
        parts.append("images")
    if order.streaming:
        parts.append("streaming")
    if order.precision != kind.precisions[0]:
        parts.append(order.precision)
    return "-".join(parts) + kind.suffix


def deliver(
    order: Order,
    kind: Format,
    target: Path,
    clips: Sequence[Clip],
    degradation: str,
    *,
    floor: float | None = None,
    all_layers: bool = False,
    frames: int = FRAMES,
) -> Delivery:
    """Write a file, prove it, and only then put it in its place.

    Args:
        order: what to export.
        kind: to what.
        target: where to; a file of that name is replaced.
        clips: high-resolution footage for the proof.
        degradation: that the network was trained on.
        floor: PSNR against PyTorch in dB that is demanded; None for the precision's own.
        frames: of each clip that quality is measured on, at most.
        all_layers: tell what each layer of an 8-bit ONNX file costs, whatever it lost.

    Raises:
        ConfigError: the format has no such precision or sizes.
        InputError: the file cannot be written, or what the format needs is not installed.
        CheckFailed: the network cannot be expressed in the format, or the file computes something else.
    """
    scale = order.network.scale
    low = low_resolution_clips(clips, degradation, scale)
    fitted = [of_size(clip, size) for size in order.sizes for clip in low] or low
    with replacing_whole(target, is_folder=kind.is_folder) as unproven:
        artifact = export(order, kind, unproven)
        exported = ExportedNetwork(kind.open(unproven), unproven)
        proof = parity(order.network, exported, fitted, floor=floor)
        compressed = order.precision not in ("fp32", "fp16")
        judged = quality(order, kind, exported, clips, degradation, frames) if compressed else None
        facts, unit = dict(exported.program.metadata), exported.program.unit_got
        findings = lint(unproven) if kind.name == "onnx" else ()
        layers: Sequence[LayerCost] = ()
        if kind.name == "onnx" and order.precision == "int8" and (all_layers or (judged and not judged.within)):
            layers = sensitivity(order)[: None if all_layers else _NAMED_LAYERS]
    return Delivery(replace(artifact, path=target), proof, judged, unit, facts, findings, layers)
