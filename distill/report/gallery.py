"""The pictures of a page: chosen by rule, restored by every network alike, each with what it shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from distill.comparison.answers import Answer
from distill.comparison.results import Comparison, Run
from distill.data import find_clips, sample_clips
from distill.errors import DataError, InputError
from distill.interfaces import VideoNetwork
from distill.metrics.psnr_ssim import luma, psnr
from distill.networks.opening import named_teachers, open_network, pick_device
from distill.report.pictures import embedded, heat, marked, profile
from distill.report.scenes import Restored, Scene, bicubic, busiest, find_scene, restore

__all__ = ["Gallery", "Panel", "Shown", "gallery"]

_CROP = 64  # high-resolution pixels a side
_MOST_METHODS = 8
_BLUE, _ORANGE, _RED = (88, 160, 255), (255, 150, 40), (255, 60, 60)


@dataclass(frozen=True)
class Shown:
    """One picture of a panel.

    Attributes:
        label: whose it is.
        figure: what was measured of it: dB, or the correlation with the teacher's map; None where nothing was.
        image: the address that holds it.
    """

    label: str
    figure: float | None
    image: str


@dataclass(frozen=True)
class Panel:
    """Pictures to be compared.

    Attributes:
        kind: "where", "profile", "crop", "error" or "attention".
        clip: that they are of.
        frame: the number of the (middle) frame, from 0.
        caption: what is seen.
        shown: the pictures.
        top: of the colour scale, in levels of luma, where there is one.
    """

    kind: str
    clip: str
    frame: int
    caption: str
    shown: tuple[Shown, ...]
    top: float | None = None


@dataclass(frozen=True)
class Gallery:
    """All panels.

    Attributes:
        panels: clip by clip.
        seeds: method -> seed of the run that is shown.
        choice: why these clips, in words.
        notes: what could not be shown, and why.
    """

    panels: tuple[Panel, ...] = ()
    seeds: Mapping[str, int] | None = None
    choice: str = ""
    notes: tuple[str, ...] = ()


def gallery(comparison: Comparison, answers: Sequence[Answer]) -> Gallery:
    """Restore parts of the clips where the main method gained most and least.

    A clip, a network or a teacher that is not to be had here costs its pictures and a note, not the report.

    Args:
        comparison: whose runs are opened again.
        answers: by PSNR first, as `distill.comparison.answers.answers` gives them.
    """
    notes: list[str] = []
    shown = _runs(comparison)
    seeds = {run.method: run.seed for run in shown}
    if len(shown) < len(comparison.methods):
        notes.append(f"Pictures show the first {_MOST_METHODS} methods only.")
    names, choice = _clips(comparison, answers)
    try:
        students = [open_network(str(run.path))[0] for run in shown]
        scenes = _scenes(comparison, names, students[0].scale)
    except InputError as error:
        return Gallery(seeds=seeds, notes=(*notes, f"There are no pictures: {error}"))
    time_scale = students[0].time_scale
    device = pick_device("auto")
    restored: list[dict[str, Restored]] = [
        {"bicubic": bicubic(scene, students[0].scale, time_scale)} for scene in scenes
    ]
    networks = [(run.method, student) for run, student in zip(shown, students, strict=True)]
    teacher = _teacher(comparison, notes)
    if teacher is not None:
        networks.append(teacher)
    for label, network in networks:
        for scene, made in zip(scenes, restored, strict=True):
            made[label] = restore(network, scene, time_scale, device)
    described = teacher[0] if teacher is not None else None
    panels = [
        panel
        for scene, made in zip(scenes, restored, strict=True)
        for panel in _panels(scene, made, tuple(seeds), described, seeds)
    ]
    return Gallery(tuple(panels), seeds, choice, tuple(notes))


def _runs(comparison: Comparison) -> list[Run]:
    """One of each method, at a seed that all have, where there is one."""
    methods = comparison.methods[:_MOST_METHODS]
    of_all = comparison.seeds_of(*methods)
    return [comparison.runs[method, (of_all or comparison.seeds_of(method))[0]] for method in methods]


def _clips(comparison: Comparison, answers: Sequence[Answer]) -> tuple[list[str], str]:
    """Where the first method that is no control gained most and least on the first control."""
    deciding = [each for each in answers if each.metric == answers[0].metric]
    answer = next((each for each in deciding if comparison.control(each.method) is None), deciding[0])
    gains = dict(zip(answer.clips, np.array(answer.differences).mean(0), strict=True))
    most, least = max(gains, key=gains.__getitem__), min(gains, key=gains.__getitem__)
    if most == least:
        return [most], f"The one judge clip, {most}."
    told = f"{answer.method} against {answer.against}"
    return [most, least], f"The clips where {told} gained most ({most}) and least ({least}), in the mean over seeds."


def _scenes(comparison: Comparison, names: Sequence[str], scale: int) -> list[Scene]:
    place, convention = comparison.judge, comparison.convention
    clips = {clip.name: clip for clip in find_clips(sample_clips("held_out") if place == "samples" else Path(place))}
    if absent := [name for name in names if name not in clips]:
        raise DataError(f"{place} holds no clip {absent[0]} any more.")
    limit = None if convention.get("frames", "all") == "all" else int(convention["frames"])
    return [find_scene(clips[name], str(convention["degradation"]), scale, limit) for name in names]


def _teacher(comparison: Comparison, notes: list[str]) -> tuple[str, VideoNetwork] | None:
    """The teacher, or the first of several, under the name that pictures give it."""
    if comparison.teacher is None:
        return None
    try:
        names = [name for name, _ in named_teachers(comparison.teacher)]
        network, described = open_network(names[0], "teacher")
    except InputError as error:
        notes.append(f"The teacher is not shown: {error}")
        return None
    if len(names) > 1:
        notes.append(f"Of several teachers, pictures show {names[0]}.")
    return f"teacher ({described.name})", network


def _panels(
    scene: Scene,
    made: Mapping[str, Restored],
    methods: tuple[str, ...],
    teacher: str | None,
    seeds: Mapping[str, int],
) -> Iterator[Panel]:
    lumas = {label: each.luma()[scene.middle] for label, each in made.items()}
    corner = _most_different([lumas[method] for method in methods])
    where = f"{scene.clip}, frame {scene.frame}"
    seeded = f"Seed {'/'.join(map(str, dict.fromkeys(seeds.values())))}."
    yield _where(scene, corner)
    last = scene.first + scene.truth.shape[0] - 1
    if last > scene.first:
        yield Panel(
            "profile",
            scene.clip,
            scene.frame,
            f"Temporal profile: {scene.clip}, row {scene.top + scene.row}, columns {scene.left} to "
            f"{scene.left + scene.truth.shape[-1] - 1}, frames {scene.first} (top) to {last} (bottom). Steady edges "
            f"are straight lines; flicker is a jagged one. {seeded}",
            _each(scene, made, lambda frames: profile(frames, scene.row)),
        )
    inside = (slice(corner[0], corner[0] + _CROP), slice(corner[1], corner[1] + _CROP))
    truth = luma(scene.truth[scene.middle]).numpy()
    yield Panel(
        "crop",
        scene.clip,
        scene.frame,
        f"Where the methods differ most: {where}, {_CROP} pixels a side at row {scene.top + corner[0]}, column "
        f"{scene.left + corner[1]}, with its PSNR in dB (Y). {seeded}",
        _each(
            scene,
            made,
            lambda frames: frames[scene.middle][inside],
            {label: _decibels(each[inside], truth[inside]) for label, each in lumas.items()},
        ),
    )
    yield _errors(scene, lumas, truth, f"{where}. {seeded}")
    if panel := _attention(scene, made, methods, teacher, f"{where}. {seeded}"):
        yield panel


def _where(scene: Scene, corner: tuple[int, int]) -> Panel:
    height, width = scene.truth.shape[-2:]
    boxes = [
        (scene.top, scene.left, height, width, _BLUE),
        (scene.top + scene.row, scene.left, 1, width, _RED),
        (scene.top + corner[0], scene.left + corner[1], _CROP, _CROP, _ORANGE),
    ]
    return Panel(
        "where",
        scene.clip,
        scene.frame,
        f"{scene.clip}, frame {scene.frame} of the truth (numbers from 0). Blue: the region of the pictures, the one "
        "with most motion in the truth; red: its row with most motion, for the profile; orange: the crop.",
        (Shown("truth", None, embedded(marked(scene.whole, boxes), exact=False)),),
    )


def _each(
    scene: Scene,
    made: Mapping[str, Restored],
    picture: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
    figures: Mapping[str, float] | None = None,
) -> tuple[Shown, ...]:
    """The truth's and every network's."""
    frames = {"truth": scene.truth, **{label: each.frames for label, each in made.items()}}
    return tuple(
        Shown(label, (figures or {}).get(label), embedded(picture(each.permute(0, 2, 3, 1).numpy())))
        for label, each in frames.items()
    )


def _errors(scene: Scene, lumas: Mapping[str, NDArray[np.float64]], truth: NDArray[np.float64], where: str) -> Panel:
    maps = {label: np.abs(each - truth) for label, each in lumas.items()}
    top = float(np.ceil(max(max(np.quantile(each, 0.995) for each in maps.values()), 1.0)))
    return Panel(
        "error",
        scene.clip,
        scene.frame,
        "Error |restored - truth| of luma, one colour scale for all, with the region's PSNR in dB (Y): " + where,
        tuple(Shown(label, _decibels(lumas[label], truth), embedded(heat(each, top))) for label, each in maps.items()),
        top,
    )


def _attention(
    scene: Scene, made: Mapping[str, Restored], methods: tuple[str, ...], teacher: str | None, where: str
) -> Panel | None:
    maps = {label: made[label] for label in (*((teacher,) if teacher else ()), *methods)}
    kinds = "; ".join(f"{label}: {each.features}" for label, each in maps.items())
    shared = {each.features for each in maps.values()}
    of = f"of {shared.pop()}" if len(shared) == 1 else f"({kinds})"
    pictures = []
    reference = made[teacher].attention if teacher is not None else None
    for label, each in maps.items():
        if each.attention is None:
            return None
        top = float(np.quantile(each.attention, 0.99))
        likeness = None if reference is None or label == teacher else _correlation(each.attention, reference)
        pictures.append(Shown(label, likeness, embedded(heat(each.attention, top))))
    told = ", with its correlation with the teacher's map" if reference is not None else ""
    return Panel(
        "attention",
        scene.clip,
        scene.frame,
        f"Attention M = sum over channels of F^2 (Eq. 2) {of}, each from 0 to its own 99th percentile{told}: {where}",
        tuple(pictures),
    )


def _correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> float | None:
    if not (first.std() > 0 and second.std() > 0):
        return None
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def _decibels(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    return min(psnr(torch.from_numpy(first), torch.from_numpy(second)), 100.0)


def _most_different(lumas: Sequence[NDArray[np.float64]]) -> tuple[int, int]:
    """Top and left of the crop where the methods' middle frames lie furthest from their mean."""
    spread = np.abs(np.stack(lumas) - np.mean(lumas, 0)).sum(0)
    height, width = spread.shape
    return busiest(spread, (min(_CROP, height), min(_CROP, width)), 1)
