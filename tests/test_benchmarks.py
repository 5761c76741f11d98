"""Tests of the code that measures; the figures come from runs of `make bench`."""

import csv
import json
import os
import shlex
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch

import cases
import gpu
import measure
import pictures
import records
import table
import targets
from dst_cbc.runtime import job_record
from dst_cbc.runtime.checksums import record_of
from workflow import EXPERIMENT, REPOSITORY, Project


class Clock:
    """A clock that advances only when a function from `work` is called."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def work(self, *seconds):
        durations = iter(seconds)

        def call():
            self.now += next(durations)

        return call


def test_calls_take_turns_until_time_is_up():
    clock, order = Clock(), []
    calls = [lambda: order.append("ours"), lambda: order.append("bound")]
    slow = clock.work(*[2.0] * 9)
    taken = measure.in_turns(*calls, slow, seconds=7, least=1, clock=clock)
    assert order == ["ours", "bound"] * 4
    assert taken == [[0.0] * 4, [0.0] * 4, [2.0] * 4]
    taken = measure.in_turns(clock.work(5, 5, 5), seconds=1, least=3, clock=clock)
    assert taken == [[5.0] * 3]


def test_a_ratio_is_the_median_of_the_pairs_not_that_of_the_medians():
    # Other work on the machine slowed down both calls of the second pair.
    row = measure.paired(targets.SAMPLE, [2.0, 90.0, 4.0], [1.0, 30.0, 1.0], each=1000)
    assert row.ratio == 3.0
    assert (row.ours, row.bound, row.unit, row.group) == (4000.0, 1000.0, "ms", "samples")


@pytest.mark.parametrize(
    "what, ours, bound, reached",
    [
        (targets.SAMPLE, 1.79, 1.0, True),
        (targets.SAMPLE, 1.81, 1.0, False),
        (targets.LOADER, 86.0, 100.0, True),
        (targets.LOADER, 84.0, 100.0, False),
        (targets.START, 0.39, 0.1, True),
        (targets.START, 0.41, 0.1, False),
        (targets.DISK, 1.5, 3.0, True),
        (targets.DISK, 1.7, 3.0, False),
    ],
)
def test_a_target_limits_what_its_kind_says(what, ours, bound, reached):
    assert measure.row(what, ours, bound).reached is reached


def test_rows_of_the_other_time_and_of_other_groups_stay(tmp_path):
    path = tmp_path / "bench.csv"
    rows = lambda ours: [measure.row(targets.SAMPLE, ours, 1.0)]  # noqa: E731
    table.write(path, "before", [*rows(3.0), measure.row(targets.LOSS, 2.0, 1.0)], {"cpu": "x"})
    table.write(path, "after", rows(2.0), {"cpu": "x"})
    table.write(path, "after", rows(1.5), {"cpu": "y"})
    with open(path, newline="") as file:
        found = [(c["when"], c["what"], c["ours"], c["cpu"]) for c in csv.DictReader(file)]
    assert found == [
        ("before", targets.SAMPLE, "3", "x"),
        ("before", targets.LOSS, "2", "x"),
        ("after", targets.SAMPLE, "1.5", "y"),
    ]


def test_every_row_has_a_group_and_every_group_a_module():
    assert {aim.group for aim in targets.TARGETS.values()} <= set(table.GROUPS)
    for group in table.GROUPS:
        assert (REPOSITORY / "benchmarks" / f"{group}.py").is_file()


def test_the_peak_of_a_command_is_its_own_and_a_failed_one_ends_all(capfd):
    big = "x = bytearray(200 << 20); print('made')"
    small, said = measure.peak([sys.executable, "-c", "print('none')"])
    large, said = measure.peak([sys.executable, "-c", big])
    assert said == "made"
    assert 190 < large - small < 230
    with pytest.raises(SystemExit, match="ZeroDivisionError"):
        measure.peak([sys.executable, "-c", "1 / 0"])


def test_the_rows_of_a_gpu_are_made_on_any_device(tmp_path):
    cpu = torch.device("cpu")
    small = {"side": 64, "images": 8, "steps": 2, "seconds": 0}
    rows = list(gpu.rows_on(cpu, tmp_path, cases.SMALL, **small))
    assert [row.group for row in rows] == ["gpu"] * 4
    _, trained, predicted, hours = rows
    # 3,857 steps of supervised training, five rounds of 15,723.
    assert "82472 steps" in hours.note
    learning, passing = 8 * 82472 / trained.ours, 224_841 * predicted.ours / 1000
    assert hours.ours == pytest.approx((learning + passing) / 3600)


def test_a_gpu_is_as_busy_as_nvidia_smi_says(tmp_path, monkeypatch):
    smi, said = tmp_path / "nvidia-smi", tmp_path / "said"
    smi.write_text(
        "#!/bin/sh\n"
        f'[ "$1" = --id=GPU-12 ] && printf "100\\n[N/A]\\n60\\n" && touch {said}\n'
        "exec sleep 60\n"
    )
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    properties = SimpleNamespace(uuid="12")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    with gpu.busy(torch.device("cuda")) as shares:
        for _ in range(1000):
            if said.exists():
                break
            time.sleep(0.01)
    assert shares == [100, 60]
    with gpu.busy(torch.device("cpu")) as shares:
        pass
    assert shares == []


def test_a_stage_runs_without_checksums_and_with_them(tmp_path):
    pictures.write(tmp_path / "data", 4, (8, 8)).write_lists(tmp_path)
    index, record = tmp_path / "dataset.csv", tmp_path / "checksums/out.labeled.txt.json"
    made = ["out.labeled.txt", "out.unlabeled.txt"]
    settings = '{"rule": {"count": 2}, "seed": 0}'
    checksums_of = json.dumps([f"checksums/{record.name}", *made])
    without, checked = records.variants(
        f"CHECKSUMS={shlex.quote(checksums_of)} exec {sys.executable} {measure.SCRIPTS}/split.py"
        f" --settings {shlex.quote(settings)} --index dataset.csv"
        f" --labeled {made[0]} --unlabeled {made[1]}",
        tmp_path,
    )
    checked()
    assert record.exists()
    without()
    assert not record.exists() and all((tmp_path / name).exists() for name in made)
    job = job_record.Job(record_of(index), [index], "check_data", "")
    job_record.write(job, {})
    index.write_text(index.read_text().replace(",8,8,", ",8,9,", 1))
    without()
    with pytest.raises(SystemExit, match=r"dataset\.csv: changed since it was made"):
        checked()


@pytest.mark.parametrize(
    "without, checked, claim, reached",
    [
        # Something else slowed down one call of the second pair, and both of the third.
        ([1.0, 2.0, 9.0], [1.19, 8.0, 9.19], None, "ok"),
        ([1.0, 2.0, 9.0], [1.21, 8.0, 9.21], None, "MISSED, 0.2 s"),
        # 1 % of a long stage.
        ([50.0], [50.4], None, "ok"),
        ([50.0], [50.6], None, "MISSED, 0.5 s"),
        ([0.0], [1.9], 2.0, "ok"),
        ([0.0], [2.1], 2.0, "MISSED, 2.0 s"),
    ],
)
def test_checksums_cost_less_than_claimed(capsys, without, checked, claim, reached):
    records.print_row("a stage", without, checked, claim)
    assert capsys.readouterr().out.endswith(f"  {reached}\n")


@pytest.mark.slow
def test_the_script_for_a_machine_with_a_gpu_writes_what_each_part_found(tmp_path):
    """A small study on a CPU; the rows of a GPU need one."""
    experiment = tmp_path / "tiny.yaml"
    changes = {"runs": [{"splits": ["6"], "methods": ["dst"]}]}
    Project.write(experiment, {**EXPERIMENT, **changes})
    variables = {"PYTHON": sys.executable, "STUDY": "tiny", "EXPERIMENT": str(experiment)}
    command = [REPOSITORY / "benchmarks/on_gpu.sh", tmp_path / "out"]
    subprocess.run(command, env={**os.environ, **variables, "JOBS": "2"}, check=True)
    read = lambda name: list(csv.DictReader((tmp_path / "out" / name).open()))  # noqa: E731
    assert [(row["part"], row["status"]) for row in read("parts.csv")] == [
        ("tests", "0"), ("rows", "0"), ("study", "0"),
    ]  # fmt: skip
    found = {(row["method"], row["round"]) for row in read("tiny.csv") if row["miou"]}
    assert found == {("supervised", "0"), ("dst", "1")}
    jobs = {row["job"]: float(row["s"]) for row in read("jobs.csv")}
    assert jobs.keys() == {
        "6_0/supervised/train.tsv", "6_0/supervised/predict.tsv", "6_0/dst/round1/finetune.tsv",
    }  # fmt: skip
    assert all(0 <= int(row["cpu"]) <= 100 for row in read("load.csv"))
