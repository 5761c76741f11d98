"""Builds VOC 2012 with the masks of VOC and of SBD, 10582 training images, from both releases."""

import os
import re
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..runtime import pool
from ..runtime.errors import DataError
from ..runtime.files import open_regular
from ..runtime.paths import make_folder
from ..runtime.reading import explained, read_text
from ..settings.data import IGNORED, DatasetStage
from .layouts.voc import CLASSES as VOC_CLASSES
from .masks import indexed_png, label_table, open_label, palette

LISTS = "ImageSets/Segmentation"


def build(voc: Path, sbd: Path, out: Path, processes: int = 1) -> tuple[int, int]:
    """Make the folder `out` in the layout `voc`; return the numbers of train and val images.

    voc: the devkit's VOC2012; sbd: benchmark_RELEASE/dataset. Training images are VOC's train and
    SBD's train and val, without VOC's val. An image has VOC's mask if there is one, else SBD's
    `.mat` file. JPEGImages becomes a link to `<voc>/JPEGImages`. `out` appears complete or not at
    all. Raises DataError when files are missing or damaged (all bad masks are named at once), and
    when `out` lies inside a release.
    """
    _require(voc, ("JPEGImages", "SegmentationClass", f"{LISTS}/train.txt", f"{LISTS}/val.txt"))
    _require(sbd, ("cls", "train.txt", "val.txt"))
    for release in (voc, sbd):
        if out.resolve().is_relative_to(release.resolve()):
            raise DataError(f"{out}: lies in {release}, which is only read; choose another folder")
    val = _ids(voc / LISTS / "val.txt")
    own = {*_ids(voc / LISTS / "train.txt"), *val}
    train = sorted(own.union(_ids(sbd / "train.txt"), _ids(sbd / "val.txt")).difference(val))
    masks = [
        voc / f"SegmentationClass/{id}.png" if id in own else sbd / f"cls/{id}.mat"
        for id in (*train, *val)
    ]
    make_folder(out.parent)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".trainaug.") as temporary:
        folder = Path(temporary, "data")
        for name, ids in (("trainaug", train), ("val", val)):
            listing = folder / LISTS / f"{name}.txt"
            listing.parent.mkdir(parents=True, exist_ok=True)
            listing.write_text("".join(f"{id}\n" for id in ids))
        _write_masks(masks, folder / "SegmentationClassAug", processes)
        images = os.path.relpath((voc / "JPEGImages").resolve(), out.parent.resolve() / out.name)
        (folder / "JPEGImages").symlink_to(images)
        os.replace(folder, out)
    return len(train), len(val)


def _require(release: Path, names: tuple[str, ...]) -> None:
    for name in names:
        if not (release / name).exists():
            raise DataError(
                f"{release / name}: not found; expected the folder VOCdevkit/VOC2012 of "
                "VOCtrainval_11-May-2012.tar, and the folder benchmark_RELEASE/dataset of SBD's "
                "benchmark.tgz"
            )


def _ids(listing: Path) -> list[str]:
    ids = read_text(listing).split()
    strange = [id for id in ids if not re.fullmatch(r"\d{4}_\d{6}", id)]
    if strange:
        raise DataError(f"{listing}: found {strange[0]!r}, expected ids such as 2007_000032")
    return ids


def _write_masks(masks: list[Path], folder: Path, processes: int) -> None:
    """Write all masks as indexed PNGs in VOC's colours; raise DataError that names all bad ones."""
    folder.mkdir()
    # SciPy may crash on damaged bytes.
    died = "the process that read it ended; download the archives again"
    done = pool.results(
        partial(_write_mask, folder), masks, processes, lambda path: f"{path}: {died}"
    )
    done = tqdm(done, "masks", len(masks), unit="mask", disable=None)
    problems = [problem for problem in done if problem]
    if problems:
        raise DataError(f"{len(problems)} masks cannot be used:\n" + "\n".join(problems))


def _write_mask(folder: Path, path: Path) -> str:
    """Write one mask as a PNG; return what is wrong with the mask, or ""."""
    try:
        classes = sbd_mask(path) if path.suffix == ".mat" else _voc_mask(path)
    except DataError as error:
        return str(error)
    colours = palette(list(VOC_CLASSES.values()))
    (folder / f"{path.stem}.png").write_bytes(indexed_png(classes, colours))
    return ""


def _voc_mask(path: Path) -> np.ndarray:
    dataset = DatasetStage(
        format="voc",
        classes=VOC_CLASSES,
        labels=dict(enumerate(VOC_CLASSES)),
        ignore=(IGNORED,),
        test_from_val=0,
        digits=None,
    )
    return np.asarray(open_label(path, label_table(dataset)))


def sbd_mask(path: Path) -> np.ndarray:
    """Read a `.mat` file of SBD: class numbers 0 to 20, uint8 (H, W), without ignored pixels.

    Raises DataError when the file is missing, truncated or holds anything else.
    """
    from scipy.io import loadmat

    if not path.is_file():
        raise DataError(f"{path}: no such file; it is part of SBD's benchmark.tgz")
    with explained(path, "SBD's mask, GTcls.Segmentation", "download SBD again"):
        with open_regular(path) as file:
            mask = loadmat(file, variable_names=["GTcls"])["GTcls"]["Segmentation"][0, 0]
        mask = np.asarray(mask)
    if mask.ndim != 2 or mask.dtype != np.uint8 or mask.max(initial=0) >= len(VOC_CLASSES):
        raise DataError(
            f"{path}: found GTcls.Segmentation {mask.dtype} {mask.shape}, expected class numbers "
            f"uint8 (height, width), none above {len(VOC_CLASSES) - 1}"
        )
    return mask
