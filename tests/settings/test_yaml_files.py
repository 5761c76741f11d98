"""Harmful and damaged YAML is refused at once, in words, with little time and memory."""

import difflib
import json
import os
import resource
import subprocess
import sys
from datetime import date

import pytest
import yaml

from dst_cbc.settings.experiment_files import MOST_EXTENDED, MOST_FAULTS, load_experiment, nearest
from dst_cbc.settings.yaml_files import (
    LARGEST,
    ConfigError,
    check_values,
    found,
    parse_yaml,
    read_yaml,
)
from workflow import REPOSITORY

MANY = 20_000
VALUES = f"more than {LARGEST} values"
LEVELS = "more than 20 levels"
LONG = "a text of more than 10,000 characters"
KEY = "found a mapping, a list or `<<` as a key"
NO_TEXT = "is not UTF-8 text; save the file as UTF-8"


def chain(link):
    return "\n".join(["a0: &a0 [x]", *(link.format(i, i - 1) for i in range(1, MANY))])


HARMFUL = {
    "many keys": ("\n".join(f"key{i}: {i}" for i in range(MANY)), "key0: unknown key"),
    "many values": (f"a: [{'1,' * 4_000_000}]", VALUES),
    "many aliases": (f"a: &a {[1] * 1000}\nb: [{'*a, ' * 101}]", VALUES),
    "an alias of itself": ("a: &a {b: *a}", VALUES),
    "a chain of aliases": (chain("a{0}: &a{0} [*a{1}]"), LEVELS),
    "a chain of merged keys": (chain("a{0}: &a{0} {{<<: *a{1}, b{0}: 1}}"), LEVELS),
    "deep lists": ("[" * 1_000_000, LEVELS),
    "deep mappings": ("{a: " * MANY, LEVELS),
    "deep blocks": ("- " * MANY, LEVELS),
    "many directives": ("".join(f"%TAG !a{i}! x\n" for i in range(400_000)), "a %TAG directive"),
    "a directive": ("\ufeff%TAG ! x\n---\na: 1", "a %TAG directive"),
    "a large file": ("#" * 10_000_001, "larger than 10,000,000 bytes"),
    "a long text": (f"a: {'x' * 10_001}", LONG),
    "a long text, often": (f"a: &a {'x' * 9000}\nb: [{'*a, ' * 2000}]", "10,000,000 characters"),
    "a number to base 60": (f"a: 1{':1' * 1_000_000}", LONG),
    "a long tag": (f"a: !{'x' * 1_000_000} 1", "could not determine a constructor"),
    "decimal digits": (f"a: {'9' * 9000}", "which is no int"),
    "hexadecimal digits": (f"a: 0x{'f' * 9000}", "a: found a number of more than 18 digits"),
    "a fraction to base 60": (f"a: 1{':1' * 400}.5", "which is no float"),
    "a large key": (f"? 0x{'f' * 9000}\n: 1", "found a number of more than 18 digits"),
    "a large key, twice": (f"? 0x{'f' * 9000}\n: 1\n" * 2, "occurs twice"),
    "infinity": ("save_seconds: .inf", "save_seconds: found inf; Input should be a finite number"),
    "an exponent": ("save_seconds: 1.0e+999", "save_seconds: found inf"),
    "no number": ("save_seconds: .nan", "save_seconds: found nan"),
    "a date": ("a: 2001-02-03", "a: found a value of the type date"),
    "a wrong date": ("a: 2001-99-99", "found '2001-99-99', which is no timestamp"),
    "a set": ("a: !!set {b}", "a: found a value of the type set"),
    "binary data": ("a: !!binary aGk=", "a: found a value of the type bytes"),
    "an empty int": ("a: !!int ''", "found '', which is no int"),
    "no bool": ("a: !!bool x", "found 'x', which is no bool"),
    "no timestamp": ("a: !!timestamp x", "found 'x', which is no timestamp"),
    "python": ("a: !!python/tuple [1]", "could not determine a constructor"),
    "a merge key": ("a: &a {b: 1}\nc: {<<: *a}", KEY),
    "a list as a key": ("[a, b]: 1", KEY),
    "a mapping as a key": ("{a: 1}: 1", KEY),
    "a key twice": ("a: 1\nb: {c: 1, c: 2}", "key 'c' occurs twice"),
    "nan twice": (".nan: 1\n.nan: 2", "key '.nan' occurs twice"),
    "no key": ("~: 1", "found the key '~' without quotes, which YAML reads as nothing"),
    "NUL by its number": (r'a: "x\0"', "a: found the control character '\\x00'"),
    "escape by its number": (r'{"a\e": 1}', "found the control character '\\x1b'"),
    "half a character": (r'a: "\ud800"', "invalid Unicode character escape code"),
    "NUL": ("a: x\0", "control characters are not allowed"),
    "a tab": ("a:\n\tb: 1", "line 2"),
    "an unknown alias": ("a: *b", "found undefined alias"),
    "two documents": ("a: 1\n---\nb: 2", "expected a single document"),
    "an empty file": ("", "found nothing, expected `key: value` lines"),
    "a list": ("- a", "found a list, expected `key: value` lines"),
    "UTF-16": ("a: 1".encode("utf-16"), f"byte 1 {NO_TEXT}"),
    "Latin-1": ("a: ä".encode("latin-1"), f"byte 4 {NO_TEXT}"),
    "extends nothing": ("extends: ''", "found a folder, expected a regular file"),
    "extends a list": ("extends: [a]", "extends: found ['a'], expected the path of a file"),
    "extends a device": ("extends: /dev/zero", "/dev/zero: found a pipe or a device"),
    "extends memory": ("extends: /proc/self/mem", "/proc/self/mem: cannot be read"),
    "extends a pipe": ("extends: pipe", "pipe: found a pipe or a device"),
    "extends a chain": ("extends: 0.yaml", "18.yaml: extends: a chain of more than 20 files"),
    "splits of a wrong kind": ("extends: base.yaml\nsplits: {a: {all: true}}", "splits: found 3"),
}  # fmt: skip
READ = """
import json, sys
from pathlib import Path
from dst_cbc.settings.experiment_files import load_experiment
from dst_cbc.settings.yaml_files import ConfigError
for path in sorted(Path(sys.argv[1]).glob("*.case")):
    try:
        load_experiment([path], {})
        text = "accepted"
    except ConfigError as error:
        text = str(error)
    print(json.dumps([path.name, text]), flush=True)
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """The messages for all harmful files, of a process with little time and memory."""
    folder = tmp_path_factory.mktemp("harmful")
    for number, (content, _) in enumerate(HARMFUL.values()):
        text = content if isinstance(content, bytes) else content.encode()
        (folder / f"{number}.case").write_bytes(text)
    for number in range(MOST_EXTENDED + 1):
        (folder / f"{number}.yaml").write_text(f"extends: {number + 1}.yaml")
    (folder / "base.yaml").write_text("splits: 3")
    os.mkfifo(folder / "pipe")

    def limited():
        resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))

    command = [sys.executable, "-c", READ, folder]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "scripts")}
    done = subprocess.run(
        command, env=environment, preexec_fn=limited, capture_output=True, text=True, timeout=300
    )
    found = dict(map(json.loads, done.stdout.splitlines()))
    return {
        name: found.get(f"{number}.case", f"no answer; {done.stderr[-500:]}")
        for number, name in enumerate(HARMFUL)
    }


@pytest.mark.parametrize("name", HARMFUL)
def test_harmful_yaml_is_refused_in_words(name, answers):
    assert HARMFUL[name][1] in answers[name]
    assert len(answers[name]) < 10_000


def test_a_byte_order_mark_and_other_line_ends_change_nothing(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb:\r  c: x\n")
    assert read_yaml(path) == {"a": 1, "b": {"c": "x"}}


@pytest.mark.parametrize(
    "text, told",
    [
        ("classes:\n  a: '#000000'\n  b: #ff0000\n", [(3, "#ff0000")]),
        ("ignore: #000000", [(1, "#000000")]),
        ("ignore:\n  - #000000  # black", [(2, "#000000")]),
        ("ignore: [#000000]", [(1, "#000000")]),
        ("ignore: ['#000000',\n  #ABCDEF,\n]", [(2, "#ABCDEF")]),
        ("labels:\n  #00ff00: a\n  #00ff01: b", [(2, "#00ff00"), (3, "#00ff01")]),
    ],
)
def test_a_colour_without_quotes_is_named_with_its_line(text, told, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_yaml(path)
    assert str(error.value).splitlines() == [
        f"{path}: line {line}: found {colour} without quotes, which is a comment in YAML; write "
        f"'{colour}'"
        for line, colour in told
    ]


@pytest.mark.parametrize(
    "text",
    [
        "a: '#ff0000'",
        "a: [\"#ff0000\", '#00ff00']",
        "a: 1  # was: #ff0000",
        "a: red #ff0000",
        "a:\n  # ff0000: red\n  #ff0000\n  b: 1",
        "a: 'it''s: #ff0000'",
        "a: b:#ff0000",
        "a: #decade5 is longer\n  1",
    ],
)
def test_other_colours_and_comments_are_left_alone(text):
    assert parse_yaml(text, "place") == yaml.safe_load(text)


@pytest.mark.parametrize(
    "key, is_read_as", [("no", "false"), ("Yes", "true"), ("off", "false"), ("null", "nothing")]
)
def test_a_word_that_yaml_does_not_read_as_text_is_refused_as_a_key(key, is_read_as):
    with pytest.raises(ConfigError) as error:
        parse_yaml(f"classes:\n  {key}: '#000000'\n", "a.yaml")
    for words in ("a.yaml: ", f"reads as {is_read_as}; write '{key}', with the quotes", "line 2"):
        assert words in str(error.value)
    assert parse_yaml(f"'{key}': 1", "a.yaml") == {key: 1}


def test_as_many_values_and_levels_as_are_allowed_are_read(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(f"a: [{'1, ' * (LARGEST - 3)}]\n")
    assert len(read_yaml(path)["a"]) == LARGEST - 3
    path.write_text(f"a: {'[' * 19}{']' * 19}\n")
    read_yaml(path)
    path.write_text(f"a: {'[' * 20}{']' * 20}\n")
    with pytest.raises(ConfigError, match=LEVELS):
        read_yaml(path)


def test_reading_stops_where_the_limit_is_passed(monkeypatch):
    parse, events = yaml.parse, []
    monkeypatch.setattr(yaml, "parse", lambda *a: (events.append(e) or e for e in parse(*a)))
    with pytest.raises(ConfigError, match=VALUES):
        parse_yaml(f"a: [{'1, ' * 2 * LARGEST}]", "place")
    assert len(events) < LARGEST + 10


def test_only_the_first_of_many_faults_are_explained(monkeypatch):
    calls = []
    monkeypatch.setattr(difflib, "get_close_matches", lambda *args: calls.append(args) or [])
    with pytest.raises(ConfigError) as error:
        load_experiment([{f"key{i}": i for i in range(1000)}], {})
    lines = str(error.value).splitlines()
    assert len(lines) == MOST_FAULTS + 1 and lines[-1] == "and 985 more"
    assert 0 < len(calls) <= MOST_FAULTS
    hint = nearest("x" * 10_000, [f"name{i}" for i in range(MANY)])
    assert hint.startswith("known: name0, name1, ") and hint.endswith(", name99, …")
    word, known, _ = calls[-1]
    assert len(word) <= 100 and len(known) <= 100


def test_text_that_is_no_unicode_is_refused():
    with pytest.raises(ConfigError, match="place: not valid YAML"):
        parse_yaml("a: \udcff", "place")


def endless():
    inner = []
    inner.append(inner)
    return inner


def wide():
    inner = "x"
    for _ in range(10):
        inner = [inner] * 10
    return inner


NO_SETTINGS = {
    "endless": (endless(), LEVELS),
    "wide": (wide(), VALUES),
    "a large number": (10**5000, "a number of more than 18 digits"),
    "a long text": ("x" * 10_001, LONG),
    "a date": (date(2001, 1, 1), "the type date"),
    "a control character": ("\x1b[2J", "the control character '\\x1b'"),
    "half a character": ("\ud800", "the control character '\\ud800'"),
}


@pytest.mark.parametrize("name", NO_SETTINGS)
def test_content_that_another_program_has_read_has_the_same_limits(name):
    value, reason = NO_SETTINGS[name]
    for files, overrides in [([{"a": {"b": value}}], {}), ([{}], {"a": {"b": value}})]:
        with pytest.raises(ConfigError) as error:
            load_experiment(files, {}, overrides)
        text = str(error.value)
        assert reason in text and text.startswith(("config: a.b", "--config: a.b"))
    if isinstance(value, str | int):
        with pytest.raises(ConfigError):
            check_values({value: 1}, "place")


def test_a_value_in_a_message_is_shortened_only_if_it_is_long():
    for value in ("many", 5, [1, 2], {"a": 1}, None, "x" * 150):
        assert found(value) == repr(value)
    for value in ("x" * 10_000, list(range(10_000)), [["x" * 300] * 30] * 30):
        assert len(found(value)) < 100_000 and "..." in found(value)
