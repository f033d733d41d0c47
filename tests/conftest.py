from __future__ import annotations

import pytest
import torch

from tests.places import GOLDEN


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
