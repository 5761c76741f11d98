import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from dst_cbc.report.templates import render


@pytest.fixture
def template(tmp_path):
    """Return a function that writes a template of this name: a heading, a line for each item."""

    def write(name):
        (tmp_path / name).write_text(
            "# {{ title }}\n{% for one in items %}\n* {{ one | loud }}\n{% endfor %}\nend\n"
        )
        return tmp_path / name

    return write


def test_values_and_filters_are_filled_in_and_lines_of_statements_leave_none(template):
    text = render(template("a.yaml.j2"), {"loud": str.upper}, title="<b> & 'c'", items=["x", "y"])
    assert text == "# <b> & 'c'\n* X\n* Y\nend\n"


def test_in_html_values_cannot_be_markup(template):
    text = render(template("a.html.j2"), {"loud": str}, title="<b> & 'c'", items=["<i>"])
    assert text == "# &lt;b&gt; &amp; &#39;c&#39;\n* &lt;i&gt;\nend\n"


def test_in_markdown_values_are_text_unless_they_say_that_they_are_markup(template):
    items = ["*a*\n# b", Markup("*c*")]
    text = render(template("a.md.j2"), {"loud": lambda one: one}, title="<b> | `c`", items=items)
    assert text == "# \\<b\\> \\| 'c'\n* \\*a\\* # b\n* *c*\nend\n"


def test_a_value_that_is_not_given_is_an_error(template):
    with pytest.raises(UndefinedError, match="title"):
        render(template("a.md.j2"), {"loud": str}, items=[])
