"""Settings of what an experiment selects by name: the network's head and the training objective.

This module holds the settings class of each choice. Its code is in the module of the same name:
`heads/<name>.py` has a class `Head`, `training/objectives/<name>.py` a class `Objective`. The
workflow imports this module before any job runs, so it must not import torch.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from .base import Settings, one_of

Rates = Annotated[
    tuple[Annotated[int, Field(ge=1, le=1000)], ...], Field(min_length=1, max_length=64)
]


Start = Literal["normal", "torch"]


class DeepLabV2(Settings):
    """Sum of dilated 3x3 convolutions of the backbone's last feature map (paper, section 4.2)."""

    added: ClassVar = ("init",)

    name: Literal["deeplabv2"] = Field(
        default="deeplabv2", description="selects the head; its other keys depend on it"
    )
    rates: Rates = Field(
        default=(6, 12, 18, 24),
        description="dilation rates: one 3x3 convolution for each",
    )
    init: Start = Field(
        default="normal",
        description="random weights of a new head. `normal`: normal distribution of deviation "
        "0.01, bias 0 (DeepLab). `torch`: PyTorch's default, uniform within 1/sqrt(n) of 0 for "
        "weights and bias, where n is 9 times the number of features (the released code)",
    )


HEADS = (DeepLabV2,)
Head = one_of(HEADS)


class ObjectiveSettings(Settings):
    """Base class of the settings of all objectives."""

    reads: ClassVar[tuple[str, ...]] = ()
    """Which of `predictions`, `thresholds` and `labeling-model` a training with it reads."""
    trained_passes: ClassVar[int] = 1
    """How often a step passes each crop of the batch through a network that learns from it."""
    labeling_passes: ClassVar[int] = 0
    """How often a step also passes each unlabeled crop through a network without a gradient."""


class SelfTraining(ObjectiveSettings):
    """The paper's loss, equations (1) and (2), as the switches of a method change it."""

    name: Literal["self_training"] = Field(
        default="self_training", description="selects the objective; its other keys depend on it"
    )


OBJECTIVES = (SelfTraining,)
Objective = one_of(OBJECTIVES)
