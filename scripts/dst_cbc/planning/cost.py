"""Estimate time, disk and memory of an experiment before it starts, from its schedule.

Time and memory follow from a few training steps and images of the experiment, measured here. Disk
is computed: a prediction takes at most 3 bytes per pixel, and the sizes of models and labels are
known.
"""

import math
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from ..data.images import size_of
from ..data.index import Row
from ..data.layouts.layout import Record
from ..data.pages import sha256_of
from ..data.records import selecting
from ..runtime import devices
from ..runtime.errors import DataError
from ..runtime.files import digest, write_json
from ..runtime.reading import read_json
from ..settings.stages import ModelSettings
from .models import PlannedModel
from .plan import Plan

STEPS, WARM_UP, IMAGES = 20, 3, 8
SECONDS = 4.0
"""A measurement takes as many steps as fit into this time: at least WARM_UP, at most STEPS."""
JOB_SECONDS = 5.0
"""Seconds until a job computes: start of Python and torch, and Snakemake's own work."""
LABEL_BYTES = 0.1
"""Bytes per pixel of a pseudo label as PNG; street scenes take less."""
READ_SECONDS = 0.2
"""Seconds in which a stage without a network reads, checks or writes one large image."""
HOST_MEMORY = 4 * 10**9
"""Bytes of main memory of a stage that uses a GPU, and of a stage without a network."""
WORKER_MEMORY = 10**9
"""Bytes of main memory of a process that loads images."""
SLACK = 2
"""Jobs ask a cluster for this many times the estimate: other nodes and disks may be slower."""
LEAST_MINUTES = 15
"""Shortest time limit of a job on a cluster; its stage must start before the limit ends it."""


@dataclass(frozen=True)
class Measured:
    """Seconds per training step and per evaluated image, bytes of memory and of a model file."""

    device: str
    step: float
    image: float
    memory: int
    model: int


GUESS = Measured("", step=1.0, image=0.5, memory=2 * HOST_MEMORY, model=0)
"""Used before a measurement; a ResNet-101 on 321x321 crops on a GPU takes less than half."""


@dataclass(frozen=True)
class Schedule:
    """The work that is left for the unfinished models of a plan.

    Numbers of trainings and their steps, of validated images, of predictions and their images, of
    evaluated images; bytes of predictions and of pseudo labels.
    """

    trainings: int
    steps: int
    validated: int
    predictions: int
    predicted: int
    evaluated: int
    prediction_bytes: int
    label_bytes: int

    @property
    def images(self) -> int:
        """Number of images that pass through a network outside training."""
        return self.validated + self.predicted + self.evaluated


def schedule(
    plan: Plan, records: Sequence[Record], study: Path, in_folds: bool | None = None
) -> Schedule:
    """The unfinished work of a plan. records: all its images; study: folder of its results.

    in_folds: whether only models of folds count, or only all others; None: both.
    """
    subsets = {s: sum(r.subset == s for r in records) for s in ("train", "val", "test")}
    pixels = _pixels(plan, records)
    todo = [
        model
        for model in plan.models.values()
        if in_folds in (None, model.fold is not None)
        and not (study / model.path / "model.pt").exists()
    ]
    labeling = {m.labeling("predictions", ".h5"): m.labeled_by for m in todo if m.labeled_by}
    predict = [model for path, model in labeling.items() if not (study / path).exists()]
    unlabeled = [len(plan.splits[model.division].unlabeled) for model in predict]
    kept = [
        images
        for model, images in zip(predict, unlabeled, strict=True)
        if plan.experiment.keep_predictions == "all" or not model.previous
    ]
    # While its parts are joined, a prediction is on disk twice.
    most = max(unlabeled, default=0)
    return Schedule(
        trainings=len(todo),
        steps=sum(model.settings.train.steps for model in todo),
        validated=sum(_validated(model, records) for model in todo),
        predictions=len(predict),
        predicted=sum(unlabeled),
        evaluated=2 * sum(evaluated_images(plan, model.division, subsets) for model in todo),
        prediction_bytes=round(3 * pixels * (sum(kept) + most)),
        label_bytes=round(LABEL_BYTES * pixels * sum(len(_unlabeled(plan, m)) for m in todo)),
    )


def evaluated_images(plan: Plan, division: str, subsets: Mapping[str, int]) -> int:
    """Number of images on which a model of a split is evaluated. subsets: images in each subset."""
    stage = plan.evaluate_in(division)
    return len(stage.held_out) or sum(subsets[subset] for subset in stage.report)


def steps(plan: Plan) -> list[str]:
    """A table, as lines of text: the steps and validations of each training of a plan.

    A row is one method on one split; seeds with equal numbers share it. Finished trainings count.
    """
    chains: dict[tuple[str, str], list[PlannedModel]] = {}
    for model in plan.models.values():
        chains.setdefault((model.division, model.method), []).append(model)
    rows: Counter[tuple[str, ...]] = Counter()
    total = 0
    for (division, method), models in chains.items():
        split, stages = plan.splits[division], [model.settings.train for model in models]
        name = split.name if split.select == "val" else f"{split.name}, by {split.select}"
        if split.stage.fold:
            name = f"{split.name}, fold {split.stage.fold}"
        in_chain = sum(stage.steps for stage in stages)
        total += in_chain
        row = (name, len(split.labeled), len(split.unlabeled), method, len(models))
        row += (_each(stage.steps for stage in stages),)
        row += (_each(len(stage.validate_at) for stage in stages), in_chain)
        rows[tuple(map(str, row))] += 1
    table = [_STEPS_HEADER, *((*row, str(seeds)) for row, seeds in rows.items())]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table]
    return [*lines, f"{total} steps in all trainings of all seeds"]


_STEPS_HEADER = (
    "split", "labeled", "unlabeled", "method", "trainings", "steps of each", "validations of each",
    "steps in all", "seeds",
)  # fmt: skip


def _each(numbers: Iterable[int]) -> str:
    """The number that all are equal to, else all of them."""
    found = list(numbers)
    return ", ".join(map(str, found if len(set(found)) > 1 else found[:1]))


def _validated(model: PlannedModel, records: Sequence[Record]) -> int:
    stage = model.settings.train
    return len(stage.validate_at) * len(selecting(records, stage))


def training_seconds(model: PlannedModel, records: Sequence[Record], known: Measured) -> float:
    """Seconds of one training, validation included. records: all images of the plan."""
    return known.step * model.settings.train.steps + known.image * _validated(model, records)


def minutes(seconds: float) -> int:
    """Time limit in minutes that a job with this estimate of seconds asks a cluster for."""
    return max(LEAST_MINUTES, math.ceil(SLACK * (seconds + JOB_SECONDS) / 60))


def megabytes(known: Measured, workers: int, attempt: int) -> int:
    """Main memory in MB that a stage asks a cluster for; each attempt adds half of the first.

    workers: processes that load images. attempt: number of the attempt, from 1.
    """
    own = known.memory
    if known.device.startswith("cuda"):
        own = HOST_MEMORY
    return math.ceil((SLACK * own + workers * WORKER_MEMORY) / 1e6 * (1 + attempt) / 2)


def _pixels(plan: Plan, records: Sequence[Record]) -> float:
    """Mean number of pixels of an image, over a sample of up to 20."""
    if plan.experiment.format == "digits":
        return plan.experiment.digits.size**2
    sizes = [row.height * row.width for row in _headers(plan, records, 20)]
    return sum(sizes) / len(sizes) if sizes else 0.0


def _unlabeled(plan: Plan, model: PlannedModel) -> Sequence[str]:
    return plan.splits[model.division].unlabeled if model.labeled_by else ()


def _headers(plan: Plan, records: Sequence[Record], most: int) -> list[Row]:
    """Rows with sizes of up to `most` readable images; pixels are not decoded, SHA-256 is empty.

    The sizes are those that `decode` gives, since images of equal size share a batch.
    """
    rows = []
    for record in records[:: max(1, len(records) // most)][:most]:
        with suppress(DataError):
            width, height = size_of(Path(plan.experiment.data, record.image))
            side = (height, width)
            rows.append(Row(record.id, record.image, record.label, *side, record.subset, "", ""))
    return rows


def _digested(plan: Plan, rows: Sequence[Row]) -> list[Row]:
    """The rows of images with masks, with the SHA-256 of their files, which the stages compare."""
    root = Path(plan.experiment.data)
    masks = plan.dataset.mask_root(root)
    return [
        replace(
            row,
            image_sha256=sha256_of(root / row.image),
            label_sha256=sha256_of(masks / row.label),
        )
        for row in rows
    ]


def remembered(plan: Plan, study: Path) -> Measured | None:
    """The measurement that `remember` stored for these settings, or None."""
    try:
        known = read_json(study / REMEMBERED, _Remembered)
    except (OSError, DataError):
        return None
    return Measured(**known["measured"]) if known["key"] == _key(plan) else None


_Seconds = Annotated[float, Field(ge=0, le=1e6)]
_Bytes = Annotated[int, Field(ge=0, le=1 << 50)]


class _Measured(TypedDict):
    device: str
    step: _Seconds
    image: _Seconds
    memory: _Bytes
    model: _Bytes


class _Remembered(TypedDict):
    key: str
    measured: _Measured


REMEMBERED = "cost.json"


def _baseline(plan: Plan) -> ModelSettings:
    return next(model.settings for model in plan.models.values() if not model.previous)


def _key(plan: Plan) -> str:
    """Digest of everything that a measurement depends on."""
    run = [plan.experiment.data, plan.experiment.device, str(plan.experiment.workers)]
    return digest([_baseline(plan).canonical(), *run])


def measure(plan: Plan, records: Sequence[Record], folder: Path) -> Measured | None:
    """Train a few steps of the first baseline and validate a few images, as the stages would.

    folder: where temporary files are written. Returns None if the images do not exist yet, as
    with scenes that the workflow has not drawn.
    """
    settings, root = _baseline(plan), Path(plan.experiment.data)
    masked = [record for record in records if record.label]
    train = [record for record in masked if record.subset == "train"]
    labeled = _digested(plan, _headers(plan, train, IMAGES))
    validation = _digested(plan, _headers(plan, selecting(masked, settings.train), IMAGES))
    if not (labeled and validation):
        return None
    devices.limit_threads(settings.train.compute_threads)
    import torch

    from ..inference import whole_images
    from ..models import segmentation
    from ..runtime.resume import resume_folder
    from ..training import loop, objectives, samples

    stage = settings.train
    device = devices.prepare(plan.experiment.device, stage)
    window = settings.dataset.window or (0, 65535)
    assert settings.network is not None
    classes, bands = settings.dataset.classes, settings.dataset.bands
    model = segmentation.build(settings.network, classes, window=window, bands=bands)
    data = samples.Data(root, settings.dataset, labeled, [], None, validation)

    def seconds_per_step(steps: int) -> float:
        """Mean of all steps but the first, which prepares what later ones use again."""
        few = stage.model_copy(update={"steps": steps, "validate_at": (), "warmup": 0})
        ended: list[float] = []
        with resume_folder(folder, str(steps)) as work:
            objective = objectives.make(model, data, few, device)
            loop.train(
                objective, None, data, few, device, work, None, plan.experiment.workers, 1e9,
                on_step=lambda _: ended.append(time.monotonic()),
            )  # fmt: skip
        return (ended[-1] - ended[0]) / (steps - 1)

    step = seconds_per_step(WARM_UP)
    if (steps := steps_in(SECONDS, step)) > WARM_UP:
        step = seconds_per_step(steps)
    started = time.monotonic()
    whole_images.evaluate(model, root, validation, settings.dataset, stage.validation, device)
    image = (time.monotonic() - started) / len(validation)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated()
    size = len(segmentation.model_bytes(model, model.network.state_dict(), {}))
    described = devices.describe(device.type)
    return Measured(described, step, image, peak, size)


def steps_in(seconds: float, step: float) -> int:
    """Number of steps to measure, WARM_UP to STEPS, if one takes `step` seconds."""
    return int(min(STEPS, max(WARM_UP, seconds / max(step, 1e-6))))


def remember(plan: Plan, study: Path, measured: Measured) -> None:
    """Store a measurement in cost.json of the study, where `remembered` finds it."""
    write_json(study / REMEMBERED, {"key": _key(plan), "measured": asdict(measured)})


def seconds(work: Schedule, measured: Measured) -> float:
    """Seconds that the work takes, one job after the other."""
    jobs = 2 * work.trainings + 3 * work.predictions
    return measured.step * work.steps + measured.image * work.images + JOB_SECONDS * jobs


def describe(
    work: Schedule, measured: Measured | None, jobs: int, free_disk: int, memory: int
) -> list[str]:
    """The estimate as lines of text, with a warning if disk or memory is too small.

    jobs: number of trainings that run at once. free_disk, memory: free bytes; memory 0: unknown.
    """
    if not work.trainings:
        return ["to do: no training"]
    lines = [
        f"to do: {work.trainings} trainings of {work.steps} steps in total, {work.predictions} "
        f"predictions of {work.predicted} images, {work.validated + work.evaluated} images "
        "validated and evaluated"
    ]
    disk = work.prediction_bytes + work.label_bytes
    if measured:
        # model.pt and last.pt; of each running job the saved weights, momentum and best weights.
        disk += measured.model * (2 * work.trainings + 3 * jobs)
        total = seconds(work, measured)
        lines.append(
            f"time: about {_hours(total)} in total, {_hours(total / jobs)} at best with {jobs} "
            f"jobs at once ({measured.step:.3f} s per step, {measured.image:.3f} s per image on "
            f"{measured.device})"
        )
        needed = measured.memory * jobs
        lines.append(f"memory: about {measured.memory / 1e9:.1f} GB per training, {jobs} at once")
        if memory and needed > memory:
            lines.append(
                f"WARNING: {needed / 1e9:.1f} GB of memory are needed and {memory / 1e9:.1f} GB "
                "are free: lower train.batch or train.crop, or run fewer jobs at once: --cores"
            )
    lines.append(
        f"disk: about {disk / 1e9:.1f} GB more, {work.prediction_bytes / 1e9:.1f} GB of it for "
        f"predictions; {free_disk / 1e9:.1f} GB are free"
    )
    if disk > free_disk:
        lines.append(
            f"WARNING: {disk / 1e9:.1f} GB of disk are needed and {free_disk / 1e9:.1f} GB are "
            "free: set keep_predictions: supervised, or delete files. A run that a full disk has "
            "stopped can be continued once there is space"
        )
    return lines


def _hours(seconds: float) -> str:
    hours, minutes = divmod(max(1, round(seconds / 60)), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
