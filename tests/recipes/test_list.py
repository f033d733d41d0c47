"""`distill list` against the published parameter counts and multiply-accumulates, and docs/networks.md against it."""

from __future__ import annotations

import re

import pytest

from distill.networks import registry
from distill.networks.opening import open_network
from tests.places import ROOT

# name, parameters, multiply-accumulates at 180x120 as published figures have them: so many digits and the unit
PUBLISHED = [
    ("edvr-m", 3_300_131, "0.1826 T"),
    ("edvr-m-7f", 3_316_515, "0.2366 T"),
    ("edvr-l-5f", 20_633_827, "0.7933 T"),
    ("edvr-l", 20_699_363, "0.9846 T"),
    ("rbpn-published", 12_771_943, "3.185 T"),
    ("stinet-l", 11_761_602, "3.738 T"),
    ("starnet-v1", "48.97 M", "2.87 T"),
    ("starnet-v2", "54.04 M", "3.24 T"),
    ("starnet-v3", "51.60 M", "2.83 T"),
    ("starnet-v4", "58.09 M", "3.33 T"),
    ("stvun-l", 30_882_276, "0.551 T"),
    ("fastdvdnet-denoiser", 2_479_096, "13.74 G"),
    ("vsrnet", 272_577, "0.0977 T"),
    ("vdsr", 664_704, "0.2297 T"),
    ("d3dnet", 2_579_941, "0.3204 T"),
    ("sofvsr", 1_047_617, "0.0453 T"),
    ("vespcn-loseall", 878_787, "18.65 G"),
    # widths derived from the operations in the table of Space-Time Distillation
    ("fastdvdnet", 3_567_687, "0.0592 T"),
    ("vespcn-std", 804_931, "0.2640 T"),
    ("vsrnet-std", 677_376, "0.2341 T"),
]
UNITS = {"M": 1e6, "G": 1e9, "T": 1e12}


def printed(value, like):
    """`value` with as many digits and in the unit of `like`."""
    number, unit = like.split()
    return f"{value / UNITS[unit]:.{len(number.partition('.')[2])}f} {unit}"


@pytest.fixture(scope="module")
def rows(counted_once):
    from distill.networks.costs import costs

    return {row["name"]: row for row in costs()}


@pytest.mark.parametrize(("name", "parameters", "macs"), PUBLISHED)
def test_published_figures_to_the_digit(rows, name, parameters, macs):
    row = rows[name]
    assert printed(row["published_macs"], macs) == macs
    if isinstance(parameters, str):
        assert printed(row["parameters"], parameters) == parameters
    else:
        assert row["parameters"] == parameters


def test_the_parts_of_vespcn(rows):
    parts = rows["vespcn"]["parts"]
    assert rows["vespcn"]["parameters"] == 174_678
    assert printed(parts["espcn"]["macs"], "2.61 G") == "2.61 G"
    assert (parts["espcn"]["parameters"], parts["motion"]["parameters"]) == (121_286, 53_392)


@pytest.mark.parametrize("name", ["fastdvdnet-mobile", "vespcn-mobile"])
def test_a_phone_can_bear_the_mobile_ones(rows, name):
    assert rows[name]["macs"] <= 4e9


def test_every_row_says_the_same_things(rows):
    wanted = {"name", "role", "parameters", "macs", "published_macs", "parts", "window", "frames_in", "frames_out"}
    wanted |= {"scale", "time_scale", "hr_channels", "lr_channels", "weights", "extra"}
    for row in rows.values():
        assert set(row) == wanted
        assert 0.95 * row["macs"] <= sum(part["macs"] for part in row["parts"].values()) <= row["macs"]
        assert row["hr_channels"] or row["lr_channels"], "nothing to distil"
    assert rows["edvr-s"]["weights"] is True
    assert rows["basicvsr-bi"]["extra"] == "basicvsr"


@pytest.mark.parametrize("family", ["edvr", "rbpn", "stinet", "starnet", "stvun", "basicvsr"])
def test_every_family_has_weights_by_its_plain_name(family):
    entry = registry.find(family, "teacher")
    assert entry.weights is not None or entry.extra is not None
    if entry.extra is None:
        network, described = open_network(family, "teacher")
        assert described.degradation == "bi"
        assert not network.training


def test_the_command_prints_them(document, command, rows):
    assert {row["name"] for row in document("list")} == set(rows)
    code, out, _ = command("list")
    assert code == 0
    assert "180x120" in out


def test_the_table_in_the_documents_is_this_one(rows):
    text = (ROOT / "docs" / "networks.md").read_text(encoding="utf-8")
    text = text[text.index("table: begin") : text.index("table: end")]
    table = re.findall(r"^\| `(\S+)` \| (\w+) \| ([\d,]+) \| ([\d,.]+) \|", text, re.M)
    expected = [(r["name"], r["role"], f"{r['parameters']:,}", f"{r['macs'] / 1e9:,.2f}") for r in rows.values()]
    assert table == expected, "run: python benchmarks/networks.py"
