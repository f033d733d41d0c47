"""What a network can be exported to: every format by its name or by a file's, files written and files opened."""

from __future__ import annotations

import json
import pkgutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from distill.errors import ConfigError, InputError, did_you_mean
from distill.files import bytes_of, sha256_of
from export.interfaces import GIVEN_METADATA, Artifact, Format, Order

# the command's parser imports this module, so what imports torch is imported by the functions that need it
if TYPE_CHECKING:
    from distill.networks.checkpoint import Described
    from export.exported import ExportedNetwork

__all__ = [
    "FORMATS",
    "all_formats",
    "export",
    "format_named",
    "format_of",
    "is_exported",
    "open_described",
    "open_exported",
]

FORMATS = (
    "export.to_onnx.format:OnnxFormat",
    "export.to_coreml.format:CoremlFormat",
    "export.to_litert.format:LitertFormat",
    "export.to_executorch.format:ExecutorchFormat",
    "export.to_ncnn.format:NcnnFormat",
)
"""All there are, "module:class" each."""


def all_formats() -> list[Format]:
    """Those of `FORMATS`, in its order."""
    return [pkgutil.resolve_name(each)() for each in FORMATS]


def format_named(name: str) -> Format:
    """The format of that name.

    Raises:
        ConfigError: there is none.
    """
    known = {each.name: each for each in all_formats()}
    if name in known:
        return known[name]
    raise ConfigError(f"There is no format {name!r}.{did_you_mean(name, known)} Known: {', '.join(known)}.")


def format_of(path: Path) -> Format:
    """The format that files of this name have.

    Raises:
        InputError: none has.
    """
    known = all_formats()
    for each in known:
        if path.name.endswith(each.suffixes):
            return each
    raise InputError(f"{path} is no exported file: their names end in {', '.join(each.suffix for each in known)}.")


def export(order: Order, kind: Format, target: Path) -> Artifact:
    """Write one file; see `distill.files.replacing_whole` for a place to write it.

    Raises:
        ConfigError: a size is not positive, or the format has no such precision or sizes.
        InputError: what the format needs is not installed.
        CheckFailed: the network cannot be expressed in the format, or the file is not valid.
    """
    started = time.perf_counter()
    if missing := [key for key in GIVEN_METADATA if key not in order.metadata]:
        raise ValueError(f"metadata lacks {', '.join(missing)}")
    for height, width in order.sizes:
        if min(height, width) < 1:
            raise ConfigError(f"The size is {height}x{width}, but height and width must be at least 1.")
    kind.write(order, target)
    seconds = time.perf_counter() - started
    return Artifact(target, kind.name, order.precision, bytes_of(target), sha256_of(target), seconds)


def open_exported(path: Path, threads: int | None = None) -> ExportedNetwork:
    """Load an exported file of any format.

    Args:
        path: a file that `distill export` wrote.
        threads: that compute together; None leaves the choice to the runtime.

    Raises:
        InputError: the file cannot be used, or what runs it is not installed.
    """
    from export.exported import ExportedNetwork

    return ExportedNetwork(format_of(path).open(path, threads), path)


def is_exported(path: Path) -> bool:
    """Whether the name is that of an exported file."""
    return any(path.name.endswith(each.suffixes) for each in all_formats())


def open_described(path: Path) -> tuple[ExportedNetwork, Described]:
    """An exported file as a network, and what it says of itself.

    Raises:
        InputError: the file cannot be used, or what runs it is not installed.
    """
    from distill.networks.checkpoint import Described

    exported = open_exported(path)
    facts = exported.program.metadata
    degradation = None if facts["degradation"] == "unknown" else facts["degradation"]
    try:
        keywords, provenance = json.loads(facts["keywords"]), json.loads(facts["provenance"])
    except ValueError as error:
        raise InputError(f"{path} does not describe itself as it should ({error}): export it again.") from error
    return exported, Described(facts["network"], keywords, degradation, provenance)
