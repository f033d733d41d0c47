"""The paper's tables as recipes: what a table compares, and its figures beside ours."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from distill.comparison.running import comparison_row
from distill.errors import ConfigError
from distill.settings import read_file, read_yaml
from distill.text_tables import aligned
from distill.training.config import Config, read_config

__all__ = ["PaperTable", "beside_paper", "compared_with_paper", "find_table", "read_table", "table_rows"]

_WEIGHTS = "distillation.weights."


@dataclass(frozen=True)
class PaperTable:
    """A comparison as a file.

    Attributes:
        path: of the file.
        title: one line.
        setting: how the paper's figures were made.
        recipe: what all rows share; in the file also the name of a recipe, seen from there.
        rows: name -> settings by dotted key, what each row changes.
        paper: row -> clip -> PSNR in dB, as printed.
    """

    path: Path
    title: str
    setting: str
    recipe: Mapping[str, Any]
    rows: Mapping[str, Mapping[str, Any]]
    paper: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class _Content:
    """What the file of a table holds."""

    rows: Mapping[str, Mapping[str, Any]]
    title: str | None = None
    setting: str = ""
    recipe: str | Mapping[str, Any] | None = None
    paper: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def problems(self) -> Iterator[str]:
        if not self.rows:
            yield "rows is empty, expected {name: {key.sub: value}}"


def find_table(name: str) -> Path:
    """A table by its file, or by its name in configs/ablations.

    Raises:
        ConfigError: there is none.
    """
    if Path(name).exists():
        return Path(name)
    import configs

    shipped = sorted((Path(configs.__file__).parent / "ablations").glob("*.yaml"))
    for path in shipped:
        if name in (path.name, path.stem):
            return path
    raise ConfigError(f"There is no table {name!r}; give a file or one of {', '.join(each.stem for each in shipped)}.")


def read_table(path: Path) -> PaperTable:
    """A table of configs/ablations or of the user's.

    Raises:
        ConfigError: it cannot be read, lacks rows, or has keys that no table has.
    """
    content = read_file(_Content, path, "table")
    recipe = content.recipe or {}
    if isinstance(recipe, str):
        recipe = read_yaml(path.parent / recipe)
    return PaperTable(path, content.title or path.stem, content.setting, recipe, content.rows, content.paper)


def table_rows(
    table: PaperTable, file: Path | None, settings: Iterable[str], flags: Mapping[str, Any]
) -> dict[str, Config]:
    """Each row's recipe: the table's, then the user's file, settings and flags, then what the row changes.

    Raises:
        ConfigError: as `read_config` and `comparison_row`.
    """
    shared = (str(table.path), table.recipe)
    settings = list(settings)
    rows = {}
    for name, changes in table.rows.items():
        row = read_config(file, settings, flags, before=shared, after=(f"{table.path}, row {name!r}", changes))
        added = [key.removeprefix(_WEIGHTS) for key in changes if key.startswith(_WEIGHTS)]
        rows[name] = comparison_row(name, row, added)
    return rows


def compared_with_paper(table: PaperTable, folder: Path) -> dict[str, Any]:
    """Our PSNR for each row and clip, mean over the seeds, the paper's, and how each was made."""
    facts = json.loads((folder / "compare.json").read_text(encoding="utf-8"))
    recipe = read_yaml(folder / facts["folders"][next(iter(table.rows))] / "recipe.yaml")
    training, data = recipe["training"], recipe["data"]
    judged = {row: {path.parent.name for path in _judged(folder / facts["folders"][row])} for row in table.rows}
    seeds = sorted(set.intersection(*judged.values()))
    ours = {row: _mean_over_seeds(folder / facts["folders"][row], seeds) for row in table.rows}
    setting = (
        f"{facts['steps']} steps, batch {training['batch']}, crops of {data['crop']}, seeds: {len(seeds)}, "
        f"data {data['path']}, degradation {data['degradation']}, judged on {facts['judge'] or data['validation']}; "
        "Y channel, PSNR in dB"
    )
    return {
        "title": table.title,
        "ours": {"setting": setting, "rows": ours},
        "paper": {"setting": table.setting, "rows": {row: dict(table.paper.get(row, {})) for row in table.rows}},
    }


def beside_paper(table: PaperTable, folder: Path) -> str:
    """`compared_with_paper` as lines for people."""
    compared = compared_with_paper(table, folder)
    columns = list(next(iter(compared["ours"]["rows"].values())))
    lines = [["", "", *columns]]
    for row in table.rows:
        for whose, digits in (("ours", 3), ("paper", 2)):
            figures = {clip.lower(): value for clip, value in compared[whose]["rows"][row].items()}
            cells = (f"{figures[key]:.{digits}f}" if (key := clip.lower()) in figures else "-" for clip in columns)
            lines.append([row if whose == "ours" else "", whose, *cells])
    settings = [[f"{whose}:", compared[whose]["setting"]] for whose in ("ours", "paper")]
    return "\n".join([table.title, *aligned(lines, left=(0, 1)), *aligned(settings, left=(0, 1))])


def _judged(folder: Path) -> list[Path]:
    return sorted(folder.glob("seed-*/judged.json"))


def _mean_over_seeds(folder: Path, seeds: Collection[str]) -> dict[str, float]:
    """Clip -> dB, then the average, over the seeds at which every row is judged."""
    files = [path for path in _judged(folder) if path.parent.name in seeds]
    judged = [json.loads(path.read_text(encoding="utf-8"))["student after"] for path in files]
    if not judged:
        return {}
    clips = {name: fmean(each["clips"][name]["psnr"] for each in judged) for name in judged[0]["clips"]}
    return {**clips, "average": fmean(each["average"]["psnr"] for each in judged)}
