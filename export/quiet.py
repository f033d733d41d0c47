"""What libraries say about themselves, by warnings, by logging, or past Python."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["held_back", "quiet"]


@contextmanager
def held_back() -> Iterator[None]:
    """Throw away what reaches the process's standard output and error meanwhile; an exception says enough."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    kept = [os.dup(number) for number in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for number in (1, 2):
            os.dup2(nowhere, number)
        yield
    finally:
        for number, saved in zip((1, 2), kept, strict=True):
            os.dup2(saved, number)
            os.close(saved)
        os.close(nowhere)


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back what torch and coremltools say about themselves: deprecations, that torchvision is not there."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            warnings.filterwarnings("ignore", r"Function _TORCH_OPS_REGISTRY", DeprecationWarning)
            warnings.filterwarnings("ignore", r"Implicitly cleaning up <TemporaryDirectory", ResourceWarning)
            yield
    finally:
        registration.setLevel(level)
