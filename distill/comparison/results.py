"""What a comparison folder holds: the runs that finished, side by side, and the names of those that did not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from distill.errors import ConfigError, DataError
from distill.settings import flat

__all__ = ["AFTER", "CONTROLS", "Comparison", "Run", "read_comparison"]

AFTER = "student after"
CONTROLS = ("none", "output")
"""What a method is measured against: the student alone, and the plain distillation of frames."""

_TRAINED, _JUDGED = "results.json", "judged.json"
_SESSION = "going on from step"  # how a resumed run's log goes on


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        path: its folder.
        method: that it trained by.
        seed: that it began from.
        judged: contender -> evaluation as JSON.
        before: PSNR on the validation footage before the first step, in dB; None where it is not known.
        config: its recipe, dotted key -> value.
        environment: versions and machine.
        history: the lines of metrics.jsonl.
        minutes: that it took by its log, None where there is none.
    """

    path: Path
    method: str
    seed: int
    judged: Mapping[str, Any]
    before: float | None
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    history: tuple[Mapping[str, Any], ...]
    minutes: float | None


@dataclass(frozen=True)
class Comparison:
    """Runs of one student by several methods, judged alike.

    Attributes:
        folder: where they lie.
        teacher: as it was named; None where no method has one.
        student: as it was named.
        methods: rows of the comparison that have a finished run, in the order asked for; of the name of their method
            of distillation unless a table named them otherwise.
        seeds: that have a finished run.
        steps: of every run.
        command: that made the folder.
        judge: footage that the figures are of, as it was named.
        runs: (method, seed) -> run.
        missing: what was asked for and is not there, one sentence each.
        clips: that every run was judged on, in order.
        convention: of all figures.
    """

    folder: Path
    teacher: str | None
    student: str
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int
    command: str
    judge: str
    runs: Mapping[tuple[str, int], Run]
    missing: tuple[str, ...]
    clips: tuple[str, ...]
    convention: Mapping[str, Any]

    def seeds_of(self, *methods: str) -> tuple[int, ...]:
        """Seeds at which all these methods have finished."""
        return tuple(seed for seed in self.seeds if all((method, seed) in self.runs for method in methods))

    def control(self, method: str) -> str | None:
        """Which of the `CONTROLS` a row is, whatever it is called; None for what they are controls of."""
        config = self._config(method)
        trained = "none" if config.get("teacher", "") is None else config.get("distillation.method")
        kind = method if method in CONTROLS else trained
        return str(kind) if kind in CONTROLS else None

    def controls_of(self, method: str) -> tuple[str, ...]:
        """The controls of the same student that a row can be measured against, at least at one seed."""
        own = self.control(method)
        kinds = CONTROLS if own is None else CONTROLS[: CONTROLS.index(own)]
        found = []
        for kind in kinds:
            alike = [
                each
                for each in self.methods
                if self.control(each) == kind and self._fits(each, method, kind) and self.seeds_of(method, each)
            ]
            found += alike[:1]
        return tuple(found)

    def contenders(self) -> dict[str, Mapping[str, Any]]:
        """The evaluations of what no run trains: bicubic and the teachers."""
        several = len({run.config.get("teacher") for run in self.runs.values()} - {None}) > 1
        found: dict[str, Mapping[str, Any]] = {}
        for run in self.runs.values():
            for name, evaluation in run.judged.items():
                if not name.startswith("student "):
                    label = f"teacher {run.config['teacher']}" if several and name == "teacher" else name
                    found.setdefault(label, evaluation)
        return found

    def _config(self, method: str) -> Mapping[str, Any]:
        return self.runs[method, self.seeds_of(method)[0]].config

    def _fits(self, control: str, method: str, kind: str) -> bool:
        """The same student; and the same teacher, where the control has one."""
        ours, theirs = self._config(method), self._config(control)
        keys = {key for key in (*ours, *theirs) if key.startswith("student") or (kind == "output" and key == "teacher")}
        return all(ours.get(key) == theirs.get(key) for key in keys)


def read_comparison(folder: Path) -> Comparison:
    """Read what `distill compare` wrote.

    Args:
        folder: with compare.json and METHOD/seed-S/, each with results.json; figures are those of judged.json beside
            it where a comparison was judged on its own footage, else those of results.json.

    Raises:
        ConfigError: it is no such folder.
        DataError: no method has finished at the same seed as a control, or runs were judged differently.
    """
    plan = _plan(folder)
    figures = _JUDGED if any(folder.glob(f"*/seed-*/{_JUDGED}")) else _TRAINED
    runs: dict[tuple[str, int], Run] = {}
    preliminary = figures == _TRAINED and plan["judged"]
    missing = ["preliminary: no run was judged yet, and the figures are those of training's validation"] * preliminary
    for method in plan["methods"]:
        for seed in plan["seeds"]:
            found = _run(
                folder / plan["folders"].get(method, method) / f"seed-{seed}", method, seed, figures, plan["student"]
            )
            if isinstance(found, Run):
                runs[method, seed] = found
            else:
                missing.append(found)
    first = next(iter(runs.values()), None)
    if first is None:
        raise DataError(f"{folder} holds no finished run; let distill compare finish, then ask again.")
    _check_alike(runs.values(), first)
    comparison = Comparison(
        folder,
        plan["teacher"],
        plan["student"],
        tuple(method for method in plan["methods"] if any(method == one for one, _ in runs)),
        tuple(seed for seed in plan["seeds"] if any(seed == one for _, one in runs)),
        plan["steps"],
        plan["command"],
        str((figures == _JUDGED and plan["judge"]) or first.config.get("data.validation", "samples")),
        runs,
        tuple(missing),
        tuple(first.judged[AFTER]["clips"]),
        first.judged[AFTER]["convention"],
    )
    if not any(comparison.controls_of(method) for method in comparison.methods):
        finished = ", ".join(f"{method} at seed {seed}" for method, seed in runs)
        raise DataError(
            f"{folder} has nothing to compare: a method and a control (none or output) of the same student must "
            f"have finished at the same seed, and finished are: {finished}."
        )
    return comparison


def _plan(folder: Path) -> dict[str, Any]:
    path = folder / "compare.json"
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        return {
            "teacher": None if plan["teacher"] is None else str(plan["teacher"]),
            "student": str(plan["student"]),
            "methods": [str(method) for method in plan["methods"]],
            "seeds": [int(seed) for seed in plan["seeds"]],
            "steps": int(plan["steps"]),
            "command": str(plan["command"]),
            "folders": dict(plan.get("folders", {})),
            "judge": plan.get("judge"),
            "judged": "judge" in plan,
        }
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(
            f"{folder} is no comparison, since it has no compare.json; give the --out folder of distill compare."
        ) from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path} is damaged ({error}); give the --out folder of distill compare.") from error


def _run(path: Path, method: str, seed: int, figures: str, student: str) -> Run | str:
    """The run, or why it is left out."""
    name = f"{method} at seed {seed}"
    if not path.is_dir():
        return f"{name} was not started"
    if not (path / _TRAINED).is_file():
        return f"{name} has not finished"
    if not (path / figures).is_file():
        return f"{name} was not judged yet"
    try:
        judged = json.loads((path / figures).read_text(encoding="utf-8"))
        for facts in (judged[AFTER], *judged.values()):
            _ = facts["clips"].items(), facts["convention"].items(), float(facts["average"]["psnr"])
        trained = json.loads((path / _TRAINED).read_text(encoding="utf-8"))
        before = trained.get("student before")
        before = None if before is None else float(before["average"]["psnr"])
        config = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
        if config.get("student") == student.replace("{seed}", str(seed)):
            config["student"] = student  # a file for each seed is one student
        environment = json.loads((path / "env.json").read_text(encoding="utf-8"))
        return Run(path, method, seed, judged, before, flat(config), environment, _history(path), _minutes(path))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        return f"{name} cannot be read ({' '.join(str(error).split())})"


def _check_alike(runs: Any, first: Run) -> None:
    expected = first.judged[AFTER]
    for run in runs:
        found = run.judged[AFTER]
        if found["convention"] != expected["convention"] or list(found["clips"]) != list(expected["clips"]):
            raise DataError(
                f"{run.path} was judged on other clips or by another convention than {first.path}; train it again with "
                "the same data.validation."
            )


def _history(path: Path) -> tuple[Mapping[str, Any], ...]:
    """The lines of metrics.jsonl, but for one that a hard stop left half written."""
    file = path / "metrics.jsonl"
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return tuple(line for line in lines if isinstance(line, dict) and "step" in line)


def _minutes(path: Path) -> float | None:
    """From the first to the last line of the log, without the pauses before a run was resumed."""
    file = path / "log.txt"
    seconds, began, last = 0.0, None, None
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else ():
        try:
            now = datetime.strptime(line[:19], "%Y-%m-%d %H:%M:%S")
        except ValueError:
            continue  # a message of several lines
        if began is not None and last is not None and _SESSION in line:
            seconds += (last - began).total_seconds()
            began = now
        began, last = began or now, now
    if began is None or last is None:
        return None
    return (seconds + (last - began).total_seconds()) / 60
