"""The folder of one run: its recipe, where it ran, what was measured, what came out."""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from distill import __version__
from distill.errors import ConfigError
from distill.files import replacing

__all__ = ["RunFolder", "environment", "log", "next_free"]

log = logging.getLogger("distill")


class RunFolder:
    """runs/NAME/{config.yaml, command.txt, env.json, log.txt, metrics.jsonl, results.json, checkpoints/, ...}."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last = path / "checkpoints" / "last.pt"
        self.best = path / "checkpoints" / "best.pt"
        self.student = path / "student.safetensors"

    def start(self, recipe: str, command: str, *, resuming: bool) -> None:
        """Make the folder and write down what it is for.

        Args:
            recipe: every setting, as YAML.
            command: as typed.
            resuming: the run that the folder holds goes on.

        Raises:
            ConfigError: it cannot be written, or holds another run.
        """
        if self.last.exists() and not resuming:
            raise ConfigError(f"{self.path} already holds a run; go on with --resume auto or choose another --out.")
        try:
            for folder in ("checkpoints", "samples"):
                (self.path / folder).mkdir(parents=True, exist_ok=True)
            with (self.path / "command.txt").open("a", encoding="utf-8") as file:
                file.write(command + "\n")
            if not resuming:
                (self.path / "metrics.jsonl").unlink(missing_ok=True)
            for name, text in (
                ("config.yaml", recipe),
                ("env.json", json.dumps(environment(), indent=2) + "\n"),
            ):
                with replacing(self.path / name) as temporary:
                    temporary.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"The run folder {self.path} cannot be written: {error.strerror}.") from error

    @contextmanager
    def logging_to_file(self) -> Iterator[None]:
        """Everything logged in the block also goes to log.txt, with the time."""
        handler = logging.FileHandler(self.path / "log.txt", encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        log.addHandler(handler)
        try:
            yield
        finally:
            log.removeHandler(handler)
            handler.close()

    def measure(self, figures: Mapping[str, Any]) -> None:
        """Add a line to metrics.jsonl."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(figures) + "\n")

    def results(self, figures: Mapping[str, Any]) -> None:
        """Write results.json: each contender's evaluation, as the last thing of a run."""
        with replacing(self.path / "results.json") as temporary:
            temporary.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")

    def forget_after(self, step: int) -> None:
        """Drop the lines of metrics.jsonl that a resumed run is about to write again."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return
        lines = path.read_text(encoding="utf-8").splitlines()
        earlier = [line for line in lines if _step(line) <= step]
        with replacing(path) as temporary:
            temporary.write_text("".join(line + "\n" for line in earlier), encoding="utf-8")

    def picture(self, name: str, panels: list[Tensor]) -> Path:
        """Pictures (3, H, W) in [0, 1] side by side, as samples/NAME.png."""
        path = self.path / "samples" / f"{name}.png"
        joined = torch.cat([panel.detach().cpu().float().clamp(0, 1) for panel in panels], dim=2)
        pixels = (joined * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        with replacing(path) as temporary:
            Image.fromarray(np.ascontiguousarray(pixels)).save(temporary, format="PNG")
        return path


def _step(line: str) -> float:
    """The step of a line of metrics.jsonl; infinite for one that a hard stop left half written."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def environment() -> dict[str, Any]:
    """What a figure depends on beside the code."""
    return {
        "distill-vsr": __version__,
        "python": sys.version.split()[0],
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def next_free(path: Path) -> Path:
    """`path`, or path-2, path-3, ... whichever does not exist yet."""
    candidate, number = path, 1
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate
