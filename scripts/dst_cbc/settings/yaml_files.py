"""Read YAML files within limits: a harmful or damaged one is refused at once, and in words."""

import itertools
import math
import re
import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from ..runtime.errors import DataError
from ..runtime.reading import read_text

try:
    from yaml import CSafeLoader as SafeLoader
except ImportError:  # PyYAML was built without libyaml, and is slower
    from yaml import SafeLoader


class ConfigError(ValueError):
    """A configuration that cannot run; the message names file and key of each error."""


MOST_BYTES = 10_000_000
"""Largest size of a YAML file, and most characters in the texts of one, aliases expanded."""
LARGEST = 100_000
"""Largest number of values in a YAML file after all aliases are expanded."""
DEEPEST = 20
"""Most levels of mappings and lists inside each other, aliases expanded."""
LONGEST = 10_000
"""Most characters of a text."""
MOST_DIGITS = 18
"""Most digits of a whole number; larger ones do not fit into 64 bits."""
MOST_COLOURS = 20
"""Most colours without quotes that a message lists."""
MOST_BEFORE = 1000
"""Characters of a line that are searched before a colour."""
TOO_LARGE = f"found more than {LARGEST} values after its aliases are expanded; write fewer"
TOO_LONG = f"found a text of more than {LONGEST:,} characters; shorten it"
TOO_DEEP = f"found more than {DEEPEST} levels of mappings and lists; write fewer"

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]").search
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}(?=[\s,:\]}]|$)").finditer
# The line before a comment: no comment has begun, and no quote is open.
_BEFORE_COMMENT = re.compile(r"""(?:[^'"#]|'[^']*'|"[^"]*")*""").fullmatch
_TAG_DIRECTIVE = re.compile("(?:^\ufeff?|[\n\x85\u2028\u2029])%TAG").search
_FOUND = reprlib.Repr()
_FOUND.maxlevel, _FOUND.maxstring, _FOUND.maxother, _FOUND.maxlong = 4, 200, 200, 40
_FOUND.maxlist = _FOUND.maxtuple = _FOUND.maxdict = _FOUND.maxset = 20


def found(value: Any) -> str:
    """A value as a message shows it: its repr, shortened where it is long."""
    return _FOUND.repr(value)


class _Loader(SafeLoader):  # pyright: ignore[reportGeneralTypeIssues]
    """YAML's safe loader, which also refuses duplicate keys and keys that are no single value."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, ArithmeticError):
            # PyYAML raises these where a text is no value of its type, such as 2001-99-99.
            kind = node.tag.rpartition(":")[2]
            raise yaml.constructor.ConstructorError(
                None, None, f"found {found(node.value)}, which is no {kind}", node.start_mark
            ) from None


_WORDS = {None: "nothing", True: "true", False: "false"}


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict:
    keys = set()
    for key_node, _ in node.value:
        fault = "found a mapping, a list or `<<` as a key; expected text or a number"
        if isinstance(key_node, yaml.ScalarNode) and not key_node.tag.endswith(":merge"):
            key = loader.construct_object(key_node)
            fault = f"key {found(key_node.value)} occurs twice" if key in keys else ""
            keys.add(key)
            if key is None or isinstance(key, bool):
                fault = (
                    f"found the key {found(key_node.value)} without quotes, which YAML reads as "
                    f"{_WORDS[key]}; write '{key_node.value}', with the quotes"
                )
        if fault:
            raise yaml.constructor.ConstructorError(None, None, fault, key_node.start_mark)
    return SafeLoader.construct_mapping(loader, node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def parse_yaml(text: str, place: str) -> Any:
    """Content of YAML text. Raises ConfigError, whose message begins with `place`."""
    bare = [
        f"{place}: line {line}: found {colour} without quotes, which is a comment in YAML; write "
        f"'{colour}'"
        for line, colour in itertools.islice(_bare_colours(text), MOST_COLOURS)
    ]
    if bare:
        raise ConfigError("\n".join(bare))
    try:
        _check_size(text)
        content = yaml.load(text, _Loader)
    except (yaml.YAMLError, UnicodeError) as error:
        # The text of an error may hold a tag of any length.
        raise ConfigError(f"{place}: not valid YAML: {str(error)[:1000]}") from None
    check_values(content, place)
    return content


def _bare_colours(text: str) -> Iterator[tuple[int, str]]:
    """Yield line number and colour of each value or key, such as #ff0000, that is a comment."""
    for colour in _COLOUR(text):
        start, end = colour.span()
        before = text[max(0, start - MOST_BEFORE) : start].rpartition("\n")[2]
        mark = before.rstrip()[-1:]
        is_value = mark in tuple("[,{") or (mark in (":", "-") and before[-1].isspace())
        is_key = not mark and text[end : end + 1] in tuple(":,]}")
        if (is_value or is_key) and _BEFORE_COMMENT(before):
            yield text.count("\n", 0, start) + 1, colour[0]


def read_yaml(path: Path) -> dict[str, Any]:
    """Content of a YAML file that holds a mapping. Raises ConfigError with the line of an error."""
    try:
        text = read_text(path, MOST_BYTES)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except DataError as error:
        raise ConfigError(str(error)) from None
    content = parse_yaml(text, str(path))
    if not isinstance(content, dict):
        kind = "nothing" if content is None else f"a {type(content).__name__}"
        raise ConfigError(f"{path}: found {kind}, expected `key: value` lines")
    return content


def _check_size(text: str) -> None:
    """Refuse what is too large or too deep before a loader, which is recursive, builds any of it.

    Raises YAMLError with the line.
    """
    if _TAG_DIRECTIVE(text):
        # libyaml compares each of these with all others.
        raise yaml.YAMLError("found a %TAG directive; remove it")
    events = yaml.parse(text, SafeLoader)
    anchored: dict[str | None, tuple[float, float]] = {}
    for event in events:
        if isinstance(event, yaml.NodeEvent):
            _size(event, events, anchored, 0)


def _size(
    event: yaml.NodeEvent,
    events: Iterator[Any],
    anchored: dict[str | None, tuple[float, float]],
    around: int,
) -> tuple[float, float]:
    """Number of values and of levels of the node that begins with `event`, aliases expanded.

    around: how many mappings and lists are around it. anchored: sizes of the nodes with an anchor.
    """
    values, levels, fault = 1.0, 0.0, ""
    if isinstance(event, yaml.AliasEvent):
        # The loader refuses an alias without an anchor.
        values, levels = anchored.get(event.anchor, (1, 0))
    elif isinstance(event, yaml.ScalarEvent):
        fault = TOO_LONG if len(event.value) > LONGEST else ""
    elif around == DEEPEST:
        fault = TOO_DEEP
    else:
        levels = 1
        # An alias inside of the node itself has no end.
        anchored[event.anchor] = math.inf, math.inf
        while not isinstance(inner := next(events), yaml.CollectionEndEvent):
            more, below = _size(inner, events, anchored, around + 1)
            values, levels = values + more, max(levels, below + 1)
            if values > LARGEST:
                break
    if values > LARGEST:
        fault = TOO_LARGE
    elif around + levels > DEEPEST:
        fault = TOO_DEEP
    if fault:
        raise yaml.MarkedYAMLError(problem=fault, problem_mark=event.start_mark)
    anchored[event.anchor] = values, levels
    return values, levels


def check_values(content: Any, place: str) -> None:
    """Refuse values that no key can have, in content that any program has read from YAML.

    Raises ConfigError, whose message begins with `place` and names the key.
    """
    waiting: list[tuple[tuple, Any]] = [((), content)]
    values = characters = 0
    while waiting:
        path, value = waiting.pop()
        values += 1
        fault = ""
        if isinstance(value, Mapping):
            # Keys are looked at first: they name the values in messages.
            waiting += [((*path, key), inner) for key, inner in value.items()]
            waiting += [(path, key) for key in value]
        elif isinstance(value, list | tuple):
            waiting += [((*path, number), inner) for number, inner in enumerate(value)]
        else:
            fault = _fault(value)
            characters += len(value) if isinstance(value, str) else 0
        if len(path) > DEEPEST:
            fault = TOO_DEEP
        elif values + len(waiting) > 2 * LARGEST:  # each value of a mapping comes with its key
            fault = TOO_LARGE
        elif characters > MOST_BYTES:
            fault = f"found more than {MOST_BYTES:,} characters after its aliases are expanded"
        if fault:
            key = ".".join(str(part) for part in path[:DEEPEST])
            raise ConfigError(f"{place}: {key}: {fault}" if key else f"{place}: {fault}")


def _fault(value: Any) -> str:
    """Why no key can have this value, which is no mapping or list; "" if one can."""
    if isinstance(value, str):
        if len(value) > LONGEST:
            return TOO_LONG
        if strange := _CONTROL(value):
            return f"found the control character {strange[0]!a} in a text; remove it"
    elif isinstance(value, int):
        if abs(value) >= 10**MOST_DIGITS:
            return f"found a number of more than {MOST_DIGITS} digits; write a smaller one"
    elif value is not None and not isinstance(value, float):
        kind = type(value).__name__
        return f"found a value of the type {kind}, expected text or a number; write it in quotes"
    return ""
