"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

__all__ = ["aligned"]


def aligned(rows: Iterable[Sequence[str]], left: Collection[int] = (0,)) -> list[str]:
    """Rows of cells as lines, each column as wide as its widest cell.

    Args:
        rows: of as many cells each, the head first.
        left: the columns that stand to the left; all others stand to the right.
    """
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    if len(widths) - 1 in left:
        widths[-1] = 0  # nothing stands behind it
    return [
        "  ".join(
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    ]
