"""The commands about what leaves the house: `distill export`, `plan`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.commands.options import DONE, add_command, show, size
from distill.errors import ConfigError
from distill.networks.opening import window_network

if TYPE_CHECKING:
    from distill.data import Clip
    from export.formats import Format

__all__ = ["add_export_commands"]


def add_export_commands(commands: Any) -> None:
    """Add the sub-commands."""
    command = add_command(commands, "export", _export, "write files that a phone's runtime reads, and prove them")
    command.add_argument("network", metavar="RUN", help="a run folder, a file of weights, or a network's name")
    command.add_argument("--to", required=True, metavar="FORMAT", help="onnx, coreml, litert, executorch or ncnn")
    command.add_argument("--precision", nargs="+", metavar="P", help="one file each (default: the format's first)")
    command.add_argument("--streaming", action="store_true", help="one new frame and memories in, one frame out")
    command.add_argument("--out", type=Path, help="folder (default: RUN/export, or runs/NAME/export)")
    command.add_argument(
        "--size", type=size, nargs="+", default=[], metavar="WxH", help="low resolution (default: any)"
    )
    command.add_argument("--data", type=Path, help="footage to calibrate and prove on (default: the samples)")
    command.add_argument("--floor", type=float, metavar="DB", help="PSNR against PyTorch under which it fails")
    command.add_argument("--sensitivity", action="store_true", help="int8: tell what each layer costs")
    command.add_argument("--ort", action="store_true", help="onnx: also the .ort form, and the operators it needs")
    command.add_argument("--ios", type=int, choices=(16, 18), help="coreml: oldest system (default: what it takes)")
    command.add_argument("--images", action="store_true", help="coreml: frames are images, not arrays")
    command = add_command(commands, "plan", _plan, "before training: what a student would cost a device, estimated")
    command.add_argument("student", metavar="STUDENT", help="a student's name, or a file of its weights")
    command.add_argument("--size", type=size, required=True, metavar="WxH", help="low resolution")
    command.add_argument("--budget", required=True, help="of one frame, such as 16ms or 60fps")
    command.add_argument("--device", default="host", help="a shipped table's name, or a file of your own")


def _export(options: argparse.Namespace) -> int:
    from export.delivery import deliver, file_name
    from export.footage import low_resolution_clips
    from export.formats import Order, format_named

    kind = format_named(options.to)
    precisions = options.precision or [kind.precisions[0]]
    _check(options, kind, precisions)
    network, described = window_network(options.network)
    run = Path(options.network)
    stem, out = _stem_and_folder(run)
    out = options.out or out
    degradation = described.degradation or "bi"
    proof = _clips(options.data, "held_out")
    calibration = low_resolution_clips(_clips(options.data, "train"), degradation, network.scale, count=3)
    deliveries = []
    for precision in precisions:
        order = Order(
            network=network,
            metadata=described.as_text(),
            precision=precision,
            streaming=options.streaming,
            sizes=tuple(options.size),
            clips=calibration,
            ios=options.ios or (18 if options.streaming or len(options.size) > 1 else 16),
            images=options.images,
        )
        target = out / file_name(stem, kind, order)
        delivery = deliver(order, kind, target, proof, degradation, floor=options.floor, all_layers=options.sensitivity)
        deliveries.append(delivery)
        if options.ort:
            _write_ort(target)
        if not options.json:
            show(options, None, delivery.text())
    if options.json:
        show(options, [delivery.document() for delivery in deliveries], "")
    return DONE


def _check(options: argparse.Namespace, kind: Format, precisions: Sequence[str]) -> None:
    """Refuse options that do not go together, before anything is written."""
    for precision in precisions:
        if precision not in kind.precisions:
            raise ConfigError(f"{kind.name} has no precision {precision!r}; it has {', '.join(kind.precisions)}.")
    if (options.ort or options.sensitivity) and kind.name != "onnx":
        raise ConfigError(f"--ort and --sensitivity are for --to onnx, not {kind.name}.")
    if (options.images or options.ios) and kind.name != "coreml":
        raise ConfigError(f"--images and --ios are for --to coreml, not {kind.name}.")
    if options.ort and "fp16" in precisions:
        raise ConfigError("--ort has no fp16: leave it out, or export fp16 without --ort.")
    if options.sensitivity and "int8" not in precisions:
        raise ConfigError("--sensitivity tells what layers cost in int8: give --precision int8.")


def _write_ort(onnx: Path) -> None:
    """The .ort form beside the file, and the list of operators that it needs."""
    from distill.files import replacing
    from export.to_onnx import ort_operators, write_ort

    with replacing(onnx.with_suffix(".ort")) as temporary:
        write_ort(onnx, temporary)
    with replacing(onnx.with_suffix(".ort.config")) as temporary:
        temporary.write_text(ort_operators(onnx), encoding="utf-8")


def _plan(options: argparse.Namespace) -> int:
    from export.plan import parse_budget, plan

    found = plan(options.student, options.size, parse_budget(options.budget), options.device)
    show(options, found.document(), found.text())
    return DONE


def _stem_and_folder(run: Path) -> tuple[str, Path]:
    """What exports of a network are called, and where they go unless told."""
    if run.is_dir():
        return "student", run / "export"
    if run.name == "student.safetensors":  # of a run folder
        return "student", run.parent / "export"
    return run.stem, Path("runs") / run.stem / "export"


def _clips(data: Path | None, samples: Any) -> list[Clip]:
    from distill.data import find_clips, sample_clips

    return list(find_clips(sample_clips(samples) if data is None else data))
