from __future__ import annotations

from distill.text_tables import aligned


def test_columns_are_as_wide_as_their_widest_cell():
    rows = [("name", "dB", "what"), ("a long name", "26.112", ""), ("b", "-1.5", "student before")]
    assert aligned(rows, left=(0, 2)) == [
        "name             dB  what",
        "a long name  26.112  ",
        "b              -1.5  student before",
    ]


def test_a_name_longer_than_all_before_moves_no_figure():
    lines = aligned([("", "PSNR"), ("x" * 30, "1.0"), ("y", "100.0")])
    assert len({len(line) for line in lines}) == 1
    assert aligned([]) == []
