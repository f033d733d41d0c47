from __future__ import annotations

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from distill.pages.rendering import environment, render
from distill.pages.tables import Cell, PlainTable, TableRow


@pytest.mark.parametrize("room", ["distill.report", "export.latency"])
def test_a_value_that_is_missing_fails(room):
    with pytest.raises(UndefinedError):
        render(room)


@pytest.mark.parametrize("template", ["{{ speed }}", "{{ row.speed }}", "{% if row.speed %}{% endif %}"])
def test_a_name_that_nothing_has_fails(template):
    made = environment("distill.pages").from_string(template)
    with pytest.raises(UndefinedError, match="speed"):
        made.render(row=TableRow("a", []))


def test_text_is_escaped_and_markup_is_not():
    made = environment("distill.pages").from_string("{{ text }}{{ plot }}").render(text="<b>&", plot=Markup("<svg>"))
    assert made == "&lt;b&gt;&amp;<svg>"


def test_tables_tell_words_from_figures():
    table = PlainTable(("who", "what", "ms"), [TableRow("<b>", [Cell("a"), Cell("1", "best", "+2")], "sum", "c3")], 2)
    template = '{% from "parts.html" import table %}{{ table(it) }}'
    made = environment("distill.pages").from_string(template).render(it=table)
    assert '<th scope="col" class="what">who</th>\n<th scope="col" class="text">what</th>' in made
    assert '<th scope="col" class="">ms</th>' in made
    assert '<tr class="sum">\n<th scope="row" class="what"><i class="key c3"></i>&lt;b&gt;</th>' in made
    assert '<td class="text ">a</td>\n<td class="best">1<small>+2</small></td>' in made
