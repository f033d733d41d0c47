"""From a template and what it shows to a page: one file that needs nothing but itself."""

from __future__ import annotations

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

__all__ = ["environment", "render"]


def environment(room: str) -> Environment:
    """Where templates of a room are found, and those of this package that they build on.

    Text is escaped, `markupsafe.Markup` is not; whatever a template names must be there.

    Args:
        room: the package that holds the templates as data, such as "export.latency".
    """
    return Environment(
        loader=ChoiceLoader([PackageLoader(package, "") for package in (room, "distill.pages")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render(room: str, **values: object) -> str:
    """The page of a room, HTML in UTF-8 with its style inside: what its page.html makes of the values.

    Args:
        room: the package that holds page.html, such as "export.latency".
        values: all that the template names.

    Raises:
        jinja2.UndefinedError: the template names what is not among the values.
    """
    return environment(room).get_template("page.html").render(values)
