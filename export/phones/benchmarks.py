"""The benchmark programs that a phone runs: how each is called, and what its output means.

Formats of output as of 2026, read off the programs' sources and off outputs that were published:
onnxruntime_perf_test, microsoft/onnxruntime, onnxruntime/test/perftest (README.md, performance_runner.cc,
command_args_parser.cc); benchmark_model, tensorflow/tensorflow, tensorflow/lite/tools/benchmark (README.md,
benchmark_model.cc) and tensorflow/core/util/stats_calculator.h. Outputs: tests/unit/phones/recorded_android.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from distill.errors import CheckFailed, InputError
from export.latency.row import ColdStart, Latency, latency_of
from export.latency.timing import Timing, TimingProtocol

__all__ = ["Benchmark", "Figures", "Model", "Remote", "benchmark_for", "is_timed", "last_line", "perf_test_summary"]


class Remote(Protocol):
    """A folder on a phone that holds the benchmark and the model."""

    def call(self, *arguments: str) -> str:
        """Run the benchmark there; what it printed."""

    def fetch(self, name: str) -> str:
        """The text of a file that it wrote there."""


@dataclass(frozen=True)
class Figures:
    """What a benchmark told of one number of threads.

    Attributes:
        unit_got: the provider or delegate that ran.
        cold_start: in a fresh process; benchmark_model's memory is its growth since the program's start.
        latency: of the counted runs.
    """

    unit_got: str
    cold_start: ColdStart
    latency: Latency


@dataclass(frozen=True)
class Model:
    """The file that is measured.

    Attributes:
        name: its name, there as here.
        facts: what it says of itself, see `export.interfaces.Order.facts`; empty where it cannot be asked here.
        inputs: shapes by name, the free sides filled in.
        free: its free sides by name, such as "4*height", and what they are set to.
    """

    name: str
    facts: Mapping[str, str]
    inputs: Mapping[str, tuple[int, ...]]
    free: Mapping[str, int]


class Benchmark(ABC):
    """A program that times a model.

    Attributes:
        program: its usual name.
        libraries: pattern of shared libraries that it may need beside it.
        format: of the models, as rows call it.
        runtime: inside it.
        unit_asked: the provider or delegate it is told to use.
        source: how to come by it.
    """

    program: str
    libraries: str
    format: str
    runtime: str
    unit_asked: str
    source: str

    @abstractmethod
    def model(self, path: Path, size: tuple[int, int]) -> Model:
        """What there is to know of a file before it is measured.

        Args:
            path: the file.
            size: (height, width) of the low-resolution frames, for a file that leaves them free.

        Raises:
            InputError: the file cannot be used.
        """

    @abstractmethod
    def measure(self, remote: Remote, model: Model, threads: int, protocol: TimingProtocol) -> tuple[Figures, str]:
        """Time the model.

        Returns:
            The figures, and all that the program printed.

        Raises:
            CheckFailed: its output is not understood.
        """


class PerfTest(Benchmark):
    """ONNX Runtime's onnxruntime_perf_test, on the CPU.

    It warms up with one run only and has no least duration. So a first process tells load, first run and pace; a second
    runs long enough and writes each run's seconds to a file, the first of which are dropped here as warm-up.
    """

    program, libraries, format = "onnxruntime_perf_test", "libonnxruntime*.so*", "onnx"
    runtime, unit_asked = "onnxruntime", "CPUExecutionProvider"
    source = "ONNX Runtime's `build.sh --android --android_abi arm64-v8a --android_api 27 --config Release` builds it"

    def model(self, path: Path, size: tuple[int, int]) -> Model:
        from export.to_onnx.session import open_session

        try:
            session = open_session(path, 1)
        except Exception as error:  # the runtime's exceptions have no other base
            reason = str(error).splitlines()[0]
            raise InputError(f"ONNX Runtime cannot load {path} ({reason}): export it again.") from error
        facts = dict(session.get_modelmeta().custom_metadata_map)
        multiple = int(facts.get("size_multiple", 1))
        height, width = (-(-side // multiple) * multiple for side in size)
        shapes = {each.name: each.shape for each in session.get_inputs()}
        names = {extent for shape in shapes.values() for extent in shape if isinstance(extent, str)}
        free = {name: _extent(name, height, width, path) for name in sorted(names)}
        inputs = {name: tuple(free.get(extent, extent) for extent in shape) for name, shape in shapes.items()}
        return Model(path.name, facts, inputs, free)

    def measure(self, remote: Remote, model: Model, threads: int, protocol: TimingProtocol) -> tuple[Figures, str]:
        # -I and -S: random inputs, or they would be uninitialised memory; free sides are 1 unless told otherwise
        settings = ["-e", "cpu", "-I", "-S", "1", "-x", str(threads), "-m", "times"]
        settings += [word for name, extent in model.free.items() for word in ("-f", f"{name}:{extent}")]
        begun = remote.call(*settings, "-r", str(max(protocol.warmup, 1)), model.name, f"begun-{threads}.csv")
        cold = perf_test_summary(begun)
        pace = cold["Total inference time cost"] / cold["Total inference requests"]
        wanted = max(protocol.minimum_runs, math.ceil(protocol.minimum_seconds / pace))
        runs = max(1, min(wanted, int(protocol.budget_seconds / pace)))
        written = f"runs-{threads}.csv"
        run = remote.call(*settings, "-r", str(protocol.warmup + runs), model.name, written)
        seconds = _seconds_of_runs(remote.fetch(written))
        if len(seconds) != protocol.warmup + runs:
            raise CheckFailed(
                f"{self.program} ran {len(seconds)} times instead of {protocol.warmup + runs}: try again."
            )
        counted = seconds[protocol.warmup :]
        timing = Timing(protocol.warmup, sum(seconds[: protocol.warmup]), counted, sum(counted))
        told = Figures(
            unit_got=self.unit_asked,  # told to use no other, it has no other to fall back to
            cold_start=ColdStart(
                first_ms=cold["First inference time cost"] * 1e3,
                load_ms=cold["Session creation time cost"] * 1e3,
                peak_mb=perf_test_summary(run)["Peak working set size"] / 1e6,
                cold_process=self.program,
            ),
            latency=latency_of(timing),
        )
        return told, begun + run


class BenchmarkModel(Benchmark):
    """TensorFlow Lite's benchmark_model, on the CPU with the delegate that it chooses itself.

    It tells no 90th and 99th percentile, and in older builds no median either.
    """

    program, libraries, format = "benchmark_model", "libLiteRt*.so", "litert"
    runtime, unit_asked = "tflite", "CPU"
    source = (
        "TensorFlow's `bazel build -c opt --config=android_arm64 //tensorflow/lite/tools/benchmark:benchmark_model`"
    )

    def model(self, path: Path, size: tuple[int, int]) -> Model:
        return Model(path.name, {}, {}, {})

    def measure(self, remote: Remote, model: Model, threads: int, protocol: TimingProtocol) -> tuple[Figures, str]:
        output = remote.call(
            f"--graph={model.name}",
            f"--num_threads={threads}",
            f"--warmup_runs={protocol.warmup}",
            "--warmup_min_secs=0",
            f"--num_runs={protocol.minimum_runs}",
            f"--min_secs={protocol.minimum_seconds}",
            f"--max_secs={protocol.budget_seconds}",
        )
        return _tflite_figures(output, self.program), output


_BENCHMARKS = {".onnx": PerfTest(), ".ort": PerfTest(), ".tflite": BenchmarkModel()}


def is_timed(path: Path) -> bool:
    """Whether there is a program that times files of this name."""
    return path.suffix in _BENCHMARKS


def benchmark_for(path: Path) -> Benchmark:
    """The program that times files of this name.

    Raises:
        InputError: there is none.
    """
    try:
        return _BENCHMARKS[path.suffix]
    except KeyError:
        raise InputError(
            f"{path} cannot be timed on Android: give a file ending in {', '.join(_BENCHMARKS)}."
        ) from None


def last_line(output: str) -> str:
    """Of what a program printed; its reason where it failed."""
    return (output.strip().splitlines() or ["it printed nothing"])[-1].strip()


_NUMBER = r"[-+\d.]+(?:e[-+]\d+)?"
_SECONDS = {"s": 1.0, "ms": 1e-3}


def perf_test_summary(output: str) -> dict[str, float]:
    """What onnxruntime_perf_test prints at its end: lines "Name: number unit"; times become seconds.

    Raises:
        CheckFailed: there is no such end.
    """
    lines = re.findall(rf"^([A-Z][\w ]*?) ?: ?({_NUMBER}) ?(s|ms|bytes|%)? *\r?$", output, re.MULTILINE)
    told = {name: float(number) * _SECONDS.get(unit, 1) for name, number, unit in lines}
    needed = ("Session creation time cost", "First inference time cost", "Total inference time cost")
    if missing := [name for name in (*needed, "Total inference requests", "Peak working set size") if name not in told]:
        raise CheckFailed(
            f"The output of onnxruntime_perf_test has no line {missing[0]!r} ({last_line(output)}): build it from "
            "a newer ONNX Runtime."
        )
    return told


def _seconds_of_runs(text: str) -> list[float]:
    """Lines "model,seconds,peak bytes,CPU %,number" of a result file."""
    return [float(line.split(",")[1]) for line in text.splitlines() if line.count(",") == 4]


def _tflite_figures(output: str, program: str) -> Figures:
    """What benchmark_model logs.

    Raises:
        CheckFailed: it did not get as far as its figures.
    """
    timings = re.search(
        rf"Inference timings in us: Init: ({_NUMBER}), First inference: ({_NUMBER}), "
        rf"Warmup \(avg\): {_NUMBER}, Inference \(avg\): ({_NUMBER})",
        output,
    )
    statistics = [
        {name: float(number) for name, number in re.findall(rf"(\w+)=({_NUMBER})", line)}
        for line in re.findall(r"count=\d.*", output)
    ]
    if timings is None or len(statistics) < 2:
        raise CheckFailed(
            f"benchmark_model told no figures ({last_line(output)}): see whether it runs the file by hand."
        )
    load, first, mean = (float(number) for number in timings.groups())
    warmup, counted = statistics[-2:]

    memory = re.search(rf"[Mm]emory footprint .*\(MB\): init=\S+ overall=({_NUMBER})", output)
    return Figures(
        unit_got=_delegate(output),
        cold_start=ColdStart(
            first_ms=first / 1e3,
            load_ms=load / 1e3,
            peak_mb=float(memory[1]) * 1024**2 / 1e6 if memory else None,
            cold_process=program,
        ),
        latency=Latency(
            p50_ms=counted["median"] / 1e3 if "median" in counted else None,
            p90_ms=None,
            p99_ms=None,
            fps=1e6 / mean,
            warmup_runs=int(warmup["count"]),
            runs=int(counted["count"]),
            duration_seconds=mean * counted["count"] / 1e6,
        ),
    )


def _delegate(output: str) -> str:
    """Which delegate took how much of the network."""
    taken = re.findall(r"Replacing (\d+)(?: out of (\d+))? node\(s\) with delegate \((\w+)\)", output)
    return ", ".join(f"{name}, {some}{f' of {all_}' if all_ else ''} nodes" for some, all_, name in taken) or "CPU"


def _extent(name: str, height: int, width: int, path: Path) -> int:
    """A free side such as "4*height"."""
    factor, _, side = name.rpartition("*")
    sides = {"height": height, "width": width}
    if side not in sides or not (factor or "1").isdigit():
        raise InputError(f"{path} leaves {name!r} free, which is no size of a frame: export it with --size.")
    return int(factor or 1) * sides[side]
