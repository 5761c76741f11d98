"""Promises of the whole pipeline, tested on tiny studies that are really run."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from damage import flip
from dst_cbc.models.segmentation import build, write_model
from dst_cbc.runtime.checksums import read_record, record_of
from dst_cbc.runtime.files import sha256_file
from dst_cbc.settings.network import NetworkSettings
from workflow import EXPERIMENT, Project, results

pytestmark = pytest.mark.slow

FOLDER_FORMAT = {
    "data": "data",
    "format": "folder",
    "classes": {"background": "#000000", **{str(d): f"#0000{d + 16:02x}" for d in range(10)}},
}
METHODS = {"dst-cbc": {"curriculum": [0.5, 1.0]}}
OUTPUTS = (
    "model.pt", "last.pt", "thresholds.csv", "pseudo_labels/*.png", "predictions.h5",
    "histogram.npz", "history.csv", "settings.json", "metrics.json",
)  # fmt: skip


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    """The tiny scenes as files on disk, in the layout `folder`."""
    from dst_cbc.data.digit_scenes import write_scenes
    from dst_cbc.settings.data import DrawSettings

    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(DrawSettings(**EXPERIMENT["digits"]), folder)
    return folder


def project_with(scenes: Path, root: Path, **changes) -> Project:
    """A project whose `data` is a copy of the scenes, read as format `folder`."""
    project = Project.create(root, **{**FOLDER_FORMAT, **changes})
    project.write(root / "workflow/methods.yaml", METHODS)
    shutil.copytree(scenes, root / "data")
    return project


@pytest.fixture(scope="module")
def finished(scenes, tmp_path_factory) -> Project:
    project = project_with(scenes, tmp_path_factory.mktemp("promises") / "project")
    project.snakemake()
    return project


def unlabeled(project: Project) -> list[str]:
    return (project.study / "splits/6_0.unlabeled.txt").read_text().split()


def test_no_mask_of_an_unlabeled_image_reaches_any_result(finished, scenes, tmp_path):
    garbled = project_with(scenes, tmp_path / "garbled")
    for id in unlabeled(finished):
        path = garbled.root / f"data/labels/train/{id}.png"
        mask = Image.open(path)
        noise = np.random.default_rng(0).integers(0, 11, mask.size[::-1], np.uint8)
        replaced = Image.fromarray(noise)
        replaced.save(path)
    first = unlabeled(finished)[0]
    (garbled.root / f"data/labels/train/{first}.png").unlink()
    garbled.snakemake("results/tiny/summary.csv", "results/tiny/recommendation.md")
    expected, found = (results(p.study, *OUTPUTS) for p in (finished, garbled))
    assert len(expected) == 1 + 3 * 5 + 2 * (1 + 8) + 2 * 2 and set(expected) == set(found)
    assert [name for name in expected if expected[name] != found[name]] == []
    # The garbled masks were read, but only the accuracy columns differ.
    manifest = "6_0/dst-cbc/round1/pseudo_labels.csv"
    assert (finished.study / manifest).read_bytes() != (garbled.study / manifest).read_bytes()


def test_without_masks_of_unlabeled_images_no_figure_compares_with_any(scenes, tmp_path):
    project = project_with(scenes, tmp_path / "project")
    assert "kept.svg" in project.snakemake("-n")
    for path in sorted((project.root / "data/labels/train").glob("*.png"))[6:]:
        path.unlink()
    planned = project.snakemake("-n")
    assert "agreement.svg" in planned and "kept.svg" not in planned


def test_settings_and_figures_hold_no_time_host_or_path_of_this_machine(finished):
    texts = results(finished.study, "settings.json", "metrics.json", "history.csv", "*.csv")
    for name, content in texts.items():
        assert str(finished.root).encode() not in content, name
        assert os.uname().nodename.encode() not in content, name


def test_a_changed_png_stops_fine_tuning_with_its_name_and_verify_finds_it(finished, tmp_path):
    project = finished.copy(tmp_path / "project")
    folder = project.study / "6_0/dst-cbc/round1"
    png = folder / "pseudo_labels" / f"{unlabeled(project)[0]}.png"
    image = Image.open(png)
    pixels = np.array(image)
    pixels[0, 0] = 1 if pixels[0, 0] != 1 else 2
    changed = Image.fromarray(pixels)
    changed = Image.frombytes("P", image.size, pixels.tobytes())
    changed.putpalette(image.getpalette())
    changed.save(png)
    assert not project.jobs()
    output = project.snakemake("verify", fails=True)
    assert png.name in output
    target = str((folder / "model.pt").relative_to(project.root))
    output = project.snakemake(target, "--forcerun", target, fails=True)
    assert png.name in output and "--accept" in output and "--forcerun" in output
    manifest = folder / "pseudo_labels.csv"
    command = [sys.executable, "scripts/verify.py", "--accept", str(manifest)]
    subprocess.run(command, cwd=project.root, check=True)
    assert project.trained() == ["6_0/dst-cbc/round1", "6_0/dst-cbc/round2"]
    project.snakemake(target)
    assert "labels of round1" not in (project.study / "summary.md").read_text()
    project.snakemake()
    assert "labels of round1" in (project.study / "summary.md").read_text()
    assert "all files are as" in project.snakemake("verify")


def test_a_corrected_mask_retrains_only_what_used_it(finished, tmp_path):
    project = finished.copy(tmp_path / "project")
    labeled = (project.study / "splits/6_0.labeled.txt").read_text().split()
    both = [
        project.root / f"data/labels/train/{id}.png" for id in (unlabeled(project)[0], labeled[0])
    ]
    for path, retrained in zip(both, ([], ["6_0/supervised"]), strict=True):
        pixels = np.array(Image.open(path))
        pixels[:3, :3] = 1
        Image.fromarray(pixels).save(path)
        jobs = project.jobs()
        assert jobs["check_data"] == 1
        assert [job.split()[1] for job in jobs if job.startswith("train ")] == retrained
        project.snakemake("results/tiny/dataset.csv")
    # The data check is up to date now, but the change that it found must still retrain.
    assert "6_0/supervised" in project.trained()


def test_a_mask_for_an_unlabeled_image_makes_it_labeled_in_a_split_of_all_masks(scenes, tmp_path):
    splits, runs = {"all": {"all": True}}, [{"splits": ["all"], "methods": ["supervised"]}]
    project = project_with(scenes, tmp_path / "project", splits=splits, runs=runs)
    added, *masks = sorted((project.root / "data/labels/train").iterdir())
    added.rename(tmp_path / "mask.png")
    labeled = project.study / "splits/all_0.labeled.txt"
    lists = [f"results/tiny/splits/all_0.{side}.txt" for side in ("labeled", "unlabeled")]
    project.snakemake(*lists)
    assert set(labeled.read_text().split()) == {path.stem for path in masks}
    (tmp_path / "mask.png").rename(added)
    # Stopped between the two jobs that follow from the new mask.
    project.snakemake("results/tiny/dataset.csv")
    assert project.jobs(*lists) == {"split splits": 1}
    project.snakemake(*lists)
    assert set(labeled.read_text().split()) == {added.stem, *(path.stem for path in masks)}
    assert not project.jobs(*lists)


def test_a_change_that_neither_size_nor_time_shows_is_named_with_both_ways_on(finished, tmp_path):
    project = finished.copy(tmp_path / "project")
    target = "results/tiny/6_0/supervised/metrics.json"
    flip(project.root / "data/labels/val/val-0000.png")
    assert not project.jobs()
    said = project.snakemake(target, "--forcerun", target, fails=True)
    assert "data/labels/val/val-0000.png: has changed since the data check" in said
    assert "bring the old file back" in said and "delete .fingerprints.json" in said
    # The old file is back.
    flip(project.root / "data/labels/val/val-0000.png")
    project.snakemake(target)
    assert not project.jobs(target)
    # The new file is accepted.
    flip(project.root / "data/labels/val/val-0000.png")
    (project.study / ".fingerprints.json").unlink()
    jobs = project.jobs(target)
    assert set(jobs) == {"check_data", "train 6_0/supervised", "evaluate 6_0/supervised"}
    project.snakemake(target)
    assert not project.jobs(target)


def test_a_model_from_elsewhere_is_evaluated_as_one_of_the_study(finished, tmp_path):
    project = finished.copy(tmp_path / "project")
    own, given = project.study / "6_0/dst-cbc/round1", project.study / "given"
    (given / "late").mkdir(parents=True)
    shutil.copy(own / "last.pt", given / "late/model.pt")
    network = NetworkSettings(backbone="small", output_stride=4)
    other = build(network, {"a": "#000000", "b": "#ffffff"})
    write_model(given / "other/model.pt", other, other.network.state_dict(), None)
    targets = [f"results/tiny/given/{name}/metrics.json" for name in ("late", "other")]
    printed = project.snakemake(*targets, "--keep-going", fails=True)
    assert ran(printed) == ["evaluate_given"] * 2
    assert (
        "given/other/model.pt has the classes a, b; expected the classes of the experiment, in "
        "their order: background, 0, 1" in printed
    )
    metrics = given / "late/metrics.json"
    expected = json.loads((own / "metrics.json").read_text())["last"]
    assert json.loads(metrics.read_text()) == {"best": expected}
    log = (project.study / "logs/given/late/evaluate.log").read_text()
    assert f"val: mIoU {expected['subsets']['val']['miou']} %" in log
    assert read_record(record_of(metrics)).read["model.pt"] == sha256_file(own / "last.pt")
    assert "all files are as" in project.snakemake("verify")
    assert not project.jobs("all", targets[0])
    # Another model in its place is evaluated.
    shutil.copy(own / "model.pt", given / "late")
    assert project.jobs(targets[0]) == {"evaluate_given given/late": 1}
    # Changed data are checked first.
    mask = project.root / "data/labels/val/val-0000.png"
    flip(mask)
    os.utime(mask)
    assert project.jobs(targets[0]) == {"check_data": 1, "evaluate_given given/late": 1}


def test_drawn_scenes_are_brought_back_by_drawing_them_again(tmp_path):
    project, target = Project.create(tmp_path / "project"), "results/scenes/scenes.json"
    project.snakemake(target)
    image = project.root / "results/scenes/images/val/val-0000.png"
    drawn = image.read_bytes()
    flip(image)
    project.snakemake(target, "--forcerun", target)
    assert image.read_bytes() == drawn


def test_touching_and_moving_the_data_runs_nothing(finished, tmp_path):
    project = finished.copy(tmp_path / "project")
    for path in (project.root / "data").rglob("*.png"):
        os.utime(path)
    (project.root / "data").rename(project.root / "moved")
    assert not project.jobs("--config", "data=moved")


HOSTILE = [
    "with space", "ünïcode", "dots.in.name", "-leading-dash", "$(touch pwned)", "{input}",
    "<img onerror=alert(1)>", "semi;touch pwned", "quote'quote", "`touch pwned`", "=1+1", "a,b",
    "&&touch pwned", "*",
]  # fmt: skip


@pytest.fixture(scope="module")
def strange(scenes, tmp_path_factory) -> Project:
    """A finished study of 16-bit TIFFs of several sizes, masks of colours, and hostile names."""
    labels = {colour: name for name, colour in FOLDER_FORMAT["classes"].items()}
    runs = [{"splits": ["6"], "seeds": [0], "methods": ["short"]}]
    root = tmp_path_factory.mktemp("strange") / "it's a $HOME"
    project = project_with(scenes, root, labels=labels, runs=runs)
    project.write(root / "workflow/methods.yaml", {"short": {"curriculum": [0.5]}})
    names = dict(zip([f"train-{i:04d}" for i in range(14)], HOSTILE, strict=True))
    table = np.array([tuple(bytes.fromhex(colour[1:])) for colour in labels], np.uint8)
    for number, path in enumerate(sorted((root / "data/images").rglob("*.png"))):
        size = (32 + 4 * (number % 3), 32)
        name = names.get(path.stem, path.stem)
        grey = np.asarray(Image.open(path).convert("L").resize(size), np.uint16)
        Image.fromarray(1000 + 10 * grey).save(path.with_name(f"{name}.tif"))
        path.unlink()
        mask = root / "data/labels" / path.relative_to(root / "data/images")
        classes = np.asarray(Image.open(mask).resize(size, Image.Resampling.NEAREST))
        mask.unlink()
        Image.fromarray(table[classes]).save(mask.with_name(f"{name}.png"))
    project.snakemake()
    return project


def test_16_bit_images_of_several_sizes_with_masks_of_colours_train(strange):
    with open(strange.study / "dataset.csv", newline="") as file:
        first = next(csv.DictReader(file))
    window = [int(first[end]) for end in ("black", "white")]
    assert 1000 <= window[0] < window[1] <= 1000 + 2550
    for name in ("supervised", "short/round1"):
        model = torch.load(strange.study / f"6_0/{name}/model.pt", weights_only=True)
        assert list(model["window"]) == window
    pseudo = Image.open(next((strange.study / "6_0/short/round1/pseudo_labels").glob("*.png")))
    assert pseudo.size[0] in (32, 36, 40)
    assert not strange.jobs()


def test_names_that_would_be_paths_shell_or_markup_are_only_names(strange):
    labels = strange.study / "6_0/short/round1/pseudo_labels"
    split = (strange.study / "splits/6_0.labeled.txt").read_text().splitlines()
    assert {p.stem for p in labels.glob("*.png")} | set(split) == set(HOSTILE)
    assert len(list(labels.glob("*.png"))) == 8
    assert "all files are as" in strange.snakemake("verify")
    assert not list(strange.root.rglob("pwned"))


def train_command(project: Project, out: Path, resume: Path, workers: int) -> list[str]:
    """Command that trains round 1 of the finished study without Snakemake."""
    folder = project.study / "6_0/dst-cbc/round1"
    settings = json.loads((folder / "settings.json").read_text())
    # Enough steps to be killed in the middle.
    settings["train"].update(steps=120, validate_at=[5, 60, 120])
    out.mkdir(parents=True)
    (out / "plan.json").write_text(json.dumps(settings))
    arguments = {
        "--settings": out / "plan.json",
        "--data": project.root / "data",
        "--index": project.study / "dataset.csv",
        "--labeled": project.study / "splits/6_0.labeled.txt",
        "--previous": project.study / "6_0/supervised/model.pt",
        "--pseudo-labels": folder / "pseudo_labels.csv",
        "--out": out,
        "--resume": resume,
        "--save-seconds": 0,
        "--workers": workers,
    }
    return [
        sys.executable, str(project.root / "scripts/train.py"),
        *(str(part) for pair in arguments.items() for part in pair),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(finished, tmp_path_factory) -> Path:
    """The output folder of `train_command`, undisturbed."""
    root = tmp_path_factory.mktemp("undisturbed")
    command = train_command(finished, root / "out", root / "resume", workers=0)
    subprocess.run(command, check=True, timeout=300)
    return root / "out"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_training_killed_with_kill_9_ends_in_the_same_bytes(
    finished, undisturbed, tmp_path, workers
):
    killed, resume = tmp_path / "killed", tmp_path / "r1"
    command = train_command(finished, killed, resume, workers)
    first = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    while not (resume / "state.pt").is_file():
        assert first.poll() is None
        time.sleep(0.01)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert not (killed / "model.pt").exists(), "the kill came too late to test anything"
    second = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert "resumed at step" in second.stdout
    names = ("model.pt", "last.pt", "history.csv", "settings.json")
    assert {n: (killed / n).read_bytes() for n in names} == {
        n: (undisturbed / n).read_bytes() for n in names
    }
    assert not resume.exists()


def wait_for(condition, process: subprocess.Popen, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stage_that_is_asked_to_stop_saves_says_how_to_go_on_and_exits_143(
    finished, tmp_path, number
):
    command = train_command(finished, tmp_path / "out", tmp_path / "r", workers=2)
    # So long that it does not save before it is stopped.
    command[command.index("--save-seconds") + 1] = "1000"
    log = tmp_path / "log"
    with open(log, "w") as file:
        stage = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
    wait_for(lambda: "step 5/120" in log.read_text(), stage)
    # Like Ctrl-C, SIGINT goes to the stage and to the processes that load its data.
    os.killpg(stage.pid, number) if number == signal.SIGINT else stage.send_signal(number)
    assert stage.wait(60) == 143
    said = log.read_text()
    assert f"stopped by {signal.Signals(number).name}; step" in said and "to continue" in said
    assert (tmp_path / "r/state.pt").is_file() and not (tmp_path / "r.lock").exists()
    again = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert "resumed at step" in again.stdout


def test_a_training_saves_and_ends_when_its_snakemake_is_killed(finished, tmp_path):
    project = finished.copy(tmp_path / "project")
    # So many steps that it does not finish by itself; only round 1 runs.
    train = {**EXPERIMENT["train"], "steps": 100_000, "validate_every": 10}
    project.configure(**FOLDER_FORMAT, train=train)
    target = "results/tiny/6_0/dst-cbc/round1/model.pt"
    command = [sys.executable, "-m", "snakemake", "--cores", "1", target,
               "--config", "replace=true", "save_seconds=1000"]  # fmt: skip
    snakemake = subprocess.Popen(command, cwd=project.root, stderr=subprocess.DEVNULL)
    state = project.root / "results/.resume/tiny/6_0/dst-cbc/round1"
    log = project.study / "logs/6_0/dst-cbc/round1/finetune.log"
    wait_for(lambda: log.is_file() and "step 10/100000" in log.read_text(), snakemake)
    pid = json.loads((state / "train.lock").read_text())["pid"]
    os.kill(snakemake.pid, signal.SIGKILL)
    snakemake.wait()
    end = time.monotonic() + 60
    # It says so after it has let go of the lock.
    while (state / "train.lock").exists() or "stopped by SIGTERM" not in log.read_text():
        assert time.monotonic() < end, f"process {pid} lives on"
        time.sleep(0.05)
    assert (state / "train/state.pt").is_file()


def test_rounds_keep_the_best_of_the_chain(finished):
    scores = []
    for name in ("supervised", "dst-cbc/round1", "dst-cbc/round2"):
        metrics = json.loads((finished.study / "6_0" / name / "metrics.json").read_text())
        scores.append(metrics["best"]["score"])
        history = (finished.study / "6_0" / name / "history.csv").read_text().splitlines()[1:]
        assert scores[-1] >= max(float(line.split(",")[3]) for line in history)
        # The score from training equals the mIoU that `evaluate` computes.
        assert scores[-1] == pytest.approx(metrics["best"]["subsets"]["val"]["miou"], abs=1e-9)
    assert scores == sorted(scores)


BAD = {
    "an unknown key": ({"trian": {}}, "did you mean 'train'"),
    "an unknown key deep down": (
        {"train": {**EXPERIMENT["train"], "learning_rat": 1}},
        "train.learning_rat: unknown key; did you mean 'learning_rate'",
    ),
    "a wrong type": (
        {"train": {**EXPERIMENT["train"], "batch": "many"}}, "train.batch: found 'many'",
    ),
    "an unknown method": (
        {"runs": [{"splits": ["6"], "methods": ["dst_cbc"]}]}, "did you mean 'dst-cbc'",
    ),
    "an unknown split": ({"runs": [{"splits": ["5"], "methods": ["dst-cbc"]}]}, "'5'"),
    "too few labeled images": ({"splits": {"6": {"count": 1}}}, "1 labeled images, but a batch"),
    "a missing folder": (
        {**FOLDER_FORMAT, "data": "nowhere"}, "nowhere: no such folder; set `data`",
    ),
    "scenes outside results": ({"data": "elsewhere"}, "nothing is written outside results/"),
    "scenes that leave results": (
        {"data": "results/../elsewhere"}, "nothing is written outside results/",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_message_before_the_first_job(tmp_path, case):
    changes, words = BAD[case]
    project = Project.create(tmp_path / "project", **changes)
    output = project.snakemake(fails=True)
    assert words in output
    assert "Traceback" not in output
    assert "rule " not in output


def test_an_empty_validation_subset_is_named(scenes, tmp_path):
    project = project_with(scenes, tmp_path / "project")
    shutil.rmtree(project.root / "data/images/val")
    output = project.snakemake(fails=True)
    assert "evaluation.select: subset 'val' has no images" in output
    assert "rule " not in output


def test_bad_files_fail_in_the_data_check_all_at_once(scenes, tmp_path):
    project = project_with(scenes, tmp_path / "project")
    train = sorted((project.root / "data/images/train").glob("*.png"))
    train[0].write_bytes(train[0].read_bytes()[:200])
    Image.new("L", (5, 5)).save(project.root / f"data/labels/train/{train[1].name}")
    Image.new("L", (32, 32), 77).save(project.root / f"data/labels/train/{train[2].name}")
    (project.root / "data/labels/val/val-0000.png").unlink()
    output = project.snakemake(fails=True)
    for name in (*(path.name for path in train[:3]), "val-0000.png"):
        assert name in output
    assert "[77]" in output
    assert not (project.study / "splits").exists()


def test_a_config_file_takes_nothing_from_the_default_one(tmp_path, scenes):
    project = project_with(scenes, tmp_path / "project")
    other = {**EXPERIMENT, **FOLDER_FORMAT, "name": "other"}
    del other["supervised"], other["network"]
    other["network"] = {"backbone": "small", "output_stride": 4}
    project.write(project.root / "other.yaml", other)
    output = project.snakemake("-n", "--configfile", "other.yaml", "-p")
    assert "results/other/" in output and "results/tiny" not in output
    assert '"aspp_rates":[6,12,18,24]' in output
    # With only `data` on the command line, the default config.yaml is used.
    output = project.snakemake("-n", "--config", f"data={scenes}")
    assert "results/tiny/" in output


SMALL = (
    "dataset.csv", "splits/6_0.labeled.txt", "6_0/supervised/metrics.json",
    "6_0/dst-cbc/round1/thresholds.csv", "6_0/dst-cbc/round2/metrics.json", "summary.csv",
    "report/tiny/rounds.png", "6_0/dst-cbc/round1/contact_sheet.jpg", "6_0/dst-cbc/gallery.html",
)  # fmt: skip
TIMED = ("run.json", "report/tiny/table.*", "report/tiny/cost.*", "checksums/*.timed.json")


def everything(project: Project) -> dict[str, bytes]:
    """Bytes of all results, without those that hold run times."""
    timed = results(project.study, *TIMED)
    free = ("logs/", "benchmarks/", "tensorboard/")
    return {
        name: content
        for name, content in results(project.study, "*").items()
        if name not in timed and not name.startswith(free)
    }


def ran(printed: str) -> list[str]:
    """The rules of all jobs that Snakemake has run, sorted."""
    found = re.findall(r"^(?:local)?rule (\w+):", printed, re.MULTILINE)
    return sorted(rule for rule in found if rule != "all")


def test_deleted_small_results_come_back_and_nothing_else_runs(finished, tmp_path):
    project = finished.copy(tmp_path / "project")
    png = f"6_0/dst-cbc/round1/pseudo_labels/{unlabeled(project)[0]}.png"
    for name in (*SMALL, png):
        (project.study / name).unlink()
    planned = project.snakemake("-n")
    assert planned.count("would first make again: ") == 10 and "Nothing to be done" in planned
    printed = project.snakemake()
    assert ran(printed) == [
        "check_data", "contact_sheet", "evaluate", "evaluate", "figures", "gallery",
        "pseudo_labels", "split", "summary", "thresholds",
    ]  # fmt: skip
    assert everything(project) == everything(finished)
    assert not project.jobs() and "all files are as" in project.snakemake("verify")


def test_deleted_trainings_and_predictions_are_listed_and_made_again_on_request(finished, tmp_path):
    project = finished.copy(tmp_path / "project")
    round1 = project.study / "6_0/dst-cbc/round1"
    gone = ["model.pt", "metrics.json", "history.csv", "predictions.h5"]
    for name in gone:
        (round1 / name).unlink()
    (project.study / "6_0/supervised/predictions.h5").unlink()
    printed = project.snakemake()
    assert ran(printed) == []
    listed = [line for line in printed.splitlines() if line.startswith("not made again: ")]
    assert len(listed) == 3 and all("--config remake=true" in line for line in listed)
    assert "history.csv: a training of 3 steps, about" in printed
    assert "6_0/supervised/predictions.h5: a prediction of 8 images, about" in printed
    printed = project.snakemake("--config", "remake=true")
    assert ran(printed) == ["evaluate", "finetune", "predict"]
    # The documentation says that it may be deleted.
    assert not (round1 / "predictions.h5").exists()
    freed = {"6_0/dst-cbc/round1/predictions.h5"}
    expected = everything(finished)
    assert everything(project) == {n: b for n, b in expected.items() if n not in freed}
    assert not project.jobs() and "all files are as" in project.snakemake("verify")


def test_an_unfinished_study_asks_before_it_repeats_a_training(finished, tmp_path):
    project = finished.copy(tmp_path / "project")
    project.write(project.root / "workflow/methods.yaml", {"dst-cbc": {"curriculum": [0.5, 1, 1]}})
    model = project.study / "6_0/dst-cbc/round2/model.pt"
    before = model.read_bytes()
    model.unlink()
    (project.study / "splits/6_0.labeled.txt").unlink()
    printed = project.snakemake(fails=True)
    assert ran(printed)[0] == "split" and not model.exists()
    assert "round2/model.pt is missing, and unfinished jobs need it" in printed
    assert project.trained("--config", "remake=true") == [
        "6_0/dst-cbc/round2",
        "6_0/dst-cbc/round3",
    ]
    project.snakemake("results/tiny/6_0/dst-cbc/round3/model.pt", "--config", "remake=true")
    assert model.read_bytes() == before


def test_a_failed_training_is_run_again_although_later_results_exist(finished, tmp_path):
    project = finished.copy(tmp_path / "project")
    project.configure(**FOLDER_FORMAT, supervised={"steps": 7})
    script = project.root / "scripts/dst_cbc/training/loop.py"
    working = script.read_text()
    script.write_text("raise MemoryError('none left')\n")
    assert "none left" in project.snakemake("--config", "replace=true", fails=True)
    script.write_text(working)
    # Its results are deleted and those that follow from it are of the old settings.
    assert not (project.study / "6_0/supervised/model.pt").exists()
    rounds = [f"6_0/dst-cbc/round{number}" for number in (1, 2)]
    assert project.trained() == [*rounds, "6_0/supervised"]


def test_results_without_records_are_recorded_once(finished, tmp_path):
    project = finished.copy(tmp_path / "project")
    before = everything(finished)
    for folder in list(project.study.rglob("checksums")):
        shutil.rmtree(folder)
    printed = project.snakemake()
    assert "jobs of an earlier run have no record of checksums: recorded their files" in printed
    assert ran(printed) == [] and everything(project).keys() == before.keys()
    assert "recorded their files" not in project.snakemake()
    assert "all files are as" in project.snakemake("verify")
    (project.study / "6_0/dst-cbc/round2/metrics.json").unlink()
    assert ran(project.snakemake()) == ["evaluate"]


DAMAGES = {
    "6_0/dst-cbc/round2/metrics.json": ("summary.csv", lambda text: flipped_digit(text)),
    "splits/6_0.labeled.txt": ("6_0/supervised/model.pt", lambda text: text.partition("\n")[2]),
    "dataset.csv": ("6_0/supervised/metrics.json", lambda text: text.replace(",val,", ",test,", 1)),
}  # fmt: skip


def flipped_digit(text: str) -> str:
    """The text with one digit of its last number changed."""
    place = max(text.rfind(digit) for digit in "123456789")
    return f"{text[:place]}{int(text[place]) % 9 + 1}{text[place + 1 :]}"


def test_damage_is_named_by_verify_and_by_the_next_job(finished, tmp_path):
    project = finished.copy(tmp_path / "project")
    for name, (reader, damage) in DAMAGES.items():
        path = project.study / name
        status, before = path.stat(), path.read_text()
        path.write_text(damage(before))
        assert path.read_text() != before
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        lines = project.snakemake("verify", fails=True).splitlines()
        assert [one for one in lines if one.startswith("changed: ")] == [
            f"changed: results/tiny/{name}"
        ]
        target = f"results/tiny/{reader}"
        printed = project.snakemake(target, "--forcerun", target, fails=True)
        assert f"results/tiny/{name}: changed since it was made" in printed, printed
        path.write_text(before)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    project.snakemake("--config", "remake=true")
    assert everything(project) == everything(finished)
