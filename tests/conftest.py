from __future__ import annotations

from pathlib import Path

import pytest
import torch


@pytest.fixture
def golden():
    """Opens a tensor file of the reference implementations, where that folder lies beside the checkout."""

    def opened(name: str):
        path = Path(__file__).resolve().parents[2] / "shared" / "golden" / f"{name}.pt"
        if not path.is_file():
            pytest.skip(f"the reference tensors {name}.pt are not beside this checkout")
        return torch.load(path, weights_only=True)

    return opened


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
