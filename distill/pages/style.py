"""How the page of a latency report looks: on a desk, on a phone and in print, by day and by night."""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """
:root {
  color-scheme: light dark;
  --page: #ffffff; --raised: #f5f6f8; --ink: #1a1d21; --soft: #5b6470; --line: #d9dde3;
  --own: #1f6feb; --other: #9aa3ae; --phone: #7a4fd0; --limit: #e4e8ee;
  --good: #1a7f37; --doubt: #9a6700; --bad: #cf222e; --bad-page: #ffebe9; --doubt-page: #fff6d6;
  --c0: #1f6feb; --c1: #d9730d; --c2: #2a9d6f; --c3: #8b5cd6; --c4: #c2417c; --c5: #7d6b2a; --c6: #9aa3ae;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171b; --raised: #1d2127; --ink: #e7eaee; --soft: #9fa9b5; --line: #343a43;
    --own: #58a0ff; --other: #707a86; --phone: #a98bf0; --limit: #2a3038;
    --good: #4cc26a; --doubt: #e0b040; --bad: #ff7b72; --bad-page: #3a1d1d; --doubt-page: #33290f;
    --c0: #58a0ff; --c1: #f0a05a; --c2: #4fc796; --c3: #b593f5; --c4: #ef7fb0; --c5: #c9b562; --c6: #707a86;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 86rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p { margin: .4rem 0; max-width: 48rem; }
ul { margin: .4rem 0; padding-left: 1.2rem; max-width: 54rem; }
li { margin: .3rem 0; }
.soft, caption, figcaption { color: var(--soft); font-size: .875rem; }
.banner { border-left: 4px solid var(--doubt); background: var(--doubt-page); padding: .5rem .8rem; max-width: none; }
.loss { border-left: 4px solid var(--bad); background: var(--bad-page); padding: .5rem .8rem; max-width: none; }
.loss strong { color: var(--bad); }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-size: .76rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .38rem; text-align: right; white-space: nowrap; border-top: 1px solid var(--line); }
thead th { border-top: 0; font-weight: 600; color: var(--soft); vertical-align: bottom; }
thead tr + tr th { padding-top: 0; font-weight: 400; }
th.group { text-align: center; border-left: 1px solid var(--line); }
td.begin, th.begin { border-left: 1px solid var(--line); }
th.what, td.text, th.text { text-align: left; }
th.what { position: sticky; left: 0; background: var(--page); font-weight: 400; border-right: 1px solid var(--line); }
th.what b { display: block; }
th.what span { color: var(--soft); font-size: .94em; }
tr.size th { text-align: left; background: var(--raised); position: sticky; left: 0; font-weight: 600; }
td.text { white-space: normal; overflow-wrap: anywhere; }
td.long { white-space: normal; text-align: left; color: var(--soft); }
td.long span { position: sticky; left: 15rem; display: inline-block; }
.best { font-weight: 700; }
.under { color: var(--soft); }
.ok { color: var(--good); }
.doubt { color: var(--doubt); font-weight: 600; }
.bad { color: var(--bad); font-weight: 600; }
pre {
  background: var(--raised); padding: .8rem; border-radius: 6px; white-space: pre-wrap; overflow-wrap: anywhere;
  font: .8125rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
}
dl { display: grid; grid-template-columns: minmax(7rem, auto) minmax(60%, 1fr); gap: .25rem 1rem; margin: .6rem 0; }
dt, dd { font-size: .875rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: .6rem 0 1.4rem; max-width: 54rem; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); gap: 1rem 1.6rem; }
.panels.wide { grid-template-columns: repeat(auto-fill, minmax(min(100%, 28rem), 1fr)); align-items: start; }
.panels figure { margin: 0; }
svg { display: block; overflow: visible; font-size: 12px; font-variant-numeric: tabular-nums; }
svg text { fill: var(--ink); stroke: var(--page); stroke-width: 4px; paint-order: stroke; }
svg text.inside { fill: #ffffff; stroke: none; }
svg .soft { fill: var(--soft); font-size: 11px; }
svg .strong { font-weight: 700; }
svg .own { fill: var(--own); } svg .other { fill: var(--other); } svg .phone { fill: var(--phone); }
svg .track { fill: var(--limit); }
svg .grid { stroke: var(--line); } svg .axis { stroke: var(--soft); }
svg .whisker { stroke: var(--ink); stroke-width: 1.5; }
svg .deadline { stroke: var(--bad); stroke-dasharray: 3 3; }
svg .invalid { opacity: .45; }
svg .curve { fill: none; stroke: var(--own); stroke-width: 2; vector-effect: non-scaling-stroke; }
svg .c0 { fill: var(--c0); } svg .c1 { fill: var(--c1); } svg .c2 { fill: var(--c2); } svg .c3 { fill: var(--c3); }
svg .c4 { fill: var(--c4); } svg .c5 { fill: var(--c5); } svg .c6 { fill: var(--c6); }
.key { display: inline-block; width: .7rem; height: .7rem; margin-right: .4rem; }
.key.c0 { background: var(--c0); } .key.c1 { background: var(--c1); }
.key.c2 { background: var(--c2); } .key.c3 { background: var(--c3); }
.key.c4 { background: var(--c4); } .key.c5 { background: var(--c5); } .key.c6 { background: var(--c6); }
@media (max-width: 40rem) {
  th.what { white-space: normal; min-width: 9.5rem; overflow-wrap: anywhere; }
  td.long span { position: static; }
}
@media print {
  @page { size: A4 landscape; margin: 11mm; }
  :root {
    color-scheme: light;
    --page: #ffffff; --raised: #f5f6f8; --ink: #1a1d21; --soft: #4a525c; --line: #c9ced6;
    --own: #1f6feb; --other: #9aa3ae; --phone: #7a4fd0; --limit: #e4e8ee;
    --good: #1a7f37; --doubt: #9a6700; --bad: #cf222e; --bad-page: #ffebe9; --doubt-page: #fff6d6;
    --c0: #1f6feb; --c1: #d9730d; --c2: #2a9d6f; --c3: #8b5cd6; --c4: #c2417c; --c5: #7d6b2a; --c6: #9aa3ae;
  }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  .scroll { overflow: visible; border: 0; }
  table { font-size: 7.5pt; }
  th, td { padding: .2rem .3rem; }
  th.what, tr.size th, td.long span { position: static; }
  h2, h3, h2 + p, figcaption { break-after: avoid; }
  figure, tr, dl, pre, .loss { break-inside: avoid; }
}
"""
