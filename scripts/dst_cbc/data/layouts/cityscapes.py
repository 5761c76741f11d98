"""Cityscapes, in the folders of its own archives.

Images are `leftImg8bit/<subset>/<city>/<name>_leftImg8bit.png`, masks
`gtFine/<subset>/<city>/<name>_gtFine_labelIds.png`. An id is `<city>/<name>`. Masks of
`labelTrainIds` are read where `labels` names their values, 0 to 18. The published test subset has
no masks and is left out.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from ...runtime.errors import DataError
from ...settings.data import IGNORED, DatasetStage
from .layout import Layout, Record, files_below

CLASSES = {
    "road": "#804080", "sidewalk": "#f423e8", "building": "#464646", "wall": "#66669c",
    "fence": "#be9999", "pole": "#999999", "traffic light": "#faaa1e", "traffic sign": "#dcdc00",
    "vegetation": "#6b8e23", "terrain": "#98fb98", "sky": "#4682b4", "person": "#dc143c",
    "rider": "#ff0000", "car": "#00008e", "truck": "#000046", "bus": "#003c64", "train": "#005064",
    "motorcycle": "#0000e6", "bicycle": "#770b20",
}  # fmt: skip
# The labelIds of the classes above, in the same order; the other labelIds up to 33 are ignored.
_IDS = (7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33)

# The authors' valtiny: a few validation images, so that selection needs few masks, too.
VALTINY = tuple(
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


def _records(root: Path, dataset: DatasetStage) -> Iterator[Record]:
    """Yield leftImg8bit/<subset>/<id>_leftImg8bit.png with its mask.

    The mask is gtFine/<subset>/<id>_gtFine_labelIds.png, or the labelTrainIds where `labels` names
    exactly the values 0 to 18. An id is <city>/<name>. The test subset has no masks and is left
    out. Raises DataError when gtFine is missing, or only the other kind of mask exists.
    """
    kinds = ["labelIds", "labelTrainIds"]
    if {*dataset.labels} == {*range(len(CLASSES))}:
        kinds.reverse()
    wanted, other = kinds
    if not (root / "gtFine").is_dir():
        raise DataError(
            f"{root / 'gtFine'}: no such folder; format `cityscapes` needs it: get "
            "gtFine_trainvaltest.zip from www.cityscapes-dataset.com and unpack it into the folder "
            "`data`"
        )
    for subset in ("train", "val"):
        masks = dict(files_below(root, f"gtFine/{subset}", (".png",)))
        for name, path in files_below(root, f"leftImg8bit/{subset}", (".png",)):
            id = name.removesuffix("_leftImg8bit")
            label = masks.get(f"{id}_gtFine_{wanted}", "")
            if not label and f"{id}_gtFine_{other}" in masks:
                raise DataError(
                    f"{root}/gtFine/{subset}/{id}_gtFine_{wanted}.png: not found, but there is "
                    f"{other}; to read labelTrainIds, write into the experiment file `labels: "
                    f"{_yaml_of(enumerate(CLASSES))}`; to read labelIds, leave "
                    "`labels` out"
                )
            yield Record(id, path, label, subset)


def _yaml_of(labels: Iterable[tuple[int, str]]) -> str:
    return f"{{{', '.join(f'{value}: {name}' for value, name in labels)}}}"


LAYOUT = Layout(
    _records,
    CLASSES,
    labels=dict(zip(_IDS, CLASSES, strict=True)),
    ignore=(*sorted({*range(34)} - {*_IDS}), IGNORED),
    valtiny=VALTINY,
    hint=" to the folder of leftImg8bit and gtFine. Register at www.cityscapes-dataset.com, "
    "download leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, and unpack both into one "
    "folder",
)
