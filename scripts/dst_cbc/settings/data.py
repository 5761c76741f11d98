"""The data set and its labeled splits."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, model_validator

from .base import (
    Bands,
    ClassName,
    Colour,
    FactorInterval,
    Interval,
    MaskValue,
    NonNegative,
    Positive,
    Settings,
    Window,
    increasing,
)
from .yaml_files import found

IGNORED = 255
"""Label value of pixels without a class, in memory and in every label file that we write."""
Format = Literal["annotations", "camvid", "cityscapes", "digits", "folder", "pairs", "voc"]


def _compiled(pattern: str) -> re.Pattern:
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"not a valid regular expression: {error}") from None


def _valid(pattern: str) -> str:
    _compiled(pattern)
    return pattern


def _one_group(pattern: str) -> str:
    if _compiled(pattern).groups < 1:
        raise ValueError("expected a part in parentheses that matches the name of the group")
    return pattern


def _stays_below(folder: str) -> str:
    path = PurePosixPath(folder)
    if path.is_absolute() or ".." in path.parts or set(folder) & set("\\\0\n\r"):
        raise ValueError("expected a path relative to `data`, without `..`")
    return folder


FolderBelow = Annotated[str, AfterValidator(_stays_below)]
NamePattern = Annotated[str, Field(pattern=r"^[^/\\{}]*\{\}[^/\\{}]*$")]
GroupPattern = Annotated[str, Field(max_length=1000), AfterValidator(_one_group)]
Grouping = GroupPattern | Annotated[int, Field(ge=1, strict=True)]
"""How images are put into groups: a pattern, or the number of neighbouring frames in a block."""
Pattern = Annotated[str, Field(max_length=1000), AfterValidator(_valid)]
"""A regular expression that is searched in ids."""
Patterns = Annotated[
    tuple[Pattern, ...],
    BeforeValidator(
        lambda given: (given,) if isinstance(given, str) else given,
        json_schema_input_type=Pattern | tuple[Pattern, ...],
    ),
]
"""One of them, or several."""
SceneCount = Annotated[int, Field(ge=1, le=100_000)]
DigitHeight = Annotated[float, Field(gt=0, le=4096)]


class DrawSettings(Settings):
    """The scenes of handwritten digits that the workflow draws for `format: digits`."""

    size: Annotated[int, Field(ge=32, le=4096)] = Field(
        default=80, description="height and width of a scene, in pixels"
    )
    train: SceneCount = Field(default=480, description="number of training scenes")
    val: SceneCount = Field(default=80, description="number of validation scenes")
    test: SceneCount = Field(default=120, description="number of test scenes")
    digits: tuple[Annotated[int, Field(ge=0, le=10)], Annotated[int, Field(ge=1, le=10)]] = Field(
        default=(5, 7),
        description="smallest and largest number of digits in a scene; no digit occurs twice in it",
    )
    digit_size: Annotated[tuple[DigitHeight, DigitHeight], AfterValidator(increasing)] = Field(
        default=(22.0, 28.0),
        description="smallest and largest height of a digit (its 8x8 cells), in pixels",
    )
    rotation: NonNegative = Field(
        default=6.0, description="largest rotation of a digit to either side, in degrees"
    )
    slant: NonNegative = Field(
        default=0.06,
        description="largest slant of a digit to either side: sideways shift per unit of height",
    )
    stretch: Annotated[float, Field(ge=1)] = Field(
        default=1.08,
        description="a digit's width is multiplied by a random factor between 1/this and this",
    )
    ink: FactorInterval = Field(
        default=(0.7, 0.95),
        description="smallest and largest opacity of the ink; 1 hides the paper",
    )
    shade: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.12,
        description="largest share of its brightness that the paper loses to uneven light",
    )
    stains: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=2, description="largest number of stains in a scene"
    )
    ruled: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.4, description="probability that the paper of a scene is ruled"
    )
    noise: Interval = Field(
        default=(2.0, 6.0),
        description="smallest and largest standard deviation of the scanner's noise, in grey "
        "levels of 0 to 255",
    )
    seed: Annotated[int, Field(ge=0)] = Field(
        default=0, description="seed of everything random in the scenes"
    )


class PairSettings(Settings):
    """Where images and masks are, how they are matched, and which images are held out."""

    images: FolderBelow = Field(
        default=".", description="folder of the images, a path relative to `data`"
    )
    labels: FolderBelow = Field(
        description="folder of the masks, a path relative to `data`; may be that of the images. "
        "With `format: annotations`, a file of annotations, or a folder of such files"
    )
    image_name: NamePattern = Field(
        default="{}",
        description="pattern of an image's file name without its ending; `{}` stands for the part "
        "that the name of its mask has, too",
    )
    mask_name: NamePattern = Field(
        default="{}",
        description="pattern of a mask's file name without its ending, e.g. `{}_mask`; `{}` stands "
        "for the part that the name of its image has, too",
    )
    group: GroupPattern | None = Field(
        default=None,
        description="regular expression that is searched in each id; its first part in parentheses "
        "names the image's group, e.g. a patient. A group stays in one subset: when one of its "
        "images is held out, no other image of it is trained on. `null`: no groups",
    )
    val: tuple[str, ...] = Field(
        default=(), description="ids of the images held out for validation"
    )
    test: tuple[str, ...] = Field(default=(), description="ids of the images held out for the test")


class SubsetPatterns(Settings):
    """Which images are held out, by their ids. All images that no pattern fits are `train`."""

    val: Patterns = Field(
        default=(),
        description="regular expression, or a list of them, that is searched in each id: the "
        "images that one of them fits are held out for validation",
    )
    test: Patterns = Field(
        default=(), description="likewise: the images that are held out for the test"
    )
    none: Patterns = Field(
        default=(),
        description="likewise: images that are not used at all, whatever else fits them; e.g. the "
        "frames of a video between those that are trained on and those that are held out",
    )


class AnnotationSettings(Settings):
    """How masks are drawn from the shapes in annotation files."""

    names: dict[Annotated[str, Field(max_length=1000)], str] = Field(
        min_length=1,
        description="for each label in the annotation files, the name of its class, or `ignore`: "
        "its pixels have no class",
    )
    unannotated: Literal["background", "ignore"] = Field(
        default="background",
        description="what pixels without a shape are: `background`, they are of the class of that "
        "name; `ignore`, they have no class",
    )
    empty: Literal["unlabeled", "labeled"] = Field(
        default="unlabeled",
        description="what an image is that the annotation files list without a shape: `unlabeled`, "
        "or `labeled`, all of it is `unannotated`",
    )
    partial: bool = Field(
        default=False,
        description="whether the annotation files may have shapes of images that are not there",
    )


ClassColours = Annotated[dict[ClassName, Colour], Field(min_length=2, max_length=IGNORED)]
# In JSON a list of pairs: the order numbers the classes, and the keys of an object are sorted.
Classes = Annotated[
    ClassColours,
    BeforeValidator(dict),
    PlainSerializer(lambda classes: list(classes.items()), when_used="json"),
]


class DatasetStage(Settings):
    """How files on disk become images, masks and classes."""

    added: ClassVar = ("pairs", "bands", "annotations", "drawn", "subsets", "grouping")

    format: Format
    classes: Classes
    labels: dict[MaskValue, str]
    ignore: tuple[MaskValue, ...]
    window: Window | None = None
    bands: Bands | None = None
    test_from_val: Annotated[int, Field(ge=0)]
    digits: DrawSettings | None
    pairs: PairSettings | None = None
    subsets: SubsetPatterns | None = None
    grouping: Grouping | None = None
    """The experiment's key `group`."""
    annotations: AnnotationSettings | None = None
    drawn: str | None = None
    """Folder of the masks that are drawn from annotations; None where masks are the user's."""

    @property
    def group(self) -> Grouping | None:
        """How images are put into groups: `group`, or `pairs.group`; None if neither is given."""
        return self.grouping or (self.pairs.group if self.pairs else None)

    @property
    def group_pattern(self) -> str | None:
        """The pattern of the groups that stay in one subset; None if there is none."""
        return self.group if isinstance(self.group, str) else None

    def mask_root(self, root: Path) -> Path:
        """Return the folder in which the paths of masks start. root: folder of the data set."""
        return Path(self.drawn) if self.drawn else root

    @model_validator(mode="after")
    def _annotations_name_classes(self) -> DatasetStage:
        if self.annotations is None:
            return self
        known = ", ".join(self.classes)
        for label, name in self.annotations.names.items():
            if name not in self.classes and name != "ignore":
                raise ValueError(
                    f"annotations.names: {found(label)} is mapped to {found(name)}, which is not a "
                    f"class; known: {known}, and `ignore`"
                )
        if self.annotations.unannotated == "background" and "background" not in self.classes:
            raise ValueError(
                f"annotations.unannotated: found background, but classes are {known}; add the "
                "class `background`, or set unannotated to ignore"
            )
        return self

    @model_validator(mode="after")
    def _labels_name_classes(self) -> DatasetStage:
        if len({type(value) for value in (*self.labels, *self.ignore)}) > 1:
            raise ValueError(
                f"labels and ignore: found {found([*self.labels, *self.ignore])}; expected numbers "
                "or colours, not both"
            )
        ignored = set(self.ignore)
        for value, name in self.labels.items():
            if name not in self.classes:
                raise ValueError(
                    f"labels: value {value} is mapped to {name!r}, "
                    f"which is not a class; known: {', '.join(self.classes)}"
                )
            if value in ignored:
                raise ValueError(
                    f"labels: value {value} is also listed under ignore; remove one of them"
                )
        return self


class SplitFiles(Settings):
    """Paths of the lists of labeled and unlabeled ids."""

    labeled: str = Field(description="file with the ids of the labeled images, one per line")
    unlabeled: str = Field(description="file with the ids of the unlabeled images, one per line")


class SplitRule(Settings):
    """How the labeled training images are chosen: give exactly one of the first five keys."""

    added: ClassVar = ("folds", "fold_length", "among", "unlabeled")

    count: Positive | None = Field(
        default=None, description="label this many images, a random choice by the split's seed"
    )
    divide: Annotated[float, Field(gt=1)] | None = Field(
        default=None,
        description="label the number of training images divided by this, rounded down (one more "
        "if batches of 8 would leave a single image over), a random choice by the split's seed",
    )
    all: Literal[True] | None = Field(
        default=None, description="label every training image that has a mask"
    )
    files: SplitFiles | None = Field(
        default=None,
        description="read the ids of the labeled and the unlabeled images from two files; their "
        "relative paths start in the folder in which `snakemake` runs",
    )
    folds: Annotated[int, Field(ge=2, le=20)] | None = Field(
        default=None,
        description="label every training image that has a mask, and use each mask for validation "
        "once. The masks are divided into so many parts (folds), whole groups each. For each fold, "
        "all runs are trained on the masks of the other folds and evaluated on its own. These "
        "results choose the round and the steps of each method, which is then trained on all masks",
    )
    fold_length: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0,
        description="with `folds`: the trainings of a fold take this share of the steps",
    )

    among: Pattern | None = Field(
        default=None,
        description="regular expression that is searched in each id: label only training images "
        "that it fits. With `divide`, their number is divided. `null`: all training images",
    )
    unlabeled: Pattern | None = Field(
        default=None,
        description="regular expression that is searched in each id: of the training images that "
        "are not labeled, only those that it fits are the unlabeled ones, and the others are not "
        "used. It does not change which images are labeled. `null`: all of them",
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> SplitRule:
        rules = ("count", "divide", "all", "files", "folds")
        if sum(getattr(self, rule) is not None for rule in rules) != 1:
            raise ValueError(f"expected exactly one of {', '.join(rules)}")
        if self.fold_length != 1 and not self.folds:
            raise ValueError("fold_length: allowed only with folds")
        narrowed = [key for key in ("among", "unlabeled") if getattr(self, key) is not None]
        if narrowed and (self.files or self.folds):
            raise ValueError(
                f"{narrowed[0]}: not allowed with files, which list every id, and with folds, "
                "which use every training image; remove it, or use count, divide or all"
            )
        return self


class SplitStage(Settings):
    """How one labeled split is made: its rule and its seed.

    fold: number of the fold whose masks are held out, from 1; None without folds, and for the
    trainings on all masks. group: with folds, the groups that stay whole.
    """

    added: ClassVar = ("fold", "group")

    rule: SplitRule
    seed: Annotated[int, Field(ge=0)]
    fold: Annotated[int, Field(ge=1)] | None = None
    group: Grouping | None = None
