import json
import math
import random
from dataclasses import replace
from typing import ClassVar, Literal

import pytest
from pydantic import ValidationError

from dst_cbc.data.layouts.layout import Record
from dst_cbc.data.records import selecting
from dst_cbc.planning.edits import replaced_trainings
from dst_cbc.planning.plan import Plan
from dst_cbc.runtime.errors import DataError
from dst_cbc.settings.choices import ObjectiveSettings
from dst_cbc.settings.data import SplitRule
from dst_cbc.settings.methods import MethodRow
from dst_cbc.settings.yaml_files import ConfigError

METHODS = {
    "dst-cbc": MethodRow(curriculum=[0.2, 0.6, 1.0]),
    "dst": MethodRow(curriculum=[1.0], round_length=5, balance="global"),
    "st": MethodRow(curriculum=[1.0], gamma=0),
    "fast": MethodRow(curriculum=[1.0], learning_rate=0.5, epochs=2),
    "supervised-long": MethodRow(labeling="none", match="dst-cbc"),
    "long-dst": MethodRow(labeling="none", match="dst"),
    "passes": MethodRow(labeling="none", match="dst-cbc", match_by="passes"),
}


def records(train=20, val=4, test=0):
    return [
        Record(f"{subset}{i}", f"{subset}{i}.png", f"{subset}{i}.png", subset)
        for subset, count in (("train", train), ("val", val), ("test", test))
        for i in range(count)
    ]


@pytest.fixture
def plan(make_experiment):
    """Function that plans an experiment on 20 training images, 4 of them labeled."""

    def make(*methods, images=None, **changes):
        if methods:
            changes["runs"] = [{"splits": ["few"], "methods": list(methods)}]
        return Plan(make_experiment(**changes), METHODS, images or records())

    return make


def train_of(plan, path):
    return plan.models[f"few_0/{path}"].settings.train


def test_a_method_is_round_0_and_one_model_a_round(plan):
    found = plan("dst-cbc")
    assert list(found.models) == [
        "few_0/supervised", "few_0/dst-cbc/round1", "few_0/dst-cbc/round2", "few_0/dst-cbc/round3",
    ]  # fmt: skip
    for path, model in found.models.items():
        assert model.path == path
    chain = list(found.models.values())
    assert [model.previous for model in chain] == [None, *chain[:-1]]
    assert [model.settings.train.round for model in chain] == [0, 1, 2, 3]


def test_round_0_is_shared_by_the_methods_of_a_split(plan):
    found = plan("dst-cbc", "st", "supervised")
    supervised = found.models["few_0/supervised"]
    assert found.models["few_0/st/round1"].previous == supervised
    assert found.models["few_0/dst-cbc/round1"].previous == supervised
    assert sum("supervised" in path for path in found.models) == 1


def test_every_round_has_its_alpha_and_balance(plan):
    found = plan("dst-cbc", "dst")
    alphas = [
        found.models[f"few_0/dst-cbc/round{r}"].settings.thresholds.model_dump(mode="json")
        for r in (1, 2, 3)
    ]
    assert [one["alpha"] for one in alphas] == ["0.2", "0.6", "1"]
    assert {one["balance"] for one in alphas} == {"class"}
    assert found.models["few_0/dst/round1"].settings.thresholds.balance == "global"
    assert found.models["few_0/supervised"].settings.thresholds is None


def test_seeds_and_splits_are_folders(plan):
    found = plan(
        splits={"few": {"count": 4}, "half": {"divide": 2}},
        runs=[{"splits": ["few", "half"], "seeds": [0, 2], "methods": ["supervised"]}],
    )
    assert list(found.models) == [
        f"{split}_{seed}/supervised" for split in ("few", "half") for seed in (0, 2)
    ]
    assert [len(found.splits[f"{s}_0"].labeled) for s in ("few", "half")] == [4, 10]


def test_steps_by_number(plan):
    found = plan("st", train={"batch": 4, "steps": 11, "validate_every": 4})
    assert train_of(found, "st/round1").steps == 11
    assert train_of(found, "st/round1").validate_at == (4, 8, 11)
    assert train_of(found, "supervised").steps == 7
    assert train_of(found, "supervised").validate_at == (4, 7)


@pytest.mark.parametrize("steps, at", [(8, (4, 8)), (3, (3,)), (4, (4,)), (5, (4, 5))])
def test_the_last_step_is_validated_once(steps, at, plan):
    found = plan("st", train={"batch": 4, "steps": steps, "validate_every": 4})
    assert train_of(found, "st/round1").validate_at == at


def test_an_epoch_is_a_pass_over_unlabeled_images_and_in_round_0_over_labeled_ones(plan):
    found = plan("st", train={"batch": 4, "epochs": 3}, supervised={})
    assert train_of(found, "st/round1").steps == 3 * 16 // 2
    assert train_of(found, "supervised").steps == 3 * 4 // 4


def test_the_formula_is_30_times_the_root_of_all_over_labeled_images(plan):
    found = plan("st", train={"batch": 4, "steps": 5}, supervised={"epochs": "formula"})
    assert train_of(found, "supervised").steps == int(30 * math.sqrt(20 / 4) * 4 / 4) == 67
    assert train_of(found, "st/round1").steps == 5


def test_the_formula_gives_the_epochs_of_the_paper(plan):
    found = plan(
        "supervised",
        images=records(10582, 1),
        train={"batch": 8},
        supervised={"epochs": "formula"},
        splits={"few": {"count": 100}},
    )
    assert train_of(found, "supervised").steps * 8 / 100 == pytest.approx(309, abs=1)


def test_with_short_batches_an_epoch_is_rounded_up_to_whole_batches(plan):
    """18 labeled images are 4.5 batches of 4, and 5 with the short one; 15 unlabeled ones, 8."""
    splits = {"few": {"count": 18}}
    train = {"batch": 4, "epochs": 3, "short_batches": True}
    found = plan("st", images=records(33, 1), train=train, supervised={}, splits=splits)
    supervised, round_1 = train_of(found, "supervised"), train_of(found, "st/round1")
    assert (supervised.steps, round_1.steps) == (3 * 5, 3 * 8)
    assert supervised.short_batches and round_1.short_batches
    found = plan(
        "st", images=records(33, 1), train=train | {"short_batches": False}, supervised={},
        splits=splits,
    )  # fmt: skip
    assert train_of(found, "supervised").steps == 13 and train_of(found, "st/round1").steps == 22
    assert "short_batches" not in json.loads(train_of(found, "supervised").canonical())


def test_where_ends_compete_every_training_says_so_and_validates_its_end(plan):
    early = {"batch": 4, "steps": 12, "validate_every": 4, "validate_early": True}
    found = plan("st", train=early, evaluation={"candidates": "ends"})
    for name in ("supervised", "st/round1"):
        stage = found.models[f"few_0/{name}"].settings.train
        assert (stage.candidates, stage.validate_at[-1]) == ("ends", stage.steps)
    assert stage.validate_at == (3, 7, 11, 12)
    usual = plan("st").models["few_0/supervised"].settings.train
    assert "candidates" not in usual.model_dump_json()


@pytest.mark.parametrize(
    "steps, select, at",
    [
        (13, "val", (3, 7, 11, 12)),
        (12, "val", (3, 7, 11)),
        # Only here, the last step is one before a multiple.
        (7, "val", (3, 6, 7)),
        (13, "last", (3, 7, 11, 12, 13)),
        (1, "val", (1,)),
        (2, "val", (1,)),
    ],
)
def test_early_validation_is_a_step_before_each_interval_and_the_end(steps, select, at, plan):
    train = {"batch": 4, "steps": steps, "validate_every": 4, "validate_early": True}
    found = plan("st", train=train, evaluation={"select": select})
    suffix = "" if select == "val" else "_last"
    assert found.models[f"few_0{suffix}/st/round1"].settings.train.validate_at == at


@pytest.mark.parametrize(
    "augmentation, message",
    [
        ({}, r"augmentation\.size, for few_0: found null .* at least train\.crop, \[321, 321\]"),
        ({"size": [[320, 321], [400, 400]]}, r"found \[320, 321\] with resampling: torch"),
        ({"size": [[321, 321], [400, 400]], "hue": 0.1}, r"hue, for few_0: found 0\.1"),
        ({"size": [[321, 321], [400, 400]], "rotation": 5}, r"rotation, for few_0: found 5"),
    ],
)
def test_resampling_by_torch_refuses_what_it_cannot_do(augmentation, message, plan):
    with pytest.raises(ConfigError, match=message):
        plan("st", resampling="torch", train={"batch": 4, "augmentation": augmentation})


def test_resampling_reaches_every_stage_that_resizes(plan):
    size = {"size": [[321, 321], [400, 400]]}
    found = plan("st", resampling="torch", train={"batch": 4, "augmentation": size})
    predict, _, train = stages(found, "st/round1")
    used = (predict, train, train.validation, found.evaluate)
    assert {one.resampling for one in used} == {"torch"}


def test_labels_that_came_out_otherwise_before_raise_the_number_of_their_algorithm(plan):
    """Labels of the rule of CBST, and labels that were resized to their image before."""
    normalized = {"switches": {"rule": "normalized"}}
    for changes, number in [({}, 1), (normalized, 2), ({"prediction": {"size": [9, 8]}}, 2)]:
        _, thresholds, _ = stages(plan("st", **changes), "st/round1")
        assert thresholds.algorithm == number


def test_masks_are_compared_with_labels_by_the_same_resampling(plan):
    size = {"size": [[321, 321], [400, 400]]}
    changed = {"resampling": "torch", "train": {"batch": 4, "augmentation": size}}
    for changes, resampling in (({}, "warp"), (changed, "torch")):
        model = plan("st", **changes).models["few_0/st/round1"]
        assert model.label_stage.resampling == resampling
        assert ("resampling" in model.label_stage.canonical()) == bool(changes)


def test_own_masks_have_no_padding(make_experiment):
    with pytest.raises(ValidationError, match=r"masks: found own, but pad is \[9, 9\]"):
        make_experiment(evaluation={"masks": "own", "pad": [9, 9]})


def test_another_size_than_the_images_raises_the_number_of_the_algorithm(plan):
    """Since images are made smaller in training as in evaluation, such trainings give others."""
    smaller = plan("st", network={"input_scale": 0.5})
    assert [train_of(found, "supervised").algorithm for found in (plan("st"), smaller)] == [2, 3]


def test_steps_in_the_end_are_at_least_one(plan):
    found = plan("supervised", train={"batch": 4, "epochs": 0.01}, supervised={})
    assert train_of(found, "supervised").steps == 1


def test_epochs_and_validations_can_be_given_by_split(plan):
    found = plan(
        "supervised",
        train={"batch": 4, "epochs": {"few": 5, "other": 1}, "validate_every": {"few": 2}},
        supervised={},
    )
    assert train_of(found, "supervised").validate_at == (2, 4, 5)


@pytest.mark.parametrize("key", ["epochs", "validate_every"])
def test_a_split_without_its_value_is_named(key, plan):
    with pytest.raises(ConfigError, match=rf"train\.{key}: no value for split 'few'.*'other'"):
        plan("supervised", train={"batch": 4, key: {"other": 3}}, supervised={})


def test_by_split_overrides_train_and_methods_override_by_split(plan):
    by_split = {"few": {"gamma": 4, "learning_rate": 0.1}}
    found = plan("dst-cbc", "st", "fast", by_split=by_split)
    assert train_of(found, "dst-cbc/round1").gamma == 4
    assert train_of(found, "st/round1").gamma == 0
    assert train_of(found, "st/round1").learning_rate == 0.1
    assert train_of(found, "fast/round1").learning_rate == 0.5
    assert train_of(found, "supervised").learning_rate == 0.1
    two = {"few": {"count": 4}, "other": {"count": 5}}
    other = plan("dst-cbc", splits=two, by_split={"other": {"gamma": 4}})
    assert train_of(other, "dst-cbc/round1").gamma == 9


def test_settings_by_an_unknown_split_are_refused_with_the_nearest(plan):
    with pytest.raises(ConfigError, match="by_split: split 'few2' does not exist; did you mean"):
        plan("st", by_split={"few2": {"gamma": 4}})


def test_only_images_with_a_mask_are_labeled(plan):
    images = records(train=10)
    bare = [replace(r, label="") if r.subset == "train" and r.id != "train7" else r for r in images]
    found = plan("supervised", images=bare, splits={"few": {"all": True}}, train={"batch": 2})
    assert found.splits["few_0"].labeled == ["train7"]
    assert len(found.splits["few_0"].unlabeled) == 9


def test_epochs_of_a_layer_replace_steps_beneath_it_and_the_other_way_round(plan):
    found = plan("fast", by_split={"few": {"steps": 3}}, train={"batch": 4, "epochs": 50})
    assert train_of(found, "fast/round1").steps == 2 * 16 // 2
    assert train_of(found, "supervised").steps == 7
    found = plan("st", by_split={"few": {"steps": 3}}, train={"batch": 4, "epochs": 50})
    assert train_of(found, "st/round1").steps == 3


def test_augmentation_of_a_layer_keeps_the_keys_it_does_not_name(plan):
    found = plan(
        "st",
        train={"batch": 4, "steps": 5, "augmentation": {"rotation": 9, "flip": 0.1}},
        supervised={"augmentation": {"flip": 0.7}},
    )
    augmentation = train_of(found, "supervised").augmentation
    assert (augmentation.rotation, augmentation.flip) == (9, 0.7)
    assert train_of(found, "st/round1").augmentation.flip == 0.1


def test_a_longer_round_has_that_many_times_the_steps(plan):
    found = plan("dst", "st")
    assert train_of(found, "dst/round1").steps == 5 * train_of(found, "st/round1").steps == 50


@pytest.mark.parametrize("control, method", [("supervised-long", "dst-cbc"), ("long-dst", "dst")])
def test_the_control_has_the_steps_and_validations_of_round_0_and_all_rounds(control, method, plan):
    found = plan(control, method)
    stages = [
        model.settings.train
        for model in found.models.values()
        if model.method in ("supervised", method)
    ]
    stage = train_of(found, f"{control}/round1")
    assert stage.steps == sum(one.steps for one in stages)
    assert len(stage.validate_at) == sum(len(one.validate_at) for one in stages)
    assert stage.validate_at[-1] == stage.steps
    assert len(set(stage.validate_at)) == len(stage.validate_at)
    gaps = {b - a for a, b in zip((0, *stage.validate_at), stage.validate_at, strict=False)}
    assert max(gaps) - min(gaps) <= 1


def test_the_control_starts_from_initial_weights_and_sees_no_unlabeled_image(plan):
    model = plan("supervised-long").models["few_0/supervised-long/round1"]
    assert model.previous is None
    assert model.settings.network is not None
    assert model.settings.predict is None and model.settings.thresholds is None


def test_a_control_without_a_method_to_match_is_refused(make_experiment):
    methods = {**METHODS, "long": MethodRow(labeling="none", match="supervised-long")}
    experiment = make_experiment(runs=[{"splits": ["few"], "methods": ["long"]}])
    with pytest.raises(ConfigError, match="long: match: 'supervised-long' is not a self-training"):
        Plan(experiment, methods, records())


@pytest.fixture
def pictures(tmp_path, monkeypatch, write_image):
    """Writes training images of 30 x 40 pixels, in the folder that the experiment names."""
    monkeypatch.chdir(tmp_path)
    for record in records():
        if record.subset == "train":
            write_image(tmp_path / "pictures" / record.image, [[0] * 40] * 30)


CROP = {"batch": 4, "steps": 10, "validate_every": 4, "crop": (20, 20)}
# Three rounds of dst-cbc on 16 unlabeled images: their steps, each three passes, and predictions.
ROUNDS = 3 * (3 * 10 * 4 * 20 * 20 + 16 * 30 * 40)


def passes_control(found, name="passes"):
    return train_of(found, f"{name}/round1")


def test_a_control_of_equal_passes_trains_for_as_much_work_as_round_0_and_all_rounds(
    plan, pictures
):
    found = plan("passes", "dst-cbc", "supervised-long", train=CROP)
    step = 3 * 4 * 20 * 20
    work = 7 * step + ROUNDS
    matched = [m for m in found.models.values() if m.method in ("supervised", "dst-cbc")]
    assert sum(map(found.work, matched)) == work
    stage = passes_control(found)
    assert stage.steps == math.ceil(work / step) == 7 + 30 + 12
    assert work <= found.work(found.models["few_0/passes/round1"]) < work + step
    # As many chances of selection as the control of equal steps, spread over the whole length.
    assert len(stage.validate_at) == len(passes_control(found, "supervised-long").validate_at)
    assert stage.validate_at[-1] == stage.steps
    gaps = {b - a for a, b in zip((0, *stage.validate_at), stage.validate_at, strict=False)}
    assert max(gaps) - min(gaps) <= 1


def test_a_control_of_equal_passes_may_continue_round_0(plan, pictures):
    found = plan("passes", train=CROP, switches={"control": "continue"})
    stage = passes_control(found)
    assert stage.steps == ROUNDS / (3 * 4 * 20 * 20) == 30 + 12
    assert len(stage.validate_at) == 3 * 3
    assert found.models["few_0/passes/round1"].reads == {"previous": "few_0/supervised/model.pt"}


def test_a_control_with_larger_crops_and_batches_takes_fewer_steps(plan, pictures):
    found = plan("passes", train=CROP, supervised={"steps": 7, "crop": (80, 80), "batch": 8})
    work = 7 * 3 * 8 * 80 * 80 + ROUNDS
    stage = passes_control(found)
    assert stage.steps == math.ceil(work / (3 * 8 * 80 * 80)) == 9
    # No step is validated twice.
    assert stage.validate_at == tuple(range(1, 10))


def test_short_batches_count_the_images_that_they_hold(plan, pictures):
    train = {**CROP, "short_batches": True}
    found = plan("passes", train=train, splits={"few": {"count": 5}})
    crop = 3 * 20 * 20
    # 4 and 1 of the 5 labeled images in turn, 7 times.
    assert found.work(found.models["few_0/supervised"]) == 19 * crop
    # Rounds of 10 steps: 2, 2, 1 of 5 labeled images in turn, 2 of 15 others, 1 at the 8th step.
    rounds = 3 * (17 + 19) * crop + 3 * 15 * 30 * 40
    assert 19 * crop + rounds == 172 * crop
    # 34 passes over the 5 labeled images, of 2 steps each, and 2 images more.
    assert passes_control(found).steps == 34 * 2 + 1


def test_equal_passes_count_every_chain_of_a_method(plan, pictures):
    peers = {"teacher": "peer", "chains": {"a": {}, "b": {"seed": 1}}}
    found = plan("passes", "supervised-long", train=CROP, switches=peers)
    assert passes_control(found).steps == 7 + 2 * (30 + 12)
    assert passes_control(found, "supervised-long").steps == 7 + 30


def test_labels_made_in_training_need_no_prediction_and_no_size_of_an_image(make_experiment):
    methods = {
        "ost": MethodRow(labeling="online", online_threshold=0.9),
        "passes": MethodRow(labeling="none", match="ost", match_by="passes"),
    }
    experiment = make_experiment(runs=[{"splits": ["few"], "methods": ["passes"]}], train=CROP)
    found = Plan(experiment, methods, records())
    assert passes_control(found).steps == 7 + 10


def test_predictions_at_a_set_size_count_at_that_size(plan, pictures):
    found = plan("passes", train=CROP, prediction={"size": (60, 80)})
    assert passes_control(found).steps == 7 + 30 + 4 * 12


def test_drawn_scenes_are_counted_before_they_are_drawn(make_experiment):
    changes = {"format": "digits", "classes": None, "digits": {"size": 40}, "train": CROP}
    runs = [{"splits": ["few"], "methods": ["passes"]}]
    found = Plan(make_experiment(**changes, runs=runs), METHODS, records())
    assert passes_control(found).steps == math.ceil(7 + 30 + 3 * 16 * 40 * 40 / (3 * 4 * 20 * 20))


def test_the_headers_of_a_hundred_images_say_the_size_of_all(make_experiment, monkeypatch):
    opened = []

    def size_of(path):
        opened.append(path.name)
        if path.name == "train500.png":
            raise DataError(f"{path}: damaged")
        return (40, 30) if int(path.stem.removeprefix("train")) < 500 else (40, 90)

    monkeypatch.setattr("dst_cbc.planning.plan.size_of", size_of)
    runs = [{"splits": ["few", "half"], "seeds": [0, 1], "methods": ["passes", "dst-cbc"]}]
    splits = {"few": {"count": 4}, "half": {"divide": 2}}
    images = records(train=1000)
    found = Plan(make_experiment(runs=runs, splits=splits, train=CROP), METHODS, images)
    assert opened == [f"train{number}.png" for number in range(0, 1000, 10)]
    assert found.sizes == 50 * [(30, 40)] + 49 * [(90, 40)]
    opened.clear()
    other = [{"splits": ["few"], "methods": ["dst-cbc", "supervised-long"]}]
    Plan(make_experiment(runs=other, train=CROP), METHODS, images)
    assert not opened


def test_images_without_a_readable_size_are_named(plan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = r"match_by: .* of 20 training images in pictures none can be read, first train0\.png"
    with pytest.raises(ConfigError, match=message):
        plan("passes", train=CROP)


def test_equal_passes_are_only_for_controls_and_change_no_other_method(plan, pictures):
    with pytest.raises(ValidationError, match="match_by: allowed only with labeling `none`"):
        MethodRow(curriculum=[1.0], match_by="passes")
    methods = ("dst-cbc", "supervised-long")
    switched = plan(*methods, train=CROP, switches={"match_by": "passes"})
    plain = plan(*methods, train=CROP)
    for path in plain.models:
        equal = switched.models[path].settings == plain.models[path].settings
        assert equal == (path != "few_0/supervised-long/round1")
    assert passes_control(switched, "supervised-long").steps == 7 + 30 + 12


def stages(found, path):
    settings = found.models[f"few_0/{path}"].settings
    return settings.predict, settings.thresholds, settings.train


def test_switches_lie_beneath_the_row_of_every_method(make_experiment):
    methods = {**METHODS, "cbst": MethodRow(curriculum=[1.0], rule="threshold")}
    switches = {"rule": "normalized", "balance": "global", "augment_pseudo": False}
    runs = [{"splits": ["few"], "methods": ["st", "cbst"]}]
    found = Plan(make_experiment(runs=runs, switches=switches), methods, records())
    _, thresholds, train = stages(found, "st/round1")
    assert (thresholds.rule, thresholds.balance, train.augment_pseudo) == (
        "normalized", "global", False,
    )  # fmt: skip
    assert stages(found, "cbst/round1")[1].rule == "threshold"


def test_switches_of_files_pass_by_a_method_that_has_none(make_experiment):
    methods = {**METHODS, "ost": MethodRow(labeling="online")}
    switches = {
        "rule": "normalized", "weighting": "original", "threshold_sampling": 16,
        "balance": "global", "curriculum": [0.5], "augment_pseudo": False,
    }  # fmt: skip
    runs = [{"splits": ["few"], "methods": ["ost", "supervised-long", "st"]}]
    found = Plan(make_experiment(runs=runs, switches=switches), methods, records())
    _, thresholds, train = stages(found, "ost/round1")
    assert (thresholds, train.weighting, train.augment_pseudo) == (None, "dynamic", False)
    assert stages(found, "st/round1")[2].weighting == "original"


def test_the_control_follows_switches_of_the_method_that_it_matches(plan):
    found = plan("supervised-long", "dst-cbc", switches={"round_length": 3})
    assert train_of(found, "dst-cbc/round1").steps == 3 * 10
    assert train_of(found, "supervised-long/round1").steps == 7 + 3 * 3 * 10


def test_switches_of_rounds_pass_by_methods_without_them(plan):
    peers = {"teacher": "peer", "chains": {"a": {}, "b": {}}, "snapshots": 2, "best": "restart"}
    found = plan("dst-cbc", "supervised-long", switches=peers)
    assert train_of(found, "dst-cbc/a/round1").snapshots == 2
    assert train_of(found, "dst-cbc/a/round1").best == "restart"
    control = train_of(found, "supervised-long/round1")
    assert (control.snapshots, control.best) == (0, "carry")


def test_switches_that_a_row_cannot_have_are_refused_with_the_row(plan):
    with pytest.raises(ConfigError, match=r"switches, for method dst-cbc: .*labeling `online`"):
        plan("dst-cbc", switches={"labeling": "online"})


def test_sampling_is_the_same_in_prediction_and_thresholds(plan):
    found = plan("dst-cbc", "st", switches={"threshold_sampling": 16})
    for path in ("dst-cbc/round1", "dst-cbc/round3", "st/round1"):
        predict, thresholds, _ = stages(found, path)
        assert predict == found.predict
        assert predict.sampling == thresholds.sampling == 16
    assert plan("st").predict.sampling == plan("supervised").predict.sampling == 1


def planned(make_experiment, methods, **changes):
    """The plan of all these methods on the split `few`."""
    runs = [{"splits": ["few"], "methods": list(methods)}]
    return Plan(make_experiment(runs=runs, **changes), {**METHODS, **methods}, records())


def test_methods_that_predict_otherwise_have_predictions_of_their_own(make_experiment):
    methods = {"st": METHODS["st"], "own": MethodRow(curriculum=[1.0], threshold_sampling=16)}
    found = planned(make_experiment, methods)
    st, own = (found.models[f"few_0/{name}/round1"] for name in methods)
    assert st.labeling("predictions", ".h5") == "few_0/supervised/predictions.h5"
    assert own.labeling("histogram", ".npz") == "few_0/supervised/histogram@sampling=16.npz"
    assert {variant: stage.sampling for variant, stage in found.variants.items()} == {
        "": 1, "@sampling=16": 16,
    }  # fmt: skip
    assert st.settings.labels_from is None
    assert own.settings.labels_from == "supervised/predictions@sampling=16.h5"
    switches = {"threshold_sampling": 16}
    common = planned(make_experiment, methods, switches=switches)
    assert set(common.variants) == {""}
    assert common.models["few_0/own/round1"].settings.labels_from is None


def test_two_chains_label_for_each_other_round_by_round(make_experiment):
    row = MethodRow(curriculum=[0.5, 1.0], teacher="peer", chains={"a": {}, "b": {"seed": 7}})
    found = planned(make_experiment, {"peers": row})
    assert list(found.models) == [
        "few_0/supervised", "few_0/peers/a/round1", "few_0/peers/b/round1",
        "few_0/peers/a/round2", "few_0/peers/b/round2",
    ]  # fmt: skip
    supervised, a1, b1, a2, b2 = found.models.values()
    assert [m.labeled_by for m in (a1, b1, a2, b2)] == [supervised, supervised, b1, a1]
    assert [m.previous for m in (a1, b1, a2, b2)] == [supervised, supervised, a1, b1]
    assert [m.settings.train.seed for m in (a1, b1, a2, b2)] == [0, 7, 0, 7]
    assert a2.settings.labels_from == "peers/b/round1/predictions.h5"
    assert a1.settings.labels_from is None
    assert a2.reads == {
        "previous": "few_0/peers/a/round1/model.pt",
        "pseudo-labels": "few_0/peers/a/round2/pseudo_labels.csv",
    }


def test_of_several_chains_the_control_matches_one(make_experiment):
    row = MethodRow(curriculum=[0.5, 1.0], teacher="peer", chains={"a": {}, "b": {}})
    methods = {"peers": row, "long": MethodRow(labeling="none", match="peers")}
    found = planned(make_experiment, methods)
    chain = ("supervised", "peers/a/round1", "peers/a/round2")
    steps = sum(train_of(found, path).steps for path in chain)
    assert train_of(found, "long/round1").steps == steps


@pytest.mark.parametrize(
    "switches, reads_previous, has_network",
    [
        ({}, True, False),
        ({"best": "restart"}, True, False),
        ({"start": "restart"}, True, True),
        ({"start": "restart", "best": "restart"}, False, True),
    ],
)
def test_a_round_starts_from_the_one_before_or_anew(
    switches, reads_previous, has_network, make_experiment
):
    row = MethodRow(curriculum=[0.5, 1.0], **switches)
    found = planned(make_experiment, {"own": row})
    model = found.models["few_0/own/round2"]
    assert model.previous is found.models["few_0/own/round1"]
    assert ("previous" in model.reads) == reads_previous
    assert (model.settings.network is not None) == model.starts_anew == has_network
    assert model.settings.train.best == switches.get("best", "carry")


def test_what_a_training_reads_follows_from_its_switches(make_experiment):
    methods = {
        "ow": MethodRow(curriculum=[1.0], weighting="original"),
        "own": MethodRow(curriculum=[1.0], weighting="original", threshold_sampling=16),
        "ost": MethodRow(labeling="online"),
    }
    found = planned(make_experiment, methods)
    reads = {name: found.models[f"few_0/{name}/round1"].reads for name in methods}
    assert reads["ow"]["predictions"] == "few_0/supervised/predictions.h5"
    assert reads["own"]["predictions"] == "few_0/supervised/predictions@sampling=16.h5"
    assert reads["ost"] == {
        "previous": "few_0/supervised/model.pt", "unlabeled": "splits/few_0.unlabeled.txt",
    }  # fmt: skip
    assert found.models["few_0/supervised"].reads == {}


class Soft(ObjectiveSettings):
    """An objective that would make soft labels."""

    reads: ClassVar = ("thresholds", "labeling-model")
    name: Literal["soft"] = "soft"


def test_where_labels_are_soft_a_training_reads_what_made_them(make_experiment):
    peers = MethodRow(curriculum=[0.5, 1.0], teacher="peer", chains={"a": {}, "b": {}})
    model = planned(make_experiment, {"own": peers}).models["few_0/own/b/round2"]
    train = model.settings.train.model_copy(update={"objective": Soft()})
    soft = replace(model, settings=model.settings.model_copy(update={"train": train}))
    assert soft.reads == {
        "previous": "few_0/own/b/round1/model.pt",
        "pseudo-labels": "few_0/own/b/round2/pseudo_labels.csv",
        "thresholds": "few_0/own/b/round2/thresholds.csv",
        "labeling-model": "few_0/own/a/round1/model.pt",
    }


@pytest.mark.parametrize(
    "row, message",
    [
        ({"curriculum": [1.0], "teacher": "peer"}, "chains: found 0 with teacher `peer`"),
        (
            {"curriculum": [1.0], "chains": {"a": {}, "b": {}}},
            "chains: found 2 with teacher `self`",
        ),
        (
            {"labeling": "online", "teacher": "peer", "chains": {"a": {}, "b": {}}},
            "teacher `peer` needs labeling `offline`",
        ),
        (
            {"labeling": "none", "match": "st", "snapshots": 3},
            "snapshots: not allowed with labeling",
        ),
    ],
)
def test_switches_of_chains_and_rounds_that_a_method_does_not_have_are_refused(row, message):
    with pytest.raises(ValidationError, match=message):
        MethodRow(**row)


def test_sizes_reach_the_stages_that_use_them_and_no_other(plan):
    found = plan("st", prediction={"size": [9, 8]}, evaluation={"size": [7, 6], "pad": [7, 7]})
    predict, _, train = stages(found, "st/round1")
    assert (predict.size, predict.pad) == ((9, 8), None)
    for passes in (train.validation, train_of(found, "supervised").validation, found.evaluate):
        assert (passes.size, passes.pad) == ((7, 6), (7, 7))


def test_what_a_study_does_not_use_is_not_in_its_json(plan):
    """So studies that are older than a key stay finished."""
    found = plan("st")
    assert found.predict.canonical() == (
        '{"algorithm":2,"batch":8,"channels_last":false,"compute_threads":1,'
        '"deterministic":false,"precision":"float32","tile":2048}'
    )
    _, thresholds, train = stages(found, "st/round1")
    assert thresholds.canonical() == (
        '{"algorithm":1,"alpha":"1","balance":"class","rule":"threshold"}'
    )
    _, normalized, _ = stages(plan("st", switches={"rule": "normalized"}), "st/round1")
    assert normalized.canonical() == (
        '{"algorithm":2,"alpha":"1","balance":"class","rule":"normalized"}'
    )
    written = json.loads(train.canonical())
    added = {"size", "pad", "pad_colour", "masks", "resampling"}
    assert not added & {*written["augmentation"], *written["validation"]}
    assert not added & set(json.loads(found.evaluate.canonical()))
    assert not {"short_batches", "validate_early", "resampling"} & set(written)
    assert '"size":[9,8]' in plan("st", prediction={"size": [9, 8]}).predict.canonical()
    assert '"sampling":16' in plan("st", switches={"threshold_sampling": 16}).predict.canonical()


def test_a_layer_can_take_a_size_back(plan):
    size = [[8, 8], [9, 9]]
    train = {"batch": 4, "steps": 5, "augmentation": {"size": size}}
    found = plan("st", train=train, supervised={"augmentation": {"size": None}})
    assert train_of(found, "supervised").augmentation.size is None
    assert train_of(found, "st/round1").augmentation.size == ((8, 8), (9, 9))


def test_varied_keys_are_in_the_name_of_each_variant(plan):
    runs = [
        {"splits": ["few"], "methods": ["st"], "vary": {"gamma": [0, 1.5], "round_length": [2]}}
    ]
    found = plan(runs=runs)
    assert [path for path in found.models if "@" in path] == [
        "few_0/st@gamma=0,round_length=2/round1",
        "few_0/st@gamma=1.5,round_length=2/round1",
    ]
    stage = train_of(found, "st@gamma=1.5,round_length=2/round1")
    assert (stage.gamma, stage.steps) == (1.5, 20)


@pytest.mark.parametrize(
    "methods, vary, reason",
    [
        (["supervised"], {"gamma": [1]}, "`supervised` is shared"),
        (["st"], {"gama": [1]}, "gama: unknown key; did you mean 'gamma'"),
        (["st"], {"gamma": ["high"]}, "gamma: found 'high'"),
        (["st"], {"balance": ["a/b"]}, "cannot be part of a folder's name"),
        (["st"], {"objective": ["a" * 141]}, "cannot be part of a folder's name"),
    ],
)
def test_what_cannot_vary_is_refused(methods, vary, reason, plan):
    with pytest.raises(ConfigError, match=reason):
        plan(runs=[{"splits": ["few"], "methods": methods, "vary": vary}])


ASKED = {"splits": ["few"], "methods": ["dst-cbc"]}  # 1 + 3 trainings for each seed


@pytest.mark.parametrize(
    "runs, reason",
    [
        ([{**ASKED, "seeds": range(2501)}], r"runs\.0: 10,004 trainings .* 2501 seeds, 3 rounds"),
        ([ASKED, {**ASKED, "seeds": range(2500)}], r"runs\.1: 10,004 trainings"),
        ([{**ASKED, "methods": ["st"] * 10_000}], r"runs\.0: 10,001 trainings"),
        ([{**ASKED, "splits": ["few"] * 2501}], r"runs\.0: 10,004 trainings .* 2501 splits"),
        ([{**ASKED, "vary": {f"k{i}": [0, 1] for i in range(60)}}], f"{2**60} combinations"),
        ([{**ASKED, "methods": ["supervised-long"] * 3334}], r"runs\.0: 10,003 trainings"),
    ],
)
def test_more_trainings_than_can_be_planned_are_refused_before_any_is(
    runs, reason, plan, monkeypatch
):
    monkeypatch.setattr(Plan, "_add_chain", lambda *_: pytest.fail("it began to plan"))
    with pytest.raises(ConfigError, match=reason):
        plan(runs=runs)


def test_each_of_several_chains_counts(make_experiment, monkeypatch):
    peers = MethodRow(curriculum=[0.5, 1.0], teacher="peer", chains={"a": {}, "b": {"seed": 1}})
    for limit in (4, 5):
        monkeypatch.setattr("dst_cbc.planning.plan.MOST_TRAININGS", limit)
        if limit == 4:
            with pytest.raises(ConfigError, match=r"runs\.0: 5 trainings"):
                planned(make_experiment, {"peers": peers})
        else:
            assert len(planned(make_experiment, {"peers": peers}).models) == 5


class CountedRandom(random.Random):
    """A generator that counts its shuffles."""

    shuffles: ClassVar[list[int]] = []

    def shuffle(self, x):
        self.shuffles.append(len(x))
        super().shuffle(x)


def test_the_shuffles_of_many_splits_are_made_once(plan, monkeypatch):
    monkeypatch.setattr("dst_cbc.data.splits.random.Random", CountedRandom)
    CountedRandom.shuffles.clear()
    runs = [{"splits": ["few", "more"], "methods": ["supervised"], "seeds": [9, 0, 4]}]
    both = {"few": {"count": 4}, "more": {"count": 8}}
    found = plan(runs=runs, splits=both).splits
    assert len(CountedRandom.shuffles) == 10
    for seed in (9, 0, 4):
        again = plan(runs=[{**runs[0], "seeds": [seed]}], splits=both).splits
        assert again[f"few_{seed}"] == found[f"few_{seed}"]
        assert again[f"more_{seed}"].labeled[:4] == found[f"few_{seed}"].labeled


@pytest.mark.parametrize("seeds", [[10**9], [0, 1_000_000], [10**17]])
def test_a_seed_that_asks_for_too_many_shuffles_is_refused(seeds, plan, monkeypatch):
    monkeypatch.setattr("dst_cbc.data.splits.random.Random", lambda _: pytest.fail("it shuffled"))
    message = r"runs: seeds: found .* 20 training images\. Choose at most 1,000,000 seeds"
    with pytest.raises(DataError, match=message):
        plan(runs=[{**ASKED, "seeds": seeds}])


def test_more_splits_than_can_be_listed_are_refused(plan, monkeypatch):
    monkeypatch.setattr("dst_cbc.planning.plan.MOST_SHUFFLED", 20 * 20)
    splits = {f"s{number}": {"count": 4} for number in range(11)}
    run = {**ASKED, "splits": [*splits], "seeds": [0, 1], "methods": ["supervised"]}
    message = r"runs\.0: 22 splits up to here, of 20 training images each; expected at most 400"
    with pytest.raises(ConfigError, match=message):
        plan(splits=splits, runs=[run])
    plan(splits=splits, runs=[{**run, "splits": [*splits][:10]}])


def test_the_seed_of_lists_of_ids_may_be_any_number(make_experiment, tmp_path):
    (tmp_path / "a").write_text("train0\ntrain1\n")
    (tmp_path / "b").write_text("train2\n")
    experiment = make_experiment(
        splits={"few": {"files": {"labeled": "a", "unlabeled": "b"}}},
        runs=[{"splits": ["few"], "methods": ["supervised"], "seeds": [10**9]}],
    )
    found = Plan(experiment, METHODS, records(), tmp_path)
    assert found.splits["few_1000000000"].labeled == ["train0", "train1"]


@pytest.mark.parametrize(
    "train, reason",
    [
        ({"steps": 10**12}, "5,000,000,000,000 steps or more in one training"),
        ({"steps": None, "epochs": 1e308}, "5,000,000,005 steps or more in one training"),
        ({"steps": 10**9}, "5,000,000,000 steps or more in one training"),
        ({"steps": 10**8, "validate_every": 1}, "500,000,000 validations in one training"),
    ],
)
def test_a_training_without_an_end_is_refused(train, reason, plan):
    supervised = {"steps": 7, "validate_every": 7}
    with pytest.raises(ConfigError, match=reason):
        plan("dst", train={"batch": 4, "validate_every": 10**9, **train}, supervised=supervised)


def test_the_validations_of_all_trainings_are_limited(plan, monkeypatch):
    # Round 0 validates 2 times, each of 3 rounds 3 times.
    monkeypatch.setattr("dst_cbc.planning.trainings.MOST_VALIDATIONS", 11)
    plan("dst-cbc")
    monkeypatch.setattr("dst_cbc.planning.trainings.MOST_VALIDATIONS", 10)
    with pytest.raises(ConfigError, match=r"3 validations in one training, 11 in the study"):
        plan("dst-cbc")


def test_an_unknown_method_is_refused_with_the_nearest(plan):
    with pytest.raises(ConfigError, match="'dst-cbs' does not exist; did you mean 'dst-cbc'"):
        plan("dst-cbs")


def test_an_unknown_split_is_refused_with_the_nearest(plan):
    with pytest.raises(ConfigError, match="'fwe' does not exist; did you mean 'few'"):
        plan(runs=[{"splits": ["fwe"], "methods": ["st"]}])


def test_too_few_labeled_images_for_a_batch_are_refused(plan):
    with pytest.raises(ConfigError, match=r"splits\.few: 3 labeled .* batch of 8 takes 4"):
        plan("st", splits={"few": {"count": 3}}, train={"batch": 8, "steps": 1})


def test_a_subset_without_images_is_refused(plan):
    with pytest.raises(ConfigError, match=r"evaluation\.select: subset 'val' has no images"):
        plan("st", images=records(val=0))
    with pytest.raises(ConfigError, match=r"evaluation\.report: subset 'test' has no images"):
        plan("st", evaluation={"report": ["val", "test"]})
    with pytest.raises(ConfigError, match="no training images"):
        plan("st", images=records(train=0))


def test_an_odd_batch_cannot_be_halved(plan):
    train = {"batch": 5, "steps": 2}
    assert plan("supervised", train=train).models
    with pytest.raises(ConfigError, match="st: batch: found 5; half of it is pseudo-labeled"):
        plan("st", train=train)


def test_only_supervised_runs_on_a_split_without_unlabeled_images(plan):
    oracle = {"few": {"all": True}}
    assert list(plan("supervised", splits=oracle).models) == ["few_0/supervised"]
    for method in ("st", "supervised-long"):
        with pytest.raises(ConfigError, match="'few' has no unlabeled images"):
            plan(method, splits=oracle)


def test_the_training_seed_is_the_splits_unless_it_is_given(plan):
    runs = [{"splits": ["few"], "seeds": [3], "methods": ["st"]}]
    found = plan(runs=runs)
    assert {model.settings.train.seed for model in found.models.values()} == {3}
    fixed = plan(runs=runs, train={"batch": 4, "steps": 5, "seed": 11})
    assert {model.settings.train.seed for model in fixed.models.values()} == {11}


def canonical(plan):
    return {path: model.settings.canonical() for path, model in plan.models.items()}


@pytest.mark.parametrize(
    "changes",
    [
        {"device": "cpu"},
        {"workers": 3},
        {"save_seconds": 1},
        {"container": "dst-cbc.sif"},
        {"keep_predictions": "supervised"},
        {"replace": True},
        {"data": "elsewhere"},
        {"evaluation": {"report": ["train"]}},
        {"splits": {"few": {"count": 4}, "unused": {"count": 5}}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_does_not_matter_is_in_no_models_settings(changes, plan):
    assert canonical(plan("dst-cbc", **changes)) == canonical(plan("dst-cbc"))


def test_gamma_and_rounds_are_no_part_of_round_0(plan):
    train = {"batch": 4, "steps": 10, "validate_every": 4, "gamma": 2}
    assert (
        canonical(plan("st", train=train))["few_0/supervised"]
        == canonical(plan("dst-cbc"))["few_0/supervised"]
    )


def test_more_rounds_leave_the_first_ones_as_they_are(make_experiment):
    def rounds(*alphas):
        methods = {"dst-cbc": MethodRow(curriculum=alphas)}
        return canonical(Plan(make_experiment(), methods, records()))

    assert rounds(0.2, 0.6).items() <= rounds(0.2, 0.6, 1.0).items()


@pytest.fixture
def finished(tmp_path):
    """Function that writes the folders of a plan's models as if they had been trained."""

    def write(plan):
        for path, model in plan.models.items():
            folder = tmp_path / path
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "settings.json").write_text(model.settings.model_dump_json(indent=2))
            (folder / "model.pt").write_bytes(b"")
        return tmp_path

    return write


def test_a_finished_study_is_replaced_by_nothing(plan, finished):
    study = finished(plan("dst-cbc", "supervised-long", "dst"))
    assert replaced_trainings(plan("dst-cbc", "supervised-long", "dst"), study) == ({}, [])
    assert replaced_trainings(plan("dst-cbc", "st"), study) == ({}, [])


def test_an_edit_names_what_changed_and_the_rounds_that_start_from_it(make_experiment, finished):
    def planned(*alphas):
        return Plan(make_experiment(), {"dst-cbc": MethodRow(curriculum=alphas)}, records())

    study = finished(planned(0.2, 0.6, 1.0))
    replaced, _ = replaced_trainings(planned(0.2, 0.5, 1.0), study)
    assert replaced == {
        "few_0/dst-cbc/round2": "thresholds.alpha: '0.6' -> '0.5'",
        "few_0/dst-cbc/round3": "starts from few_0/dst-cbc/round2",
    }


def test_a_changed_round_0_replaces_all_rounds(plan, finished):
    study = finished(plan("dst-cbc", "supervised-long"))
    replaced, _ = replaced_trainings(
        plan("dst-cbc", "supervised-long", supervised={"steps": 8}), study
    )
    assert len(replaced) == 5
    assert "train.steps: 7 -> 8; train.validate_at" in replaced["few_0/supervised"]
    assert replaced["few_0/dst-cbc/round1"] == "starts from few_0/supervised"
    assert "train.steps" in replaced["few_0/supervised-long/round1"]


def test_damaged_settings_are_named_and_replace_nothing(plan, finished):
    study = finished(plan("dst-cbc"))
    path = study / "few_0/supervised/settings.json"
    path.write_text(path.read_text()[:100])
    replaced, (message,) = replaced_trainings(plan("dst-cbc"), study)
    assert replaced == {} and message.startswith(f"{path}: not readable as JSON")


def test_an_unfinished_training_is_replaced_without_asking(plan, finished):
    study = finished(plan("dst-cbc"))
    for path in study.rglob("model.pt"):
        path.unlink()
    assert replaced_trainings(plan("dst-cbc", supervised={"steps": 8}), study) == ({}, [])


def test_settings_come_back_from_their_file(plan):
    for model in plan("dst-cbc", "supervised-long").models.values():
        again = type(model.settings).model_validate(json.loads(model.settings.canonical()))
        assert again == model.settings and again.canonical() == model.settings.canonical()


def test_class_weights_name_classes_of_the_data_set(plan):
    found = plan(train={"class_weights": {"road": 2.0}})
    assert train_of(found, "supervised").class_weights == {"road": 2.0}
    with pytest.raises(ConfigError, match=r"train\.class_weights: 'raod' is not a class"):
        plan(train={"class_weights": {"raod": 2.0}})
    with pytest.raises(ConfigError, match="class_weights"):
        plan("dst-cbc", by_split={"few": {"class_weights": {"car": 1}}})


@pytest.mark.parametrize(
    "gpus, methods, message",
    [
        (3, ["supervised"], r"train\.gpus: found 3 with batch 4, for few_0.*divides the batch"),
        (4, ["dst-cbc"], r"dst-cbc: train\.gpus: found 4.*each half of the batch.*: 2"),
    ],
)
def test_gpus_must_divide_the_batch_and_both_halves_of_it(plan, gpus, methods, message):
    train = {"batch": 4, "steps": 10, "validate_every": 4, "gpus": gpus}
    with pytest.raises(ConfigError, match=message):
        plan(*methods, train=train)


def test_gpus_are_part_of_a_model_and_leave_no_trace_in_one_that_has_one(plan):
    train = {"batch": 4, "steps": 10, "validate_every": 4}
    one = plan("dst-cbc", train=train).models["few_0/dst-cbc/round1"].settings.canonical()
    two = plan("dst-cbc", train={**train, "gpus": 2, "sync_norm": True})
    assert "gpus" not in one and "sync_norm" not in one
    assert '"gpus":2' in two.models["few_0/dst-cbc/round1"].settings.canonical()


def test_synchronised_norm_without_cuda_is_refused_at_once(plan):
    train = {"batch": 4, "steps": 10, "validate_every": 4, "gpus": 2, "sync_norm": True}
    with pytest.raises(ConfigError, match=r"train\.sync_norm: found true with device 'cpu'"):
        plan("dst-cbc", train=train, device="cpu")


FOLDS = {"splits": {"few": {"folds": 3, "fold_length": 0.5}}, "evaluation": {"report": ["test"]}}


def half_masked(train=20, val=0, test=2):
    """Every second training image has a mask."""
    found = records(train, val, test)
    hidden = {f"train{number}" for number in range(1, train, 2)}
    return [replace(one, label="" if one.id in hidden else one.label) for one in found]


def test_folds_are_splits_of_their_own_and_then_all_masks_are_labeled(plan):
    found = plan("dst-cbc", "supervised-long", images=half_masked(), **FOLDS)
    folds = [f"few_0_fold{k}" for k in (1, 2, 3)]
    assert list(found.splits) == [*folds, "few_0_folds"]
    names = ["supervised", *(f"dst-cbc/round{r}" for r in (1, 2, 3)), "supervised-long/round1"]
    assert set(found.models) == {f"{split}/{name}" for split in found.splits for name in names}
    held = [found.splits[fold].held_out for fold in folds]
    masks = {f"train{number}" for number in range(0, 20, 2)}
    assert sorted(id for ids in held for id in ids) == sorted(masks)
    for fold, ids in zip(folds, held, strict=True):
        split = found.splits[fold]
        assert {*split.labeled} == masks - {*ids} and not {*split.unlabeled} & masks
        for name in names:
            model = found.models[f"{fold}/{name}"]
            stage = model.settings.train
            assert stage.held_out == tuple(ids) and stage.select == "last"
            assert {record.id for record in selecting(half_masked(), stage)} == {*ids}
            assert model.fold and model.choice is None and "choice" not in model.reads
        evaluated = found.evaluate_in(fold)
        assert evaluated.held_out == tuple(ids) and evaluated.report == ("val",)
    assert {*found.splits["few_0_folds"].labeled} == masks
    for name in names:
        model = found.models[f"few_0_folds/{name}"]
        assert model.settings.train.select == "folds" and model.fold is None
        assert selecting(half_masked(val=3), model.settings.train) == []
        assert model.reads["choice"] == "few_0_folds/choice.json"
    assert found.evaluate_in("few_0_folds") == found.evaluate


def test_trainings_of_folds_take_the_share_of_the_steps_that_fold_length_says(plan):
    found = plan("dst-cbc", "supervised-long", images=half_masked(), **FOLDS)

    def steps(split, name):
        return found.models[f"few_0_{split}/{name}"].settings.train.steps

    # 7 and 10 steps on all masks.
    for name, whole, half in (("supervised", 7, 4), ("dst-cbc/round2", 10, 5)):
        assert (steps("folds", name), steps("fold1", name)) == (whole, half)
    assert steps("folds", "supervised-long/round1") == 7 + 3 * 10
    assert steps("fold1", "supervised-long/round1") == 4 + 3 * 5
    stage = found.models["few_0_fold1/dst-cbc/round1"].settings.train
    assert stage.validate_at == (2, 4, 5)
    whole = plan(
        "dst-cbc",
        images=half_masked(),
        splits={"few": {"folds": 3}},
        evaluation=FOLDS["evaluation"],
    )
    assert whole.models["few_0_fold1/supervised"].settings.train.steps == 7


def test_a_group_is_in_one_fold_and_its_images_are_not_used_in_it(plan):
    images = [
        replace(one, id=f"s{number % 4}_{one.id}") for number, one in enumerate(half_masked())
    ]
    pairs = {"images": "i", "labels": "m", "group": "^(s.)_"}
    # Every second image has a mask, so slides 0 and 2 have masks.
    two = {**FOLDS, "splits": {"few": {"folds": 2}}, "format": "pairs", "pairs": pairs}
    found = plan("supervised", images=images, **two)
    for fold in ("few_0_fold1", "few_0_fold2"):
        split = found.splits[fold]
        (slide,) = {id[:2] for id in split.held_out}
        assert slide not in {id[:2] for id in (*split.labeled, *split.unlabeled)}
        assert {id[:2] for id in split.unlabeled} == {"s1", "s3"}
    with pytest.raises(DataError, match="folds: found 3, but the masks are of 2 groups"):
        plan("supervised", images=images, **{**two, "splits": {"few": {"folds": 3}}})


def test_folds_need_neither_val_nor_test_and_choose_by_themselves(plan):
    none = plan("supervised", images=half_masked(test=0), splits=FOLDS["splits"])
    assert list(none.splits)[-1] == "few_0_folds"
    with pytest.raises(ConfigError, match=r"found 'last' with splits\.few\.folds"):
        plan(images=half_masked(), **{**FOLDS, "evaluation": {"select": "last"}})
    both = {"few": {"folds": 3}, "many": {"count": 5}}
    with pytest.raises(ConfigError, match="subset 'val' has no images"):
        plan(images=half_masked(), splits=both)


def test_each_fold_counts_as_a_split_where_trainings_are_limited(plan):
    seeds = list(range(200))
    runs = [{"splits": ["few"], "seeds": seeds, "methods": ["supervised"]}]
    vary = {"gamma": [*range(12)]}
    plan(images=half_masked(), runs=runs, **FOLDS)
    many = [{"splits": ["few"], "seeds": seeds, "methods": ["st"], "vary": vary}]
    with pytest.raises(ConfigError, match="10,400 trainings up to here"):
        plan(images=half_masked(), runs=many, **FOLDS)


def test_patience_ends_chains_that_are_selected_and_is_no_part_of_others(plan):
    found = plan("dst-cbc", "supervised-long", switches={"patience": 2})
    assert train_of(found, "dst-cbc/round3").patience == 2
    assert train_of(found, "supervised-long/round1").patience is None
    assert "patience" not in plan("dst-cbc").models["few_0/dst-cbc/round1"].settings.canonical()
    with pytest.raises(ConfigError, match="patience, for dst-cbc on few_0_last: found 2"):
        plan("dst-cbc", switches={"patience": 2}, evaluation={"select": "last"})
    folds = plan("dst-cbc", images=half_masked(), switches={"patience": 2}, **FOLDS)
    assert folds.models["few_0_folds/dst-cbc/round3"].settings.train.patience is None


def test_a_round_that_the_folds_may_end_reads_the_model_that_it_would_copy(plan):
    anew = {"start": "restart", "best": "restart"}
    found = plan("dst-cbc", images=half_masked(), switches=anew, **FOLDS)
    reads = found.models["few_0_folds/dst-cbc/round2"].reads
    assert reads["previous"] == "few_0_folds/dst-cbc/round1/model.pt"
    assert "previous" not in found.models["few_0_fold1/dst-cbc/round2"].reads


@pytest.mark.parametrize("more", [{"best": "restart"}, {"snapshots": 2}])
def test_patience_needs_a_chain_that_carries_its_model(more):
    with pytest.raises(ValidationError, match="patience: not allowed with best `restart`"):
        MethodRow(curriculum=[1.0], patience=2, **more)


@pytest.mark.parametrize(
    "rule, said",
    [
        ({"folds": 3, "all": True}, "expected exactly one of count, divide, all, files, folds"),
        ({"all": True, "fold_length": 0.5}, "fold_length: allowed only with folds"),
        ({"folds": 1}, "greater than or equal to 2"),
        ({"folds": 2, "fold_length": 0}, "greater than 0"),
    ],
)
def test_a_rule_of_folds_that_makes_no_sense_is_refused(rule, said):
    with pytest.raises(ValidationError, match=said):
        SplitRule(**rule)


def test_a_control_may_continue_round_0_for_the_steps_of_the_rounds(plan):
    found = plan("dst-cbc", "supervised-long", switches={"control": "continue"})
    control = found.models["few_0/supervised-long/round1"]
    stage = control.settings.train
    assert (stage.steps, len(stage.validate_at)) == (3 * 10, 3 * 3)
    assert control.settings.network is None and not control.starts_anew
    assert control.reads == {"previous": "few_0/supervised/model.pt"}
    assert not control.learns_unlabeled
    # Without the switch, it also repeats the 7 steps of round 0.
    restart = plan("supervised-long").models["few_0/supervised-long/round1"]
    assert restart.settings.train.steps == 37 and restart.settings.network and not restart.reads
    # Other methods are not touched by it.
    same = plan("dst-cbc").models["few_0/dst-cbc/round2"].settings.canonical()
    assert found.models["few_0/dst-cbc/round2"].settings.canonical() == same
    with pytest.raises(ValidationError, match="control: allowed only with labeling `none`"):
        MethodRow(curriculum=[1.0], control="continue")
