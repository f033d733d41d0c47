"""Latency on an Android phone, over adb: the file and a benchmark program go there, and figures come back.

What the program printed is kept beside the figures. Nothing stays on the phone, whatever happens.
"""

from __future__ import annotations

import shlex
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from distill.errors import CheckFailed, ConfigError, DistillError, InputError
from distill.files import sha256_of
from export.latency.measuring import DEFAULT_SIZE
from export.latency.row import Execution, Row, StoredFile, Subject
from export.latency.timing import STANDARD, TimingProtocol
from export.phones.adb import COPY_SECONDS, Adb, Phone, _finished, attached, find_adb, phone_behind
from export.phones.benchmarks import Benchmark, Figures, Model, benchmark_for, last_line

__all__ = ["PhoneRun", "profile_android"]

_WRITABLE = "/data/local/tmp"  # the folder that adb may run programs from
_LOADING_SECONDS = 120
_MACHINES = {183: "arm64-v8a", 40: "armeabi-v7a", 62: "x86_64", 3: "x86"}  # ELF's numbers, Android's names


@dataclass(frozen=True)
class PhoneRun:
    """What one number of threads of a phone took.

    Attributes:
        phone: that ran it.
        path: the file, here.
        benchmark: the program that timed it.
        model: what is known of the file.
        threads: that computed together.
        figures: that came back.
        output: all that the program printed.
    """

    phone: Phone
    path: Path
    benchmark: Benchmark
    model: Model
    threads: int
    figures: Figures
    output: str

    def row(self) -> Row:
        """For a report."""
        facts = self.model.facts
        first = next(iter(self.model.inputs.values()), None)  # a frame, whatever the mode
        return Row(
            Subject(
                self.path.name,
                self.benchmark.format,
                facts.get("precision"),
                facts.get("mode"),
                None if first is None else (first[-2], first[-1]),
                int(facts["scale"]) if "scale" in facts else None,
                int(facts.get("time_scale", 1)),
            ),
            self.threads,
            where="phone",
            device=self.phone.description,
            file=StoredFile(self.path.stat().st_size / 1e6, sha256_of(self.path)),
            execution=Execution(
                self.benchmark.unit_asked,
                self.figures.unit_got,
                self.benchmark.runtime,
                input_shapes={name: list(shape) for name, shape in self.model.inputs.items()} or None,
            ),
            cold_start=self.figures.cold_start,
            latency=self.figures.latency,
        )


def profile_android(
    path: Path,
    program: Path | None,
    *,
    serial: str | None = None,
    size: tuple[int, int] = DEFAULT_SIZE,
    threads: Sequence[int] = (1, 2),
    protocol: TimingProtocol = STANDARD,
) -> list[PhoneRun]:
    """Time an exported file on an attached phone, one result for each number of threads.

    Args:
        path: an .onnx, .ort or .tflite file.
        program: a benchmark program built for the phone: onnxruntime_perf_test, or benchmark_model for .tflite. Shared
            libraries of its runtime that lie beside it go along.
        serial: of the phone as `adb devices` lists it; None where only one is attached.
        size: (height, width) of the low-resolution frames, for a file that leaves them free.
        threads: each at least 1.
        protocol: how often to run; benchmark_model ends its warm-up and its runs after `budget_seconds` each.

    Raises:
        InputError: file, program, adb or phone cannot be used as they are.
        ConfigError: no thread.
        CheckFailed: the program failed on the phone, took too long, or told nothing that is understood.
    """
    if not threads or min(threads) < 1:
        raise ConfigError(f"The thread counts are {list(threads)}, but there must be one or more, each at least 1.")
    benchmark = benchmark_for(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist: give a file that `distill export` wrote.")
    abi = _abi_of(program, benchmark)
    model = benchmark.model(path, size)
    adb = attached(find_adb(), serial)
    phone = phone_behind(adb)
    if abi not in phone.abis:
        raise InputError(f"{program} is built for {abi}, but the {phone.name} runs {', '.join(phone.abis)}.")
    assert program is not None
    results = []
    with _Session.on(adb, phone, program, protocol) as session:
        session.send(path, program, *sorted(program.parent.glob(benchmark.libraries)))
        for count in threads:
            figures, output = benchmark.measure(session, model, count, protocol)
            results.append(PhoneRun(phone, path, benchmark, model, count, figures, output))
    return results


class _Session:
    """A folder of our own on the phone, see `export.phones.benchmarks.Remote`."""

    def __init__(self, adb: Adb, phone: Phone, program: Path, protocol: TimingProtocol) -> None:
        self._adb, self._phone, self._program = adb, phone, program
        self._folder = f"{_WRITABLE}/distill-vsr-{uuid.uuid4().hex[:12]}"
        self._seconds = _LOADING_SECONDS + 2 * protocol.budget_seconds

    @classmethod
    @contextmanager
    def on(cls, adb: Adb, phone: Phone, program: Path, protocol: TimingProtocol) -> Iterator[_Session]:
        """A session that leaves nothing behind."""
        session = cls(adb, phone, program, protocol)
        try:
            adb.ask("shell", f"mkdir {session._folder}")
            yield session
        except BaseException:  # Ctrl-C too
            with suppress(DistillError):
                session._clean()
            raise
        session._clean()

    def send(self, *files: Path) -> None:
        self._adb.ask("push", *(str(each) for each in files), self._folder + "/", seconds=COPY_SECONDS)
        self._adb.ask("shell", f"chmod 755 {self._folder}/{shlex.quote(self._program.name)}")

    def call(self, *arguments: str) -> str:
        # the number of the process is kept while it runs, as it outlives a client that is interrupted
        command = shlex.join([f"./{self._program.name}", *arguments])
        started = f"""LD_LIBRARY_PATH={self._folder} sh -c 'echo $$ > pid && exec "$@"' sh {command}"""
        whole = f"cd {self._folder} && {{ {started}; status=$?; rm -f pid; exit $status; }}"
        done = _finished([str(self._adb.client), "-s", self._adb.serial, "shell", whole], self._seconds)
        if done.returncode:
            raise CheckFailed(f"{self._program.name} failed on the {self._phone.name}: {last_line(done.stdout)}")
        return done.stdout

    def fetch(self, name: str) -> str:
        with TemporaryDirectory() as folder:
            self._adb.ask("pull", f"{self._folder}/{name}", folder, seconds=COPY_SECONDS)
            return (Path(folder) / name).read_text(encoding="utf-8", errors="replace")

    def _clean(self) -> None:
        kill = f"test -f {self._folder}/pid && kill -9 $(cat {self._folder}/pid)"
        self._adb.ask("shell", f"{kill}; rm -rf {self._folder}")


def _abi_of(program: Path | None, benchmark: Benchmark) -> str:
    """The instruction set that a program is built for.

    Raises:
        InputError: it is not given, or is no program for Android.
    """
    wanted = f"give --benchmark the {benchmark.program} built for the phone ({benchmark.source})."
    if program is None:
        raise InputError(f"No benchmark program is named, and none comes with any wheel: {wanted}")
    try:
        with program.open("rb") as file:
            start = file.read(20)
    except OSError as error:
        raise InputError(f"{program} cannot be read ({error.strerror or error}): {wanted}") from error
    machine = int.from_bytes(start[18:20], "little")
    if start[:4] != b"\x7fELF" or machine not in _MACHINES:
        raise InputError(f"{program} is no program that Android runs: {wanted}")
    return _MACHINES[machine]
