"""The commands that ask whether distillation helped: `distill compare` and `distill report`."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.commands.options import DONE, add_command, recipe_flags, show
from distill.errors import ConfigError

if TYPE_CHECKING:
    from distill.comparison.paper_tables import PaperTable
    from distill.training.config import Config

__all__ = ["add_commands"]

_METHODS = ("none", "output", "std")


def add_commands(commands: Any) -> None:
    """Add the sub-commands."""
    command = add_command(
        commands, "compare", _compare, "train with and without distillation, same seeds, crops and steps"
    )
    command.add_argument("--teacher", help="as in train (default: edvr)")
    command.add_argument("--student", help="as in train (default: fastdvdnet)")
    command.add_argument("--methods", nargs="+", metavar="METHOD", help=f"default: {' '.join(_METHODS)}")
    command.add_argument("--table", metavar="NAME|FILE", help="a table of the paper instead of methods, such as table2")
    command.add_argument("--seeds", type=int, default=3, help="how many runs of each (default: 3)")
    command.add_argument("--budget", metavar="STEPSit", help="steps of each run: 2000it (default: the recipe's)")
    command.add_argument("--data", help="footage to train on (default: the shipped samples)")
    command.add_argument("--judge", type=Path, metavar="DIR", help="footage to judge on (default: held-out samples)")
    command.add_argument("--lpips", action="store_true", help="judge by perceptual distance too (extra: lpips)")
    command.add_argument("--config", type=Path, metavar="FILE", help="a recipe")
    command.add_argument("--set", action="append", default=[], metavar="KEY.SUB=VALUE", help="any key of a recipe")
    command.add_argument("--out", type=Path, help="folder; the same command goes on in it (default: runs/compare)")
    command.add_argument("--device", help="auto, cpu or cuda")
    command.add_argument("--precision", choices=("auto", "fp32", "bf16"))
    command.add_argument("--dry-run", action="store_true", help="check everything and say what would be run")
    command = add_command(commands, "report", _report, "did distillation help? a page and a JSON file of a comparison")
    command.add_argument("folder", type=Path, metavar="FOLDER", help="that distill compare wrote")
    command.add_argument("--out", type=Path, metavar="DIR", help="for report.html and report.json (default: FOLDER)")


def _compare(options: argparse.Namespace) -> int:
    from distill.comparison.paper_tables import beside_paper, compared_with_paper, find_table, read_table
    from distill.comparison.running import Experiment, compare, unfinished_runs
    from distill.report import report

    if options.table is not None and options.methods is not None:
        raise ConfigError("--table brings its own rows; leave --methods out.")
    table = read_table(find_table(options.table)) if options.table is not None else None
    flags = recipe_flags(options)
    if options.budget is not None:
        flags["training.steps"] = _steps(options.budget)
    rows = _rows(options, table, flags)
    experiment = Experiment(rows, options.seeds, options.judge, options.command_line, options.lpips)
    folder = options.out or Path("runs") / ("compare" if table is None else table.path.stem)
    if options.dry_run:
        runs = unfinished_runs(experiment, folder)
        show(options, {"folder": str(folder), "runs": runs}, "\n".join(["still to run:", *runs]))
        return DONE
    compare(experiment, folder)
    if table is not None:
        show(options, compared_with_paper(table, folder), beside_paper(table, folder))
        return DONE
    written = report(folder)
    show(options, written.document(), written.summary())
    return DONE


def _steps(budget: str) -> int:
    """Steps of a budget such as "2000it"."""
    if not (found := re.fullmatch(r"([1-9]\d*)(it)?", budget)):
        raise ConfigError(f"--budget is {budget!r}, expected a number of steps such as 2000it.")
    return int(found[1])


def _rows(options: argparse.Namespace, table: PaperTable | None, flags: dict[str, Any]) -> dict[str, Config]:
    from distill.comparison.paper_tables import table_rows
    from distill.comparison.running import methods_as_rows
    from distill.training.config import read_config

    if table is not None:
        return table_rows(table, options.config, options.set, flags)
    return methods_as_rows(read_config(options.config, options.set, flags), options.methods or _METHODS)


def _report(options: argparse.Namespace) -> int:
    from distill.report import report

    written = report(options.folder, options.out)
    show(options, written.document(), written.summary())
    return DONE
