"""Training as a person writes it."""

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from .base import (
    ClassName,
    NonNegative,
    Positive,
    PositiveInterval,
    Settings,
    Size,
    each_increasing,
)


class AugmentationSettings(Settings):
    """Random changes of a training sample, drawn anew at each use."""

    added: ClassVar = ("size",)

    scale: PositiveInterval = Field(default=(0.5, 1.5), description="range of the random resize")
    size: Annotated[tuple[Size, Size], AfterValidator(each_increasing)] | None = Field(
        default=None,
        description="instead of `scale`: smallest and largest [height, width] in the network's "
        "pixels, each side drawn for itself, so that the aspect ratio is lost (Table 6, the "
        "released code)",
    )
    rotation: Annotated[float, Field(ge=0, le=180)] = Field(
        default=0.0, description="largest angle, degrees"
    )
    flip: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.5, description="probability of a horizontal flip"
    )
    brightness: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="factor within 1 ± this"
    )
    contrast: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="factor within 1 ± this"
    )
    saturation: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0, description="factor within 1 ± this"
    )
    hue: Annotated[float, Field(ge=0, le=0.5)] = Field(
        default=0.0, description="shift within ± this, turns of the colour circle"
    )
    noise: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0,
        description="largest standard deviation of Gaussian noise; 1 is white minus black",
    )


class Optimization(Settings):
    """What training and its stage share."""

    batch: Positive = Field(
        default=8, description="images a step; half of them pseudo-labeled in self-training"
    )
    crop: tuple[Positive, Positive] = Field(
        default=(321, 321), description="height and width of a training sample"
    )
    learning_rate: Annotated[float, Field(gt=0)] = Field(
        default=2e-3, description="at the first step"
    )
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.9, description="of SGD")
    weight_decay: NonNegative = Field(default=5e-4, description="of SGD, on every parameter")
    power: NonNegative = Field(
        default=0.9, description="learning rate times (1 - step/steps)^power"
    )
    gamma: NonNegative = Field(
        default=9.0,
        description="exponent of the dynamic weight, equation (2); 0 is plain cross-entropy",
    )
    clip: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="largest norm of the gradient; none: no limit"
    )
    warmup: Annotated[int, Field(ge=0)] = Field(
        default=0, description="steps over which the learning rate rises from 0"
    )
    backbone_rate: Annotated[float, Field(gt=0)] = Field(
        default=1.0, description="learning rate of the backbone, times that of the head"
    )
    freeze_norm: bool = Field(
        default=False, description="batch normalisation keeps its statistics and weights"
    )
    freeze_stages: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="this many feature stages of the backbone, from the input on, do not learn",
    )
    class_weights: Literal["none", "balanced"] | dict[ClassName, NonNegative] = Field(
        default="none",
        description="of the labeled loss: `balanced` by the classes' pixels, or class: weight "
        "(1 where not named)",
    )
    gpus: Positive = Field(
        default=1,
        description="processes that share each batch and both halves of it, one a GPU (without "
        "CUDA: on the CPU); the gradient stays that of the whole batch",
    )
    sync_norm: bool = Field(
        default=False,
        description="with several `gpus`, on CUDA: batch normalisation over the whole batch, not "
        "over each one's share",
    )
    augmentation: AugmentationSettings = AugmentationSettings()


class TrainSettings(Optimization):
    """Training as a person writes it."""

    epochs: (
        Annotated[float, Field(gt=0)]
        | Literal["formula"]
        | dict[str, Annotated[float, Field(gt=0)]]
    ) = Field(
        default=6.0,
        description="passes over the unlabeled images a round (supervised: over the labeled ones); "
        "`formula`: 30 sqrt(training images / labeled images), section 4.2; or one number a split",
    )
    steps: Positive | None = Field(default=None, description="steps instead of epochs")
    validate_every: Positive | dict[str, Positive] = Field(
        default=1000, description="steps; or one number per split"
    )
    seed: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="of all randomness in training; none: the split's seed"
    )
