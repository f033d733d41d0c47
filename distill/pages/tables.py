"""What tables and figures of a page hold; parts.html draws them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

__all__ = ["Cell", "Figure", "PlainTable", "TableRow"]


class Cell(NamedTuple):
    """One place of a table.

    Attributes:
        text: what stands there.
        kind: classes of the style sheet: "text" for words, "ok", "doubt", "bad", "best".
        below: a second, smaller line.
    """

    text: str
    kind: str = ""
    below: str = ""


class TableRow(NamedTuple):
    """One row.

    Attributes:
        name: what it is of; heads the row.
        cells: one for each further column.
        kind: class: "sum" for the last one.
        colour: of a square before the name, such as "c0".
    """

    name: str
    cells: Sequence[Cell]
    kind: str = ""
    colour: str = ""


class PlainTable(NamedTuple):
    """Rows under heads.

    Attributes:
        heads: of the columns, that of the rows' names first.
        rows: top to bottom.
        texts: so many columns from the left hold words, the others figures.
    """

    heads: Sequence[str]
    rows: Sequence[TableRow]
    texts: int = 1


class Figure(NamedTuple):
    """A plot under its caption."""

    caption: str
    plot: Markup
