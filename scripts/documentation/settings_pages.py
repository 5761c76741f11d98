"""Reference pages of the settings: keys, methods, networks, formats of data."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from inspect import getdoc
from typing import Any

from dst_cbc.data.layouts import LAYOUTS
from dst_cbc.report.tables import markdown_table
from dst_cbc.runtime.errors import DataError
from dst_cbc.settings.base import Settings
from dst_cbc.settings.choices import HEADS, OBJECTIVES
from dst_cbc.settings.experiment import Experiment
from dst_cbc.settings.methods import MethodSwitches
from dst_cbc.settings.yaml_files import read_yaml

from .pages import REPOSITORY, page, without_markup

METHODS = REPOSITORY / "workflow/methods.yaml"
REPEATED = {"TrainOverrides": "keys of `train`", "SwitchOverrides": "switches of a method"}
"""Classes whose keys a table lists already."""


# --------------------------------------------------------------------------- keys


def keys_page() -> str:
    """Every key of an experiment file; one section for each key that holds other keys."""
    schema = Experiment.model_json_schema()
    sections: dict[str, list[list[str]]] = {"": []}
    for name, *cells in rows(schema, schema["$defs"]):
        first = re.split(r"[.\[]", name.strip("`"))[0]
        held = cells[0] == "keys below" and first not in sections
        sections.setdefault(first if held or first in sections else "", []).append([name, *cells])
    parts = [
        "An experiment file is YAML and has these keys. A key may be left out unless its default "
        "says `required`. `<name>` is a name of your choice; `[]` stands for each entry of a list. "
        "Sections, equations and tables are numbered as in the "
        "[paper](https://arxiv.org/abs/2004.08514). "
        "[How settings merge](../guides/experiment-files.md) says what wins when several files "
        "set a key. Your editor can check a file against "
        "`workflow/schemas/experiment.schema.json`.",
        "These keys hold other keys and have a section each: "
        + ", ".join(f"[`{first}`](#{first})" for first in sections if first)
        + ".",
    ]
    header = ["key", "value", "default", "meaning"]
    for first, found in sections.items():
        parts.append(f"## {f'`{first}`' if first else 'Top level'}")
        parts.append(markdown_table(header, found))
    return page("Every key", *parts)


def keys(schema: Mapping[str, Any]) -> str:
    """One row for each key of a settings class: its values, its default, what it does."""
    found = rows(schema, schema.get("$defs", {}))
    return markdown_table(["key", "value", "default", "meaning"], found)


def rows(
    schema: Mapping[str, Any], classes: Mapping[str, Any], prefix: str = ""
) -> Iterator[list[str]]:
    """Cells of the table: required keys first, keys inside a key below it."""
    required = schema.get("required", ())
    fields = schema["properties"]
    for key, field in sorted(fields.items(), key=lambda item: item[0] not in required):
        suffix, inner = _inside(field, classes)
        name, meaning = f"{prefix}{key}", field.get("description", "")
        default = "required" if key in required else _default(field)
        if inner:
            name, default = name + suffix, "" if field.get("default") else default
            yield [f"`{name}`", "keys below", default, meaning or inner["description"]]
            yield from rows(inner, classes, f"{name}.")
        else:
            yield [f"`{name}`", allowed(field), default, meaning]


def _inside(field: Mapping[str, Any], classes: Mapping[str, Any]) -> tuple[str, Any]:
    """The settings class that a key holds, and what separates this key from keys of the class."""
    named = field.get("patternProperties", {}).values()
    for suffix, schemas in (
        ("", [field, *field.get("anyOf", ())]),
        ("[]", [field.get("items", {})]),
        (".<name>", named),
    ):
        for schema in schemas:
            name = schema.get("$ref", "").rpartition("/")[2]
            if name and name not in REPEATED:
                return suffix, classes[name]
    return "", None


def allowed(schema: Mapping[str, Any]) -> str:
    """Describe the values that a key may have."""
    match schema:
        case {"$ref": reference}:
            return REPEATED[reference.rpartition("/")[2]]
        case {"discriminator": {"mapping": names}}:
            chosen = ", ".join(f"`{name}`" for name in names)
            return f"keys of one of {chosen}: see [networks and objectives](networks.md)"
        case {"gt": above, "le": top}:  # pydantic's schema of a decimal
            return _number({"type": "number", "exclusiveMinimum": above, "maximum": top})
        case {"anyOf": members}:
            return ", or ".join(dict.fromkeys(allowed(member) for member in members))
        case {"enum": values}:
            return ", ".join(f"`{value}`" for value in values)
        case {"const": value}:
            return f"`{yaml_text(value)}`"
        case {"type": "array", "prefixItems": [first, second]}:
            low, high = allowed(first), allowed(second)
            return f"two values, each {low}" if low == high else f"[{low}, {high}]"
        case {"type": "array", "items": items}:
            return f"list of {allowed(items)}"
        case {"type": "object"}:
            values = [*schema.get("patternProperties", {}).values()]
            return f"mapping to {allowed(values[0] if values else schema['additionalProperties'])}"
        case {"type": "integer" | "number"}:
            return _number(schema)
        case {"type": "string", "pattern": pattern}:
            return "`'#rrggbb'`" if "#" in pattern else "name"
        case {"type": kind}:
            return {"string": "text", "boolean": "`true`, `false`", "null": "`null`"}[kind]
    raise ValueError(f"no text for the schema {schema}")


def _number(schema: Mapping[str, Any]) -> str:
    kind = "integer" if schema["type"] == "integer" else "number"
    bounds = {"minimum": "from", "exclusiveMinimum": "above", "exclusiveMaximum": "below",
              "maximum": "to"}  # fmt: skip
    limits = [f"{word} {schema[key]}" for key, word in bounds.items() if key in schema]
    return " ".join([kind, *limits])


def _default(field: Mapping[str, Any]) -> str:
    default = field.get("default")
    if isinstance(default, Mapping):
        default = {key: value for key, value in default.items() if value is not None}
    return f"`{yaml_text(default)}`"


def yaml_text(value: Any) -> str:
    """A default as it is written in an experiment file."""
    match value:
        case bool() | None:
            return json.dumps(value)
        case float() | int():
            return format(value, "g")
        case list():
            return f"[{', '.join(map(yaml_text, value))}]"
        case {}:
            inside = ", ".join(f"{key}: {yaml_text(inner)}" for key, inner in value.items())
            return f"{{{inside}}}"
    return str(value)


# --------------------------------------------------------------------------- methods


def methods_page() -> str:
    """Every row of methods.yaml, and every switch that a row may set."""
    described = _comments(METHODS.read_text(encoding="utf-8"))
    lines = []
    for name, row in read_yaml(METHODS).items():
        if name not in described:
            raise DataError(
                f"{METHODS}: {name}: expected a comment in the first line of the row that says "
                "what the method does"
            )
        switches = ", ".join(f"`{key}: {yaml_text(value)}`" for key, value in row.items())
        lines.append([f"`{name}`", described[name], switches])
    return page(
        "Methods and switches",
        "A method is a row of `workflow/methods.yaml`: switches, and keys of `train` that the row "
        "fixes. Name the rows that you want in `runs: methods`. `supervised` is round 0, the "
        "baseline that all methods of a split share; it has no row.",
        markdown_table(["method", "what it does", "its row"], lines),
        "## Switches",
        "A row may set these switches; a switch that it leaves out has its default. `switches:` in "
        "an experiment file replaces the defaults for all methods. "
        "[Add a method](../contributing/method.md) shows a method with an objective of its own.",
        keys(MethodSwitches.model_json_schema()),
    )


def _comments(text: str) -> dict[str, str]:
    """Name of each row -> the comment after it."""
    return dict(re.findall(r"^([\w-]+):[^#\n]*#\s*(.+)$", text, re.MULTILINE))


# --------------------------------------------------------------------------- networks, formats


def networks_page() -> str:
    """Every head and every objective that an experiment can choose by name, with its keys."""
    return page(
        "Networks and objectives",
        "A network is a backbone and a head: `network: {backbone: NAME, head: {name: NAME}}`. A "
        "backbone is `small`, which is trained from scratch; any name that `timm.list_models()` "
        "prints; or `resnet101_caffe`, which has the geometry of the paper's COCO weights.",
        "## Heads",
        *_choices(HEADS),
        "[Add a head](../contributing/head.md) shows how to write one.",
        "## Objectives",
        "An objective is what a training step minimises. A method's row chooses it: "
        "`objective: {name: NAME}`.",
        *_choices(OBJECTIVES),
        "[Add a method](../contributing/method.md) shows how to write one.",
    )


def _choices(classes: Iterable[type[Settings]]) -> Iterator[str]:
    for cls in classes:
        yield f"### `{cls.model_fields['name'].default}`"
        yield getdoc(cls) or ""
        yield keys(cls.model_json_schema())


def formats_page() -> str:
    """Every layout of a data set on disk: where its files are, and the classes that it defines."""
    parts = [
        "`format:` names the layout of the folder `data`. "
        "[Add a layout](../contributing/layout.md) shows how to write one."
    ]
    for name, layout in LAYOUTS.items():
        module = import_module(layout.records.__module__)
        parts += [f"## `{name}`", without_markup(getdoc(module) or "")]
        if layout.classes:
            parts.append(f"Classes: {', '.join(layout.classes)}.")
            values = "these values: " + ", ".join(map(str, layout.labels)) if layout.labels else ""
            parts.append(f"Masks hold {values or '0, 1, 2, … in this order'}.")
        parts.append(f"Ignored values of a mask: {', '.join(map(str, layout.ignore))}.")
    return page("Formats of data sets", *parts)
