import ast
import os
import subprocess
import sys
from argparse import ArgumentTypeError

import pytest

from documentation.commands_page import parser_of
from dst_cbc.cli import model_file
from workflow import REPOSITORY

SCRIPTS = sorted((REPOSITORY / "scripts").glob("*.py"))
STAGE_SCRIPTS = [path for path in SCRIPTS if "cli import Parser" in path.read_text()]
WITHOUT_TORCH = [
    "check_data", "split", "thresholds", "pseudo_labels", "summarize", "verify", "draw_digits",
    "tables", "figures", "contact_sheet", "gallery", "compare", "new_experiment",
    "suggest",
]  # fmt: skip

# Runs every stage without a network, one after the other, on real files in one process.
STAGES = """
import json, runpy, sys
import numpy as np
from pathlib import Path
scripts, root = Path(sys.argv[1]), Path(sys.argv[2])
sys.path.insert(0, str(scripts))

def stage(name, *arguments):
    sys.argv = [name, *map(str, arguments)]
    runpy.run_path(str(scripts / f"{name}.py"))["run"]()
    loaded = {"torch", "torchvision", "timm", "snakemake"} & set(sys.modules)
    assert not loaded, f"{name} imports {loaded}"

from dst_cbc.data.digit_scenes import CLASSES
from dst_cbc.self_training.predictions import Prediction, close_part, join_parts, new_part, store

digits = {"size": 40, "train": 4, "val": 1, "test": 1, "digits": [2, 3], "digit_size": [12, 14]}
dataset = json.dumps({"format": "digits", "classes": CLASSES, "ignore": [255], "test_from_val": 0,
                      "labels": dict(enumerate(CLASSES)), "digits": digits})
data, index = root / "digits", root / "dataset.csv"
labeled, unlabeled = root / "labeled.txt", root / "unlabeled.txt"
stage("draw_digits", "--settings", json.dumps(digits), "--out", data)
stage("check_data", "--settings", dataset, "--data", data, "--out", index, "--processes", 1)
stage("split", "--settings", json.dumps({"rule": {"count": 2}, "seed": 0}), "--index", index,
      "--labeled", labeled, "--unlabeled", unlabeled)
ids = unlabeled.read_text().split()
assert len(ids) == 2
counts = 0
with new_part(root, 0) as file:
    for row, id in enumerate(ids):
        random = np.random.default_rng(row)
        classes = random.integers(0, 11, (40, 40)).astype(np.uint8)
        confidence = random.integers(0, 65536, (40, 40)).astype(np.uint16)
        store(file, [Prediction(row, id, classes, confidence)])
        flat = classes.astype(np.int64).ravel() * 65536 + confidence.ravel()
        counts = counts + np.bincount(flat, minlength=11 * 65536).reshape(11, -1)
predictions, round = root / "supervised/predictions.h5", root / "st/round1"
close_part(root, 0, counts)
join_parts(root, 1, predictions, {})
stage("thresholds", "--settings", json.dumps({"alpha": 0.5, "balance": "class"}),
      "--histogram", root / "000000.npz", "--classes", *CLASSES, "--out", root / "thresholds.csv")
stage("pseudo_labels", "--settings", dataset, "--data", data, "--index", index,
      "--unlabeled", unlabeled, "--predictions", predictions,
      "--thresholds", root / "thresholds.csv", "--out", round / "pseudo_labels")
stage("verify", round / "pseudo_labels.csv")
stage("verify", "--accept", round / "pseudo_labels.csv")
stage("contact_sheet", "--settings", dataset, "--data", data, "--index", index,
      "--unlabeled", unlabeled, "--predictions", predictions,
      "--labels", round / "pseudo_labels", "--out", root / "contact_sheet.jpg")
stage("gallery", "--settings", dataset, "--data", data, "--index", index,
      "--unlabeled", unlabeled, "--rounds", round,
      "--agreement", root / "agreement.csv", "--out", root / "gallery.html")
stage("summarize", root, "2_0/supervised", "--csv", root / "summary.csv",
      "--markdown", root / "s.md")
stage("tables", root, "--settings", "{}", "--out", root)
stage("figures", root, "--subset", "val", "--out", root, "rounds", "cost")
stage("compare", root, root)
"""


def run(*command, **options):
    return subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, **options
    )


def test_the_stages_without_a_network_run_without_torch(tmp_path):
    done = run("-c", STAGES, REPOSITORY / "scripts", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((tmp_path / "st/round1/pseudo_labels").glob("*.png"))) == 2
    assert "supervised" in (tmp_path / "summary.csv").read_text()


def test_a_training_starts_without_timm_and_torch_compile():
    """Both, with all that they import, take longer than everything else at the start."""
    code = (
        "import sys, torch; from dst_cbc.training import loop, objectives, optimization; "
        "from dst_cbc.training.objectives import self_training; "
        "sgd = optimization.SGD([torch.zeros(1, requires_grad=True)], 0.1); "
        "sgd.zero_grad(); sgd.step(); sgd.load_state_dict(sgd.state_dict()); "
        "sys.exit(bool({'timm', 'torchvision', 'torch._dynamo'} & {*sys.modules}))"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "scripts")}
    assert run("-c", code, env=environment).returncode == 0


def test_a_model_is_read_without_timm_and_torch_compile(tmp_path):
    code = (
        "import sys; from pathlib import Path; from dst_cbc.models import segmentation; "
        "from dst_cbc.settings.network import NetworkSettings; "
        "settings = NetworkSettings(backbone='small', output_stride=4, aspp_rates=(1,)); "
        "model = segmentation.build(settings, {'sky': '#0000ff', 'road': '#808080'}); "
        "state = segmentation.cpu_state(model); path = Path(sys.argv[1]); "
        "segmentation.write_model(path, model, state, {'round': 0, 'step': 1}); "
        "segmentation.read_model(path); "
        "sys.exit(bool({'timm', 'torchvision', 'torch._dynamo'} & {*sys.modules}))"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "scripts")}
    assert run("-c", code, tmp_path / "model.pt", env=environment).returncode == 0


@pytest.mark.parametrize(
    ("work", "status"),
    [
        ("pass", 0),
        ("raise cli.DataError('bad')", 1),
        ("raise cli.signals.Stopped('stopped')", 143),
    ],
)
def test_a_command_ends_without_destroying_what_torch_holds(tmp_path, work, status):
    """It takes a quarter of a second or more, and has crashed stages that were done."""
    script = tmp_path / "stage.py"
    script.write_text(
        "import atexit, ctypes\n"
        "from dst_cbc import cli\n"
        "class Library:\n"
        "    def __del__(self):\n"
        "        ctypes.string_at(0)\n"
        "atexit.register(print, 'cleaned up')\n"
        "held = Library()\n"
        f"def run():\n    print('worked')\n    {work}\n"
        "cli.main(run)\n"
    )
    done = run(script, env={**os.environ, "PYTHONPATH": str(REPOSITORY / "scripts")})
    assert (done.returncode, done.stdout) == (status, "worked\ncleaned up\n")


@pytest.mark.parametrize("script", WITHOUT_TORCH)
def test_the_help_of_a_stage_without_a_network_imports_no_torch(script):
    code = (
        "import runpy, sys; sys.argv = ['x', '--help']\n"
        "try:\n    runpy.run_path(sys.stdin.read(), run_name='__main__')\n"
        "except SystemExit:\n    pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    path = REPOSITORY / "scripts" / f"{script}.py"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "scripts")}
    assert run("-c", code, input=str(path), env=environment).returncode == 0


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_command_says_what_it_does(script):
    done = run(script, "--help")
    assert done.returncode == 0, done.stderr
    first_line = ast.get_docstring(ast.parse(script.read_text())).splitlines()[0]
    assert len(first_line) > 20 and first_line in " ".join(done.stdout.split())
    assert "usage: " + script.name in done.stdout


@pytest.mark.parametrize("script", STAGE_SCRIPTS, ids=lambda path: path.stem)
def test_every_option_says_what_it_is_for(script):
    parser = parser_of(script)
    for action in parser._actions:
        assert action.help, f"{script.name}: {action.dest} has no help"


def test_an_error_message_is_escaped_where_a_command_prints_it():
    code = "import sys; from dst_cbc import cli; sys.exit(cli._failed('a\\x1b[2Jb: no such file'))"
    done = run("-c", code, env={**os.environ, "PYTHONPATH": str(REPOSITORY / "scripts")})
    assert (done.returncode, done.stderr) == (1, "error: a\\x1b[2Jb: no such file\n")


def test_a_command_whose_reader_ends_says_nothing():
    reader, writer = os.pipe()
    os.close(reader)
    code = "from dst_cbc.cli import main; main(lambda: print('found: 60 images'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "scripts")},
    )
    os.close(writer)
    # The status of a program that the signal SIGPIPE ends.
    assert (done.returncode, done.stderr) == (141, "")


def test_a_model_is_a_file_or_model_pt_in_a_folder(tmp_path):
    study = tmp_path / "results/cells"
    rounds = [f"8_0/dst-cbc/round{number}" for number in (1, 2)]
    for name in ("8_0/supervised", *rounds, "8_0/dmt/a/round1", "8_0/dmt/a/round1/export/extra"):
        (study / name).mkdir(parents=True)
        (study / name / "model.pt").touch()
    (study / "dataset.csv").touch()
    with pytest.raises(ArgumentTypeError) as caught:
        model_file(study)
    command = f"`snakemake --cores all {study}/model.pt --configfile FILE`"
    named = ", ".join(f"{study}/{name}/model.pt" for name in ("8_0/dmt/a/round1", *rounds))
    assert str(caught.value) == (
        f"{study}: a folder without model.pt; to make the model that the study recommends, run "
        f"{command}; or name one of its models: {named} and 1 more"
    )
    with pytest.raises(ArgumentTypeError, match=r"model\.pt; expected a model file, or a study"):
        model_file(study.parent)
    (study / "model.pt").touch()
    for name in (study, study / "model.pt"):
        assert model_file(name) == study / "model.pt"
    # Whoever reads it says that there is none.
    assert model_file(tmp_path / "none.pt") == tmp_path / "none.pt"
