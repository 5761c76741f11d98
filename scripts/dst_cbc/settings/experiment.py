"""All keys of an experiment file."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from ..runtime.escape import shown
from .base import (
    Bands,
    BatchSize,
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
from .data import (
    AnnotationSettings,
    DrawSettings,
    Format,
    Grouping,
    PairSettings,
    SplitRule,
    SubsetPatterns,
)
from .methods import SwitchOverrides, TrainOverrides
from .network import NetworkSettings
from .stages import PART_IMAGES, Candidates, Compute, MaskSize, PadColour, Selection, Subset
from .training import TrainSettings


class EvaluationSettings(Settings):
    """How models are validated, selected and reported (paper, section 4.3)."""

    select: Selection = Field(
        default="val",
        description="which model of a training becomes model.pt. `val`: the model with the highest "
        "mIoU on val. `valtiny`: with the highest mIoU on a few images of val, those in "
        "`evaluation.valtiny`. `last`: the model after the last step, whatever its mIoU. The test "
        "subset never selects a model",
    )
    valtiny: str | None = Field(
        default=None,
        description="file with the ids of the val images that `select: valtiny` uses, one per "
        "line; `null`: the authors' list, which the formats voc and cityscapes have",
    )
    candidates: Candidates = Field(
        default="validations",
        description="which models of a training `select` chooses from, besides the best model of "
        "the rounds before. `validations`: the model of every validation. `ends`: only the model "
        "after the last step, because a few images cannot tell the models of one training apart; "
        "validations before it only show the curve",
    )
    report: tuple[Subset, ...] = Field(
        default=("val",),
        min_length=1,
        max_length=3,
        description="subsets on which models are evaluated for the tables",
    )
    batch: BatchSize = Field(
        default=8,
        description="largest number of images of equal size that the network gets at once in "
        "validation, prediction and evaluation",
    )
    tile: Annotated[int, Field(ge=64)] = Field(
        default=2048,
        description="longest side of an image, as the network sees it, that goes through the "
        "network in one piece in validation, prediction and evaluation. Larger images are cut "
        "into tiles, which overlap by an eighth on each side",
    )
    size: Size | None = Field(
        default=None,
        description="[height, width] to which validation and evaluation resize images, and masks "
        "as `masks` says; `null`: the images' own size",
    )
    masks: MaskSize = Field(
        default="resized",
        description="with `size`: `resized`, masks are resized like the images, with nearest "
        "neighbour; `own`: masks keep their size, and the network's output is upsampled to it",
    )
    pad: Size | None = Field(
        default=None,
        description="[height, width] to which validation and evaluation pad images at the right "
        "and at the bottom; the padding does not count in metrics. `null`: no padding",
    )
    pad_colour: PadColour = Field(
        default="mean",
        description="colour of the padding: `mean`, the mean colour, which is 0 after "
        "normalisation; `black`, 0 before normalisation (the released code)",
    )

    @model_validator(mode="after")
    def _own_masks_have_no_padding(self) -> EvaluationSettings:
        if self.masks == "own" and self.pad:
            raise ValueError(
                f"masks: found own, but pad is {list(self.pad)}, and a mask of its own size has no "
                "padding; set pad to null, or masks to resized"
            )
        return self


class PredictionSettings(Settings):
    """How the unlabeled images are predicted before they get pseudo labels."""

    size: Size | None = Field(
        default=None,
        description="[height, width] to which unlabeled images are resized, whatever their aspect "
        "ratio. Predictions, thresholds and pseudo labels have this size (section 4.2, the "
        "released code). `null`: the images' own size",
    )


class Run(Settings):
    """What to train: every combination of a split, a seed and a method in these lists."""

    splits: tuple[Name, ...] = Field(
        min_length=1, description="names of splits, as defined under `splits`"
    )
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        default=(0,),
        min_length=1,
        description="seeds of the splits. Each seed chooses other labeled images (not with `all` "
        "or `files`), and is also the seed of the training unless `train.seed` is set",
    )
    methods: tuple[str, ...] = Field(
        min_length=1,
        description="names of rows of workflow/methods.yaml, or `supervised` for round 0 alone",
    )
    select: Selection | None = Field(
        default=None,
        description="how these runs select models; `null`: as `evaluation.select` says",
    )
    vary: dict[str, tuple[bool | int | float | str, ...]] = Field(
        default={},
        description="a sweep: for a key of `train` or a switch of the methods, the values to try. "
        "Each combination is trained under its own name, e.g. `dst-cbc@gamma=3`",
    )


class PaperNote(Settings):
    """A footnote of a table of the paper."""

    mark: Annotated[str, Field(min_length=1, max_length=3)] = Field(
        description="what stands behind a figure that has this footnote, e.g. `'*'`"
    )
    text: str = Field(description="what the footnote says")
    cells: dict[str, tuple[StudyName, ...]] = Field(
        description="the figures of `report.paper` that have this footnote: `{METHOD: [SPLIT]}`"
    )


class PaperTable(Settings):
    """A table of the paper, printed whole beside this study's figures."""

    methods: tuple[str, ...] = Field(
        min_length=1, description="its rows, in this order: methods of `report.paper`"
    )
    oracle: StudyName = Field(
        description="the split with all labels, which is the last column; relative performance "
        "is the mIoU in percent of the mIoU on this split"
    )
    notes: tuple[PaperNote, ...] = Field(default=(), description="its footnotes")


class ReportSettings(Settings):
    """Folder and title of tables and figures, and the paper's numbers for comparison."""

    added: ClassVar = ("paper_table",)

    name: StudyName | None = Field(
        default=None,
        description="name of the folder in `results/<study>/report/`; `null`: the study's name",
    )
    title: str = Field(default="", description="title above the table")
    paper: dict[str, dict[StudyName, float]] = Field(
        default={},
        description="the paper's mIoU in percent for each method and split, printed beside this "
        "study's: `{METHOD: {SPLIT: NUMBER}}`; the split is `<split>_valtiny` for models that "
        "valtiny selects",
    )
    paper_table: PaperTable | None = Field(
        default=None,
        description="a table of the paper, printed whole below this study's own: the figures in "
        "`report.paper` of methods that the study may lack, absolute and relative to all labels, "
        "and the study's beside them. Its columns are the study's splits. `null`: none",
    )

    @model_validator(mode="after")
    def _table_has_only_printed_figures(self) -> ReportSettings:
        table = self.paper_table
        for method in table.methods if table else ():
            if method not in self.paper:
                raise ValueError(
                    f"paper_table.methods: found {shown(method)}, expected a method of "
                    "report.paper; correct the name, or add its figures"
                )
        cells = [cell for note in (table.notes if table else ()) for cell in note.cells.items()]
        for method, split in ((method, split) for method, splits in cells for split in splits):
            if split not in self.paper.get(method, {}):
                raise ValueError(
                    f"paper_table.notes: found {shown(method)} on split {shown(split)}, which has "
                    "no figure in report.paper; correct the names, or add the figure"
                )
        return self


class Experiment(Compute):
    """A whole experiment: all files merged, and defaults where they set nothing."""

    name: StudyName = Field(description="name of the study, whose results lie in `results/<name>/`")
    data: str = Field(
        description="folder of the data set, which is only read; with `format: digits`, the folder "
        "inside results/ into which the scenes are drawn"
    )
    format: Format = Field(
        description="layout of the folder `data`: `camvid`, `cityscapes` and `voc` as published; "
        "`folder`, subfolders images/ and labels/ with train/, val/ and test/; `pairs`, any "
        "folders of images and masks; `annotations`, images and the files of a labeling tool; "
        "`digits`, scenes that the workflow draws"
    )
    classes: dict[ClassName, Colour] | None = Field(
        default=None,
        description="names and colours of the classes, in the order of their numbers: "
        "`{NAME: '#rrggbb'}`; `null`: those of the format, if it has its own",
    )
    labels: dict[MaskValue, str] | None = Field(
        default=None,
        description="for each value in the masks, a number or a colour '#rrggbb', the name of its "
        "class; `null`: as the format says, else 0, 1, 2, … in the order of `classes`",
    )
    ignore: tuple[MaskValue, ...] | None = Field(
        default=None,
        description="mask values of pixels that have no class; `null`: the values of the format, "
        "else 255; none if masks hold colours",
    )
    window: Window | None = Field(
        default=None,
        description="for 16-bit images: the values that become black and white; `null`: measured "
        "on the training images, so that 0.1 % of their pixels are below and 0.1 % above",
    )
    bands: Bands | None = Field(
        default=None,
        description="the channels of the images that the network gets: one (grey) or three (as "
        "red, green and blue), by number from 1, e.g. `[4, 3, 2]`, or by the name that an OME-TIFF "
        "gives, e.g. `[DAPI]`. Images may then have 64 channels. "
        "`null`: the first, or the first three, of at most four",
    )
    test_from_val: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="move every n-th validation image, sorted by id, to the test subset; 0: none",
    )
    subsets: SubsetPatterns | None = Field(
        default=None,
        description="which images are trained on and held out, for every format, in place of the "
        "data set's own subsets. `null`: those of the data set, or of `pairs.val` and `pairs.test`",
    )
    group: Grouping | None = Field(
        default=None,
        description="which images are alike, for every format: a regular expression whose first "
        "part in parentheses names the group, as that of `pairs.group`, or the number of "
        "neighbouring frames in a group. Frames are images whose names differ only in their last "
        "number. Intervals resample whole groups, and folds hold them out. With `subsets` and "
        "`pairs`, the groups of a regular expression stay in one subset. `null`: `pairs.group`, or "
        "else short blocks of neighbouring frames for intervals, and single images for folds",
    )
    digits: DrawSettings = DrawSettings()
    pairs: PairSettings | None = Field(
        default=None,
        description="with `format: pairs` and `format: annotations`: where images and masks or "
        "annotations are, how they are matched, and which images are held out",
    )
    annotations: AnnotationSettings | None = Field(
        default=None,
        description="with `format: annotations`: which class each label in the files means, and "
        "what pixels without a shape are. Masks are drawn in `results/<study>/masks`",
    )
    preset: Literal["standard", "paper", "released"] = Field(
        default="standard",
        description="set of defaults, from workflow/presets.yaml; keys of the experiment override "
        "it",
    )
    network: NetworkSettings = NetworkSettings()
    start_from: str | None = Field(
        default=None,
        description="model.pt of an earlier study with the same classes and network. Round 0 and "
        "other trainings that do not continue a round start with its weights; `null`: with "
        "`network.weights`",
    )
    train: TrainSettings = TrainSettings()
    supervised: TrainOverrides = Field(
        default=TrainOverrides(),
        description="keys of `train` that have other values in trainings on labeled images alone: "
        "in round 0, and in methods with `labeling: none`",
    )
    by_split: dict[Name, TrainOverrides] = Field(
        default={},
        description="for each named split, the keys of `train` that have other values on it",
    )
    switches: SwitchOverrides = Field(
        default=SwitchOverrides(),
        description="switches for all methods whose rows in workflow/methods.yaml do not set them. "
        "Methods that write no label files ignore the switches about label files; methods with "
        "`labeling: none` also ignore those about rounds",
    )
    prediction: PredictionSettings = PredictionSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    splits: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*$")], SplitRule] = Field(
        min_length=1
    )
    runs: tuple[Run, ...] = Field(min_length=1)
    report: ReportSettings = ReportSettings()
    keep_predictions: Literal["all", "supervised"] = Field(
        default="all",
        description="`all`: keep every predictions.h5; `supervised`: delete those of round 1 and "
        "later after their use",
    )
    remake: bool = Field(
        default=False,
        description="make deleted trainings and predictions of a finished study again; `false`: "
        "they are listed, with what they cost",
    )
    replace: bool = Field(
        default=False,
        description="let changed settings replace finished trainings; `false`: the run stops and "
        "lists the trainings that they would replace",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto",
        description="device on which networks run; `auto`: CUDA if there is one, else MPS, else "
        "the CPU",
    )
    workers: Annotated[int, Field(ge=0, le=1024)] = Field(
        default=0,
        description="number of extra processes in each job that load images, and of threads that "
        "encode predictions; 0: the job loads images itself",
    )
    save_seconds: NonNegative = Field(
        default=60.0,
        description="seconds between two saves of an unfinished training, from which it resumes",
    )
    container: str | None = Field(
        default=None,
        # Snakemake writes it into a shell command without quotes.
        pattern=r"^[A-Za-z0-9_./][A-Za-z0-9_./:@+-]*$",
        description="container image, `docker://…` or a .sif file, in which jobs run if snakemake "
        "is called with `--software-deployment-method apptainer`; see Dockerfile",
    )
    shards: Positive = Field(
        default=1,
        description="number of jobs that share each prediction of the unlabeled images, and each "
        f"labeling, in parts of {PART_IMAGES} images. The files are the same for every number, and "
        "changing it reruns nothing",
    )

    @model_validator(mode="after")
    def _images_are_held_out_and_grouped_in_one_way(self) -> Experiment:
        pairs = self.pairs or PairSettings(labels=".")
        others = {
            "test_from_val": self.test_from_val, "pairs.val": pairs.val, "pairs.test": pairs.test,
        }  # fmt: skip
        given = [key for key, value in others.items() if value]
        if self.subsets and given:
            raise ValueError(
                f"subsets: found together with {given[0]}, which also holds images out; remove one "
                "of the two"
            )
        if self.group is not None and pairs.group is not None:
            raise ValueError("group: found together with pairs.group; remove one of the two")
        return self

    @model_validator(mode="after")
    def _sizes_are_the_networks(self) -> Experiment:
        for key in ("prediction", "evaluation"):
            size = getattr(self, key).size
            if size and self.network.input_scale != 1:
                raise ValueError(
                    f"network.input_scale: found {self.network.input_scale:g}, but {key}.size is "
                    f"{list(size)} and fixes the size that the network sees (the presets `paper` "
                    f"and `released` set it, too); set input_scale to 1, or {key}.size to null"
                )
        return self
