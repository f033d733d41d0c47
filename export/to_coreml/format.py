"""Core ML as a format."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.interfaces import Format, Order

if TYPE_CHECKING:
    from export.program import Program

__all__ = ["CoremlFormat"]


class CoremlFormat(Format):
    """An .mlpackage, run by Core ML on a Mac and computed by our own evaluator elsewhere.

    An order's options: `ios`, 16 (if not given) or 18, the oldest system that the file is for; `images`, whether frames
    are images instead of tensors.
    """

    name, suffix, is_folder = "coreml", ".mlpackage", True
    precisions = ("fp16", "fp32", "w8", "p6", "p4")
    needs = runtime = "coremltools"
    sizes = "several"
    opener = "export.to_coreml.program:load"

    def _write(self, order: Order, target: Path) -> None:
        """The same network and metadata give the same bytes."""
        from export.to_coreml.conversion import ml_package
        from export.to_coreml.package import write_package

        write_package(ml_package(order), target)

    def _open(self, path: Path, threads: int | None) -> Program:
        from export.to_coreml.program import load

        return load(path, threads)

    def add_options(self, command: ArgumentParser) -> None:
        command.add_argument("--ios", type=int, choices=(16, 18), help="coreml: oldest system (default: what it takes)")
        command.add_argument("--images", action="store_true", help="coreml: frames are images, not arrays")

    def options_of(self, given: Namespace, precisions: Sequence[str]) -> Mapping[str, Any]:
        needs_18 = given.streaming or len(given.size) > 1
        return {"ios": given.ios or (18 if needs_18 else 16), "images": given.images}

    def name_parts(self, order: Order) -> Sequence[str]:
        return ["images"] if order.options.get("images") else []

    def not_run_here(self, path: Path) -> str | None:
        if sys.platform == "darwin":
            return None
        return "Core ML runs on Apple's systems only: measure this file on a Mac or an iPhone."
