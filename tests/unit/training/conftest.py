from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from distill.data import CropSampler, find_clips
from distill.networks.checkpoint import Described
from distill.training.optimisation import Schedule
from distill.training.run_folder import RunFolder
from distill.training.task import Distillation
from distill.training.trainer import LoopSettings, Trainer
from distill.training.validation import Validation
from students.fastdvdnet import FastDVDnet

CPU = torch.device("cpu")
TINY = {"channels": 8, "blocks": 1, "widths": [8, 8, 8], "frame_channels": 4}


@pytest.fixture(scope="session")
def footage(tmp_path_factory):
    """A folder of two clips of eight frames, 40x48, of large blocks of random colours that move to the right."""
    folder = tmp_path_factory.mktemp("footage")
    for name in ("one", "two"):
        (folder / name).mkdir()
        colours = np.random.default_rng(len(list(folder.iterdir()))).integers(0, 256, (10, 12, 3), np.uint8)
        picture = colours.repeat(4, 0).repeat(4, 1)
        for number in range(8):
            Image.fromarray(np.roll(picture, number, 1)).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture
def validation(footage):
    return Validation(find_clips(footage)[:1], "bi", 4, 1, CPU, frames=2)


@pytest.fixture
def trainer_of(footage, validation, tmp_path):
    """Builds a trainer of a tiny student, alone, by the name of its run folder and the settings of its loop."""

    def build(name="run", *, resuming=False, **settings):
        torch.manual_seed(0)
        task = Distillation(FastDVDnet(**TINY), [], {})
        numbers = {"steps": 3, "schedule": Schedule(1e-3), "log_every": 1, **settings}
        sampler = CropSampler(find_clips(footage), frames=3, crop=32, batch_size=1)
        run = RunFolder(tmp_path / name)
        run.start("a recipe\n", "distill train", resuming=resuming)
        return Trainer(
            task, LoopSettings(**numbers), sampler, None, validation, run, Described("fastdvdnet", TINY, "bi"), CPU
        )

    return build
