"""The commands about what leaves the house: `distill export`, `plan` and `profile`."""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.commands.options import DONE, add_command, progress, show, size
from distill.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from distill.data import Clip
    from export.interfaces import Format
    from export.latency.contender import Entry
    from export.latency.row import Row

__all__ = ["add_commands"]


def add_commands(commands: Any) -> None:
    """Add the sub-commands."""
    from export.formats import all_formats

    *names, last = (each.name for each in all_formats())
    command = add_command(commands, "export", _export, "write files that a phone's runtime reads, and prove them")
    command.add_argument("network", metavar="RUN", help="a run folder, a file of weights, or a network's name")
    command.add_argument("--to", required=True, metavar="FORMAT", help=f"{', '.join(names)} or {last}")
    command.add_argument("--precision", nargs="+", metavar="P", help="one file each (default: the format's first)")
    command.add_argument("--streaming", action="store_true", help="one new frame and memories in, one frame out")
    command.add_argument("--out", type=Path, help="folder (default: RUN/export, or runs/NAME/export)")
    command.add_argument(
        "--size", type=size, nargs="+", default=[], metavar="WxH", help="low resolution (default: any)"
    )
    command.add_argument("--data", type=Path, help="footage to calibrate and prove on (default: the samples)")
    command.add_argument("--floor", type=float, metavar="DB", help="PSNR against PyTorch under which it fails")
    for each in all_formats():
        each.add_options(command)
    command = add_command(commands, "plan", _plan, "before training: what a student would cost a device, estimated")
    command.add_argument("student", metavar="STUDENT", help="a student's name, or a file of its weights")
    command.add_argument("--size", type=size, required=True, metavar="WxH", help="low resolution")
    command.add_argument("--budget", required=True, help="of one frame, such as 16ms or 60fps")
    command.add_argument("--device", default="host", help="a shipped table's name, or a file of your own")
    _add_profile(commands)


def _export(options: argparse.Namespace) -> int:
    from distill.networks.opening import window_network
    from export.delivery.delivery import deliver, file_name
    from export.delivery.quality import Reference
    from export.footage import low_resolution_clips
    from export.formats import format_named
    from export.interfaces import Order

    kind = format_named(options.to)
    precisions = options.precision or [kind.precisions[0]]
    kind.check_precisions(precisions)
    _refuse_options_of_others(options, kind)
    own = kind.options_of(options, precisions)
    network, described = window_network(options.network)
    stem, out = _stem_and_folder(Path(options.network))
    degradation = described.degradation or "bi"
    reference = Reference(network, _clips(options.data, "held_out"), degradation)
    calibration: Sequence[Tensor] = ()
    if set(precisions) & set(kind.calibrated):
        calibration = low_resolution_clips(_clips(options.data, "train"), degradation, network.scale, count=3)
    deliveries = []
    for precision in precisions:
        sizes = tuple(options.size)
        order = Order(network, described.as_text(), precision, options.streaming, sizes, calibration, own)
        target = (options.out or out) / file_name(stem, kind, order)
        deliveries.append(deliver(order, kind, target, reference, floor=options.floor))
        if not options.json:
            show(options, None, deliveries[-1].text())
    if options.json:
        show(options, [delivery.document() for delivery in deliveries], "")
    return DONE


def _refuse_options_of_others(options: argparse.Namespace, kind: Format) -> None:
    """Refuse what is for another format, before anything is written."""
    from export.formats import all_formats

    for other in all_formats():
        alone = argparse.ArgumentParser(add_help=False)
        other.add_options(alone)
        defaults = vars(alone.parse_args([]))
        if other.name != kind.name and any(getattr(options, name) != value for name, value in defaults.items()):
            names = " and ".join(f"--{name.replace('_', '-')}" for name in sorted(defaults))
            verb = "are" if len(defaults) > 1 else "is"
            raise ConfigError(f"{names} {verb} for --to {other.name}, not {kind.name}.")


def _plan(options: argparse.Namespace) -> int:
    from export.plan.plan import parse_budget, plan_student

    found = plan_student(options.student, options.size, parse_budget(options.budget), options.device)
    show(options, found.document(), found.text())
    return DONE


def _stem_and_folder(run: Path) -> tuple[str, Path]:
    """What exports of a network are called, and where they go unless told."""
    if run.is_dir():
        return "student", run / "export"
    if run.name == "student.safetensors":  # of a run folder
        return "student", run.parent / "export"
    return run.stem, Path("runs") / run.stem / "export"


def _clips(data: Path | None, samples: Any) -> list[Clip]:
    from distill.data import find_clips, sample_clips

    return list(find_clips(sample_clips(samples) if data is None else data))


log = logging.getLogger("distill")


def _add_profile(commands: Any) -> None:
    command = add_command(
        commands, "profile", _profile, "this host's latency of exported files and networks, side by side"
    )
    command.add_argument("sources", nargs="+", metavar="SOURCE", help="exported files, run folders, files of weights")
    command.add_argument("--size", type=size, nargs="+", default=[], metavar="WxH", help="low resolution, one or more")
    command.add_argument("--threads", type=int, nargs="+", help="default: 1 and all cores")
    command.add_argument("--data", type=Path, help="footage of known truth, for the columns on quality")
    command.add_argument("--report", type=Path, metavar="FILE.html", help="also write a page, and its JSON twin")
    command.add_argument("--operators", action="store_true", help="also of each operator, where the runtime tells")
    command.add_argument("--sustained", type=float, metavar="SECONDS", help="also a run of so long without a pause")
    command.add_argument("--compiled", action="store_true", help="networks also by torch.compile")
    command.add_argument("--android", action="store_true", help="exported files also on the phone that adb reaches")
    command.add_argument("--benchmark", type=Path, help="the program that times them there, built for the phone")
    command.add_argument("--serial", help="of the phone, where adb reaches several")


def _profile(options: argparse.Namespace) -> int:
    from export.latency.measuring import check_settings, profile

    if options.report is not None and options.report.suffix != ".html":
        raise ConfigError(f"--report names {options.report}, expected a file ending in .html.")
    threads = options.threads or sorted({1, os.cpu_count() or 1})
    check_settings(options.size, threads, options.sustained)
    # first, for what is missing is known at once
    phone = _phone_rows(options, options.threads or (1, 4)) if options.android else []
    entries = _entries(options, max(threads))
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
    from export.formats import is_exported
    from export.latency.measuring import DEFAULT_SIZE
    from export.phones.android import profile_android
    from export.phones.benchmarks import is_timed

    files = [Path(source) for source in options.sources if is_exported(Path(source))]
    return [
        run.row()
        for path in files
        if is_timed(path)
        for size in options.size or [DEFAULT_SIZE]
        for run in profile_android(path, options.benchmark, serial=options.serial, size=size, threads=threads)
    ]


def _write_report(target: Path, found: Any, document: Any, command: str) -> None:
    from distill.files import replacing
    from export.latency.page import html

    for path, text in ((target, html(found, command)), (target.with_suffix(".json"), json.dumps(document, indent=2))):
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        log.info("report  %s", path)


def _entries(options: argparse.Namespace, threads: int) -> list[Entry]:
    """Each source opened once, and judged where there is footage; exported files on so many threads."""
    from distill.networks.opening import window_network
    from export.formats import is_exported
    from export.latency.fidelity import Judged, fidelities
    from export.latency.files import FileEntry
    from export.latency.networks import NetworkEntry

    files = {name: FileEntry(Path(name), threads=threads) for name in options.sources if is_exported(Path(name))}
    networks = {name: window_network(name) for name in options.sources if name not in files}
    quality = {}
    if options.data is not None:
        judged = {name: Judged(network, described.as_text()) for name, (network, described) in networks.items()}
        opened = {name: file.exported for name, file in files.items() if file.exported is not None}
        judged |= {name: Judged(file, file.program.metadata) for name, file in opened.items()}
        quality = fidelities(judged, options.data)
    entries: list[Entry] = []
    for name in options.sources:
        if name in files:
            files[name].fidelity = quality.get(name)
            entries.append(files[name])
            continue
        network, described = networks[name]
        for streaming in (False, True):
            for compiled in (False, True) if options.compiled else (False,):
                entries.append(NetworkEntry(network, described.name, streaming, compiled, quality.get(name)))
    return entries
