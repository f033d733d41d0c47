"""The command `distill profile`: what exported files and networks cost, side by side."""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.commands.options import DONE, add_command, progress, show, size
from distill.errors import ConfigError, InputError
from distill.networks.opening import opened, window_network

if TYPE_CHECKING:
    from distill.data import Clip
    from distill.metrics.evaluate import Evaluation
    from export.latency import FileEntry, NetworkEntry
    from export.profile_row import Fidelity, Row

__all__ = ["add_profile_command"]

log = logging.getLogger("distill")


def add_profile_command(commands: Any) -> None:
    """Add the sub-commands."""
    command = add_command(
        commands, "profile", _profile, "this host's latency of exported files and networks, side by side"
    )
    command.add_argument("sources", nargs="+", metavar="SOURCE", help="exported files, run folders, files of weights")
    command.add_argument("--size", type=size, nargs="+", default=[], metavar="WxH", help="low resolution, one or more")
    command.add_argument("--threads", type=int, nargs="+", help="default: 1 and all cores")
    command.add_argument("--data", type=Path, help="footage of known truth, for the columns on quality")
    command.add_argument("--report", type=Path, metavar="FILE.html", help="also write a page, and its JSON twin")
    command.add_argument("--operators", action="store_true", help="also the time of each operator, of .onnx files")
    command.add_argument("--sustained", type=float, metavar="SECONDS", help="also a run of so long without a pause")
    command.add_argument("--compiled", action="store_true", help="networks also by torch.compile")
    command.add_argument("--android", action="store_true", help="exported files also on the phone that adb reaches")
    command.add_argument("--benchmark", type=Path, help="the program that times them there, built for the phone")
    command.add_argument("--serial", help="of the phone, where adb reaches several")


def _profile(options: argparse.Namespace) -> int:
    from export.latency import profile

    if options.report is not None and options.report.suffix != ".html":
        raise ConfigError(f"--report names {options.report}, expected a file ending in .html.")
    threads = options.threads or sorted({1, os.cpu_count() or 1})
    # first, for what is missing is known at once
    phone = _phone_rows(options, options.threads or (1, 4)) if options.android else []
    entries = _entries(options)
    with progress(options, None, "run") as update:
        found = profile(
            entries,
            sizes=options.size,
            threads=threads,
            with_operators=options.operators,
            sustained_seconds=options.sustained,
            progress=update,
        )
    found = found.with_rows(phone)
    document = found.document(options.command_line)
    if options.report is not None:
        _write_report(options.report, found, document, options.command_line)
    show(options, document, found.table())
    return DONE


def _phone_rows(options: argparse.Namespace, threads: Sequence[int]) -> list[Row]:
    from export.android import DEFAULT_SIZE, profile_android
    from export.exported import is_exported

    files = [Path(source) for source in options.sources if is_exported(Path(source))]
    return [
        run.row()
        for path in files
        if path.suffix in (".onnx", ".tflite")
        for size in options.size or [DEFAULT_SIZE]
        for run in profile_android(path, options.benchmark, serial=options.serial, size=size, threads=threads)
    ]


def _write_report(target: Path, found: Any, document: Any, command: str) -> None:
    from distill.files import replacing
    from export.report import html

    for path, text in ((target, html(found, command)), (target.with_suffix(".json"), json.dumps(document, indent=2))):
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        log.info("report  %s", path)


def _entries(options: argparse.Namespace) -> list[FileEntry | NetworkEntry]:
    from export.exported import is_exported
    from export.latency import FileEntry, NetworkEntry

    fidelities = _fidelities(options.sources, options.data) if options.data is not None else {}
    entries: list[FileEntry | NetworkEntry] = []
    for source in options.sources:
        fidelity = fidelities.get(source)
        if is_exported(Path(source)):
            entries.append(FileEntry(Path(source), fidelity))
            continue
        network, described = window_network(source)
        for streaming in (False, True):
            for compiled in (False, True) if options.compiled else (False,):
                entries.append(NetworkEntry(network, described.name, streaming, compiled, fidelity))
    return entries


def _fidelities(sources: Sequence[str], data: Path) -> dict[str, Fidelity]:
    """How good each is on footage of known truth, and how it compares with PyTorch where the network is given too."""
    from distill.data import find_clips
    from export.exported import is_exported
    from export.profile_row import Fidelity

    clips = find_clips(data)
    fidelities, references = {}, {}
    # networks first: a file is compared with the one that it was made of, if that is there
    for source in sorted(sources, key=lambda source: is_exported(Path(source))):
        found, origin = _evaluation(source, clips)
        if found is None:
            continue
        if not is_exported(Path(source)):
            references[origin] = found.psnr
        change = found.psnr - references[origin] if origin in references else None
        fidelities[source] = Fidelity(found.psnr, change, found.table().splitlines()[-1])
    return fidelities


def _evaluation(source: str, clips: Sequence[Clip]) -> tuple[Evaluation | None, str]:
    """None where a file of fixed size does not take the footage; and what tells the weights apart."""
    from distill.metrics.evaluate import evaluate
    from export.exported import ExportedNetwork
    from export.formats import GIVEN_METADATA
    from export.quality import FRAMES

    network, described = opened(source)
    # the metadata of a file are as_text() of what it was made of, and more
    facts = network.program.metadata if isinstance(network, ExportedNetwork) else described.as_text()
    origin = json.dumps([facts[name] for name in GIVEN_METADATA])
    try:
        found = evaluate(network, clips, degradation=described.degradation or "bi", scale=network.scale, frames=FRAMES)
    except InputError as error:
        log.warning("no quality of %s: %s", source, error)
        return None, origin
    return found, origin
