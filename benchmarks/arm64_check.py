"""Exported .onnx files on ARM64 under user-mode emulation, against this host: the numbers, not the speed.

    python benchmarks/arm64_check.py FILE.onnx [FILE.onnx ...] --prefix FOLDER [--size 40x24] [--frames 7] [--threads 1]

The first call fills FOLDER (about 220 MB): qemu's user-mode emulator, an arm64 Python from Debian's packages, and the
aarch64 wheels of the versions of ONNX Runtime and numpy that this host has. Nothing is installed on the host; root is
not needed. Later calls find it there; delete FOLDER to start again. Needs an x86-64 Debian or Ubuntu (apt-get,
dpkg-deb) whose package registry has arm64, and pip.

Each file restores the same frames of a shipped clip here and there; see docs/arm64.md. Exit status 1 where the two
differ by more than the file's precision allows.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

# Runs on the emulated side too: what is imported above must be in the prefix, and the project is not.

Array = NDArray[Any]

EMULATOR = "qemu-aarch64-static"
DEBIAN_PACKAGES = ("python3", "libstdc++6", "qemu-user-static:amd64")
WHEELS = ("onnxruntime", "numpy", "flatbuffers", "packaging", "protobuf")
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")

# a phone's core of some years ago; `max` has SVE, which few phones have and ONNX Runtime has kernels for
CPU = "cortex-a76"
CPUINFO = """\
processor\t: 0
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0b
CPU revision\t: 1
"""

FLOORS_DB = {"fp32": 100.0, "fp16": 55.0, "int8": 45.0}
"""The least agreement by precision: both sides round, and not in the same order."""


def main() -> None:
    options = arguments()
    if options.emulated:
        np.save(options.emulated, restored(options.files[0], np.load(options.frames_from), options.threads))
        return
    prefix = options.prefix.resolve()
    set_up(prefix)
    print(versions(prefix))
    frames = shipped_frames(options.size, options.frames)
    print("file | mode | precision | frames | restored size | max|diff| | PSNR dB | verdict")
    verdicts = [report(path, frames, options.threads, prefix) for path in options.files]
    sys.exit(0 if all(verdicts) else 1)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Numbers of .onnx files on emulated ARM64 against this host's.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--prefix", type=Path, help="folder for the emulated system; filled where it is not yet")
    parser.add_argument("--size", type=size, default=(24, 40), help="WIDTHxHEIGHT of the frames")
    parser.add_argument("--frames", type=int, default=7, help="restored, 16 at most")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--emulated", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--frames-from", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not (options.prefix or options.emulated):
        parser.error("--prefix FOLDER is missing")
    if missing := [str(path) for path in options.files if not path.is_file()]:
        parser.error(f"there is no file {', '.join(missing)}")
    return options


def size(text: str) -> tuple[int, int]:
    """WIDTHxHEIGHT -> (height, width); the clip has 108x60, and files of free size take multiples of 4."""
    width, _, height = text.partition("x")
    sides = int(height), int(width)
    if any(side < 4 or side % 4 or side > limit for side, limit in zip(sides, (60, 108), strict=True)):
        raise argparse.ArgumentTypeError("width and height must be multiples of 4, at most 108x60")
    return sides


def shipped_frames(size: tuple[int, int], count: int) -> Array:
    """Low-resolution frames (count, 1, 3, h, w), float32, RGB in [0, 1]."""
    import torch

    from distill.data import degrade, sample_clips
    from distill.data.video import VideoClip

    clip = VideoClip(sample_clips("held_out") / "road.mp4")
    frames = torch.stack([torch.from_numpy(frame) for frame in clip.frames(0, count)])
    low = degrade(frames.permute(0, 3, 1, 2).float() / 255, "bd")
    height, width = size
    top, left = (low.shape[-2] - height) // 2, (low.shape[-1] - width) // 2
    cropped: Array = low[:, None, :, top : top + height, left : left + width].contiguous().numpy()
    return cropped


def restored(path: Path, frames: Array, threads: int) -> Array:
    """What the file makes of the frames, both sides alike.

    Args:
        path: an .onnx file of `distill export`, windowed or streaming.
        frames: (T, 1, 3, h, w), float32; the edge ones are repeated.
        threads: that compute together.

    Returns:
        (T, 1, 3, scale*h, scale*w), float32.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    return np.stack([dict(zip(names, outputs, strict=True))["restored"] for outputs in runs(session, frames)])


def runs(session: Any, frames: Array) -> Iterator[Sequence[Array]]:
    """The outputs for each frame in turn."""
    half = int(session.get_modelmeta().custom_metadata_map["window"]) // 2
    padded = [*[frames[0]] * half, *frames, *[frames[-1]] * half]
    inputs = {each.name: each for each in session.get_inputs()}
    if "frame" not in inputs:
        for start in range(len(frames)):
            window = padded[start : start + 2 * half + 1]
            yield session.run(None, {f"frame_{place}": frame for place, frame in enumerate(window)})
        return
    memories = {name: zeros(each, frames.shape[-2:]) for name, each in inputs.items() if name != "frame"}
    names = [each.name for each in session.get_outputs()]
    for place, frame in enumerate(padded):
        outputs = session.run(None, {"frame": frame, **memories})
        memories = {name: outputs[names.index(f"next_{name}")] for name in memories}
        if place >= 2 * half:
            yield outputs


def zeros(memory: Any, size: tuple[int, ...]) -> Array:
    """An empty memory; free sides are called `height`, `4*width` and so on."""
    sides = dict(zip(("height", "width"), size, strict=True))
    shape = []
    for extent in memory.shape:
        factor, _, side = str(extent).rpartition("*")
        shape.append(int(factor or 1) * sides[side] if side in sides else int(extent))
    return np.zeros(shape, {"tensor(float)": np.float32, "tensor(float16)": np.float16}[memory.type])


def report(path: Path, frames: Array, threads: int, prefix: Path) -> bool:
    """Print one row; whether both sides agree."""
    facts = facts_of(path, frames.shape[-2:])
    here, there = restored(path, frames, threads), emulated(path, frames, threads, prefix)
    largest, psnr = differences(here, there)
    agrees = psnr >= FLOORS_DB[facts["precision"]]  # not where a side is not finite
    cells = [path.name, facts["mode"], facts["precision"], len(frames), "x".join(map(str, here.shape[:-3:-1]))]
    print(*cells, f"{largest:.1e}", f"{psnr:.1f}", "ok" if agrees else "DIFFERS", sep=" | ", flush=True)
    return agrees


def facts_of(path: Path, size: tuple[int, ...]) -> Mapping[str, str]:
    """What the file says of itself; leaves with one sentence where it cannot be run on frames of that size."""
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's exceptions have no other base
        sys.exit(f"ONNX Runtime cannot load {path}: {str(error).splitlines()[0]}")
    facts: Mapping[str, str] = session.get_modelmeta().custom_metadata_map
    if not facts.keys() >= {"window", "mode", "precision"}:
        sys.exit(f"{path} was not written by distill-vsr.")
    taken = session.get_inputs()[0].shape[-2:]
    if any(isinstance(side, int) and side != given for side, given in zip(taken, size, strict=True)):
        sys.exit(f"{path} takes frames of {taken[1]}x{taken[0]}: say so by --size.")
    return facts


def differences(here: Array, there: Array) -> tuple[float, float]:
    """The largest one, and PSNR in dB for a range of 1; not a number where a side has none."""
    difference = np.abs(here.astype(np.float64) - there)
    error = float(np.square(difference).mean())
    return float(difference.max()), math.inf if error == 0 else -10 * math.log10(error)


def emulated(path: Path, frames: Array, threads: int, prefix: Path) -> Array:
    """`restored`, by the emulated Python."""
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "frames.npy", Path(folder) / "restored.npy"
        np.save(given, frames)
        settings = ["--emulated", str(made), "--frames-from", str(given), "--threads", str(threads)]
        script = [str(Path(__file__).resolve()), str(path.resolve()), *settings]
        run([*guest_python(prefix), *script], f"Restoring with {path.name} on emulated ARM64", guest(prefix))
        result: Array = np.load(made)
        return result


def guest_python(prefix: Path) -> list[str]:
    root = prefix / "root"
    return [str(root / "usr/bin" / EMULATOR), "-L", str(root), "-cpu", CPU, str(root / "usr/bin/python3")]


def guest(prefix: Path) -> Mapping[str, str]:
    # one thread at a time is emulated faithfully and gently; the wheels are found without an installation
    return os.environ | {"PYTHONPATH": str(prefix / "site"), "OPENBLAS_NUM_THREADS": "1", "PYTHONNOUSERSITE": "1"}


def versions(prefix: Path) -> str:
    """What runs on both sides, for the record."""
    qemu = run([guest_python(prefix)[0], "--version"], "Starting qemu").splitlines()[0]
    code = "import platform, numpy, onnxruntime as o; print(platform.machine(), 'Python', platform.python_version(), "
    code += "'numpy', numpy.__version__, 'onnxruntime', o.__version__)"
    there = run([*guest_python(prefix), "-c", code], "Starting the emulated Python", guest(prefix)).strip()
    return f"{qemu}, -cpu {CPU}: {there}; host: onnxruntime {onnxruntime.__version__}"


def set_up(prefix: Path) -> None:
    """Fill the prefix, unless it holds what is wanted."""
    wanted = {name: version(name) for name in WHEELS[:2]} | {"packages": " ".join(DEBIAN_PACKAGES)}
    done = prefix / "filled.json"
    if done.exists() and json.loads(done.read_text()) == wanted:
        return
    if missing := [name for name in ("apt-get", "dpkg-deb") if shutil.which(name) is None]:
        sys.exit(f"{' and '.join(missing)} cannot be found: the set-up needs an x86-64 Debian or Ubuntu.")
    if os.uname().machine != "x86_64":
        sys.exit(f"The emulator is for x86-64, but this host is {os.uname().machine}.")
    for part in ("root", "site"):
        shutil.rmtree(prefix / part, ignore_errors=True)
    unpack_packages(prefix)
    (prefix / "root/proc").mkdir(exist_ok=True)
    (prefix / "root/proc/cpuinfo").write_text(CPUINFO)  # ONNX Runtime chooses its kernels by it
    unpack_wheels(prefix)
    done.write_text(json.dumps(wanted))


def unpack_packages(prefix: Path) -> None:
    """Debian's packages with what they need, found by apt-get without touching the host's own state."""
    apt, archives = prefix / "apt", prefix / "apt/cache/archives"
    for folder in (apt / "state/lists/partial", archives / "partial", prefix / "root"):
        folder.mkdir(parents=True, exist_ok=True)
    (apt / "status").write_text("")  # nothing is installed
    (apt / "apt.conf").write_text(
        'APT::Architecture "arm64";\nAPT::Architectures { "arm64"; "amd64"; };\nDebug::NoLocking "true";\n'
        f'Dir::State "{apt}/state";\nDir::State::status "{apt}/status";\nDir::Cache "{apt}/cache";\n'
    )
    environment = os.environ | {"APT_CONFIG": str(apt / "apt.conf"), "DEBIAN_FRONTEND": "noninteractive"}
    print("fetching Debian's packages ...", flush=True)
    run(["apt-get", "update"], "Reading the lists of arm64 packages", environment)
    fetch = ["apt-get", "install", "--download-only", "--yes", "--no-install-recommends", *DEBIAN_PACKAGES]
    run(fetch, "Fetching arm64 packages", environment)
    for package in sorted(archives.glob("*.deb")):
        run(["dpkg-deb", "--extract", str(package), str(prefix / "root")], f"Unpacking {package.name}")
    for other in (prefix / "root/usr/bin").glob("qemu-*"):
        if other.name != EMULATOR:
            other.unlink()
    shutil.rmtree(apt)


def unpack_wheels(prefix: Path) -> None:
    """The host's versions of ONNX Runtime and numpy, for the emulated Python."""
    python = (prefix / "root/usr/bin/python3").readlink().name.removeprefix("python")
    pinned = [f"{name}=={version(name)}" for name in WHEELS[:2]] + list(WHEELS[2:])
    target = ["--target", str(prefix / "site"), "--only-binary=:all:", "--no-deps", "--python-version", python]
    target += [word for platform in PLATFORMS for word in ("--platform", platform)]
    print("fetching aarch64 wheels ...", flush=True)
    run([sys.executable, "-m", "pip", "install", "--quiet", *target, *pinned], "Fetching aarch64 wheels")


def run(command: Sequence[str], what: str, environment: Mapping[str, str] | None = None) -> str:
    """Its output; leaves with one sentence where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        reason = ((done.stderr or done.stdout).strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        sys.exit(f"{what} failed: {reason}")
    return done.stdout


if __name__ == "__main__":
    main()
