"""The worked example of docs/plugging-in.md, as another package would bring it."""

from __future__ import annotations

import importlib
import re
import sys

import pytest

from distill.errors import ConfigError
from distill.networks import registry
from tests.places import ROOT

TEXT = (ROOT / "docs" / "plugging-in.md").read_text(encoding="utf-8")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The example and its entry point, as pip would lay them out."""
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    (group, name, value) = re.search(r'entry-points\."(.+?)"\]\n(\S+) = "(.+?)"', TEXT).groups()
    site = tmp_path / "site"
    metadata = site / "acme_vsr-1.0.dist-info"
    metadata.mkdir(parents=True)
    (site / "acme_vsr.py").write_text(code)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-vsr\nVersion: 1.0\n")
    points = f"[{group}]\n{name} = {value}\nbroken = acme_nowhere:Net\nedvr-m = acme_vsr:Sharper\n"
    (metadata / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(str(site))
    return site


@pytest.fixture
def list_few(document, monkeypatch):
    """`distill list` of what comes from elsewhere and one network more: counting all takes most of a minute."""

    def listed():
        few = [entry for entry in registry.entries() if entry.elsewhere or entry.name == "edvr-s"]
        with monkeypatch.context() as patch:
            patch.setattr(registry, "entries", lambda: few)
            return {row["name"]: row for row in document("list")}

    return listed


def test_the_example_is_thirty_lines():
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    assert len(code.splitlines()) <= 32


def test_it_teaches_by_class_by_file_and_by_name(installed, document, list_few, quick, tmp_path):
    fast = quick[2:]
    pretrained = tmp_path / "sharper"
    document("pretrain", "acme_vsr:Sharper", "--out", pretrained, *fast)
    for number, teacher in enumerate(("acme_vsr:Sharper", pretrained, "acme-sharper")):
        result = document("train", "--teacher", teacher, "--out", tmp_path / str(number), *fast)
        assert "student after" in result["results"]
        assert "teacher" in result["results"]
    listed = list_few()
    assert (listed["acme-sharper"]["role"], listed["acme-sharper"]["hr_channels"]) == ("teacher", 32)


def test_a_broken_plug_in_and_a_taken_name_are_left_out(installed, caplog):
    known = {entry.name: entry for entry in registry.entries()}
    assert known["edvr-m"].network.__name__ == "EDVR"
    assert "broken" not in known
    assert "'broken' of an installed package is left out" in caplog.text
    assert "the name is taken" in caplog.text


def test_a_teacher_cannot_be_taken_for_a_student(installed):
    with pytest.raises(ConfigError, match="'acme-sharper' is a teacher"):
        registry.find("acme-sharper", "student")


def test_one_that_cannot_be_counted_leaves_the_others_listed(installed, list_few, caplog):
    broken = "\n\nclass Needy(Sharper):\n    def __init__(self, needed):\n        super().__init__()\n"
    module = installed / "acme_vsr.py"
    module.write_text(module.read_text() + broken)
    points = installed / "acme_vsr-1.0.dist-info" / "entry_points.txt"
    points.write_text("[distill_vsr.students]\nneedy = acme_vsr:Needy\n")
    importlib.invalidate_caches()
    sys.modules.pop("acme_vsr", None)
    registry._plugged_in.cache_clear()
    listed = list_few()
    assert "edvr-s" in listed
    assert "needy" not in listed
    assert "needy of an installed package cannot be counted" in caplog.text
