"""Both pages as a browser shows them, on a phone and on a desk, by day and by night."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess

import pytest

from distill.report import report
from tests.stand_ins.comparison_folders import footage, real

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--window-size=1400,900"),
]
PHONE, DESK = 390, 1280
LONG_NAME = "a-student-whose-name-<b>-is-far-longer-than-any-line-of-a-phone.onnx"
MEASURE = """
const colours = (document, view) => [...document.body.querySelectorAll("*")]
  .filter(each => [...each.childNodes].some(child => child.nodeType === 3 && child.data.trim())
                  && !each.matches("title, .inside"))
  .map(each => {
    let under = each;
    const see = () => view.getComputedStyle(under).backgroundColor;
    while (see() === "rgba(0, 0, 0, 0)") under = under.parentElement;
    const style = view.getComputedStyle(each);
    return [each.closest("svg") ? style.fill : style.color, see()].join("; ");
  });
addEventListener("load", () => {
  const measured = [...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument, view = frame.contentWindow;
    const width = each => Math.round(each.getBoundingClientRect().width);
    return {
      name: frame.name, width: view.innerWidth, reach: page.documentElement.scrollWidth,
      // what leaves a plot does not make the page scroll: it is cut off
      words: Math.max(...[...page.querySelectorAll("svg text")].map(each => each.getBoundingClientRect().right)),
      heading: page.querySelector("h1").innerText, height: page.body.scrollHeight,
      plots: [...page.querySelectorAll("figure > svg")].map(width),
      pictures: [...page.images].map(each => each.naturalWidth),
      boxes: [...page.querySelectorAll(".scroll")].map(width),
      paper: view.getComputedStyle(page.body).backgroundColor, ink: view.getComputedStyle(page.body).color,
      colours: [...new Set(colours(page, view))],
    };
  });
  document.body.textContent = JSON.stringify(measured);
});
"""


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    real(folder, footage(tmp_path_factory.mktemp("footage")))
    return report(folder).html


@pytest.fixture
def latency(document, run_folder, tmp_path):
    document("export", run_folder, "--to", "onnx", "--out", tmp_path)
    files = [(tmp_path / "student.onnx").rename(tmp_path / LONG_NAME), tmp_path / f"other-{LONG_NAME}"]
    shutil.copy(*files)
    wanted = ("--size", "32x24", "--threads", "1", "--operators", "--sustained", "1")
    document("profile", *files, *wanted, "--report", tmp_path / "latency.html")
    return tmp_path / "latency.html"


def seen(folder, pages, scheme):
    """What the browser shows of each page at each width; frames, for its own window is never as narrow as a phone."""
    frames = [
        f'<iframe name="{name}" style="width: {width}px" srcdoc="{html.escape(text)}"></iframe>'
        for name, text in ((name, page.read_text(encoding="utf-8")) for name, page in pages.items())
        for width in (PHONE, DESK)
    ]
    style = ":root { color-scheme: light dark } iframe { border: 0; display: block; height: 900px }"
    head = f'<!doctype html><meta charset="utf-8"><style>{style}</style><script>{MEASURE}</script>'
    page = f"{head}<body>{''.join(frames)}"
    (folder / "frames.html").write_text(page, encoding="utf-8")
    run = subprocess.run(
        [
            *(BROWSER, *FLAGS, f"--user-data-dir={folder / 'browser'}", "--dump-dom"),
            *(f"--blink-settings=preferredColorScheme={scheme}", f"file://{folder / 'frames.html'}"),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    found = re.search(r"<body>(\[.*\])</body>", run.stdout, re.DOTALL)
    assert found, run.stderr
    return {(each["name"], each["width"]): each for each in json.loads(html.unescape(found[1]))}


def contrast(pair: str) -> float:
    """Of two colours, 1 to 21, as WCAG 2.2 has it."""
    levels = []
    for colour in pair.split("; "):
        red, green, blue = (
            each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4
            for each in (int(part) / 255 for part in re.findall(r"\d+", colour)[:3])
        )
        levels.append(0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05)
    return max(levels) / min(levels)


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium or Chrome to open the pages with")
def test_both_pages_on_a_phone_and_on_a_desk_by_day_and_by_night(comparison, latency, tmp_path):
    pages = {"comparison": comparison, "latency": latency}
    night, day = (seen(tmp_path, pages, scheme) for scheme in (0, 1))
    headings = {"comparison": "Did distillation help?", "latency": "What one restored frame costs"}
    for shown in (night, day):
        assert set(shown) == {(name, width) for name in pages for width in (PHONE, DESK)}
        for (name, width), each in shown.items():
            assert each["heading"] == headings[name]
            assert each["height"] > 1000
            assert each["reach"] <= width, "nothing but a table in its box is wider than the page"
            assert each["words"] <= width
            assert len(each["plots"]) >= 3
            assert all(200 < plot <= width for plot in each["plots"])
            assert all(200 < box <= width for box in each["boxes"])
            assert all(each["pictures"])
            assert bool(each["pictures"]) == (name == "comparison")
            assert {pair: contrast(pair) for pair in each["colours"] if contrast(pair) < 4.5} == {}
    for place, each in day.items():
        assert contrast(f"{each['paper']}; {night[place]['paper']}") > 10
        assert contrast(f"{each['ink']}; {night[place]['ink']}") > 10
