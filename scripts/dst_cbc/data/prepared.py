"""Makes images and masks for `format: pairs` of public data sets that have another form."""

import io
import re
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..runtime.errors import DataError
from .images import decode_mask, open_image
from .masks import indexed_png, numbers_of, palette

GREY = 2
"""Most that the channels of a grey image differ."""
RARE = 20
"""Kinds of nuclei images with fewer images go into the folder `other`."""
REACH = 2
"""Most pixels between a border pixel and another nucleus, along rows or columns."""
HEART = slice(64, 192)
"""Rows, and columns, of a cardiac image of 256x256 pixels that are kept."""

_AGAIN = "download the data set again"
_UNUSABLE = "without a usable mask, so without one here"
_LEFT_OUT = "with a mask of another size or without pixels, which is left out"
_VALUES = "with a mask of other values than 0 and 255, of which those above 127 are nucleus"
_OVERLAP = "with masks that overlap, where the later one counts"


def nuclei(source: Path, out: Path) -> str:
    """Make one mask for each image of the Data Science Bowl 2018; return what was done.

    source: a folder for each image, with `images/ID.png` and a mask for each nucleus in `masks/`.
    Values: 0 background, 1 nucleus, 2 border: the pixels of a nucleus that have a pixel of another
    nucleus within REACH rows and columns. Raises DataError for files that cannot be read.
    """
    problems, borders = Counter(), 0
    folders = sorted(source.iterdir())
    for folder in tqdm(folders, "images", unit="image", disable=None):
        image = open_image(folder / f"images/{folder.name}.png")
        grey = np.ptp(np.asarray(image), axis=2).max() <= GREY
        kind = f"{image.width}x{image.height}-{'grey' if grey else 'colour'}"
        name = f"{kind}/{folder.name[:12]}.png"
        _write(out / "images" / name, _png(image.convert("L") if grey else image))
        numbers, found = _numbered(folder / "masks", (image.height, image.width))
        problems.update(found)
        if not numbers.any():
            problems[_UNUSABLE] += 1
            continue
        border = _border(numbers)
        borders += bool(border.any())
        classes = (numbers > 0).astype(np.uint8) + border
        _write_mask(out / "masks" / name, classes, "#56b4e9", "#d55e00")
    _gather_rare(out)
    return (
        f"{len(folders)} images, in folders of their size and colour type (`other`: sizes of fewer "
        f"than {RARE} images). All masks of an image are drawn into one: 0 background, 1 nucleus, "
        f"2 border, the pixels of a nucleus that lie within {REACH} pixels of another nucleus "
        f"({borders} images have some). For two classes, let 1 and 2 be the nucleus. Images: "
        + "; ".join(f"{problems[one]} {one}" for one in (_UNUSABLE, _LEFT_OUT, _VALUES, _OVERLAP))
        + ".\n"
    )


def _numbered(folder: Path, shape: tuple[int, int]) -> tuple[np.ndarray, set[str]]:
    """Number the nuclei from 1, uint16 (H, W), 0 is background; and say what was wrong."""
    numbers, found = np.zeros(shape, np.uint16), set()
    for number, path in enumerate(sorted(folder.glob("*.png")), 1):
        values = numbers_of(decode_mask(path))
        if values is None:
            raise DataError(f"{path}: a mask of colours, expected of black and white; {_AGAIN}")
        if values.shape != shape or not values.any():
            found.add(_LEFT_OUT)
            continue
        inside = values > 127
        if (values[inside] != 255).any() or values[~inside].any():
            found.add(_VALUES)
        if numbers[inside].any():
            found.add(_OVERLAP)
        numbers[inside] = number
    return numbers, found


def _border(numbers: np.ndarray) -> np.ndarray:
    """Whether another nucleus lies within REACH rows and columns of a nucleus' pixel, (H, W)."""
    from scipy.ndimage import maximum_filter, minimum_filter

    window = 2 * REACH + 1
    is_nucleus = numbers > 0
    lowest = minimum_filter(np.where(is_nucleus, numbers, np.iinfo(numbers.dtype).max), window)
    return is_nucleus & (maximum_filter(numbers, window) != lowest)


def _gather_rare(out: Path) -> None:
    for folder in sorted((out / "images").iterdir()):
        paths = sorted(folder.iterdir())
        if len(paths) >= RARE:
            continue
        for path in (*paths, *sorted((out / "masks" / folder.name).glob("*"))):
            target = path.parents[1] / "other" / path.name
            target.parent.mkdir(exist_ok=True)
            path.rename(target)
        for kind in ("images", "masks"):
            if (out / kind / folder.name).is_dir():
                (out / kind / folder.name).rmdir()


def sunnybrook(source: Path, out: Path) -> str:
    """Cut the heart out of the Sunnybrook cardiac images; return what was done.

    source: `Train` and `Test`, each with `Images/PART/NAME` and `Labels/PART/NAME`. Values: 0
    background, 1 cavity of the left ventricle. Raises DataError for files that cannot be read, a
    name without patient and frame, and a mask that is missing, of another size, or not inside of
    rows and columns HEART.
    """
    paths = sorted(source.glob("*/Images/*/*.png"))
    for path in tqdm(paths, "images", unit="image", disable=None):
        subset, _, part, name = path.relative_to(source).parts
        named = re.fullmatch(r"(.+)-IM-\d+-(\d+)\.dcm\.png", name)
        if not named:
            raise DataError(f"{path}: expected a name as SC-N-02-IM-0001-0048.dcm.png; {_AGAIN}")
        label = source / subset / "Labels" / part / name
        image, values = open_image(path), numbers_of(decode_mask(label))
        if values is None or values.shape != image.size[::-1]:
            raise DataError(f"{label}: expected grey values of the size {image.size}; {_AGAIN}")
        cavity = values > 0
        inside = cavity[HEART, HEART]
        if inside.sum() != cavity.sum():
            raise DataError(
                f"{label}: marks pixels outside of rows and columns {HEART.start} to "
                f"{HEART.stop - 1}, which are left out; {_AGAIN}"
            )
        to = f"{'test-' if subset == 'Test' else ''}{named[1]}/{named[2]}.png"
        heart = (HEART.start, HEART.start, HEART.stop, HEART.stop)
        _write(out / "images" / to, _png(image.convert("L").crop(heart)))
        _write_mask(out / "masks" / to, inside.astype(np.uint8), "#d55e00")
    patients = len({path.parent for path in (out / "images").glob("*/*.png")})
    return (
        f"{len(paths)} images of {patients} patients, a folder for each. `test-` is before the "
        "patients of the folder Data/Test of the source. Images and masks are cut to rows and "
        f"columns {HEART.start} to {HEART.stop - 1}, in which all masks lie. Masks: 0 background, "
        "1 cavity of the left ventricle.\n"
    )


def cwfid(source: Path, out: Path) -> str:
    """Halve the images and masks of the Crop/Weed Field Image Dataset; return what was done.

    source: `images/NNN_image.png` and `annotations/NNN_annotation.png`. Values: 0 soil, 1 crop, 2
    weed. Raises DataError for files that cannot be read, an annotation that is missing or of
    another size than its image, and one of other colours than black, green and red.
    """
    paths = sorted((source / "images").glob("*_image.png"))
    for path in tqdm(paths, "images", unit="image", disable=None):
        id = path.name.removesuffix("_image.png")
        annotation = source / f"annotations/{id}_annotation.png"
        image, drawn = open_image(path), open_image(annotation)
        if image.size != drawn.size:
            raise DataError(
                f"{annotation}: size {drawn.size}, its image has {image.size}; {_AGAIN}"
            )
        half = (image.width // 2, image.height // 2)
        pixels = np.asarray(drawn.resize(half, Image.Resampling.NEAREST))
        soil, crop, weed = (
            (pixels == colour).all(axis=2) for colour in ((0, 0, 0), (0, 255, 0), (255, 0, 0))
        )
        if not (soil | crop | weed).all():
            raise DataError(
                f"{annotation}: other colours than black (soil), green (crop) and red (weed); "
                f"{_AGAIN}"
            )
        buffer = io.BytesIO()
        image.resize(half, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=92)
        _write(out / f"images/{id}.jpg", buffer.getvalue())
        classes = (crop + 2 * weed).astype(np.uint8)
        _write_mask(out / f"labels/{id}.png", classes, "#00ff00", "#ff0000")
    return (
        f"{len(paths)} photographs, halved in size (Lanczos, JPEG of quality 92), and their "
        "annotations (the nearest pixel): 0 soil, 1 crop, 2 weed.\n"
    )


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=False, compress_level=6)
    return buffer.getvalue()


def _write_mask(path: Path, classes: np.ndarray, *colours: str) -> None:
    """Write class numbers, uint8 (H, W); colours: of the classes from 1 on. 0 is black."""
    _write(path, indexed_png(classes, palette(["#000000", *colours])))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Never over another file: two images of one name would be one.
    with open(path, "xb") as file:
        file.write(content)
