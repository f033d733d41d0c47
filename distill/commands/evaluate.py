"""The commands `distill eval` and `distill upscale`: a network on footage."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.commands.options import DONE, add_command, progress, show

if TYPE_CHECKING:
    from distill.interfaces import VideoNetwork


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of pixels")
    return int(text)


__all__ = ["add_commands"]


def add_commands(commands: Any) -> None:
    """Add the sub-commands."""
    command = add_command(commands, "eval", _eval, "measure PSNR and SSIM on clips of known truth")
    command.add_argument("network", metavar="NETWORK", help="bicubic, a name, a run folder or a file, exported too")
    command.add_argument("--data", type=Path, required=True, help="videos, folders of frames, Vid4, REDS, Vimeo-90K")
    command.add_argument("--split", choices=("train", "test"), help="of layouts that have lists")
    command.add_argument("--degradation", help="bi, bd or bd-centred (default: what the network was trained on, or bi)")
    command.add_argument("--channel", choices=("y", "rgb"), default="y")
    command.add_argument("--crop", type=_count, default=0, help="pixels left out along every border")
    command.add_argument("--temporal", action="store_true", help="temporal consistency too: tOF and warping error")
    command.add_argument("--lpips", action="store_true", help="perceptual distance too (extra: lpips)")
    command.add_argument(
        "--time-scale", type=int, choices=(1, 2), help="2 gives every second frame (default: what the network makes)"
    )
    command.add_argument("--device", default="auto")
    command.add_argument("--force", action="store_true", help="measure on a degradation the network does not know")
    command = add_command(commands, "upscale", _upscale, "a video in, a larger video out")
    command.add_argument("source", type=Path, metavar="IN", help="a video or a folder of frames")
    command.add_argument("target", type=Path, metavar="OUT", help="a video, or a folder for frames")
    command.add_argument(
        "--network", default="edvr", help="a name, a run folder or a file, exported too (default: edvr)"
    )
    command.add_argument("--device", default="auto")


def _eval(options: argparse.Namespace) -> int:
    from distill.data import find_clips
    from distill.metrics.evaluate import evaluate
    from distill.networks.opening import check_degradation, opened, pick_device

    network: VideoNetwork | None = None
    degradation = options.degradation or "bi"
    if options.network != "bicubic":
        network, described = opened(options.network)
        degradation = options.degradation or described.degradation or "bi"
        check_degradation(options.network, described, degradation, force=options.force)
    clips = find_clips(options.data, options.split)
    with progress(options, sum(clip.length for clip in clips), "frame") as update:
        result = evaluate(
            network,
            clips,
            degradation=degradation,
            scale=network.scale if network is not None else 4,
            channel=options.channel,
            crop=options.crop,
            temporal=options.temporal,
            lpips=options.lpips,
            time_scale=options.time_scale,
            device=pick_device(options.device),
            progress=update,
        )
    show(options, result.to_json(), result.table())
    return DONE


def _upscale(options: argparse.Namespace) -> int:
    from distill.networks.opening import opened, pick_device
    from distill.upscale import upscale

    network, _ = opened(options.network)
    with progress(options, None, "frame") as update:
        result = upscale(network, options.source, options.target, device=pick_device(options.device), progress=update)
    height, width = result.size
    sound = "with sound" if result.audio else "without sound"
    text = f"{options.target}  {result.frames} frames  {width}x{height}  {sound}  {result.seconds:.1f} s"
    facts = {"file": str(options.target), "frames": result.frames, "width": width, "height": height}
    show(options, {**facts, "audio": result.audio, "seconds": result.seconds}, text)
    return DONE
