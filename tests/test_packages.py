"""The files that pin packages, and what installs them: all checked by hash, nothing else."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import environment
from documentation.pinned import PINNED, pins
from workflow import REPOSITORY

LOCKS = ("requirements-build.lock", "requirements.lock")
TORCH = {"torch", "torchvision"}
CUDA = re.compile(r"(nvidia|cuda)-.+|triton")


def normal(name):
    """The name of a package as the lock files write it."""
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_has_hashes_and_no_address(lock):
    text = (REPOSITORY / lock).read_text()
    lines = text.replace("\\\n", " ").splitlines()
    packages = [line for line in lines if line and not line.lstrip().startswith("#")]
    with_hashes = re.compile(r"[a-z0-9-]+==\S+( +--hash=sha256:[0-9a-f]{64})+")
    assert packages and [line for line in packages if not with_hashes.fullmatch(line)] == []
    assert "://" not in text


def test_the_pinned_files_agree_and_leave_cuda_to_pytorch():
    each = [pins([name]) for name in PINNED]
    together = pins()
    assert all(together.items() >= one.items() for one in each)
    assert not [name for name in together if CUDA.fullmatch(name)]
    assert each[-1].keys() == TORCH and not TORCH & (each[0].keys() | each[1].keys())


def test_the_pinned_versions_are_in_the_ranges_of_the_project():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    groups = [project["project"]["dependencies"], project["dependency-groups"]["build"]]
    groups += project["project"]["optional-dependencies"].values()
    pinned = pins()
    for wanted in (Requirement(line) for group in groups for line in group):
        version = pinned.get(normal(wanted.name))
        assert version and version in wanted.specifier, f"{wanted}: pinned {version}; `make lock`"


def test_exactly_the_pinned_packages_are_installed():
    if not (Path(sys.prefix) / environment.STAMP).is_file():
        pytest.skip("needs the environment that `make venv` makes")
    found = {normal(d.metadata["Name"]): d.version.partition("+")[0] for d in distributions()}
    # The build of PyTorch for CUDA pins these itself.
    assert {k: v for k, v in found.items() if not CUDA.fullmatch(k)} == pins()
    # The locked packages are installed without resolving what they depend on.
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_image_is_fixed_by_its_digest_and_made_like_the_environment():
    lines = (REPOSITORY / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    conda = yaml.safe_load((REPOSITORY / "envs/dst-cbc.yaml").read_text())["dependencies"]
    tag = conda[0].replace("python=", "python:") + "-slim-bookworm"
    bases = [words for step, words in steps if step == "FROM"]
    assert len(bases) == 1 and re.fullmatch(rf"{tag}@sha256:[0-9a-f]{{64}}", bases[0])
    copied = " ".join(words for step, words in steps if step == "COPY").split()
    assert {"scripts/environment.py", *PINNED} <= set(copied)
    assert any("python /tmp/dst-cbc/scripts/environment.py" in words for _, words in steps)
    # Jobs in the container run as a normal user.
    order = [step for step, _ in steps]
    assert ["USER", "researcher"] in steps and "RUN" not in order[order.index("USER") :]
    ignored = (REPOSITORY / ".dockerignore").read_text().splitlines()[1:]
    assert ignored == ["*", "!requirements*", "!scripts/environment.py"]


def test_the_conda_environment_has_the_pinned_versions():
    conda = yaml.safe_load((REPOSITORY / "envs/dst-cbc.yaml").read_text())["dependencies"]
    pinned = pins(["requirements.lock", "requirements-torch.txt"])
    assert conda[-1]["pip"] == [f"{name}=={version}" for name, version in pinned.items()]


# --------------------------------------------------------------------------- scripts/environment.py


@pytest.fixture
def source(tmp_path):
    """A folder with the files that pin packages."""
    folder = tmp_path / "source"
    folder.mkdir()
    for name, _ in environment.INSTALLED:
        (folder / name).write_text(f"{name}\n")
    return folder


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """The commands that environment.py would run; none runs, but that of venv makes its folder."""
    found = []

    def run(command, check):
        assert check
        found.append(command[1:])
        if command[2] == "venv":
            (tmp_path / "venv").mkdir()

    monkeypatch.setattr(subprocess, "run", run)
    return found


def test_locked_packages_are_installed_by_hash_without_their_dependencies(tmp_path, source, calls):
    environment.make(tmp_path / "venv", source)
    installed = {Path(call[-1]).name: call for call in calls if "install" in call}
    assert list(installed) == list(PINNED)
    for name in LOCKS:
        assert {"--require-hashes", "--no-deps"} <= set(installed[name])
    assert "--no-build-isolation" in installed["requirements.lock"]


@pytest.mark.parametrize("name", PINNED)
def test_a_change_of_a_file_makes_the_environment_again(tmp_path, source, calls, name):
    environment.make(tmp_path / "venv", source)
    assert environment.is_current(tmp_path / "venv", source)
    (source / name).write_text("changed\n")
    assert not environment.is_current(tmp_path / "venv", source)


def test_an_interrupted_installation_is_not_complete(tmp_path, source, calls, monkeypatch):
    environment.make(tmp_path / "venv", source)
    record = subprocess.run

    def interrupted(command, check):
        if command[-1].endswith("requirements-torch.txt"):
            raise KeyboardInterrupt
        record(command, check=check)

    monkeypatch.setattr(subprocess, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        environment.make(tmp_path / "venv", source)
    assert (tmp_path / "venv").is_dir()
    assert not environment.is_current(tmp_path / "venv", source)


def test_a_python_that_is_too_old_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 11, 2))
    assert any(
        "Python 3.11.2, at least 3.11.5" in found for found in environment.problems(tmp_path)
    )
    # An old Python must be able to read the script that says so.
    ast.parse((REPOSITORY / "scripts/environment.py").read_text(), feature_version=(3, 7))
