"""The data set and its labeled splits."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, model_validator

from .base import (
    ClassName,
    Colour,
    Interval,
    MaskValue,
    NonNegative,
    Positive,
    PositiveInterval,
    Settings,
    Window,
)

IGNORED = 255
"""Label value of pixels without a class, in memory and in every label file that we write."""
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


class DrawSettings(Settings):
    """The scenes of handwriting that `format: digits` draws."""

    size: Annotated[int, Field(ge=32)] = Field(
        default=80, description="height and width of a scene, pixels"
    )
    train: Positive = Field(default=480, description="number of training scenes")
    val: Positive = Field(default=80, description="number of validation scenes")
    test: Positive = Field(default=120, description="number of test scenes")
    digits: tuple[Annotated[int, Field(ge=0, le=10)], Annotated[int, Field(ge=1, le=10)]] = Field(
        default=(5, 7), description="digits a scene, all different"
    )
    digit_size: PositiveInterval = Field(
        default=(22.0, 28.0), description="height of a digit's 8x8 cells, pixels"
    )
    rotation: NonNegative = Field(default=6.0, description="largest angle of a digit, degrees")
    slant: NonNegative = Field(default=0.06, description="largest shear of a digit")
    stretch: Annotated[float, Field(ge=1)] = Field(
        default=1.08, description="largest ratio of a digit's width to its usual one"
    )
    ink: PositiveInterval = Field(default=(0.7, 0.95), description="opacity")
    shade: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.12, description="deepest darkening of the paper by uneven light"
    )
    stains: Annotated[int, Field(ge=0)] = Field(default=2, description="at most so many a scene")
    ruled: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.4, description="share of scenes on ruled paper"
    )
    noise: Interval = Field(
        default=(2.0, 6.0), description="standard deviation of the scanner's noise; white is 255"
    )
    seed: Annotated[int, Field(ge=0)] = Field(default=0, description="seed of the drawing")


class PairSettings(Settings):
    """A folder of images and one of masks, used where they are, and which images are held out."""

    images: FolderBelow = Field(default=".", description="folder of the images, below `data`")
    labels: FolderBelow = Field(description="folder of the masks, below `data`; may be the same")
    image_name: NamePattern = Field(
        default="{}",
        description="name of an image's file without its ending; `{}` is what its mask shares",
    )
    mask_name: NamePattern = Field(
        default="{}", description="the same of a mask's file, e.g. `{}_mask`"
    )
    group: GroupPattern | None = Field(
        default=None,
        description="regular expression, searched in an id; its first part in parentheses names "
        "the group of images that must not fall on two sides. none: each image for itself",
    )
    val: tuple[str, ...] = Field(default=(), description="ids held out for validation")
    test: tuple[str, ...] = Field(default=(), description="ids held out for the test")


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

    count: Positive | None = Field(default=None, description="this many images")
    divide: Annotated[float, Field(gt=1)] | None = Field(
        default=None, description="the images divided by this number, rounded down"
    )
    all: Literal[True] | None = Field(default=None, description="every image that has a mask")
    files: SplitFiles | None = Field(default=None, description="lists of ids, one a line")

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
