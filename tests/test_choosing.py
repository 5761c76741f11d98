"""A small version of the tables of docs/explanation/choosing.md."""

import pytest

import choosing
import simulated

TRIALS = 300


@pytest.fixture(scope="module", autouse=True)
def _few_images_are_the_truth():
    """The mIoU of 4,000 images is within 0.3 points of that of 40,000."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulated, "TRUTH_IMAGES", 4000)
        simulated.truths.cache_clear()
        yield
    simulated.truths.cache_clear()


def covered(*case, kind="difference: covered %"):
    return float(choosing.covering(TRIALS, *case)[kind])


@pytest.mark.parametrize("scenes, frames", [(4, 1), (6, 1), (12, 1), (6, 5)])
def test_the_interval_of_two_equal_models_covers_zero(scenes, frames):
    """95 %; that of 300 trials is between 91 and 99 % in 999 of 1000 cases."""
    assert 90.5 < covered(scenes, frames) < 99


def test_alike_frames_that_are_left_out_one_by_one_promise_too_much():
    assert covered(6, 5, True) < 80


def test_the_difference_is_known_much_better_than_the_models():
    row = choosing.covering(TRIALS, 6, 1)
    assert 2 * float(row["difference: width"]) < 1.5 * float(row["one model: width"])
    assert 88 < float(row["one model: covered %"]) < 99


def test_the_same_images_tell_the_better_model_more_often_than_other_images_or_none():
    rows = [*choosing.choosing(TRIALS)]
    better = {(row["rule"], row["val images"]): float(row["better of two %"]) for row in rows}
    lost = {
        (row["rule"], row["val images"]): float(row["chain: points below its best"]) for row in rows
    }
    for images in (6, 12, 30):
        assert better["paired", images] > better["unpaired", images] + 4
        assert better["unpaired", images] > better["last", "any"] + 10
        assert lost["paired", images] < lost["unpaired", images] - 0.2
        assert lost["unpaired", images] < lost["last", "any"] - 2
    assert better["paired", 6] > 88


def test_patience_keeps_the_best_round_so_far_and_ends_after_two_that_are_not_better():
    found = [[50, 52, 51, 51, 60], [50, 49, 53, 52, 54], [50, 49, 48, 60, 60]]
    best, rounds = choosing.until_patience_ends(choosing.np.array(found))
    assert best.tolist() == [1, 4, 0]
    assert rounds.tolist() == [3, 4, 2]
