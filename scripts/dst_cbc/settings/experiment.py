"""An experiment file: every key that a person writes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .base import (
    ClassName,
    Colour,
    MaskValue,
    Name,
    NonNegative,
    Positive,
    Settings,
    Size,
    StudyName,
    Window,
)
from .data import DrawSettings, Format, PairSettings, SplitRule
from .methods import SwitchOverrides, TrainOverrides
from .network import NetworkSettings
from .stages import PART_IMAGES, Compute, Selection, Subset
from .training import TrainSettings


class EvaluationSettings(Settings):
    """Where models are selected and reported (section 4.3)."""

    select: Selection = Field(
        default="val",
        description="images whose mIoU chooses the best model: val, or the few of it that are "
        "`valtiny`; never test. `last`: none is chosen, each round's last step is its model",
    )
    valtiny: str | None = Field(
        default=None,
        description="file of ids of val, one a line; none: the authors' for voc, cityscapes",
    )
    report: tuple[Subset, ...] = Field(
        default=("val",), min_length=1, description="subsets in the tables"
    )
    batch: Positive = Field(
        default=8, description="images of one size that go through the network at once"
    )
    tile: Annotated[int, Field(ge=64)] = Field(
        default=2048,
        description="longest side, in the network's pixels, that goes through it in one piece; "
        "larger images in tiles that overlap by an eighth on each side",
    )
    size: Size | None = Field(
        default=None,
        description="[height, width] to which images and their masks (nearest) are resized before "
        "they are compared; none: the masks' own size",
    )
    pad: Size | None = Field(
        default=None,
        description="[height, width] to which images are padded at the right and at the bottom "
        "with the mean colour, ignored in the masks (the released code); none: not at all",
    )


class PredictionSettings(Settings):
    """Where pseudo labels are made."""

    size: Size | None = Field(
        default=None,
        description="[height, width] to which images are squashed, whatever their aspect ratio; "
        "classes and thresholds are of these pixels, and labels are resized back, nearest (section "
        "4.2, the released code). none: their own size",
    )


class Run(Settings):
    """Every combination of the lists is one run."""

    splits: tuple[Name, ...] = Field(min_length=1, description="names under `splits`")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        default=(0,), min_length=1, description="which random orders of the training images"
    )
    methods: tuple[str, ...] = Field(
        min_length=1, description="rows of workflow/methods.yaml, or `supervised`"
    )
    select: Selection | None = Field(default=None, description="none: `evaluation.select`")
    vary: dict[str, tuple[bool | int | float | str, ...]] = Field(
        default={},
        description="key of `train` or of a method: values to try, each under its own name",
    )


class ReportSettings(Settings):
    """What tables and figures are called, and what the paper found."""

    name: StudyName | None = Field(
        default=None, description="folder under results/<study>/report/; none: the study's name"
    )
    title: str = Field(default="", description="over the table")
    paper: dict[str, dict[StudyName, float]] = Field(
        default={},
        description="method: {split: the paper's mIoU in percent}, printed beside ours; "
        "`<split>_valtiny` where valtiny selects",
    )


class Experiment(Compute):
    """An experiment file, complete and merged."""

    name: StudyName = Field(description="folder under results/")
    data: str = Field(description="folder of the data set")
    format: Format = Field(description="layout of that folder")
    classes: dict[ClassName, Colour] | None = Field(
        default=None, description="name: '#rrggbb'; the format's own where it has some"
    )
    labels: dict[MaskValue, str] | None = Field(
        default=None,
        description="value in a mask, a number or '#rrggbb': class; default 0, 1, 2, … in order",
    )
    ignore: tuple[MaskValue, ...] | None = Field(
        default=None,
        description="values in a mask without a class; default the format's, else 255, and none "
        "for colours",
    )
    window: Window | None = Field(
        default=None,
        description="values of 16-bit images that become black and white; default measured once, "
        "0.1 % of the training pixels beyond each",
    )
    test_from_val: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="hold back every n-th validation image, by id, as the test subset; 0: none",
    )
    digits: DrawSettings = DrawSettings()
    pairs: PairSettings | None = Field(
        default=None, description="with `format: pairs`: what lies where"
    )
    preset: Literal["standard", "paper", "released"] = Field(
        default="standard", description="defaults of workflow/presets.yaml"
    )
    network: NetworkSettings = NetworkSettings()
    start_from: str | None = Field(
        default=None,
        description="model.pt of an earlier study with these classes and this network, from whose "
        "weights round 0 and the control go on; none: from `network.weights`",
    )
    train: TrainSettings = TrainSettings()
    supervised: TrainOverrides = Field(
        default=TrainOverrides(), description="keys of `train` that differ in supervised training"
    )
    by_split: dict[Name, TrainOverrides] = Field(
        default={}, description="split: keys of `train` that differ on it"
    )
    switches: SwitchOverrides = Field(
        default=SwitchOverrides(),
        description="switches of all methods, where a method's own row does not say otherwise. "
        "Methods that write no label files ignore the switches about them",
    )
    prediction: PredictionSettings = PredictionSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    splits: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*$")], SplitRule] = Field(
        min_length=1
    )
    runs: tuple[Run, ...] = Field(min_length=1)
    report: ReportSettings = ReportSettings()
    keep_predictions: Literal["all", "supervised"] = Field(
        default="all", description="`supervised` deletes those of later rounds after use"
    )
    replace: bool = Field(
        default=False, description="allow edited settings to replace finished trainings"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto", description="auto: CUDA, else MPS, else CPU"
    )
    workers: Annotated[int, Field(ge=0)] = Field(
        default=0, description="processes that load training samples"
    )
    save_seconds: NonNegative = Field(
        default=60.0, description="seconds between two saves of an unfinished training"
    )
    container: str | None = Field(
        default=None,
        description="image, `docker://…` or a .sif file, that jobs run in with `snakemake "
        "--software-deployment-method apptainer`; see Dockerfile",
    )
    shards: Positive = Field(
        default=1,
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
