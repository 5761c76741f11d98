"""Every setting, typed once: what a person writes, and what each stage depends on.

`Experiment` is an experiment file. The `…Stage` classes are what one stage of the workflow
depends on, no more: their canonical JSON is the stage's parameter in Snakemake, so that a
changed setting reruns exactly the stages that use it. How a stage runs (device, workers, how
often it saves) is part of no stage class.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    create_model,
    model_serializer,
    model_validator,
)

from .base import (
    Alpha,
    ClassName,
    Colour,
    Interval,
    MaskValue,
    Name,
    NonNegative,
    Positive,
    PositiveInterval,
    Sampling,
    Settings,
    Size,
    StudyName,
    Window,
    each_increasing,
)
from .choices import DeepLabV2, Head, Objective, SelfTraining

IGNORED = 255
"""Label value of pixels without a class, in memory and in every label file that we write."""

PART_IMAGES = 256
"""Images of one part of a pass over the unlabeled ones: what a killed pass loses at most, and what
shards are made of. It ends a batch, and so touches last bits."""

Subset = Literal["train", "val", "test"]
Selection = Literal["val", "valtiny", "last"]
Best = Literal["carry", "restart"]
Format = Literal["camvid", "cityscapes", "digits", "folder", "pairs", "voc"]


def _one_group(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"no regular expression: {error}") from None
    if groups < 1:
        raise ValueError("expected a part in parentheses, which is the name of the group")
    return pattern


def _stays_below(folder: str) -> str:
    path = PurePosixPath(folder)
    if path.is_absolute() or ".." in path.parts or set(folder) & set("\\\0\n\r"):
        raise ValueError("expected a path below `data`, without `..`")
    return folder


FolderBelow = Annotated[str, AfterValidator(_stays_below)]
NamePattern = Annotated[str, Field(pattern=r"^[^/\\{}]*\{\}[^/\\{}]*$")]
GroupPattern = Annotated[str, AfterValidator(_one_group)]


# --------------------------------------------------------------------------- data and splits


class DrawSettings(Settings):
    """The scenes of handwriting that `format: digits` draws."""

    size: Annotated[int, Field(ge=32)] = Field(
        80, description="height and width of a scene, pixels"
    )
    train: Positive = Field(480, description="number of training scenes")
    val: Positive = Field(80, description="number of validation scenes")
    test: Positive = Field(120, description="number of test scenes")
    digits: tuple[Annotated[int, Field(ge=0, le=10)], Annotated[int, Field(ge=1, le=10)]] = Field(
        (5, 7), description="digits a scene, all different"
    )
    digit_size: PositiveInterval = Field(
        (22.0, 28.0), description="height of a digit's 8x8 cells, pixels"
    )
    rotation: NonNegative = Field(6.0, description="largest angle of a digit, degrees")
    slant: NonNegative = Field(0.06, description="largest shear of a digit")
    stretch: Annotated[float, Field(ge=1)] = Field(
        1.08, description="largest ratio of a digit's width to its usual one"
    )
    ink: PositiveInterval = Field((0.7, 0.95), description="opacity")
    shade: Annotated[float, Field(ge=0, le=1)] = Field(
        0.12, description="deepest darkening of the paper by uneven light"
    )
    stains: Annotated[int, Field(ge=0)] = Field(2, description="at most so many a scene")
    ruled: Annotated[float, Field(ge=0, le=1)] = Field(
        0.4, description="share of scenes on ruled paper"
    )
    noise: Interval = Field(
        (2.0, 6.0), description="standard deviation of the scanner's noise; white is 255"
    )
    seed: Annotated[int, Field(ge=0)] = Field(0, description="seed of the drawing")


class PairSettings(Settings):
    """A folder of images and one of masks, used where they are, and which images are held out."""

    images: FolderBelow = Field(".", description="folder of the images, below `data`")
    labels: FolderBelow = Field(description="folder of the masks, below `data`; may be the same")
    image_name: NamePattern = Field(
        "{}", description="name of an image's file without its ending; `{}` is what its mask shares"
    )
    mask_name: NamePattern = Field("{}", description="the same of a mask's file, e.g. `{}_mask`")
    group: GroupPattern | None = Field(
        None,
        description="regular expression, searched in an id; its first part in parentheses names "
        "the group of images that must not fall on two sides. none: each image for itself",
    )
    val: tuple[str, ...] = Field((), description="ids held out for validation")
    test: tuple[str, ...] = Field((), description="ids held out for the test")


# As pairs in JSON: the order numbers the classes, and keys of an object are sorted there.
Classes = Annotated[
    dict[ClassName, Colour],
    Field(min_length=2, max_length=IGNORED),
    BeforeValidator(dict),
    PlainSerializer(lambda classes: list(classes.items()), when_used="json"),
]


class DatasetStage(Settings):
    """How files on disk become images, masks and classes."""

    added: ClassVar = ("pairs",)

    format: Format
    classes: Classes
    labels: dict[MaskValue, str]
    ignore: tuple[MaskValue, ...]
    window: Window | None = None
    test_from_val: Annotated[int, Field(ge=0)]
    digits: DrawSettings | None
    pairs: PairSettings | None = None

    @model_validator(mode="after")
    def _labels_name_classes(self) -> DatasetStage:
        if len({type(value) for value in (*self.labels, *self.ignore)}) > 1:
            raise ValueError(
                f"labels and ignore: name numbers or colours, not both; found "
                f"{[*self.labels, *self.ignore]}"
            )
        for value, name in self.labels.items():
            if name not in self.classes:
                raise ValueError(
                    f"labels: value {value} is mapped to {name!r}, "
                    f"which is none of the classes {', '.join(self.classes)}"
                )
            if value in self.ignore:
                raise ValueError(f"labels: value {value} is also listed under ignore")
        return self


class SplitRule(Settings):
    """Which training images are labeled: exactly one of the four keys."""

    count: Positive | None = Field(None, description="this many images")
    divide: Annotated[float, Field(gt=1)] | None = Field(
        None, description="the images divided by this number, rounded down"
    )
    all: Literal[True] | None = Field(None, description="every image that has a mask")
    files: SplitFiles | None = Field(None, description="lists of ids, one a line")

    @model_validator(mode="after")
    def _exactly_one(self) -> SplitRule:
        if len(self.model_dump(exclude_none=True)) != 1:
            raise ValueError("give exactly one of count, divide, all, files")
        return self


class SplitFiles(Settings):
    """Paths of two lists of ids."""

    labeled: str = Field(description="file of labeled ids, one a line")
    unlabeled: str = Field(description="file of unlabeled ids, one a line")


class SplitStage(Settings):
    """One labeled split."""

    rule: SplitRule
    seed: Annotated[int, Field(ge=0)]


# --------------------------------------------------------------------------- network, training


class NetworkSettings(Settings):
    """A backbone, and a head that makes logits of its features (paper, section 4.2)."""

    added: ClassVar = ("head",)

    backbone: str = Field(
        "resnet101",
        description="`small` (from scratch), a name of timm, or `resnet101_caffe`, whose geometry "
        "is that of the paper's COCO weights",
    )
    output_stride: Literal[4, 8, 14, 16, 32] = Field(
        8, description="input pixels a feature pixel; `small` has 4, a transformer its patch"
    )
    stages: Positive | None = Field(
        None, description="keep only this many of the backbone's feature stages"
    )
    aspp_rates: tuple[Positive, ...] = Field(
        (6, 12, 18, 24),
        min_length=1,
        description="short for `head: {name: deeplabv2, rates: …}`: dilations of its convolutions",
    )
    head: Head | None = Field(
        None,
        description="makes logits of the backbone's features; none: `deeplabv2` with `aspp_rates`",
    )
    weights: str | None = Field(
        None,
        description="initial weights of the backbone: a .pt, .pth or .safetensors file, or "
        "`package:NAME/FILE` of an installed package; none: random",
    )
    input_scale: Annotated[float, Field(gt=0, le=4)] = Field(
        1.0, description="images are resized by this factor before the network sees them"
    )

    @property
    def chosen_head(self) -> Head:
        """The head's settings, however they were written."""
        return DeepLabV2(rates=self.aspp_rates) if self.head is None else self.head

    @model_serializer(mode="wrap")
    def _one_form(
        self, handler: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        """In JSON `deeplabv2` is what it was before there were other heads: `aspp_rates`."""
        content = self._without_unused(handler, info)
        if info.mode_is_json() and self.head is not None:
            if isinstance(self.head, DeepLabV2):
                content["aspp_rates"] = content.pop("head")["rates"]
            else:
                content.pop("aspp_rates")
        return content

    @model_validator(mode="after")
    def _has_one_head(self) -> NetworkSettings:
        if self.head is not None and "aspp_rates" in self.model_fields_set:
            raise ValueError("found both head and aspp_rates, which is short for it; remove one")
        return self

    @model_validator(mode="after")
    def _small_is_as_it_is(self) -> NetworkSettings:
        if self.backbone == "small" and (self.output_stride != 4 or self.weights or self.stages):
            raise ValueError("backbone `small` has output_stride 4, no weights and no stages")
        return self


class AugmentationSettings(Settings):
    """Random changes of a training sample, drawn anew at each use."""

    added: ClassVar = ("size",)

    scale: PositiveInterval = Field((0.5, 1.5), description="range of the random resize")
    size: Annotated[tuple[Size, Size], AfterValidator(each_increasing)] | None = Field(
        None,
        description="instead of `scale`: smallest and largest [height, width] in the network's "
        "pixels, each side drawn for itself, so that the aspect ratio is lost (Table 6, the "
        "released code)",
    )
    rotation: Annotated[float, Field(ge=0, le=180)] = Field(
        0.0, description="largest angle, degrees"
    )
    flip: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5, description="probability of a horizontal flip"
    )
    brightness: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="factor within 1 ± this"
    )
    contrast: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="factor within 1 ± this")
    saturation: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="factor within 1 ± this"
    )
    hue: Annotated[float, Field(ge=0, le=0.5)] = Field(
        0.0, description="shift within ± this, turns of the colour circle"
    )
    noise: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="largest standard deviation of Gaussian noise; 1 is white minus black"
    )


class Optimization(Settings):
    """What training and its stage share."""

    batch: Positive = Field(
        8, description="images a step; half of them pseudo-labeled in self-training"
    )
    crop: tuple[Positive, Positive] = Field(
        (321, 321), description="height and width of a training sample"
    )
    learning_rate: Annotated[float, Field(gt=0)] = Field(2e-3, description="at the first step")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="of SGD")
    weight_decay: NonNegative = Field(5e-4, description="of SGD, on every parameter")
    power: NonNegative = Field(0.9, description="learning rate times (1 - step/steps)^power")
    gamma: NonNegative = Field(
        9.0, description="exponent of the dynamic weight, equation (2); 0 is plain cross-entropy"
    )
    clip: Annotated[float, Field(gt=0)] | None = Field(
        None, description="largest norm of the gradient; none: no limit"
    )
    warmup: Annotated[int, Field(ge=0)] = Field(
        0, description="steps over which the learning rate rises from 0"
    )
    backbone_rate: Annotated[float, Field(gt=0)] = Field(
        1.0, description="learning rate of the backbone, times that of the head"
    )
    freeze_norm: bool = Field(
        False, description="batch normalisation keeps its statistics and weights"
    )
    freeze_stages: Annotated[int, Field(ge=0)] = Field(
        0, description="this many feature stages of the backbone, from the input on, do not learn"
    )
    class_weights: Literal["none", "balanced"] | dict[ClassName, NonNegative] = Field(
        "none",
        description="of the labeled loss: `balanced` by the classes' pixels, or class: weight "
        "(1 where not named)",
    )
    gpus: Positive = Field(
        1,
        description="processes that share each batch and both halves of it, one a GPU (without "
        "CUDA: on the CPU); the gradient stays that of the whole batch",
    )
    sync_norm: bool = Field(
        False,
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
        6.0,
        description="passes over the unlabeled images a round (supervised: over the labeled ones); "
        "`formula`: 30 sqrt(training images / labeled images), section 4.2; or one number a split",
    )
    steps: Positive | None = Field(None, description="steps instead of epochs")
    validate_every: Positive | dict[str, Positive] = Field(
        1000, description="steps; or one number per split"
    )
    seed: Annotated[int, Field(ge=0)] | None = Field(
        None, description="of all randomness in training; none: the split's seed"
    )


class Compute(Settings):
    """What changes the last bits of every network's arithmetic."""

    compute_threads: Positive = Field(
        1, description="CPU threads of a stage with a network; never taken from --cores"
    )
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="of the network's pass; losses stay float32"
    )
    channels_last: bool = Field(False, description="memory layout of images and weights")
    deterministic: bool = Field(
        False, description="on CUDA: only algorithms that give the same bytes each time"
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


# --------------------------------------------------------------------------- experiment file


def _partial(cls: type[Settings], name: str) -> type[Settings]:
    """`cls` with every key optional, for files that override some of them."""
    fields: dict[str, Any] = {}
    for key, field in cls.model_fields.items():
        annotation = field.annotation
        for constraint in field.metadata:
            annotation = Annotated[annotation, constraint]
        fields[key] = (annotation | None, Field(None, description=field.description))
    return create_model(name, __base__=Settings, __doc__=f"Some keys of {cls.__name__}.", **fields)


TrainOverrides = _partial(TrainSettings, "TrainOverrides")


class MethodSwitches(Settings):
    """The switches of a method."""

    curriculum: tuple[Alpha, ...] = Field(
        (), description="share of the predicted pixels to label, one number a round (section 3.3)"
    )
    balance: Literal["class", "global"] = Field(
        "class", description="one threshold per class, or one over all"
    )
    rule: Literal["threshold", "normalized"] = Field(
        "threshold",
        description="label the winning class where it reaches its threshold (Algorithm 1), or the "
        "class whose probability is largest in proportion to its threshold (CBST, the released "
        "code)",
    )
    threshold_sampling: Sampling = Field(
        1,
        description="thresholds are ranks among all pixels (1), or as in the released code: among "
        "every 16th pixel of a flattened batch, and the pixel next to the share is kept, too",
    )
    labeling: Literal["offline", "online", "none"] = Field(
        "offline",
        description="pseudo labels from the round before, or by the model in training, step by "
        "step, or no unlabeled images at all",
    )
    online_threshold: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="with `labeling: online`: probability above which a pixel is labeled"
    )
    weighting: Literal["dynamic", "original"] = Field(
        "dynamic",
        description="the weight of a pseudo label is the confidence of the model in training, "
        "equation (2), or of the model that labeled; ^gamma",
    )
    augment_pseudo: bool = Field(
        True, description="augment the pseudo-labeled images, or only resize them to `train.crop`"
    )
    teacher: Literal["self", "peer"] = Field(
        "self",
        description="with `labeling: offline`: a chain of rounds labels for itself, or each of "
        "several `chains` for the next, the last for the first",
    )
    chains: dict[Name, TrainOverrides] = Field(
        {},
        description="with `teacher: peer`: name of each chain, `<method>/<name>` in paths: the "
        "keys of `train` in which it differs, e.g. its `seed`",
    )
    start: Literal["continue", "restart"] = Field(
        "continue",
        description="a round goes on with the weights of the round before, or starts from the "
        "initial ones",
    )
    best: Best = Field(
        "carry",
        description="a round's model is the best of the chain so far, or the best of the round",
    )
    snapshots: Annotated[int, Field(ge=0)] = Field(
        0,
        description="so many times during a round, at equal distances, the weights are kept, in "
        "`snapshots/1.pt` and so on",
    )
    objective: Objective = Field(
        SelfTraining(), description="what a step of training minimises, by its `name`"
    )
    round_length: Positive = Field(
        1, description="a round lasts this many times `train`'s epochs or steps"
    )
    match: Name | None = Field(
        None,
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


class EvaluationSettings(Settings):
    """Where models are selected and reported (section 4.3)."""

    select: Selection = Field(
        "val",
        description="images whose mIoU chooses the best model: val, or the few of it that are "
        "`valtiny`; never test. `last`: none is chosen, each round's last step is its model",
    )
    valtiny: str | None = Field(
        None, description="file of ids of val, one a line; none: the authors' for voc, cityscapes"
    )
    report: tuple[Subset, ...] = Field(("val",), min_length=1, description="subsets in the tables")
    batch: Positive = Field(8, description="images of one size that go through the network at once")
    tile: Annotated[int, Field(ge=64)] = Field(
        2048,
        description="longest side, in the network's pixels, that goes through it in one piece; "
        "larger images in tiles that overlap by an eighth on each side",
    )
    size: Size | None = Field(
        None,
        description="[height, width] to which images and their masks (nearest) are resized before "
        "they are compared; none: the masks' own size",
    )
    pad: Size | None = Field(
        None,
        description="[height, width] to which images are padded at the right and at the bottom "
        "with the mean colour, ignored in the masks (the released code); none: not at all",
    )


class PredictionSettings(Settings):
    """Where pseudo labels are made."""

    size: Size | None = Field(
        None,
        description="[height, width] to which images are squashed, whatever their aspect ratio; "
        "classes and thresholds are of these pixels, and labels are resized back, nearest (section "
        "4.2, the released code). none: their own size",
    )


class Run(Settings):
    """Every combination of the lists is one run."""

    splits: tuple[Name, ...] = Field(min_length=1, description="names under `splits`")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (0,), min_length=1, description="which random orders of the training images"
    )
    methods: tuple[str, ...] = Field(
        min_length=1, description="rows of workflow/methods.yaml, or `supervised`"
    )
    select: Selection | None = Field(None, description="none: `evaluation.select`")
    vary: dict[str, tuple[bool | int | float | str, ...]] = Field(
        {}, description="key of `train` or of a method: values to try, each under its own name"
    )


class ReportSettings(Settings):
    """What tables and figures are called, and what the paper found."""

    name: StudyName | None = Field(
        None, description="folder under results/<study>/report/; none: the study's name"
    )
    title: str = Field("", description="over the table")
    paper: dict[str, dict[StudyName, float]] = Field(
        {},
        description="method: {split: the paper's mIoU in percent}, printed beside ours; "
        "`<split>_valtiny` where valtiny selects",
    )


class Experiment(Compute):
    """An experiment file, complete and merged."""

    name: StudyName = Field(description="folder under results/")
    data: str = Field(description="folder of the data set")
    format: Format = Field(description="layout of that folder")
    classes: dict[ClassName, Colour] | None = Field(
        None, description="name: '#rrggbb'; the format's own where it has some"
    )
    labels: dict[MaskValue, str] | None = Field(
        None,
        description="value in a mask, a number or '#rrggbb': class; default 0, 1, 2, … in order",
    )
    ignore: tuple[MaskValue, ...] | None = Field(
        None,
        description="values in a mask without a class; default the format's, else 255, and none "
        "for colours",
    )
    window: Window | None = Field(
        None,
        description="values of 16-bit images that become black and white; default measured once, "
        "0.1 % of the training pixels beyond each",
    )
    test_from_val: Annotated[int, Field(ge=0)] = Field(
        0,
        description="hold back every n-th validation image, by id, as the test subset; 0: none",
    )
    digits: DrawSettings = DrawSettings()
    pairs: PairSettings | None = Field(None, description="with `format: pairs`: what lies where")
    preset: Literal["standard", "paper", "released"] = Field(
        "standard", description="defaults of workflow/presets.yaml"
    )
    network: NetworkSettings = NetworkSettings()
    start_from: str | None = Field(
        None,
        description="model.pt of an earlier study with these classes and this network, from whose "
        "weights round 0 and the control go on; none: from `network.weights`",
    )
    train: TrainSettings = TrainSettings()
    supervised: TrainOverrides = Field(
        TrainOverrides(), description="keys of `train` that differ in supervised training"
    )
    by_split: dict[Name, TrainOverrides] = Field(
        {}, description="split: keys of `train` that differ on it"
    )
    switches: SwitchOverrides = Field(
        SwitchOverrides(),
        description="switches of all methods, where a method's own row does not say otherwise; "
        "those of files of pseudo labels pass by a method without such files",
    )
    prediction: PredictionSettings = PredictionSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    splits: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*$")], SplitRule] = Field(
        min_length=1
    )
    runs: tuple[Run, ...] = Field(min_length=1)
    report: ReportSettings = ReportSettings()
    keep_predictions: Literal["all", "supervised"] = Field(
        "all", description="`supervised` deletes those of later rounds after use"
    )
    replace: bool = Field(False, description="allow edited settings to replace finished trainings")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="auto: CUDA, else MPS, else CPU"
    )
    workers: Annotated[int, Field(ge=0)] = Field(
        0, description="processes that load training samples"
    )
    save_seconds: NonNegative = Field(
        60.0, description="seconds between two saves of an unfinished training"
    )
    container: str | None = Field(
        None,
        description="image, `docker://…` or a .sif file, that jobs run in with `snakemake "
        "--software-deployment-method apptainer`; see Dockerfile",
    )
    shards: Positive = Field(
        1,
        description="jobs among which the prediction of the unlabeled images and their labeling "
        f"are scattered, in parts of {PART_IMAGES} images; the files are the same. What is made "
        "stays, and is remade as it was made",
    )

    @model_validator(mode="after")
    def _sizes_are_the_networks(self) -> Experiment:
        for key in ("prediction", "evaluation"):
            size = getattr(self, key).size
            if size and self.network.input_scale != 1:
                raise ValueError(
                    f"network.input_scale: found {self.network.input_scale:g}, but {key}.size is "
                    f"{list(size)}, as large as the network is to see the images; set input_scale "
                    "to 1, or leave the size out"
                )
        return self
