"""Speed of the data check against decoding alone, both on all cores, side by side.

Prints the images a second of each, and their ratio; fails when the check has less than --limit of
the speed of decoding. Then runs the workflow's rule twice and fails when the second run, with
nothing changed, checks again.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

SCRIPTS = Path(__file__).parents[1] / "scripts"
sys.path.insert(0, str(SCRIPTS))

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

SIZE, IMAGES, REPEATS = (360, 480), 960, 5
EXPERIMENT = """
name: check
data: data
format: folder
classes: {a: "#000000", b: "#ffffff"}
splits: {"10": {count: 10}}
runs: [{splits: ["10"], methods: [supervised]}]
evaluation: {report: [val]}
network: {backbone: small, output_stride: 4}
train: {steps: 1, validate_every: 1}
"""


def write_data(root: Path) -> None:
    """JPEG images and PNG masks of smooth noise, as large as CamVid's."""
    random = np.random.default_rng(0)
    for number in range(IMAGES):
        subset = "train" if number % 4 else "val"
        for kind in ("images", "labels"):
            (root / kind / subset).mkdir(parents=True, exist_ok=True)
        coarse = random.integers(0, 256, (12, 16, 3), np.uint8)
        image = Image.fromarray(coarse).resize(SIZE[::-1], Image.Resampling.BICUBIC)
        image.save(root / f"images/{subset}/{number:04d}.jpg", quality=92)
        mask = (np.asarray(image.convert("L")) > 128).astype(np.uint8)
        Image.fromarray(mask).save(root / f"labels/{subset}/{number:04d}.png")


def decode(root: Path, record) -> None:
    for path in (record.image, record.label):
        with Image.open(root / path) as image:
            np.asarray(image)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=float, default=0.5, help="least ratio (default 0.5)")
    limit = parser.parse_args().limit
    from dst_cbc.datasets import list_records
    from dst_cbc.index import check
    from dst_cbc.settings import DatasetStage

    dataset = DatasetStage(
        format="folder",
        classes={"a": "#000000", "b": "#ffffff"},
        labels={0: "a", 1: "b"},
        ignore=(255,),
        test_from_val=0,
        digits=None,
    )
    cores = os.cpu_count()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "data")
        write_data(root)
        records = list_records(root, dataset)
        speeds = {"decoding": [], "data check": []}
        for _ in range(REPEATS):
            started = time.monotonic()
            with ProcessPoolExecutor(cores) as pool:
                list(pool.map(partial(decode, root), records, chunksize=16))
            speeds["decoding"].append(IMAGES / (time.monotonic() - started))
            started = time.monotonic()
            check(root, records, dataset, processes=cores)
            speeds["data check"].append(IMAGES / (time.monotonic() - started))
        runs_again(Path(folder))
    for name, found in speeds.items():
        print(f"{name}: {statistics.median(found):.0f} images/s on {cores} cores")
    pairs = zip(speeds["data check"], speeds["decoding"], strict=True)
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    print(f"ratio: {ratio:.2f}")
    if ratio < limit:
        sys.exit(f"the data check has less than {limit} of the speed of decoding")


def runs_again(folder: Path) -> None:
    """Fail unless the workflow checks once, and not again while nothing changes."""
    (folder / "check.yaml").write_text(EXPERIMENT)
    snakefile = SCRIPTS.parent / "Snakefile"
    command = [sys.executable, "-m", "snakemake", "results/check/dataset.csv", "-s", snakefile]
    command += ["--configfile", "check.yaml", "--cores", "2"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    second = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    if "Nothing to be done" not in second.stdout + second.stderr:
        sys.exit("the second run checked the data again")
    print("second run: nothing to be done")


if __name__ == "__main__":
    main()
