"""Settings of a method: the keys of a row of workflow/methods.yaml."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, create_model, model_validator

from .base import Alpha, Name, Positive, Sampling, Settings
from .choices import Objective, SelfTraining
from .stages import Best
from .training import TrainSettings

SUPERVISED = "supervised"
"""Round 0, which all methods on a split share: trained on its labeled images alone."""


def _partial(cls: type[Settings], name: str) -> type[Settings]:
    """A class with the keys of `cls`, all optional, for settings that override single keys."""
    fields: dict[str, Any] = {}
    for key, field in cls.model_fields.items():
        annotation: Any = field.annotation
        for constraint in field.metadata:
            annotation = Annotated[annotation, constraint]
        fields[key] = (annotation | None, Field(default=None, description=field.description))
    return create_model(
        name, __base__=Settings, __doc__=f"Keys of {cls.__name__}, all optional.", **fields
    )


TrainOverrides = _partial(TrainSettings, "TrainOverrides")


class MethodSwitches(Settings):
    """The switches of a method: how it labels unlabeled images, and how it trains on them."""

    curriculum: tuple[Alpha, ...] = Field(
        default=(),
        max_length=1000,
        description="share of the predicted pixels that become pseudo labels, one number for each "
        "round (section 3.3); the length of the list is the number of rounds",
    )
    balance: Literal["class", "global"] = Field(
        default="class",
        description="`class`: one threshold per class, so that each class keeps the same share of "
        "its pixels; `global`: one threshold for all classes together",
    )
    rule: Literal["threshold", "normalized"] = Field(
        default="threshold",
        description="`threshold`: a pixel gets its most probable class if the probability reaches "
        "the threshold of the class (Algorithm 1). `normalized`: it gets the class with the "
        "largest ratio of probability to threshold if that ratio is at least 1 (CBST, the "
        "released code)",
    )
    threshold_sampling: Sampling = Field(
        default=1,
        description="`1`: thresholds are computed from all pixels. `16`: from every 16th pixel of "
        "each flattened batch, and one pixel more than the share is kept, as in the released code",
    )
    labeling: Literal["offline", "online", "none"] = Field(
        default="offline",
        description="`offline`: before each round, a model of the round before predicts the "
        "unlabeled images, and their labels are written to files. `online`: the model in training "
        "labels them at every step. `none`: training uses no unlabeled images",
    )
    online_threshold: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0,
        description="with `labeling: online`: pixels with a probability above this are labeled",
    )
    weighting: Literal["dynamic", "original"] = Field(
        default="dynamic",
        description="whose confidence counts in the weight confidence^gamma of a pseudo-labeled "
        "pixel: that of the model in training (`dynamic`, equation (2)), or of the model that "
        "made the label (`original`)",
    )
    augment_pseudo: bool = Field(
        default=True,
        description="`true`: pseudo-labeled images are augmented as `train.augmentation` says; "
        "`false`: they are only resized to `train.crop`",
    )
    teacher: Literal["self", "peer"] = Field(
        default="self",
        description="with `labeling: offline`, which model makes the label files. `self`: the "
        "model of the round before. `peer`: each of several `chains` of rounds labels for the "
        "next one in the list, and the last one for the first",
    )
    chains: dict[Name, TrainOverrides] = Field(
        default={},
        description="with `teacher: peer`: two or more chains of rounds. For each its name, part "
        "of its folder `<method>/<name>`, and the keys of `train` in which it differs, e.g. `seed`",
    )
    start: Literal["continue", "restart"] = Field(
        default="continue",
        description="`continue`: a round starts with the weights of the round before; `restart`: "
        "with the initial weights of the network",
    )
    best: Best = Field(
        default="carry",
        description="`carry`: a round's model is the best one of its chain up to this round; "
        "`restart`: the best one of this round alone",
    )
    snapshots: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=0,
        description="how many times during a round the weights are saved, as `snapshots/1.pt`, "
        "`snapshots/2.pt`, …: after equal numbers of steps, the last time at the end",
    )
    patience: Positive | None = Field(
        default=None,
        description="a chain ends when this many rounds one after the other have brought no better "
        "model: later rounds train nothing, and their model is a copy. `null`: all rounds train",
    )
    objective: Objective = Field(
        default=SelfTraining(),
        description="the loss that training minimises, selected by its `name`",
    )
    round_length: Positive = Field(
        default=1,
        description="a round takes this many times `train.epochs` or `train.steps`",
    )
    match: Name | None = Field(
        default=None,
        description="with `labeling: none`: name of another method; the training has as many steps "
        "as round 0 and all rounds of that method together, or as many passes: see `match_by`",
    )
    match_by: Literal["steps", "passes"] = Field(
        default="steps",
        description="what the training has as much of as the method in `match`. `steps`: training "
        "steps. `passes`: pixels that pass through a network forward; a training step counts each "
        "pixel of its crops three times, a prediction each pixel of the unlabeled images once",
    )
    control: Literal["restart", "continue"] = Field(
        default="restart",
        description="with `labeling: none`: `restart`, all these steps are one training from the "
        "initial weights; `continue`, the steps of the rounds follow on round 0, which the method "
        "shares, and so cost less",
    )

    @model_validator(mode="after")
    def _consistent(self) -> MethodSwitches:
        if self.labeling == "offline" and not self.curriculum:
            raise ValueError("curriculum: empty; labeling `offline` needs one alpha per round")
        if self.labeling == "none" and (self.curriculum or self.match is None):
            raise ValueError("labeling `none` needs `match`, and takes no curriculum")
        for key in ("control", "match_by"):
            if self.labeling != "none" and getattr(self, key) != _default(self, key):
                raise ValueError(f"{key}: allowed only with labeling `none`; remove it")
        rounds = ("start", "best", "snapshots", "objective", "patience")
        changed = [key for key in rounds if getattr(self, key) != _default(self, key)]
        if self.labeling == "none" and changed:
            raise ValueError(
                f"{changed[0]}: not allowed with labeling `none`, which has no rounds; remove it"
            )
        if self.labeling == "online" and self.curriculum:
            raise ValueError(
                "curriculum: labeling `online` has one round and no thresholds; remove the key"
            )
        if (self.teacher == "peer") != (len(self.chains) > 1):
            raise ValueError(
                f"chains: found {len(self.chains)} with teacher `{self.teacher}`; `peer` needs two "
                "or more chains, `self` takes none"
            )
        if self.teacher == "peer" and self.labeling != "offline":
            raise ValueError("teacher `peer` needs labeling `offline`")
        if self.objective.reads and self.labeling != "offline":
            raise ValueError(
                f"objective `{self.objective.name}` reads {', '.join(self.objective.reads)}, which "
                "only labeling `offline` makes"
            )
        if self.patience and (self.best == "restart" or self.snapshots):
            raise ValueError(
                "patience: not allowed with best `restart`, where no model is carried on, and with "
                "snapshots, which a round that trains nothing does not have; remove one"
            )
        if self.labeling != "online" and self.online_threshold:
            raise ValueError("online_threshold: allowed only with labeling `online`")
        of_files = (self.weighting, self.rule, self.threshold_sampling)
        if self.labeling != "offline" and of_files != ("dynamic", "threshold", 1):
            raise ValueError(
                "weighting, rule, threshold_sampling: values other than the defaults need labeling "
                "`offline`"
            )
        return self


def _default(switches: MethodSwitches, key: str) -> Any:
    return type(switches).model_fields[key].default


SwitchOverrides = _partial(MethodSwitches, "SwitchOverrides")


class MethodRow(MethodSwitches, TrainOverrides):
    """A row of workflow/methods.yaml: switches, and keys of `train` that the method sets."""
