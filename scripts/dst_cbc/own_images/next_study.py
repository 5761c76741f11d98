"""Prepares the next study: the same settings, more masks, and the weights of the last model."""

import re
from collections.abc import Callable
from pathlib import Path

from typing_extensions import TypedDict

from ..data.layouts.pairs import paired
from ..data.masks import label_table, open_label
from ..planning.plan import Plan
from ..runtime.errors import DataError
from ..runtime.reading import read_json


def next_name(name: str, is_taken: Callable[[str], bool]) -> str:
    """Return the next free name: `cells-2` after `cells`, `cells-3` after `cells-2`."""
    found = re.fullmatch(r"(.*?)(?:-(\d+))?", name)
    assert found is not None
    stem, following = found[1], int(found[2] or 1) + 1
    while is_taken(f"{stem}-{following}"):
        following += 1
    return f"{stem}-{following}"


def renewed(text: str, name: str, start_from: str | None) -> str:
    """Return the text of an experiment file with another `name` and `start_from`."""
    text = re.sub(r"(?m)^start_from:.*\n", "", text)
    start = f"\nstart_from: {start_from}" if start_from else ""
    lines = f"name: {name}{start}"
    text, found = re.subn(r"(?m)^name:.*$", lambda _: lines, text, count=1)
    if not found:
        raise DataError(
            "experiment file: no line starts with `name: …`; write this key on an unindented line"
        )
    return text


class _Recommended(TypedDict):
    """What is read of recommendation.json. model: the folder of a model, below the study's."""

    model: str


def model_to_continue(plan: Plan, study: Path) -> Path | None:
    """Return the recommended model, or else that of the last round; None if none is finished.

    A study whose masks are in folds has none: in each fold, models are compared on masks that an
    earlier model was trained on.
    """
    if any(model.fold for model in plan.models.values()):
        return None
    done = [m for m in plan.models.values() if (study / m.path / "model.pt").is_file()]
    if not done:
        return None
    recommended = None
    if (study / "recommendation.json").is_file():
        recommended = read_json(study / "recommendation.json", _Recommended)["model"]
    best = max(done, key=lambda m: (m.path == recommended, m.labeled_by is not None, m.round))
    return study / best.path / "model.pt"


def describe_changes(plan: Plan, records, labeled_before: set[str], root: Path) -> list[str]:
    """Return lines that say what is new since the earlier study.

    labeled_before: ids of the images that were labeled in that study. Raises DataError that names
    each new mask that cannot be read or has a value that the experiment does not know.
    """
    masked = [record for record in records if record.subset == "train" and record.label]
    new = [record for record in masked if record.id not in labeled_before]
    problems, table = [], label_table(plan.dataset)
    masks = plan.dataset.mask_root(root)
    for record in new:
        try:
            open_label(masks / record.label, table)
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError(f"{len(problems)} new masks cannot be used:\n" + "\n".join(problems[:20]))
    gone = sorted(labeled_before - {record.id for record in masked})
    lines = [
        f"found: {len(masked)} masks to train on, {len(new)} of them new; "
        f"{len(plan.train_ids) - len(masked)} unlabeled images",
    ]
    held = [subset for subset in ("val", "test") if any(r.subset == subset for r in records)]
    if held:
        verb = "have" if len(held) > 1 else "has"
        lines.append(f"kept: {' and '.join(held)} {verb} the same images as before")
    if gone:
        lines.append(f"WARNING: {len(gone)} images have lost their masks, first {gone[0]!r}")
    if plan.dataset.pairs and not plan.dataset.subsets:
        listed = {record.id for record in records}
        outside = [
            id for id, _, mask in paired(root, plan.dataset.pairs) if mask and id not in listed
        ]
        if outside:
            lines.append(
                f"assumed: {len(outside)} masks are left out, first {outside[0]!r}: their groups "
                "are held out; list them under pairs.val or pairs.test to use them"
            )
    return lines
