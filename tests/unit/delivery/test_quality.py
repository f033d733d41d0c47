"""What compression costs, told against truth; and the footage that proofs are made on."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image
from torch import Tensor

from distill.data import degrade, find_clips, sample_clips
from distill.errors import DataError
from distill.interfaces import Upsampled, WindowNetwork
from distill.layers import BicubicUpsample
from export.delivery.quality import Reference, measure_loss
from export.footage import low_resolution_clips, of_size
from export.formats import export, format_named, open_exported
from export.interfaces import Order
from tests.stand_ins.networks import METADATA


class Bicubic(WindowNetwork):
    """A little darker than it should be, if asked."""

    window, hr_channels, lr_channels = 1, 3, 3

    def __init__(self, shade: float = 0.0) -> None:
        super().__init__()
        self.upsample, self.shade = BicubicUpsample(4), shade

    def reconstruct(self, window: Tensor) -> Upsampled:
        large = self.upsample(window[:, 0]) - self.shade
        return Upsampled(large, large, window[:, 0])


@pytest.fixture(scope="module")
def clips():
    return find_clips(sample_clips("held_out"))


@pytest.fixture(scope="module")
def pieces(clips, tmp_path_factory):
    """The same cut small, so that judging takes no time."""
    folder = tmp_path_factory.mktemp("pieces")
    for clip in clips:
        (folder / clip.name).mkdir()
        for number, frame in enumerate(clip.frames(0, 8)):
            Image.fromarray(frame[64:160, 64:192]).save(folder / clip.name / f"{number}.png")
    return find_clips(folder)


@pytest.mark.parametrize(("sizes", "twin"), [((), False), (((24, 32),), False), (((16, 16),), True)])
def test_a_loss_is_seen_clip_by_clip(pieces, tmp_path, sizes, twin):
    kind = format_named("onnx")
    export(Order(Bicubic(), METADATA, sizes=sizes), kind, tmp_path / "same.onnx")
    export(Order(Bicubic(0.05), METADATA, sizes=sizes), kind, tmp_path / "darker.onnx")
    same, darker = (open_exported(tmp_path / f"{name}.onnx") for name in ("same", "darker"))
    kept = measure_loss(Order(Bicubic(), METADATA, sizes=sizes), kind, same, Reference(Bicubic(), pieces, "bi"))
    assert kept.within
    assert all(abs(loss) < 1e-3 for loss in kept.losses.values())
    assert kept.twin is twin
    assert ("twin" in kept.table()) is twin
    if twin:  # made of the order's network again, so it is the order that loses
        frozen = Bicubic(0.05)
        kept = measure_loss(Order(frozen, METADATA, sizes=sizes), kind, darker, Reference(frozen, pieces, "bi"))
        assert kept.after.psnr < 26, "the twin is not of the order's weights"
        return
    lost = measure_loss(Order(Bicubic(), METADATA, sizes=sizes), kind, darker, Reference(Bicubic(), pieces, "bi"))
    assert not lost.within
    assert set(lost.losses) == {"flower", "road"}
    assert all(loss > 0.1 for loss in lost.losses.values())
    assert lost.table().count("MORE THAN 0.1") == 2
    assert json.loads(json.dumps(lost.document()))["within_0.1_db"] is False


def test_no_clip_no_quality():
    with pytest.raises(DataError, match="no clip"):
        Reference(Bicubic(), [], "bi")


def test_footage_is_degraded_and_mirrored_to_the_size(clips):
    plain = low_resolution_clips(clips, "bi", 4)[0]
    first = torch.from_numpy(next(iter(clips[0].frames()))).permute(2, 0, 1)[None].float() / 255
    assert torch.equal(plain[:1], degrade(first, "bi", 4))
    assert plain.shape == (7, 3, 60, 108)
    mirrored = of_size(plain, (70, 100))
    assert mirrored.shape == (7, 3, 70, 100)
    assert torch.equal(mirrored[..., :60, :], plain[..., :100])
    assert torch.equal(mirrored[..., 60:, :], plain[..., 50:, :100].flip(-2))
