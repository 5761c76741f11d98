"""Load training samples from files: one augmented image and its label at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..data.augmentation import Warp, draw_interpolation, draw_warp, jitter, whole
from ..data.images import open_image
from ..data.index import Row
from ..data.interpolation import Interpolation
from ..data.masks import label_table, open_label
from ..inference.whole_images import image_tensor, mean_colour
from ..models.segmentation import SegmentationModel, scaled
from ..models.sizes import scaled_size
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
    they are labeled during training. label_size: (height, width) of the pseudo labels, None if each
    has the size of its image. predictions: predictions.h5 of the model that made the pseudo
    labels, in the order of `pseudo`; needed if its confidence weights the loss. thresholds,
    labeling_model: the thresholds.csv and model.pt that made the pseudo labels; None unless the
    objective reads them. groups: of the validation images (`paired.resampling_groups`), if they are
    so few that the log says how sure each comparison with the best model is; else empty.
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
    label_size: tuple[int, int] | None = None
    groups: Sequence[int] = ()

    @property
    def masks(self) -> Path:
        """The folder in which the paths of masks start."""
        return self.dataset.mask_root(self.root)


class Samples:
    """Samples of labeled images: `image` (3, h, w) in 0..255, `label` uint8 (h, w) of crop size.

    `image` is uint8, or float32 with `resampling: torch`. Augmentation changes the image that the
    network would see without it. Where that is smaller (`input_scale` below 1), the image is first
    resized as in evaluation and prediction.
    """

    augmented = True

    def __init__(
        self, rows: Sequence[Row], data: Data, stage: TrainStage, model: SegmentationModel
    ):
        self.rows, self.data, self.stage = rows, data, stage
        self.table = label_table(data.dataset)
        self.input_scale = model.settings.input_scale
        self.window, self.bands = model.window, model.bands
        self.fill = mean_colour(model)

    def __call__(self, draw: Draw, random: np.random.Generator) -> Tensors:
        row, settings = self.rows[draw.index], self.stage.augmentation
        # The size of the image as the network sees it without augmentation.
        size = scaled_size((row.height, row.width), self.input_scale)
        warp = self._warp(size, random)
        image = open_image(self.data.root / row.image, self.window, bands=self.bands)
        image = self._smaller(np.asarray(image))
        pixels = warp.of(image.shape[:2], size).image(image, self.fill)
        # Without a key of jitter, it returns the pixels themselves, of any dtype.
        if self.augmented:
            pixels = jitter(pixels, settings, random)
        label = self.label(row)
        label = warp.of(label.shape, size).label(label)
        sample = {"image": image_tensor(pixels), "label": torch.from_numpy(label)}
        return sample | self.more(row, draw, warp, size)

    def _warp(self, size: tuple[int, int], random: np.random.Generator) -> Warp | Interpolation:
        stage = self.stage
        if not self.augmented:
            return whole(size, stage.crop, resampling=stage.resampling)
        if stage.resampling == "torch":
            return draw_interpolation(stage.crop, stage.augmentation, random)
        return draw_warp(size, stage.crop, stage.augmentation, random)

    def _smaller(self, image: np.ndarray) -> np.ndarray:
        """The image at the size that the network sees, if that is smaller; uint8 (h, w, 3)."""
        if self.input_scale >= 1:
            return image
        smaller = scaled(image_tensor(image)[None], self.input_scale)[0]
        return smaller.round().to(torch.uint8).permute(1, 2, 0).numpy()

    def label(self, row: Row) -> np.ndarray:
        """Return the label of an image, uint8 (H, W), at its own size."""
        return np.asarray(open_label(self.data.masks / row.label, self.table))

    def more(
        self, row: Row, draw: Draw, warp: Warp | Interpolation, size: tuple[int, int]
    ) -> Tensors:
        """Return further parts of a sample; none in this class. size: (H, W) that `warp` is for."""
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
        own = (row.height, row.width)
        if self.data.pseudo_folder is None:
            return np.zeros(own, np.uint8)
        path = self.data.pseudo_folder / f"{row.id}.png"
        return read_labels(path, self.data.label_size or own, len(self.data.dataset.classes))

    def more(
        self, row: Row, draw: Draw, warp: Warp | Interpolation, size: tuple[int, int]
    ) -> Tensors:
        if self.stage.weighting != "original":
            return {}
        assert self.data.predictions is not None
        stored = read_probabilities(self.data.predictions, draw.index, row.id)
        return {"confidence": torch.from_numpy(warp.of(stored.shape, size).values(stored))}


def labeled_stream(data: Data, stage: TrainStage, model: SegmentationModel, share: int) -> Stream:
    """The stream of labeled images, `share` of them in each batch."""
    samples, joined = Samples(data.labeled, data, stage, model), not stage.short_batches
    return Stream("labeled", data.labeled, share, samples, joined)


def pseudo_stream(data: Data, stage: TrainStage, model: SegmentationModel, share: int) -> Stream:
    """The stream of pseudo-labeled images, `share` of them in each batch."""
    samples, joined = PseudoSamples(data.pseudo, data, stage, model), not stage.short_batches
    return Stream("pseudo", data.pseudo, share, samples, joined)
