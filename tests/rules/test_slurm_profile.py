"""The SLURM profile and the Dockerfile, as far as they can be tested without a cluster or Docker.

`make test-slurm` tests the profile on a real SLURM.
"""

import re

import pytest
import yaml

from dst_cbc.planning import cost
from workflow import EXPERIMENT, REPOSITORY, Project

SLURM = yaml.safe_load((REPOSITORY / "profiles/slurm/config.yaml").read_text())
DEFAULT = yaml.safe_load((REPOSITORY / "profiles/default/config.yaml").read_text())
ON_SLURM = ("--workflow-profile", "profiles/slurm")
NETWORK = {"train", "finetune", "predict", "predict_round", "evaluate"}


def asked_for(printed):
    """{rule: resources of its first job} of a dry run."""
    found = re.findall(r"^(?:local)?rule (\w+):\n(?:    .*\n)*?    resources: (.*)", printed, re.M)
    return {rule: dict(re.findall(r"(\w+)=([^,\s]+)", line)) for rule, line in reversed(found)}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return Project.create(tmp_path_factory.mktemp("cluster") / "project", workers=3)


def test_it_keeps_what_the_default_profile_says_of_reruns():
    for key in ("rerun-incomplete", "rerun-triggers", "max-checksum-file-size", "show-failed-logs"):
        assert SLURM[key] == DEFAULT[key]


def test_jobs_are_told_to_end_before_their_limit_and_the_limit_leaves_time_for_it():
    signal, seconds = re.search(
        r"--signal=(\w+)@(\d+)", SLURM["default-resources"]["slurm_extra"]
    ).groups()
    # `B:` would signal only the batch shell; the training would then have KillWait seconds to save.
    # SLURM may send the signal a minute early.
    assert signal == "TERM" and int(seconds) + 60 < 60 * cost.LEAST_MINUTES / 2


def test_without_slurm_a_dry_run_tells_what_each_job_will_ask_for(project):
    # The guess is one second per step: 1801 steps, with 901 validations on 4 images.
    (project.root / "long.yaml").write_text(
        yaml.safe_dump({**EXPERIMENT, "workers": 3, "supervised": {"steps": 1801}})
    )
    jobs = asked_for(project.snakemake("-n", *ON_SLURM, "--configfile", "long.yaml"))
    expected = -(-cost.SLACK * (1801 * 1.0 + 901 * 4 * 0.5 + cost.JOB_SECONDS) // 60)
    assert int(jobs["train"]["runtime"]) == expected > 100
    assert int(jobs["finetune"]["runtime"]) == cost.LEAST_MINUTES
    for rule in NETWORK:
        # One thread computes, three processes load images.
        assert (jobs[rule]["gpu"], jobs[rule]["cpus_per_task"]) == ("1", "4")
        assert int(jobs[rule]["mem_mb"]) == cost.megabytes(cost.GUESS, 3, attempt=1)
    for rule, resources in jobs.items():
        assert resources["slurm_extra"] == "--signal=TERM@300"
        assert resources.get("gpu", "0") == ("1" if rule in NETWORK else "0")


def test_device_cpu_asks_for_no_gpu(project):
    jobs = asked_for(project.snakemake("-n", *ON_SLURM, "--config", "device=cpu"))
    assert {jobs[rule]["gpu"] for rule in NETWORK} == {"0"}


def test_an_unknown_key_of_the_profile_is_refused(project):
    """The dry run above accepts our profile, so all its keys are known."""
    profile = project.root / "profiles/wrong/config.yaml"
    profile.parent.mkdir()
    profile.write_text(yaml.safe_dump({**SLURM, "slurm-log-dir": "results/.slurm"}))
    assert "slurm-log-dir" in project.snakemake(
        "-n", "--workflow-profile", "profiles/wrong", fails=True
    )


def test_memory_grows_with_each_attempt():
    measured = cost.Measured("cpu", step=1.0, image=1.0, memory=3 * 10**9, model=0)
    # Twice the measured memory, and 1 GB for each of two loaders; each retry adds half of that.
    assert [cost.megabytes(measured, 2, attempt) for attempt in (1, 2, 3)] == [8000, 12000, 16000]
    # Memory measured on CUDA is memory of the GPU, not of the host.
    on_cuda = cost.Measured("cuda (X)", step=1.0, image=1.0, memory=70 * 10**9, model=0)
    assert cost.megabytes(on_cuda, 0, 1) == 2 * cost.HOST_MEMORY / 1e6


def test_time_is_twice_the_estimate_and_never_too_little_to_start():
    assert cost.minutes(3600 - cost.JOB_SECONDS) == 120
    assert cost.minutes(1) == cost.LEAST_MINUTES
