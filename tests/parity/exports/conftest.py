"""Core ML files that several modules look at."""

from __future__ import annotations

import pytest
import torch

from students.vespcn_mobile import VESPCNMobile
from tests.stand_ins.mlpackages import exported
from tests.stand_ins.networks import randomise_with_statistics


@pytest.fixture(scope="module")
def student():
    torch.manual_seed(0)
    network = VESPCNMobile(widths=(16, 16, 16), channels=(16, 16))
    return randomise_with_statistics(network).train()  # in training mode, as a trainer hands it over


@pytest.fixture(scope="module")
def halved(student, tmp_path_factory):
    return exported(student, tmp_path_factory.mktemp("coreml") / "new.mlpackage", precision="fp16")
