"""Every shipped experiment file: it runs, refuses a typo, and has the paper's settings."""

import re
import shutil
from collections import defaultdict

import pytest
import yaml
from PIL import Image

from dst_cbc.data.layouts import LAYOUTS
from dst_cbc.data.layouts.layout import Record
from dst_cbc.planning.plan import Plan, load_plan
from dst_cbc.settings.experiment_files import load_experiment, load_methods
from dst_cbc.settings.yaml_files import ConfigError, read_yaml
from workflow import REPOSITORY, Project

FOLDER = "workflow/experiments"
FILES = ["config.yaml", *sorted(f"{FOLDER}/{p.name}" for p in (REPOSITORY / FOLDER).glob("*.yaml"))]

ABLATION = {
    "supervised", "st", "dst", "dst-c", "dst-cbc", "ow",
    "ost", "ost-t", "st-na", "ost-na", "ost-t-na",
}  # fmt: skip

# Numbers of jobs: splits; trainings on labels alone (round 0 of each split, and controls); rounds
# of self-training. An ablation has 7 methods of one round, 4 of five rounds (with CBST), and
# a sweep of 6 values. Tables 3 and 4 have the smallest split a second time, selected on valtiny.
JOBS = {
    "config.yaml": (1, 1, 5),
    "demo-control.yaml": (3, 3 + 3, 3 * 5),
    "demo-ablation.yaml": (1, 1 + 1, 7 + 4 * 5 + 6 * 5),
    "camvid.yaml": (5, 5 + 4, 3 * 5 + 1 + 5),
    "camvid-quick.yaml": (1, 1, 5),
    "camvid-ablation.yaml": (1, 1 + 1, 7 + 4 * 5 + 6 * 5),
    "voc.yaml": (16 + 3, 16 + 3, (5 + 1) * 3 * 5),
    "table1.yaml": (1, 1, 6 * 5),
    "table2.yaml": (1, 1, 7 * 5),
    "table3.yaml": (16 + 3, 16 + 3, (5 + 1) * 3 * 5),
    "table3-106.yaml": (6, 6, 2 * 3 * 5),
    "table5.yaml": (1, 1 + 1, 7 + 4 * 5),
    "figures.yaml": (1, 1, 5 + 1),
    "cityscapes.yaml": (10 + 3, 10 + 3, (3 + 1) * 3 * 5),
    "table4.yaml": (10 + 3, 10 + 3, (3 + 1) * 3 * 5),
    "figure4.yaml": (1, 1, 5 + 1),
}


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Folder of a miniature data set in the real layout, for each format."""
    root = tmp_path_factory.mktemp("data")
    pixels = Image.new("L", (8, 8))

    def save(*paths):
        for path in paths:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            pixels.save(root / path)

    # 1/106 and 1/30 must give the four labeled images of half a batch. val holds valtiny alone.
    for id in (*(f"2012_{i:06}" for i in range(480)), *LAYOUTS["voc"].valtiny):
        save(f"voc/JPEGImages/{id}.jpg", f"voc/SegmentationClassAug/{id}.png")
    lists = root / "voc/ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("\n".join(LAYOUTS["voc"].valtiny))
    for subset, ids in (
        ("train", [f"ulm/ulm_{i:06}_000019" for i in range(130)]),
        ("val", LAYOUTS["cityscapes"].valtiny),
    ):
        for id in ids:
            save(f"cityscapes/leftImg8bit/{subset}/{id}_leftImg8bit.png")
            save(f"cityscapes/gtFine/{subset}/{id}_gtFine_labelIds.png")
    for subset, film, count in (("train", "0006R0", 60), ("val", "0016E5", 6)):
        images = [f"{subset}{{}}/{film}_{i:06}.png" for i in range(count)]
        save(*(f"camvid/{path.format(part)}" for path in images for part in ("", "annot")))
        lines = (f"/{path.format('')} /{path.format('annot')}\n" for path in images)
        (root / f"camvid/{subset}.txt").write_text("".join(lines))
    return {format: root / format for format in ("voc", "cityscapes", "camvid")}


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """The workflow as shipped, with an empty file in place of the initial weights."""
    project = Project.create(tmp_path_factory.mktemp("project"))
    for name in ("config.yaml", "workflow/methods.yaml"):
        shutil.copy(REPOSITORY / name, project.root / name)
    (project.root / "weights").mkdir()
    (project.root / "weights/coco.safetensors").touch()
    return project


def experiment_of(file):
    return load_experiment([REPOSITORY / file], read_yaml(REPOSITORY / "workflow/presets.yaml"))


def plan_of(file, train=480):
    """The plan of a file for `train` training images, all with masks; val holds valtiny alone."""
    experiment = experiment_of(file)
    val = LAYOUTS[experiment.format].valtiny or ("val",)
    records = [
        Record(id, "i.png", "m.png", subset)
        for subset, ids in (("train", map(str, range(train))), ("val", val), ("test", ["test"]))
        for id in ids
    ]
    return Plan(experiment, load_methods(REPOSITORY / "workflow/methods.yaml"), records)


def cell_of(model):
    """Keys of a model under `report: paper`: method, and split (with selection, unless val)."""
    split, _, *selection = model.division.split("_")
    return model.method, "_".join([split, *selection])


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_a_file_runs_dry_with_the_jobs_that_its_runs_ask_for(file, project, data):
    format = experiment_of(file).format
    place = ["--config", f"data={data[format]}"] if format in data else []
    said = project.snakemake("-n", "--quiet", "rules", "--configfile", file, *place)
    jobs = {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", said, re.MULTILINE)}
    found = tuple(jobs[rule] for rule in ("split", "train", "finetune"))
    assert found == JOBS[file.rpartition("/")[2]]
    assert jobs["evaluate"] == jobs["train"] + jobs["finetune"]
    assert jobs["check_data"] == jobs["summary"] == 1


@pytest.mark.parametrize("file", FILES[1:])
def test_a_file_says_on_top_how_to_run_it(file):
    top = re.match(r"(#.*\n)+\n", (REPOSITORY / file).read_text())[0]
    needs_data = experiment_of(file).format != "digits"
    assert f"--configfile {file}{' --config data=PATH' if needs_data else ''}\n" in top


TYPOS = {
    "trian": lambda document: document.update(trian={}),
    "titel": lambda document: document.setdefault("report", {}).update(titel="Table"),
    "sedes": lambda document: add_run(document, sedes=[1]),
    "dst-cdc": lambda document: add_run(document, methods=["dst-cdc"]),
    "2O": lambda document: add_run(document, splits=["2O"]),
}


def add_run(document, **changes):
    run = {"splits": list(document.get("splits", ["1"])), "methods": ["supervised"], **changes}
    document.setdefault("runs", []).append(run)


@pytest.mark.parametrize("typo", TYPOS)
@pytest.mark.parametrize("file", FILES)
def test_a_typo_in_a_file_is_refused_by_its_name(file, typo, data, tmp_path):
    shutil.copytree(REPOSITORY / "workflow", tmp_path / "workflow")
    shutil.copy(REPOSITORY / "config.yaml", tmp_path)
    document = read_yaml(tmp_path / file)
    TYPOS[typo](document)
    (tmp_path / file).write_text(yaml.safe_dump(document, sort_keys=False))
    format = experiment_of(file).format
    place = {"data": str(data[format])} if format in data else {}
    with pytest.raises(ConfigError, match=typo):
        load_plan(tmp_path, [tmp_path / file], place)


def test_files_of_one_study_ask_for_the_same_models_under_the_same_paths():
    studies = defaultdict(lambda: defaultdict(set))
    files = defaultdict(set)
    for file in FILES:
        plan = plan_of(file)
        files[plan.experiment.name].add(file.rpartition("/")[2])
        for path, model in plan.models.items():
            before = model.previous and model.previous.path
            studies[plan.experiment.name][path].add((model.settings.canonical(), before))
    assert all(len(models) == 1 for study in studies.values() for models in study.values())
    tables = {f"table{n}.yaml" for n in (1, 2, 3, "3-106", 5)}
    assert files["voc"] == {"voc.yaml", "figures.yaml", *tables}
    assert files["cityscapes"] == {"cityscapes.yaml", "figure4.yaml", "table4.yaml"}


@pytest.mark.parametrize(
    "file, other, shared",
    [
        ("table3.yaml", "voc.yaml", 19 + 90),
        ("table4.yaml", "cityscapes.yaml", 13 + 60),
        ("table1.yaml", "table2.yaml", 1 + 5),
        ("table5.yaml", "voc.yaml", 1 + 5),
        ("figures.yaml", "table5.yaml", 1 + 5 + 1),
        ("figure4.yaml", "cityscapes.yaml", 1 + 5),
    ],
)
def test_what_two_tables_have_in_common_is_trained_once(file, other, shared):
    models = [set(plan_of(f"{FOLDER}/{name}").models) for name in (file, other)]
    assert len(models[0] & models[1]) == shared


@pytest.mark.parametrize("file", FILES)
def test_every_number_of_the_paper_stands_beside_a_model_of_its_file_or_in_the_papers_table(file):
    report = read_yaml(REPOSITORY / file).get("report", {})
    models = {cell_of(model) for model in plan_of(file).models.values()}
    cells = {(method, split) for method, row in report.get("paper", {}).items() for split in row}
    table = report.get("paper_table") or {"methods": [], "oracle": None}
    others = {*table["methods"]} - {method for method, _ in models}
    without = {cell for cell in cells - models if cell[0] not in others}
    # With all labels nothing is left to label: the paper repeats the baseline's figure.
    assert without <= {("dst-cbc", table["oracle"])}


@pytest.mark.parametrize("file", FILES)
def test_only_tables_3_and_4_are_printed_whole(file):
    name = file.rpartition("/")[2].removesuffix(".yaml")
    printed = plan_of(file).experiment.report.paper_table
    assert (printed is not None) == (
        name in {"voc", "cityscapes", "table3", "table3-106", "table4"}
    )


@pytest.mark.parametrize(
    "file, without",
    [
        ("voc.yaml", set()),
        ("cityscapes.yaml", set()),
        ("table2.yaml", set()),
        ("table5.yaml", {"cbst", "supervised-long"}),
        ("figures.yaml", set()),
    ],
)
def test_every_row_that_the_paper_has_stands_with_its_number(file, without):
    plan = plan_of(f"{FOLDER}/{file}")
    paper = plan.experiment.report.paper
    rows = {cell_of(model) for model in plan.models.values()}
    assert {method for method, split in rows if split not in paper.get(method, {})} == without


@pytest.mark.parametrize("file", ["table1.yaml", "table2.yaml", "table5.yaml", "figures.yaml"])
def test_tables_of_split_seed_1_have_its_baseline_and_not_the_mean_of_table_3(file):
    plan = plan_of(f"{FOLDER}/{file}")
    assert list(plan.splits) == ["20_1"]
    assert plan.experiment.report.paper["supervised"]["20"] == 61.68


def test_table_1_says_which_of_its_gammas_are_our_choice():
    """The paper's text names 0, values below 1 and 9; the cells of Table 1 are a picture."""
    file = REPOSITORY / "workflow/experiments/table1.yaml"
    (run,) = read_yaml(file)["runs"]
    chosen = [gamma for gamma in run["vary"]["gamma"] if gamma not in (0, 9)]
    comment = file.read_text().partition("\n\n")[0].replace("\n# ", " ")
    listed = re.search(r"([\d., ]+ and [\d.]+) are our choice", comment)
    assert [float(number) for number in re.findall(r"\d+\.?\d*", listed[1])] == chosen


@pytest.mark.parametrize(
    "file, division, images, baseline, ours",
    [("voc", "106", 20, 44.8, 59.2), ("cityscapes", "30", 19, 45.4, 48.2)],
)
def test_the_smallest_split_is_also_selected_on_valtiny(file, division, images, baseline, ours):
    plan = plan_of(f"{FOLDER}/{file}.yaml")
    tiny = [model for model in plan.models.values() if model.division.endswith("_valtiny")]
    assert {m.division for m in tiny} == {f"{division}_{seed}_valtiny" for seed in range(3)}
    assert all(len(model.settings.train.valtiny) == images for model in tiny)
    assert plan.evaluate.report == ("val",)
    paper = plan.experiment.report.paper
    assert [paper[m][f"{division}_valtiny"] for m in ("supervised", "dst-cbc")] == [baseline, ours]


@pytest.mark.parametrize("file", ["table5", "demo-ablation", "camvid-ablation"])
def test_an_ablation_has_the_eleven_rows_of_table_5_beside_cbst_and_the_control(file):
    plan = plan_of(f"{FOLDER}/{file}.yaml")
    rows = {model.method for model in plan.models.values() if "@" not in model.method}
    assert rows == {*ABLATION, "cbst", "supervised-long"} and len(ABLATION) == 11


@pytest.mark.parametrize(
    "file, images, split, labeled, steps, every, round_steps, gamma",
    [
        ("voc", 10582, "106", 100, 3857, 100, 15723, 9),
        ("voc", 10582, "50", 211, 5603, 140, 15556, 9),
        ("voc", 10582, "20", 530, 8880, 220, 15078, 9),
        ("voc", 10582, "8", 1322, 14025, 350, 13890, 4),
        ("voc", 10582, "4", 2645, 19839, 500, 11905, 4),
        ("voc", 10582, "1", 10582, 39682, 1000, None, None),
        ("cityscapes", 2975, "30", 100, 4112, 100, 8625, 9),
        ("cityscapes", 2975, "8", 371, 7883, 350, 7812, 9),
        ("cityscapes", 2975, "4", 743, 11145, 500, 6696, 9),
        ("cityscapes", 2975, "1", 2975, 22312, 1000, None, None),
    ],
)
def test_schedules_are_the_paper_s(
    file, images, split, labeled, steps, every, round_steps, gamma
):  # fmt: skip
    plan = plan_of(f"{FOLDER}/{file}.yaml", images)
    assert len(plan.splits[f"{split}_0"].labeled) == labeled
    supervised = plan.models[f"{split}_0/supervised"].settings.train
    assert (supervised.steps, supervised.validate_at[0]) == (steps, every)
    rounds = [
        model.settings.train
        for model in plan.models.values()
        if model.division == f"{split}_0" and model.previous
    ]
    assert len(rounds) == (5 if round_steps else 0)
    assert all((r.steps, r.validate_at[0], r.gamma) == (round_steps, 1000, gamma) for r in rounds)
    rates = {"voc": 2e-3, "cityscapes": 4e-3}
    assert supervised.learning_rate == 2e-3
    assert all(r.learning_rate == rates[file] for r in rounds)
