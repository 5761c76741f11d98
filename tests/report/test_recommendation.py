"""recommendation.md: which model to use, and whether the unlabeled images paid."""

from pathlib import Path

import numpy as np
import pytest

from dst_cbc.inference.confusions import Confusions
from dst_cbc.report.recommendation import Candidate, Images, recommend, stacked, summary, text

CLASSES = ["sky", "road"]
STUDY = Path("results/letters")
METHODS = ["dst-cbc", "dst", "st", "cbst", "ost", "supervised-long"]


def matrices(right, images=4):
    """Matrices of images of 10 pixels of each of two classes; `right`: of each class, by image."""
    share = np.broadcast_to(right, images)
    return np.array([[[one, 10 - one], [10 - one, one]] for one in share])


def found_on(*seeds, images=4):
    ids = [f"i{number}" for number in range(images)]
    return Confusions(ids, np.stack([matrices(right, images) for right in seeds]))


def candidate(method, chosen, scored=None, rises=False, round=None):
    """chosen, scored: pixels that are right, a value or one for each image, for each seed."""
    learns = not method.startswith("supervised")
    name = method if method == "supervised" else f"{method}/round{3 if learns else 1}"
    own = (3 if learns else 0) if round is None else round
    return Candidate(
        method=method,
        folders=[f"all_{seed}/{name}" for seed in range(len(chosen))],
        rounds=[own] * len(chosen),
        learns_unlabeled=learns,
        chosen_on=found_on(*chosen),
        scored=found_on(*(scored or chosen)),
        still_rises=rises,
    )


def images(by_folds=False, tested=True):
    return Images(by_folds, tested, [0, 1, 2, 3], [0, 1, 2, 3])


def four_lines(*candidates, **where):
    return summary(recommend(candidates, images(**where)), STUDY)


def test_the_model_with_the_highest_miou_where_it_is_chosen_is_handed_over():
    lines = four_lines(
        candidate("supervised", [5], [9]), candidate("supervised-long", [6], [9]),
        candidate("dst-cbc", [8], [7], round=2),
    )  # fmt: skip
    assert lines[0] == (
        "Use `results/letters/model.pt`: `dst-cbc`, weights of round 2, from "
        "`all_0/dst-cbc/round3`. It has the highest mIoU of 3 methods on the 4 val images."
    )
    # 7 of 13 pixels of each class.
    assert lines[1].startswith("Score: mIoU 53.8 % (95 % interval 53.8 to 53.8) on 4 test images")
    assert lines[2].count("over the labels alone") == 2


def test_an_equal_model_with_unlabeled_images_is_not_recommended_and_they_did_not_pay():
    lines = four_lines(candidate("supervised", [5]), candidate("dst-cbc", [5]))
    assert "`supervised`, weights of round 0" in lines[0]
    assert "they did not pay" in lines[3]


def test_the_control_is_handed_over_where_it_is_better():
    best = recommend(
        [candidate("supervised", [5]), candidate("supervised-long", [7]), candidate("st", [6])],
        images(),
    )
    assert best.folder == "all_0/supervised-long/round1" and best.paid is False
    assert best.over_control is None and best.over_labels is not None
    assert "they did not pay" in summary(best, STUDY)[3]
    advice = text(best, STUDY, CLASSES, METHODS)
    assert "Another method on the same unlabeled images" in advice


VARIED = [9, 4, 9, 4]


@pytest.mark.parametrize(
    "control, ours, said",
    [
        ([5], [8], "they paid. The whole interval"),
        ([[4, 9, 4, 9]], [[9, 4, 9, 5]], "they seem to have paid, but so few images"),
        ([8], [7], "it is not sure that they paid"),
    ],
)
def test_whether_unlabeled_images_paid_is_judged_against_the_control(control, ours, said):
    lines = four_lines(
        candidate("supervised", [3]), candidate("supervised-long", [5], control),
        candidate("dst-cbc", [8], ours),
    )  # fmt: skip
    assert said in lines[3]


def test_without_a_control_it_is_unknown_and_without_a_method_nothing_is_said():
    alone = four_lines(candidate("supervised", [3]), candidate("dst-cbc", [8]))
    assert "unknown, as the control `supervised-long` was not trained" in alone[3]
    none = four_lines(candidate("supervised", [3]))
    assert "no method that uses them was trained" in none[3]
    assert none[0].endswith("from `all_0/supervised`.")
    assert "nothing to compare" in none[2]


def test_the_score_says_which_images_it_is_of():
    ours = candidate("supervised", [5])
    assert "4 test images, which have chosen nothing" in four_lines(ours)[1]
    assert "which also chose it: expect less" in four_lines(ours, tested=False)[1]
    procedure = four_lines(ours, by_folds=True, tested=False)[1]
    assert "the score of the procedure that made the model, not of the model itself" in procedure


def test_of_several_seeds_the_best_model_of_the_best_method_is_handed_over():
    best = recommend([candidate("supervised", [5, 9, 5]), candidate("st", [7, 6, 8])], images())
    # The mean of 7, 6 and 8 is above that of 5, 9 and 5.
    assert best.folder == "all_2/st/round3"
    assert "3 seeds" in text(best, STUDY, CLASSES, METHODS)


def test_seeds_whose_images_are_in_another_order_are_aligned():
    first = Confusions(["a", "b"], matrices([1, 2], 2))
    second = Confusions(["b", "a"], matrices([4, 3], 2))
    both = stacked([first, second])
    assert both.ids == ["a", "b"] and both.matrices[:, :, 0, 0].tolist() == [[1, 2], [3, 4]]


def test_the_worst_class_and_how_many_images_show_it_are_named():
    ours = candidate("supervised", [5])
    # Only one image has road, of which 2 of 10 pixels are found; 1 pixel of sky is taken for road.
    rare = np.array([[[[9, 1], [8, 2]], [[9, 0], [0, 0]], [[9, 0], [0, 0]], [[9, 0], [0, 0]]]])
    ours = Candidate(**{**vars(ours), "chosen_on": Confusions(ours.chosen_on.ids, rare)})
    advice = text(recommend([ours], images()), STUDY, CLASSES, METHODS)
    assert "More masks that show `road`: its IoU is the lowest, 18 %, and 1 of the 4" in advice


def test_a_class_that_no_image_shows_is_not_the_worst():
    ours = candidate("supervised", [5])
    # Road is predicted, but in no mask.
    absent = np.array([[[[9, 1], [0, 0]]] * 4])
    ours = Candidate(**{**vars(ours), "chosen_on": Confusions(ours.chosen_on.ids, absent)})
    advice = text(recommend([ours], images()), STUDY, CLASSES, METHODS)
    assert "More masks that show `sky`: its IoU is the lowest, 90 %, and 4 of the 4" in advice


def test_more_hours_are_advised_where_the_last_step_was_the_best():
    more = "More hours: its mIoU was still rising"
    for rises in (True, False):
        found = recommend([candidate("supervised", [5], rises=rises)], images())
        assert (more in text(found, STUDY, CLASSES, METHODS)) == rises


def test_methods_that_were_not_tried_are_named():
    found = recommend([candidate("supervised", [5]), candidate("dst-cbc", [8])], images())
    assert "Methods: `dst`, `st`, `cbst` and 2 others." in text(found, STUDY, CLASSES, METHODS)


def test_the_numbers_are_those_of_the_text():
    found = recommend(
        [candidate("supervised", [5]), candidate("supervised-long", [6]), candidate("st", [8])],
        images(),
    )
    content = found.content()
    assert content["model"] == "all_0/st/round3" and content["unlabeled_images_paid"] is True
    assert content["miou"] == pytest.approx(100 * 8 / 12)
    over = content["over_control"]
    assert over["mean"] == pytest.approx(100 * (8 / 12 - 6 / 14))
    assert over["interval"] == pytest.approx([over["mean"]] * 2)
