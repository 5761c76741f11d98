"""Which images to label next, drafts in the user's mask values, and the next study's file."""

import json
import runpy
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dst_cbc.data.layouts.layout import Record
from dst_cbc.data.masks import label_table, open_label
from dst_cbc.data.records import dataset_stage, list_records
from dst_cbc.own_images.next_study import (
    describe_changes,
    model_to_continue,
    next_name,
    renewed,
)
from dst_cbc.own_images.suggestions import Doubt, doubts, draft, draft_name, most_deserving
from dst_cbc.planning.plan import Plan
from dst_cbc.runtime.errors import DataError
from dst_cbc.self_training.predictions import Prediction
from dst_cbc.settings.data import PairSettings
from dst_cbc.settings.experiment import Run
from dst_cbc.settings.experiment_files import load_methods
from workflow import REPOSITORY


def test_the_least_certain_image_comes_first_all_groups_in_turn():
    found = [
        Doubt(0, "a1", "a", 0.4), Doubt(1, "a2", "a", 0.5), Doubt(2, "b1", "b", 0.1),
        Doubt(3, "a3", "a", 0.3),
    ]  # fmt: skip
    assert [doubt.id for doubt in most_deserving(found, 3)] == ["a2", "b1", "a1"]


def test_uncertainty_is_what_the_winner_s_probability_lacks():
    classes = np.zeros((1, 2), np.uint8)
    sure, unsure = np.full((1, 2), 65535, np.uint16), np.full((1, 2), 13000, np.uint16)
    items = [Prediction(0, "s1_a", classes, sure), Prediction(1, "s2_b", classes, unsure)]
    first, second = doubts(items, "^(s.)")
    assert first.uncertainty == 0 < second.uncertainty < 1
    assert (first.group, second.group) == ("s1", "s2")


@pytest.mark.parametrize(
    "labels",
    [
        {0: "sky", 255: "road"}, {3: "road", 1: "sky"}, {0: "sky", 4000: "road"},
        {"#000000": "sky", "#ff0010": "road"}, {0: "sky", 1: "road", 2: "road"},
    ],
)  # fmt: skip
def test_a_draft_is_a_mask_of_the_data_set_itself(labels, make_experiment, tmp_path):
    stage = dataset_stage(make_experiment(labels=labels, ignore=[]))
    classes = np.random.default_rng(0).integers(0, 2, (5, 7)).astype(np.uint8)
    (tmp_path / "mask.png").write_bytes(draft(classes, stage))
    read = np.asarray(open_label(tmp_path / "mask.png", label_table(stage)))
    assert (read == classes).all()


def test_a_draft_is_called_as_its_mask_would_be():
    pairs = PairSettings(labels="m", image_name="im_{}", mask_name="{}_mask")
    assert draft_name("town/im_7", pairs) == "town/7_mask.png"
    assert draft_name("town/im_7", None) == "town/im_7.png"


def test_the_command_of_the_tutorial_adds_drafts_in_sub_folders_to_the_masks(tmp_path):
    page = (REPOSITORY / "docs/tutorials/own-images.md").read_text()
    (command,) = [line for line in page.splitlines() if line.startswith("cp -r results/letters/")]
    drafts = tmp_path / "results/letters/suggestions/drafts"
    pairs = PairSettings(labels="m", mask_name="{}_mask")
    for id in ("town/a 1", "village/east/b", "c"):
        path = drafts / draft_name(id, pairs)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(id)
    (tmp_path / "masks/town").mkdir(parents=True)
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    found = {
        p.relative_to(tmp_path).as_posix(): p.read_text() for p in tmp_path.glob("masks/**/*.png")
    }
    assert found == {
        "masks/town/a 1_mask.png": "town/a 1", "masks/village/east/b_mask.png": "village/east/b",
        "masks/c_mask.png": "c",
    }  # fmt: skip


def test_the_next_study_has_the_next_free_name():
    assert next_name("cells", lambda name: False) == "cells-2"
    assert next_name("cells-2", {"cells-3"}.__contains__) == "cells-4"


TEXT = "# a remark\nname: cells   # here\ndata: d  # kept\nsplits:\n  name: x\n"


@given(st.sampled_from([None, "results/a/model.pt"]), st.sampled_from([None, "old.pt"]))
def test_a_renewed_file_changes_its_name_and_start_and_nothing_else(start, earlier):
    text = TEXT + (f"start_from: {earlier}\n" if earlier else "")
    found, before = yaml.safe_load(renewed(text, "cells-2", start)), yaml.safe_load(TEXT)
    assert found.pop("start_from", None) == start
    assert found == {**before, "name": "cells-2"}
    assert "# a remark" in renewed(text, "cells-2", start) and "# kept" in text


def test_a_file_whose_name_is_hidden_is_refused():
    with pytest.raises(DataError, match="name: …"):
        renewed("{name: cells}", "cells-2", None)


@pytest.mark.parametrize(
    "recommended, expected",
    [
        (None, "dst-cbc/round2"),
        ("few_0/supervised-long/round1", "supervised-long/round1"),
        ("few_0/dst-cbc/round1", "dst-cbc/round1"),
        # Removed, or not trained in this study: as without a recommendation.
        ("few_0/dst-cbc/round3", "dst-cbc/round2"),
        ("../elsewhere", "dst-cbc/round2"),
    ],
)
def test_the_next_study_starts_from_the_recommended_model(
    recommended, expected, make_experiment, tmp_path
):
    plan = planned(make_experiment())
    assert model_to_continue(plan, tmp_path) is None
    for name in ("supervised", "supervised-long/round1", "dst-cbc/round1", "dst-cbc/round2"):
        (tmp_path / f"few_0/{name}").mkdir(parents=True)
        (tmp_path / f"few_0/{name}/model.pt").touch()
    if recommended:
        (tmp_path / "recommendation.json").write_text(json.dumps({"model": recommended}))
    assert model_to_continue(plan, tmp_path) == tmp_path / f"few_0/{expected}/model.pt"


def test_no_fold_continues_from_a_model_that_has_seen_its_masks(make_experiment, tmp_path):
    plan = planned(make_experiment(splits={"few": {"folds": 2}}))
    for path in plan.models:
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "model.pt").touch()
    assert model_to_continue(plan, tmp_path) is None


def planned(experiment):
    records = [
        Record(f"{subset}{n}", "i.png", "m.png" if subset == "val" or n < 8 else "", subset)
        for subset in ("train", "val")
        for n in range(12)
    ]
    experiment = experiment.model_copy(
        update={"runs": [Run(splits=("few",), methods=("dst-cbc", "supervised-long"))]}
    )
    return Plan(experiment, load_methods(REPOSITORY / "workflow/methods.yaml"), records)


@pytest.fixture
def grown(tmp_path, write_image, make_experiment):
    """Function that adds masks to six images of three groups; returns plan, records and folder."""
    for group in "abc":
        for number in "12":
            write_image(tmp_path / f"images/{group}_{number}.png", np.zeros((4, 4)))
    pairs = {"images": "images", "labels": "masks", "group": "^(.)_", "val": ["c_1"]}
    experiment = make_experiment(
        format="pairs", data=str(tmp_path), pairs=pairs, splits={"few": {"all": True}}
    )

    def add(*ids, value=0):
        for id in ids:
            write_image(tmp_path / f"masks/{id}.png", np.full((4, 4), value))
        records = list_records(tmp_path, dataset_stage(experiment))
        methods = load_methods(REPOSITORY / "workflow/methods.yaml")
        return Plan(experiment, methods, records), records, tmp_path

    return add


def test_new_masks_train_and_every_earlier_role_is_kept(grown):
    grown("a_1", "a_2", "c_1")
    plan, records, root = grown("b_1", "c_2")
    roles = {r.id: (r.subset, bool(r.label)) for r in records}
    assert roles == {
        "a_1": ("train", True), "a_2": ("train", True), "b_1": ("train", True),
        "b_2": ("train", False), "c_1": ("val", True),
    }  # fmt: skip
    said = "\n".join(describe_changes(plan, records, {"a_1", "a_2"}, root))
    assert "3 masks to train on, 1 of them new; 1 unlabeled" in said
    assert "kept: val has the same images as before" in said
    assert "1 masks are left out, first 'c_2'" in said and "WARNING" not in said
    assert "have lost their masks, first 'z'" in str(describe_changes(plan, records, {"z"}, root))


def test_a_new_mask_with_an_unknown_value_is_named(grown):
    grown("a_1", "a_2", "c_1")
    plan, records, root = grown("b_1", value=7)
    with pytest.raises(DataError, match=r"1 new masks cannot be used:\n.*b_1\.png.*\[7\]"):
        describe_changes(plan, records, {"a_1", "a_2"}, root)


def test_the_model_of_the_last_round_is_asked_and_no_model_of_a_fold(tmp_path):
    last_predicted = runpy.run_path(str(REPOSITORY / "scripts/suggest.py"))["last_predicted"]
    models = {}
    for path, round, fold in (
        ("all_0_fold1/st/round2", 2, 1), ("all_0_folds/supervised", 0, None),
        ("all_0_folds/st/round1", 1, None), ("all_0_folds/st/round2", 2, None),
    ):  # fmt: skip
        models[path] = SimpleNamespace(path=path, round=round, fold=fold)
        (tmp_path / path).mkdir(parents=True)
        if path != "all_0_folds/st/round2":
            (tmp_path / path / "predictions.h5").touch()
    plan = SimpleNamespace(models=models)
    asked = last_predicted(plan, tmp_path, "letters.yaml")
    assert asked.path == "all_0_folds/st/round1"
    with pytest.raises(DataError, match=r"no predictions\.h5; run snakemake"):
        last_predicted(plan, tmp_path / "other", "letters.yaml")
