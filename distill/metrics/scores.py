"""What evaluations found, as JSON and as a table: each figure beside what it depends on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from distill.text_tables import aligned

__all__ = ["Evaluation", "FrameScores", "Score", "convention_sentence"]


@dataclass(frozen=True)
class FrameScores:
    """The quality of some frames, each figure the mean over them.

    Attributes:
        psnr: dB.
        ssim: at most 1.
        frames: how many were measured.
        lpips: LPIPS, 0 for equal pictures; None when it was not asked for.
    """

    psnr: float
    ssim: float
    frames: int
    lpips: float | None = None

    def to_json(self) -> dict[str, Any]:
        """What was measured, by name."""
        return _present({"psnr": self.psnr, "ssim": self.ssim, "frames": self.frames, "lpips": self.lpips})


@dataclass(frozen=True)
class Score(FrameScores):
    """The quality of one clip.

    Attributes:
        tof: mean difference of the optical flows of output and truth, in pixels; None when not asked for.
        warping: mean squared difference of a frame and the next one warped to it, peak 1; likewise.
        truth_warping: the same of the true frames.
        given: the frames that the network was given, where some were left out.
        between: the frames that it made between them.
    """

    tof: float | None = None
    warping: float | None = None
    truth_warping: float | None = None
    given: FrameScores | None = None
    between: FrameScores | None = None

    def to_json(self) -> dict[str, Any]:
        """What was measured, by name."""
        parts = {"given": self.given, "between": self.between}
        temporal = {"tof": self.tof, "warping": self.warping, "truth_warping": self.truth_warping}
        return super().to_json() | _present(temporal | {name: part and part.to_json() for name, part in parts.items()})


@dataclass(frozen=True)
class Evaluation:
    """The quality of several clips.

    Attributes:
        clips: what each clip scored, by its name, in the order given.
        convention: what the figures depend on: channel ("y" or "rgb"), crop (pixels at every edge), degradation,
            scale, frames ("all", or how many from the start), time_scale (2: the network was given every second
            frame, and all of them were measured) and then between ("network", or "mean of neighbours"); and a
            sentence each for lpips, tof and warping, where they were asked for.
    """

    clips: dict[str, Score]
    convention: dict[str, str | int]

    @property
    def convention_sentence(self) -> str:
        """What PSNR and SSIM depend on, for people: channel, border cropped, frames and degradation."""
        return convention_sentence(self.convention)

    @property
    def psnr(self) -> float:
        """Mean of the clips' PSNR in dB, every clip counting alike, as the field's tables have it."""
        return fmean(score.psnr for score in self.clips.values())

    @property
    def ssim(self) -> float:
        """Mean of the clips' SSIM, every clip counting alike."""
        return fmean(score.ssim for score in self.clips.values())

    def to_json(self) -> dict[str, Any]:
        """What json.dumps can write: the clips, their average, and the convention of both."""
        clips = {name: score.to_json() for name, score in self.clips.items()}
        return {"clips": clips, "average": _average(clips.values()), "convention": dict(self.convention)}

    def table(self) -> str:
        """Lines for people, a clip each, then the average, and in the last line the convention."""
        found = self.to_json()
        rows = [*found["clips"].items(), ("average", found["average"])]
        columns = [["clip", *(name for name, _ in rows)]]
        for title, *path, form in _COLUMNS:
            figures = [_figure(row, path) for _, row in rows]
            if any(figure is not None for figure in figures):
                columns.append([title, *("" if figure is None else format(figure, form) for figure in figures)])
        lines = aligned(zip(*columns, strict=True))
        lines += [f"{name}: {self.convention[key]}" for key, name in _OWN_SENTENCES.items() if key in self.convention]
        return "\n".join([*lines, self.convention_sentence])


def convention_sentence(convention: Mapping[str, Any], clips: int | None = None) -> str:
    """What PSNR and SSIM depend on, for people.

    Args:
        convention: as `Evaluation` and its JSON have it.
        clips: how many there are, where the sentence should say so.
    """
    channel = "Y (BT.601, rounded to 8 bit)" if convention["channel"] == "y" else "RGB (8 bit)"
    crop = f"{convention['crop']} pixels cropped at every edge" if convention["crop"] else "no border cropped"
    counted = [] if clips is None else [f"{clips} clips"]
    limit = convention["frames"]
    frames = "all frames" if limit == "all" else f"the first {limit} frames at most"
    if convention.get("time_scale") == 2:  # runs from before there was a choice have none
        maker = "made by the network" if convention.get("between") == "network" else "the means of their neighbours"
        frames += f", every second one given and those between {maker}"
    degradation = f"degradation {convention['degradation']} x{convention['scale']}"
    return ", ".join([channel, crop, *counted, frames, degradation])


_OWN_SENTENCES = {"lpips": "LPIPS", "tof": "tOF", "warping": "warping"}

# Title, path in the JSON, format.
_COLUMNS = (
    ("frames", "frames", "d"),
    ("PSNR dB", "psnr", ".3f"),
    ("  SSIM", "ssim", ".4f"),
    ("given dB", "given", "psnr", ".3f"),
    ("  SSIM", "given", "ssim", ".4f"),
    ("between dB", "between", "psnr", ".3f"),
    ("  SSIM", "between", "ssim", ".4f"),
    (" LPIPS", "lpips", ".4f"),
    ("tOF px", "tof", ".3f"),
    ("warping", "warping", ".2e"),
    ("truth", "truth_warping", ".2e"),
)


def _figure(row: dict[str, Any], path: Iterable[str]) -> Any:
    found: Any = row
    for name in path:
        found = None if found is None else found.get(name)
    return found


def _present(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: figure for name, figure in figures.items() if figure is not None}


def _average(clips: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Of each figure over the clips that have it, every clip counting alike; the counts of frames are left out."""
    rows = list(clips)
    average: dict[str, Any] = {}
    for name in dict.fromkeys(name for row in rows for name in row if name != "frames"):
        found = [row[name] for row in rows if name in row]
        average[name] = _average(found) if isinstance(found[0], dict) else fmean(found)
    return average
