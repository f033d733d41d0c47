from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

import pytest

from distill.pages.plots import Bar, share_bars, time_bars
from export.interfaces import Node, Operators, OperatorType
from export.latency.measuring import Profile, Sustained
from export.latency.page import html
from export.latency.row import (
    CONVERTED,
    FAILED,
    Absence,
    Execution,
    Fidelity,
    Latency,
    Limit,
    Row,
    StoredFile,
    Subject,
    Work,
)
from export.latency.timing import STANDARD
from export.machine import Machine, Peak

HOSTILE = "<script>alert('a & \"b\"')</script>"
SIZED = {"size": (120, 180), "scale": 4}


def timed(entry: str, form: str, precision: str, p50: float, runs: int = 100, fidelity: Fidelity | None = None) -> Row:
    return Row(
        Subject(entry, form, precision, "windowed", **SIZED),
        threads=1,
        device="Some host",
        file=StoredFile(1.0, "f00d"),
        work=Work(233_104, 10**9),
        execution=Execution("CPUExecutionProvider", "CPUExecutionProvider", "onnxruntime"),
        latency=Latency(p50, p50 * 1.1, p50 * 1.2, 990 / p50, 10, runs, 4.0),
        limit=Limit(200.0, "fp32"),
        fidelity=fidelity,
    )


def absent(entry: str, form: str, precision: str, status: str, reason: str) -> Row:
    return Row(Subject(entry, form, precision, **SIZED), device="Some host", absence=Absence(status, reason))


ROWS = (
    timed("student.onnx", "onnx", "fp32", 20.0),
    timed("student-int8.onnx", "onnx", "int8", 15.0, fidelity=Fidelity(26.3, -0.23, "Y, BI", ("conv7", HOSTILE))),
    timed("quick.onnx", "onnx", "fp16", 5.0, runs=9),
    timed("student", "pytorch", "fp32", 40.0),
    absent("student.mlpackage", "coreml", "fp16", CONVERTED, "Needs a Mac."),
    absent(HOSTILE, "onnx", "fp32", FAILED, HOSTILE),
)


@pytest.fixture
def profiled():
    machine = Machine("Some CPU", "x86_64", 2, "Linux", "3.11", "2.9", 0.4)
    types = tuple(OperatorType(f"Type{place}", 3, 2.0, 0.1) for place in range(10))
    operators = Operators("student.onnx", (120, 180), 1, 20, 20.0, types, (Node("conv_7", "Conv", 5.0, 0.25),))
    long = Sustained("student.onnx", "onnx fp32", (120, 180), 1, 30.0, tuple(50.0 - place for place in range(10)))
    return Profile(
        ROWS,
        machine,
        (Peak(1, 200.0, (200.0, 199.0), None, 12.0),),
        STANDARD,
        (operators,),
        (long,),
        "2026-01-02T03:04:05+00:00",
    )


@pytest.fixture
def page(profiled):
    return html(profiled, f"distill profile student.onnx {HOSTILE}")


class Balance(HTMLParser):
    """Fails at an element that is not closed where it must be, and keeps the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def read(page: str) -> tuple[str, list[tuple[str, dict[str, str | None]]]]:
    parser = Balance()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return " ".join(" ".join(parser.text).split()), parser.tags


def test_the_page_is_one_file_that_asks_for_nothing(page):
    _, tags = read(page)
    assert page.startswith("<!doctype html>")
    assert {"svg", "table", "style"} <= {tag for tag, _ in tags}
    assert not {"script", "link", "img", "iframe", "object", "a"} & {tag for tag, _ in tags}
    assert not {"src", "href", "xlink:href", "srcset"} & {name for _, attributes in tags for name in attributes}
    assert not re.search(r"https?:|@import|url\(", page)
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in tags
    for medium in ("prefers-color-scheme: dark", "@media print", "max-width: 40rem"):
        assert medium in page


def test_what_others_wrote_is_escaped(page):
    assert HOSTILE not in page
    text, _ = read(page)
    assert text.count(HOSTILE) >= 4, "name, reason, layer and command are told all the same"
    plot = share_bars([Bar('<b> "quoted"', 0.5, "<i>", "own")], HOSTILE)
    assert "<b>" not in plot
    assert "<i>" not in plot
    _, tags = read(plot)
    assert tags[0][1]["aria-label"] == HOSTILE


def test_a_file_may_be_named_like_an_element(profiled):
    made = html(profiled.with_rows([timed("<b>.onnx", "onnx", "fp32", 30.0)]), "")
    assert "<b>.onnx" not in made
    assert "&lt;b&gt;.onnx</span>" in made, "in the table"
    assert "<dt>SHA-256 of &lt;b&gt;.onnx</dt>" in made
    assert "&lt;b&gt;.onnx</title>" in made
    text, _ = read(made)
    assert "<b>.onnx · 1 thread" in text, "in the plots"


def test_the_fastest_is_a_valid_row(page):
    text, _ = read(page)
    sentence = (
        "180x120 → 720x480: fastest is onnx int8 on CPU, 1 thread, 15.0 ms a frame (p50), 66.0 fps, 1.10 times 60"
    )
    assert sentence in text
    assert "67% of the machine's measured limit; 2.7 times as fast as eager PyTorch" in text
    assert "it loses 0.23 dB" in text
    assert re.findall(r'<td class="[a-z ]*best">([^<]*)', page) == ["15.0"]


def test_no_row_is_called_the_fastest_where_none_is_valid(profiled):
    short = tuple(
        dataclasses.replace(row, latency=row.latency and dataclasses.replace(row.latency, runs=3)) for row in ROWS
    )
    text, _ = read(html(dataclasses.replace(profiled, rows=short), ""))
    assert "no row kept the whole protocol, so none is called the fastest" in text
    assert "4 of 6 rows got too few runs" in text


def test_rows_that_did_not_run_say_why(page):
    text, _ = read(page)
    assert "converted, not run : Needs a Mac." in text
    assert f"failed : {HOSTILE}" in text
    assert "too short" in text
    assert "1 of 6 rows got too few runs or too little time" in text
    assert "2 of 6 rows have no times (student.mlpackage," in text


def test_losses_are_red_and_name_the_layers(page):
    text, tags = read(page)
    assert "student-int8.onnx loses 0.23 dB against its PyTorch network; 0.1 dB is allowed." in text
    assert "It is put down to: conv7, " in text
    assert [attributes for tag, attributes in tags if attributes.get("class") == "loss"] == [{"class": "loss"}]
    assert '<td class="bad">-0.230</td>' in page


def test_a_small_loss_is_no_loss(profiled):
    rows = (dataclasses.replace(ROWS[1], fidelity=Fidelity(26.5, -0.09, "Y, BI")),)
    assert 'class="loss"' not in html(dataclasses.replace(profiled, rows=rows), "")


def test_phones_are_not_run_unless_rows_of_one_are_there(profiled):
    text, _ = read(html(profiled, ""))
    assert "Phones: not run. All figures are host latency, not a phone's." in text
    assert "phones not run : No figure here is a phone's." in text
    phone = dataclasses.replace(ROWS[0], where="phone", device="Some phone, Android 15", limit=None)
    text, _ = read(html(profiled.with_rows([phone]), ""))
    assert "not run. All figures" not in text
    assert "No figure here is a phone's" not in text
    assert "180x120 → 720x480, Some phone, Android 15: fastest is onnx fp32" in text


def test_a_busy_machine_is_told(profiled):
    assert "other work" not in html(profiled, "")
    busy = dataclasses.replace(profiled, peaks=(Peak(1, 200.0, (200.0, 100.0), None, 12.0),))
    assert "at worst, 50% of its own peak" in html(busy, "")


def test_the_page_tells_how_it_was_measured(page):
    text, _ = read(page)
    for told in ("At least 10 runs of warm-up, then at least 100 runs and 3 s", "Some CPU (x86_64), 2 cores", "f00d"):
        assert told in text
    assert "2026-01-02 03:04:05 UTC" in text
    assert "200 GFLOP/s fp32 (by round: 200, 199); 12 GB/s copying" in text
    assert "distill profile student.onnx" in text


def test_sustained_and_operators(page, profiled):
    text, tags = read(page)
    assert "onnx fp32, 180x120, 1 thread: 50.0 → 41.0 fps, last over first 0.82" in text
    (line,) = (attributes for tag, attributes in tags if tag == "polyline")
    heights = [float(point.split(",")[1]) for point in line["points"].split()]
    assert heights == sorted(heights)
    assert len(heights) == 10
    assert "conv_7" in text
    parts = [
        attributes for tag, attributes in tags if tag == "rect" and attributes["class"] in {f"c{i}" for i in range(7)}
    ]
    assert sum(percent(part["width"]) for part in parts) == pytest.approx(100)
    assert percent(parts[-1]["width"]) == pytest.approx(40), "the rest together"
    bare = html(dataclasses.replace(profiled, operators=(), sustained=()), "")
    assert "Sustained run" not in bare
    assert "Where the time goes" not in bare


def percent(text: str) -> float:
    assert text.endswith("%")
    return float(text[:-1])


def test_bars_are_as_long_as_their_times():
    bars = [Bar("a", 10.0, "", "own", p90=12.0, p99=14.0), Bar("b", 20.0, "", "own", p90=21.0, p99=500.0)]
    _, tags = read(time_bars(bars, {"60 fps": 1000 / 60, "24 fps": 1000 / 24}, "times"))
    first, second = (percent(attributes["width"]) for tag, attributes in tags if tag == "rect")
    assert second == pytest.approx(2 * first, abs=0.01)
    lines = [attributes for tag, attributes in tags if tag == "line"]
    marks = [percent(line["x1"]) for line in lines if line["class"] == "whisker" and line["x1"] == line["x2"]]
    assert marks == pytest.approx([1.2 * first, 1.4 * first, 2.1 * first], abs=0.01)
    assert max(percent(line["x2"]) for line in lines) == 100, "a slow run does not flatten the others"
    (deadline,) = (line for line in lines if line["class"] == "deadline")
    assert percent(deadline["x1"]) == pytest.approx(first * 10 / 6, abs=0.01)


def test_shares_fill_their_track():
    _, tags = read(share_bars([Bar("a", 0.25, "", "own"), Bar("b", 1.3, "", "own")], "shares"))
    widths = [
        percent(attributes["width"]) for tag, attributes in tags if tag == "rect" and attributes["class"] == "own"
    ]
    assert widths == [25, 100]
