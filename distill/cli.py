"""The command `distill` and those of its sub-commands that have no module of their own."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.cli_adapt import add_adapt_command
from distill.cli_compare import add_compare_commands
from distill.cli_export import add_export_commands
from distill.cli_parts import add_run_options, opened, progress, resumed, show
from distill.cli_profile import add_profile_command
from distill.errors import CheckFailed, DistillError

# torch and the rest are imported by the command that needs them, so that --help answers at once
if TYPE_CHECKING:
    from distill.interfaces import VideoNetwork

__all__ = ["main"]

_DONE, _CHECK_FAILED, _WRONG_INPUT, _INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 a check failed, 2 wrong input, 130 interrupted."""
    options = _parser().parse_args(arguments)
    options.command_line = shlex.join(["distill", *(sys.argv[1:] if arguments is None else arguments)])
    log, console = logging.getLogger("distill"), _Console(logging.INFO)
    log.setLevel(logging.DEBUG)  # the console takes what matters, a run's log.txt takes all
    log.addHandler(console)
    try:
        return int(options.run(options))
    except CheckFailed as error:
        return _fail(str(error), _CHECK_FAILED)
    except DistillError as error:
        return _fail(str(error), _WRONG_INPUT)
    except KeyboardInterrupt as error:
        return _fail(str(error) or "stopped", _INTERRUPTED)
    except (RuntimeError, MemoryError) as error:
        # torch's own error, which is not imported here, or what its allocator for the processor says
        known = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        if not known and "alloc_cpu" not in str(error):
            raise
        remedies = "smaller --size, data.crop, training.batch or distillation.memory_crop, or --device cpu"
        return _fail(f"The device's memory is full; try a {remedies}.", _WRONG_INPUT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read us has gone
        return _DONE
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        return _fail(f"The system refused{where}: {error.strerror or error}.", _WRONG_INPUT)
    finally:
        log.removeHandler(console)


class _Console(logging.Handler):
    """Lines on standard error that do not tear a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stderr)


def _fail(sentence: str, code: int) -> int:
    sys.stderr.write(f"distill: {sentence}\n")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="distill", description="Distil video super-resolution networks for phones.", allow_abbrev=False
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_training(commands)
    add_adapt_command(commands, _add)
    add_compare_commands(commands, _add)
    command = _add(commands, "eval", _eval, "measure PSNR and SSIM on clips of known truth")
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
    command = _add(commands, "upscale", _upscale, "a video in, a larger video out")
    command.add_argument("source", type=Path, metavar="IN", help="a video or a folder of frames")
    command.add_argument("target", type=Path, metavar="OUT", help="a video, or a folder for frames")
    command.add_argument(
        "--network", default="edvr", help="a name, a run folder or a file, exported too (default: edvr)"
    )
    command.add_argument("--device", default="auto")
    add_export_commands(commands, _add)
    add_profile_command(commands, _add)
    command = _add(commands, "list", _list, "every network, its size and its cost; or every method of distillation")
    command.add_argument("what", nargs="?", choices=("networks", "methods"), default="networks")
    return parser


def _add(commands: Any, name: str, run: Callable[[argparse.Namespace], int], summary: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=summary[0].upper() + summary[1:] + ".", allow_abbrev=False
    )
    command.add_argument("--json", action="store_true", help="one JSON document on standard output, nothing else there")
    command.set_defaults(run=run)
    return command


def _add_training(commands: Any) -> None:
    train = _add(commands, "train", _train, "distil a student from a teacher")
    train.add_argument("--teacher", help="a name or a file of weights (default: edvr), or several: 0.7*edvr+0.3*rbpn")
    train.set_defaults(taught=True)
    train.add_argument("--student", help="a name or a file to go on from (default: fastdvdnet)")
    pretrain = _add(commands, "pretrain", _train, "train any network without a teacher")
    pretrain.add_argument("student", nargs="?", metavar="NETWORK", help="a name or a file to go on from")
    pretrain.set_defaults(teacher=None, taught=False)
    for command in (train, pretrain):
        command.add_argument("--time-scale", type=int, choices=(1, 2), help="2: the student doubles the frame rate")
        command.add_argument("--config", type=Path, metavar="FILE", help="a recipe")
        default = "std" if command is train else "none"
        command.add_argument(
            "--method", help=f"what is learnt beside the truth, of `distill list methods` (default: {default})"
        )
        command.add_argument("--data", help="footage to train on (default: the shipped samples)")
        command.add_argument("--unlabelled", metavar="DIR", help="more footage, of low resolution as it is")
        command.add_argument("--out", type=Path, help="run folder (default: runs/TEACHER-STUDENT)")
        add_run_options(command)


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of pixels")
    return int(text)


def _train(options: argparse.Namespace) -> int:
    from distill.config import read_config
    from distill.recipe import prepare, run_recipe
    from distill.run_folder import RunFolder
    from distill.settings import to_yaml

    path, state = resumed(options)
    config_file = options.config
    if path is not None and state is not None and config_file is None:
        config_file = state.parent.parent / "config.yaml"
    flags = {
        "teacher": options.teacher,
        "student": options.student,
        "student_options.time_scale": options.time_scale,
        "distillation.method": options.method,
        "data.path": options.data,
        "data.unlabelled": options.unlabelled,
        "data.force": options.force,
        "training.device": options.device,
        "training.precision": options.precision,
        "training.seed": options.seed,
    }
    settings = options.set if options.taught else [*options.set, "teacher=null"]
    before = None if options.taught else ("pretrain", {"distillation.method": "none"})
    config = read_config(config_file, settings, flags, before=before)
    run = RunFolder(path if path is not None else _default_run(config.teacher, config.student))
    prepared = prepare(config, run, options.command_line)
    if options.dry_run:
        show(options, {"config": to_yaml(config), "clips": prepared.clips, "run": str(run.path)}, to_yaml(config))
        return _DONE
    results = run_recipe(prepared, options.command_line, state)
    lines = ["", *_contenders(results), "", f"student  {run.student}", "next:", *_next_commands(run.path)]
    show(options, {"run": str(run.path), "student": str(run.student), "results": results}, "\n".join(lines))
    return _DONE


def _default_run(teacher: str | None, student: str) -> Path:
    from distill.run_folder import next_free

    parts = [Path(name).stem.replace(":", ".") for name in (teacher, student) if name is not None]
    return next_free(Path("runs") / "-".join(parts))


def _contenders(results: dict[str, Any]) -> list[str]:
    """The table at the end of training."""
    convention = next(iter(results.values()))["convention"]
    rows = [f"{'':<16}{'PSNR dB':>9}{'SSIM':>9}"]
    rows += [f"{name:<16}{r['average']['psnr']:>9.3f}{r['average']['ssim']:>9.4f}" for name, r in results.items()]
    rows.append(
        f"({convention['channel'].upper()} channel, crop {convention['crop']}, degradation "
        f"{convention['degradation']}, {len(next(iter(results.values()))['clips'])} validation clips, "
        f"frames: {convention['frames']})"
    )
    return rows


def _next_commands(run: Path) -> list[str]:
    return [
        f"  distill eval {run} --data YOUR_CLIPS",
        f"  distill upscale IN.mp4 OUT.mp4 --network {run}",
        f"  distill export {run} --to onnx",
        f"  distill profile {run / 'export' / 'student.onnx'}",
    ]


def _eval(options: argparse.Namespace) -> int:
    from distill.data import find_clips
    from distill.evaluate import evaluate
    from distill.recipe import check_degradation, pick_device

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
    return _DONE


def _upscale(options: argparse.Namespace) -> int:
    from distill.recipe import pick_device
    from distill.upscale import upscale

    network, _ = opened(options.network)
    with progress(options, None, "frame") as update:
        result = upscale(network, options.source, options.target, device=pick_device(options.device), progress=update)
    height, width = result.size
    sound = "with sound" if result.audio else "without sound"
    text = f"{options.target}  {result.frames} frames  {width}x{height}  {sound}  {result.seconds:.1f} s"
    facts = {"file": str(options.target), "frames": result.frames, "width": width, "height": height}
    show(options, {**facts, "audio": result.audio, "seconds": result.seconds}, text)
    return _DONE


def _list(options: argparse.Namespace) -> int:
    if options.what == "methods":
        from distill.methods import method_table, methods

        show(options, methods(), method_table())
        return _DONE
    from distill.costs import cost_table, costs

    rows = costs()
    show(options, rows, cost_table(rows))
    return _DONE
