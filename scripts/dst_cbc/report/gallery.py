"""A page to browse the unlabeled images of a method, round by round; it needs no network."""

import base64
import io
import json
import zlib
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from PIL import Image

from ..data.images import open_image
from ..data.index import Row, ground_truth, window_of
from ..data.masks import label_table
from ..self_training import confidence
from ..self_training.predictions import read_prediction
from ..self_training.pseudo_labels import at_size
from ..settings.data import IGNORED, DatasetStage
from .agreement import Agreement, Round, labels_of
from .contact_sheet import CIVIDIS
from .templates import render

LIMIT = 200
"""Most images on a page."""

BUDGET = 38_000_000
"""Most bytes of a page."""

SIDE = 640
"""Longer side of an image, pixels; smaller where BUDGET requires it."""

THUMBNAIL = 96
TEMPLATE = Path(__file__).with_name("gallery.html.j2")


def measures(rounds: Sequence[Agreement]) -> dict[str, float | None]:
    """Summarize one image over all rounds, as shares in 0..1, to find images worth a look.

    agreement: share with the same class, of the pixels labeled in two consecutive rounds; kept,
    changed, confidence: means over the rounds. None where no round has a value.
    """
    both = sum(round.both or 0 for round in rounds)
    return {
        "agreement": sum(round.same or 0 for round in rounds) / both if both else None,
        "kept": fmean(round.kept / (round.height * round.width) for round in rounds),
        "changed": _mean(round.changed for round in rounds),
        "confidence": _mean(round.confidence for round in rounds),
    }


def _mean(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return fmean(found) if found else None


def choose(measured: Sequence[Sequence[Agreement]], limit: int) -> list[int]:
    """Return the positions of the images to show, ordered by id: all, or `limit` of them.

    With more than `limit` images, half of the shown ones are those that agree least, are kept
    least or have changed most, taken in turns. The other half is evenly spaced among the remaining
    ids, so that images without problems are shown, too.
    """
    by_id = sorted(range(len(measured)), key=lambda place: measured[place][0].id)
    if len(by_id) <= limit:
        return by_id
    found: list[dict[str, Any]] = [measures(rounds) for rounds in measured]
    worst = {"agreement": 1, "kept": 1, "changed": -1}
    orders = [
        sorted(
            (p for p in by_id if found[p][name] is not None), key=lambda p: sign * found[p][name]
        )
        for name, sign in worst.items()
    ]
    turns = dict.fromkeys(place for turn in zip_longest(*orders) for place in turn)
    chosen = [place for place in turns if place is not None][: limit // 2]
    rest = [place for place in by_id if place not in chosen]
    missing = limit - len(chosen)
    shown = {*chosen, *(rest[i * len(rest) // missing] for i in range(missing))}
    return [place for place in by_id if place in shown]


def gallery(
    title: str,
    dataset: DatasetStage,
    root: Path,
    rows: Sequence[Row],
    rounds: Sequence[Round],
    measured: Sequence[Sequence[Agreement]],
    limit: int = LIMIT,
    budget: int = BUDGET,
) -> str:
    """Return the page as HTML; equal files give equal text.

    The page has at most `limit` images, scaled down to at most `budget` bytes but not below
    THUMBNAIL pixels. rows: all unlabeled images, in the order of the id list; measured: the result
    of `agreement.measure` for them. Raises Changed if an image or a mask is not the one that the
    data check read, and DataError if a PNG of pseudo labels is damaged.
    """
    places = choose(measured, limit)
    shown = [(place, rows[place], measured[place]) for place in places]
    side = SIDE
    while True:
        album = _Album(dataset, root, rounds, window_of(rows), side)
        images = [album.of_image(*one) for one in shown]
        page = _page(title, album, images, len(rows))
        size = len(page.encode())
        if size <= budget or side <= THUMBNAIL:
            return page
        # Compressed masks shrink a little more slowly than their area.
        side = max(THUMBNAIL, int(side * min(0.9, (budget / size) ** 0.6)))


class _Album:
    """Encodes the layers of images, each kind in a small format; equal layers are stored once."""

    def __init__(self, dataset, root, rounds, window, side):
        self.dataset, self.root, self.rounds = dataset, root, rounds
        self.window, self.side = window, side
        self.colours = b"".join(bytes.fromhex(c[1:]) for c in dataset.classes.values())
        self.files: dict[str, int] = {}
        self.scales: set[float] = set()

    def of_image(self, place: int, row: Row, measured: Sequence[Agreement]) -> dict[str, Any]:
        photo = open_image(self.root / row.image, self.window, row.image_sha256, self.dataset.bands)
        scale = min(1, self.side / max(photo.size))
        self.scales.add(scale)
        size = (max(1, round(scale * photo.width)), max(1, round(scale * photo.height)))
        truth = ground_truth(self.dataset.mask_root(self.root), row, label_table(self.dataset))
        classes: set[int] = set()
        rounds = [
            self._of_round(place, row, size, truth, *of_round, classes)
            for of_round in zip(self.rounds, measured, strict=True)
        ]
        means = {"right": _mean(of_round["right"] for of_round in rounds)}
        return {
            "id": row.id,
            "size": size,
            "measures": measures(measured) | means,
            "classes": sorted(classes),
            "thumbnail": self._photo(photo, (THUMBNAIL, THUMBNAIL * size[1] // size[0] or 1), 60),
            "image": self._photo(photo, size, 80),
            "truth": None if truth is None else self._mask(truth, size),
            "rounds": rounds,
        }

    def _of_round(self, place, row, size, truth, round, measured, classes) -> dict[str, Any]:
        labels = labels_of(round, row)
        classes.update(np.unique(labels[labels != IGNORED]).tolist())
        right = predicted = shares = None
        if truth is not None:
            truth = at_size(truth, labels.shape)
            known = (labels != IGNORED) & (truth != IGNORED)
            right = float((labels == truth)[known].mean()) if known.any() else None
        if round.predictions:
            prediction = read_prediction(round.predictions, place, row.id)
            classes.update(np.unique(prediction.classes).tolist())
            predicted = self._mask(prediction.classes, size)
            shares = self._shares(prediction.confidence, size)
        return {
            "label": self._mask(labels, size),
            "prediction": predicted,
            "shares": shares,
            "kept": measured.kept / (measured.height * measured.width),
            "agreement": measured.same / measured.both if measured.both else None,
            "changed": measured.changed,
            "confidence": measured.confidence,
            "right": right,
        }

    def _photo(self, photo: Image.Image, size: tuple[int, int], quality: int) -> int:
        small = photo.resize(size, Image.Resampling.BOX)
        return self._file("jpeg", small, quality=quality)

    def _mask(self, classes: np.ndarray, size: tuple[int, int]) -> int:
        """Encode classes in the data set's colours; pixels without a class are transparent."""
        none = len(self.dataset.classes)
        mask = Image.fromarray(np.minimum(classes, none).astype(np.uint8))
        mask = mask.resize(size, Image.Resampling.NEAREST)
        mask.putpalette(self.colours + b"\xff\xff\xff")
        return self._file(
            "png", mask, transparency=none, compress_level=6, compress_type=zlib.Z_RLE
        )

    def _shares(self, levels: np.ndarray, size: tuple[int, int]) -> int:
        shares = Image.fromarray(confidence.probabilities()[levels])
        shares = np.asarray(shares.resize(size, Image.Resampling.BOX))
        grey = Image.fromarray(np.rint(255 * shares.clip(0, 1)).astype(np.uint8))
        return self._file("webp", grey, quality=60, method=2)

    def _file(self, kind: str, image: Image.Image, **options) -> int:
        """Encode an image and return its number in `files`."""
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        content = f"{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
        return self.files.setdefault(content, len(self.files))


def _page(title: str, album: _Album, images: list[dict], total: int) -> str:
    """Fill the template with the data of the page."""
    classes = [{"name": n, "colour": c} for n, c in album.dataset.classes.items()]
    content = {
        "classes": classes,
        "rounds": [round.number for round in album.rounds],
        "images": images,
        "files": list(album.files),
    }
    # An id or a class name must not be able to end the <script> element.
    data = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")
    # The colour map as a table per channel, for an SVG filter.
    tables = [" ".join(f"{value / 255:.3f}" for value in channel) for channel in CIVIDIS.T]
    notes = _notes(album, images, total)
    return render(TEMPLATE, title=title, notes=notes, tables=tables, data=data)


def _notes(album: _Album, images: list[dict], total: int) -> Iterable[str]:
    """Yield which images are shown, how they were chosen, and what is missing."""
    if len(images) == total:
        yield f"All {total} unlabeled images are shown."
    else:
        yield (
            f"{len(images)} of {total} unlabeled images are shown, {total - len(images)} are left "
            f"out: a page holds at most {len(images)}. Half of the shown images are those that "
            "agree least between rounds, are kept least or have changed most, taken in turns; the "
            "others are evenly spaced among the remaining ids. agreement.csv beside this page has "
            "the figures of all images."
        )
    low, high = min(album.scales, default=1), max(album.scales, default=1)
    scale = f"{high:.0%}" if low == high else f"{low:.0%} to {high:.0%}"
    yield (
        f"Images are shown at {scale} of their size, at most {album.side} pixels long, and "
        "compressed; figures are computed at full size."
    )
    gone = [str(round.number) for round in album.rounds if not round.predictions]
    if gone:
        yield (
            f"The predictions that the labels of round {', '.join(gone)} were made from are not "
            "kept, so this page cannot show the prediction, its confidence and its changes. The "
            "setting keep_predictions: all keeps them."
        )
    masks = sum(image["truth"] is not None for image in images)
    if masks < len(images):
        yield f"{masks or 'None'} of the shown images {'has' if masks == 1 else 'have'} a mask."
