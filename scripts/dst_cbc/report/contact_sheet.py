"""A contact sheet of one round: images beside their masks, predictions and pseudo labels."""

import functools
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..data.images import open_image
from ..data.index import Row, ground_truth, window_of
from ..data.masks import label_table, palette
from ..data.records import evenly
from ..runtime.files import write_bytes
from ..self_training import confidence
from ..self_training.predictions import read_prediction
from ..self_training.pseudo_labels import read_labels
from ..settings.data import DatasetStage

ROWS = 12
COLUMNS = ["image", "ground truth", "prediction", "pseudo label", "confidence"]
SIDE = 240
"""Longer side of a thumbnail, pixels."""

GAP, LINE = 10, 20
NO_MASK = "#a0a0a0"
CIVIDIS = np.frombuffer(
    bytes.fromhex("00224e08337035456c4f576c6669707d7c78948e77aea371c8b866e5cf52fee838"),
    np.uint8,
).reshape(-1, 3)
"""The colour map cividis at eleven even steps, RGB.

It looks the same with any colour vision, and it keeps its order in grey.
"""


def choose(ids: Sequence[str]) -> list[int]:
    """Return the positions in `ids` of the images to show.

    They are at most ROWS, evenly spaced in the sorted ids, from the first on.
    """
    return evenly(sorted(range(len(ids)), key=ids.__getitem__), ROWS)


def contact_sheet(
    title: str,
    dataset: DatasetStage,
    root: Path,
    rows: Sequence[Row],
    predictions: Path,
    labels: Path,
) -> Image.Image:
    """Return an RGB sheet: one row per image, one column for each of COLUMNS, and a legend.

    rows: all unlabeled images, in the order of the id list; predictions: the predictions.h5 that
    the labels were made from; labels: folder of the PNGs, which are drawn as they are now, in the
    data set's colours. An image without a mask has a grey tile. Raises Changed if an image or a
    mask is not the one that the data check read, and DataError for another missing or damaged file.
    """
    shown = [(place, rows[place]) for place in choose([row.id for row in rows])]
    strips = [
        (row.id, list(_tiles(dataset, root, place, row, predictions, labels)))
        for place, row in shown
    ]
    column = max((tile.width for _, tiles in strips for tile in tiles), default=SIDE)
    column = max(column, SIDE // 2) + GAP
    width = GAP + column * len(COLUMNS)
    legend = _legend(dataset.classes, width)
    heights = [LINE + tiles[0].height + GAP for _, tiles in strips]
    sheet = Image.new("RGB", (width, 2 * LINE + 2 * GAP + sum(heights) + legend.height), "white")
    draw = ImageDraw.Draw(sheet)
    _text(draw, (GAP, GAP), title, width)
    for number, heading in enumerate(COLUMNS):
        _text(draw, (GAP + number * column, GAP + LINE), heading, column)
    top = GAP + 2 * LINE
    for (id, tiles), height in zip(strips, heights, strict=True):
        _text(draw, (GAP, top), id, width, "#606060")
        for number, tile in enumerate(tiles):
            x, y = GAP + number * column, top + LINE
            draw.rectangle((x - 1, y - 1, x + tile.width, y + tile.height), outline="#606060")
            sheet.paste(tile, (x, y))
        top += height
    sheet.paste(legend, (0, top))
    return sheet


def write(path: Path, sheet: Image.Image) -> None:
    """Write a sheet as JPEG; equal sheets give equal bytes."""
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=80, subsampling=0)
    write_bytes(path, buffer.getvalue())


def _tiles(
    dataset: DatasetStage, root: Path, place: int, row: Row, predictions: Path, labels: Path
) -> Iterator[Image.Image]:
    """Yield the thumbnails of one image, one for each column, all of the same size."""
    window = window_of([row])
    image = open_image(root / row.image, window, row.image_sha256, dataset.bands)
    scale = SIDE / max(image.size)
    size = (max(1, round(scale * image.width)), max(1, round(scale * image.height)))
    colours = palette(list(dataset.classes.values()))
    prediction = read_prediction(predictions, place, row.id)
    yield image.resize(size, Image.Resampling.BOX)
    yield _mask(dataset, root, row, colours, size)
    yield _coloured(prediction.classes, colours, size)
    yield _coloured(read_labels(labels / f"{row.id}.png"), colours, size)
    shares = Image.fromarray(confidence.probabilities()[prediction.confidence])
    yield Image.fromarray(heat(np.asarray(shares.resize(size, Image.Resampling.BOX))))


def _mask(
    dataset: DatasetStage, root: Path, row: Row, colours: list[int], size: tuple[int, int]
) -> Image.Image:
    classes = ground_truth(dataset.mask_root(root), row, label_table(dataset))
    if classes is not None:
        return _coloured(classes, colours, size)
    tile = Image.new("RGB", size, NO_MASK)
    _text(ImageDraw.Draw(tile), (GAP, GAP // 2), "no mask", size[0])
    return tile


def _coloured(classes: np.ndarray, colours: list[int], size: tuple[int, int]) -> Image.Image:
    image = Image.fromarray(classes)
    image.putpalette(colours)
    return image.resize(size, Image.Resampling.NEAREST).convert("RGB")


def heat(shares: np.ndarray) -> np.ndarray:
    """Return RGB colours, uint8 (..., 3), of values in 0..1: 0 is dark blue, 1 is yellow."""
    at = np.linspace(0, 1, len(CIVIDIS))
    channels = [np.interp(shares, at, CIVIDIS[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, -1)).astype(np.uint8)


def _legend(classes: Mapping[str, str], width: int) -> Image.Image:
    """Draw the names and colours of the classes, and the colour scale of the confidence."""
    entries = [*classes.items(), ("ignored, or no pseudo label", "#ffffff")]
    places, x, y = [], GAP, GAP
    for name, _ in entries:
        needed = 2 * LINE + round(_font().getlength(name))
        if x > GAP and x + needed > width:
            x, y = GAP, y + LINE
        places.append((x, y))
        x += needed
    legend = Image.new("RGB", (width, y + 2 * LINE + GAP), "white")
    draw = ImageDraw.Draw(legend)
    for (name, colour), (x, y) in zip(entries, places, strict=True):
        draw.rectangle((x, y, x + 12, y + 12), fill=colour, outline="#606060")
        _text(draw, (x + LINE, y), name, width)
    y += LINE
    _text(draw, (GAP, y), "confidence: 0", SIDE)
    x = GAP + 5 * LINE
    legend.paste(Image.fromarray(np.tile(heat(np.linspace(0, 1, SIDE)), (13, 1, 1))), (x, y))
    _text(draw, (x + SIDE + GAP, y), "1", SIDE)
    return legend


def _text(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, width: int, fill: str = "black"
) -> None:
    """Draw one line of text, cut off where it is wider than `width` pixels."""
    # Pillow's built-in font has only ASCII; any other letter would be the same empty box.
    text = ascii(text[:width])[1:-1]
    while text and _font().getlength(text) > width - 2 * GAP:
        text = f"{text[:-2]}…" if len(text) > 1 else ""
    draw.text(place, text, fill, _font())


@functools.cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=13)
