"""Read, merge and validate experiment files; an error names the file and the key."""

import difflib
import itertools
import os
import typing
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any

from pydantic import BaseModel, ValidationError

from .experiment import Experiment
from .methods import MethodRow
from .network import SHORT_FORMS
from .yaml_files import ConfigError, check_values, found, read_yaml

EXTENDING_KEYS = ("extends", "name", "splits", "runs", "report")
"""The only keys of a file with `extends`: it chooses runs and their report, and no settings."""


MOST_EXTENDED = 20
"""Most files in a chain in which each extends the next."""
MOST_FAULTS = 20
"""Most faults that a message lists."""
MOST_KNOWN = 100
"""Most known names that are searched for one like an unknown name, or that a message lists."""


def load_experiment(
    files: Sequence[Path | Mapping[str, Any]],
    presets: Mapping[str, Any],
    overrides: Mapping[str, Any] | None = None,
) -> Experiment:
    """The experiment that one or more files describe, merged from left to right.

    files: paths, or the content of a file in place of its path (as from a `module` statement).
    presets: content of workflow/presets.yaml; the selected preset is the base, which all files
    override. overrides: keys of --config, which override all files. Raises ConfigError.
    """
    documents: list[tuple[str, dict]] = []
    for file in files:
        documents += _with_extended(file)
    documents.append(("--config", dict(overrides or {})))
    check_values(documents[-1][1], "--config")
    merged: dict[str, Any] = {}
    for source, document in documents:
        merged = _add(merged, source, document)
    preset = merged.get("preset", "standard")
    if isinstance(preset, str) and preset in presets:
        merged = merge(_beneath(merged, presets[preset]), merged)
    try:
        return Experiment.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(explain(error, Experiment, documents)) from None


def _beneath(files: Mapping[str, Any], preset: Mapping[str, Any]) -> Mapping[str, Any]:
    """The preset, without the short forms of a head if the files set `network.head`."""
    network = files.get("network")
    if not isinstance(network, Mapping) or network.get("head") is None:
        return preset
    kept = {k: v for k, v in preset.get("network", {}).items() if k not in SHORT_FORMS}
    return {**preset, "network": kept}


def load_methods(path: Path) -> dict[str, MethodRow]:
    """The rows of workflow/methods.yaml by name. Raises ConfigError."""
    rows = {}
    for name, row in read_yaml(path).items():
        rows[name] = method_row(row, f"{path}: {name}")
    return rows


def method_row(row: Mapping[str, Any], place: str) -> MethodRow:
    """Validate one row of methods. Raises ConfigError, whose message begins with `place`."""
    try:
        return MethodRow.model_validate(row)
    except ValidationError as error:
        raise ConfigError(explain(error, MethodRow, [(place, row)])) from None


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two mappings key by key, `above` wins; other values, lists too, are replaced whole."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            value = merge(old, value)
        merged[key] = value
    return merged


def nearest(word: str, known: Collection[str]) -> str:
    """Hint for an error message: the known name most like `word`, else the known names."""
    shown = list(itertools.islice(known, MOST_KNOWN))
    close = difflib.get_close_matches(str(word)[:MOST_KNOWN], shown, 1)
    more = ", …" if len(known) > len(shown) else ""
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(shown)}{more}"


def _with_extended(file: Path | Mapping[str, Any]) -> list[tuple[str, dict]]:
    """(Source, content) of a file and of all files that it extends, the extended ones first."""
    is_content = isinstance(file, Mapping)
    path = Path("config" if is_content else file)
    # Snakemake makes the paths of config files absolute.
    below = os.path.relpath(path)
    if Path(below).parts[:1] == ("results",) and path.suffix not in (".yaml", ".yml"):
        raise ConfigError(
            f"{below}: a file of results, and no experiment file; --configfile takes every word "
            f"behind it, so write: snakemake --cores all {below} --configfile FILE"
        )
    document = dict(file) if is_content else read_yaml(path)
    check_values(document, str(path))
    chain, seen = [(str(path), document)], {path.resolve()}
    while (base := document.get("extends")) is not None:
        refused = [key for key in document if key not in EXTENDING_KEYS]
        if refused:
            raise ConfigError(
                f"{path}: {refused[0]}: a file that extends another may only add splits, and set "
                "runs and report; remove the key, or remove `extends` and make the file a complete "
                "experiment with another name"
            )
        if not isinstance(base, str):
            raise ConfigError(f"{path}: extends: found {found(base)}, expected the path of a file")
        before, path = path, path.parent / base
        if path.resolve() in seen:
            raise ConfigError(
                f"{path}: extends itself, perhaps through other files; remove `extends`"
            )
        if len(chain) == MOST_EXTENDED:
            raise ConfigError(
                f"{before}: extends: a chain of more than {MOST_EXTENDED} files that extend each "
                "other; merge some of them"
            )
        document = read_yaml(path)
        seen.add(path.resolve())
        chain.append((str(path), document))
    return chain[::-1]


def _add(merged: dict, source: str, document: dict) -> dict:
    if "extends" not in document:
        return merge(merged, document)
    if document.get("name", merged.get("name")) != merged.get("name"):
        raise ConfigError(
            f"{source}: name: found {found(document['name'])}, but the extended file has the "
            f"name {found(merged.get('name'))}; remove `name`"
        )
    own = {key: document[key] for key in ("runs", "report") if key in document}
    splits, more = merged.get("splits") or {}, document.get("splits") or {}
    for value in (splits, more):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{source}: splits: found {found(value)}, expected a mapping")
    changed = [key for key in more if splits.get(key, more[key]) != more[key]]
    if changed:
        raise ConfigError(
            f"{source}: splits.{changed[0]}: the extended file defines this split differently; "
            "choose another name"
        )
    return {**merge(merged, own), "splits": {**splits, **more}}


def explain(error: ValidationError, model: type[BaseModel], documents) -> str:
    """One line for each of the first errors: file, key, what was found, what was expected."""
    faults = error.errors(include_url=False)
    lines = [_line(fault, model, documents) for fault in faults[:MOST_FAULTS]]
    more = [f"and {len(faults) - MOST_FAULTS} more"] if len(faults) > MOST_FAULTS else []
    return "\n".join(lines + more)


def _line(fault: Mapping[str, Any], model: type[BaseModel], documents) -> str:
    path = _as_written(fault["loc"], documents)
    key = ".".join(map(str, path))
    place = f"{_source(path, documents)}: {key}" if key else _source(path, documents)
    if fault["type"] == "extra_forbidden":
        known = sorted(_fields_at(model, path[:-1]))
        return f"{place}: unknown key; {nearest(path[-1], known)}"
    if fault["type"] == "missing":
        whole = isinstance(fault["input"], Mapping)
        return (
            f"{place}: missing"
            if whole
            else f"{place}: found {found(fault['input'])}; too few values"
        )
    what = "" if isinstance(fault["input"], Mapping) else f"found {found(fault['input'])}; "
    return f"{place}: {what}{_expected(fault) or fault['msg'].removeprefix('Value error, ')}"


def _expected(fault: Mapping[str, Any]) -> str:
    """What to write instead, where YAML has read another type than was meant; else ""."""
    value, kind = fault["input"], fault["type"]
    if kind == "string_type" and isinstance(value, bool):
        words = "yes, on and true" if value else "no, off and false"
        return f"expected text: {words} are text only in quotes, such as '{words.split(',')[0]}'"
    if kind == "tuple_type" and isinstance(value, str | int | float):
        return f"expected a list, in brackets: [{found(value)}]"
    return ""


def _as_written(loc: tuple, documents) -> tuple:
    """Where an error is in the files: pydantic's location without its names of union members."""
    path: tuple = ()
    for i, part in enumerate(loc):
        last = i == len(loc) - 1
        if part != "[key]" and (last or any(_contains(d, (*path, part)) for _, d in documents)):
            path = (*path, part)
    if path and not any(_contains(d, path) for _, d in documents):
        parent = path[:-1]
        known = any(_contains(d, parent) for _, d in documents)
        is_member = known and not isinstance(_get(parent, documents), Mapping)
        return parent if is_member else path
    return path


def _contains(document: Any, path: tuple) -> bool:
    for part in path:
        if (isinstance(document, Mapping) and part in document) or (
            isinstance(document, list) and isinstance(part, int) and part < len(document)
        ):
            document = document[part]
        else:
            return False
    return True


def _get(path: tuple, documents) -> Any:
    value = next(d for _, d in reversed(documents) if _contains(d, path))
    for part in path:
        value = value[part]
    return value


def _source(path: tuple, documents) -> str:
    """The last file that has the key or, if none has it, the longest beginning of its path."""
    for length in range(len(path), 0, -1):
        for source, document in reversed(documents):
            if _contains(document, path[:length]):
                return source
    return documents[0][0]


def _fields_at(model: type[BaseModel], path: tuple) -> list[str]:
    """Keys of the settings class at `path`; of all classes if there is a choice of several."""
    models = [model]
    for part in path:
        fields = [one.model_fields[part] for one in models if part in one.model_fields]
        # Other parts of a path are keys of a dict or indexes of a list, of the same settings class.
        if fields:
            models = [one for field in fields for one in _models_in(field.annotation)]
    return list(dict.fromkeys(key for one in models for key in one.model_fields))


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The settings classes inside an annotation such as dict[str, X], tuple[X, ...] or X | Y."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) or isinstance(annotation, UnionType):
        return [one for inner in typing.get_args(annotation) for one in _models_in(inner)]
    return []
