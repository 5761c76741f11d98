"""What an edit of the experiment would replace: finished trainings with other settings."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..runtime.files import read_json
from .plan import Plan


def replaced_trainings(plan: Plan, study: Path) -> dict[str, str]:
    """Paths of finished trainings below `study` that this plan would replace, and why.

    Raises DataError when the settings that one of them has written are damaged.
    """
    stale: dict[str, str] = {}
    for path, model in plan.models.items():
        written = study / path / "settings.json"
        if not (written.is_file() and (study / path / "model.pt").is_file()):
            continue
        old, new = read_json(written), json.loads(model.settings.canonical())
        changes = [f"{k}: {a!r} -> {b!r}" for k, a, b in _differences(old, new)]
        if changes:
            stale[path] = "; ".join(changes)
        elif model.previous and model.previous.path in stale:
            stale[path] = f"starts from {model.previous.path}"
        elif model.labeled_by and model.labeled_by.path in stale:
            stale[path] = f"is labeled by {model.labeled_by.path}"
    return stale


def _differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted keys whose values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif old != new:
        yield path, old, new
