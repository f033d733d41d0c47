"""One export from order to proven file: written, checked against PyTorch, judged against truth, put in its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from distill.files import replacing_whole
from export.delivery.parity import Parity, check_parity
from export.delivery.quality import CompressionLoss, Reference, measure_loss
from export.exported import ExportedNetwork
from export.footage import of_size
from export.formats import export
from export.interfaces import Artifact, Finding, Format, LayerCost, Order

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
        findings: what phones would make of it.
        layers: what each costs in a compressed file, the costliest first; empty where that is neither wanted nor known,
            and unless a clip lost more than is allowed.
    """

    artifact: Artifact
    parity: Parity
    quality: CompressionLoss | None
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
    parts = [stem, *(f"{width}x{height}" for height, width in order.sizes), *kind.name_parts(order)]
    if order.streaming:
        parts.append("streaming")
    if order.precision != kind.precisions[0]:
        parts.append(order.precision)
    return "-".join(parts) + kind.suffix


def deliver(order: Order, kind: Format, target: Path, reference: Reference, *, floor: float | None = None) -> Delivery:
    """Write a file, prove it, and only then put it in its place, and what goes with it beside it.

    Args:
        order: what to export.
        kind: to what.
        target: where to; a file of that name is replaced.
        reference: the order's network, and footage for the proof.
        floor: PSNR against PyTorch in dB that is demanded; None for the precision's own.

    Raises:
        ConfigError: the format has no such precision or sizes.
        InputError: the file cannot be written, or what the format needs is not installed.
        CheckFailed: the network cannot be expressed in the format, or the file computes something else.
    """
    low = reference.low_resolution
    fitted = [of_size(clip, size) for size in order.sizes for clip in low] or low
    with replacing_whole(target, is_folder=kind.is_folder) as unproven:
        artifact = export(order, kind, unproven)
        exported = ExportedNetwork(kind.open(unproven), unproven)
        proof = check_parity(order.network, exported, fitted, floor=floor)
        compressed = order.precision not in ("fp32", "fp16")
        loss = measure_loss(order, kind, exported, reference) if compressed else None
        facts, unit = dict(exported.program.metadata), exported.program.unit_got
        findings = kind.findings(unproven)
        lossy = loss is not None and not loss.within
        layers = kind.layer_costs(order, lossy=lossy)
    kind.write_companions(target, order.options)
    return Delivery(replace(artifact, path=target), proof, loss, unit, facts, findings, layers)
