import math
import runpy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torchmetrics.classification import MulticlassJaccardIndex

from dst_cbc.data.layouts import LAYOUTS
from dst_cbc.inference.confusions import Confusions
from dst_cbc.inference.metrics import (
    bootstrap_interval,
    class_iou,
    confusion_matrix,
    group_sums,
    mean_iou,
    mean_ious,
    pixel_accuracy,
    report,
)
from trainings import SCRIPTS

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


def test_matrices_are_summed_by_group_in_the_order_of_the_numbers():
    images = np.arange(3)[:, None, None] + np.zeros((2, 2), np.int64)
    assert group_sums(images, [7, 2, 7])[:, 0, 0].tolist() == [1, 0 + 2]
    seeds = group_sums(np.stack([images, 10 * images]), [7, 2, 7])
    assert seeds.dtype == np.int64 and seeds[..., 1, 1].tolist() == [[1, 2], [10, 20]]
    assert mean_ious(seeds).shape == (2, 2)


def test_the_report_is_in_percent_with_none_for_what_is_undefined():
    figures = report(BY_HAND[None], ["sky", "road", "car"], [0])
    assert figures["pixel_accuracy"] == pytest.approx(70)
    assert figures["miou"] == pytest.approx(100 * (3 / 6 + 4 / 7) / 2)
    assert figures["iou"]["sky"] == pytest.approx(50) and figures["iou"]["car"] is None
    assert figures["confusion"] == BY_HAND.tolist()
    assert report(np.zeros((1, 2, 2), np.int64), ["a", "b"], [0])["miou"] is None


def test_the_interval_of_few_images_is_that_of_the_images_drawn_again():
    right, wrong = np.diag([4, 4]), np.array([[0, 4], [4, 0]])
    assert bootstrap_interval(np.stack([right] * 5)) == (1, 1)
    low, high = bootstrap_interval(np.stack([right, wrong]))
    assert (low, high) == (0, 1)
    many = np.stack([right, wrong] * 10)
    low, high = bootstrap_interval(many)
    assert 0 < low < mean_iou(many.sum(0)) < high < 1
    assert bootstrap_interval(many) == (low, high)
    figures = report(many, ["a", "b"], range(20))
    assert figures["miou_interval"] == [100 * low, 100 * high]
    assert "miou_interval" not in report(np.stack([right] * 30), ["a", "b"], range(30))


def test_the_images_of_a_group_are_drawn_together():
    right, wrong = np.diag([4, 4]), np.array([[0, 4], [4, 0]])
    images = np.stack([right, right, wrong, wrong])
    grouped = report(images, ["a", "b"], [0, 0, 1, 1])["miou_interval"]
    assert grouped == [100 * end for end in bootstrap_interval(np.stack([right, wrong]))]
    assert report(images, ["a", "b"], [0] * 4)["miou_interval"] == [None, None]
    assert report(images[:1], ["a", "b"], [0])["miou_interval"] == [100, 100]


@pytest.mark.parametrize("pattern, groups", [("^(.)", [0, 0, 1, 1]), (None, [0, 1, 2, 2])])
def test_an_evaluation_groups_the_images_by_the_pattern_or_as_neighbours(pattern, groups):
    figures = runpy.run_path(str(SCRIPTS / "evaluate.py"))["_figures"]
    rows = [SimpleNamespace(id=id) for id in ("a1", "a2", "a3", "b3", "b4")]
    images = np.array([np.diag([3, 1]), [[0, 4], [1, 0]], [[2, 2], [0, 1]], [[1, 0], [3, 3]]])
    found = Confusions(["a1", "a3", "b3", "b4"], images)
    stage = SimpleNamespace(dataset=SimpleNamespace(group=pattern))
    entry = figures(found, stage, rows, ["x", "y"])
    assert entry == {"images": 4, **report(images, ["x", "y"], groups)}
    for wrong in (range(4), [0, 0, 1, 1] if pattern is None else [0, 1, 2, 2]):
        assert entry["miou_interval"] != report(images, ["x", "y"], wrong)["miou_interval"]


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


OFFICIAL = {
    "road": 0.358974358974359, "sidewalk": 0.3111111111111111, "building": 0.25,
    "wall": 0.1188118811881188, "fence": 0.06382978723404255, "pole": 0.06796116504854369,
    "traffic light": 0.019230769230769232, "traffic sign": 0.00819672131147541,
    "vegetation": 0.0, "terrain": 0.009174311926605505, "sky": 0.0,
    "person": 0.010309278350515464, "rider": 0.0, "car": 0.010752688172043012,
    "truck": 0.018691588785046728, "bus": 0.02197802197802198, "train": math.nan,
    "motorcycle": 0.03529411764705882, "bicycle": 0.0,
}  # fmt: skip


def test_the_ious_are_those_of_the_official_evaluator_of_cityscapes():
    """On labelIds masks at their own size, with the class numbers of the format `cityscapes`.

    OFFICIAL and the mean are `classScores` and `averageScoreClasses` that cityscapesScripts 2.3.0
    returned for these arrays, written as PNG files
    `ulm_00000<i>_000019_<kind>_gtFine_labelIds.png` with the kind truth or prediction:

        from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official
        official.args.evalInstLevelScore, official.args.quiet, official.args.JSONOutput = 0, 1, 0
        official.evaluateImgLists(predictions, truths, official.args)

    It is not a dependency, because it brings a package `typing` that hides the standard library's.
    """
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
    for truth, prediction in zip(truths, predictions, strict=True):
        matrix += confusion_matrix(numbers[truth], numbers[prediction], 19)
    np.testing.assert_allclose(class_iou(matrix), [OFFICIAL[name] for name in names], atol=1e-6)
    assert mean_iou(matrix) == pytest.approx(0.07246198894209505, abs=1e-6)
