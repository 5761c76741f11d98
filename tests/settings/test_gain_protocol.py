"""The protocol for gains: what workflow/gain.yaml and its experiment files promise."""

import re
from itertools import pairwise

import pytest

from dst_cbc.settings.experiment_files import load_experiment
from dst_cbc.settings.gain_table import read_gain_table
from dst_cbc.settings.yaml_files import read_yaml
from workflow import REPOSITORY

FILE = REPOSITORY / "workflow/gain.yaml"
TABLE = read_gain_table(FILE)
PRESETS = read_yaml(REPOSITORY / "workflow/presets.yaml")
EXPERIMENTS = {
    name: load_experiment([TABLE.experiment(name, FILE.parent)], PRESETS, {})
    for name in TABLE.studies
}
DRIVES = {
    "0001TP": [f"0001TP_{n:06}" for n in range(6690, 8521, 30)],
    "0006R0": [f"0006R0_f{n:05}" for n in range(930, 3931, 30)],
    "0016E5": [
        *(f"0016E5_{n:05}" for n in (*range(390, 2401, 30), *range(4350, 8641, 30))),
        *(f"0016E5_{n:05}" for n in range(7959, 8160, 2)),
    ],
}
CONTROLS = {"supervised-long", "supervised-passes"}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_method_of_a_study_has_both_controls_and_three_seeds_of_one_number_of_labels(name):
    experiment = EXPERIMENTS[name]
    controlled = [run for run in experiment.runs if {*run.methods} >= CONTROLS]
    assert {0, 1, 2} in [{*run.seeds} for run in controlled]
    for run in experiment.runs:
        lists = [experiment.splits[split] for split in run.splits]
        of_scene = all(not rule.unlabeled for rule in lists)
        assert run in controlled or run.methods == ("supervised",) or of_scene
    assert experiment.evaluation.select == "val" and experiment.evaluation.report == ("val", "test")


def subset_of(id, subsets):
    for subset in ("none", "test", "val"):
        found = getattr(subsets, subset)
        patterns = [found] if isinstance(found, str) else found
        if any(re.search(pattern, id) for pattern in patterns):
            return subset
    return "train"


@pytest.mark.parametrize("drive", DRIVES)
def test_a_drive_of_camvid_that_is_the_test_is_never_labeled_and_lies_five_seconds_apart(drive):
    experiment = EXPERIMENTS[f"gain-camvid-{drive}"]
    sides = {id: subset_of(id, experiment.subsets) for ids in DRIVES.values() for id in ids}
    for own_test in ("0001TP_008550", "0001TP_010380", "Seq05VD_f00000", "Seq05VD_f05100"):
        assert subset_of(own_test, experiment.subsets) == "none"
    assert {id[:6] for id, side in sides.items() if side == "test"} == {drive}
    assert {id[:6] for id, side in sides.items() if side == "val"} == {*DRIVES} - {drive}
    for rule in experiment.splits.values():
        assert not any(re.search(rule.among, id) for id in DRIVES[drive])
    for frames in DRIVES.values():
        numbers = sorted((int(id[-5:]), sides[id]) for id in frames)
        used = [(number, side) for number, side in numbers if side != "none"]
        for (number, side), (other, next_side) in pairwise(used):
            assert side == next_side or other - number > 150


def test_unlabeled_images_come_from_the_scene_of_the_test_in_its_scenario_only():
    for name, experiment in EXPERIMENTS.items():
        for split, rule in experiment.splits.items():
            said = TABLE.scenarios[split]
            if said == "another scene" and rule.among:
                assert rule.unlabeled == rule.among, (name, split)
            if said == "same scene, unlabeled":
                assert rule.among and not rule.unlabeled, (name, split)
