"""Latency on an Android phone, over adb: the file and a benchmark program go there, and figures come back.

What the program printed is kept beside the figures. Nothing stays on the phone, whatever happens.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from distill.errors import CheckFailed, ConfigError, DistillError, InputError
from distill.files import sha256_of
from export.android_benchmarks import Benchmark, Figures, Model, benchmark_for, last_line
from export.profile_row import Row
from export.protocol import STANDARD, Protocol

__all__ = ["Adb", "Phone", "PhoneRun", "attached", "find_adb", "phone_behind", "profile_android"]

DEFAULT_SIZE = (120, 180)
"""Height and width of the low-resolution frames where the file leaves them free, as on the host."""

_WRITABLE = "/data/local/tmp"  # the folder that adb may run programs from
_ASK_SECONDS, _COPY_SECONDS, _LOADING_SECONDS = 30, 600, 120
_MACHINES = {183: "arm64-v8a", 40: "armeabi-v7a", 62: "x86_64", 3: "x86"}  # ELF's numbers, Android's names


@dataclass(frozen=True)
class Phone:
    """What a phone says of itself.

    Attributes:
        name: maker and model, such as "Google Pixel 7"; never the serial number.
        chip: the system on a chip, as the phone calls it.
        android: version of the system, such as "14".
        abis: instruction sets that its programs may have, the best first.
        cores: of the processor.
    """

    name: str
    chip: str
    android: str
    abis: tuple[str, ...]
    cores: int

    @property
    def description(self) -> str:
        """In a line."""
        return f"{self.name} ({self.chip}), Android {self.android}, {self.abis[0]}, {self.cores} cores"


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
        told, facts = self.figures, self.model.facts
        first = next(iter(self.model.inputs.values()), None)  # a frame, whatever the mode
        return Row(
            entry=self.path.name,
            format=self.benchmark.format,
            precision=facts.get("precision"),
            mode=facts.get("mode"),
            size=None if first is None else (first[-2], first[-1]),
            scale=int(facts["scale"]) if "scale" in facts else None,
            time_scale=int(facts.get("time_scale", 1)),
            threads=self.threads,
            where="phone",
            device=self.phone.description,
            unit_asked=self.benchmark.unit_asked,
            unit_got=told.unit_got,
            runtime=self.benchmark.runtime,
            input_shapes={name: list(shape) for name, shape in self.model.inputs.items()} or None,
            file_mb=self.path.stat().st_size / 1e6,
            sha256=sha256_of(self.path),
            cold_process=self.benchmark.program,
            load_ms=told.load_ms,
            first_ms=told.first_ms,
            peak_mb=told.peak_mb,
            p50_ms=told.p50_ms,
            p90_ms=told.p90_ms,
            p99_ms=told.p99_ms,
            fps=told.fps,
            warmup_runs=told.warmup_runs,
            runs=told.runs,
            duration_seconds=told.duration_seconds,
        )


def profile_android(
    path: Path,
    program: Path | None,
    *,
    serial: str | None = None,
    size: tuple[int, int] = DEFAULT_SIZE,
    threads: Sequence[int] = (1, 2),
    protocol: Protocol = STANDARD,
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


def find_adb() -> Path:
    """The adb client.

    Raises:
        InputError: there is none.
    """
    places = [os.environ[name] for name in ("ANDROID_HOME", "ANDROID_SDK_ROOT") if os.environ.get(name)]
    for folder in (None, *(str(Path(place) / "platform-tools") for place in places)):
        if found := shutil.which("adb", path=folder):
            return Path(found)
    raise InputError(
        "adb cannot be found in PATH or ANDROID_HOME: install Android's platform-tools (Debian: apt-get install adb)."
    )


@dataclass(frozen=True)
class Adb:
    """An adb client and the phone that it talks to.

    Attributes:
        client: the program.
        serial: of the phone.
    """

    client: Path
    serial: str

    def ask(self, *words: str, seconds: float = _ASK_SECONDS) -> str:
        """What an adb command prints.

        Raises:
            InputError: it failed, or took longer than `seconds`.
        """
        done = _finished([str(self.client), "-s", self.serial, *words], seconds)
        if done.returncode:
            raise InputError(f"adb {words[0]} failed ({last_line(done.stdout)}): see that the phone stays connected.")
        return done.stdout


def attached(client: Path, serial: str | None = None) -> Adb:
    """The phone with that serial number, or the only one.

    Raises:
        InputError: there is none, several, or it is not ready.
    """
    done = _finished([str(client), "devices", "-l"], _ASK_SECONDS)
    _, header, listed = done.stdout.partition("List of devices attached")
    if done.returncode or not header:
        raise InputError(f"adb does not work ({last_line(done.stdout)}): see what `adb devices` says.")
    # "SERIAL  state key:value ..."; the state may be several words
    states = dict(line.split(maxsplit=1) for line in listed.splitlines() if len(line.split()) > 1)
    if not states:
        raise InputError("adb sees no phone: connect one by USB and switch on USB debugging in its developer options.")
    names = ", ".join(f"{each} {_model(state)}".strip() for each, state in states.items())
    if serial is None and len(states) > 1:
        raise InputError(f"adb sees {len(states)} phones: choose one with --serial, of {names}.")
    chosen = next(iter(states)) if serial is None else serial
    if chosen not in states:
        raise InputError(f"adb sees no phone {chosen}: connect it, or choose of {names}.")
    if not re.match(r"device\b", states[chosen]):
        raise InputError(_not_ready(chosen, states[chosen]))
    return Adb(client, chosen)


def phone_behind(adb: Adb) -> Phone:
    """What the attached phone says of itself.

    Raises:
        InputError: it does not answer, or is an emulator, whose latency is no phone's.
    """
    told = dict(re.findall(r"^\[([^]]+)\]: \[([^]]*)\]", adb.ask("shell", "getprop"), re.MULTILINE))

    def first(*names: str) -> str:
        return next((told[name] for name in names if told.get(name)), "unknown")

    maker, model = first("ro.product.manufacturer"), first("ro.product.model")
    phone = Phone(
        name=model if model.lower().startswith(maker.lower()) else f"{maker} {model}",
        chip=" ".join(told[name] for name in ("ro.soc.manufacturer", "ro.soc.model") if told.get(name))
        or first("ro.board.platform", "ro.hardware"),
        android=first("ro.build.version.release"),
        abis=tuple(first("ro.product.cpu.abilist", "ro.product.cpu.abi").split(",")),
        cores=_count(adb.ask("shell", "cat /sys/devices/system/cpu/present")),
    )
    if "1" in (told.get("ro.kernel.qemu"), told.get("ro.boot.qemu")):
        raise InputError(f"{phone.name} is an emulator, whose latency says nothing of a phone: connect a phone.")
    return phone


class _Session:
    """A folder of our own on the phone, see `export.android_benchmarks.Remote`."""

    def __init__(self, adb: Adb, phone: Phone, program: Path, protocol: Protocol) -> None:
        self._adb, self._phone, self._program = adb, phone, program
        self._folder = f"{_WRITABLE}/distill-vsr-{uuid.uuid4().hex[:12]}"
        self._seconds = _LOADING_SECONDS + 2 * protocol.budget_seconds

    @classmethod
    @contextmanager
    def on(cls, adb: Adb, phone: Phone, program: Path, protocol: Protocol) -> Iterator[_Session]:
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
        self._adb.ask("push", *(str(each) for each in files), self._folder + "/", seconds=_COPY_SECONDS)
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
            self._adb.ask("pull", f"{self._folder}/{name}", folder, seconds=_COPY_SECONDS)
            return (Path(folder) / name).read_text(encoding="utf-8", errors="replace")

    def _clean(self) -> None:
        kill = f"test -f {self._folder}/pid && kill -9 $(cat {self._folder}/pid)"
        self._adb.ask("shell", f"{kill}; rm -rf {self._folder}")


def _finished(command: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    """What the command printed on both streams, in order; adb would read our standard input, so it gets none.

    Raises:
        InputError: it cannot be started.
        CheckFailed: it took longer than `seconds`.
    """
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except OSError as error:
        raise InputError(f"{command[0]} cannot be started ({error.strerror or error}): reinstall adb.") from error
    except subprocess.TimeoutExpired as error:
        words = " ".join(word for word in command[1:] if word != "-s")[:60]
        raise CheckFailed(
            f"adb {words} ... did not end within {seconds:.0f} s: see whether the phone is awake."
        ) from error


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


def _not_ready(serial: str, state: str) -> str:
    if state.startswith("unauthorized"):
        return f"The phone {serial} does not trust this computer yet: unlock it and accept its question."
    if state.startswith("no permissions"):
        return f"This user may not open the phone {serial}: install Android's udev rules for USB, and plug it in again."
    return f"The phone {serial} is {state.split()[0]}, not ready: unlock it, or unplug it and plug it in again."


def _model(state: str) -> str:
    found = re.search(r"\bmodel:(\S+)", state)
    return f"({found[1]})" if found else ""


def _count(ranges: str) -> int:
    """Such as "0-3,6" -> 5."""
    spans = re.findall(r"(\d+)(?:-(\d+))?", ranges)
    return sum(int(last or start) - int(start) + 1 for start, last in spans)
