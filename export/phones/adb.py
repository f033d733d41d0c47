"""A phone behind adb: what it is, and how to run programs on it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from distill.errors import CheckFailed, InputError
from export.phones.benchmarks import last_line

__all__ = ["COPY_SECONDS", "Adb", "Phone", "attached", "find_adb", "phone_behind"]

_ASK_SECONDS, COPY_SECONDS = 30, 600


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
