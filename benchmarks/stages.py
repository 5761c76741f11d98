"""Rows of passes over images: predict, validate, label, and the size of predictions.h5."""

from __future__ import annotations

import io
import os
import runpy
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from unittest.mock import patch

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

import cases
import network
import pictures
from dst_cbc.data.layouts.camvid import CLASSES as CAMVID_CLASSES
from dst_cbc.data.masks import indexed_png, palette
from dst_cbc.inference import whole_images
from dst_cbc.models import segmentation
from dst_cbc.self_training import confidence, predictions
from dst_cbc.self_training.predict import predict_part
from dst_cbc.self_training.predictions import KINDS, Prediction
from dst_cbc.settings.stages import PART_IMAGES, Inference, PredictStage, ThresholdStage
from measure import SCRIPTS, Row, in_turns, one_core, paired, row
from pictures import CLASSES, Pictures
from targets import DISK, LABELS, PREDICT_LITE, PREDICT_RESNET, VALIDATE

SIZE = (321, 321)
LABELED = 64
CPU = torch.device("cpu")


def rows(folder: Path) -> Iterator[Row]:
    data = pictures.write(folder / "data", LABELED, SIZE)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with one_core():
        yield from resnet_rows(data, folder)
        yield lite_row(data, folder)
    torch.set_num_threads(threads)
    items = stored_or_synthetic()
    yield disk_row(items, folder)
    yield labels_row(data, folder)


# --------------------------------------------------------------------------- predict, validate


def resnet_rows(data: Pictures, folder: Path, images: int = 4) -> Iterator[Row]:
    """Prediction and validation with ResNet-101, compared with the same forward passes."""
    model, batch = cases.model(cases.RESNET), 2
    some = Pictures(data.root, data.dataset, data.rows[:images])
    bound = bare_pass(model, some, batch)
    predicts = prediction(model, some, PredictStage(batch=batch, tile=2048), folder)
    closes = _closing(folder, len(model.classes))
    settings = Inference(batch=batch, tile=2048)

    def validates() -> None:
        whole_images.evaluate(model, some.root, some.rows, some.dataset, settings, CPU)

    bound()
    predicted, closed, validated, bare = in_turns(predicts, closes, validates, bound, seconds=45)
    yield _prediction_row(PREDICT_RESNET, predicted, closed, bare, images)
    yield paired(VALIDATE, validated, bare, 1000 / images)


def lite_row(data: Pictures, folder: Path, images: int = 32) -> Row:
    """Prediction with the network of camvid.yaml, compared with its forward passes."""
    settings, batch = cases.LITE.model_copy(update={"output_stride": 16}), 4
    model = cases.model(settings, CAMVID_CLASSES)
    some = Pictures(data.root, data.dataset, data.rows[:images])
    bound = bare_pass(model, some, batch)
    stage = PredictStage(batch=batch, tile=2048, channels_last=cases.CAMVID["channels_last"])
    predicts = prediction(model, some, stage, folder)
    closes = _closing(folder, len(model.classes))
    predicts()
    bound()
    times = in_turns(predicts, closes, bound, seconds=20)
    return _prediction_row(PREDICT_LITE, *times, images)


def _prediction_row(what: str, predicted, closed, bare, images: int) -> Row:
    """A row that counts closing a part in proportion to `images`; a part holds PART_IMAGES."""
    share = 1 - images / PART_IMAGES
    ours = [one - share * end for one, end in zip(predicted, closed, strict=True)]
    return paired(what, ours, bare, 1000 / images, f"{images} images")


def prediction(
    model, data: Pictures, stage: PredictStage, folder: Path, device=CPU, workers: int = 0
) -> Callable[[], None]:
    """Return a function that runs the predict stage, from image files to predictions.h5."""

    def predicts() -> None:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            parts = Path(name)
            predict_part(model, data.root, data.rows, 0, parts, stage, device, workers)
            counts = predictions.join_parts(parts, 1, parts / "predictions.h5", {})
            predictions.write_histogram(parts / "histogram.npz", counts)

    return predicts


def _closing(folder: Path, classes: int) -> Callable[[], None]:
    """Return a function with the work done once per part: write, read and rewrite its histogram."""
    random = np.random.default_rng(0)
    counts = np.zeros((classes, confidence.BINS), np.int64)
    counts[:, ::3] = random.integers(0, 20, counts[:, ::3].shape)

    def closes() -> None:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            path = Path(name, "histogram.npz")
            predictions.write_histogram(path, counts)
            predictions.read_histogram(path)
            predictions.write_histogram(Path(name, "again.npz"), counts)

    return closes


def bare_pass(
    model: segmentation.SegmentationModel,
    data: Pictures,
    batch: int,
    device=CPU,
    dtype=torch.float32,
) -> Callable[[], None]:
    """Return a function that runs only the network, on normalised images in memory."""
    pixels = [np.asarray(Image.open(data.root / row.image)) for row in data.rows]
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float().contiguous() / 255
    batches = images.to(device).split(batch)
    bare = cases.model(model.settings, model.classes).network.eval().to(device)

    @torch.inference_mode()
    def bound() -> None:
        with torch.autocast(device.type, dtype, dtype != torch.float32):
            for one in batches:
                bare(one)
        network.wait(device)

    return bound


# --------------------------------------------------------------------------- predictions.h5


def stored_or_synthetic() -> list[Prediction]:
    """Predictions of the file that PREDICTIONS names; without it, synthetic ones of 321x321."""
    path = os.environ.get("PREDICTIONS")
    if not path:
        return list(synthetic(LABELED))
    with h5py.File(path) as file:
        ids = {int(name): one.attrs["id"] for name, one in file[KINDS[0]].items()}
    chosen = sorted(ids)[:LABELED]
    return [predictions.read_prediction(Path(path), row, ids[row]) for row in chosen]


def synthetic(count: int) -> Iterator[Prediction]:
    """Predictions as a network of stride 8 makes them: upsampled logits with few likely classes."""
    random = np.random.default_rng(0)
    coarse = [-(-side // 8) for side in SIZE]
    for number in range(count):
        likely = 12 * random.random(len(CLASSES)) ** 3
        logits = 8 * pictures.smooth(random, coarse, 8, len(CLASSES)) + likely
        logits += random.normal(0, 0.3, logits.shape)
        low = torch.from_numpy(logits.astype(np.float32)).permute(2, 0, 1)[None]
        full = F.interpolate(low, SIZE, mode="bilinear", align_corners=True)
        winner, levels = (found[0].numpy() for found in confidence.quantise(full))
        yield Prediction(number, f"{number:05d}", winner, levels.astype(np.uint16))


def disk_row(items: Sequence[Prediction], folder: Path) -> Row:
    def ours() -> None:
        with predictions.new_part(folder, 0) as file:
            predictions.store(file, items)

    def plain() -> None:
        with predictions.new_part(folder, 1) as file:
            for item in items:
                for kind in KINDS:
                    file.create_dataset(f"{kind}/{item.row}", data=getattr(item, kind))

    ours()
    plain()
    taken = [1000 * min(times) / len(items) for times in in_turns(ours, plain, seconds=3)]
    size = predictions.part_file(folder, 0).stat().st_size
    pixels = sum(item.classes.size for item in items)
    source = os.environ.get("PREDICTIONS", "synthetic predictions")
    note = f"stored in {taken[0]:.2f} ms per image, uncompressed in {taken[1]:.2f}; {source}"
    return row(DISK, size / pixels, 3.0, note=note)


# --------------------------------------------------------------------------- labels


def labels_row(data: Pictures, folder: Path) -> Row:
    """The whole pseudo_labels command, compared with only reading and writing the same files."""
    data.without_masks().write_lists(folder)
    stored = folder / "predictions.h5"
    _store_with_thresholds(list(synthetic(LABELED)), stored, folder)
    colours, numbers = palette(list(CLASSES.values())), range(LABELED)
    kept = [np.asarray(Image.open(path)) for path in sorted(_label(data, folder).glob("*.png"))]

    def bound() -> None:
        with tempfile.TemporaryDirectory(dir=folder) as out, h5py.File(stored) as file:
            for number, labels in zip(numbers, kept, strict=True):
                for kind in KINDS:
                    file[f"{kind}/{number}"][...]
                _write(Path(out, f"{number}.png"), indexed_png(labels, colours))

    def ours() -> None:
        with tempfile.TemporaryDirectory(dir=folder) as out:
            _label(data, folder, Path(out))

    ours()
    bound()
    share = np.mean([(labels != 255).mean() for labels in kept])
    note = f"{share:.0%} of the pixels labeled; no masks to compare with"
    return paired(LABELS, *in_turns(ours, bound, seconds=10), 1000 / LABELED, note)


def _store_with_thresholds(items: list[Prediction], path: Path, folder: Path) -> None:
    """Write predictions.h5, and a thresholds.csv that keeps half of the pixels."""
    counts = np.zeros((len(CLASSES), confidence.BINS), np.int64)
    for item in items:
        np.add.at(counts, (item.classes, item.confidence), 1)
    with predictions.new_part(folder, 0) as file:
        predictions.store(file, items)
    predictions.close_part(folder, 0, counts)
    predictions.write_histogram(folder / "h.npz", predictions.join_parts(folder, 1, path, {}))
    run_stage(
        "thresholds.py",
        {
            "--settings": ThresholdStage(alpha="0.5", balance="class").canonical(),
            "--histogram": folder / "h.npz",
            "--classes": [*CLASSES],
            "--out": folder / "thresholds.csv",
        },
    )


def _label(data: Pictures, folder: Path, out: Path | None = None) -> Path:
    """Run the pseudo_labels stage, and return its folder of PNGs."""
    labels = (out or folder) / "pseudo_labels"
    run_stage(
        "pseudo_labels.py",
        {
            "--settings": data.dataset.canonical(),
            "--data": data.root,
            "--index": folder / "dataset.csv",
            "--unlabeled": folder / "ids.txt",
            "--predictions": folder / "predictions.h5",
            "--thresholds": folder / "thresholds.csv",
            "--out": labels,
        },
    )
    return labels


def _write(path: Path, content: bytes) -> None:
    """Write atomically, like dst_cbc.runtime.files."""
    temporary = path.with_suffix(".tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        os.fsync(file.fileno())
    os.replace(temporary, path)


def run_stage(script: str, options: dict[str, object]) -> None:
    """Run a stage's command in this process, which has already imported its modules."""
    command = [script, *arguments(options)]
    with patch.object(sys, "argv", command), redirect_stdout(io.StringIO()):
        runpy.run_path(str(SCRIPTS / script))["run"]()


def arguments(options: dict[str, object]) -> list[str]:
    """Command-line arguments from options; a list gives several values."""
    found = []
    for option, value in options.items():
        found += [option, *map(str, value if isinstance(value, list) else [value])]
    return found
