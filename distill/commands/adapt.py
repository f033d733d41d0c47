"""The command `distill adapt`: a trained student, fine-tuned on one's own footage."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from distill.commands.options import DONE, add_command, add_run_options, recipe_flags, resumed, show, show_recipe

__all__ = ["add_commands"]


def add_commands(commands: Any) -> None:
    """Add the sub-commands."""
    command = add_command(
        commands, "adapt", _adapt, "fine-tune a student on your own footage, without high resolution of it"
    )
    command.add_argument("student", metavar="CHECKPOINT", help="a run folder or a file of weights")
    command.add_argument("footage", type=Path, metavar="FOOTAGE", help="of low resolution: a video, frames, or several")
    command.add_argument("--teacher", help="a name or a file of weights (default: edvr)")
    command.add_argument("--steps", type=int, help="default: 400")
    command.add_argument("--data", help="footage of known truth that stays in (default: the shipped samples)")
    command.add_argument("--out", type=Path, help="run folder (default: runs/adapt-FOOTAGE)")
    add_run_options(command)


def _adapt(options: argparse.Namespace) -> int:
    from distill.training.adaptation import adaptation_recipe, prepare_adaptation, run_adaptation
    from distill.training.run_folder import RunFolder, next_free

    path, state = resumed(options)
    recipe = state.parent.parent / "config.yaml" if state is not None else None
    config = adaptation_recipe(options.student, options.set, recipe_flags(options), recipe)
    run = RunFolder(path if path is not None else next_free(Path("runs") / f"adapt-{options.footage.stem}"))
    trainer, footage = prepare_adaptation(config, run, options.command_line)
    if options.dry_run:
        show_recipe(options, config, trainer)
        return DONE
    results = run_adaptation(config, trainer, footage, options.command_line, state)
    document = {"run": str(run.path), "student": str(run.student), "teacher": config.teacher, **results}
    show(options, document, "\n".join(_lines(document)))
    return DONE


def _lines(document: dict[str, Any]) -> list[str]:
    """Two tables, and what they come to."""
    from distill.metrics.scores import convention_sentence

    near, true = ({name: each["average"] for name, each in document[part].items()} for part in ("agreement", "truth"))
    gains = [rows["student after"]["psnr"] - rows["student before"]["psnr"] for rows in (near, true)]
    convention, judged = (document[part]["bicubic"]["convention"] for part in ("agreement", "truth"))
    quality = {"PSNR dB": ("psnr", ".3f"), "SSIM": ("ssim", ".4f")}
    return [
        "",
        f"your footage, its last fifth, which was not trained on: nearness to what {document['teacher']} makes of it",
        *_table(near, quality | {"tOF px": ("tof", ".3f"), "warping": ("warping", ".1e")}),
        f"(agreement with the teacher, whose own warping error is {_teachers_warping(near)}, not truth; Y channel, "
        f"the first {convention['frames']} frames at most, the middle {convention['side']}x{convention['side']} pixels "
        "at most)",
        "",
        "clips of known truth, which were not trained on",
        *_table(true, quality),
        f"({convention_sentence(judged)})",
        "",
        f"agreement {gains[0]:+.3f} dB, truth elsewhere {gains[1]:+.3f} dB",
        f"student  {document['student']}",
    ]


def _teachers_warping(rows: dict[str, dict[str, Any]]) -> str:
    found = rows["bicubic"].get("truth_warping")
    return "none" if found is None else format(found, ".1e")


def _table(rows: dict[str, dict[str, Any]], columns: dict[str, tuple[str, str]]) -> list[str]:
    from distill.text_tables import aligned

    cells = [
        [name, *(format(row[key], form) if key in row else "" for key, form in columns.values())]
        for name, row in rows.items()
    ]
    return aligned([["", *columns], *cells])
