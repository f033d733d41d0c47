from __future__ import annotations

import pytest
import torch

from distill.data import FrameFolder, bicubic_upsample, degrade
from tests.places import SHARED

GOLDEN = SHARED / "golden" / "duf_downsample_x4.pt"
VID4 = SHARED / "data" / "vid4"


@pytest.mark.skipif(not GOLDEN.is_file(), reason=f"{GOLDEN} is not on this machine")
def test_bd_equals_duf_downsample() -> None:
    golden = torch.load(GOLDEN, weights_only=True)
    small = degrade(golden["input"], "bd")
    assert (small - golden["output"]).abs().max() <= 1e-6


def bt601_luma(frame: torch.Tensor) -> torch.Tensor:
    red, green, blue = frame
    return torch.round(16 + 65.481 * red + 128.553 * green + 24.966 * blue)


# PSNR-Y of bicubic upsampling as published beside that footage, rows BI, BD and BD centred at 4j+1.5.
PUBLISHED = {
    "bi": {"calendar": 20.393, "city": 25.160, "foliage": 23.469, "walk": 26.101},
    "bd": {"calendar": 18.81, "city": 23.85, "foliage": 21.51, "walk": 23.00},
    "bd-centred": {"calendar": 20.13, "city": 24.96, "foliage": 23.11, "walk": 25.56},
}
TOLERANCE = {"bi": 0.001, "bd": 0.01, "bd-centred": 0.01}
ALL_ROWS = [
    # One row always; all together take some fifteen seconds on one thread.
    pytest.param(name, clip, marks=() if (name, clip) == ("bi", "city") else pytest.mark.slow)
    for name, clips in PUBLISHED.items()
    for clip in clips
]


@pytest.mark.skipif(not VID4.is_dir(), reason=f"{VID4} is not on this machine")
@pytest.mark.parametrize(("name", "clip"), ALL_ROWS)
def test_bicubic_rows_of_vid4(name: str, clip: str) -> None:
    ratios = []
    for pixels in FrameFolder(VID4 / clip).frames():
        frame = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
        restored = bicubic_upsample(degrade(frame, name))
        error = (bt601_luma(frame) - bt601_luma(restored)).square().mean()
        ratios.append(10 * torch.log10(255**2 / error))
    assert torch.stack(ratios).mean().item() == pytest.approx(PUBLISHED[name][clip], abs=TOLERANCE[name])
