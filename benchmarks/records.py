"""Measure what checksums cost: records and comparisons in stages, of a large model, at start-up.

Prints seconds without and with them, and whether the claims hold: under 1 % of a stage, or under
0.2 s; under 2 s of the start-up on 100,000 images. The study is made in a temporary folder. It has
large images and a tiny network, so much is compared in little time.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import patch

import yaml
from PIL import Image

from measure import REPOSITORY, SCRIPTS, in_turns, run

sys.path.insert(0, str(SCRIPTS))

import cases
import pictures
from dst_cbc.data.index import Row, read_index, write_index
from dst_cbc.models import model_file, segmentation
from dst_cbc.planning.lost import Lost
from dst_cbc.runtime import checksums, job_record
from dst_cbc.runtime.files import sha256_file
from dst_cbc.runtime.tables import csv_header, read_csv, write_csv

OF_STAGE, SECONDS, SECONDS_OF_START = 0.01, 0.2, 2.0
LEAST = 5
"""Times that each row is measured at least, in turns without and with checksums."""
LABELED = 6
EXPERIMENT = {
    "name": "records",
    "data": "data",
    "format": "folder",
    "classes": pictures.CLASSES,
    "splits": {str(LABELED): {"count": LABELED}},
    "evaluation": {"report": ["val"], "batch": 2},
    "network": {"backbone": "small", "output_stride": 4, "aspp_rates": [1]},
    "train": {"steps": 2, "validate_every": 2, "batch": 2, "crop": [64, 64]},
    "keep_predictions": "all",
}
STUDY = "results/records"
RUN = """
import os, runpy, sys
from pathlib import Path
sys.argv = sys.argv[1:]
sys.path[0] = str(Path(sys.argv[0]).parent)
from dst_cbc.data import images
from dst_cbc.runtime import checksums, files, job_record
decode = images.decode
if {without}:
    del os.environ["CHECKSUMS"]
    job_record.note_written = lambda: None
    checksums.check, checksums.sha256_of = lambda path: None, files.sha256_file
    images.decode = lambda path, sha256=None: decode(path)
from dst_cbc.self_training import pseudo_labels
if {without}:
    pseudo_labels.require_unchanged_beside = lambda *arguments: None
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Python code that runs a script with its arguments, perhaps without records and comparisons."""


def snakemake(folder: Path, *options: str) -> str:
    """What Snakemake prints about the study in `folder`."""
    command = [sys.executable, "-m", "snakemake", "-s", REPOSITORY / "Snakefile", "--cores", "2"]
    command += ["--nocolor", "--directory", folder, "--configfile", folder / "experiment.yaml"]
    return run([*command, *options])


def study(folder: Path, images: int, size: int, method: str = "dst-cbc") -> dict[str, str]:
    """Make a study; returns the shell command of the first job of each rule.

    images: every fourth is for validation; of the others, LABELED have masks.
    """
    data = pictures.write(folder / "data", images, (size, size))
    for row in [row for row in data.rows if row.subset == "train"][LABELED:]:
        (data.root / row.label).unlink()
    runs = [{"splits": [str(LABELED)], "methods": [method]}]
    (folder / "experiment.yaml").write_text(yaml.safe_dump({**EXPERIMENT, "runs": runs}))
    jobs = r"^(?:local)?rule (\w+):\n(?:    .*\n)+Shell command: (CHECKSUMS=.*) >> "
    commands: dict[str, str] = {}
    for rule, command in re.findall(jobs, snakemake(folder, "-p"), re.MULTILINE):
        commands.setdefault(rule, command)
    return commands


def variants(command: str, folder: Path) -> list[Callable[[], None]]:
    """Functions that run a job for the first time: without checksums, and with them."""
    record, *outputs = json.loads(shlex.split(command)[0].removeprefix("CHECKSUMS="))
    made = [*checksums.both(folder / record), *(folder / name for name in outputs)]

    def variant(without: bool) -> Callable[[], None]:
        code = f"exec {sys.executable} -c {shlex.quote(RUN.format(without=without))} "
        changed = command.replace(f"exec {sys.executable} ", code)

        def runs() -> None:
            for path in made:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            run(["bash", "-c", changed], cwd=folder)

        return runs

    return [variant(True), variant(False)]


def unchecked(call: Callable[..., object], *arguments: object) -> None:
    """Call a function without the comparisons and digests of this process."""
    known = lambda content: content.get(model_file.DIGEST, "")  # noqa: E731
    with patch.object(checksums, "check"), patch.object(model_file, "digest", known):
        call(*arguments)


def renew(path: Path) -> None:
    """Change the time of the last change of a path, so that its known digest is not used."""
    modified = path.stat().st_mtime_ns
    os.utime(path, ns=(modified, modified))


def model_rows(folder: Path, seconds: float) -> None:
    """Print rows for writing and reading a model file with ResNet-101."""
    model, path = cases.model(cases.RESNET), folder / "model.pt"
    state = model.network.state_dict()
    job = job_record.Job(checksums.record_of(path), [path], "train", "")

    def writes() -> None:
        path.unlink(missing_ok=True)
        segmentation.write_model(path, model, state, {"round": 0, "step": 1})

    def records() -> None:
        writes()
        job_record.write(job, {})

    def reads() -> None:
        renew(path)
        segmentation.read_model(path, "cpu")
        checksums.settle()

    for what, plain, checked in (("write", writes, records), ("read", reads, reads)):
        unchecked(plain)
        checked()
        taken = in_turns(lambda call=plain: unchecked(call), checked, seconds=seconds, least=LEAST)
        print_row(f"{what} ResNet-101, {path.stat().st_size / 1e6:.0f} MB", *taken)


def grow(folder: Path, split: str, images: int) -> None:
    """Add unlabeled images and pseudo labels to a finished study, without a job left to run.

    split: command of its split. The new files are hard links, and Snakemake records them.
    """
    root = folder / STUDY
    for path in [*root.rglob(checksums.FOLDER)]:
        shutil.rmtree(path)
    ids = [f"{number:06d}" for number in range(images)]

    def link(sources: Sequence[Path], to: Path) -> None:
        # Several sources, because a file can have only about 65,000 hard links.
        for number, id in enumerate(ids):
            os.link(sources[number % len(sources)], to / f"{id}.png")

    sources = [folder / f"data/sources/new{number}.png" for number in range(8)]
    for source in sources:
        Image.new("RGB", (8, 8)).save(source)
    link(sources, folder / "data/images/train")
    digest, index = sha256_file(sources[0]), root / "dataset.csv"
    new = [Row(id, f"images/train/{id}.png", "", 8, 8, "train", digest, "") for id in ids]
    rows = [*read_index(index).values(), *new]
    write_index(index, sorted(rows, key=lambda row: row.id))
    run(["bash", "-c", split], cwd=folder)
    for manifest in root.rglob("pseudo_labels.csv"):
        labels = manifest.with_suffix("")
        link(sorted(labels.glob("*.png")), labels)
        old = read_csv(manifest, ["id"])
        write_csv(manifest, csv_header(manifest), [*old, *({**old[0], "id": id} for id in ids)])
    snakemake(folder, "--touch", "--forceall")
    snakemake(folder)


def start_rows(folder: Path, seconds: float) -> None:
    """Print rows for a dry run of a finished study, and for what it does about checksums."""
    index = folder / STUDY / "dataset.csv"
    folders = [*index.parent.rglob(checksums.FOLDER)]
    wrote = [
        [checksums.place(record, name) for name in content.wrote]
        for one in folders
        for record, content in checksums.records_in(one.parent).items()
    ]

    if not wrote:
        sys.exit(f"{folder / STUDY}: expected records of all jobs, found none")

    def finds_lost() -> None:
        for one in folders:
            renew(one)
        # As planned by workflow/rules/remake.smk.
        if Lost({paths[0]: paths for paths in wrote}).steps:
            sys.exit(f"{folder / STUDY}: expected a finished study, found that results are missing")

    def reads() -> None:
        renew(index)
        read_index(index)

    def plans() -> None:
        if "Nothing to be done" not in (printed := snakemake(folder, "-n")):
            sys.exit(f"{printed}\nexpected a finished study, found these jobs")

    def plans_without_records() -> None:
        for one in folders:
            one.rename(one.with_name("hidden"))
        plans()
        for one in folders:
            one.with_name("hidden").rename(one)

    for what, without, checked in (
        ("look for deleted results", lambda: None, finds_lost),
        ("read dataset.csv", lambda: unchecked(read_index, index), reads),
        ("dry run", plans_without_records, plans),
    ):
        taken = in_turns(without, checked, seconds=seconds, least=LEAST)
        print_row(what, *taken, claim=SECONDS_OF_START)


def print_row(
    what: str, without: Sequence[float], checked: Sequence[float], claim: float | None = None
) -> None:
    """Print the medians, the cost, and whether it is less than `claim`, by default of a stage."""
    cost = statistics.median(b - a for a, b in zip(without, checked, strict=True))
    before, after = statistics.median(without), statistics.median(checked)
    limit = claim or max(SECONDS, OF_STAGE * before)
    share = f"{100 * cost / before:+6.1f} %" if before > 1e-3 else " " * 8
    reached = "ok" if cost < limit else f"MISSED, {limit:.1f} s"
    print(f"{what:<26}{before:9.2f} s{after:9.2f} s{cost:+9.3f} s{share}  {reached}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=40, help="in the study (default 40)")
    parser.add_argument("--size", type=int, default=1024, help="their sides (default 1024)")
    parser.add_argument(
        "--start-up", type=int, default=100_000, help="images at start-up (default 100000)"
    )
    parser.add_argument("--seconds", type=float, default=20, help="for each row (default 20)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        commands = study(folder, arguments.images, arguments.size)
        print(f"{arguments.images} images of {arguments.size} x {arguments.size}")
        print(f"{'':<26}{'without':>11}{'with':>11}{'cost':>11}", flush=True)
        for rule, command in commands.items():
            taken = in_turns(*variants(command, folder), seconds=arguments.seconds, least=LEAST)
            print_row(rule, *taken)
        model_rows(folder, arguments.seconds)
        grow(folder, commands["split"], arguments.start_up)
        print(f"start-up, {arguments.start_up} more images")
        start_rows(folder, arguments.seconds)


if __name__ == "__main__":
    main()
