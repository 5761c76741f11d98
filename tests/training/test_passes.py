"""The work of a training and of a prediction: counted by hand, and by what passes the network."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import examples
from dst_cbc.inference.tiling import full_logits
from dst_cbc.models.segmentation import build
from dst_cbc.settings.choices import ObjectiveSettings
from dst_cbc.settings.network import NetworkSettings
from dst_cbc.settings.stages import ModelSettings, PredictStage
from dst_cbc.settings.training import Optimization
from dst_cbc.training import passes
from dst_cbc.training.objective import Step
from dst_cbc.training.samples import Data
from trainings import CPU, first_batch, make_stage, small_model

SMALL = NetworkSettings(backbone="small", output_stride=4, aspp_rates=(1,))


def prediction(**changes):
    return PredictStage(**{"batch": 4, "tile": 2048, **changes})


def passed(network):
    """A list that gets, from now on, the pixels of each batch that passes through a network."""
    pixels = []
    network.register_forward_hook(lambda _, given, out: pixels.append(given[0][:, 0].numel()))
    return pixels


def test_a_step_counts_each_pixel_of_its_crops_three_times():
    stage = make_stage(batch=4, crop=(10, 20), steps=7)
    assert passes.of_training(stage, labeled=9) == 7 * 4 * 200 * 3
    # Half of the batch is pseudo-labeled, which is as much work.
    assert passes.of_training(stage, labeled=9, unlabeled=50) == 7 * 4 * 200 * 3


def test_short_batches_count_the_images_that_they_hold():
    stage = make_stage(batch=4, crop=(10, 20), steps=7, short_batches=True)
    # 4 + 4 + 1 of the 9 labeled images, twice, and 4 of the third pass.
    assert passes.of_training(stage, labeled=9) == (9 + 9 + 4) * 200 * 3
    # 2 of 3 labeled images, then the third, and so on: 5 passes of 2 steps in 10 steps.
    stage = stage.model_copy(update={"steps": 10})
    assert passes.of_training(stage, labeled=3, unlabeled=50) == (5 * 3 + 10 * 2) * 200 * 3


def test_an_objective_counts_its_networks_and_its_labeling_passes():
    class TwoNetworksAndATeacher(ObjectiveSettings):
        trained_passes = 2
        labeling_passes = 1

    stage = make_stage(batch=4, crop=(10, 20), steps=7)
    stage = stage.model_copy(update={"objective": TwoNetworksAndATeacher()})
    assert passes.of_training(stage, labeled=9, unlabeled=50) == 7 * 200 * (2 * 4 * 3 + 2)


@pytest.mark.parametrize("online", [None, 0.9])
def test_a_step_of_self_training_passes_as_many_pixels_as_are_counted(
    online, drawn, drawn_rows, digits_dataset
):
    rows = drawn_rows["train"]
    unlabeled = [replace(row, label="") for row in rows[4:]]
    data = Data(drawn, digits_dataset, rows[:4], unlabeled, None, drawn_rows["val"])
    model, stage = small_model(digits_dataset), make_stage(steps=1, online_threshold=online)
    pixels = passed(model.network)
    objective, batch = first_batch(data, stage, model, CPU)
    places = {"labeled": range(2), "pseudo": range(2)}
    list(objective.losses(batch, Step(0, 1, 0, 0, places)))
    assert passes.of_training(stage, 4, len(unlabeled)) == 3 * sum(pixels)


def test_the_example_of_a_teacher_counts_its_pass():
    module = {}
    source = "from typing import ClassVar, Literal\nfrom pydantic import Field\n"
    source += "from dst_cbc.settings.choices import ObjectiveSettings\n"
    exec(source + examples.METHOD_SETTINGS, module)
    stage = make_stage(batch=4, crop=(10, 20), steps=7)
    stage = stage.model_copy(update={"objective": module["EmaTeacher"]()})
    assert passes.of_training(stage, labeled=9, unlabeled=50) == 7 * 200 * (4 * 3 + 2)
    assert "labeling_passes" not in stage.objective.model_dump()


@pytest.mark.parametrize("scale", [1.0, 0.5, 1.7])
@pytest.mark.parametrize("size", [(40, 60), (64, 64), (130, 300), (65, 201)])
def test_a_prediction_counts_what_passes_through_the_network_in_tiles(size, scale):
    settings = SMALL.model_copy(update={"input_scale": scale})
    model = build(settings, {"sky": "#0000ff", "road": "#808080"})
    model.network.eval()
    pixels = passed(model.network)
    with torch.inference_mode():
        list(full_logits(model, torch.zeros(1, 3, *size, dtype=torch.uint8), 64))
    assert passes.of_prediction(prediction(tile=64), settings, 1, [size]) == sum(pixels)
    assert (sum(pixels) > math.prod(size) * scale**2 * 1.1) == (max(size) * scale > 65)


def test_the_mean_of_some_sizes_stands_for_all_images():
    sizes = [(10, 10), (10, 21)]
    assert passes.of_prediction(prediction(), SMALL, 5, sizes) == math.ceil(5 * (100 + 210) / 2)
    # All are predicted at the size that the experiment says.
    assert passes.of_prediction(prediction(size=(30, 40)), SMALL, 5, []) == 5 * 1200


@pytest.mark.parametrize("rule, times", [("threshold", 1), ("normalized", 2)])
def test_a_model_counts_its_training_and_the_predictions_of_its_labels(rule, times, digits_dataset):
    stage = make_stage(batch=4, crop=(10, 20), steps=7, round=1)
    labels = {"algorithm": 2, "alpha": 0.5, "balance": "class", "rule": rule}
    settings = ModelSettings(
        dataset=digits_dataset,
        split={"rule": {"all": True}, "seed": 0},
        train=stage,
        predict=prediction(),
        thresholds=labels,
    )
    work = passes.of_model(settings, SMALL, 9, 50, [(10, 10)])
    assert work == 7 * 4 * 200 * 3 + times * 50 * 100
    baseline = settings.model_copy(update={"predict": None, "thresholds": None})
    assert passes.of_model(baseline, SMALL, 9, 0, []) == 7 * 4 * 200 * 3


@given(st.integers(1, 10**6), st.integers(1, 40), st.integers(1, 8), st.booleans())
def test_as_many_steps_are_taken_as_are_that_much_work_and_no_fewer(work, labeled, batch, short):
    settings = Optimization(batch=batch, crop=(3, 5), short_batches=short)
    steps = passes.steps_of(work, settings, labeled)
    stage = make_stage(batch=batch, crop=(3, 5), short_batches=short)

    def of(steps):
        return passes.of_training(stage.model_copy(update={"steps": steps}), labeled)

    assert of(steps - 1) < work <= of(steps)
