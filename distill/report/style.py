"""What the page of a comparison looks like beyond the style that all reports share."""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """
.answers { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); gap: .8rem; }
.answer { border-left: 4px solid var(--line); background: var(--raised); padding: .6rem .9rem; margin: 0; }
.answer.yes { border-color: var(--good); } .answer.no { border-color: var(--bad); }
.answer.unknown { border-color: var(--doubt); }
.answer h2 { margin: 0 0 .2rem; font-size: 1.05rem; }
.answer p { margin: .25rem 0; }
.verdict.yes { color: var(--good); } .verdict.no { color: var(--bad); } .verdict.unknown { color: var(--doubt); }
.answers + .soft { margin-top: .8rem; }
svg .zero { stroke: var(--ink); stroke-width: 1.5; }
svg .dot { fill: var(--ink); stroke: var(--page); stroke-width: 1.5; }
svg .l0 { stroke: var(--c0); } svg .l1 { stroke: var(--c1); } svg .l2 { stroke: var(--c2); }
svg .l3 { stroke: var(--c3); } svg .l4 { stroke: var(--c4); } svg .l5 { stroke: var(--c5); }
svg .l6 { stroke: var(--c6); }
svg .line { fill: none; stroke-width: 1; opacity: .45; vector-effect: non-scaling-stroke; }
svg .line.thick { stroke-width: 2.4; opacity: 1; }
.legend span { display: inline-block; margin-right: 1.2rem; }
td small { display: block; color: var(--soft); font-size: .92em; }
table.plain { font-size: .82rem; }
table.plain td.text { white-space: nowrap; }
table.plain th.what { min-width: 0; }
tr.sum td, tr.sum th { border-top: 2px solid var(--soft); font-weight: 600; }
.pictures { max-width: none; }
.pictures > div { display: grid; gap: .7rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); }
.pictures.crop > div { grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); }
.pictures.where > div { grid-template-columns: minmax(0, 34rem); }
.pictures.profile > div { grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); }
.pictures img { display: block; width: 100%; height: auto; image-rendering: pixelated; border-radius: 3px; }
.pictures.where img { image-rendering: auto; }
.pictures figcaption { margin-bottom: .4rem; max-width: 60rem; }
.scale { display: inline-block; width: 9rem; height: .7rem; margin: 0 .4rem; vertical-align: -.05rem; }
.pictures span { font-size: .8125rem; } .pictures b { font-weight: 600; }
@media (max-width: 40rem) {
  .pictures.error > div, .pictures.attention > div { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .pictures.crop > div { grid-template-columns: repeat(3, minmax(0, 1fr)); gap: .4rem; }
}
@media print { .pictures, .answer { break-inside: avoid; } }
"""
