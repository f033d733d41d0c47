"""What README, CONTRIBUTING and the recipes tell people to type is what the command takes."""

from __future__ import annotations

import json
import pkgutil
import re
import shlex

import pytest

from distill.cli import _parser
from distill.losses.methods import METHODS, TERMS, Method
from tests.places import ROOT

DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "teachers" / "shipped").glob("*.md")),
]
RECIPES = sorted((ROOT / "configs").rglob("*.yaml"))

COMMANDS = ("train", "compare", "report", "adapt", "eval", "upscale", "export", "profile", "plan")


def commands():
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(r"^\s*(distill .+)$", text, re.M) + re.findall(r"`(distill [^`]*)`", text):
            yield path.name, line
    for path in RECIPES:
        yield path.name, path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")


@pytest.mark.parametrize(("where", "line"), list(commands()))
def test_every_command_is_one(where, line):
    words = shlex.split(line, comments=True)
    if len(words) == 2 and words[1] in (*COMMANDS, "--help"):
        return
    assert _parser().parse_args(words[1:]).run


def test_documents_hold_commands():
    assert sum(1 for _ in commands()) > 10


def code_under(heading):
    """The one Python example of a section of CONTRIBUTING.md."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    (code,) = re.findall(r"```python\n(.*?)```", section, re.S)
    return code


def test_a_student_in_four_steps(document, quick, tmp_path, monkeypatch):
    (tmp_path / "mynet.py").write_text(code_under("Add a student in four steps"))
    monkeypatch.syspath_prepend(str(tmp_path))
    result = document("train", "--student", "mynet:MyNet", "--out", tmp_path / "run", *quick[2:])
    assert "student after" in result["results"]
    (exported,) = document("export", tmp_path / "run", "--to", "onnx")
    assert exported["parity"]["max_abs"] <= 1e-4


def test_a_loss_in_three_steps(document, quick, tmp_path, monkeypatch):
    (tmp_path / "edges.py").write_text(code_under("Add a loss in three steps"))
    monkeypatch.syspath_prepend(str(tmp_path))
    term = pkgutil.resolve_name("edges:Edges")
    monkeypatch.setitem(TERMS, term.name, term)
    monkeypatch.setitem(METHODS, term.name, Method("the teacher's edges", {term.name: 0.5}))
    document("train", "--method", "edges", "--out", tmp_path / "run", *quick)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["edges"] > 0 for line in lines if "edges" in line] == [True] * 3  # but for the warm-up's step
