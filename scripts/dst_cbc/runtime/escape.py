"""Escapes text from files for each place where it is written, so that there it is only text.

HTML is missing here, because Jinja escapes it (`report/templates.py`).
"""

import re
import reprlib
from typing import Any

from pydantic import ValidationError

_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")  # noqa: RUF001
_MARKDOWN = re.compile(r"[\\*\[\]<>|]|(?<!\w)_|_(?!\w)")
# A row of a table that begins with [ or * would be read as an option of the \\ before it.
_LATEX = {
    "[": "{[}", "]": "{]}", "*": "{*}", "†": r"\textdagger{}", "‡": r"\textdaggerdbl{}",
    "\\": r"\textbackslash{}", "±": r"$\pm$", "~": r"\textasciitilde{}", "^": r"\^{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}  # fmt: skip


class _Short(reprlib.Repr):
    repr_OrderedDict = reprlib.Repr.repr_dict  # noqa: N815

    def repr_instance(self, x: Any, level: int) -> str:
        if isinstance(x, bool | float | bytes | None):
            return super().repr_instance(x, level)
        return f"<{type(x).__name__}>"


def shown(value: Any) -> str:
    """A value from a file for a message: `repr`, cut to one line of some hundred characters."""
    short = _Short()
    short.maxstring, short.maxlevel, short.maxdict = 60, 2, 6
    return short.repr(value)


def problem(error: Exception) -> str:
    """Describe in one line why settings refuse a value: its key, what was found, what is expected.

    Of other errors, it gives only the name of the class.
    """
    if not isinstance(error, ValidationError):
        return type(error).__name__
    fault = error.errors(include_url=False, include_context=False)[0]
    key = ".".join(shown(part).strip("'") for part in fault["loc"])
    if fault["type"] == "missing":
        return f"{key}: missing"
    return f"{key}: found {shown(fault['input'])}; {fault['msg'].removeprefix('Value error, ')}"


def terminal(text: str) -> str:
    r"""Text for a terminal or a log: control characters as \x1b, of direction as \u202e.

    Line breaks and tabs stay.
    """
    return "".join(
        letter
        if letter.isprintable() or letter in "\n\t"
        else letter.encode("unicode_escape").decode()
        for letter in text
    )


def csv(value: Any) -> Any:
    """A cell of a CSV file: a text that a spreadsheet program would run gets a `'` in front.

    These texts begin with = + - @, a tab or a line break, as OWASP lists them. Numbers, also as
    text, and all other texts stay as they are. `from_csv` is the inverse.
    """
    return f"'{value}" if isinstance(value, str) and _is_formula(value) else value


def from_csv(cell: str) -> str:
    """The text that `csv` has written as this cell."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _is_formula(text: str) -> bool:
    if not _FORMULA.match(text):
        return False
    try:
        float(text.replace(" ", ""))
    except ValueError:
        return True
    return False


def markdown(text: str) -> str:
    """One line of Markdown, also for a heading, a cell of a table or a code span.

    A backslash does not protect a backtick in a code span, so backticks become apostrophes.
    """
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return _MARKDOWN.sub(r"\\\g<0>", line.replace("`", "'"))


def latex(text: str) -> str:
    """Text for LaTeX, in one line."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return "".join(_LATEX.get(letter, letter) for letter in line)
