"""Comparison folders for the tests of the report: figures alone, which need no networks, and real ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from distill.data import find_clips
from distill.metrics.evaluate import evaluate
from distill.networks import registry
from distill.networks.checkpoint import Described, save
from distill.networks.opening import open_network
from distill.settings import to_yaml
from distill.training.config import Config, DataConfig, TrainingConfig
from distill.training.run_folder import environment

CONVENTION = {"channel": "y", "crop": 0, "degradation": "bi", "scale": 4, "frames": "all", "time_scale": 1}
TINY = {"channels": 8, "blocks": 1, "widths": [8, 8, 8], "frame_channels": 4}


def evaluation(clips: Mapping[str, Mapping[str, Any] | float], **convention: Any) -> dict[str, Any]:
    """As `Evaluation.to_json` has it; a bare number is a PSNR."""
    told = {
        name: each if isinstance(each, Mapping) else {"psnr": each, "ssim": 0.5, "frames": 3}
        for name, each in clips.items()
    }
    average = {"psnr": float(np.mean([each["psnr"] for each in told.values()]))}
    return {"clips": told, "average": average, "convention": {**CONVENTION, **convention}}


def write_plan(folder: Path, methods: Sequence[str], seeds: Sequence[int], **changes: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    plan = {
        "teacher": "edvr",
        "student": "fastdvdnet",
        "methods": list(methods),
        "seeds": list(seeds),
        "steps": 40,
        "command": "distill compare --methods ...",
        **changes,
    }
    (folder / "compare.json").write_text(json.dumps(plan))


def write_run(path: Path, results: Mapping[str, Any], **config: Any) -> None:
    path.mkdir(parents=True)
    (path / "results.json").write_text(json.dumps(results))
    (path / "config.yaml").write_text(json.dumps({"teacher": "edvr", "data": {"validation": "samples"}, **config}))
    (path / "env.json").write_text(json.dumps({"python": "3.11", "processor": "some"}))


def figures_only(folder: Path, grids: Mapping[str, Any], **convention: Any) -> Path:
    """Method -> PSNR, (seeds, clips)."""
    seeds = range(max(len(grid) for grid in grids.values()))
    write_plan(folder, list(grids), seeds)
    for method, grid in grids.items():
        for seed, row in enumerate(grid):
            figures = evaluation({f"clip{place}": value for place, value in enumerate(row)}, **convention)
            write_run(folder / method / f"seed-{seed}", {"student after": figures})
    return folder


def footage(folder: Path) -> Path:
    """Two clips of 3 frames, 96x72, where a part moves to the right."""
    for number, name in enumerate(("alley", "bridge")):
        (folder / name).mkdir(parents=True)
        coarse = np.random.default_rng(number).integers(0, 256, (18, 24, 3), dtype=np.uint8)
        still = np.asarray(Image.fromarray(coarse).resize((96, 72), Image.Resampling.BICUBIC))
        for frame in range(3):
            picture = still.copy()
            picture[40:56] = np.roll(still[40:56], 3 * frame, 1)
            Image.fromarray(picture).save(folder / name / f"{frame}.png")
    return folder


def real(folder: Path, videos: Path) -> Path:
    """Tiny students, judged; `std` at seed 1 has not finished."""
    methods = {"none": None, "output": "edvr", "std": "edvr"}
    write_plan(folder, list(methods), range(2))
    clips = find_clips(videos)
    shared = {
        "bicubic": evaluate(None, clips, degradation="bi").to_json(),
        "teacher": evaluate(open_network("edvr")[0], clips, degradation="bi").to_json(),
    }
    for seed in range(2):
        for number, (method, teacher) in enumerate(methods.items()):
            torch.manual_seed(100 * seed + number)
            path = folder / method / f"seed-{seed}"
            path.mkdir(parents=True)
            student = registry.find("fastdvdnet").build(**TINY).eval()
            with torch.no_grad():
                for parameter in student.parameters():  # a fresh one restores what bicubic does
                    parameter.add_(0.03 * torch.randn_like(parameter))
            save(path / "student.safetensors", student, Described("fastdvdnet", TINY, "bi", {}))
            config = Config(
                teacher=teacher,
                student_options=TINY,
                data=DataConfig(validation=str(videos)),
                training=TrainingConfig(steps=40, seed=seed),
            )
            (path / "config.yaml").write_text(to_yaml(config))
            (path / "env.json").write_text(json.dumps(environment()))
            (path / "log.txt").write_text("2026-01-02 10:00:00,000 began\n2026-01-02 10:03:30,000 ended\n")
            judged = evaluate(student, clips, degradation="bi").to_json()
            lines = [{"step": step, "learning_rate": 1.0, "loss": 1.0, "reconstruction": 1 / step} for step in (10, 40)]
            lines += [{"step": step, **judged["average"]} for step in (20, 40)]
            (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 4')
            results = {**shared, "student before": shared["bicubic"], "student after": judged}
            if (method, seed) != ("std", 1):
                (path / "results.json").write_text(json.dumps(results))
    return folder
