"""Reads what stands beside a model: metrics.json, run.json and settings.json, as reports need it.

Keys that no report reads may be missing, because earlier versions wrote other ones.
"""

from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from ..runtime.errors import DataError
from ..runtime.reading import read_json
from ..settings.data import Grouping, GroupPattern

CHECKPOINTS = ("best", "last")
RECOMMENDATION = "recommendation.json"
"""Says in a study's folder of which model the model.pt beside it is a copy."""

Percent = Annotated[float, Field(ge=0, le=100)]
"""In 0..100."""


class Figures(TypedDict):
    """Figures of a model on one subset, see `inference.metrics.report`."""

    images: Annotated[int, Field(ge=0)]
    miou: Percent | None
    pixel_accuracy: Percent | None
    classes: list[str]
    iou: dict[str, Percent | None]
    miou_interval: NotRequired[tuple[Percent | None, Percent | None]]


class Evaluated(TypedDict):
    """Figures of a model by subset."""

    subsets: dict[str, Figures]


class Checkpoint(Evaluated):
    """One of the two models of a training. round, step: in which its weights were reached."""

    round: Annotated[int, Field(ge=0)]
    step: NotRequired[Annotated[int, Field(ge=0)]]


class BestMetrics(TypedDict):
    """What metrics.json has for every model, also for one from elsewhere."""

    best: Evaluated


class Metrics(TypedDict):
    best: Checkpoint
    last: Checkpoint


class Run(TypedDict):
    """What may differ between two runs with the same result.

    stopped: why a round has trained nothing and copied its model.
    """

    commit: str | None
    device: str
    versions: dict[str, str]
    seconds: Annotated[float, Field(ge=0)]
    stopped: NotRequired[str]


class Recommended(TypedDict):
    """model: folder of the recommended model, below the study's folder."""

    model: str


class Train(TypedDict):
    steps: Annotated[int, Field(ge=0)]
    round: NotRequired[Annotated[int, Field(ge=0)]]


class Thresholds(TypedDict):
    alpha: Annotated[Decimal, Field(gt=0, le=1)]
    balance: Literal["class", "global"]


class Pairs(TypedDict):
    group: NotRequired[GroupPattern | None]


class Dataset(TypedDict):
    pairs: NotRequired[Pairs | None]
    grouping: NotRequired[Grouping | None]


class Settings(TypedDict):
    """The few settings of a training that reports read."""

    train: Train
    network: dict[str, Any] | None
    dataset: NotRequired[Dataset]
    thresholds: NotRequired[Thresholds | None]
    labels_from: NotRequired[str | None]


def read_metrics(path: Path, subsets: Iterable[str] = ()) -> Metrics | None:
    """Read metrics.json of a training; None if there is none.

    Raises DataError when it is damaged, or has no figures on one of `subsets`.
    """
    if not path.is_file():
        return None
    metrics = read_json(path, Metrics)
    for checkpoint in CHECKPOINTS:
        found = metrics[checkpoint]["subsets"]
        absent = [subset for subset in subsets if subset not in found]
        if absent:
            raise DataError(
                f"{path}: {checkpoint}: no figures on {absent[0]!r}; found {', '.join(found)}; "
                "delete the file to have the model evaluated again"
            )
    return metrics


def read_run(path: Path) -> Run | None:
    """Read run.json; None if there is none. Raises DataError when it is damaged."""
    return read_json(path, Run) if path.is_file() else None


def read_settings(path: Path) -> Settings:
    """Read settings.json. Raises DataError when it is damaged."""
    return read_json(path, Settings)


def grouping_of(settings: Settings) -> Grouping | None:
    """Return how the images of the data set are put into groups, as `DatasetStage.group`."""
    dataset = settings.get("dataset", {})
    return dataset.get("grouping") or (dataset.get("pairs") or {}).get("group")
