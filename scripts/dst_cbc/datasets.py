"""Layouts of data sets on disk: each yields the same records. One function per layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from . import digits, pairs
from .files import DataError, read_ids
from .pairs import IMAGE_SUFFIXES, MASK_SUFFIXES, files_below
from .settings import IGNORED, DatasetStage, Experiment, TrainStage


@dataclass(frozen=True)
class Record:
    """One image: paths below the data set's folder, with `/`; label "" where there is none."""

    id: str
    image: str
    label: str
    subset: str


@dataclass(frozen=True)
class Layout:
    """What a format knows by itself.

    labels: None where masks hold 0, 1, 2, … in classes' order. valtiny: ids of val.
    """

    records: Callable[[Path, DatasetStage], Iterator[Record]]
    classes: Mapping[str, str] | None = None
    labels: Mapping[int, str] | None = None
    ignore: tuple[int, ...] = (IGNORED,)
    valtiny: tuple[str, ...] = ()
    hint: str = ""


def dataset_stage(experiment: Experiment) -> DatasetStage:
    """The data set's settings, completed by what its format knows.

    Raises ValueError when the format has no classes of its own and the experiment names none,
    and when masks' values and classes do not go together.
    """
    layout = LAYOUTS[experiment.format]
    classes = experiment.classes or layout.classes
    if classes is None:
        raise ValueError(f"classes: missing; format {experiment.format!r} knows none of its own")
    labels = experiment.labels or layout.labels or dict(enumerate(classes))
    ignore = experiment.ignore
    if ignore is None:
        ignore = layout.ignore if all(isinstance(value, int) for value in labels) else ()
        if layout.labels:
            # Other values than the format's own may be named.
            ignore = tuple(value for value in ignore if value not in labels)
    if (experiment.pairs is not None) != (experiment.format == "pairs"):
        raise ValueError("pairs: goes with `format: pairs`, and only with it")
    try:
        return DatasetStage(
            format=experiment.format,
            classes=dict(classes),
            labels=labels,
            ignore=ignore,
            window=experiment.window,
            test_from_val=experiment.test_from_val,
            digits=experiment.digits if experiment.format == "digits" else None,
            pairs=experiment.pairs,
        )
    except ValidationError as error:
        faults = "; ".join(fault["msg"].removeprefix("Value error, ") for fault in error.errors())
        raise ValueError(f"classes, labels, ignore: {faults}") from None


def list_records(root: Path, dataset: DatasetStage) -> list[Record]:
    """Every image of the data set, sorted by id; nothing is decoded.

    Raises DataError when the folder or its lists are missing, two images share an id, or an id
    could not be the name of a file below a folder.
    """
    if dataset.format != "digits" and not root.is_dir():
        hint = LAYOUTS[dataset.format].hint
        raise DataError(f"{root}: no such folder; set `data` (or --config data=PATH){hint}")
    records = sorted(LAYOUTS[dataset.format].records(root, dataset), key=lambda record: record.id)
    if not records:
        raise DataError(f"{root}: no images found in the layout `{dataset.format}`")
    problems = [
        f"{root}: id {id!r} occurs {count} times; ids must be unique"
        for id, count in Counter(record.id for record in records).items()
        if count > 1
    ]
    alike = Counter(id.casefold() for id in {record.id for record in records})
    problems += [
        f"{root}: id {record.id!r} and another differ only in case; many disks cannot hold both"
        for record in records
        if alike[record.id.casefold()] > 1
    ]
    problems += [
        f"{root}: {record.id!r} cannot be an id: it would not stay below its folder"
        for record in records
        if not _is_safe(record.id)
    ]
    if problems:
        raise DataError("\n".join(problems))
    return _hold_back(records, dataset.test_from_val)


def selecting(images: Iterable, stage: TrainStage) -> list:
    """Those of records, or of rows of dataset.csv, whose mIoU chooses the best model."""
    if stage.select == "valtiny":
        chosen = set(stage.valtiny)
        return [image for image in images if image.id in chosen]
    return [image for image in images if image.subset == "val"]


def _hold_back(records: list[Record], every: int) -> list[Record]:
    """Move every n-th validation image to the test subset; 0 moves none."""
    if not every:
        return records
    held = {r.id for r in [r for r in records if r.subset == "val"][every - 1 :: every]}
    return [replace(r, subset="test") if r.id in held else r for r in records]


def _is_safe(id: str) -> bool:
    path = PurePosixPath(id)
    return not (path.is_absolute() or ".." in path.parts or set(id) & set("\\\0\n\r"))


def _camvid(root: Path, dataset: DatasetStage) -> Iterator[Record]:
    """SegNet's layout: train.txt, val.txt, test.txt with lines `IMAGE MASK`.

    The lists carry the absolute paths of the machine they were made on; only the last two
    parts, `train/NAME.png` and `trainannot/NAME.png`, mean anything.
    """
    for subset in ("train", "val", "test"):
        listing = root / f"{subset}.txt"
        if not listing.is_file():
            if subset == "train":
                raise DataError(f"{listing}: no such file; format `camvid` needs it")
            continue
        for number, line in enumerate(listing.read_text().splitlines(), 1):
            if not line.strip():
                continue
            paths = [PurePosixPath(*PurePosixPath(part).parts[-2:]) for part in line.split()]
            if len(paths) != 2:
                raise DataError(f"{listing}, line {number}: found {line!r}, expected `IMAGE MASK`")
            yield Record(paths[0].stem, str(paths[0]), str(paths[1]), subset)


def _voc(root: Path, dataset: DatasetStage) -> Iterator[Record]:
    """The devkit's folder VOC2012, and in it SegmentationClassAug: VOC's and SBD's masks.

    Training images are those of ImageSets/Segmentation/trainaug.txt, else all with a mask there
    that are not in val.txt. Raises DataError when JPEGImages, val.txt or the masks are missing.
    """
    lists = root / "ImageSets/Segmentation"
    trainaug = lists / "trainaug.txt"
    for needed, advice in (
        (root / "JPEGImages", "set `data` to the folder VOCdevkit/VOC2012 of VOC's own archive"),
        (lists / "val.txt", "get it from VOC's own archive, VOCtrainval_11-May-2012.tar"),
        (
            root / "SegmentationClassAug",
            "get the masks of VOC and SBD as PNGs of class numbers, SegmentationClassAug.zip, or "
            "make them from SBD's own archive: python scripts/build_trainaug.py",
        ),
    ):
        if not needed.exists():
            raise DataError(f"{needed}: not found; format `voc` needs it: {advice}")
    masks = dict(files_below(root, "SegmentationClassAug", (".png",)))
    val = read_ids(lists / "val.txt")
    train = read_ids(trainaug) if trainaug.is_file() else masks.keys() - set(val)
    for id in train:
        yield Record(id, f"JPEGImages/{id}.jpg", masks.get(id, ""), "train")
    for id in val:
        label = masks.get(id, f"SegmentationClass/{id}.png")
        yield Record(id, f"JPEGImages/{id}.jpg", label, "val")


def _cityscapes(root: Path, dataset: DatasetStage) -> Iterator[Record]:
    """leftImg8bit/<subset>/<id>_leftImg8bit.png and gtFine/<subset>/<id>_gtFine_labelIds.png.

    labelTrainIds instead where `labels` names their values, all of 0 to 18. An id is <city>/<name>.
    The test subset has no masks and is left out. Raises DataError when there is no gtFine, or only
    the other kind of a mask.
    """
    kinds = ["labelIds", "labelTrainIds"]
    if {*dataset.labels} == {*range(len(CITYSCAPES_CLASSES))}:
        kinds.reverse()
    wanted, other = kinds
    if not (root / "gtFine").is_dir():
        raise DataError(
            f"{root / 'gtFine'}: no such folder; format `cityscapes` needs it: get "
            "gtFine_trainvaltest.zip of www.cityscapes-dataset.com and unpack it in `data`"
        )
    for subset in ("train", "val"):
        masks = dict(files_below(root, f"gtFine/{subset}", (".png",)))
        for name, path in files_below(root, f"leftImg8bit/{subset}", (".png",)):
            id = name.removesuffix("_leftImg8bit")
            label = masks.get(f"{id}_gtFine_{wanted}", "")
            if not label and f"{id}_gtFine_{other}" in masks:
                raise DataError(
                    f"{root}/gtFine/{subset}/{id}_gtFine_{wanted}.png: not found, but {other}; to "
                    "read labelTrainIds, name their values in the experiment file, `labels: "
                    f"{_yaml_of(enumerate(CITYSCAPES_CLASSES))}`; to read labelIds, leave "
                    "`labels` out"
                )
            yield Record(id, path, label, subset)


def _yaml_of(labels: Iterable[tuple[int, str]]) -> str:
    return f"{{{', '.join(f'{value}: {name}' for value, name in labels)}}}"


def _folder(root: Path, dataset: DatasetStage) -> Iterator[Record]:
    """images/<subset>/<id>.<png|jpg|…> and, where there is a mask, labels/<subset>/<id>.<png|…>.

    Raises DataError when an image has two masks.
    """
    for subset in ("train", "val", "test"):
        masks: dict[str, str] = {}
        for id, path in files_below(root, f"labels/{subset}", MASK_SUFFIXES):
            if masks.setdefault(id, path) != path:
                raise DataError(f"{root}: two masks of {id!r}: {masks[id]} and {path}; keep one")
        for id, path in files_below(root, f"images/{subset}", IMAGE_SUFFIXES):
            yield Record(id, path, masks.get(id, ""), subset)


def _pairs(root: Path, dataset: DatasetStage) -> Iterator[Record]:
    """A folder of images, one of masks, and lists of what is held out."""
    for id, image, label, subset in pairs.listed(root, dataset.pairs):
        yield Record(id, image, label, subset)


def _digits(root: Path, dataset: DatasetStage) -> Iterator[Record]:
    """The scenes as they will be drawn: known before they exist."""
    for subset, id in digits.scene_ids(dataset.digits):
        yield Record(id, f"images/{subset}/{id}.png", f"labels/{subset}/{id}.png", subset)


CAMVID_CLASSES = {
    "sky": "#808080",
    "building": "#800000",
    "pole": "#c0c080",
    "road": "#804080",
    "pavement": "#3c28de",
    "tree": "#808000",
    "sign": "#c08080",
    "fence": "#404080",
    "car": "#400080",
    "pedestrian": "#404000",
    "bicyclist": "#0080c0",
}

VOC_CLASSES = {
    "background": "#000000",
    "aeroplane": "#800000",
    "bicycle": "#008000",
    "bird": "#808000",
    "boat": "#000080",
    "bottle": "#800080",
    "bus": "#008080",
    "car": "#808080",
    "cat": "#400000",
    "chair": "#c00000",
    "cow": "#408000",
    "dining table": "#c08000",
    "dog": "#400080",
    "horse": "#c00080",
    "motorbike": "#408080",
    "person": "#c08080",
    "potted plant": "#004000",
    "sheep": "#804000",
    "sofa": "#00c000",
    "train": "#80c000",
    "tv monitor": "#004080",
}

CITYSCAPES_CLASSES = {
    "road": "#804080",
    "sidewalk": "#f423e8",
    "building": "#464646",
    "wall": "#66669c",
    "fence": "#be9999",
    "pole": "#999999",
    "traffic light": "#faaa1e",
    "traffic sign": "#dcdc00",
    "vegetation": "#6b8e23",
    "terrain": "#98fb98",
    "sky": "#4682b4",
    "person": "#dc143c",
    "rider": "#ff0000",
    "car": "#00008e",
    "truck": "#000046",
    "bus": "#003c64",
    "train": "#005064",
    "motorcycle": "#0000e6",
    "bicycle": "#770b20",
}
# The labelIds of the classes, in their order; the others, up to 33, are not evaluated.
_CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33)

# The authors' few validation images, for selection with about as many masks as there are labels.
VOC_VALTINY = (
    "2007_000033", "2007_000129", "2007_000175", "2007_000452", "2007_000491", "2007_000830",
    "2007_001239", "2007_002094", "2007_006046", "2007_006866", "2007_009756", "2008_000215",
    "2008_004610", "2008_005242", "2008_005254", "2008_007811", "2010_001646", "2010_002531",
    "2010_003854", "2011_003011",
)  # fmt: skip
CITYSCAPES_VALTINY = tuple(
    f"{name.partition('_')[0]}/{name}"
    for name in (
        "frankfurt_000000_000294", "frankfurt_000000_002963", "frankfurt_000000_012868",
        "frankfurt_000000_016286", "frankfurt_000000_020321", "frankfurt_000001_002512",
        "frankfurt_000001_004736", "frankfurt_000001_005184", "frankfurt_000001_007622",
        "frankfurt_000001_025713", "frankfurt_000001_029086", "frankfurt_000001_058176",
        "frankfurt_000001_066092", "lindau_000005_000019", "lindau_000014_000019",
        "munster_000048_000019", "munster_000055_000019", "munster_000145_000019",
        "munster_000150_000019",
    )
)  # fmt: skip

LAYOUTS = {
    "camvid": Layout(
        _camvid,
        CAMVID_CLASSES,
        ignore=(11,),
        hint=". `snakemake download_camvid` gets CamVid from the network, into "
        "results/downloads/camvid",
    ),
    "cityscapes": Layout(
        _cityscapes,
        CITYSCAPES_CLASSES,
        labels=dict(zip(_CITYSCAPES_IDS, CITYSCAPES_CLASSES, strict=True)),
        ignore=(*sorted({*range(34)} - {*_CITYSCAPES_IDS}), IGNORED),
        valtiny=CITYSCAPES_VALTINY,
        hint=": the folder of leftImg8bit and gtFine. Only www.cityscapes-dataset.com gives them, "
        "to those who register: leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, both "
        "unpacked into one folder",
    ),
    "folder": Layout(_folder),
    "digits": Layout(_digits, digits.CLASSES),
    "pairs": Layout(_pairs),
    "voc": Layout(
        _voc,
        VOC_CLASSES,
        valtiny=VOC_VALTINY,
        hint=": the folder VOC2012 of VOCtrainval_11-May-2012.tar, with SegmentationClassAug in "
        "it. `snakemake download_voc` gets and makes all of it, into results/downloads/voc",
    ),
}
