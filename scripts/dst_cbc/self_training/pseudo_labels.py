"""Algorithm 1, lines 13 to 18: pseudo labels as PNGs, and the manifest that detects changes."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from PIL import Image
from pydantic import Field

from ..data.images import decode
from ..data.masks import indexed_png, palette
from ..runtime.errors import DataError
from ..runtime.files import hard_link, sha256, sha256_file, write_bytes, write_json
from ..runtime.paths import inside, require_relative
from ..runtime.reading import read_json
from ..runtime.tables import optional, positive, read_csv, whole, write_csv
from ..settings.data import IGNORED
from ..settings.stages import Resampling
from .predictions import Prediction


@dataclass(frozen=True)
class Labeled:
    """One pseudo-labeled image, a row of pseudo_labels.csv.

    counts: int64 (classes,), labeled pixels of each class. compared: labeled pixels whose ground
    truth is not ignored; correct: compared pixels that agree with the ground truth; None without
    ground truth. edited: a person changed the PNG and accepted it.
    """

    id: str
    sha256: str
    height: int
    width: int
    counts: np.ndarray
    correct: int | None = None
    compared: int | None = None
    edited: bool = False

    @property
    def pixels(self) -> int:
        return self.height * self.width

    @property
    def kept(self) -> int:
        return int(self.counts.sum())


def label_pixels(prediction: Prediction, cutoffs: np.ndarray) -> np.ndarray:
    """uint8 (H, W): the predicted class where its confidence reaches the class's cutoff, else 255.

    cutoffs: int32 (256,), from `thresholds.read_cutoffs`.
    """
    unsure = prediction.confidence < cutoffs.take(prediction.classes)
    # `| 0` keeps the class number, `| 255` gives 255; a fifth of the time of numpy.where.
    return prediction.classes | (np.uint8(IGNORED) * unsure)


def at_size(
    labels: np.ndarray, size: tuple[int, int], resampling: Resampling = "warp"
) -> np.ndarray:
    """Resize class numbers, uint8 (h, w), to (height, width), nearest neighbour.

    Positions are pixel centres, or rounded down with `resampling: torch`.
    """
    if labels.shape == size:
        return labels
    if resampling == "torch":
        # Imports torch, which takes seconds.
        from ..data.interpolation import Interpolation

        return Interpolation(size, size).label(labels)
    image = Image.fromarray(labels).resize((size[1], size[0]), Image.Resampling.NEAREST)
    return np.asarray(image)


def write_pseudo_labels(
    folder: Path,
    labeled: Iterable[tuple[str, np.ndarray]],
    colours: Sequence[str],
    truth: Callable[[str], np.ndarray | None],
    quality: np.ndarray,
    resampling: Resampling = "warp",
) -> Iterator[Labeled]:
    """Write `<folder>/<id>.png` for each id, never out of `folder`; yield its manifest row.

    labeled: ids and labels, uint8 (H, W). truth: function from an id to the ground truth, uint8,
    or None; it is used for statistics only, resized to the labels (section A.1) as `at_size` does.
    quality: int64 (classes, classes + 1); counts are added to it: row = truth, column = pseudo
    label, last column = no pseudo label.
    """
    colour_table = palette(colours)
    for id, labels in labeled:
        content = indexed_png(labels, colour_table)
        write_bytes(inside(folder, f"{id}.png"), content)
        correct = compared = None
        ground = truth(id)
        if ground is not None:
            ground = at_size(ground, labels.shape, resampling)
            valid = (labels != IGNORED) & (ground != IGNORED)
            correct, compared = int((labels == ground)[valid].sum()), int(valid.sum())
            quality += _confusion(ground, labels, len(colours))
        # Pillow's histogram takes half of the time of numpy.bincount.
        counts = np.array(Image.fromarray(labels).histogram()[: len(colours)])
        height, width = labels.shape
        yield Labeled(id, sha256(content), height, width, counts, correct, compared)


def read_labels(
    path: Path, size: tuple[int, int] | None = None, classes: int = IGNORED
) -> np.ndarray:
    """Read a PNG of pseudo labels, uint8 (H, W).

    size: expected (height, width); None: any. Raises DataError when the file is missing or damaged,
    has another size, or has a value that is neither below `classes` nor 255.
    """
    decoded = decode(path)
    image, wanted = decoded.image, size or decoded.size[::-1]
    if image is not None and image.mode in ("P", "L") and image.size == wanted[::-1]:
        labels = np.asarray(image)
        # bytes.translate takes a tenth of the time of a comparison and numpy.any.
        if not labels.tobytes().translate(None, _allowed(classes)):
            return labels
    kind = f"mode {image.mode}" if image else "16 bits"
    width, height = decoded.size
    raise DataError(
        f"{path}: found {kind}, {height} x {width}; expected 8-bit class numbers, {wanted[0]} x "
        f"{wanted[1]}, values 0 to {classes - 1} or {IGNORED}; make the labels of this round again"
    )


@cache
def _allowed(classes: int) -> bytes:
    return bytes([*range(classes), IGNORED])


def _confusion(truth: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    known = truth != IGNORED
    columns = np.minimum(labels[known], classes).astype(np.int64)
    pairs = truth[known].astype(np.int64) * (classes + 1) + columns
    return np.bincount(pairs, minlength=classes * (classes + 1)).reshape(classes, classes + 1)


def write_shard(folder: Path, rows: Iterable[Labeled], names: Sequence[str], quality) -> None:
    """Write the files that `join_shards` needs, in addition to the PNGs, into a shard's folder."""
    write_manifest(folder / "manifest.csv", rows, names)
    write_json(folder / "quality.json", quality.tolist())


def join_shards(
    shards: Sequence[Path], folder: Path, names: Sequence[str]
) -> tuple[list[Labeled], np.ndarray]:
    """Hard-link the PNGs of all shards into `folder`; returns all manifest rows and the quality.

    shards: the folders of the shards, in the order of the images.
    """
    rows = []
    for shard in shards:
        for row in read_manifest(shard / "manifest.csv", names):
            hard_link(shard / f"{row.id}.png", inside(folder, f"{row.id}.png"))
            rows.append(row)
    quality: Any = sum(_read_quality(shard / "quality.json", len(names)) for shard in shards)
    return rows, quality


def _read_quality(path: Path, classes: int) -> np.ndarray:
    quality = read_json(path, list[list[Annotated[int, Field(ge=0, le=1 << 50)]]])
    if [len(row) for row in quality] != [classes + 1] * classes:
        raise DataError(
            f"{path}: expected {classes} lists of {classes + 1} numbers; delete the folder "
            f"{path.parent}, and the next run of the workflow labels its images again"
        )
    return np.array(quality)


QUALITY = [
    "class", "name", "truth", "labeled", "correct", "precision", "recall", "iou_of_labeled",
]  # fmt: skip


def write_quality(path: Path, quality: np.ndarray, names: Sequence[str]) -> None:
    """Write pseudo_labels.quality.csv: precision, recall and IoU of the labels of each class.

    quality: as counted by `write_pseudo_labels`, over images that have a mask. Columns: truth,
    pixels of this class; labeled, pixels with this pseudo label; correct, pixels with both;
    iou_of_labeled, the IoU over pixels that have a pseudo label (the paper's figure 5). A ratio to
    zero pixels is left empty.
    """
    correct, labeled = np.diag(quality), quality[:, :-1].sum(0)
    truth, truth_labeled = quality.sum(1), quality[:, :-1].sum(1)
    share = lambda part, whole: part / whole if whole else None  # noqa: E731
    write_csv(
        path,
        QUALITY,
        (
            {
                "class": number,
                "name": name,
                "truth": int(truth[number]),
                "labeled": int(labeled[number]),
                "correct": int(correct[number]),
                "precision": share(correct[number], labeled[number]),
                "recall": share(correct[number], truth[number]),
                "iou_of_labeled": share(
                    correct[number], labeled[number] + truth_labeled[number] - correct[number]
                ),
            }
            for number, name in enumerate(names)
        ),
    )


def write_manifest(path: Path, rows: Iterable[Labeled], names: Sequence[str]) -> None:
    """Write pseudo_labels.csv: one row per image."""
    write_csv(path, _header(names), (_cells(row, names) for row in rows))


def read_manifest(path: Path, names: Sequence[str]) -> list[Labeled]:
    """Read pseudo_labels.csv. Raises DataError if it is damaged or has other classes."""
    numbers = {f"pixels {name}": whole for name in names} | {
        "height": positive, "width": positive, "correct": optional(whole),
        "compared": optional(whole),
    }  # fmt: skip
    return [
        Labeled(
            require_relative(cells["id"], path),
            cells["sha256"],
            cells["height"],
            cells["width"],
            np.array([cells[f"pixels {name}"] for name in names]),
            cells["correct"],
            cells["compared"],
            cells["edited"] == "yes",
        )
        for cells in read_csv(path, dict.fromkeys(_header(names), str) | numbers)
    ]


def changed_labels(folder: Path, rows: Iterable[Labeled]) -> list[str]:
    """Ids whose PNG is missing or has another SHA-256 than its row."""
    return [row.id for row in rows if _digest_or_none(folder / f"{row.id}.png") != row.sha256]


def require_unchanged(folder: Path, manifest: Path, rows: Iterable[Labeled]) -> None:
    """Raise DataError if PNGs are missing, changed or not listed, and say how to continue."""
    rows = list(rows)
    listed = {folder / f"{row.id}.png" for row in rows}
    unlisted = sorted(path for path in folder.rglob("*.png") if path not in listed)
    if unlisted:
        raise DataError(
            f"{manifest}: no row for {len(unlisted)} PNGs, first {unlisted[0]}; remove PNGs that "
            "do not belong to this round, or make all again: "
            f"snakemake {manifest} --forcerun {manifest}"
        )
    _require_same(folder, manifest, rows)


def _require_same(folder: Path, manifest: Path, rows: Iterable[Labeled]) -> None:
    changed = changed_labels(folder, rows)
    if changed:
        listed = "\n".join(f"  {folder / id}.png" for id in changed)
        raise DataError(
            f"{manifest}: {len(changed)} pseudo labels are missing, or changed since they were "
            "made:\n"
            f"{listed}\n"
            f"To make them again: snakemake {manifest} --forcerun {manifest} (with the "
            "--configfile of this study)\n"
            f"To use them as they are: python scripts/verify.py --accept {manifest}"
        )


def require_unchanged_beside(
    folder: Path, names: Sequence[str], ids: Collection[str] | None = None
) -> None:
    """`require_unchanged` with the manifest beside the folder.

    names: of the classes. ids: only the PNGs of these images are compared; None: all.
    """
    manifest = folder.with_suffix(".csv")
    rows = read_manifest(manifest, names)
    if ids is None:
        require_unchanged(folder, manifest, rows)
    else:
        _require_same(folder, manifest, [row for row in rows if row.id in ids])


def accept(folder: Path, row: Labeled, classes: int) -> Labeled:
    """Return the new row of the manifest for a PNG that a person changed.

    Raises DataError if the PNG is missing, has another size, or has a value that is neither a class
    number nor 255.
    """
    path = folder / f"{row.id}.png"
    labels = read_labels(path, (row.height, row.width), classes)
    return replace(
        row,
        sha256=sha256_file(path),
        counts=np.bincount(labels.ravel(), minlength=IGNORED)[:classes],
        correct=None,
        compared=None,
        edited=True,
    )


def _digest_or_none(path: Path) -> str | None:
    return sha256_file(path) if path.is_file() else None


def _header(names: Sequence[str]) -> list[str]:
    return [
        "id", "sha256", "edited", "height", "width", "kept", "kept_fraction", "correct", "compared",
        "accuracy", *(f"pixels {name}" for name in names),
    ]  # fmt: skip


def _cells(row: Labeled, names: Sequence[str]) -> dict:
    return {
        "id": row.id,
        "sha256": row.sha256,
        "edited": "yes" if row.edited else "",
        "height": row.height,
        "width": row.width,
        "kept": row.kept,
        "kept_fraction": row.kept / row.pixels,
        "correct": row.correct,
        "compared": row.compared,
        "accuracy": (row.correct or 0) / row.compared if row.compared else None,
        **{f"pixels {name}": int(n) for name, n in zip(names, row.counts, strict=True)},
    }
