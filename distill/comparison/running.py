"""Running a comparison: the same student, seeds, crops and steps, with one thing changed from row to row."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from distill.data import find_clips, sample_clips
from distill.errors import ConfigError
from distill.files import replacing
from distill.interfaces import VideoNetwork
from distill.losses.methods import TERMS, method_named, resolve
from distill.metrics.evaluate import evaluate
from distill.networks.opening import named_teachers, open_network, pick_device
from distill.settings import to_yaml
from distill.training.config import Config
from distill.training.interruption import Interrupted
from distill.training.recipe import prepare, run_recipe
from distill.training.run_folder import RunFolder, log

__all__ = ["Experiment", "compare", "comparison_row", "methods_as_rows", "unfinished_runs"]


@dataclass(frozen=True)
class Experiment:
    """What is compared.

    Attributes:
        rows: name -> recipe; they differ in what the comparison is about, and in nothing else.
        seeds: how many; the same ones, from 0, for every row.
        judge: footage that every student is judged on when all is trained; None is the recipes' validation footage.
        command: as typed.
        lpips: judge by LPIPS too, which needs an extra.
    """

    rows: Mapping[str, Config]
    seeds: int
    judge: Path | None
    command: str
    lpips: bool = False


def methods_as_rows(config: Config, methods: Sequence[str]) -> dict[str, Config]:
    """A row for each method of distillation.

    Raises:
        ConfigError: a method is named twice, there is none of that name, or as `comparison_row`.
    """
    if repeated := sorted({name for name in methods if methods.count(name) > 1}):
        raise ConfigError(f"--methods names {', '.join(repeated)} more than once.")
    known = {term for name in methods for term in method_named(name).weights}
    foreign = [term for term in config.distillation.weights if term not in known]
    if foreign:
        raise ConfigError(f"distillation.weights has {', '.join(foreign)}, which none of the methods {methods} has.")
    return {
        name: comparison_row(name, replace(config, distillation=replace(config.distillation, method=name)))
        for name in methods
    }


def comparison_row(name: str, recipe: Config, added: Collection[str] = ()) -> Config:
    """A row without what its method has no use for: weights of other methods' terms, footage that teaches it nothing.

    Otherwise a weight that is set for one method would put its term into every row, the control among them.

    Args:
        name: of the row.
        recipe: with the settings of all rows.
        added: terms that the row itself adds to its method.

    Raises:
        ConfigError: a weight is no number from 0 up, or the warm-up lasts as long as the training.
    """
    settings = recipe.distillation
    own = {*method_named(settings.method).weights, *added}
    weights = {term: weight for term, weight in settings.weights.items() if term in own}
    terms = resolve(settings.method, weights).weights
    if terms and settings.warm_up >= recipe.training.steps:
        raise ConfigError(
            f"{name} would never distil: its warm-up lasts {settings.warm_up} steps of "
            f"{recipe.training.steps}; give a larger --budget or a shorter distillation.warm_up."
        )
    learns = any(not TERMS[term].needs_truth for term in terms)
    data = recipe.data if learns else replace(recipe.data, unlabelled=None)
    return replace(recipe, data=data, distillation=replace(settings, weights=weights))


def compare(experiment: Experiment, folder: Path) -> None:
    """Train and judge every row with every seed; what is finished already is left as it is.

    A run is `folder/ROW/seed-S`, a run folder like any other; beside what training leaves there lies `judged.json`, the
    evaluations of the student and of its contenders on the judge's footage, with the temporal metrics.
    `folder/compare.json` says what was compared.

    Raises:
        InputError: a recipe cannot be used, or the folder holds another experiment.
        Interrupted: stopped by the user; the same command goes on.
    """
    judge = _checked(experiment, folder)
    _claim(experiment, folder)
    runs = list(_runs(experiment, folder))
    for number, (name, config, path) in enumerate(runs, 1):
        if _finished(path):
            continue
        log.info("run %d of %d: %s, seed %d", number, len(runs), name, config.training.seed)
        run = RunFolder(path)
        resume = run.last if run.last.exists() else None
        try:
            run_recipe(config, prepare(config, run, experiment.command), experiment.command, resume)
        except Interrupted:
            log.info("the same distill compare goes on from there")
            raise
    for name, config, path in runs:
        if not (path / "judged.json").exists():
            log.info("judging %s, seed %d", name, config.training.seed)
            _write(path / "judged.json", judge.results(config, path))


def unfinished_runs(experiment: Experiment, folder: Path) -> list[str]:
    """The run folders that are still to be trained, after every row's recipe was found to be usable.

    Raises:
        InputError: a recipe cannot be used.
    """
    _checked(experiment, folder)
    return [str(path) for _, _, path in _runs(experiment, folder) if not _finished(path)]


def _checked(experiment: Experiment, folder: Path) -> _Judge:
    """Find what is wrong before hours of training do; nothing is written."""
    if experiment.seeds < 1:
        raise ConfigError(f"--seeds is {experiment.seeds}, expected at least 1.")
    for name, config in experiment.rows.items():
        text = to_yaml(_seedless(config))
        known = folder / _slug(name) / "recipe.yaml"
        if known.exists() and known.read_text(encoding="utf-8") != text:
            raise ConfigError(
                f"{folder} already holds {name!r} with another recipe ({_first_difference(known, text)}); choose "
                "another --out."
            )
    slugs = [_slug(name) for name in experiment.rows]
    if repeated := sorted({each for each in slugs if slugs.count(each) > 1 or not each.strip(".")}):
        raise ConfigError(f"Rows share or lack a folder name ({', '.join(repeated) or 'empty'}); name them otherwise.")
    _check_judge(experiment, folder)
    for _, config, path in islice(_runs(experiment, folder), len(experiment.rows)):
        if not _finished(path):
            prepare(config, RunFolder(path), experiment.command)
    return _Judge(experiment, folder)


def _check_judge(experiment: Experiment, folder: Path) -> None:
    """Figures of other footage, or of another degradation, must not stand beside new ones."""
    path = folder / "compare.json"
    if path.exists() and any(folder.glob("*/seed-*/judged.json")):
        known = json.loads(path.read_text(encoding="utf-8"))
        judge = None if experiment.judge is None else str(experiment.judge)
        if (known["judge"], known.get("lpips", False)) != (judge, experiment.lpips):
            raise ConfigError(
                f"{folder} was judged on {known['judge'] or 'the validation footage'}"
                f"{', with --lpips' if known.get('lpips') else ''}; judge likewise, or choose another --out."
            )


def _claim(experiment: Experiment, folder: Path) -> None:
    """Write down what is compared; more rows and seeds may join what is there."""
    path = folder / "compare.json"
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    rows = list(dict.fromkeys([*known.get("methods", ()), *experiment.rows]))
    first = next(iter(experiment.rows.values()))
    facts = {
        "teacher": first.teacher,
        "student": first.student,
        "methods": rows,
        "folders": {name: _slug(name) for name in rows},
        "seeds": list(range(max(experiment.seeds, len(known.get("seeds", ()))))),
        "steps": first.training.steps,
        "judge": None if experiment.judge is None else str(experiment.judge),
        "lpips": experiment.lpips,
        "command": experiment.command,
    }
    for name, config in experiment.rows.items():
        recipe = folder / _slug(name) / "recipe.yaml"
        recipe.parent.mkdir(parents=True, exist_ok=True)
        with replacing(recipe) as temporary:
            temporary.write_text(to_yaml(_seedless(config)), encoding="utf-8")
    _write(path, facts)


def _first_difference(known: Path, text: str) -> str:
    before = known.read_text(encoding="utf-8").splitlines()
    changed = (
        f"{old.strip()} there, {new.strip()} here"
        for old, new in zip(before, text.splitlines(), strict=False)
        if old != new
    )
    return next(changed, "more settings")


def _seedless(config: Config) -> Config:
    return replace(config, training=replace(config.training, seed=0, device="auto"))


def _slug(name: str) -> str:
    """A row's name as that of a folder."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", name).strip("-")


def _runs(experiment: Experiment, folder: Path) -> Iterator[tuple[str, Config, Path]]:
    """All of one seed before the next, so that what is there at any time can be compared.

    A student that is a file may be another one for each seed: "{seed}" in its name is the seed.
    """
    for seed in range(experiment.seeds):
        for name, config in experiment.rows.items():
            path = folder / _slug(name) / f"seed-{seed}"
            student = config.student.replace("{seed}", str(seed))
            yield name, replace(config, student=student, training=replace(config.training, seed=seed)), path


def _finished(path: Path) -> bool:
    return (path / "results.json").exists()


class _Judge:
    """Evaluates students, and the networks that are the same in all runs only once."""

    def __init__(self, experiment: Experiment, folder: Path) -> None:
        self.contenders, self.lpips = folder / "contenders.json", experiment.lpips
        first = next(iter(experiment.rows.values()))
        place = experiment.judge if experiment.judge is not None else first.data.validation
        self.clips = find_clips(sample_clips("held_out") if place == "samples" else Path(place))

    def results(self, config: Config, path: Path) -> dict[str, Any]:
        """Contender -> evaluation as JSON, for one run."""
        student, _ = open_network(str(path))
        named = [name for name, _ in named_teachers(config.teacher)] if config.teacher is not None else []
        scale = student.time_scale
        judged = {"bicubic": self._once("bicubic", config, scale)}
        judged["student after"] = self._evaluated(student, config, scale)
        for name in named:
            judged["teacher" if len(named) == 1 else f"teacher {name}"] = self._once(name, config, scale)
        return judged

    def _once(self, name: str, config: Config, time_scale: int) -> dict[str, Any]:
        known = json.loads(self.contenders.read_text(encoding="utf-8")) if self.contenders.exists() else {}
        key = f"{name}, {config.data.degradation}" + ("" if time_scale == 1 else f", x{time_scale} in time")
        if key not in known:
            log.info("judging %s", name)
            network = None if name == "bicubic" else open_network(name)[0]
            known[key] = self._evaluated(network, config, time_scale)
            _write(self.contenders, known)
        found: dict[str, Any] = known[key]
        return found

    def _evaluated(self, network: VideoNetwork | None, config: Config, time_scale: int) -> dict[str, Any]:
        degradation, device = config.data.degradation, pick_device(config.training.device)
        frames = sum(clip.length for clip in self.clips)
        with tqdm(total=frames, unit="frame", disable=None, dynamic_ncols=True, leave=False) as bar:
            evaluation = evaluate(
                network,
                self.clips,
                degradation=degradation,
                device=device,
                temporal=True,
                lpips=self.lpips,
                time_scale=time_scale,
                progress=lambda count: _advance(bar, count),
            )
        return evaluation.to_json()


def _advance(bar: tqdm[Any], count: int) -> None:
    bar.update(count)


def _write(path: Path, document: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
