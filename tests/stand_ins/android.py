"""A stand-in for a phone that is not here: its files are a folder, its shell is this host's, its programs replay.

Behind either a stand-in for the adb client (`install_client`), or the real adb client, which talks to it over adb's own
protocol (`Daemon`). What is played back is in unit/phones/recorded_android; each file says where it is from.
"""

from __future__ import annotations

import json
import queue
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

from tests.places import ROOT

RECORDED = ROOT / "tests" / "unit" / "phones" / "recorded_android"
WRITABLE = "/data/local/tmp"
ARM64_PROGRAM = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 3, 183) + bytes(44)

# what a pushed ARM program becomes: a phone would run it, here its arguments are noted and an output is played back
_REPLAY = """#!{python}
import json, os, sys, time
from pathlib import Path

state = Path({state!r})
with (state / "calls").open("a") as calls:
    calls.write(json.dumps([Path(sys.argv[0]).name, *sys.argv[1:]]) + "\\n")
print((state / "output").read_text(), flush=True)
if (state / "hangs").exists():
    (state / "hanging").write_text(str(os.getpid()))
    time.sleep(600)
if (state / "seconds").exists():  # writes a result file, as onnxruntime_perf_test does
    count = int(sys.argv[sys.argv.index("-r") + 1])
    fast, slow = map(float, (state / "seconds").read_text().split())
    with open(sys.argv[-1], "a") as results:
        for run in range(count):  # the first ones are slow
            results.write(f"folder,{{slow if run < 3 else fast + run / 1e6:.6g}},271122432,11,{{run}}\\n")
        results.write("\\nMin Latency: 0.0958204 s\\n")
sys.exit((state / "exits").exists())
"""


def recorded(name: str) -> str:
    """A file of the folder recorded_android without the lines that say where it is from."""
    lines = (RECORDED / name).read_text().splitlines(keepends=True)
    assert "ecorded on a phone, not by us" in lines[0] or "not recorded" in lines[0] + lines[1]
    return "".join(line for line in lines if not line.startswith("# "))


class Phone:
    """Files, shell and programs; `output`, `seconds`, `exits` and `hangs` in the folder `state` steer the programs."""

    def __init__(self, folder: Path) -> None:
        self.state, self.files, programs = folder / "state", folder / "files", folder / "programs"
        for each in (self.state, self.files, programs):
            each.mkdir(parents=True, exist_ok=True)
        self.programs = programs

    def answer(self, output: str, seconds: str | None = None) -> Phone:
        """Programs print this; where `seconds` names a usual and a slow run, they write a result file too."""
        (self.state / "output").write_text(output)
        if seconds:
            (self.state / "seconds").write_text(seconds)
        (self.state / "properties").write_text(recorded("getprop.txt"))
        (self.state / "present").write_text("0-7\n")
        (self.programs / "getprop").write_text(f"#!/bin/sh\ncat {self.state}/properties\n")
        (self.programs / "getprop").chmod(0o755)
        return self

    def calls(self) -> list[list[str]]:
        """What the programs were called with, one list a call."""
        return [json.loads(line) for line in (self.state / "calls").read_text().splitlines()]

    def left(self) -> list[Path]:
        return list(self.files.iterdir())

    def shell(self, command: str) -> subprocess.Popen[bytes]:
        command = self._here(command).replace("/sys/devices/system/cpu/present", str(self.state / "present"))
        path = {"PATH": f"{self.programs}:/usr/bin:/bin"}
        return subprocess.Popen(
            ["sh", "-c", command], env=path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def send(self, path: str, content: bytes) -> None:
        if content.startswith(b"\x7fELF"):
            content = _REPLAY.format(python=sys.executable, state=str(self.state)).encode()
        Path(self._here(path)).write_bytes(content)

    def receive(self, path: str) -> bytes | None:
        place = Path(self._here(path))
        return place.read_bytes() if place.is_file() else None

    def mode(self, path: str) -> int:
        place = Path(self._here(path))
        return place.stat().st_mode if place.exists() else 0

    def _here(self, text: str) -> str:
        return text.replace(WRITABLE, str(self.files))


def install_client(folder: Path, phone: Phone, devices: str) -> Path:
    """A program `adb` that does as the real client does, for one phone; notes what it was asked in folder/asked."""
    folder.mkdir()
    (folder / "devices").write_text(f"List of devices attached\n{devices}\n")
    client = folder / "adb"
    source = [f"#!{sys.executable}", "import sys", f"sys.path.insert(0, {str(ROOT)!r})"]
    source.append(f"from tests.stand_ins.android import client; client({str(folder)!r}, {str(phone.state.parent)!r})")
    client.write_text("\n".join(source))
    client.chmod(0o755)
    return client


def client(folder: str, phone_folder: str) -> None:
    """The stand-in client: what its program does."""
    words = sys.argv[1:]
    with (Path(folder) / "asked").open("a") as asked:
        asked.write(json.dumps(words) + "\n")
    if words == ["devices", "-l"]:
        sys.stdout.write((Path(folder) / "devices").read_text())
        return
    phone = Phone(Path(phone_folder))
    assert words[:2] == ["-s", "SERIAL42"]
    verb, *rest = words[2:]
    if verb == "shell":
        process = phone.shell(" ".join(rest))
        sys.stdout.write(process.communicate()[0].decode())
        sys.exit(process.returncode)
    if verb == "push":
        for each in rest[:-1]:
            phone.send(rest[-1] + Path(each).name, Path(each).read_bytes())
        return
    content = phone.receive(rest[0])
    if content is None:
        sys.exit(f"adb: error: failed to stat remote object '{rest[0]}': No such file or directory")
    (Path(rest[1]) / Path(rest[0]).name).write_bytes(content)


_HEADER = struct.Struct("<6I")
_CONNECT, _OPEN, _OKAY, _CLOSE, _WRITE = (
    int.from_bytes(name, "little") for name in (b"CNXN", b"OPEN", b"OKAY", b"CLSE", b"WRTE")
)
_BANNER = b"device::ro.product.name=maker;ro.product.model=Model 7;ro.product.device=seven;features=shell_v2,cmd"


class Daemon(threading.Thread):
    """What adbd does on a phone, without a question about trust: the real client connects to its port.

    Protocol: Android's own description, packages/modules/adb (protocol.txt, OVERVIEW.TXT, SYNC.TXT).
    """

    def __init__(self, phone: Phone) -> None:
        super().__init__(daemon=True)
        self.phone = phone
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._sending = threading.Lock()
        self._streams: dict[int, _Stream] = {}

    def run(self) -> None:
        try:
            self._line, _ = self._server.accept()
            while True:
                self._take(*self._read())
        except (OSError, EOFError):
            return

    def stop(self) -> None:
        self._server.close()
        if hasattr(self, "_line"):
            self._line.close()

    def send(self, command: int, first: int, second: int, content: bytes = b"") -> None:
        header = _HEADER.pack(command, first, second, len(content), sum(content), command ^ 0xFFFFFFFF)
        with self._sending:
            self._line.sendall(header + content)

    def _read(self) -> tuple[int, int, int, bytes]:
        command, first, second, length, *_ = _HEADER.unpack(self._exactly(_HEADER.size))
        return command, first, second, self._exactly(length)

    def _exactly(self, length: int) -> bytes:
        parts = b""
        while len(parts) < length:
            part = self._line.recv(length - len(parts))
            if not part:
                raise EOFError
            parts += part
        return parts

    def _take(self, command: int, theirs: int, ours: int, content: bytes) -> None:
        if command == _CONNECT:
            self.send(_CONNECT, 0x01000000, 4096, _BANNER)
        elif command == _OPEN:
            stream = self._streams[theirs] = _Stream(self, theirs, content.rstrip(b"\0").decode())
            stream.start()
        elif theirs in self._streams:
            if command == _WRITE:
                self.send(_OKAY, theirs, theirs)
            self._streams[theirs].inbox.put((command, content))


class _Stream(threading.Thread):
    """One service that the client asked for; its number is the client's."""

    def __init__(self, daemon: Daemon, number: int, service: str) -> None:
        super().__init__(daemon=True)
        self.inbox: queue.Queue[tuple[int, bytes]] = queue.Queue()
        self._daemon, self._number, self._service, self._rest = daemon, number, service, b""

    def run(self) -> None:
        self._daemon.send(_OKAY, self._number, self._number)
        name, _, argument = self._service.partition(":")
        try:
            if name.startswith("shell"):
                self._shell(argument)
            elif name == "sync":
                self._sync()
        except (OSError, EOFError):
            pass
        self._daemon.send(_CLOSE, self._number, self._number)

    def _shell(self, command: str) -> None:
        process = self._daemon.phone.shell(command)
        output = process.communicate()[0]
        for start in range(0, len(output), 4000):
            part = output[start : start + 4000]
            self._write(b"\1" + struct.pack("<I", len(part)) + part)  # 1: standard output
        self._write(b"\3" + struct.pack("<I", 1) + bytes([process.returncode & 0xFF]))  # 3: exit status

    def _sync(self) -> None:
        while (request := self._exactly(8))[:4] != b"QUIT":
            argument = self._exactly(struct.unpack("<I", request[4:])[0]).decode()
            if request[:4] in (b"STAT", b"LSTA"):
                content = self._daemon.phone.receive(argument) or b""
                self._write(b"STAT" + struct.pack("<3I", self._daemon.phone.mode(argument), len(content), 0))
            elif request[:4] == b"SEND":
                self._receive_file(argument.rpartition(",")[0])
            elif request[:4] == b"RECV":
                content = self._daemon.phone.receive(argument) or b""
                for start in range(0, len(content), 4000):
                    part = content[start : start + 4000]
                    self._write(b"DATA" + struct.pack("<I", len(part)) + part)
                self._write(b"DONE" + struct.pack("<I", 0))

    def _receive_file(self, path: str) -> None:
        content = b""
        while (head := self._exactly(8))[:4] == b"DATA":
            content += self._exactly(struct.unpack("<I", head[4:])[0])
        self._daemon.phone.send(path, content)
        self._write(b"OKAY" + struct.pack("<I", 0))

    def _write(self, content: bytes) -> None:
        self._daemon.send(_WRITE, self._number, self._number, content)
        while (answer := self.inbox.get())[0] != _OKAY:
            if answer[0] == _CLOSE:
                raise EOFError
            self._rest += answer[1]

    def _exactly(self, length: int) -> bytes:
        while len(self._rest) < length:
            command, content = self.inbox.get()
            if command == _CLOSE:
                raise EOFError
            self._rest += content
        taken, self._rest = self._rest[:length], self._rest[length:]
        return taken
