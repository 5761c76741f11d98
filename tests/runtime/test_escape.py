import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from dst_cbc.runtime import escape
from dst_cbc.runtime.tables import read_csv, write_csv

ANY = st.text() | st.text(alphabet="'=+-@ 1.e\t\r\n|`*_<[\\")


@pytest.mark.parametrize(
    "text, written",
    [
        ("ünï code\n\tµ", "ünï code\n\tµ"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("a\rb\x00\x9b", r"a\rb\x00\x9b"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("\udcff\u2028", r"\udcff\u2028"),
    ],
)
def test_a_terminal_gets_no_control_characters(text, written):
    assert escape.terminal(text) == written


@pytest.mark.parametrize(
    "text", ["=1+1", "+a", "-a", "@a", "\ta", "\ra", "\na", "\uff1d1", "-1+1", "'=a"]
)
def test_a_formula_in_csv_is_a_text(text):
    assert escape.csv(text) == f"'{text}"


def test_ids_that_look_like_formulas_come_back_from_a_csv_file(tmp_path):
    rows = [{"id": id, "miou": miou} for id, miou in [("=1+1", -1.5), ("'=1", None), ("-a", 2)]]
    write_csv(tmp_path / "a.csv", ["id", "miou"], rows)
    assert (tmp_path / "a.csv").read_text() == "id,miou\n'=1+1,-1.5\n''=1,\n'-a,2\n"
    assert [row["id"] for row in read_csv(tmp_path / "a.csv", ["id"])] == ["=1+1", "'=1", "-a"]


@pytest.mark.parametrize("value", [-1.5, "-1.5", "+ 0.3", "-1e-05", "a=1", "'a", "", None, "x-ray"])
def test_numbers_and_usual_texts_are_written_as_they_are(value):
    assert escape.csv(value) == value


@given(ANY)
def test_a_text_is_read_from_csv_as_it_was_written(text):
    assert escape.from_csv(escape.csv(text)) == text


@pytest.mark.parametrize(
    "text, written",
    [
        ("dst-cbc 12_0 (Table 1), 8 % & more", "dst-cbc 12_0 (Table 1), 8 % & more"),
        ("a\n# b\r| c |", r"a # b \| c \|"),
        ("[x](javascript:y) ![i](z)", r"\[x\](javascript:y) !\[i\](z)"),
        ("<img src=x> *b* _c_ `d` \\", r"\<img src=x\> \*b\* \_c\_ 'd' \\"),
    ],
)
def test_markdown_is_one_line_of_text(text, written):
    assert escape.markdown(text) == written


@given(ANY)
def test_markdown_has_no_markup_of_its_own(text):
    written = escape.markdown(text)
    assert len(written.splitlines()) < 2 and "`" not in written
    assert not re.search(r"(?<!\\)(\\\\)*[*\[\]<>|]", written)


def test_latex_is_one_line_of_text():
    written = escape.latex("50 % & #1 {x}\n$y$ ^~\\input{z}")
    assert written == r"50 \% \& \#1 \{x\} \$y\$ \^{}\textasciitilde{}\textbackslash{}input\{z\}"


def test_a_value_is_shown_in_a_short_line():
    nested = ["a"]
    for _ in range(200):
        nested = [nested, nested]
    for value in ("x" * 10**6, b"x" * 10**6, 10**300, nested, dict.fromkeys(range(999)), "\x1b\n"):
        shown = escape.shown(value)
        assert len(shown) < 200 and shown.isprintable()


def test_a_refused_value_is_described_by_its_key():
    class Model(BaseModel):
        sizes: dict[str, int]

    with pytest.raises(ValidationError) as refusal:
        Model.model_validate({"sizes": {"a\nb": "x" * 999}})
    said = escape.problem(refusal.value)
    assert re.fullmatch(
        r"sizes\.a\\nb: found 'x+\.\.\.x+'; Input should be a valid integer.*", said
    )
    assert escape.problem(KeyError("a\nb")) == "KeyError"
