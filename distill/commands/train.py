"""The commands `distill train` and `distill pretrain`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from distill.commands.options import DONE, add_command, add_run_options, recipe_flags, resumed, show, show_recipe

__all__ = ["add_commands"]


def add_commands(commands: Any) -> None:
    """Add the sub-commands."""
    train = add_command(commands, "train", _train, "distil a student from a teacher")
    train.add_argument("--teacher", help="a name or a file of weights (default: edvr), or several: 0.7*edvr+0.3*rbpn")
    train.set_defaults(taught=True)
    train.add_argument("--student", help="a name or a file to go on from (default: fastdvdnet)")
    pretrain = add_command(commands, "pretrain", _train, "train any network without a teacher")
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


def _train(options: argparse.Namespace) -> int:
    from distill.training.config import read_config
    from distill.training.recipe import prepare, run_recipe
    from distill.training.run_folder import RunFolder

    path, state = resumed(options)
    config_file = options.config
    if path is not None and state is not None and config_file is None:
        config_file = state.parent.parent / "config.yaml"
    settings = options.set if options.taught else [*options.set, "teacher=null"]
    before = None if options.taught else ("pretrain", {"distillation.method": "none"})
    config = read_config(config_file, settings, recipe_flags(options), before=before)
    run = RunFolder(path if path is not None else _default_run(config.teacher, config.student))
    trainer = prepare(config, run, options.command_line)
    if options.dry_run:
        show_recipe(options, config, trainer)
        return DONE
    results = run_recipe(config, trainer, options.command_line, state)
    lines = ["", *_contenders(results), "", f"student  {run.student}", "next:", *_next_commands(run.path)]
    show(options, {"run": str(run.path), "student": str(run.student), "results": results}, "\n".join(lines))
    return DONE


def _default_run(teacher: str | None, student: str) -> Path:
    from distill.training.run_folder import next_free

    parts = [Path(name).stem.replace(":", ".") for name in (teacher, student) if name is not None]
    return next_free(Path("runs") / "-".join(parts))


def _contenders(results: dict[str, Any]) -> list[str]:
    """The table at the end of training."""
    from distill.metrics.scores import convention_sentence
    from distill.text_tables import aligned

    judged = next(iter(results.values()))
    averages = {name: result["average"] for name, result in results.items()}
    rows = [(name, f"{each['psnr']:.3f}", f"{each['ssim']:.4f}") for name, each in averages.items()]
    table = aligned([("", "PSNR dB", "SSIM"), *rows])
    return [*table, f"({convention_sentence(judged['convention'], len(judged['clips']))})"]


def _next_commands(run: Path) -> list[str]:
    return [
        f"  distill eval {run} --data YOUR_CLIPS",
        f"  distill upscale IN.mp4 OUT.mp4 --network {run}",
        f"  distill export {run} --to onnx",
        f"  distill profile {run / 'export' / 'student.onnx'}",
    ]
