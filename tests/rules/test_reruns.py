"""Which jobs of a finished tiny study run again after a change, and which do not."""

import os
import random
import re
import shutil
import time

import pytest
import yaml
from filelock import FileLock

from workflow import EXPERIMENT, METHODS, REPOSITORY, Project, results

ROUNDS = [f"6_0/dst-cbc/round{r}" for r in (1, 2, 3)]


@pytest.fixture(scope="session")
def finished(tmp_path_factory, worker_id) -> Project:
    """A finished study, made once for all test processes; copy it before changing anything."""
    shared = tmp_path_factory.getbasetemp()
    if worker_id != "master":
        shared = shared.parent
    root = shared / "finished"
    with FileLock(shared / "finished.lock"):
        if not (root / "results/tiny/summary.csv").is_file():
            shutil.rmtree(root, ignore_errors=True)
            Project.create(root).snakemake()
    return Project(root)


@pytest.fixture
def study(finished, tmp_path) -> Project:
    return finished.copy(tmp_path / "project")


def test_a_finished_study_has_nothing_to_do(study):
    assert not study.jobs()


def test_a_link_out_of_the_results_stops_a_run_before_it_writes(study, tmp_path):
    """Somebody else's study may hold such a link. Without jobs to run, it may stay."""
    outside, linked = tmp_path / "outside", "logs/6_0"
    shutil.move(study.study / linked, outside)
    (study.study / linked).symlink_to(outside)
    before = {path: path.stat().st_mtime_ns for path in outside.rglob("*")}
    study.snakemake()
    model = "results/tiny/6_0/dst-cbc/round3/model.pt"
    output = study.snakemake("--forcerun", model, fails=True)
    assert f"a symbolic link leads out of results, to {outside}" in output
    assert {path: path.stat().st_mtime_ns for path in outside.rglob("*")} == before
    (study.study / linked).unlink()
    # Snakemake writes a benchmark through a link.
    benchmark = study.study / "benchmarks/6_0/dst-cbc/round3/finetune.tsv"
    benchmark.unlink()
    benchmark.symlink_to(tmp_path / "precious")
    output = study.snakemake("--forcerun", model, fails=True)
    assert f"a symbolic link leads out of results, to {tmp_path}/precious" in output
    assert not (tmp_path / "precious").exists()


def test_it_has_nothing_to_do_from_another_folder_with_every_time_shuffled(study, tmp_path):
    files = [path for path in study.study.rglob("*") if path.is_file()]
    files += list((study.root / "results/scenes").rglob("*.png"))
    times = random.Random(0)
    now = time.time()
    for path in files:
        moment = now - times.uniform(0, 1e6)
        os.utime(path, (moment, moment))
    assert not study.jobs()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    arguments = ("-s", str(study.root / "Snakefile"), "--directory", str(study.root))
    assert not study.jobs(*arguments, cwd=elsewhere)


def test_it_has_nothing_to_do_on_a_cluster_whatever_its_jobs_would_ask_for(finished):
    profile = ("--workflow-profile", "profiles/slurm", "--nolock")
    assert not finished.jobs(*profile)
    more = ("train:runtime=999", "finetune:mem_mb=99999", "predict:cpus_per_task=9")
    assert not finished.jobs(*profile, "--set-resources", *more, "--set-threads", "train=7")


def test_one_more_round_runs_only_that_round(study):
    longer = {**METHODS, "dst-cbc": {"curriculum": [0.2, 0.6, 1.0, 1.0]}}
    study.write(study.root / "workflow/methods.yaml", longer)
    assert study.jobs() == {
        "predict_round 6_0/dst-cbc/round3": 1,
        "thresholds 6_0/dst-cbc/round4": 1,
        "pseudo_labels 6_0/dst-cbc/round4": 1,
        "finetune 6_0/dst-cbc/round4": 1,
        "evaluate 6_0/dst-cbc/round4": 1,
        "contact_sheet 6_0/dst-cbc/round4": 1,
        "gallery 6_0/dst-cbc": 1,
        "recommend": 1,
        "summary": 1,
        "tables report/tiny": 1,
        "figures report/tiny": 1,
    }


@pytest.mark.parametrize("keep", ["all", "supervised"])
def test_another_method_or_seed_runs_nothing_of_the_others(study, keep):
    if keep == "supervised":
        for round in ROUNDS:
            (study.study / round / "predictions.h5").unlink(missing_ok=True)
    runs = [{"splits": ["6"], "seeds": [0], "methods": ["dst-cbc", "dst-c"]}]
    study.configure(runs=runs, keep_predictions=keep)
    assert {job.split("/round")[0] for job in study.jobs()} == {
        *(f"{rule} 6_0/dst-c" for rule in ("thresholds", "pseudo_labels", "finetune", "evaluate")),
        "predict_round 6_0/dst-c",
        "contact_sheet 6_0/dst-c",
        "gallery 6_0/dst-c",
        "recommend",
        "summary",
        "tables report/tiny",
        "figures report/tiny",
    }
    study.configure(
        runs=[{"splits": ["6"], "seeds": [0, 1], "methods": ["dst-cbc"]}], keep_predictions=keep
    )
    jobs = study.jobs()
    assert not [job for job in jobs if "6_0" in job]
    assert sum("6_1" in job for job in jobs) == 3 + 3 * 5 + 3


def test_predictions_of_later_rounds_go_after_use_and_are_not_missed(study):
    runs = [{"splits": ["6"], "seeds": [0], "methods": ["dst-cbc", "dst-c"]}]
    study.configure(runs=runs, keep_predictions="supervised")
    study.snakemake()
    assert not (study.study / "6_0/dst-c/round1/predictions.h5").exists()
    assert (study.study / "6_0/dst-c/round1/histogram.npz").exists()
    assert (study.study / "6_0/supervised/predictions.h5").exists()
    page = (study.study / "6_0/dst-c/gallery.html").read_text()
    assert "labels of round 2 were made from are not kept" in page
    assert not study.jobs()


def test_edited_thresholds_rerun_labels_and_training_from_their_round_on(study):
    folder = study.study / ROUNDS[1]
    edited = folder / "thresholds.edited.csv"
    shutil.copy(folder / "thresholds.csv", edited)
    lines = edited.read_text().splitlines()
    lines[1] = ",".join([*lines[1].split(",")[:3], "-inf", *lines[1].split(",")[4:]])
    edited.write_text("\n".join(lines) + "\n")
    before = edited.read_bytes()
    jobs = study.jobs()
    assert study.trained() == ROUNDS[1:]
    assert sorted(job for job in jobs if job.startswith("pseudo")) == [
        f"pseudo_labels {round}" for round in ROUNDS[1:]
    ]
    thresholds = str((folder / "thresholds.csv").relative_to(study.root))
    study.snakemake("--forcerun", thresholds, "--notemp")
    assert edited.read_bytes() == before
    manifest = (folder / "pseudo_labels.csv").read_text().splitlines()
    header, first = manifest[0].split(","), manifest[1].split(",")
    assert int(first[header.index("pixels background")]) > 0
    assert "thresholds of round2" in (study.study / "summary.md").read_text()
    assert not study.jobs()
    edited.unlink()
    assert study.trained() == ROUNDS[1:]


def test_a_changed_setting_stops_before_the_first_job_and_names_the_trainings(study):
    study.configure(train={**EXPERIMENT["train"], "learning_rate": 0.04})
    output = study.snakemake(fails=True)
    assert "would replace finished trainings" in output
    for model in ("6_0/supervised", *ROUNDS):
        assert f"results/tiny/{model}: train.learning_rate: 0.05 -> 0.04" in output
    assert "replace=true" in output
    assert study.trained("--config", "replace=true") == sorted(["6_0/supervised", *ROUNDS])


def test_a_changed_comment_runs_nothing(study):
    for script in ("train.py", "dst_cbc/training/loop.py", "dst_cbc/planning/plan.py"):
        path = study.root / "scripts" / script
        path.write_text(path.read_text() + "# a remark\n")
    rule = study.root / "workflow/rules/train.smk"
    rule.write_text(rule.read_text() + "# a remark\n")
    assert not study.jobs()


def test_a_deleted_result_that_is_asked_for_is_made_again_alone(study):
    metrics = study.study / ROUNDS[0] / "metrics.json"
    metrics.unlink()
    assert set(study.jobs(str(metrics.relative_to(study.root)))) == {f"evaluate {ROUNDS[0]}"}


def test_an_example_of_the_tables_matches_the_files(study):
    names = {path.name for path in (study.study / ROUNDS[0]).iterdir()}
    assert names >= {
        "thresholds.csv", "pseudo_labels", "pseudo_labels.csv", "model.pt", "last.pt",
        "settings.json", "history.csv", "metrics.json", "run.json", "predictions.h5",
        "histogram.npz",
    }  # fmt: skip
    assert len(results(study.study / ROUNDS[0], "pseudo_labels/*.png")) == 8


SUPERVISED = {"train", "predict", "thresholds", "pseudo_labels", "finetune", "predict_round"}
TOLD = {"recommend", "summary", "tables", "figures"}
SUPERVISED |= {"evaluate", "contact_sheet", "gallery"} | TOLD
LATER = SUPERVISED - {"train", "predict"}
CHAIN_FROM_PREDICT = SUPERVISED - {"train"}
EVERYTHING = SUPERVISED | {"draw_digits", "check_data", "split"}
DATASET = EVERYTHING - {"draw_digits", "split"}
DRAWN = EVERYTHING - {"split"}
TRAIN = EXPERIMENT["train"]
DIGITS = EXPERIMENT["digits"]
NETWORK = EXPERIMENT["network"]
EVALUATION = EXPERIMENT["evaluation"]
CLASSES = ["background", *map(str, range(10))]


def _train(**change):
    return {"train": {**TRAIN, **change}}


def _augmentation(**change):
    return _train(augmentation=change)


def _digits(**change):
    return {"digits": {**DIGITS, **change}}


# For every key of the schema: a change, and exactly the rules that run again after it.
KEYS = {
    # Scenes drawn in another folder are a new data set; for other formats, moving the folder
    # reruns nothing.
    "data": ({"data": "results/elsewhere"}, DRAWN),
    "classes": (
        {"classes": {name: f"#0000{i:02x}" for i, name in enumerate(CLASSES)}}, DATASET,
    ),
    "labels": ({"labels": {i: CLASSES[max(0, i - 1)] for i in range(11)}}, DATASET),
    "ignore": ({"ignore": [254, 255]}, DATASET),
    "window": ({"window": [0, 255]}, DATASET),
    "bands": ({"bands": [3, 2, 1]}, DATASET),
    "subsets": (
        {"subsets": {"val": "^val", "test": "^test", "none": "^train-0000$"}},
        EVERYTHING - {"draw_digits"},
    ),
    "group": ({"group": 2}, DATASET),
    "preset": ({"preset": "paper"}, SUPERVISED),
    "digits.size": (_digits(size=36), DRAWN),
    "digits.train": (_digits(train=15), EVERYTHING),
    "digits.val": (_digits(val=5), DRAWN),
    "digits.test": (_digits(test=4), DRAWN),
    "digits.digits": (_digits(digits=[1, 3]), DRAWN),
    "digits.digit_size": (_digits(digit_size=[20, 26]), DRAWN),
    "digits.rotation": (_digits(rotation=7), DRAWN),
    "digits.slant": (_digits(slant=0.1), DRAWN),
    "digits.stretch": (_digits(stretch=1.2), DRAWN),
    "digits.ink": (_digits(ink=[0.8, 0.9]), DRAWN),
    "digits.shade": (_digits(shade=0.2), DRAWN),
    "digits.stains": (_digits(stains=1), DRAWN),
    "digits.ruled": (_digits(ruled=0.5), DRAWN),
    "digits.noise": (_digits(noise=[1, 2]), DRAWN),
    "digits.seed": (_digits(seed=1), DRAWN),
    "network.backbone": (
        {"network": {**NETWORK, "backbone": "resnet18", "output_stride": 8}}, SUPERVISED,
    ),
    "network.output_stride": (
        {"network": {**NETWORK, "backbone": "resnet18", "output_stride": 16}}, SUPERVISED,
    ),
    "network.stages": (
        {"network": {"backbone": "resnet18", "output_stride": 8, "stages": 2}}, SUPERVISED,
    ),
    "network.aspp_rates": ({"network": {**NETWORK, "aspp_rates": [1, 2]}}, SUPERVISED),
    "network.aspp_init": ({"network": {**NETWORK, "aspp_init": "torch"}}, SUPERVISED),
    "network.head": (
        {
            "network": {
                "backbone": "small", "output_stride": 4,
                "head": {"name": "deeplabv2", "rates": [1, 2]},
            }
        },
        SUPERVISED,
    ),
    "network.weights": (
        {"network": {"backbone": "resnet18", "output_stride": 8, "weights": "package:a/b.pt"}},
        SUPERVISED,
    ),
    "network.input_scale": ({"network": {**NETWORK, "input_scale": 0.5}}, SUPERVISED),
    "start_from": ({"start_from": "config.yaml"}, SUPERVISED),
    "train.batch": (_train(batch=2), SUPERVISED),
    "train.crop": (_train(crop=[24, 28]), SUPERVISED),
    "train.learning_rate": (_train(learning_rate=0.04), SUPERVISED),
    "train.momentum": (_train(momentum=0.8), SUPERVISED),
    "train.weight_decay": (_train(weight_decay=0.1), SUPERVISED),
    "train.power": (_train(power=1.0), SUPERVISED),
    "train.gamma": (_train(gamma=2), LATER),
    "train.clip": (_train(clip=1.0), SUPERVISED),
    "train.warmup": (_train(warmup=1), SUPERVISED),
    "train.backbone_rate": (_train(backbone_rate=0.5), SUPERVISED),
    "train.freeze_norm": (_train(freeze_norm=True), SUPERVISED),
    "train.freeze_stages": (_train(freeze_stages=1), SUPERVISED),
    "train.class_weights": (_train(class_weights="balanced"), SUPERVISED),
    "train.gpus": (_train(gpus=2), SUPERVISED),
    "train.sync_norm": (_train(sync_norm=True), SUPERVISED),
    "train.short_batches": (_train(short_batches=True), SUPERVISED),
    "train.augmentation.scale": (_augmentation(scale=[0.5, 1.4]), SUPERVISED),
    "train.augmentation.size": (_augmentation(size=[[24, 24], [32, 32]]), SUPERVISED),
    "train.augmentation.rotation": (_augmentation(rotation=1), SUPERVISED),
    "train.augmentation.flip": (_augmentation(flip=0), SUPERVISED),
    "train.augmentation.brightness": (_augmentation(brightness=0.1), SUPERVISED),
    "train.augmentation.contrast": (_augmentation(contrast=0.1), SUPERVISED),
    "train.augmentation.saturation": (_augmentation(saturation=0.1), SUPERVISED),
    "train.augmentation.hue": (_augmentation(hue=0.1), SUPERVISED),
    "train.augmentation.noise": (_augmentation(noise=0.1), SUPERVISED),
    "train.epochs": ({"train": {**TRAIN, "steps": None, "epochs": 2}}, LATER),
    "train.steps": (_train(steps=4), LATER),
    "train.validate_every": (_train(validate_every=1), SUPERVISED),
    "train.validate_early": (_train(validate_early=True), SUPERVISED),
    "train.seed": (_train(seed=7), SUPERVISED),
    "supervised": ({"supervised": {"steps": 7}}, SUPERVISED),
    "by_split": ({"by_split": {"6": {"gamma": 3}}}, LATER),
    "evaluation.candidates": ({"evaluation": {**EVALUATION, "candidates": "ends"}}, SUPERVISED),
    "evaluation.report": (
        {"evaluation": {**EVALUATION, "report": ["val"]}}, {"evaluate"} | TOLD,
    ),
    "evaluation.batch": ({"evaluation": {**EVALUATION, "batch": 2}}, SUPERVISED),
    "evaluation.tile": ({"evaluation": {**EVALUATION, "tile": 64}}, SUPERVISED),
    "evaluation.size": ({"evaluation": {**EVALUATION, "size": [24, 24]}}, SUPERVISED),
    "evaluation.pad": ({"evaluation": {**EVALUATION, "pad": [40, 40]}}, SUPERVISED),
    "evaluation.pad_colour": ({"evaluation": {**EVALUATION, "pad_colour": "black"}}, SUPERVISED),
    "evaluation.masks": ({"evaluation": {**EVALUATION, "masks": "own"}}, SUPERVISED),
    "prediction.size": ({"prediction": {"size": [24, 24]}}, CHAIN_FROM_PREDICT),
    "switches": ({"switches": {"threshold_sampling": 16}}, CHAIN_FROM_PREDICT),
    "splits": ({"splits": {"6": {"count": 7}}}, SUPERVISED | {"split"}),
    "runs": (
        {"runs": [{"splits": ["6"], "seeds": [0], "methods": ["supervised-long"]}]},
        {"train", "evaluate", "recommend", "summary", "tables"},
    ),
    "compute_threads": ({"compute_threads": 2}, SUPERVISED),
    "precision": ({"precision": "bfloat16"}, SUPERVISED),
    "resampling": (
        {"resampling": "torch", **_augmentation(size=[TRAIN["crop"], [32, 32]])}, SUPERVISED,
    ),
    "channels_last": ({"channels_last": True}, SUPERVISED),
    "deterministic": ({"deterministic": True}, SUPERVISED),
    "report.name": ({"report": {"name": "other"}}, {"tables", "figures"}),
    "report.title": ({"report": {"title": "A title"}}, {"tables"}),
    "report.paper": ({"report": {"paper": {"dst-cbc": {"6": 70.5}}}}, {"tables"}),
    "report.paper_table": (
        {"report": {"paper": {"st": {"6": 7}}, "paper_table": {"methods": ["st"], "oracle": "6"}}},
        {"tables"},
    ),
    "keep_predictions": ({"keep_predictions": "supervised"}, set()),
    "remake": ({"remake": True}, set()),
    "replace": ({"replace": True}, set()),
    "device": ({"device": "cpu"}, set()),
    "workers": ({"workers": 2}, set()),
    "save_seconds": ({"save_seconds": 1}, set()),
    "container": ({"container": "docker://example.org/dst-cbc"}, set()),
    "shards": ({"shards": 2}, set()),
}  # fmt: skip

# Keys that the table cannot test: they need another study or data set, or allow one value only.
ELSEWHERE = {
    "name",
    "format",
    "pairs",
    "annotations",
    "test_from_val",
    "evaluation.select",
    "evaluation.valtiny",
}


def test_the_table_of_keys_is_complete():
    from dst_cbc.settings.base import Settings
    from dst_cbc.settings.experiment import Experiment

    def keys(cls, prefix=""):
        for name, field in cls.model_fields.items():
            inner = field.annotation
            nested = isinstance(inner, type) and issubclass(inner, Settings)
            if nested and name not in ("supervised", "switches"):
                yield from keys(inner, f"{prefix}{name}.")
            else:
                yield prefix + name

    assert set(KEYS) | ELSEWHERE == set(keys(Experiment))


def test_the_documentation_lists_the_same_rules_for_each_key():
    page = (REPOSITORY / "docs/explanation/reruns.md").read_text()
    section = page.partition("## After an edited key")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("| `")]
    listed = {
        key: set(re.findall(r"`(\w+)`", rules))
        for keys, rules in rows
        for key in re.findall(r"`([\w.]+)`", keys)
    }
    assert listed == {key: rules for key, (_, rules) in KEYS.items()}


def test_the_same_head_by_its_other_name_reruns_nothing(finished, tmp_path):
    network = {**NETWORK, "head": {"name": "deeplabv2", "rates": NETWORK["aspp_rates"]}}
    del network["aspp_rates"]
    path, config = (
        tmp_path / "named.yaml",
        yaml.safe_load((finished.root / "config.yaml").read_text()),
    )
    Project.write(path, {**config, "network": network})
    assert not finished.jobs("--configfile", str(path), "--nolock")


@pytest.mark.parametrize("key", KEYS)
def test_each_key_reruns_exactly_the_rules_that_use_it(finished, key, tmp_path):
    change, rules = KEYS[key]
    path = tmp_path / "changed.yaml"
    Project.write(path, {**yaml.safe_load((finished.root / "config.yaml").read_text()), **change})
    jobs = finished.jobs("--configfile", str(path), "--config", "replace=true", "--nolock")
    assert {job.split()[0] for job in jobs} == rules
