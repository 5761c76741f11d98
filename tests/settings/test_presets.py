"""The three presets: every cell of their table, and a study with `released`."""

import json

import h5py
import numpy as np
import pytest
from PIL import Image

from documentation import presets_page
from dst_cbc.data.layouts import LAYOUTS
from dst_cbc.data.layouts.layout import Record
from dst_cbc.planning.plan import Plan
from dst_cbc.runtime.tables import read_csv
from dst_cbc.settings.experiment_files import load_experiment, load_methods
from dst_cbc.settings.yaml_files import ConfigError, read_yaml
from workflow import EXPERIMENT, REPOSITORY, Project

PRESETS = read_yaml(REPOSITORY / "workflow/presets.yaml")
FOLDER = REPOSITORY / "workflow/experiments"
RATES, TWO_RATES = (6, 12, 18, 24), (6, 12)
SIDES = ((321, 321), (505, 505))
# Each key has one value per preset: standard, paper, released.
CELLS = {
    "precision": ("float32", "float16", "float16"),
    "resampling": ("warp", "warp", "torch"),
    "network.backbone": ("resnet101", "resnet101", "resnet101"),
    "network.output_stride": (8, 8, 8),
    "network.aspp_rates": (RATES, RATES, TWO_RATES),
    "network.aspp_init": ("normal", "normal", "torch"),
    "network.input_scale": (1, 1, 1),
    "switches.rule": ("threshold", "threshold", "normalized"),
    "switches.threshold_sampling": (1, 1, 16),
    "train.batch": (8, 8, 8),
    "train.crop": ((321, 321), (321, 321), (321, 321)),
    "train.learning_rate": (0.002, 0.002, 0.002),
    "train.momentum": (0.9, 0.9, 0.9),
    "train.weight_decay": (0.0005, 0.0005, 0.0005),
    "train.power": (0.9, 0.9, 0.9),
    "train.gamma": (9, 9, 9),
    "train.epochs": (6, 6, 6),
    "train.validate_every": (1000, 1000, 1000),
    "train.validate_early": (False, False, True),
    "train.short_batches": (False, False, True),
    "train.augmentation.size": (None, SIDES, SIDES),
    "train.augmentation.flip": (0.5, 0.5, 0.5),
    "supervised.epochs": (6, "formula", "formula"),
    "prediction.size": (None, (321, 321), (321, 321)),
    "evaluation.size": (None, None, None),
    "evaluation.masks": ("resized", "own", "resized"),
    "evaluation.pad": (None, None, (505, 505)),
    "evaluation.pad_colour": ("mean", "mean", "black"),
}
NAMES = ("standard", "paper", "released")
MINIMAL = {
    "name": "study",
    "data": "pictures",
    "format": "voc",
    "splits": {"20": {"divide": 20}},
    "runs": [{"splits": ["20"], "methods": ["dst-cbc", "cbst", "supervised-long"]}],
}


def plan_of(*files, images=10582, **overrides):
    experiment = load_experiment(files, PRESETS, overrides)
    ids = {"train": [f"{i:05}" for i in range(images)], "val": LAYOUTS[experiment.format].valtiny}
    records = [Record(id, "i.png", "m.png", subset) for subset in ids for id in ids[subset]]
    return Plan(experiment, load_methods(REPOSITORY / "workflow/methods.yaml"), records)


def of_round_1(plan):
    """Settings of round 0 and of round 1 of dst-cbc, on split 20 with seed 0."""
    supervised = plan.models["20_0/supervised"].settings
    settings = plan.models["20_0/dst-cbc/round1"].settings
    return supervised, settings


def of_stages(plan):
    """For each key of the table, the value that the stages get."""
    supervised, settings = of_round_1(plan)
    stage, predict, thresholds = settings.train, settings.predict, settings.thresholds
    # Of 530 images: 66.25 full batches of 8, or 67 with the short one.
    epochs = supervised.train.steps / (67 if stage.short_batches else 530 / 8)
    early = stage.validate_at[-1] == stage.steps - 1
    found = {
        **{f"network.{key}": value for key, value in supervised.network},
        **{f"train.{key}": value for key, value in stage},
        **{f"train.augmentation.{key}": value for key, value in stage.augmentation},
        "switches.rule": thresholds.rule,
        "switches.threshold_sampling": thresholds.sampling,
        # Passes over 10052 unlabeled images, four per step.
        "train.epochs": round(stage.steps * 4 / 10052, 2),
        "train.validate_every": stage.validate_at[1] - stage.validate_at[0],
        "train.validate_early": early,
        "supervised.epochs": {6: 6, 134: "formula"}.get(round(epochs), epochs),
        "prediction.size": predict.size,
        "evaluation.size": stage.validation.size,
        "evaluation.masks": stage.validation.masks,
        "evaluation.pad": stage.validation.pad,
        "evaluation.pad_colour": stage.validation.pad_colour,
        "precision": stage.precision,
        "resampling": stage.resampling,
    }
    assert stage.validate_at[0] == (999 if early else 1000)
    assert predict.sampling == thresholds.sampling and predict.pad is None
    for passes in (supervised.train.validation, plan.evaluate):
        shared = {key: getattr(passes, key) for key in ("size", "pad", "masks", "pad_colour")}
        assert shared == {key: getattr(stage.validation, key) for key in shared}
    for model in (supervised.train, predict, plan.evaluate):
        assert (model.precision, model.resampling) == (stage.precision, stage.resampling)
    assert supervised.train.augmentation == stage.augmentation
    return found


@pytest.fixture
def minimal(tmp_path):
    """An experiment file with the required keys alone."""
    path = tmp_path / "minimal.yaml"
    Project.write(path, MINIMAL)
    return path


@pytest.mark.parametrize("column, preset", list(enumerate(NAMES)))
def test_every_cell_reaches_the_stages(column, preset, minimal):
    found = of_stages(plan_of(minimal, preset=preset))
    assert {key: found[key] for key in CELLS} == {key: row[column] for key, row in CELLS.items()}


def test_no_preset_is_the_standard(minimal):
    standard, none = plan_of(minimal, preset="standard"), plan_of(minimal)
    assert {p: m.settings for p, m in none.models.items()} == {
        p: m.settings for p, m in standard.models.items()
    }
    assert tuple(PRESETS) == NAMES


@pytest.mark.parametrize("preset", NAMES)
def test_cbst_keeps_its_rule_and_the_control_has_none(preset, minimal):
    models = plan_of(minimal, preset=preset).models
    assert models["20_0/cbst/round1"].settings.thresholds.rule == "normalized"
    assert models["20_0/supervised-long/round1"].settings.thresholds is None


def test_any_key_of_a_preset_can_be_overridden(minimal):
    plan = plan_of(
        minimal,
        preset="released",
        switches={"rule": "threshold"},
        resampling="warp",
        evaluation={"pad": None},
        train={"augmentation": {"size": None}},
    )
    _, settings = of_round_1(plan)
    assert (settings.thresholds.rule, settings.thresholds.sampling) == ("threshold", 16)
    assert settings.train.augmentation.size is None and settings.train.validation.pad is None
    assert settings.predict.size == (321, 321)


def written(value):
    """A value as the table prints it."""
    plain = json.dumps(value).replace('"', "")
    return f"`{plain}`"


def test_the_table_has_these_cells_and_no_other():
    header, _, *lines = presets_page.presets(PRESETS).splitlines()
    assert header == "| key | `standard` | `paper` | `released` |"
    rows = [line.strip("| ").split(" | ") for line in lines]
    assert {row[0]: row[1:4] for row in rows} == {
        f"`{key}`": [written(value) for value in cells] for key, cells in CELLS.items()
    }


@pytest.mark.parametrize("column, preset", [(1, "paper"), (2, "released")])
def test_every_row_says_what_paper_and_code_do_what_we_do_and_where_it_stands(column, preset):
    header, _, *lines = presets_page.origins(PRESETS, preset).splitlines()
    assert header == "| key | paper | released code | ours | section | note |"
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    ours = {row[0]: row[3] for row in rows}
    assert ours == {f"`{key}`": written(cells[column]) for key, cells in CELLS.items()}
    assert all(paper and released and section for _, paper, released, _, section, _ in rows)
    assert {key for key, *_, note in rows if "Not exact" in note} == {
        "`switches.threshold_sampling`"
    }


def test_every_fact_is_of_a_key_that_a_preset_sets():
    assert set(presets_page.FACTS) == set(CELLS)


@pytest.mark.parametrize("preset", ["paper", "released"])
def test_a_preset_with_sizes_refuses_an_input_scale_and_says_how_to_go_on(preset, minimal):
    with pytest.raises(
        ConfigError, match=r"input_scale: found 0\.5, but prediction\.size is \[321"
    ) as e:
        plan_of(minimal, preset=preset, network={"input_scale": 0.5})
    assert "(the presets `paper` and `released` set it, too)" in str(e.value)
    sizes = {"prediction": {"size": None}, "evaluation": {"size": None}}
    plan_of(minimal, preset=preset, network={"input_scale": 0.5}, **sizes)


def variant(name, images):
    base = name.removesuffix("-released")
    return plan_of(FOLDER / f"{base}.yaml", FOLDER / f"variants/{name}.yaml", images=images)


STEPS = {
    "voc": {"1": 30 * 1323, "4": 60 * 331, "8": 85 * 166, "20": 134 * 67, "50": 212 * 27,
            "106": 300 * 13},
    "cityscapes": {"1": 60 * 372, "4": 120 * 93, "8": 170 * 47, "30": 330 * 13},
}  # fmt: skip
EVERY = {
    "voc": {"1": 1000, "4": 500, "8": 350, "20": 220, "50": 140, "106": 100},
    "cityscapes": {"1": 1000, "4": 500, "8": 350, "30": 100},
}


@pytest.mark.parametrize("name, images", [("voc", 10582), ("cityscapes", 2975)])
def test_released_counts_whole_epochs_of_batches_rounded_up(name, images):
    """Batches of 8 of 10582, 2645, 1322, 530, 211, 100 images; of 2975, 743, 371, 100."""
    plan = variant(f"{name}-released", images)
    stages = {
        split.name: plan.models[f"{division}/supervised"].settings.train
        for division, split in plan.splits.items()
    }
    assert {split: stage.steps for split, stage in stages.items()} == STEPS[name]
    for split, stage in stages.items():
        steps, every = stage.steps, EVERY[name][split]
        expected = {n for n in range(1, steps + 1) if n % every == every - 1} | {steps - 1}
        assert stage.validate_at == tuple(sorted(expected))
        assert steps not in stage.validate_at
    rounds = plan.models[f"{'20' if name == 'voc' else '8'}_0/dst-cbc/round1"].settings.train
    # 10052 and 2604 unlabeled images in batches of 4, 6 and 12 times.
    assert rounds.steps == {"voc": 6 * 2513, "cityscapes": 12 * 651}[name]


@pytest.mark.parametrize(
    "name, images, steps",
    [
        ("voc", 10582, {"1": 39682, "4": 19839, "8": 14025, "20": 8880, "50": 5603, "106": 3857}),
        ("cityscapes", 2975, {"1": 22312, "4": 11145, "8": 7883, "30": 4112}),
    ],
)
def test_paper_counts_passes_over_the_images(name, images, steps):
    """30 sqrt(images / labeled), or cityscapes.yaml's numbers, times labeled images by 8."""
    plan = plan_of(FOLDER / f"{name}.yaml", images=images)
    found = {
        split.name: plan.models[f"{division}/supervised"].settings.train
        for division, split in plan.splits.items()
    }
    assert {split: stage.steps for split, stage in found.items()} == steps
    assert all(stage.validate_at[-1] == stage.steps for stage in found.values())


@pytest.mark.parametrize(
    "name, images, split, crop, sides, size, evaluated, pad, rates",
    [
        ("voc-released", 10582, "20_0", (321, 321), SIDES, (321, 321), None, (505, 505),
         (2e-3, 2e-3)),
        ("cityscapes-released", 2975, "8_0", (257, 513), ((257, 513), (513, 1025)), (257, 513),
         (513, 1025), None, (2e-3, 4e-3)),
    ],
)  # fmt: skip
def test_released_sizes_are_those_of_the_data_set(
    name, images, split, crop, sides, size, evaluated, pad, rates
):
    plan = variant(name, images)
    assert plan.experiment.name == name
    supervised = plan.models[f"{split}/supervised"].settings
    settings = plan.models[f"{split}/dst-cbc/round1"].settings
    assert supervised.network.aspp_rates == TWO_RATES and supervised.network.input_scale == 1
    assert (settings.thresholds.rule, settings.thresholds.sampling) == ("normalized", 16)
    assert settings.predict.size == size
    for stage, rate in zip((supervised.train, settings.train), rates, strict=True):
        assert (stage.crop, stage.augmentation.size) == (crop, sides)
        assert (stage.validation.size, stage.validation.pad) == (evaluated, pad)
        assert stage.learning_rate == rate


@pytest.mark.parametrize(
    "name, images, split, crop, sides, predicted, evaluated",
    [
        ("voc", 10582, "20_0", (321, 321), SIDES, (321, 321), None),
        ("cityscapes", 2975, "8_0", (257, 513), ((257, 513), (513, 1025)), (257, 513),
         (513, 1025)),
    ],
)  # fmt: skip
def test_printed_sizes_are_those_of_the_data_set(
    name, images, split, crop, sides, predicted, evaluated
):
    """Table 6, and sections 4.1 and 4.2; ground truth remains unchanged (section A.1)."""
    plan = plan_of(FOLDER / f"{name}.yaml", images=images)
    settings = plan.models[f"{split}/dst-cbc/round1"].settings
    assert settings.predict.size == predicted
    for stage in (plan.models[f"{split}/supervised"].settings.train, settings.train):
        assert (stage.crop, stage.augmentation.size) == (crop, sides)
        assert (stage.validation.size, stage.validation.masks) == (evaluated, "own")
        assert stage.validation.pad is None and stage.resampling == "warp"


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A finished tiny study with the preset `released` and smaller sizes."""
    train = {**EXPERIMENT["train"], "augmentation": {"size": [[24, 24], [30, 36]]}}
    project = Project.create(
        tmp_path_factory.mktemp("released") / "project",
        preset="released",
        train=train,
        prediction={"size": [16, 24]},
        evaluation={**EXPERIMENT["evaluation"], "pad": [40, 41]},
    )
    methods = {"dst-cbc": {"curriculum": [0.5, 1.0]}}
    project.write(project.root / "workflow/methods.yaml", methods)
    project.snakemake()
    return project


@pytest.mark.slow
def test_a_study_like_the_released_code_labels_squashed_images(released):
    folder = released.study / "6_0"
    ids = (released.study / "splits/6_0.unlabeled.txt").read_text().split()
    with h5py.File(folder / "supervised/predictions.h5") as file:
        assert {file[f"classes/{n}"].shape for n in range(8)} == {(16, 24)}
    for number in (1, 2):
        labels = [
            np.asarray(Image.open(folder / f"dst-cbc/round{number}/pseudo_labels/{id}.png"))
            for id in ids
        ]
        assert {one.shape for one in labels} == {(16, 24)} and len(labels) == 8
        assert any((one == 255).any() for one in labels) == (number == 1)


@pytest.mark.slow
def test_its_thresholds_are_of_every_16th_pixel_and_one_pixel_more(released):
    rows = read_csv(released.study / "6_0/dst-cbc/round1/thresholds.csv", ())
    # Eight images of 384 pixels, in batches of four; every 16th pixel counts.
    assert sum(int(row["pixels"]) for row in rows) == 8 * 384 / 16
    for row in rows:
        if pixels := int(row["pixels"]):
            assert int(row["kept"]) >= pixels // 2 + 1


@pytest.mark.slow
def test_its_figures_count_no_padding(released):
    metrics = json.loads((released.study / "6_0/dst-cbc/round2/metrics.json").read_text())
    for subset, images in (("val", 4), ("test", 3)):
        found = metrics["best"]["subsets"][subset]
        assert np.sum(found["confusion"]) == images * 32 * 32


@pytest.mark.slow
def test_it_has_nothing_more_to_do(released):
    assert not released.jobs()
