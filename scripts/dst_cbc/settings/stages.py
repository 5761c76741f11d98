"""Settings of each stage of the workflow: exactly what its results depend on.

The canonical JSON of these classes is the stage's parameter in Snakemake, so a changed setting
reruns exactly the stages that use it. No class here holds what leaves results unchanged: device,
workers, how often a stage saves.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from .base import Alpha, BatchSize, Positive, Sampling, Settings, Size
from .choices import Objective, SelfTraining
from .data import DatasetStage, SplitStage
from .network import NetworkSettings
from .training import Optimization

PART_IMAGES = 256
"""Number of unlabeled images in one part of a prediction.

A killed prediction repeats at most one part, and each shard consists of whole parts. No batch
crosses the end of a part, so this number changes the last bits of results.
"""

Subset = Literal["train", "val", "test"]
Selection = Literal["val", "valtiny", "last"]
Selected = Literal[Selection, "folds"]
"""How the model of a training is chosen; `folds`: the step that results of the folds say."""
Candidates = Literal["validations", "ends"]
Best = Literal["carry", "restart"]
Resampling = Literal["warp", "torch"]
PadColour = Literal["mean", "black"]
MaskSize = Literal["resized", "own"]


class Compute(Settings):
    """How images are resized and how a network computes: all that changes bits of its output."""

    added: ClassVar[tuple[str, ...]] = ("resampling",)

    compute_threads: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=1,
        description="CPU threads of each process that runs a network; not taken from --cores, "
        "because the last bits of results depend on it",
    )
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32",
        description="number format in which the network computes; upsampling and losses are always "
        "float32",
    )
    channels_last: bool = Field(
        default=False,
        description="keep images and weights in PyTorch's memory format `channels_last`; it may be "
        "faster",
    )
    deterministic: bool = Field(
        default=False,
        description="on CUDA: use only deterministic algorithms, so that a repeated run gives the "
        "same bytes",
    )
    resampling: Resampling = Field(
        default="warp",
        description="how images and masks are resized, cropped and mirrored. `warp`: all at once, "
        "bilinear; masks and labels take the pixel whose centre is nearest. `torch`: one after the "
        "other, in float32, by PyTorch's `interpolate`: images `bilinear` without antialiasing, "
        "masks and labels `nearest`, which rounds positions down; a crop starts at a whole pixel "
        "(the released code). `torch` needs `train.augmentation.size`",
    )


class Inference(Compute):
    """How a model runs over whole images: resized to `size`, then padded to `pad`.

    pad_colour: `mean`, the mean colour, or `black`, before normalisation. masks: `resized` and
    padded like the images, or `own`: at their own size, to which the logits are upsampled.
    """

    added: ClassVar = (*Compute.added, "size", "pad", "pad_colour", "masks")

    batch: BatchSize
    tile: Annotated[int, Field(ge=64)]
    size: Size | None = None
    pad: Size | None = None
    pad_colour: PadColour = "mean"
    masks: MaskSize = "resized"


class PredictStage(Inference):
    """Prediction of the unlabeled images. sampling: 1 counts all pixels, 16 every 16th."""

    added: ClassVar = (*Inference.added, "sampling")

    algorithm: Literal[2] = 2
    sampling: Sampling = 1


class NormalizedPass(Inference):
    """The pass over the unlabeled images that labels them by the rule `normalized`."""

    algorithm: Literal[2] = 2


class LabelStage(DatasetStage):
    """Pseudo labels of one round. inference: None where the predictions suffice.

    resampling: how masks are resized to the pseudo labels, to compare them.
    """

    added: ClassVar = (*DatasetStage.added, "inference", "resampling")

    inference: NormalizedPass | None = None
    resampling: Resampling = "warp"


class ThresholdStage(Settings):
    """Thresholds of one round; they keep the share `alpha` of pixels (Algorithm 1, lines 9-12).

    algorithm: 2 for rule `normalized`, and where images are predicted at `prediction.size`.
    """

    added: ClassVar = ("sampling",)

    algorithm: Literal[1, 2] = 1
    alpha: Alpha
    balance: Literal["class", "global"]
    rule: Literal["threshold", "normalized"] = "threshold"
    sampling: Sampling = 1

    @property
    def needs_pass(self) -> bool:
        """Whether labels need the probabilities of all classes, which no predictions.h5 holds."""
        return self.rule == "normalized"


class EvaluateStage(Inference):
    """Evaluation of a model on the subsets of `report`.

    held_out: in a fold, the ids of its images, which then are the subset `val`.
    """

    added: ClassVar = (*Inference.added, "held_out")

    algorithm: Literal[1] = 1
    dataset: DatasetStage
    report: tuple[Subset, ...]
    held_out: tuple[str, ...] = ()


class TrainStage(Optimization, Compute):
    """One training, with all values final: epochs are steps, one seed, one value per split.

    algorithm: 3 where `network.input_scale` is not 1. validate_at: steps after which the model is
    validated. valtiny: ids of val that select the model, empty unless `select` is `valtiny`. best:
    `carry`, model.pt is the best model of the chain so far; `restart`, the best of this training.
    snapshots: how often the weights are kept, at equal distances, the last time at the end.
    patience: after so many rounds without a better model, a round only copies the model. held_out:
    in a fold, the ids of its images, on which models are validated. candidates: `ends`, only the
    model of the last step can become the chain's.
    """

    added: ClassVar = (
        *Compute.added, "valtiny", "gpus", "sync_norm", "objective", "best", "snapshots",
        "short_batches", "patience", "held_out", "candidates",
    )  # fmt: skip

    algorithm: Literal[2, 3] = 2
    steps: Positive
    validate_at: tuple[Positive, ...] = Field(min_length=1)
    seed: int
    round: Annotated[int, Field(ge=0)]
    select: Selected
    candidates: Candidates = "validations"
    valtiny: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    validation: Inference
    weighting: Literal["dynamic", "original"] = "dynamic"
    augment_pseudo: bool = True
    online_threshold: float | None = None
    """Probability above which the model in training labels a pixel; None: it labels nothing."""
    objective: Objective = SelfTraining()
    best: Best = "carry"
    snapshots: Annotated[int, Field(ge=0, le=1000)] = 0
    patience: Positive | None = None

    @property
    def reads(self) -> set[str]:
        """Which of `predictions`, `thresholds` and `labeling-model` this training reads."""
        return {*self.objective.reads, *(["predictions"] if self.weighting == "original" else [])}


class ModelSettings(Settings):
    """Everything that one model depends on except the data; settings.json in the model's folder.

    network: the network to initialize; None: training continues with the model of the round before.
    start_from: model.pt with the initial weights; None: `network.weights`. labels_from: path below
    the split's folder of the predictions that become the pseudo labels; None: predictions.h5 of the
    round before, or no label files at all.
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
