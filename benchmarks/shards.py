"""Measure dry runs for 100,000 images, with stages in one job and split into shards.

Prints, for each number of shards, the number of planned jobs and declared files, and the time and
peak memory of the dry run. The images are hard links to a few tiny images, in a temporary folder.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

REPOSITORY = Path(__file__).parents[1]
LABELED, VALIDATION, SOURCES = 100, 10, 20
EXPERIMENT = """
name: many
data: data
format: folder
classes: {{a: "#000000", b: "#ffffff"}}
splits: {{"100": {{count: 100}}}}
runs: [{{splits: ["100"], methods: [dst-cbc]}}]
evaluation: {{report: [val]}}
network: {{backbone: small, output_stride: 4}}
train: {{epochs: 1, validate_every: 1000}}
shards: {shards}
"""


def write_data(root: Path, images: int) -> None:
    """Write training images, the first LABELED of them with a mask, and validation images."""
    random = np.random.default_rng(0)
    sources = [root / f"{number}.png" for number in range(SOURCES)]
    for source in sources:
        Image.fromarray(random.integers(0, 2, (8, 8), np.uint8)).save(source)
    for subset, count, masks in (("train", images, LABELED), ("val", VALIDATION, VALIDATION)):
        for kind, number in (("images", count), ("labels", masks)):
            folder = root / kind / subset
            folder.mkdir(parents=True)
            for i in range(number):
                # Several sources, because a file can have only about 65,000 hard links.
                os.link(sources[i % SOURCES], folder / f"{subset}{i:06d}.png")
    for source in sources:
        source.unlink()


def dry_run(folder: Path, shards: int) -> tuple[int, int, float, int]:
    """Return jobs, declared files, seconds, and peak memory in bytes of a dry run in `folder`."""
    experiment = folder / "many.yaml"
    experiment.write_text(EXPERIMENT.format(shards=shards))
    command = [
        sys.executable, "-m", "snakemake", "-s", REPOSITORY / "Snakefile", "--directory", folder,
        "--configfile", experiment, "--cores", "2", "--nocolor", "-n",
    ]  # fmt: skip
    begun = time.perf_counter()
    with open(folder / "said.txt", "w+") as said:
        process = subprocess.Popen([*map(str, command)], stdout=said, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
        said.seek(0)
        text = said.read()
    if status:
        sys.exit(text)
    jobs = int(re.search(r"^total +(\d+)", text, re.MULTILINE)[1])
    outputs = re.findall(r"^    output: (.*)$", text, re.MULTILINE)
    files = {name for line in outputs for name in line.split(", ")}
    return jobs, len(files), seconds, 1024 * usage.ru_maxrss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000, help="number (default 100000)")
    parser.add_argument(
        "--shards", type=int, nargs="+", default=[1, 8, 64], help="jobs per stage, one dry run each"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "data").mkdir()
        write_data(folder / "data", arguments.images)
        print(f"{arguments.images} training images, {VALIDATION} validation images, dst-cbc")
        for shards in arguments.shards:
            jobs, files, seconds, memory = dry_run(folder, shards)
            print(
                f"shards {shards:3d}: {jobs:5d} jobs, {files:5d} files, dry run {seconds:.1f} s, "
                f"{memory / 1e6:.0f} MB",
                flush=True,
            )


if __name__ == "__main__":
    main()
