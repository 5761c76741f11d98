"""What one stage of the workflow depends on, no more.

Its canonical JSON is the stage's parameter in Snakemake, so that a changed setting reruns exactly
the stages that use it. How a stage runs (device, workers, how often it saves) is part of no stage
class.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from .base import Alpha, Positive, Sampling, Settings, Size
from .choices import Objective, SelfTraining
from .data import DatasetStage, SplitStage
from .network import NetworkSettings
from .training import Optimization

PART_IMAGES = 256
"""Images of one part of a pass over the unlabeled ones: what a killed pass loses at most, and what
shards are made of. It ends a batch, and so touches last bits."""

Subset = Literal["train", "val", "test"]
Selection = Literal["val", "valtiny", "last"]
Best = Literal["carry", "restart"]


class Compute(Settings):
    """What changes the last bits of every network's arithmetic."""

    compute_threads: Positive = Field(
        default=1, description="CPU threads of a stage with a network; never taken from --cores"
    )
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32", description="of the network's pass; losses stay float32"
    )
    channels_last: bool = Field(default=False, description="memory layout of images and weights")
    deterministic: bool = Field(
        default=False, description="on CUDA: only algorithms that give the same bytes each time"
    )


class Inference(Compute):
    """A pass of a model over whole images: resized to `size`, then padded to `pad`."""

    added: ClassVar = ("size", "pad")

    batch: Positive
    tile: Annotated[int, Field(ge=64)]
    size: Size | None = None
    pad: Size | None = None


class PredictStage(Inference):
    """One pass of a model over the unlabeled images. sampling: every so many pixels are counted."""

    added: ClassVar = (*Inference.added, "sampling")

    algorithm: Literal[2] = 2
    sampling: Sampling = 1


class ThresholdStage(Settings):
    """One round's share of pixels (Algorithm 1, lines 9 to 12)."""

    added: ClassVar = ("sampling",)

    algorithm: Literal[1] = 1
    alpha: Alpha
    balance: Literal["class", "global"]
    rule: Literal["threshold", "normalized"] = "threshold"
    sampling: Sampling = 1

    @property
    def needs_pass(self) -> bool:
        """Whether labels need the probabilities of all classes, which predictions do not hold."""
        return self.rule == "normalized"


class EvaluateStage(Inference):
    """The subsets that a model is reported on."""

    algorithm: Literal[1] = 1
    dataset: DatasetStage
    report: tuple[Subset, ...]


class TrainStage(Optimization, Compute):
    """One training, resolved: nothing left to compute.

    valtiny: ids, where `select` is that. best: whether the best model of the chain so far must be
    beaten, or the best of this training counts. snapshots: so many times, at equal distances, the
    weights are kept, the last time at the end.
    """

    added: ClassVar = ("valtiny", "gpus", "sync_norm", "objective", "best", "snapshots")

    algorithm: Literal[2] = 2
    steps: Positive
    validate_at: tuple[Positive, ...] = Field(min_length=1)
    seed: int
    round: Annotated[int, Field(ge=0)]
    select: Selection
    valtiny: tuple[str, ...] = ()
    validation: Inference
    weighting: Literal["dynamic", "original"] = "dynamic"
    augment_pseudo: bool = True
    online_threshold: float | None = None
    """None: pseudo labels come from files."""
    objective: Objective = SelfTraining()
    best: Best = "carry"
    snapshots: Annotated[int, Field(ge=0)] = 0

    @property
    def reads(self) -> set[str]:
        """Of `predictions`, `thresholds`, `labeling-model`: what it reads of the labels' making."""
        return {*self.objective.reads, *(["predictions"] if self.weighting == "original" else [])}


class ModelSettings(Settings):
    """All that one model depends on beside its data; `settings.json` of its folder.

    network: of initial weights; None: the weights go on from those of the round before.
    labels_from: the predictions that its labels are made of, a path below the split's folder; None:
    `predictions.h5` of the round before, or no files of labels at all.
    """

    added: ClassVar = ("start_from", "labels_from")

    dataset: DatasetStage
    split: SplitStage
    network: NetworkSettings | None = None
    start_from: str | None = None
    train: TrainStage
    predict: PredictStage | None = None
    thresholds: ThresholdStage | None = None
    labels_from: str | None = None
