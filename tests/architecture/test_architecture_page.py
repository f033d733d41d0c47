"""docs/architecture.md tells walks as file:function; each place on them exists."""

from __future__ import annotations

import ast
import re

import pytest

from tests.places import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
STOPS = re.findall(r"`((?:distill|export|teachers|students)/[\w/]+\.py):([\w.]+)`", PAGE)
ROOMS = re.findall(r"^    ((?:distill|export)/[a-z_]+)\s", PAGE, re.M)


def defined(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        if isinstance(node, ast.ClassDef):
            yield from (f"{node.name}.{each.name}" for each in node.body if isinstance(each, ast.FunctionDef))


@pytest.mark.parametrize(("file", "name"), STOPS)
def test_every_stop_of_a_walk_exists(file, name):
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert name in set(defined(tree))


def test_there_are_three_walks():
    assert len(re.findall(r"^### ", PAGE, re.M)) == 3
    assert len(STOPS) > 40


def test_every_room_is_on_the_page():
    folders = {
        path.parent.relative_to(ROOT).as_posix()
        for package in ("distill", "export")
        for path in (ROOT / package).rglob("__init__.py")
    }
    assert set(ROOMS) == {folder for folder in folders if "/" in folder}
