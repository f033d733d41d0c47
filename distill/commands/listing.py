"""The command `distill list`."""

from __future__ import annotations

import argparse
from typing import Any

from distill.commands.options import DONE, add_command, show

__all__ = ["add_commands"]


def add_commands(commands: Any) -> None:
    """Add the sub-command."""
    command = add_command(
        commands, "list", _list, "every network, its size and its cost; or every method of distillation"
    )
    command.add_argument("what", nargs="?", choices=("networks", "methods"), default="networks")


def _list(options: argparse.Namespace) -> int:
    if options.what == "methods":
        from distill.losses.methods import method_facts, method_table

        show(options, method_facts(), method_table())
        return DONE
    from distill.networks.costs import cost_table, costs

    rows = costs()
    show(options, rows, cost_table(rows))
    return DONE
