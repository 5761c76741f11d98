"""Two processes train one model with gloo on the CPU; CUDA and NCCL are not tested here."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from timm.layers import BatchNormAct2d

import trainings
from dst_cbc.data.index import write_index
from dst_cbc.data.masks import write_indexed_png
from dst_cbc.runtime.errors import DataError
from dst_cbc.runtime.files import is_alive, write_text
from dst_cbc.settings.stages import ModelSettings
from dst_cbc.settings.yaml_files import ConfigError
from dst_cbc.training import objectives, optimization
from dst_cbc.training.ranks import ALONE, LOST_STATUS, Ranks, first_to_end, here
from dst_cbc.training.samples import Data
from dst_cbc.training.sampling import torch_seed
from trainings import SCRIPTS, require_gradients_of_one, small_network

make_stage = partial(
    trainings.make_stage, steps=120, validate_at=(60, 120), freeze_norm=True, gpus=2
)


def test_a_process_that_followed_another_one_did_not_end_first():
    def ended(exitcode, timestamp):
        return SimpleNamespace(exitcode=exitcode, timestamp=timestamp)

    assert first_to_end({0: ended(LOST_STATUS, 5), 1: ended(-9, 5)})[0] == 1
    assert first_to_end({0: ended(LOST_STATUS, 5), 1: ended(1, 6)})[0] == 1
    assert first_to_end({0: ended(1, 6), 1: ended(-9, 5)})[0] == 1
    assert first_to_end({0: ended(LOST_STATUS, 5)})[0] == 0


def test_a_share_is_the_same_part_of_every_half():
    assert [Ranks(rank, 2).share("abcd") for rank in (0, 1)] == [["a", "b"], ["c", "d"]]
    assert ALONE.share("abcd") == list("abcd") and ALONE.first


def test_each_process_drops_something_else_and_the_first_what_one_alone_would():
    seeds = [torch_seed(0, 1, 7, rank) for rank in range(3)]
    assert len(set(seeds)) == 3 and seeds[0] == torch_seed(0, 1, 7)


def test_torchrun_must_have_started_as_many_as_the_settings_say(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match=r"train\.gpus: found 2, but torchrun has started 3"):
        here(2)


@pytest.mark.parametrize(
    "device, stage, message",
    [
        ("mps", {}, r"train\.gpus: 2 processes can train on cuda or cpu, not on mps"),
        ("cpu", {"sync_norm": True}, r"train\.sync_norm: .* on CUDA only"),
    ],
)
def test_a_device_that_cannot_be_shared_is_refused(device, stage, message):
    with pytest.raises(DataError, match=message):
        Ranks(0, 2).join(torch.device(device), make_stage(**stage))


def test_synchronised_norm_keeps_state_activations_and_what_evaluation_gives():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), BatchNormAct2d(4)).eval()
    images = torch.randn(2, 3, 8, 8)
    before, keys = network(images), list(network.state_dict())
    optimization.synchronise_norm(network)
    assert isinstance(network[1], torch.nn.SyncBatchNorm)
    assert list(network.state_dict()) == keys
    assert torch.equal(network(images), before) and before.min() == 0


@pytest.fixture
def uneven_data(drawn, drawn_rows, digits_dataset, tmp_path):
    """Four labeled scenes, and four pseudo-labeled ones with 0, 10, 80 and 100 % ignored pixels."""
    labeled, unlabeled = drawn_rows["train"][:4], drawn_rows["train"][4:]
    for row, share in zip(unlabeled, (0.0, 0.1, 0.8, 1.0), strict=True):
        labels = np.full((row.height, row.width), 3, np.uint8)
        labels[: round(share * row.height)] = 255
        write_indexed_png(tmp_path / f"labels/{row.id}.png", labels, digits_dataset.classes)
    return Data(drawn, digits_dataset, labeled, unlabeled, tmp_path / "labels", drawn_rows["val"])


def test_the_gradient_of_two_processes_is_that_of_one(uneven_data, tmp_path):
    # In one step at learning rate 1 without momentum, each weight changes by its gradient.
    plain = {"learning_rate": 1.0, "momentum": 0.0, "weight_decay": 0.0, "power": 0.0}
    stage = make_stage(steps=1, validate_at=(1,), batch=8, **plain)
    _, _, learning = require_gradients_of_one(objectives.make, uneven_data, stage, tmp_path)
    assert len(learning) == 6


@pytest.fixture
def command(drawn, drawn_rows, digits_dataset, tmp_path):
    """Function that returns the command that trains into folder `name`, and that folder."""
    write_index(tmp_path / "dataset.csv", [row for rows in drawn_rows.values() for row in rows])
    write_text(tmp_path / "labeled.txt", "".join(f"{r.id}\n" for r in drawn_rows["train"]))

    def make(name, stage=None):
        settings = ModelSettings(
            dataset=digits_dataset,
            split={"rule": {"all": True}, "seed": 0},
            network=small_network(),
            train=stage or make_stage(),
        )
        options = {
            "settings": settings.canonical(), "data": drawn, "index": tmp_path / "dataset.csv",
            "labeled": tmp_path / "labeled.txt", "out": tmp_path / name,
            "resume": tmp_path / "resume" / name, "device": "cpu", "save-seconds": 0.2,
        }  # fmt: skip
        words = [str(word) for key, value in options.items() for word in (f"--{key}", value)]
        return [sys.executable, str(SCRIPTS / "train.py"), *words], tmp_path / name

    return make


def history(folder):
    with open(folder / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def undisturbed(command):
    """Output folder of an undisturbed training by two processes."""
    words, folder = command("undisturbed")
    subprocess.run(words, check=True)
    return folder


def children(pid):
    """Ids of the processes that torchrun has started, in the order of their ranks."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    by_rank = {}
    for child in map(int, found):
        for variable in Path(f"/proc/{child}/environ").read_text().split("\0"):
            if variable.startswith("RANK="):
                by_rank[int(variable[5:])] = child
    return [by_rank[rank] for rank in sorted(by_rank)]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_two_learn_what_one_does_and_disturbed_end_whole_and_go_on_to_the_same_bytes(
    command, undisturbed
):
    words, alone = command("alone", make_stage(gpus=1))
    subprocess.run(words, check=True)
    for one, two in zip(history(alone), history(undisturbed), strict=True):
        assert one["step"] == two["step"] and one["learning_rate"] == two["learning_rate"]
        assert float(two["loss"]) == pytest.approx(float(one["loss"]), rel=1e-3)

    words, folder = command("disturbed")
    state = folder.parent / "resume/disturbed/state.pt"

    def disturb(act):
        """Start a training, call `act` after a save; return the exit status and the output."""
        before = state.stat().st_mtime_ns if state.exists() else 0
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        with subprocess.Popen(words, **pipes) as job:
            deadline = time.monotonic() + 60
            while not (state.exists() and state.stat().st_mtime_ns > before):
                assert time.monotonic() < deadline and job.poll() is None
                time.sleep(0.01)
            ranks = children(job.pid)
            assert len(ranks) == 2
            act(job.pid, ranks)
            said = job.communicate(timeout=60)[0]
        assert not any(is_alive(rank) for rank in ranks)
        assert not folder.exists() and state.is_file()
        return job.returncode, said

    status, said = disturb(lambda job, ranks: os.kill(job, signal.SIGTERM))
    assert status == 143 and "stopped by SIGTERM; step" in said, said
    status, said = disturb(lambda job, ranks: os.kill(ranks[1], signal.SIGKILL))
    assert status == 1 and "process 1 of 2 ended first (SIGKILL)" in said, said
    assert "resumed at step" in said and "Traceback" not in said, said
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    assert "resumed at step" in done.stdout
    for name in ("model.pt", "last.pt", "history.csv", "settings.json"):
        assert (folder / name).read_bytes() == (undisturbed / name).read_bytes(), name
    assert json.loads((folder / "run.json").read_text())["resumes"] == 2
    assert not state.exists()
