"""The model card `model.md`: what a user of a model must know, from the files beside the model.

Only `model.pt` is needed; if other files are missing, the card says less.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ..data.index import Row, read_index
from ..runtime import escape
from ..runtime.paths import require_relative
from ..runtime.reading import explained, read_ids, read_json
from ..settings.data import SplitRule
from ..settings.network import NetworkSettings
from ..settings.stages import ModelSettings
from .model_files import RECOMMENDATION, BestMetrics, Recommended, Run, read_run
from .templates import render

TEMPLATE = Path(__file__).with_name("model_card.md.j2")
FILL_IN = Markup("**to be filled in by you**")


@dataclass(frozen=True)
class Surroundings:
    """Contents of the files around a model in its study; None or empty where a file is missing.

    name: `<study>/<division>/<method>/round<r>`; `model` for a model outside a study.
    labeled, unlabeled: numbers of images of the split.
    """

    name: str = "model"
    method: str | None = None
    settings: ModelSettings | None = None
    metrics: BestMetrics | None = None
    run: Run | None = None
    rows: Sequence[Row] = ()
    labeled: int | None = None
    unlabeled: int | None = None


def surroundings(model: Path) -> Surroundings:
    """Read the files beside `model.pt`, and those of its study in the folders above.

    Of the model that a study recommends, the files are those beside the model that was copied.
    Raises DataError if one of these files is damaged.
    """
    folder = model.resolve().parent
    recommendation = folder / RECOMMENDATION
    if recommendation.is_file():
        origin = read_json(recommendation, Recommended)["model"]
        folder /= require_relative(origin, recommendation)
    # A model is in <division>/supervised, <division>/<method>/round<r>, or, with several chains of
    # rounds, in <division>/<method>/<chain>/round<r>.
    chain = folder.parent if re.fullmatch(r"round[1-9]\d*", folder.name) else folder
    study = next((one for one in chain.parents[1:3] if (one / "dataset.csv").is_file()), None)
    division, *method = chain.relative_to(study).parts if study else ("", chain.name)
    counts = {}
    for kind in ("labeled", "unlabeled"):
        listing = study / f"splits/{division}.{kind}.txt" if study else None
        counts[kind] = len(read_ids(listing)) if listing and listing.is_file() else None
    settings, metrics = folder / "settings.json", folder / "metrics.json"
    return Surroundings(
        name=folder.relative_to(study.parent).as_posix() if study else "model",
        method="/".join(method),
        settings=_settings(settings) if settings.is_file() else None,
        metrics=read_json(metrics, BestMetrics) if metrics.is_file() else None,
        run=read_run(folder / "run.json"),
        rows=list(read_index(study / "dataset.csv").values()) if study else (),
        **counts,
    )


def _settings(path: Path) -> ModelSettings:
    with explained(path, "the settings of a model", "move it away"):
        return ModelSettings.model_validate(read_json(path))


def card(
    network: NetworkSettings,
    classes: Mapping[str, str],
    window: tuple[int, int] | None,
    record: Mapping[str, Any],
    digest: str,
    around: Surroundings,
    files: Mapping[str, str],
    bands: Sequence[int | str] | None = None,
) -> str:
    """Return the model card as Markdown.

    network, classes, window, record, bands: from the model file; digest: its SHA-256; files: {name
    of an exported file: how far it agrees with PyTorch}.
    """
    sizes = Counter((row.height, row.width) for row in around.rows)
    usual_size, of_usual_size = sizes.most_common(1)[0] if sizes else (None, 0)
    return render(
        TEMPLATE,
        {"figure": _figure, "rule": _rule, "licence": _licence},
        around=around,
        classes=classes,
        digest=digest,
        files=files,
        fill_in=FILL_IN,
        head=network.chosen_head.model_dump(mode="json"),
        images=Counter(row.subset for row in around.rows),
        network=network,
        of_usual_size=of_usual_size,
        record=record,
        smallest=math.ceil((network.output_stride + 1) / network.input_scale),
        subsets=around.metrics["best"]["subsets"] if around.metrics else {},
        usual_size=usual_size,
        window=window,
        bands=bands,
    )


def _figure(percent: float | None) -> str:
    return "" if percent is None else f"{percent:.2f}"


def _rule(rule: SplitRule) -> str:
    given = rule.model_dump(exclude_none=True, exclude={"fold_length"})
    ((key, value),) = given.items()
    return {
        "files": "lists of ids",
        "count": f"{value} labeled images",
        "divide": f"one training image in {value} labeled",
        "all": "every training image that has a mask is labeled",
        "folds": f"every training image that has a mask is labeled, and in one of {value} folds",
    }[key]


def _licence(weights: str | None) -> str:
    if not weights:
        return "none, random."
    if not weights.startswith("package:"):
        name = escape.markdown(Path(weights).name)
        return Markup(f"`{name}`, a file of your own; its licence: {FILL_IN}.")
    package = weights.removeprefix("package:").partition("/")[0]
    where, licence = f"of the package `{escape.markdown(package)}`", None
    try:
        about: Any = metadata(package)
        licence = about.get("License-Expression") or about.get("License")
    except (PackageNotFoundError, ValueError):  # no name of a package
        pass
    if not licence or licence == "UNKNOWN":
        return Markup(f"{where}, which states no licence: {FILL_IN}.")
    return Markup(f"{where}: {escape.markdown(licence.splitlines()[0])}.")
