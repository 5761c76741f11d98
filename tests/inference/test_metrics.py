import importlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from torchmetrics.classification import MulticlassJaccardIndex

from dst_cbc.data.layouts import LAYOUTS
from dst_cbc.inference.metrics import (
    bootstrap_interval,
    class_iou,
    confusion_matrix,
    mean_iou,
    pixel_accuracy,
    report,
)

BY_HAND = np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]])

labels = arrays(np.uint8, (3, 4), elements=st.sampled_from([0, 1, 2, 255]))


def test_rows_are_the_truth_and_columns_the_prediction():
    truth = np.array([[0, 0, 1], [2, 2, 1]], np.uint8)
    prediction = np.array([[0, 1, 1], [2, 0, 1]], np.uint8)
    matrix = confusion_matrix(truth, prediction, 3)
    assert matrix.dtype == np.int64
    np.testing.assert_array_equal(matrix, [[1, 1, 0], [0, 2, 0], [1, 0, 1]])


def test_ignored_pixels_of_truth_and_prediction_are_left_out():
    truth = np.array([0, 255, 1, 255], np.uint8)
    prediction = np.array([0, 1, 255, 255], np.uint8)
    np.testing.assert_array_equal(confusion_matrix(truth, prediction, 2), [[1, 0], [0, 0]])


@given(labels, labels)
def test_the_matrix_counts_every_pixel_once(truth, prediction):
    matrix = confusion_matrix(truth, prediction, 3)
    for t in range(3):
        for p in range(3):
            assert matrix[t, p] == ((truth == t) & (prediction == p)).sum()


@given(labels, labels, labels, labels)
def test_matrices_of_images_add_up(t1, p1, t2, p2):
    together = confusion_matrix(np.stack([t1, t2]), np.stack([p1, p2]), 3)
    np.testing.assert_array_equal(
        together, confusion_matrix(t1, p1, 3) + confusion_matrix(t2, p2, 3)
    )


def test_many_classes_do_not_overflow_a_byte():
    truth = np.full((2, 2), 199, np.uint8)
    assert confusion_matrix(truth, truth, 200)[199, 199] == 4


def test_iou_is_hits_over_union_and_an_absent_class_is_left_out_of_the_mean():
    iou = class_iou(BY_HAND)
    np.testing.assert_allclose(iou[:2], [3 / 6, 4 / 7])
    assert math.isnan(iou[2])
    assert mean_iou(BY_HAND) == pytest.approx((3 / 6 + 4 / 7) / 2)


def test_a_class_that_is_only_predicted_counts_as_zero():
    matrix = np.array([[3, 1], [0, 0]])
    np.testing.assert_allclose(class_iou(matrix), [0.75, 0])
    assert mean_iou(matrix) == 0.375


def test_pixel_accuracy_is_the_share_of_the_diagonal():
    assert pixel_accuracy(BY_HAND) == 0.7


def test_nothing_to_compare_is_not_a_number():
    nothing = np.zeros((3, 3), np.int64)
    assert math.isnan(mean_iou(nothing)) and math.isnan(pixel_accuracy(nothing))


@given(labels)
def test_a_perfect_prediction_scores_one(truth):
    matrix = confusion_matrix(truth, truth, 3)
    if matrix.any():
        assert mean_iou(matrix) == pixel_accuracy(matrix) == 1


def test_the_report_is_in_percent_with_none_for_what_is_undefined():
    figures = report(BY_HAND[None], ["sky", "road", "car"])
    assert figures["pixel_accuracy"] == pytest.approx(70)
    assert figures["miou"] == pytest.approx(100 * (3 / 6 + 4 / 7) / 2)
    assert figures["iou"]["sky"] == pytest.approx(50) and figures["iou"]["car"] is None
    assert figures["confusion"] == BY_HAND.tolist()
    assert report(np.zeros((1, 2, 2), np.int64), ["a", "b"])["miou"] is None


def test_the_interval_of_few_images_is_that_of_the_images_drawn_again():
    right, wrong = np.diag([4, 4]), np.array([[0, 4], [4, 0]])
    assert bootstrap_interval(np.stack([right] * 5)) == (1, 1)
    low, high = bootstrap_interval(np.stack([right, wrong]))
    assert (low, high) == (0, 1)
    many = np.stack([right, wrong] * 10)
    low, high = bootstrap_interval(many)
    assert 0 < low < mean_iou(many.sum(0)) < high < 1
    assert bootstrap_interval(many) == (low, high)
    figures = report(many, ["a", "b"])
    assert figures["miou_interval"] == [100 * low, 100 * high]
    assert "miou_interval" not in report(np.stack([right] * 30), ["a", "b"])


def subset_of(seed, values, images=5, size=(13, 17)):
    """Made-up masks and predictions of a subset, uint8 (images, h, w), right in half the pixels."""
    random = np.random.default_rng(seed)
    truth = random.choice(values, (images, *size)).astype(np.uint8)
    right = random.random(truth.shape) < 0.5
    classes = [value for value in values if value != 255]
    guess = random.choice(classes, truth.shape).astype(np.uint8)
    return truth, np.where(right & (truth != 255), truth, guess)


@pytest.mark.parametrize("values", [(0, 1, 2, 255), (0, 1, 3, 4, 255), (2,)])
def test_the_mean_iou_is_torchmetrics_accumulated_over_the_subset(values):
    """Also if classes are absent, which neither implementation counts."""
    classes = 6
    theirs = MulticlassJaccardIndex(classes, ignore_index=255)
    each = MulticlassJaccardIndex(classes, ignore_index=255, average="none")
    matrix = np.zeros((classes, classes), np.int64)
    for truth, prediction in zip(*subset_of(len(values), values), strict=True):
        pair = torch.from_numpy(prediction), torch.from_numpy(truth)
        theirs.update(*pair)
        each.update(*pair)
        matrix += confusion_matrix(truth, prediction, classes)
    assert mean_iou(matrix) == pytest.approx(theirs.compute().item(), abs=1e-6)
    present = ~np.isnan(class_iou(matrix))
    np.testing.assert_allclose(class_iou(matrix)[present], each.compute()[present], atol=1e-6)


def test_the_ious_are_those_of_the_official_evaluator_of_cityscapes(tmp_path, monkeypatch):
    """On labelIds masks at their own size, with the class numbers of the format `cityscapes`."""
    monkeypatch.setenv("CITYSCAPES_DATASET", str(tmp_path))
    official = importlib.import_module(
        "cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling"
    )
    layout = LAYOUTS["cityscapes"]
    names = list(layout.classes)
    numbers = np.full(256, 255, np.uint8)
    for value, name in layout.labels.items():
        numbers[value] = names.index(name)
    # The class `train` is absent, and the values 0, 3 and 10 are not evaluated.
    evaluated = [value for value, name in layout.labels.items() if name != "train"]
    truths, _ = subset_of(1, [*evaluated, 0, 3, 10])
    _, predictions = subset_of(1, evaluated)
    matrix = np.zeros((19, 19), np.int64)
    files: dict[str, list] = {"truth": [], "prediction": []}
    for i, pair in enumerate(zip(truths, predictions, strict=True)):
        for (kind, paths), pixels in zip(files.items(), pair, strict=True):
            paths.append(str(tmp_path / f"ulm_00000{i}_000019_{kind}_gtFine_labelIds.png"))
            Image.fromarray(pixels).save(paths[-1])
        matrix += confusion_matrix(numbers[pair[0]], numbers[pair[1]], 19)
    official.args.evalInstLevelScore, official.args.quiet, official.args.JSONOutput = 0, 1, 0
    found = official.evaluateImgLists(files["prediction"], files["truth"], official.args)
    theirs = np.array([found["classScores"][name] for name in names])
    np.testing.assert_allclose(class_iou(matrix), theirs, atol=1e-6)
    assert np.isnan(theirs).sum() == 1
    assert mean_iou(matrix) == pytest.approx(found["averageScoreClasses"], abs=1e-6)
