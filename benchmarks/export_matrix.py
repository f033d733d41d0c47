"""Every student to every phone format, made, proven and tabled: writes docs/exports.md.

    python benchmarks/export_matrix.py [RUNS]

RUNS is a folder of finished runs, edvr-STUDENT each; a student without one is trained first. Takes about an hour on two
cores, most of it D3DNet's, and as long again for students to be trained.
Exported files are left in RUNS/edvr-STUDENT/export, beside their rows of the table: stopped, it goes on from there.
"""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

from distill.cli import main
from distill.data import find_clips, sample_clips
from distill.interfaces import WindowNetwork
from distill.networks.opening import open_network
from export.delivery.delivery import Delivery, deliver, file_name
from export.delivery.quality import Reference
from export.footage import low_resolution_clips
from export.formats import all_formats
from export.interfaces import Format, Order

STUDENTS = ("fastdvdnet", "vespcn", "vsrnet", "fastdvdnet-mobile", "vespcn-mobile", "sofvsr", "vdsr", "d3dnet")
STEPS = {"vdsr": 200, "d3dnet": 100}  # which would take hours for the recipe's own number
FRAMES = {"sofvsr": 2, "vdsr": 2, "d3dnet": 1}  # of each clip, where our evaluator of Core ML files takes long
TARGET = Path(__file__).parents[1] / "docs" / "exports.md"


PAGE = """# Every student in every format

Made by `python benchmarks/export_matrix.py` on {date} ({versions}, commit {commit}); do not edit.

Students trained by `distill train --teacher edvr --student NAME` as it comes (VDSR for {vdsr} steps and D3DNet for
{d3dnet}, since they are slow to train), exported for the held-out samples' low resolution.

- *max abs diff* and *PSNR* are against PyTorch, on real frames.
- *lost* is what each held-out clip loses in PSNR-Y against truth over its 16 frames (SOF-VSR and VDSR: 2; D3DNet: 1),
  in dB, compressed files only; bold where one is above 0.1.
- Streaming is tabled for the students whose windows share work.
- *splits* are what the lint calls errors: where the phone providers of ONNX Runtime would take the network apart.
- Core ML files were not run by Core ML, which there is on Apple's systems alone: this project's own evaluator computed
  them from the saved file. Streaming ones keep their memories in half precision, also where they compute in single.

| student | format | precision | mode | status | MB | max abs diff | PSNR dB | lost dB | splits |
|---|---|---|---|---|---|---|---|---|---|
{rows}
"""


@dataclass(frozen=True)
class Cell:
    """One file, made or not."""

    student: str
    kind: Format
    precision: str
    streaming: bool
    delivery: Delivery | None
    reason: str = ""

    def row(self) -> str:
        mode = "streaming" if self.streaming else "windowed"
        head = f"| {self.student} | {self.kind.name} | {self.precision} | {mode} |"
        if self.delivery is None:
            return f"{head} **failed** | {self.reason} | | | | |"
        proof, judged = self.delivery.parity, self.delivery.quality
        lost = "" if judged is None else ", ".join(f"{loss:+.3f}" for loss in judged.losses.values())
        if judged is not None and not judged.within:
            lost = f"**{lost}**"
        errors = self.phone_errors()
        megabytes = self.delivery.artifact.bytes / 1e6
        return f"{head} ok | {megabytes:.2f} | {proof.max_abs:.0e} | {proof.psnr_db:.1f} | {lost} | {errors} |"

    def phone_errors(self) -> str:
        """What splits it on a phone, where that is looked into."""
        if self.delivery is None or not self.delivery.findings:
            return ""
        found = [each for each in self.delivery.findings if each.severity == "error"]
        return ", ".join(f"{each.operator} x{each.count}" for each in found) or "none"


def cells(student: str, run: Path, done: int) -> Iterator[Cell]:
    """The files of a student after the first so many."""
    network, described = open_network(str(run))
    assert isinstance(network, WindowNetwork)
    proof, train = find_clips(sample_clips("held_out")), find_clips(sample_clips("train"))
    height, width = proof[0].size
    size = (height // network.scale, width // network.scale)
    degradation = described.degradation or "bi"
    reference = Reference(network, proof, degradation, FRAMES.get(student, 16))
    calibration = low_resolution_clips(train, degradation, network.scale, count=3)
    # a step that only remembers frames holds the windowed file's graph
    shares = type(network).step is not WindowNetwork.step and network.window > 1
    wanted = (
        (kind, streaming, precision)
        for kind in all_formats()
        if find_spec(kind.runtime) is not None
        for streaming in ((False, True) if shares else (False,))
        for precision in kind.precisions
    )
    for kind, streaming, precision in islice(wanted, done, None):
        options = {"ios": 18 if streaming else 16}
        order = Order(network, described.as_text(), precision, streaming, (size,), calibration, options)
        target = run / "export" / file_name("student", kind, order)
        try:
            yield Cell(
                student,
                kind,
                precision,
                streaming,
                deliver(order, kind, target, reference),
            )
        except Exception as error:  # a failure is a row, whatever it is
            reason = str(error).splitlines()[0].replace("|", "/")
            yield Cell(student, kind, precision, streaming, None, f"{type(error).__name__}: {reason}")


def shortened(student: str) -> list[str]:
    return ["--set", f"training.steps={STEPS[student]}"] if student in STEPS else []


def page(rows: list[str]) -> str:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "onnx", "onnxruntime", "coremltools"))
    return PAGE.format(
        date=date.today(),
        versions=f"{versions}, Python {platform.python_version()}, {platform.machine()} {platform.system()}",
        commit=commit.stdout.strip() or "unknown",
        vdsr=STEPS["vdsr"],
        d3dnet=STEPS["d3dnet"],
        rows="\n".join(rows),
    )


def run_all(runs: Path) -> None:
    rows = []
    for student in STUDENTS:
        run = runs / f"edvr-{student}"
        if not (run / "student.safetensors").is_file() and main(
            ["train", "--teacher", "edvr", "--student", student, "--out", str(run), *shortened(student)]
        ):
            raise SystemExit(f"{student} could not be trained")
        kept = run / "export" / "rows.md"
        made = kept.read_text(encoding="utf-8").splitlines() if kept.is_file() else []
        for cell in cells(student, run, done=len(made)):
            made.append(cell.row())
            print(made[-1], flush=True)
            kept.write_text("\n".join(made), encoding="utf-8")
        rows += made
    TARGET.write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    run_all(Path(sys.argv[1] if len(sys.argv) > 1 else "runs"))
