"""How many steps a draft gets, so that the plan that is made of it fits the hours."""

from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dst_cbc.data.layouts.pairs import in_subsets
from dst_cbc.own_images import experiment_text
from dst_cbc.own_images.draft import Draft, Machine, fitted, hold_out, make
from dst_cbc.own_images.inspection import Inspection
from dst_cbc.planning import cost
from dst_cbc.planning.plan import Plan
from dst_cbc.settings.data import PairSettings
from dst_cbc.settings.experiment_files import load_experiment, load_methods
from workflow import REPOSITORY

METHODS = load_methods(REPOSITORY / "workflow/methods.yaml")


def drafted(masks: int, unlabeled: int, **more) -> Draft:
    """A draft of images that are not on disk."""
    ids = [f"i{n:04}" for n in range(masks + unlabeled)]
    return draft_of(ids[:masks], ids[masks:], **more)


def draft_of(masked: list[str], unlabeled: list[str], group: str | None = None, **more) -> Draft:
    pairs = [(id, f"{id}.png", "m.png" if id in masked else "") for id in masked + unlabeled]
    values = Counter({0: len(masked), 1: len(masked)})
    found = Inspection(
        Path(), PairSettings(labels="m"), pairs, values, values, False, {},
        Counter({(96, 64): len(pairs)}), Counter({"8-bit grey": len(pairs)}), Counter(),
    )  # fmt: skip
    return make("cells", found, group, Machine(cuda=False, cores=1, threads=1), **more)


def written(draft: Draft) -> dict:
    return yaml.safe_load(experiment_text.text(draft, "data", "a command"))


def load(draft: Draft) -> Plan:
    """The plan of the experiment file that is written for a draft."""
    experiment = load_experiment([written(draft)], {}, {})
    assert experiment.pairs
    records = [*in_subsets(Path(), experiment.pairs, draft.found.pairs, draft.group)]
    return Plan(experiment, METHODS, records)


def planned(draft: Draft) -> tuple[cost.Schedule, cost.Schedule]:
    """The work of the experiment file that is written for a draft: of folds, and all other."""
    plan, study = load(draft), Path("results/cells")
    records = [*in_subsets(Path(), plan.experiment.pairs, draft.found.pairs, draft.group)]
    return cost.schedule(plan, records, study, True), cost.schedule(plan, records, study, False)


def measured(step: float = 1.0, image: float = 0.0) -> cost.Measured:
    return cost.Measured("cpu", step, image, memory=1, model=1)


def test_steps_of_a_draft_are_those_that_the_hours_allow():
    found, enough = fitted(drafted(60, 40), planned, measured(), hours=1)
    # 80 % of 3600 s, less 5 s for each of 29 jobs (7 trainings, 5 predictions): 2735 s. A round is
    # at most 6 passes over 40 images in steps of 4: 60 steps. The control repeats those of all.
    assert (found.supervised_steps, found.round_steps, enough) == (2735 - 10 * 60, 60, True)
    found, _ = fitted(drafted(60, 940), planned, measured(), hours=1)
    # A third each for round 0, all rounds, and the control.
    assert (found.supervised_steps, found.round_steps) == (914, 182)
    assert 914 + 10 * 182 <= 2735


def test_without_the_control_its_time_is_that_of_the_others():
    found, _ = fitted(drafted(60, 940, control=False), planned, measured(), hours=1)
    # 2880 s, less 5 s for each of 27 jobs: 2745 s.
    assert (found.supervised_steps, found.round_steps) == (1374, 274)


def test_where_no_image_is_unlabeled_all_hours_are_of_supervised_training():
    found, enough = fitted(drafted(60, 0), planned, measured(), hours=0.5)
    assert found.methods == ["supervised"] and enough
    assert found.supervised_steps == 0.8 * 1800 - 2 * 5


def test_hours_that_are_too_few_are_said_and_many_give_the_most_steps():
    before = (0, 0)
    for hours in (0.05, 0.2, 0.5, 1, 2, 8, 100):
        found, enough = fitted(drafted(60, 940), planned, measured(0.5, 0.01), hours)
        assert enough == (hours > 0.1)
        steps = (found.supervised_steps, found.round_steps)
        assert steps >= before
        before = steps
    assert before == (2400, 6 * 940 // 4)


@pytest.mark.parametrize(
    "masks, folds, val, test, labeled, batch",
    [
        (4, 3, 0, 1, 3, 4),
        (5, 3, 0, 1, 4, 4),
        (8, 3, 0, 2, 6, 8),
        (12, 3, 0, 2, 10, 8),
        (30, 3, 0, 6, 24, 8),
        (47, 3, 0, 9, 38, 8),
        (48, 0, 10, 10, 28, 8),
        (60, 0, 12, 12, 36, 8),
        (200, 0, 40, 40, 120, 8),
    ],
)
def test_folds_replace_a_val_of_fewer_than_ten(masks, folds, val, test, labeled, batch):
    draft = drafted(masks, 40)
    found = (draft.folds, len(draft.val), len(draft.test), draft.labeled, draft.batch)
    assert found == (folds, val, test, labeled, batch)
    # Folds change nothing in the images that are held out for test.
    assert draft.test == hold_out(draft.found.masked, None)[1]


@pytest.mark.parametrize(
    "masks, folds, val, test",
    [
        ({"a": 5, "b": 5, "c": 5, "d": 5}, 3, 0, 5),
        ({"a": 5, "b": 5, "c": 5}, 2, 0, 5),
        ({"a": 21, "b": 9}, 2, 0, 0),
        ({"a": 20, "b": 10}, 0, 10, 0),
        # Without the first group, one mask would be left to train on.
        ({"a": 3, "b": 1}, 0, 1, 0),
    ],
)
def test_groups_stay_whole_and_are_no_fewer_than_folds(masks, folds, val, test):
    masked = [f"{group}_{n}" for group, count in masks.items() for n in range(count)]
    draft = draft_of(masked, [f"u_{n}" for n in range(40)], "^(.)_")
    assert (draft.folds, len(draft.val), len(draft.test)) == (folds, val, test)
    sides = defaultdict(set)
    for id in masked:
        sides[id[0]].add(draft.sides.get(id, "train"))
    assert all(len(found) == 1 for found in sides.values())
    assert load(draft).splits


def test_each_fold_has_unlabeled_images_or_there_are_no_folds():
    masked = [f"{group}_{n}" for group in "abc" for n in range(4)]
    # Wherever these groups are, a fold that holds one of them out leaves the others.
    assert draft_of(masked, ["a_9", "b_9", "c_9"], "^(.)_").folds == 2
    masked = [f"{group}_{n}" for group in "ab" for n in range(4)]
    assert draft_of(masked, ["u_9"], "^(.)_").folds == 2
    assert draft_of(masked, ["a_9"], "^(.)_").folds == 0


def test_the_copies_of_an_image_in_two_folds_are_warned_of():
    draft = drafted(12, 40)
    one, other = (next(i for i, side in draft.sides.items() if side == f"fold {n}") for n in (1, 2))
    for twins, expected in (([one, other], 1), ([one, draft.test[0]], 1), ([one, "i0012"], 0)):
        copied = replace(draft, found=replace(draft.found, twins=[twins]))
        assert len(copied.parted_twins) == expected
        said = "\n".join(experiment_text.describe(copied))
        assert ("1 images are in two folds, or in train and test" in said) == bool(expected)


def test_folds_get_shorter_before_all_trainings_do():
    """10 masks train. A split has 29 jobs, so 145 s. The control has the steps of the rounds."""
    draft = drafted(12, 38)
    found, enough = fitted(draft, planned, measured(), hours=12)
    assert (found.supervised_steps, found.round_steps, found.fold_length) == (2400, 57, 1)
    # 3 * 145 s and 3 * (2400 + 10 * 57) steps of folds are to take half of 17280 s: 0.921 of them.
    found, enough = fitted(draft, planned, measured(), hours=6)
    assert (found.steps, found.fold_length, enough) == (2685, 0.92, True)
    # 3 * 145 s and 3 * 0.34 * (s + 10 * 57) steps of folds, half of 4320 s.
    found, enough = fitted(draft, planned, measured(), hours=1.5)
    assert (found.supervised_steps, found.round_steps) == (1691 - 10 * 57, 57)
    assert (found.fold_length, enough) == (0.34, True)


def test_two_folds_and_the_other_trainings_fit_together():
    masked = [f"a_{n}" for n in range(6)] + [f"b_{n}" for n in range(3)]
    draft = draft_of(masked, [f"u_{n}" for n in range(38)], "^(.)_")
    found, _ = fitted(draft, planned, measured(), hours=2)
    # 3 * 145 s and (1 + 2 * 0.34) * (s + 10 * 114) steps, of 5760 s. Half of the hours would allow
    # folds of 0.4.
    assert (found.folds, found.supervised_steps, found.fold_length) == (2, 3169 - 10 * 114, 0.34)


def test_hours_that_are_too_few_for_folds_hold_out_val_and_say_what_folds_need():
    draft = drafted(12, 38)
    found, enough = fitted(draft, planned, measured(), hours=1)
    assert (found.folds, len(found.val), found.test, enough) == (0, 2, draft.test, True)
    # In 1.2 h, folds leave 982 steps, in 1.3 h 1123: more than 40 % of 2685.
    assert (found.supervised_steps, found.hours_of_folds) == (2735 - 10 * 57, 1.3)
    needed, val, few = experiment_text.too_few_hours(found, 1)
    assert needed.startswith("WARNING: 1 hours are too few for folds, which need 1.3: ")
    assert "2 images with a mask are held out for val, 2 for test; 8 labeled and 38 un" in val
    assert few.startswith("WARNING: 2 val images are few")
    again, _ = fitted(draft, planned, measured(), hours=1.3)
    assert again.folds == 3 and again.hours_of_folds is None


def test_folds_leave_steps_enough_to_learn_anything():
    # With rounds of 12 steps, folds leave 504 steps in 4.3 h, (1440 * 4.3 - 435) / (3 * 0.34 * 10)
    # less the 5 * 12 of the control; in 4.2 h 490.
    found, _ = fitted(drafted(12, 8), planned, measured(step=10), hours=4)
    assert not found.folds and found.hours_of_folds == 4.3


def test_folds_need_no_more_steps_than_are_of_use():
    # 5 s for each of 850 images in folds, and of 274 with val. In 4.3 h, folds leave 1192 steps,
    # which are 11 % of those that fit without folds, but 44 % of 2685, the most.
    draft, slow = drafted(12, 38), measured(image=5)
    assert fitted(draft, planned, slow, hours=4.3)[0].steps == 1192
    assert fitted(draft, planned, slow, hours=4.2)[0].hours_of_folds == 4.3


@settings(max_examples=40)
@given(
    st.integers(4, 100), st.integers(0, 300), st.sampled_from([0.2, 0.5, 8.0]),
    st.sampled_from([0.01, 0.5, 3.0]), st.sampled_from([0.001, 0.2]),
)  # fmt: skip
def test_what_is_planned_takes_the_hours_at_most_and_folds_half_of_them(
    masks, unlabeled, hours, step, image
):
    speed = measured(step, image)
    draft, enough = fitted(drafted(masks, unlabeled), planned, speed, hours)
    folds, other = (cost.seconds(work, speed) for work in planned(draft))
    if enough:
        assert folds <= 1800 * hours and folds + other <= 3600 * hours
    assert (folds > 0) == bool(draft.folds) and 0.34 <= draft.fold_length <= 1


@pytest.mark.parametrize("val, validations", [(29, 1), (30, 3)])
def test_round_0_is_validated_four_times_as_often_and_the_control_as_often_as_the_rounds(
    val, validations
):
    draft = replace(drafted(5 * val, 100), supervised_steps=1001, round_steps=101)
    assert len(draft.val) == val
    assert planned(draft)[1].validated == (4 + 5 + 5) * validations * val


def test_the_file_has_folds_or_patience():
    folds = written(replace(drafted(30, 40), fold_length=0.5))
    assert folds["splits"] == {"all": {"folds": 3, "fold_length": 0.5}}
    assert (folds["pairs"]["val"], len(folds["pairs"]["test"])) == ([], 6)
    assert folds["evaluation"] == {"report": ["test"], "batch": 4}
    assert folds["switches"] == {"control": "continue"}
    val = written(drafted(60, 40))
    assert val["splits"] == {"all": {"all": True}}
    assert val["switches"] == {"patience": 2, "control": "continue"}
    assert written(drafted(60, 40, control=False))["switches"] == {"patience": 2}
    assert "switches" not in written(drafted(30, 40, control=False))
    chosen = {"select": "val", "candidates": "ends"}
    assert val["evaluation"] == {**chosen, "report": ["val", "test"], "batch": 4}
    assert "switches" not in written(drafted(60, 0))


def test_what_folds_do_is_said():
    (line,) = [one for one in experiment_text.describe(drafted(30, 40)) if "folds" in one]
    assert line.startswith(
        "assumed: 6 images with a mask are held out for test; the other 24 masks are divided into "
        "3 folds"
    )
    assert line.endswith("The model to use is trained on all 24 masks and 40 unlabeled images")
    (line,) = [one for one in experiment_text.describe(drafted(30, 0)) if "folds" in one]
    assert line.endswith(
        "shows how good the training is. The model to use is trained on all 24 masks"
    )
    (line,) = [
        one
        for one in experiment_text.describe(
            draft_of([f"{'aab'[n % 3]}_{n}" for n in range(24)], ["u_1"], "^(.)_")
        )
        if "folds" in one
    ]
    assert line.startswith("assumed: 24 masks are divided into 2 folds")
    assert "the masks of the other fold, and" in line
    assert line.endswith("the score is that of the folds, too")
