"""Finding clips below a path: plain folders, Vimeo-90K, REDS and Vid4 as they are handed out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from distill.data.clips import IMAGE_SUFFIXES, Clip, FrameFolder, natural_order
from distill.data.video import VideoClip
from distill.errors import DataError

__all__ = ["VIDEO_SUFFIXES", "find_clips"]

# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".3gp", ".avi", ".flv", ".m2ts", ".m2v", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv",
    ".ts", ".webm", ".wmv", ".y4m",
})
# fmt: on

_SPLITS = ("train", "test", "val")
_SEPTUPLET = 7


def find_clips(path: str | Path, split: str | None = None) -> list[Clip]:
    """All clips below a path, in natural order of their names.

    Understood are: one video file; one folder of frames; any tree of these; Vimeo-90K (`sequences/` beside
    `sep_trainlist.txt` and `sep_testlist.txt`); REDS (`train_sharp/`, `val_sharp/`; the degraded siblings are
    left out, because low resolution is made on the fly); Vid4 (one folder a clip, or those below `GT/`).

    Args:
        path: a video file or a folder.
        split: "train", "test" or "val" (the last two mean the same) picks that part of Vimeo-90K or REDS; layouts
            without parts give all their clips. None gives everything.

    Returns:
        Clips whose names are their paths below `path` without suffix, unique and sorted. Frames are not opened yet.

    Raises:
        DataError: nothing is there, a file given directly is no video, or no clip is found.
    """
    if split is not None and split not in _SPLITS:
        raise DataError(f"The split {split!r} is unknown; choose one of {', '.join(_SPLITS)}.")
    root = Path(path)
    if not root.exists():
        raise DataError(f"{root} does not exist; give a video file, a folder of frames, or a folder of clips.")
    if root.is_file():
        return [_single(root)]
    clips = _vimeo(root, split) if (root / "sequences").is_dir() else _named(root, _walk(root, split, frozenset()))
    if not clips:
        part = "" if split is None else f" for the split {split!r}"
        raise DataError(
            f"{root} holds no clips{part}; looked for videos ({', '.join(sorted(VIDEO_SUFFIXES))}) and for folders "
            f"of frames ({', '.join(sorted(IMAGE_SUFFIXES))}), also in its sub-folders."
        )
    return clips


def _single(file: Path) -> Clip:
    if file.suffix.lower() in IMAGE_SUFFIXES:
        raise DataError(f"{file} is a single image; give the folder that holds the frames.")
    clip = VideoClip(file)
    _ = clip.size  # opens the file, so a text file named .mp4 is refused here
    return clip


def _vimeo(root: Path, split: str | None) -> list[Clip]:
    """The septuplets that the lists name; whole `sequences/` where there are no lists."""
    part = {None: "*", "train": "train", "test": "test", "val": "test"}[split]
    lists = sorted(root.glob(f"sep_{part}list.txt"))
    if lists:
        lines = (line.strip() for file in lists for line in file.read_text(encoding="utf-8").splitlines())
        names = {line for line in lines if line}
    elif split is None:
        names = {f"{folder.parent.name}/{folder.name}" for folder in (root / "sequences").glob("[!.]*/[!.]*")}
    else:
        raise DataError(f"{root} has no sep_{part}list.txt, which names the clips of {split!r}; put it there.")
    # The seven frames have fixed names, so 90,000 folders need not be listed.
    numbers = range(1, _SEPTUPLET + 1)
    sequences = root / "sequences"
    return [FrameFolder([sequences / name / f"im{number}.png" for number in numbers], name) for name in sorted(names)]


def _walk(folder: Path, split: str | None, above: frozenset[str]) -> Iterator[Path]:
    """Video files and frame folders below a folder, itself included."""
    real = os.path.realpath(folder)
    if real in above:  # a link that leads back up
        return
    try:
        entries = sorted((entry for entry in folder.iterdir() if not entry.name.startswith(".")), key=natural_order)
    except OSError as error:
        raise DataError(f"{folder} cannot be listed ({error.strerror}); check its permissions.") from error
    files = [entry for entry in entries if entry.is_file()]
    videos = [file for file in files if file.suffix.lower() in VIDEO_SUFFIXES]
    images = sum(file.suffix.lower() in IMAGE_SUFFIXES for file in files)
    below = _ground_truth([entry for entry in entries if entry.is_dir()], split)
    yield from videos
    # One picture beside videos or folders is a preview, not a clip.
    if images > 1 or (images == 1 and not videos and not below):
        yield folder
    for sub_folder in below:
        yield from _walk(sub_folder, split, above | {real})


def _ground_truth(folders: list[Path], split: str | None) -> list[Path]:
    """The folders without the low-resolution siblings that benchmarks put beside the ground truth."""
    named_so = [folder for folder in folders if folder.name == "GT"]
    if named_so:
        return named_so
    sharp = [folder for folder in folders if folder.name.endswith("_sharp")]
    if not sharp:
        return folders
    part = {"test": "val"}.get(split or "", split)
    return [folder for folder in sharp if part is None or folder.name == f"{part}_sharp"]


def _named(root: Path, found: Iterator[Path]) -> list[Clip]:
    """Clips named by their paths below the root; the suffix stays where two would share a name."""
    paths = list(found)
    taken = Counter(_name(root, path, keep_suffix=False) for path in paths)
    clips: list[Clip] = []
    for path in paths:
        name = _name(root, path, keep_suffix=False)
        if taken[name] > 1:
            name = _name(root, path, keep_suffix=True)
        clips.append(FrameFolder(path, name) if path.is_dir() else VideoClip(path, name))
    return sorted(clips, key=lambda clip: [natural_order(Path(part)) for part in clip.name.split("/")])


def _name(root: Path, path: Path, *, keep_suffix: bool) -> str:
    below = path.relative_to(root)
    if not path.is_dir() and not keep_suffix:
        below = below.with_suffix("")
    parts = [part for part in below.parts if part != "GT"]
    return "/".join(parts) or root.resolve().name
