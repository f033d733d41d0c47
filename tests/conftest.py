from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from tests.places import GOLDEN

MOST_WORKERS = 8  # each takes up to two gigabytes


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """A worker for each core; none where one file is asked for, which is done before the workers have started."""
    if len(config.args) == 1 and Path(config.args[0].partition("::")[0]).is_file():
        return 0
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, MOST_WORKERS)


def pytest_configure(config):
    """Workers share the cores: one thread each, and each process that a test starts.

    Threads that wait for each other on a core that another worker has take many times as long as one alone.
    """
    if getattr(config.option, "numprocesses", None):
        os.environ["OMP_NUM_THREADS"] = "1"  # which a worker's torch reads when it starts
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)
        _one_thread_of_onnx_runtime()


def _one_thread_of_onnx_runtime():
    """Where the number of threads is left to the runtime, which no environment variable tells."""
    import onnxruntime

    class Session(onnxruntime.InferenceSession):
        def __init__(self, model, sess_options=None, *others, **settings):
            sess_options = sess_options or onnxruntime.SessionOptions()
            sess_options.intra_op_num_threads = sess_options.intra_op_num_threads or 1
            super().__init__(model, sess_options, *others, **settings)

    onnxruntime.InferenceSession = Session


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef):
    """What several tests share is the same whichever of them comes first, and whatever ran before."""
    if fixturedef.scope != "function":
        torch.manual_seed(0)


@pytest.fixture
def golden():
    """Opens a tensor file of the reference implementations, where that folder lies beside the checkout."""

    def opened(name: str):
        path = GOLDEN / f"{name}.pt"
        if not path.is_file():
            pytest.skip(f"the reference tensors {name}.pt are not beside this checkout")
        return torch.load(path, weights_only=True)

    return opened


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
