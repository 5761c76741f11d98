"""Locks on GPUs, with made-up GPU lists and real processes; no GPU is needed."""

import os
import subprocess
import sys

import pytest

from dst_cbc.runtime import gpu_locks
from dst_cbc.runtime.errors import DataError
from workflow import REPOSITORY

SCRIPTS = str(REPOSITORY / "scripts")
# Takes GPUs, prints their names, and holds them until it reads a line from stdin or is killed.
JOB = """
import os, sys
sys.path.insert(0, sys.argv[1])
from dst_cbc.runtime import gpu_locks
gpu_locks.POLL = 0.02
gpu_locks.take("cuda", int(sys.argv[2]))
assert "torch" not in sys.modules
print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def job(tmp_path):
    """Function that starts a job that takes `count` of the devices; the test ends all jobs."""
    jobs = []

    def start(devices, count=1, **environment):
        variables = {
            **os.environ, "TMPDIR": str(tmp_path), "CUDA_VISIBLE_DEVICES": devices, **environment,
        }  # fmt: skip
        jobs.append(
            subprocess.Popen(
                [sys.executable, "-c", JOB, SCRIPTS, str(count)], env=variables, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )
        )  # fmt: skip
        return jobs[-1]

    yield start
    for one in jobs:
        one.kill()
        one.communicate()


def said(one):
    return one.stdout.readline().strip()


def got_by(one):
    """The GPUs that a job took, possibly after it printed that it waits."""
    line = said(one)
    return got_by(one) if line.startswith("waits") else line


def test_jobs_get_different_gpus_and_one_too_many_waits_for_that_of_the_dead(job):
    devices = "3,GPU-5ad1c6f2,0"
    jobs = [job(devices) for _ in range(3)]
    got = [got_by(one) for one in jobs]
    assert sorted(got) == ["0", "3", "GPU-5ad1c6f2"]
    late = job(devices)
    assert said(late).startswith("waits for 1 of the GPUs 3, GPU-5ad1c6f2, 0: other jobs use")
    jobs[1].kill()
    assert said(late) == got[1]


def test_those_that_want_several_get_them_in_order_and_no_two_hold_one_together(tmp_path):
    hold = JOB.replace(
        "sys.stdin.readline()",
        "names = os.environ['CUDA_VISIBLE_DEVICES'].split(',')\n"
        "for name in names: os.close(os.open(name, os.O_CREAT | os.O_EXCL))\n"
        "gpu_locks.time.sleep(0.05)\n"
        "for name in names: os.unlink(name)",
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path), "CUDA_VISIBLE_DEVICES": "0,1,2"}
    options = {"env": environment, "cwd": tmp_path, "stdout": subprocess.PIPE, "text": True}
    jobs = {
        subprocess.Popen([sys.executable, "-c", hold, SCRIPTS, str(count)], **options): count
        for count in (2, 3, 2, 1, 3, 1, 2, 2)
    }
    for one, count in jobs.items():
        names = one.communicate(timeout=60)[0].splitlines()[-1].split(",")
        assert one.returncode == 0
        assert len(names) == count and names == sorted(names)


def test_each_job_of_slurm_has_devices_of_its_own(job):
    for number in ("11", "12"):
        assert said(job("0", SLURM_JOB_ID=number)) == "0"
    assert said(job("0", SLURM_JOB_ID="12")).startswith("waits")


def test_as_many_jobs_share_a_gpu_as_the_environment_says(job):
    jobs = [job("0,1", JOBS_PER_GPU="2") for _ in range(4)]
    assert sorted(map(said, jobs)) == ["0", "0", "1", "1"]
    # A job that needs two GPUs gets two different ones.
    late = job("0,1", 2, JOBS_PER_GPU="3")
    assert said(late) == "0,1"
    one_too_many = job("0,1", JOBS_PER_GPU="3")
    assert said(one_too_many).startswith("waits for 1 of the GPUs 0, 1")


@pytest.mark.parametrize("text", ["0", "two", "-1", ""])
def test_a_number_of_jobs_that_is_none_is_refused(text, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("JOBS_PER_GPU", text)
    monkeypatch.setattr(gpu_locks, "_wait_for", lambda *_: pytest.fail("it waits"))
    with pytest.raises(DataError, match=f"JOBS_PER_GPU: found '{text}' in the environment"):
        gpu_locks.take("cuda")


def test_more_than_there_are_is_refused(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(DataError, match=r"train\.gpus: found 3, but only 2 can be seen: 0, 1"):
        gpu_locks.take("cuda", 3)


@pytest.mark.parametrize("device, names", [("cpu", "0,1"), ("mps", "0"), ("cuda", "")])
def test_nothing_is_taken_where_there_is_no_cuda(device, names, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", names)
    monkeypatch.setattr(gpu_locks, "_folder", lambda: pytest.fail("a lock was made"))
    gpu_locks.take(device)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == names


@pytest.mark.parametrize(
    "variable, expected",
    [
        ("2, 0", ["2", "0"]),
        ("0,-1,1", ["0"]),
        ("0,,1", ["0"]),
        ("1,1", ["1"]),
        ("MIG-GPU-ab/1/0,GPU-cd", ["MIG-GPU-ab/1/0", "GPU-cd"]),
        ("", []),
    ],
)
def test_the_names_are_those_that_cuda_would_see(variable, expected, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert gpu_locks.visible() == expected


def test_without_the_variable_all_that_nvidia_smi_lists_are_there(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_locks.visible() == []
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'GPU 0: A (UUID: GPU-1)\n  MIG 1g\nGPU 1: B (UUID: GPU-2)'\n")
    smi.chmod(0o755)
    assert gpu_locks.visible() == ["0", "1"]


def test_a_folder_of_locks_that_is_somebody_elses_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_locks.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / f"dst-cbc-{os.getuid()}").symlink_to(elsewhere)
    with pytest.raises(DataError, match="expected a folder that belongs to this user"):
        gpu_locks.take("cuda")
    assert list(elsewhere.iterdir()) == []
