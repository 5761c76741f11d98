"""From files to what a network learns from: one augmented image and its label at a time."""

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
from ..settings.data import DatasetStage
from ..settings.stages import TrainStage
from .loading import Tensors
from .objective import Stream
from .sampling import Draw


@dataclass(frozen=True)
class Data:
    """What one training reads.

    pseudo: the images without a label of their own. pseudo_folder: where `<id>.png` of each of
    them lies, None where they are labeled in training. predictions: of the model that labeled, in
    the order of `pseudo`; needed where its confidence is the weight. thresholds, labeling_model:
    thresholds.csv and model.pt that labels were made by; None unless the objective reads them.
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
    """Samples of labeled images: `image` uint8 (3, h, w), `label` uint8 (h, w); h, w: the crop."""

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
        label = warp.label(np.asarray(self.label(row)))
        sample = {"image": image_tensor(pixels), "label": torch.from_numpy(label)}
        return sample | self.more(row, draw, warp)

    def label(self, row: Row) -> Image.Image:
        """The label of an image, at the image's size."""
        return open_label(self.data.root / row.label, self.table)

    def more(self, row: Row, draw: Draw, warp: Warp) -> Tensors:
        """Further parts of a sample."""
        return {}


class PseudoSamples(Samples):
    """Samples of images without a label of their own.

    With `weighting: original` also `confidence` of the model that labeled, float32 (h, w). Where
    labels are made in training, `label` is 0 in the image and 255 outside.
    """

    def __init__(
        self, rows: Sequence[Row], data: Data, stage: TrainStage, model: SegmentationModel
    ):
        super().__init__(rows, data, stage, model)
        self.augmented = stage.augment_pseudo

    def label(self, row: Row) -> Image.Image:
        if self.data.pseudo_folder is None:
            return Image.new("L", (row.width, row.height))
        # Its pixels are class numbers already; the manifest vouched for them before training.
        return Image.open(self.data.pseudo_folder / f"{row.id}.png")

    def more(self, row: Row, draw: Draw, warp: Warp) -> Tensors:
        if self.stage.weighting != "original":
            return {}
        assert self.data.predictions is not None
        stored = Image.fromarray(read_probabilities(self.data.predictions, draw.index, row.id))
        # Predicted on a squashed image: back to its size, as its label.
        stored = stored.resize((row.width, row.height), Image.Resampling.NEAREST)
        return {"confidence": torch.from_numpy(warp.values(np.asarray(stored)))}


def labeled_stream(data: Data, stage: TrainStage, model: SegmentationModel, share: int) -> Stream:
    """The labeled images, `share` of them a batch."""
    return Stream("labeled", data.labeled, share, Samples(data.labeled, data, stage, model))


def pseudo_stream(data: Data, stage: TrainStage, model: SegmentationModel, share: int) -> Stream:
    """The images without a label of their own, `share` of them a batch."""
    return Stream("pseudo", data.pseudo, share, PseudoSamples(data.pseudo, data, stage, model))
