"""Faults other than kills: each takes effect, gives a message, and leaves no trace once repaired.

Faults that this machine cannot produce are skipped with a reason; `.ci/run` fails on such a skip.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pipeline import Fault, Pipeline, choose, deal, differing

from conftest import SEED

TROUBLES = Path(__file__).parents[2] / "docs/guides/troubleshooting.md"
ROUND = "results/tiny/6_0/once/round1"
BASE = "results/tiny/6_0/supervised"
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
          # May read all files, but write only its own.
          "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")  # fmt: skip


def works(*command: str) -> bool:
    """Whether a command succeeds on this machine."""
    if not shutil.which(command[0]):
        return False
    return subprocess.run(command, capture_output=True).returncode == 0


MOUNT = ("unshare", "-m", "sh", "-c", 'd=$(mktemp -d) && mount -t tmpfs -o size=64k tmpfs "$d"')
mounts = pytest.mark.skipif(not works(*MOUNT), reason="no right to mount a tmpfs: run as root")
changes_user = pytest.mark.skipif(
    not works(*NOBODY, "true"), reason="setpriv may not become another user: run as root"
)


def cured(pipeline: Pipeline, finished: Pipeline, *arguments: str) -> None:
    """The next start succeeds, and its results equal the results of an undisturbed run."""
    assert pipeline.run(*arguments) == 0, pipeline.printed
    assert differing(pipeline.outcome(), finished.outcome()) == []


def trained(pipeline: Pipeline, finished: Pipeline, prefix: tuple[str, ...] = ()) -> None:
    """The next start trains round 0, and gives the bytes of an undisturbed run."""
    assert pipeline.run(f"{BASE}/model.pt", prefix=prefix) == 0, pipeline.printed
    for name in ("model.pt", "last.pt", "history.csv"):
        ours, theirs = ((one.root / BASE / name).read_bytes() for one in (pipeline, finished))
        assert ours == theirs, name


def test_a_full_disk_at_any_write_is_told_and_leaves_no_trace(finished, tmp_path, case):
    events = {
        event: count
        for event, count in finished.catalogue().items()
        if event[1] in ("write", "open") and "events" not in event[2]
    }
    drawn = choose(events, SEED, 60)
    faults = [Fault(f.id, f.job, f.kind, f.place, f.n, "disk") for f in drawn]
    (faults, *_) = sorted(deal(faults), key=len, reverse=True)
    pipeline = Pipeline.create(tmp_path / "project")
    pipeline.arm(faults)
    for _ in faults:
        before = pipeline.met()
        assert pipeline.run() != 0
        assert len(pipeline.met() - before) == 1
        assert "no space left on its disk" in pipeline.printed
        assert "Delete predictions.h5" in pipeline.printed
    cured(pipeline, finished)
    for f in faults:
        case(f"disk full at {f.kind} {f.n} of {f.place} in {f.job}", "told; then same bytes")


@mounts
def test_a_tmpfs_that_is_really_full_is_told_and_leaves_no_trace(finished, tmp_path, case):
    size = sum(len(content) for content in finished.outcome().values())
    pipeline = Pipeline.create(tmp_path / "project")
    pipeline.arm([])
    # Both starts share a mount namespace: the disk is full in the first, enlarged in the second.
    script = f"""
        mkdir results && mount -t tmpfs -o size={size // 1024 // 2}k tmpfs results
        "$@" > first 2>&1 && exit 3
        df -k --output=avail results > left
        mount -o remount,size={20 * size // 1024}k results
        "$@" > second 2>&1 || exit 4
        cp -a results kept
    """
    pipeline.run(prefix=("unshare", "-m", "sh", "-ec", script, "sh"))
    first, second = ((pipeline.root / name).read_text() for name in ("first", "second"))
    assert re.search(r"results/: no space left on its disk \(0\.\d MB free", first), first
    assert "Traceback" not in first, first
    shutil.rmtree(pipeline.root / "results")
    (pipeline.root / "kept").rename(pipeline.root / "results")
    assert differing(pipeline.outcome(), finished.outcome()) == [], second
    case("a tmpfs of half the needed size", "told; larger: same bytes", 0, 2)


@changes_user
def test_a_folder_without_permission_is_named(finished, tmp_path_factory, case):
    # Not below tmp_path, which other users cannot enter.
    root = tmp_path_factory.mktemp("open")
    for folder in (root, root.parent):
        folder.chmod(0o755)
    pipeline = Pipeline.create(root / "project")
    pipeline.arm([])
    closed = pipeline.root / "results/.resume"
    closed.mkdir(parents=True)
    subprocess.run(["chown", "-R", "65534:65534", str(pipeline.root)], check=True)
    os.chown(closed, 0, 0)
    home = ("env", f"HOME={pipeline.root}", f"XDG_CACHE_HOME={pipeline.root}/.cache")
    assert pipeline.run(prefix=(*NOBODY, *home)) != 0
    assert "results/.resume/tiny: this user may not write or read it" in pipeline.printed
    assert "Traceback" not in pipeline.printed
    os.chown(closed, 65534, 65534)
    trained(pipeline, finished, prefix=(*NOBODY, *home))
    case("results/.resume belongs to another user", "named; then same bytes", 0, 2)


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


# The damaged file, and the file that is then made again.
DAMAGED = [
    (f"{BASE}/model.pt", f"{BASE}/predictions.h5"),
    ("results/scenes/images/train/train-0003.png", f"{BASE}/predictions.h5"),
    (f"{BASE}/last.pt", f"{BASE}/metrics.json"),
    (f"{BASE}/histogram.npz", f"{ROUND}/thresholds.csv"),
    (f"{BASE}/predictions.h5", f"{ROUND}/pseudo_labels.csv"),
    (f"{ROUND}/thresholds.csv", f"{ROUND}/pseudo_labels.csv"),
    (f"{ROUND}/pseudo_labels/train-0003.png", f"{ROUND}/model.pt"),
    (f"{ROUND}/pseudo_labels.csv", f"{ROUND}/model.pt"),
    ("results/tiny/dataset.csv", f"{BASE}/model.pt"),
]


@pytest.mark.parametrize(("damaged", "consumer"), DAMAGED)
def test_a_file_cut_in_half_between_stages_is_named(finished, tmp_path, case, damaged, consumer):
    pipeline = finished.copy(tmp_path / "project")
    path = pipeline.root / damaged
    whole = path.read_bytes()
    halve(path)
    # Keep the modification time, so that Snakemake does not notice.
    os.utime(path, ns=(0, (finished.root / damaged).stat().st_mtime_ns))
    assert pipeline.run(consumer, "--forcerun", consumer) != 0
    assert path.name in pipeline.printed and "Traceback" not in pipeline.printed, pipeline.printed
    path.write_bytes(whole)
    os.utime(path, ns=(0, (finished.root / damaged).stat().st_mtime_ns))
    assert pipeline.run(consumer) == 0, pipeline.printed
    cured(pipeline, finished)
    case(f"{damaged} cut in half", "named; then same bytes", 0, 2)


def test_a_flipped_byte_in_a_pseudo_label_stops_fine_tuning(finished, tmp_path, case):
    pipeline = finished.copy(tmp_path / "project")
    path = pipeline.root / ROUND / "pseudo_labels/train-0003.png"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    target = f"{ROUND}/model.pt"
    assert pipeline.run(target, "--forcerun", target) != 0
    assert "train-0003" in pipeline.printed and "--accept" in pipeline.printed
    # The first of the two commands in the message.
    assert pipeline.run("--forcerun", f"{ROUND}/pseudo_labels.csv") == 0, pipeline.printed
    assert differing(pipeline.outcome(), finished.outcome()) == []
    case("a flipped byte in a pseudo label", "named; remade: same bytes", 0, 2)


FOLDER = {
    "data": "data",
    "format": "folder",
    "classes": {"background": "#000000", **{str(d): f"#0000{d + 16:02x}" for d in range(10)}},
}


def test_a_mask_that_changes_while_training_reaches_no_model(finished, tmp_path, case):
    first = Pipeline.create(tmp_path / "first", **FOLDER)
    shutil.copytree(finished.root / "results/scenes", first.root / "data")
    first.arm([])
    split = "results/tiny/splits/6_0.labeled.txt"
    assert first.run(split) == 0, first.printed
    changed, other = [
        f"data/labels/train/{id}.png" for id in (first.root / split).read_text().split()
    ][:2]
    second = first.copy(tmp_path / "second")
    change = f"cp {other} {changed}"
    job = "train of round 0"
    second.arm([Fault("mask", job, "step", "an optimizer step", 3, change)])
    assert second.run() != 0 and second.met() == {"mask"}
    assert changed in second.printed and "have changed since the data check" in second.printed
    assert not list((second.root / "results/tiny").rglob("model.pt"))
    target = f"{BASE}/metrics.json"
    assert second.run(target) == 0, second.printed
    subprocess.run(change, shell=True, check=True, cwd=first.root)
    assert first.run(target) == 0, first.printed
    ours = {n: c for n, c in first.outcome().items() if ".fingerprints" not in n}
    theirs = {n: c for n, c in second.outcome().items() if ".fingerprints" not in n}
    assert differing(ours, theirs) == []
    case("a mask changes while training", "named; then as if it had been so from the start", 0, 2)


def test_the_cache_of_fingerprints_may_be_lost_at_any_write(finished, tmp_path, case):
    undisturbed = Pipeline.create(tmp_path / "undisturbed", **FOLDER)
    shutil.copytree(finished.root / "results/scenes", undisturbed.root / "data")
    pipeline = undisturbed.copy(tmp_path / "killed")
    target = "results/tiny/dataset.csv"
    faults = [
        Fault(kind, "snakemake", kind, ".fingerprints.json", 1, "stage")
        for kind in ("open", "write", "rename")
    ]
    pipeline.arm(faults)
    for _ in faults:
        # Snakemake dies before it locks; unlocking would write the cache.
        assert pipeline.start(target).wait() == -signal.SIGKILL
    assert pipeline.run(target) == 0 and undisturbed.run(target) == 0
    assert pipeline.met() == {"open", "write", "rename"}
    checked = [(p.root / target).read_bytes() for p in (pipeline, undisturbed)]
    assert checked[0] == checked[1]
    for fault in faults:
        case(f"kill snakemake at {fault.kind} of .fingerprints.json", "same bytes", 0, 4)


def test_of_two_snakemakes_one_is_told_to_wait_and_the_other_finishes(finished, tmp_path, case):
    pipeline = Pipeline.create(tmp_path / "project")
    job, arguments = "train of round 0", ("--nolock", "--forcerun", f"{BASE}/model.pt")
    second = f"{sys.executable} -m snakemake --cores 1 --nocolor"
    # Start a second Snakemake from within the training, for the same target.
    commands = [f"{second} > locked 2>&1 || true",
                f"{second} {' '.join(arguments)} > unlocked 2>&1 || true"]  # fmt: skip
    pipeline.arm(
        Fault(str(i), job, "step", "an optimizer step", 2 + i, command)
        for i, command in enumerate(commands)
    )
    trained(pipeline, finished)
    assert pipeline.met() == {"0", "1"}
    locked, unlocked = ((pipeline.root / name).read_text() for name in ("locked", "unlocked"))
    assert "LockException" in locked
    assert (
        "is already doing this work (training of " in unlocked
        and "wait for it, or end it" in unlocked
    )
    case("a second Snakemake, with and without --nolock", "told to wait; same bytes", 0, 1)


def test_the_documentation_is_right_about_what_to_do_after_a_crash(finished, tmp_path, case):
    """Kill everything during a training, then follow the documentation literally."""
    section = TROUBLES.read_text().partition("## After a crash")[2].partition("\n## ")[0]
    look, end, unlock, *_ = re.findall(r"`([^`]+)`", section)
    assert (look, end) == ("pgrep -af 'scripts/.*[.]py'", "kill NUMBER")
    pipeline = Pipeline.create(tmp_path / "project")
    pipeline.arm([Fault("0", "train of round 0", "step", "an optimizer step", 3, "both")])
    assert pipeline.start().wait() == -signal.SIGKILL
    work = pipeline.root / "results/.resume/tiny/6_0/supervised"
    assert (work / "train.lock").exists() and (work / "train/state.pt").exists()
    assert pipeline.start().wait() == 1 and "LockException" in pipeline.printed
    deadline = time.monotonic() + 60
    while any(str(pipeline.root) in line for line in shell(look, pipeline.root).splitlines()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    shell(unlock, pipeline.root)
    trained(pipeline, finished)
    assert (
        "resumed at step 2"
        in (pipeline.project.study / "logs/6_0/supervised/train.log").read_text()
    )
    assert not list(work.parent.rglob("*.lock"))
    case("all killed, After a crash of the documentation followed", "resumed; same bytes", 0, 2)


def shell(command: str, folder: Path) -> str:
    """The output of a command from the documentation."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        command, shell=True, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True,
        text=True,
    ).stdout  # fmt: skip


# Too small for a lock, for the images of one batch, and for the batches of a training.
@mounts
@pytest.mark.parametrize(
    "size, file",
    [
        ("4k", "predictions.h5"),
        ("20k", "predictions.h5"),
        ("20k", "model.pt"),
    ],
)
def test_too_little_shared_memory_is_told(finished, tmp_path, case, size, file):
    pipeline = finished.copy(tmp_path / "project")
    target = f"{BASE}/{file}"
    mount = f'mount -t tmpfs -o size={size} tmpfs /dev/shm; exec "$@"'
    arguments = (target, "--forcerun", target, "--config", "workers=2")
    assert pipeline.run(*arguments, prefix=("unshare", "-m", "sh", "-ec", mount, "sh")) != 0
    assert "/dev/shm is too small" in pipeline.printed, pipeline.printed
    assert "workers: 0" in pipeline.printed
    assert pipeline.run(target) == 0, pipeline.printed
    cured(pipeline, finished)
    case(f"/dev/shm of {size}, 2 workers, {file}", "told; then same bytes", 2, 2)


@pytest.fixture
def memory_group(tmp_path):
    """A control group (v1 or v2) whose processes may use 200 MB in total."""
    mount = Path("/sys/fs/cgroup/memory")
    keys = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
    if not mount.is_dir():
        mount, keys = Path("/sys/fs/cgroup"), ("memory.max", "memory.swap.max")
    group = mount / f"dst-cbc-{os.getpid()}"
    try:
        group.mkdir()
        (group / keys[0]).write_text(str(200 << 20))
        if (group / keys[1]).exists():
            (group / keys[1]).write_text("0" if keys[1] == "memory.swap.max" else str(200 << 20))
    except OSError as error:
        if group.is_dir():
            group.rmdir()
        pytest.skip(f"no right to limit memory by a control group: {error}")
    yield group
    group.rmdir()


def test_a_job_that_the_system_kills_for_memory_is_explained(
    finished, tmp_path, case, memory_group
):
    pipeline = finished.copy(tmp_path / "project")
    target = f"{BASE}/model.pt"
    # Limit only the training; otherwise the system might kill Snakemake instead.
    join = f"echo $PPID > {memory_group}/cgroup.procs"
    pipeline.arm([Fault("join", "train of round 0", "open", "train/fingerprint", 1, join)])
    assert pipeline.run(target, "--forcerun", target) != 0
    assert pipeline.met() == {"join"}
    assert "ended by SIGKILL" in pipeline.printed, pipeline.printed
    assert "Lower train.batch" in pipeline.printed and "GB of them free" in pipeline.printed
    assert pipeline.run(target) == 0, pipeline.printed
    cured(pipeline, finished)
    case("the system kills a training for memory", "explained; then same bytes", 0, 2)
