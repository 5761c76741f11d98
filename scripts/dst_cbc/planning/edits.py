"""Which finished trainings an edit of the experiment would replace."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..runtime.errors import DataError
from ..runtime.reading import read_json
from .plan import Plan


def replaced_trainings(plan: Plan, study: Path) -> tuple[dict[str, str], list[str]]:
    """Finished trainings that this plan would replace: path below `study` -> reason; and messages.

    A training is replaced if its settings have changed, or if the plan replaces a model that it
    starts from or is labeled by. A message names a settings.json that is damaged.
    """
    stale: dict[str, str] = {}
    damage = []
    for path, model in plan.models.items():
        written = study / path / "settings.json"
        if not (written.is_file() and (study / path / "model.pt").is_file()):
            continue
        try:
            old = read_json(written)
        except DataError as error:
            damage.append(str(error))
            continue
        new = json.loads(model.settings.canonical())
        changes = [f"{k}: {a!r} -> {b!r}" for k, a, b in _differences(old, new)]
        if changes:
            stale[path] = "; ".join(changes)
        elif model.previous and model.previous.path in stale:
            stale[path] = f"starts from {model.previous.path}"
        elif model.labeled_by and model.labeled_by.path in stale:
            stale[path] = f"is labeled by {model.labeled_by.path}"
    return stale, damage


def _differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted key, old value and new value of every difference."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif old != new:
        yield path, old, new
