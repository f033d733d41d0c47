"""What README, CONTRIBUTING and the recipes tell people to type is what the command takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from distill.cli import _parser
from tests.recipes.conftest import TINY

ROOT = Path(__file__).resolve().parents[2]
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


def test_a_student_in_four_steps(document, tmp_path, monkeypatch):
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    (tmp_path / "mynet.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    result = document("train", "--student", "mynet:MyNet", "--out", tmp_path / "run", *TINY[2:])
    assert "student after" in result["results"]
    (exported,) = document("export", tmp_path / "run", "--to", "onnx")
    assert exported["parity"]["max_abs"] <= 1e-4
