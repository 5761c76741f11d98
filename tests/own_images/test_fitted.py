"""How many steps a draft gets, so that the plan that is made of it fits the hours."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dst_cbc.data.layouts.pairs import in_subsets
from dst_cbc.own_images import experiment_text
from dst_cbc.own_images.draft import Draft, Machine, fitted, make
from dst_cbc.own_images.inspection import Inspection
from dst_cbc.planning import cost
from dst_cbc.planning.plan import Plan
from dst_cbc.settings.data import PairSettings
from dst_cbc.settings.experiment_files import load_experiment, load_methods
from workflow import REPOSITORY

METHODS = load_methods(REPOSITORY / "workflow/methods.yaml")


def drafted(masks: int, unlabeled: int, **more) -> Draft:
    """A draft of images that are not on disk; the first ones have masks."""
    ids = [f"i{n:04}" for n in range(masks + unlabeled)]
    pairs = [(id, f"{id}.png", "m.png" if n < masks else "") for n, id in enumerate(ids)]
    values = Counter({0: masks, 1: masks})
    found = Inspection(
        Path(), PairSettings(labels="m"), pairs, values, values, False, {},
        Counter({(96, 64): len(pairs)}), Counter({"8-bit grey": len(pairs)}), Counter(),
    )  # fmt: skip
    return make("cells", found, None, Machine(cuda=False, cores=1, threads=1), **more)


def planned(draft: Draft) -> cost.Schedule:
    """The work of the experiment file that is written for a draft."""
    text = yaml.safe_load(experiment_text.text(draft, "data", "a command"))
    experiment = load_experiment([text], {}, {})
    assert experiment.pairs
    records = [*in_subsets(Path(), experiment.pairs, draft.found.pairs)]
    return cost.schedule(Plan(experiment, METHODS, records), records, Path("results/cells"))


def measured(step: float = 1.0, image: float = 0.0) -> cost.Measured:
    return cost.Measured("cpu", step, image, memory=1, model=1)


def test_steps_of_a_draft_are_those_that_the_hours_allow():
    found, enough = fitted(drafted(60, 40), planned, measured(), hours=1)
    # 80 % of 3600 s, less 5 s for each of 29 jobs (7 trainings, 5 predictions): 2735 s. Half of it
    # is the control's. A round is at most 6 passes over 40 images in steps of 4: 60 steps.
    assert (found.supervised_steps, found.round_steps, enough) == (1367 - 5 * 60, 60, True)
    found, _ = fitted(drafted(60, 940), planned, measured(), hours=1)
    assert (found.supervised_steps, found.round_steps) == (683, 136)


def test_without_the_control_there_are_twice_as_many_steps():
    found, _ = fitted(drafted(60, 940, control=False), planned, measured(), hours=1)
    # 2880 s, less 5 s for each of 27 jobs: 2745 s.
    assert (found.supervised_steps, found.round_steps) == (2745 // 2, 274)


def test_where_no_image_is_unlabeled_all_hours_are_of_supervised_training():
    found, enough = fitted(drafted(60, 0), planned, measured(), hours=0.5)
    assert found.methods == ["supervised"] and enough
    assert found.supervised_steps == 0.8 * 1800 - 2 * 5


def test_hours_that_are_too_few_are_said_and_many_give_the_most_steps():
    before = (0, 0)
    for hours in (0.05, 0.2, 0.5, 1, 2, 8, 100):
        found, enough = fitted(drafted(60, 940), planned, measured(0.5, 0.01), hours)
        assert enough == (hours > 0.2)
        steps = (found.supervised_steps, found.round_steps)
        assert steps >= before
        before = steps
    assert before == (2400, 6 * 940 // 4)


@settings(max_examples=40)
@given(
    st.integers(4, 300), st.integers(0, 300), st.sampled_from([0.2, 0.5, 8.0]),
    st.sampled_from([0.01, 0.5, 3.0]), st.sampled_from([0.001, 0.2]),
)  # fmt: skip
def test_what_is_planned_takes_the_hours_at_most(masks, unlabeled, hours, step, image):
    speed = measured(step, image)
    found, enough = fitted(drafted(masks, unlabeled), planned, speed, hours)
    if enough:
        assert cost.seconds(planned(found), speed) <= 0.8 * 3600 * hours + 1


@pytest.mark.parametrize("val, validations", [(29, 1), (30, 3)])
def test_round_0_and_the_control_are_validated_four_times_as_often(val, validations):
    draft = replace(drafted(5 * val, 100), supervised_steps=1001, round_steps=101)
    assert len(draft.val) == val
    counts = 4 * validations + 5 * validations
    assert planned(draft).validated == 2 * counts * val
