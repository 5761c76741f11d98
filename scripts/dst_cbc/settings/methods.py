"""Methods: the switches of a row of workflow/methods.yaml."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, create_model, model_validator

from .base import Alpha, Name, Positive, Sampling, Settings
from .choices import Objective, SelfTraining
from .stages import Best
from .training import TrainSettings


def _partial(cls: type[Settings], name: str) -> type[Settings]:
    """`cls` with every key optional, for files that override some of them."""
    fields: dict[str, Any] = {}
    for key, field in cls.model_fields.items():
        annotation: Any = field.annotation
        for constraint in field.metadata:
            annotation = Annotated[annotation, constraint]
        fields[key] = (annotation | None, Field(default=None, description=field.description))
    return create_model(name, __base__=Settings, __doc__=f"Some keys of {cls.__name__}.", **fields)


TrainOverrides = _partial(TrainSettings, "TrainOverrides")


class MethodSwitches(Settings):
    """The switches of a method."""

    curriculum: tuple[Alpha, ...] = Field(
        default=(),
        description="share of the predicted pixels to label, one number a round (section 3.3)",
    )
    balance: Literal["class", "global"] = Field(
        default="class", description="one threshold per class, or one over all"
    )
    rule: Literal["threshold", "normalized"] = Field(
        default="threshold",
        description="label the winning class where it reaches its threshold (Algorithm 1), or the "
        "class whose probability is largest in proportion to its threshold (CBST, the released "
        "code)",
    )
    threshold_sampling: Sampling = Field(
        default=1,
        description="thresholds are ranks among all pixels (1), or as in the released code: among "
        "every 16th pixel of a flattened batch, and the pixel next to the share is kept, too",
    )
    labeling: Literal["offline", "online", "none"] = Field(
        default="offline",
        description="pseudo labels from the round before, or by the model in training, step by "
        "step, or no unlabeled images at all",
    )
    online_threshold: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0,
        description="with `labeling: online`: probability above which a pixel is labeled",
    )
    weighting: Literal["dynamic", "original"] = Field(
        default="dynamic",
        description="the weight of a pseudo label is the confidence of the model in training, "
        "equation (2), or of the model that labeled; ^gamma",
    )
    augment_pseudo: bool = Field(
        default=True,
        description="augment the pseudo-labeled images, or only resize them to `train.crop`",
    )
    teacher: Literal["self", "peer"] = Field(
        default="self",
        description="with `labeling: offline`: a chain of rounds labels for itself, or each of "
        "several `chains` for the next, the last for the first",
    )
    chains: dict[Name, TrainOverrides] = Field(
        default={},
        description="with `teacher: peer`: name of each chain, `<method>/<name>` in paths: the "
        "keys of `train` in which it differs, e.g. its `seed`",
    )
    start: Literal["continue", "restart"] = Field(
        default="continue",
        description="a round goes on with the weights of the round before, or starts from the "
        "initial ones",
    )
    best: Best = Field(
        default="carry",
        description="a round's model is the best of the chain so far, or the best of the round",
    )
    snapshots: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="so many times during a round, at equal distances, the weights are kept, in "
        "`snapshots/1.pt` and so on",
    )
    objective: Objective = Field(
        default=SelfTraining(), description="what a step of training minimises, by its `name`"
    )
    round_length: Positive = Field(
        default=1, description="a round lasts this many times `train`'s epochs or steps"
    )
    match: Name | None = Field(
        default=None,
        description="with `labeling: none`: as many steps as round 0 and all rounds of this method",
    )

    @model_validator(mode="after")
    def _consistent(self) -> MethodSwitches:
        if self.labeling == "offline" and not self.curriculum:
            raise ValueError("curriculum: empty; labeling `offline` needs one alpha a round")
        if self.labeling == "none" and (self.curriculum or self.match is None):
            raise ValueError("labeling `none` needs `match`, and no curriculum")
        rounds = ("start", "best", "snapshots", "objective")
        changed = [
            key for key in rounds if getattr(self, key) != type(self).model_fields[key].default
        ]
        if self.labeling == "none" and changed:
            raise ValueError(f"{changed[0]}: labeling `none` has no rounds that it could change")
        if self.labeling == "online" and self.curriculum:
            raise ValueError("curriculum: labeling `online` has one round and no thresholds")
        if (self.teacher == "peer") != (len(self.chains) > 1):
            raise ValueError(
                f"chains: found {len(self.chains)} with teacher `{self.teacher}`; expected two or "
                "more with `peer`, else none"
            )
        if self.teacher == "peer" and self.labeling != "offline":
            raise ValueError("teacher `peer` needs labeling `offline`")
        if self.objective.reads and self.labeling != "offline":
            raise ValueError(
                f"objective `{self.objective.name}` reads {', '.join(self.objective.reads)} of the "
                "labels, and so needs labeling `offline`"
            )
        if self.labeling != "online" and self.online_threshold:
            raise ValueError("online_threshold: only for labeling `online`")
        of_files = (self.weighting, self.rule, self.threshold_sampling)
        if self.labeling != "offline" and of_files != ("dynamic", "threshold", 1):
            raise ValueError(
                "weighting, rule, threshold_sampling: others than the default need labeling "
                "`offline`"
            )
        return self


SwitchOverrides = _partial(MethodSwitches, "SwitchOverrides")


class MethodRow(MethodSwitches, TrainOverrides):
    """A row of workflow/methods.yaml: switches, and keys of `train` that the method fixes."""
