"""What the modules of the command share: options of a run, as settings of a recipe, and how results are shown."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.errors import ConfigError

# torch and the rest are imported by the command that needs them, so that --help answers at once
if TYPE_CHECKING:
    from distill.training.config import Config
    from distill.training.trainer import Trainer

__all__ = [
    "DONE",
    "add_command",
    "add_run_options",
    "progress",
    "recipe_flags",
    "resumed",
    "show",
    "show_recipe",
    "size",
]

DONE = 0
"""The exit code of a command that did what it was given."""

_KEYS = {
    "teacher": "teacher",
    "student": "student",
    "time_scale": "student_options.time_scale",
    "method": "distillation.method",
    "data": "data.path",
    "unlabelled": "data.unlabelled",
    "footage": "data.unlabelled",
    "force": "data.force",
    "steps": "training.steps",
    "device": "training.device",
    "precision": "training.precision",
    "seed": "training.seed",
}
"""Option -> key of a recipe, of every command that trains."""


def size(text: str) -> tuple[int, int]:
    """WIDTHxHEIGHT -> (height, width)."""
    width, cross, height = text.partition("x")
    if not (cross and width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT, such as 180x120")
    return int(height), int(width)


@contextmanager
def progress(options: argparse.Namespace, total: int | None, unit: str) -> Iterator[Any]:
    """A bar on a terminal, silence elsewhere; gives the function to call."""
    from tqdm import tqdm

    with tqdm(total=total, unit=unit, disable=True if options.json else None, dynamic_ncols=True) as bar:
        yield bar.update


def show(options: argparse.Namespace, document: Any, text: str) -> None:
    """One JSON document or the text, on standard output."""
    sys.stdout.write(json.dumps(document, indent=2) + "\n" if options.json else text + "\n")
    sys.stdout.flush()


def add_run_options(command: argparse.ArgumentParser) -> None:
    """What every command that trains takes."""
    command.add_argument("--set", action="append", default=[], metavar="KEY.SUB=VALUE", help="any key of a recipe")
    command.add_argument("--resume", nargs="?", const="auto", metavar="auto|FILE", help="go on from a saved state")
    command.add_argument("--device", help="auto, cpu or cuda")
    command.add_argument("--precision", choices=("auto", "fp32", "bf16"))
    command.add_argument("--seed", type=int)
    command.add_argument("--force", action="store_true", default=None, help="let degradations disagree")
    command.add_argument("--dry-run", action="store_true", help="check everything and print the recipe")


def recipe_flags(options: argparse.Namespace) -> dict[str, Any]:
    """The settings of a recipe that options give, by dotted key."""
    flags = {}
    for option, key in _KEYS.items():
        value = getattr(options, option, None)
        if value is not None:
            flags[key] = str(value) if isinstance(value, Path) else value
    return flags


def show_recipe(options: argparse.Namespace, config: Config, trainer: Trainer) -> None:
    """What a dry run found: the whole recipe, how many clips it trains on, and where it would go."""
    from distill.settings import to_yaml

    recipe = to_yaml(config)
    show(options, {"config": recipe, "clips": len(trainer.sampler.clips), "run": str(trainer.run.path)}, recipe)


def resumed(options: argparse.Namespace) -> tuple[Path | None, Path | None]:
    """The run folder, if the options name one, and the state to go on from, if there is one."""
    if options.resume is None:
        return options.out, None
    if options.resume == "auto":
        if options.out is None:
            raise ConfigError("--resume auto needs --out, the run folder to go on in.")
        last = options.out / "checkpoints" / "last.pt"
        return options.out, last if last.exists() else None
    state = Path(options.resume)
    if not state.is_file():
        raise ConfigError(f"There is no state {state} to go on from.")
    return options.out or state.parent.parent, state


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], summary: str
) -> argparse.ArgumentParser:
    """Add a sub-command that `run` runs, which returns the exit code."""
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=summary[0].upper() + summary[1:] + ".", allow_abbrev=False
    )
    command.add_argument("--json", action="store_true", help="one JSON document on standard output, nothing else there")
    command.set_defaults(run=run)
    return command
