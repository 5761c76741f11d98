"""The keys of `train` in an experiment file."""

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from .base import (
    BatchSize,
    ClassName,
    FactorInterval,
    NonNegative,
    Positive,
    Settings,
    Size,
    each_increasing,
)


class AugmentationSettings(Settings):
    """Random changes of a training image, drawn anew each time that it is used."""

    added: ClassVar = ("size",)

    scale: FactorInterval = Field(
        default=(0.5, 1.5), description="smallest and largest factor of the random resize"
    )
    size: Annotated[tuple[Size, Size], AfterValidator(each_increasing)] | None = Field(
        default=None,
        description="replaces `scale`: smallest and largest [height, width] of the randomly "
        "resized image as the network sees it. Both sides are drawn independently, so the aspect "
        "ratio changes (paper, Table 6, and the released code)",
    )
    rotation: Annotated[float, Field(ge=0, le=180)] = Field(
        default=0.0, description="largest random rotation to either side, in degrees"
    )
    flip: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.5, description="probability of a horizontal flip"
    )
    brightness: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="brightness is multiplied by a random factor within 1 ± this"
    )
    contrast: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="contrast is multiplied by a random factor within 1 ± this"
    )
    saturation: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0, description="saturation is multiplied by a random factor within 1 ± this"
    )
    hue: Annotated[float, Field(ge=0, le=0.5)] = Field(
        default=0.0,
        description="hue is shifted by a random amount within ± this; 1 is once around the colour "
        "circle",
    )
    noise: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0,
        description="largest standard deviation of the Gaussian noise that is added; 1 is the "
        "difference between white and black",
    )


class Optimization(Settings):
    """The keys of `train` that a training stage uses as they are."""

    batch: BatchSize = Field(
        default=8, description="images per step; in self-training half of them are pseudo-labeled"
    )
    crop: Size = Field(
        default=(321, 321),
        description="[height, width] of the crop of each image that the network trains on",
    )
    learning_rate: Annotated[float, Field(gt=0)] = Field(
        default=2e-3,
        description="learning rate of SGD at the first step; it falls to 0 as `power` says",
    )
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.9, description="momentum of SGD"
    )
    weight_decay: NonNegative = Field(
        default=5e-4, description="weight decay of SGD, applied to every trained parameter"
    )
    power: NonNegative = Field(
        default=0.9,
        description="exponent of the schedule: the learning rate of a step is `learning_rate` "
        "times (1 - step/steps)^power",
    )
    gamma: NonNegative = Field(
        default=9.0,
        description="exponent of the dynamic weight, equation (2): the loss of a pseudo-labeled "
        "pixel is multiplied by confidence^gamma; 0: all pixels weigh the same",
    )
    clip: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="largest norm of the gradient; larger ones are scaled down; `null`: no limit",
    )
    warmup: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="number of first steps over which the learning rate rises linearly from 0",
    )
    backbone_rate: Annotated[float, Field(gt=0)] = Field(
        default=1.0,
        description="factor on the learning rate of the backbone; the head learns at the full rate",
    )
    freeze_norm: bool = Field(
        default=False,
        description="keep statistics and parameters of batch normalisation unchanged in training",
    )
    freeze_stages: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="number of feature stages of the backbone, counted from the input, that are "
        "not trained",
    )
    short_batches: bool = Field(
        default=False,
        description="`false`: every batch is full; one that begins at the end of a pass over its "
        "images goes on with the next pass. `true`: the last batch of a pass holds the images that "
        "are left, and an epoch has the number of images divided by `batch`, rounded up (the "
        "released code)",
    )
    class_weights: Literal["none", "balanced"] | dict[ClassName, NonNegative] = Field(
        default="none",
        description="class weights in the loss of the labeled pixels: `none`; `balanced`, "
        "inversely proportional to the number of labeled pixels of the class; or a number for "
        "each named class, and 1 for the others",
    )
    gpus: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=1,
        description="number of processes that share one training, one per GPU (without CUDA all on "
        "the CPU). It must divide the batch and, in self-training, each half of it; the gradient "
        "is that of the whole batch",
    )
    sync_norm: bool = Field(
        default=False,
        description="with several `gpus`, on CUDA only: batch normalisation uses the statistics of "
        "the whole batch, not of each process's share of it",
    )
    augmentation: AugmentationSettings = AugmentationSettings()


class TrainSettings(Optimization):
    """Settings of every training; `by_split`, `supervised` and a method's row override them."""

    epochs: (
        Annotated[float, Field(gt=0)]
        | Literal["formula"]
        | dict[str, Annotated[float, Field(gt=0)]]
    ) = Field(
        default=6.0,
        description="length of a round in passes over the unlabeled images (in round 0: over the "
        "labeled images). A number, one number for each split, or `formula`: 30 sqrt(training "
        "images / labeled images), section 4.2",
    )
    steps: Positive | None = Field(
        default=None,
        description="length of a round in steps; replaces `epochs`; `null`: use `epochs`",
    )
    validate_every: Positive | dict[str, Positive] = Field(
        default=1000,
        description="steps between two validations, or one such number for each split; the last "
        "step is always validated, unless `validate_early` is set",
    )
    validate_early: bool = Field(
        default=False,
        description="validate one step before each multiple of `validate_every` and one step "
        "before the end, as the released code does. The last step is then validated only for "
        "`select: last`; `last.pt` is the model after it all the same",
    )
    seed: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="seed of everything random in training; `null`: the seed of the split",
    )
