from __future__ import annotations

import math

import pytest

from distill.errors import ConfigError
from export.plan.device import known_devices, read_device
from export.plan.host import measure_host
from export.plan.plan import plan_student
from tests.places import ROOT

TABLE = """
name: toy
title: Toy
unit: abacus
measured: no
compute: {fp32: {value: 1, measured: no, date: 2026-01-31, source: thin air}}
bandwidth: {value: 2, measured: yes, date: "2026-01-31", source: a ruler}
"""


@pytest.mark.parametrize("name", known_devices())
def test_shipped_tables_tell_where_each_figure_is_from(name):
    table = read_device(name)
    assert table.name == name
    assert table.measured == (name == "host")
    for figure in (*table.figures().values(), *table.operators, table.spread):
        assert figure.date.startswith("2026-")
        assert len(figure.source) > 5
    if name != "host":
        assert not any(each.measured for each in table.figures().values())


def test_an_unknown_device_is_answered_with_the_known_ones():
    with pytest.raises(
        ConfigError, match=r"no device 'snapdragon-8-gen-3'. Did you mean 'snapdragon-8-gen3'\?.*host, "
    ):
        read_device("snapdragon-8-gen-3")


def test_a_table_of_ones_own_is_read(tmp_path):
    path = tmp_path / "toy.yaml"
    path.write_text(TABLE)
    table = read_device(path)
    assert (table.name, table.compute["fp32"].value, table.bandwidth.measured) == ("toy", 1, True)
    assert table.compute["fp32"].date == table.bandwidth.date == "2026-01-31"
    assert table.launch is None
    found = plan_student("vespcn-mobile", (8, 12), 16, str(path))
    assert found.device == table
    assert "0.5 to 2 times the estimate: assumed" in found.text()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("title: Toy|", r"toy.yaml: the key 'title' is missing"),
        ("unit: abacus|unit: 7", r"unit is 7, expected text"),
        ("measured: no\ncompute|measured: maybe\ncompute", r"measured is 'maybe', expected true or false"),
        ("fp32:|fp64:", r"there is no key 'compute.fp64'. Did you mean 'fp16'\?"),
        ("{fp32: {value: 1, measured: no, date: 2026-01-31, source: thin air}}|{}", r"compute is empty"),
        ("value: 1,|value: 0,", r"compute.fp32.value is 0, expected a number above 0"),
        ("value: 1,|value: yes,", r"compute.fp32.value is True, expected a number"),
        ("value: 1,|", r"the key 'compute.fp32.value' is missing"),
        ("source: thin air|source:", r"compute.fp32.source is None, expected text"),
        (", source: a ruler|", r"the key 'bandwidth.source' is missing"),
        ("bandwidth: {|bandwith: {", r"there is no key 'bandwith'. Did you mean 'bandwidth'\?"),
        ("unit: abacus|unit: abacus\noperators: GridSample", r"operators is 'GridSample', expected a list"),
        ("unit: abacus|unit: abacus\noperators: [{kind: Gridsampel, effect: slow, why: w, measured: no, date: d, "
         "source: s}]", r"operators\[0\].kind is 'Gridsampel'.*Did you mean 'GridSample'\?"),
        ("unit: abacus|unit: abacus\noperators: [{kind: Conv, effect: bad, why: w, measured: no, date: d, source: s}]",
         r"operators\[0\].effect is 'bad', expected one of 'leaves', 'slow'"),
        ("unit: abacus|unit: abacus\nspread: {low: 2, high: 1, measured: no, date: d, source: s}",
         r"spread.low is 2, expected no more than high, 1"),
        ("unit: abacus|unit: abacus\nutilisation: {value: 70, measured: no, date: d, source: s}",
         r"utilisation.value is 70, expected a share, up to 1"),
        ("name: toy|name: [toy", r"is not YAML"),
    ],
)  # fmt: skip
def test_a_malformed_table_is_refused_by_its_key(tmp_path, change, complaint):
    before, after = change.split("|")
    assert before in TABLE
    path = tmp_path / "toy.yaml"
    path.write_text(TABLE.replace(before, after))
    with pytest.raises(ConfigError, match=complaint) as caught:
        read_device(path)
    assert str(path) in str(caught.value)


def test_everything_wrong_with_a_table_is_reported_together(tmp_path):
    path = tmp_path / "toy.yaml"
    path.write_text(TABLE.replace("title", "titel").replace("value: 1", "value: one").replace(", source: a ruler", ""))
    with pytest.raises(ConfigError) as caught:
        read_device(path)
    text = str(caught.value)
    assert text.startswith(f"The device table {path}: 4 things are wrong: ")
    for part in (
        "there is no key 'titel'. Did you mean 'title'?",
        "the key 'title' is missing",
        "compute.fp32.value is 'one', expected a number",
        "the key 'bandwidth.source' is missing",
    ):
        assert part in text


def test_an_empty_file_is_answered_with_the_keys_of_a_table(tmp_path):
    path = tmp_path / "toy.yaml"
    path.write_text("")
    with pytest.raises(ConfigError, match=r"the key 'name' is missing; .*the key 'bandwidth' is missing"):
        read_device(path)


@pytest.mark.parametrize("content", ["a word", "- a list"])
def test_a_file_that_is_no_table_is_refused(tmp_path, content):
    path = tmp_path / "toy.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match="expected keys with values"):
        read_device(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_device(tmp_path / "none.yaml")


def test_this_machine_is_measured_into_a_table(tmp_path):
    path = tmp_path / "mine.yaml"
    measure_host(path)
    table = read_device(path)
    assert (table.name, table.measured) == ("mine", True)
    assert all(each.measured and math.isfinite(each.value) for each in table.figures().values())


def test_the_documented_table_is_one(tmp_path):
    text = (ROOT / "docs" / "planning.md").read_text(encoding="utf-8")
    path = tmp_path / "documented.yaml"
    path.write_text(text.split("```yaml\n")[1].split("```")[0])
    table = read_device(path)
    assert table.utilisation is not None
    assert [each.kind for each in table.operators] == ["GridSample"]
