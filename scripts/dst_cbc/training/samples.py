"""Load training samples from files: one augmented image and its label at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..data.augmentation import Warp, draw_warp, jitter, whole
from ..data.images import open_image
from ..data.index import Row
from ..data.masks import label_table, open_label
from ..inference.whole_images import image_tensor, mean_colour
from ..models.segmentation import SegmentationModel
from ..self_training.predictions import read_probabilities
from ..self_training.pseudo_labels import read_labels
from ..settings.data import DatasetStage
from ..settings.stages import TrainStage
from .loading import Tensors
from .objective import Stream
from .sampling import Draw


@dataclass(frozen=True)
class Data:
    """The data that one training reads.

    root: folder of the data set. labeled, validation: images with a mask. pseudo: images that are
    used without a mask. pseudo_folder: holds the pseudo label `<id>.png` of each of them, None if
    they are labeled during training. predictions: predictions.h5 of the model that made the pseudo
    labels, in the order of `pseudo`; needed if its confidence weights the loss. thresholds,
    labeling_model: the thresholds.csv and model.pt that made the pseudo labels; None unless the
    objective reads them.
    """

    root: Path
    dataset: DatasetStage
    labeled: Sequence[Row]
    pseudo: Sequence[Row]
    pseudo_folder: Path | None
    validation: Sequence[Row]
    predictions: Path | None = None
    thresholds: Path | None = None
    labeling_model: Path | None = None


class Samples:
    """Samples of labeled images: `image` uint8 (3, h, w), `label` uint8 (h, w) of crop size."""

    augmented = True

    def __init__(
        self, rows: Sequence[Row], data: Data, stage: TrainStage, model: SegmentationModel
    ):
        self.rows, self.data, self.stage = rows, data, stage
        self.table = label_table(data.dataset)
        self.input_scale, self.window = model.settings.input_scale, model.window
        self.fill = mean_colour(model)

    def __call__(self, draw: Draw, random: np.random.Generator) -> Tensors:
        row, settings = self.rows[draw.index], self.stage.augmentation
        size = (row.height, row.width)
        if self.augmented:
            warp = draw_warp(size, self.stage.crop, settings, random, self.input_scale)
        else:
            warp = whole(size, self.stage.crop)
        image = open_image(self.data.root / row.image, self.window)
        pixels = warp.image(np.asarray(image), self.fill)
        if self.augmented:
            pixels = jitter(pixels, settings, random)
        label = warp.label(self.label(row))
        sample = {"image": image_tensor(pixels), "label": torch.from_numpy(label)}
        return sample | self.more(row, draw, warp)

    def label(self, row: Row) -> np.ndarray:
        """Return the label of an image, uint8 (H, W), at the size of the image."""
        return np.asarray(open_label(self.data.root / row.label, self.table))

    def more(self, row: Row, draw: Draw, warp: Warp) -> Tensors:
        """Return further parts of a sample; none in this class."""
        return {}


class PseudoSamples(Samples):
    """Samples of pseudo-labeled images.

    With `weighting: original`, a sample also has `confidence`, float32 (h, w): the confidence of
    the model that made the pseudo labels. If images are labeled during training, `label` is 0
    inside the image and 255 outside.
    """

    def __init__(
        self, rows: Sequence[Row], data: Data, stage: TrainStage, model: SegmentationModel
    ):
        super().__init__(rows, data, stage, model)
        self.augmented = stage.augment_pseudo

    def label(self, row: Row) -> np.ndarray:
        size = (row.height, row.width)
        if self.data.pseudo_folder is None:
            return np.zeros(size, np.uint8)
        path = self.data.pseudo_folder / f"{row.id}.png"
        return read_labels(path, size, len(self.data.dataset.classes))

    def more(self, row: Row, draw: Draw, warp: Warp) -> Tensors:
        if self.stage.weighting != "original":
            return {}
        assert self.data.predictions is not None
        stored = Image.fromarray(read_probabilities(self.data.predictions, draw.index, row.id))
        # If the prediction was made on a resized image, resize it back, like the label.
        stored = stored.resize((row.width, row.height), Image.Resampling.NEAREST)
        return {"confidence": torch.from_numpy(warp.values(np.asarray(stored)))}


def labeled_stream(data: Data, stage: TrainStage, model: SegmentationModel, share: int) -> Stream:
    """The stream of labeled images, `share` of them in each batch."""
    return Stream("labeled", data.labeled, share, Samples(data.labeled, data, stage, model))


def pseudo_stream(data: Data, stage: TrainStage, model: SegmentationModel, share: int) -> Stream:
    """The stream of pseudo-labeled images, `share` of them in each batch."""
    return Stream("pseudo", data.pseudo, share, PseudoSamples(data.pseudo, data, stage, model))
