"""Every reader survives damaged files: it returns valid values or raises one of our own errors.

HOSTILE=100000 reads that many files in all; SEED=5 makes other files. Failures are printed with
their reader and seed, and the damaged file is kept.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import readers  # noqa: E402
from readers import READERS  # noqa: E402

STUDY = HERE.parent / "rules/studies/finished.tar.xz"
NEEDED = ("dst-cbc/round", "supervised/", "dst-cbc/agreement", "splits/", "benchmarks/")
SEED = int(os.environ.get("SEED", "1"))
TOTAL = int(os.environ.get("HOSTILE", "10000"))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A finished study that the workflow made."""
    folder = tmp_path_factory.mktemp("study")
    with tarfile.open(STUDY) as file:
        members = [
            one
            for one in file
            if any(part in one.name for part in NEEDED) or one.name.count("/") < 4
        ]
        file.extractall(folder, members, filter="data")
    return folder / "results/tiny"


def read_damaged(study: Path, folder: Path, jobs: list[tuple[int, int, str]]):
    """Read (first seed, count, reader) in other processes; return faults and (read, past) by name.

    If a process dies, another one goes on behind the file that it died of.
    """
    faults, counts = [], {name: [0, 0] for _, _, name in jobs}
    while jobs:
        # The last process may have left a damaged file.
        shutil.rmtree(folder / "study", ignore_errors=True)
        shutil.copytree(study, folder / "study")
        command = [sys.executable, HERE / "worker.py", folder / "study", folder]
        for first, count, name in jobs:
            command += [f"{first}:{count}", name]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        for line in map(json.loads, done.stdout.splitlines()):
            if "fault" in line:
                faults.append(f"{line['reader']} {line['seed']}: {line['fault']} [{line['file']}]")
            else:
                counts[line["reader"]][0] += line["read"]
                counts[line["reader"]][1] += line["past"]
        if done.returncode == 0:
            break
        printed = done.stderr + (folder / "said").read_text(errors="replace")
        assert (folder / "current").is_file() and done.returncode < 0, printed
        seed, _, name = (folder / "current").read_text().partition(" ")
        cause = signal.Signals(-done.returncode).name
        faults.append(f"{name} {seed}: the process died of {cause}")
        place = [name for _, _, name in jobs].index(name)
        first, count, _ = jobs[place]
        rest = (int(seed) + 1, first + count - int(seed) - 1, name)
        jobs = [rest, *jobs[place + 1 :]]
        (folder / "current").unlink()
    return faults, counts


def jobs_of(total: int, *groups: str) -> list[tuple[int, int, str]]:
    """Share `total` files among all readers; return the jobs of the readers in `groups`."""
    whole = sum(reader.share for reader in READERS)
    return [
        (SEED * 1_000_000, max(4, round(total * reader.share / whole)), reader.name)
        for reader in READERS
        if reader.group in groups
    ]


def require_survival(study: Path, folder: Path, jobs: list[tuple[int, int, str]]) -> None:
    faults, counts = read_damaged(study, folder, jobs)
    assert not faults, "\n".join(faults)
    assert {name for _, _, name in jobs} == {name for name, (read, _) in counts.items() if read}
    early = {name: (n, past) for name, (n, past) in counts.items() if n >= 50 and past < n / 2}
    assert not early, f"(read, past the header): {early}; expected at least half"
    read, past = map(sum, zip(*counts.values(), strict=True))
    assert past >= read / 2


def test_some_hundred_damaged_files_are_read_or_refused(study, tmp_path):
    require_survival(study, tmp_path, jobs_of(400, "study", "archives", "images", "annotations"))


def test_most_damaged_fields_of_a_model_get_past_its_digest(study, tmp_path):
    """Else the other tests would only compare digests."""
    valid, past = readers.model_files(study)[1], 0
    path = tmp_path / readers.ROUND / "model.pt"
    path.parent.mkdir(parents=True)
    for seed in range(60):
        path.write_bytes(readers.in_model(random.Random(seed), valid))
        try:
            readers.read_model(tmp_path)
        except readers.OWN as error:
            past += "found SHA-256" not in str(error)
        else:
            past += 1
    assert 45 <= past < 60


@pytest.mark.parametrize("group", sorted({reader.group for reader in READERS}))
@pytest.mark.slow
def test_ten_thousand_damaged_files_are_read_or_refused(study, tmp_path, group):
    require_survival(study, tmp_path, jobs_of(TOTAL, group))
