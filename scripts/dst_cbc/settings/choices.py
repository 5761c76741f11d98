"""What an experiment chooses by name: the network's head, and what a step of training minimises.

The settings class of a choice stands here, and its code in the module of the same name:
`heads/<name>.py` has a class `Head`, `training/objectives/<name>.py` a class `Objective`. The
workflow reads this module before a job runs, and so without torch.
"""

from typing import ClassVar, Literal

from pydantic import Field

from .base import Positive, Settings, one_of


class DeepLabV2(Settings):
    """A sum of dilated 3x3 convolutions of the last features (paper, section 4.2)."""

    name: Literal["deeplabv2"] = "deeplabv2"
    rates: tuple[Positive, ...] = Field(
        default=(6, 12, 18, 24), min_length=1, description="dilations of the convolutions"
    )


HEADS = (DeepLabV2,)
Head = one_of(HEADS)


class ObjectiveSettings(Settings):
    """Base of the settings of all objectives."""

    reads: ClassVar[tuple[str, ...]] = ()
    """Of `predictions`, `thresholds` and `labeling-model`, those whose files its training reads."""


class SelfTraining(ObjectiveSettings):
    """The paper's loss, equations (1) and (2), and what the switches of a method make of it."""

    name: Literal["self_training"] = "self_training"


OBJECTIVES = (SelfTraining,)
Objective = one_of(OBJECTIVES)
