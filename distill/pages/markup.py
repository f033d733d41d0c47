"""HTML and SVG elements; all text in them is escaped."""

from __future__ import annotations

from html import escape

__all__ = ["Markup", "element", "joined"]

_VOID = {"meta", "br", "img"}


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(tag: str, /, *children: str, **attributes: str | float | None) -> Markup:
    """One element.

    Args:
        tag: its name.
        children: what is in it; text is escaped, `Markup` is not.
        attributes: by name, where a final underscore is dropped and others become hyphens; those of None are left out.
    """
    told = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{tag}{told}>" if tag in _VOID else f"<{tag}{told}>{joined(*children)}</{tag}>")


def joined(*children: str) -> Markup:
    """One after the other."""
    return Markup("".join(child if isinstance(child, Markup) else escape(child) for child in children))
