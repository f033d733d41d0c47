from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.data import FrameFolder, VideoClip, find_clips, sample_clips
from distill.errors import DataError

ROAD = sample_clips("held_out") / "road.mp4"


def write_image(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 8, 3), value, np.uint8)).save(path)
    return path


def frames(folder: Path, count: int = 2) -> None:
    for number in range(count):
        write_image(folder / f"{number:08d}.png", value=number)


def names(path: Path, split: str | None = None) -> list[str]:
    return [clip.name for clip in find_clips(path, split)]


def test_one_video_file() -> None:
    (clip,) = find_clips(ROAD)
    assert isinstance(clip, VideoClip)
    assert (clip.name, clip.length) == ("road", 16)


def test_one_folder_of_frames(tmp_path: Path) -> None:
    frames(tmp_path / "walk", 3)
    (clip,) = find_clips(tmp_path / "walk")
    assert isinstance(clip, FrameFolder)
    assert (clip.name, clip.length) == ("walk", 3)


def test_a_tree_of_videos_and_frame_folders(tmp_path: Path) -> None:
    (tmp_path / "cars").mkdir()
    shutil.copy(ROAD, tmp_path / "cars" / "clip10.mp4")
    shutil.copy(ROAD, tmp_path / "cars" / "clip2.MP4")
    shutil.copy(ROAD, tmp_path / ".trash.mp4")
    frames(tmp_path / "trees" / "oak")
    frames(tmp_path / ".cache" / "oak")
    (tmp_path / "cars" / "LICENSE").write_text("text")
    write_image(tmp_path / "cars" / "preview.jpg")
    assert names(tmp_path) == ["cars/clip2", "cars/clip10", "trees/oak"]


def test_clips_that_would_share_a_name_keep_their_suffix(tmp_path: Path) -> None:
    shutil.copy(ROAD, tmp_path / "a.mp4")
    shutil.copy(ROAD, tmp_path / "a.mov")
    frames(tmp_path / "b")
    assert names(tmp_path) == ["a.mov", "a.mp4", "b"]


def test_a_link_that_leads_back_up_ends_the_walk(tmp_path: Path) -> None:
    frames(tmp_path / "clip")
    (tmp_path / "clip" / "again").symlink_to(tmp_path, target_is_directory=True)
    assert names(tmp_path) == ["clip"]


def test_vimeo90k_by_its_lists(tmp_path: Path) -> None:
    for name in ("00001/0001", "00001/0002", "00002/0001"):
        for number in range(1, 8):
            write_image(tmp_path / "sequences" / name / f"im{number}.png", value=number)
    (tmp_path / "sep_trainlist.txt").write_text("00001/0001\n00002/0001\n")
    (tmp_path / "sep_testlist.txt").write_text("00001/0002\n\n")
    assert names(tmp_path, "train") == ["00001/0001", "00002/0001"]
    assert names(tmp_path, "test") == names(tmp_path, "val") == ["00001/0002"]
    assert names(tmp_path) == ["00001/0001", "00001/0002", "00002/0001"]
    clip = find_clips(tmp_path, "test")[0]
    assert [int(frame[0, 0, 0]) for frame in clip.frames()] == [1, 2, 3, 4, 5, 6, 7]


def test_vimeo90k_without_lists(tmp_path: Path) -> None:
    frames(tmp_path / "sequences" / "00001" / "0001")
    assert names(tmp_path) == ["00001/0001"]
    with pytest.raises(DataError, match=r"sep_trainlist\.txt"):
        find_clips(tmp_path, "train")


@pytest.mark.parametrize("nested", [False, True])
def test_reds_leaves_degraded_siblings_out(tmp_path: Path, nested: bool) -> None:
    train, val = (tmp_path / "train", tmp_path / "val") if nested else (tmp_path, tmp_path)
    frames(train / "train_sharp" / "000")
    frames(train / "train_sharp" / "001")
    frames(train / "train_sharp_bicubic" / "X4" / "000")
    frames(val / "val_sharp" / "000")
    frames(val / "val_blur" / "000")
    above = ("train/", "val/") if nested else ("", "")
    train_names = [f"{above[0]}train_sharp/000", f"{above[0]}train_sharp/001"]
    assert names(tmp_path) == [*train_names, f"{above[1]}val_sharp/000"]
    assert names(tmp_path, "train") == train_names
    assert names(tmp_path, "test") == [f"{above[1]}val_sharp/000"]


@pytest.mark.parametrize("below", ["", "GT"])
def test_vid4_plain_or_below_gt(tmp_path: Path, below: str) -> None:
    for name in ("walk", "calendar"):
        frames(tmp_path / below / name)
        if below:
            frames(tmp_path / "BIx4" / name)
            frames(tmp_path / "BDx4" / name)
    assert names(tmp_path) == ["calendar", "walk"]
    assert find_clips(tmp_path)[0].length == 2


def test_layouts_without_parts_give_everything(tmp_path: Path) -> None:
    frames(tmp_path / "walk")
    assert names(tmp_path, "test") == ["walk"]


def test_what_cannot_be_found_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        find_clips(tmp_path / "gone")
    with pytest.raises(DataError, match=r"holds no clips; looked for videos .*\.mp4.* frames .*\.png"):
        find_clips(tmp_path)
    with pytest.raises(DataError, match="single image"):
        find_clips(write_image(tmp_path / "one.png"))
    with pytest.raises(DataError, match="choose one of train, test, val"):
        find_clips(tmp_path, "training")


def test_a_text_file_named_mp4_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "talk.mp4"
    path.write_text("not a video\n" * 100)
    with pytest.raises(DataError, match=r"talk\.mp4 cannot be opened as a video"):
        find_clips(path)
