from __future__ import annotations

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from distill.errors import ConfigError
from distill.report import report
from tests.stand_ins.comparison_folders import figures_only, footage, real

MINUS = "\u2212"


class Page(HTMLParser):
    """Fails at an element that is not closed where it must be; keeps text, tags and the cells of tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "small":
            self.tables[-1][-1][-1] += " "

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["style"]:
            return
        self.words.append(data)
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def images(self) -> dict[str, np.ndarray]:
        """Pixels by what stands for the picture where it is not seen; of several the first."""
        found: dict[str, np.ndarray] = {}
        for tag, attributes in self.tags:
            if tag == "img":
                content = base64.b64decode(attributes["src"].partition("base64,")[2])
                found.setdefault(attributes["alt"], np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))
        return found


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    real(folder, footage(tmp_path_factory.mktemp("footage")))
    return report(folder, folder / "told")


@pytest.fixture(scope="module")
def page(made):
    return Page(made.html.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def document(made):
    return json.loads(made.json.read_text(encoding="utf-8"))


def test_the_page_is_one_file_that_asks_for_nothing(made, page):
    text = made.html.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert {"svg", "table", "style", "img"} <= {tag for tag, _ in page.tags}
    assert not {"script", "link", "iframe", "object", "a"} & {tag for tag, _ in page.tags}
    sources = [attributes["src"] for _, attributes in page.tags if "src" in attributes]
    assert sources
    assert all(source.startswith("data:image/webp;base64,") for source in sources)
    assert not {"href", "xlink:href", "srcset"} & {name for _, attributes in page.tags for name in attributes}
    assert not re.search(r"https?:|@import|url\(", text)
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags
    assert "prefers-color-scheme: dark" in text
    assert len(text) < 6e6


def told(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", MINUS) if round(value, digits) else f"{0:.{digits}f}"


def test_the_figures_of_the_json_are_those_of_the_page(page, document):
    head, *rows = page.tables[0]
    assert head[:4] == ["method", "against", "metric", "difference"]
    metrics = document["metrics"]
    for row, answer in zip(rows, document["answers"], strict=True):
        metric = metrics[answer["metric"]]
        digits = metric["digits"]
        ends = [answer[kind] for kind in ("over_seeds", "over_seeds_and_clips")]
        assert row[:3] == [answer["method"], answer["against"], metric["name"]]
        assert row[3] == f"{told(answer['mean'], digits)} {metric['unit']}".strip()
        assert row[4:6] == [f"{told(e['low'], digits)} to {told(e['high'], digits)}" if e else "-" for e in ends]
        assert row[6] == f"{answer['better']} of {len(answer['seeds']) * len(answer['clips'])}"
    for shown, table in zip(page.tables[1:], document["tables"], strict=False):
        digits = metrics[table["metric"]]["digits"]
        contenders = shown[0][1:]
        assert contenders == ["bicubic", "none", "output", "std", "teacher"]
        for row in shown[1:]:
            for contender, cell in zip(contenders, row[1:], strict=True):
                expected = f"{table['rows'][row[0]][contender]:.{digits}f}"
                if contender in table["to_none"][row[0]]:
                    expected += f" {told(table['to_none'][row[0]][contender], digits)}"
                assert cell == expected
    by_seed = next(table for table in page.tables if table[0][0] == "seed")
    assert by_seed[2][1:] == [
        *(f"{document['tables'][0]['by_seed']['1'][method]:.3f}" for method in ("none", "output")),
        "-",
    ]


def test_the_figures_are_those_of_the_runs(made, document):
    folder = made.findings.comparison.folder

    def figure(method, seed, clip):
        return json.loads((folder / method / f"seed-{seed}/results.json").read_text())["student after"]["clips"][clip]

    (answer,) = [
        each
        for each in document["answers"]
        if (each["method"], each["against"], each["metric"]) == ("output", "none", "psnr")
    ]
    expected = [
        [figure("output", seed, clip)["psnr"] - figure("none", seed, clip)["psnr"] for clip in ("alley", "bridge")]
        for seed in (0, 1)
    ]
    assert np.allclose(answer["differences"], expected)
    assert answer["mean"] == pytest.approx(np.mean(expected))


def test_questions_are_answered_and_what_is_missing_is_named(made, page, document):
    for text in (page.text, made.summary()):
        assert "std at seed 1 has not finished" in text
        assert "Y (BT.601, rounded to 8 bit), no border cropped, 2 clips, all frames, degradation bi x4" in text
    assert document["missing"] == ["std at seed 1 has not finished"]
    assert "Did output help?" in page.text
    assert "Did std help against output? Not shown (one seed)." in made.summary()
    assert "Against output: Not shown (one seed) ." in page.text
    answer = document["answers"][0]
    assert f"{told(answer['mean'], 3)} dB PSNR, 95 % interval" in made.summary()
    assert str(made.html) in made.summary()


def test_the_page_tells_cost_and_how_to_repeat_it(page, document):
    (cost,) = document["costs"]
    assert cost["methods"] == ["none", "output", "std"]
    assert f"{cost['parameters']:,}" in page.text
    assert cost["minutes"]["none"] == [3.5, 3.5]
    assert "none 3.5 min" in page.text
    assert "distill compare --methods ..." in page.text
    assert document["reproduction"]["unfair"] == {}
    assert document["reproduction"]["differences"] == {"teacher": {"none": None, "output": "edvr", "std": "edvr"}}
    assert "training.steps: 40" in page.text
    assert {panel["title"] for panel in document["curves"]["panels"]} == {
        "Validation PSNR, dB",
        "Loss: reconstruction",
    }


def test_pictures_are_of_every_method_and_say_what_they_show(page, document):
    panels = document["pictures"]["panels"]
    assert [panel["kind"] for panel in panels] == ["where", "profile", "crop", "error", "attention"] * 2
    contenders = ["bicubic", "none", "output", "std", "teacher (edvr-s)"]
    assert list(panels[1]["figures"]) == ["truth", *contenders]
    assert list(panels[3]["figures"]) == contenders
    assert list(panels[4]["figures"]) == ["teacher (edvr-s)", "none", "output", "std"]
    assert all(-1 <= panels[4]["figures"][method] <= 1 for method in ("none", "output", "std"))
    for panel in panels:
        assert panel["clip"] in panel["caption"]
        assert panel["kind"] == "where" or "Seed 0." in panel["caption"]
        assert panel["caption"] in page.text
    for figure in panels[3]["figures"].values():
        assert f" {figure:.2f}" in page.text
    images = page.images()
    assert images["A line of pixels over time: truth"].shape == (3 * 6, 96, 3)
    assert images["Errors: none"].shape == (72, 96, 3)
    assert images["Side by side: teacher (edvr-s)"].shape == (64, 64, 3)


def test_the_crop_s_truth_is_the_footage(made, page, document):
    footage_folder = made.findings.comparison.judge
    crop = document["pictures"]["panels"][2]
    row, column = map(int, re.search(r"at row (\d+), column (\d+)", crop["caption"]).groups())
    frame = np.asarray(Image.open(f"{footage_folder}/{crop['clip']}/{crop['frame']}.png"))
    assert np.array_equal(page.images()["Side by side: truth"], frame[row : row + 64, column : column + 64])


def test_what_is_not_to_be_had_here_costs_pictures_and_no_more(tmp_path):
    folder = figures_only(tmp_path, {"none": [[30.0, 28.0]] * 2, "std": [[30.5, 28.5]] * 2})
    made = report(folder)
    assert made.html == folder / "report.html"
    page = Page(made.html.read_text(encoding="utf-8"))
    assert "There are no pictures: " in page.text
    assert "Against none: Yes ." in page.text
    assert "img" not in {tag for tag, _ in page.tags}
    assert made.document()["costs"] == []


def test_what_others_wrote_is_escaped_and_warned_of(tmp_path):
    folder = figures_only(tmp_path, {"output": [[30.0, 28.0]] * 2, "std": [[30.5, 28.5]] * 2})
    plan = json.loads((folder / "compare.json").read_text())
    hostile = "<script>alert('a & b')</script>"
    (folder / "compare.json").write_text(json.dumps({**plan, "command": hostile, "student": hostile}))
    text = report(folder).html.read_text(encoding="utf-8")
    assert hostile not in text
    page = Page(text)
    assert page.text.count(hostile) >= 2
    assert "The control none (the student alone) is missing" in page.text


def test_a_report_that_cannot_be_written_is_a_sentence(tmp_path):
    folder = figures_only(tmp_path / "compared", {"none": [[30.0]], "std": [[30.5]]})
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        report(folder, tmp_path / "file")
    shutil.rmtree(folder)
    with pytest.raises(ConfigError, match="is no comparison"):
        report(folder)
