from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from distill.data import bicubic_upsample, degrade
from distill.interfaces import Upsampled, WindowNetwork
from distill.metrics.psnr_ssim import to_8_bit
from distill.pages.plots import Difference, Line, differences, lines
from distill.report.pictures import embedded, heat, marked, profile
from distill.report.scenes import bicubic, busiest, find_scene, restore
from tests.stand_ins.clips import MemoryClip
from tests.stand_ins.networks import Doubling

CPU = torch.device("cpu")


@pytest.fixture
def clip():
    """Still but for a band of rows that moves, at 300 to 320 of 400, from column 200 on; the most in row 310."""
    rng = np.random.default_rng(0)
    pictures = np.repeat(rng.integers(100, 140, (1, 400, 600, 3), dtype=np.uint8), 20, 0)
    for number in range(20):
        pictures[number, 300:320, 200:400] = 90 + 60 * (number % 2)
        pictures[number, 310, 200:400] = 255 * (number % 2)
    return MemoryClip("moving", pictures)


class Sliding(WindowNetwork):
    """Two of a kind of features, out of the middle frame and its neighbours."""

    window, hr_channels, lr_channels = 3, 2, None

    def reconstruct(self, window):
        large = functional.interpolate(window.mean(1), scale_factor=4, mode="nearest")
        return Upsampled(large, torch.stack((large.mean(1), 2 * large[:, 0]), 1), None)


def test_a_scene_is_where_the_truth_moves_most(clip):
    scene = find_scene(clip, "bi", 4)
    assert scene.truth.shape == (13, 3, 192, 320)
    assert (scene.first, scene.frame) == (3, 9)
    rows, columns = scene.top, scene.left
    assert rows <= 300 < 320 <= rows + 192
    assert columns <= 200 < 400 <= columns + 320
    assert rows + scene.row == 310
    assert np.array_equal(scene.truth[2].permute(1, 2, 0), clip.pictures[5, rows : rows + 192, columns : columns + 320])
    whole = degrade(torch.from_numpy(clip.pictures[3]).permute(2, 0, 1).float() / 255, "bi")
    top, left = rows // 4 - scene.inside[0].start // 4, columns // 4 - scene.inside[1].start // 4
    assert torch.equal(scene.low[0], whole[:, top : top + scene.low.shape[2], left : left + scene.low.shape[3]])


def test_a_scene_keeps_to_the_frames_that_are_judged_and_to_small_clips(clip):
    assert find_scene(clip, "bi", 4, limit=4).truth.shape[0] == 3
    small = find_scene(MemoryClip("small", clip.pictures[:2, :42, :50]), "bi", 4)
    assert small.truth.shape == (1, 3, 40, 48)
    assert small.inside == (slice(0, 40), slice(0, 48))


def test_a_part_is_restored_as_it_is_in_the_whole(clip):
    scene = find_scene(clip, "bi", 4)
    whole = torch.stack(
        [degrade(torch.from_numpy(frame).permute(2, 0, 1).float() / 255, "bi") for frame in clip.pictures[3:16]]
    )
    inside = (..., slice(scene.top, scene.top + 192), slice(scene.left, scene.left + 320))
    assert torch.equal(bicubic(scene, 4, 1).frames, to_8_bit(bicubic_upsample(whole))[inside])
    made, expected = restore(Sliding(), scene, 1, CPU), Sliding()(whole[None])
    assert torch.equal(made.frames, to_8_bit(expected.frames[0])[inside])
    assert made.features == "F^SR"
    first, second = expected.hr_features[0, 6][inside].numpy()
    assert np.allclose(made.attention, first**2 + second**2)


def test_time_scales_meet_at_the_same_moments(clip):
    scene = find_scene(clip, "bi", 4)
    large = functional.interpolate(scene.low, scale_factor=4, mode="nearest")[(..., *scene.inside)]
    single, given = restore(Doubling(), scene, 1, CPU), restore(Doubling(), scene, 2, CPU)
    assert torch.equal(single.frames, to_8_bit(large)), "in-between frames are dropped"
    assert torch.equal(given.frames[::2], to_8_bit(large[::2]))
    assert torch.equal(given.frames[1::2], to_8_bit((large[2::2] + large[:-2:2]) / 2))
    assert single.features == "F^LR"
    expected = functional.interpolate(scene.low[6].square().sum(0)[None, None], scale_factor=4)[0, 0][scene.inside]
    assert np.allclose(single.attention, expected)
    assert np.allclose(given.attention, expected), "frame 6 was given"
    enlarged = bicubic(scene, 4, 2).frames
    assert torch.equal(enlarged[::2], bicubic(scene, 4, 1).frames[::2])


def test_the_busiest_rectangle_against_all_of_them():
    field = np.random.default_rng(1).random((14, 19))
    sums = {
        (top, left): field[top : top + 5, left : left + 7].sum() for top in range(0, 10, 2) for left in range(0, 13, 2)
    }
    assert busiest(field, (5, 7), 2) == max(sums, key=sums.__getitem__)


def test_colours_grow_brighter_and_end_at_the_top():
    colours = heat(np.linspace(0, 2, 101)[None], 1.0).astype(float)
    brightness = colours[0] @ (0.299, 0.587, 0.114)
    assert (np.diff(brightness) >= 0).all()
    assert len(np.unique(colours[0, 51:], axis=0)) == 1, "beyond the top all are alike"
    assert brightness[0] < 5
    assert brightness[-1] > 240


def test_a_profile_stacks_one_row_over_time():
    frames = np.arange(3 * 4 * 5 * 3, dtype=np.uint8).reshape(3, 4, 5, 3)
    stacked = profile(frames, 2)
    assert stacked.shape == (18, 5, 3)
    for moment in range(3):
        assert (stacked[6 * moment : 6 * moment + 6] == frames[moment, 2]).all()


def test_marks_lie_around_what_they_mark():
    plain = np.zeros((20, 30, 3), np.uint8)
    drawn = marked(plain, [(5, 6, 8, 10, (255, 0, 0))])
    assert not drawn[5:13, 6:16].any(), "inside"
    assert (drawn[3:5, 4:18, 0] == 255).all()
    assert (drawn[13:15, 4:18, 0] == 255).all()
    assert drawn[..., 0].astype(bool).sum() == 12 * 14 - 8 * 10
    assert not plain.any()


def test_evidence_is_embedded_without_loss():
    picture = np.random.default_rng(2).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    content = base64.b64decode(embedded(picture).removeprefix("data:image/webp;base64,"))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), picture)


def attribute(markup: str, start: str, name: str) -> str:
    return markup[markup.index(start) :].split(f'{name}="')[1].split('"')[0]


def test_intervals_are_drawn_to_scale():
    plot = differences([Difference("std", "+0.2", 0.2, (-0.1, 0.5), (0.1, 0.3), 3)], "dB", "all")

    def place(start: str, name: str) -> float:
        return float(attribute(plot, start, name).removesuffix("%"))

    zero, dot = place("<line", "x1"), place("<circle", "cx")
    for each in plot.split("<line")[1:]:
        if 'class="zero"' in each:
            zero = float(each.split('x1="')[1].split("%")[0])
    thin = [each for each in plot.split("<line")[1:] if 'stroke-width="1.5"' in each]
    assert len(thin) == 1
    start, stop = (float(thin[0].split(f'{name}="')[1].split("%")[0]) for name in ("x1", "x2"))
    per_db = (dot - zero) / 0.2
    assert (zero - start, stop - zero) == (pytest.approx(0.1 * per_db, abs=0.01), pytest.approx(0.5 * per_db, abs=0.01))
    assert 'class="l3"' in thin[0]


def test_curves_are_drawn_to_scale_also_on_a_logarithmic_one():
    for logarithmic, heights in ((False, (1.0, 10.0, 19.0)), (True, (1.0, 10.0, 100.0))):
        curve = Line(tuple(zip((0.0, 5.0, 10.0), heights, strict=True)), 1, True, "std")
        points = attribute(lines([curve], "loss", logarithmic=logarithmic), "<polyline", "points").split()
        (x0, y0), (x1, y1), (x2, y2) = (map(float, point.split(",")) for point in points)
        assert (x0, x1, x2) == (0, 50, 100)
        assert y0 - y1 == pytest.approx(y1 - y2, abs=0.02)
        assert y0 > y1
