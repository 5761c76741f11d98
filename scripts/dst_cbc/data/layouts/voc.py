"""PASCAL VOC 2012 with the masks of SBD.

The folder is `VOC2012` of VOC's own archive. In it, `SegmentationClassAug` holds the masks of VOC
and SBD. `ImageSets/Segmentation/trainaug.txt` lists the training images; without that file, they
are all images with a mask that `val.txt` does not list.
"""

from collections.abc import Iterator
from pathlib import Path

from ...runtime.errors import DataError
from ...runtime.reading import read_ids
from ...settings.data import DatasetStage
from .layout import Layout, Record, files_below

CLASSES = {
    "background": "#000000", "aeroplane": "#800000", "bicycle": "#008000", "bird": "#808000",
    "boat": "#000080", "bottle": "#800080", "bus": "#008080", "car": "#808080", "cat": "#400000",
    "chair": "#c00000", "cow": "#408000", "dining table": "#c08000", "dog": "#400080",
    "horse": "#c00080", "motorbike": "#408080", "person": "#c08080", "potted plant": "#004000",
    "sheep": "#804000", "sofa": "#00c000", "train": "#80c000", "tv monitor": "#004080",
}  # fmt: skip

# The authors' valtiny: a few validation images, so that selection needs few masks, too.
VALTINY = (
    "2007_000033", "2007_000129", "2007_000175", "2007_000452", "2007_000491", "2007_000830",
    "2007_001239", "2007_002094", "2007_006046", "2007_006866", "2007_009756", "2008_000215",
    "2008_004610", "2008_005242", "2008_005254", "2008_007811", "2010_001646", "2010_002531",
    "2010_003854", "2011_003011",
)  # fmt: skip


def _records(root: Path, dataset: DatasetStage) -> Iterator[Record]:
    """Yield the images of the devkit's VOC2012, with VOC's and SBD's masks in SegmentationClassAug.

    Training images are listed in ImageSets/Segmentation/trainaug.txt; without that file, they are
    all images with a mask in SegmentationClassAug that are not in val.txt. Raises DataError when
    JPEGImages, val.txt or SegmentationClassAug is missing.
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


LAYOUT = Layout(
    _records,
    CLASSES,
    valtiny=VALTINY,
    hint=" to the folder VOC2012 of VOCtrainval_11-May-2012.tar, with SegmentationClassAug in it. "
    "`snakemake download_voc` downloads and builds such a folder in results/downloads/voc",
)
