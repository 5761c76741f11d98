"""Images, masks and pseudo labels as the released code transforms them, against formulas.

The mean of the COCO weights is that of BGR in 0..255, with deviation 1. The random numbers are
given, and the formulas are written out in float64.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from dst_cbc.data.index import Row
from dst_cbc.data.masks import write_indexed_png
from dst_cbc.inference.whole_images import Images, evaluate
from dst_cbc.models.segmentation import build, low_logits, scaled
from dst_cbc.models.weights import COCO_MEAN
from dst_cbc.runtime.files import sha256_file
from dst_cbc.self_training.pseudo_labels import at_size
from dst_cbc.settings.stages import Inference
from dst_cbc.training.samples import Data, PseudoSamples, Samples
from dst_cbc.training.sampling import Draw
from reference import Script, bilinear, nearest
from trainings import make_stage, small_network

CPU = torch.device("cpu")
MEAN = np.array(COCO_MEAN)
HEIGHT, WIDTH = 23, 31
AUGMENTATION = {"size": ((16, 20), (26, 34)), "flip": 0.5}


class Identity(nn.Module):
    """A network whose output is the normalised image."""

    stride = grid = 1

    def forward(self, images):
        return images


@pytest.fixture
def model(folder_dataset):
    """A model with the normalisation of the COCO weights, which shows what its network gets."""
    built = build(small_network(), folder_dataset.classes)
    mean, std = tuple(MEAN / 255), (1 / 255,) * 3
    return replace(built, network=Identity(), mean=mean, std=std)


@pytest.fixture
def picture(tmp_path, write_image):
    """Folder, row, image and mask of one image."""
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    mask = random.choice([0, 1, 2, 255], (HEIGHT, WIDTH)).astype(np.uint8)
    digests = [
        sha256_file(write_image(tmp_path / name, pixels))
        for name, pixels in (("a.png", image), ("a_mask.png", mask))
    ]
    return tmp_path, Row("a", "a.png", "a_mask.png", HEIGHT, WIDTH, "val", *digests), image, mask


def normalised(model, images):
    """What the network gets of one image, float64 (h, w, 3)."""
    return low_logits(model, images[None])[0].permute(1, 2, 0).double().numpy()


def samples(kind, picture, dataset, model, **changes):
    root, row, *_ = picture
    data = Data(root, dataset, [row], [row], root / "labels", [row], label_size=(11, 13))
    stage = make_stage(crop=(16, 20), augmentation=AUGMENTATION, resampling="torch", **changes)
    return kind([row], data, stage, model)


@pytest.mark.parametrize("chance, mirror", [(0.1, True), (0.9, False)])
def test_a_training_sample_is_resized_cropped_mirrored_and_normalised(
    chance, mirror, picture, folder_dataset, model
):
    *_, image, mask = picture
    of = samples(Samples, picture, folder_dataset, model)
    sample = of(Draw(0, 0, 0), Script(21, 33, 4, 7, chance))
    window = np.s_[4:20, 7:27]
    expected = bilinear(image.astype(float), 21, 33)[window] - MEAN
    label = nearest(mask, 21, 33)[window]
    if mirror:
        expected, label = expected[:, ::-1], label[:, ::-1]
    np.testing.assert_allclose(normalised(model, sample["image"]), expected, atol=1e-3)
    np.testing.assert_array_equal(sample["label"].numpy(), label)


def test_a_pseudo_label_goes_from_its_own_size_to_the_sample_in_one_step(
    picture, folder_dataset, model
):
    root, _, image, _ = picture
    labels = np.random.default_rng(1).choice([0, 1, 2, 255], (11, 13)).astype(np.uint8)
    write_indexed_png(root / "labels/a.png", labels, folder_dataset.classes)
    of = samples(PseudoSamples, picture, folder_dataset, model)
    sample = of(Draw(1, 0, 0), Script(21, 33, 4, 7, 0.9))
    expected = nearest(labels, 21, 33)[4:20, 7:27]
    np.testing.assert_array_equal(sample["label"].numpy(), expected)
    # Without augmentation (-NA), image and label are resized to the crop.
    of = samples(PseudoSamples, picture, folder_dataset, model, augment_pseudo=False)
    sample = of(Draw(1, 0, 0), Script())
    np.testing.assert_array_equal(sample["label"].numpy(), nearest(labels, 16, 20))
    expected = bilinear(image.astype(float), 16, 20) - MEAN
    np.testing.assert_allclose(normalised(model, sample["image"]), expected, atol=1e-3)


def test_a_validation_image_of_voc_is_padded_with_zeros_before_the_mean_is_subtracted(
    picture, folder_dataset, model
):
    root, row, image, mask = picture
    settings = Inference(batch=1, tile=2048, resampling="torch", pad=(25, 32), pad_colour="black")
    loaded = _loaded(root, row, model, settings, folder_dataset)
    expected = np.broadcast_to(-MEAN, (25, 32, 3)).copy()
    expected[:HEIGHT, :WIDTH] = image - MEAN
    np.testing.assert_allclose(normalised(model, loaded[0]), expected, atol=1e-4)
    np.testing.assert_allclose(expected[-1, -1], [-122.675, -116.669, -104.008])
    ignored = np.full((25, 32), 255)
    ignored[:HEIGHT, :WIDTH] = mask
    np.testing.assert_array_equal(loaded[1].numpy(), ignored)


def test_a_validation_image_of_cityscapes_is_resized_with_its_mask(picture, folder_dataset, model):
    root, row, image, mask = picture
    settings = Inference(batch=1, tile=2048, resampling="torch", size=(12, 17))
    loaded = _loaded(root, row, model, settings, folder_dataset)
    expected = bilinear(image.astype(float), 12, 17) - MEAN
    np.testing.assert_allclose(normalised(model, loaded[0]), expected, atol=1e-3)
    np.testing.assert_array_equal(loaded[1].numpy(), nearest(mask, 12, 17))


def _loaded(root, row, model, settings, dataset):
    return Images(root, [row], model, settings, dataset)[0]


def test_masks_are_resized_by_position_rounded_down_or_by_pixel_centres():
    """By hand, from four pixels to two: 0 and 2, or the ones nearest to 1/2 and 5/2."""
    row = np.array([[0, 1, 2, 3]], np.uint8)
    assert at_size(row, (1, 2), "torch").tolist() == [[0, 2]]
    assert at_size(row, (1, 2)).tolist() == [[1, 3]]


def test_with_own_masks_the_output_is_upsampled_to_the_mask(picture, folder_dataset, model):
    """`paper` on Cityscapes: images are resized, ground truth remains unchanged (section A.1)."""
    root, row, _, mask = picture
    settings = Inference(batch=1, tile=2048, size=(12, 17), masks="own")
    loaded = _loaded(root, row, model, settings, folder_dataset)
    assert loaded[0].shape == (3, 12, 17)
    np.testing.assert_array_equal(loaded[1].numpy(), mask)
    found = evaluate(model, root, [row], folder_dataset, settings, CPU)
    small = low_logits(model, loaded[0][None])
    whole = nn.functional.interpolate(small, (HEIGHT, WIDTH), mode="bilinear", align_corners=True)
    winner, known = whole[0].argmax(0).numpy(), mask != 255
    expected = np.bincount(3 * mask[known].astype(int) + winner[known], minlength=9)
    np.testing.assert_array_equal(found, expected.reshape(3, 3))


@pytest.mark.parametrize("factor", [0.5, 0.37])
def test_training_sees_images_made_smaller_as_evaluation_does(factor, picture, folder_dataset):
    """The whole image as the crop: equal up to the rounding to a grey level."""
    root, row, image, _ = picture
    shown = build(small_network(input_scale=factor), folder_dataset.classes)
    side = [round(factor * HEIGHT), round(factor * WIDTH)]
    augmentation = {"scale": (1, 1), "flip": 0}
    stage = make_stage(crop=tuple(side), augmentation=augmentation)
    data = Data(root, folder_dataset, [row], [], None, [row])
    found = Samples([row], data, stage, shown)(Draw(0, 0, 0), np.random.default_rng(0))["image"]
    planes = torch.from_numpy(image.transpose(2, 0, 1).copy())[None]
    expected = scaled(planes, factor)[0]
    assert (found - expected).abs().max() <= 0.51


def test_a_random_scale_counts_from_the_size_that_the_network_sees(picture, folder_dataset):
    root, row, _, mask = picture
    shown = build(small_network(input_scale=0.5), folder_dataset.classes)
    data = Data(root, folder_dataset, [row], [], None, [row])
    stage = make_stage(crop=(HEIGHT + 1, WIDTH + 1), augmentation={"scale": (2, 2), "flip": 0})
    label = Samples([row], data, stage, shown)(Draw(0, 0, 0), np.random.default_rng(0))["label"]
    # 12 x 16 as the network sees it, twice as large: the mask's own size, rounded up to even.
    resized = at_size(mask, (HEIGHT + 1, WIDTH + 1))
    assert (label.numpy() == resized).mean() > 0.95
