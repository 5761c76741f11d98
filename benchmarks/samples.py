"""Rows of reading files: training samples, the loader, and the data check."""

from __future__ import annotations

import io
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout, suppress
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import cases
import pictures
from dst_cbc.data.index import check
from dst_cbc.data.records import list_records
from dst_cbc.training import loop, objectives
from dst_cbc.training.samples import Data, Samples
from dst_cbc.training.sampling import Draw, sample_generator
from measure import REPOSITORY, Row, in_turns, paired, row, run
from pictures import Pictures
from targets import CHECK, LOADER, SAMPLE

IMAGES, CHECKED = 64, 1000
# Loader: images per batch, batches to warm up, batches to time, pairs of measurements.
BATCH, WARM, TIMED, REPEATS = 8, 4, 60, 5
EXPERIMENT = """
name: check
data: data
format: folder
classes: {classes}
splits: {{"10": {{count: 10}}}}
runs: [{{splits: ["10"], methods: [supervised]}}]
evaluation: {{report: [val]}}
network: {{backbone: small, output_stride: 4}}
train: {{steps: 1, validate_every: 1}}
"""


def rows(folder: Path) -> Iterator[Row]:
    data = pictures.write(folder / "samples", IMAGES)
    decoders = fastest_decoders(data)
    yield sample_row(data, decoders)
    yield loader_row(data)
    yield check_row(folder / "check", decoders)


def sample_row(data: Pictures, names: dict[str, str]) -> Row:
    sample, draws = _samples(data), _draws()
    paths = [data.root / path for row in data.rows for path in (row.image, row.label)]

    def ours() -> None:
        for _ in range(IMAGES):
            sample(next(draws))

    ours()
    taken = in_turns(ours, lambda: [decode(path, names) for path in paths], seconds=8)
    note = f"decoders: {', '.join(names.values())}; target 3.6 ms where decoding takes 1.5 ms"
    return paired(SAMPLE, *taken, 1000 / IMAGES, note)


def loader_row(data: Pictures) -> Row:
    """Images per second of a warm loader with two workers; the bound is twice one process."""
    sample, draws = _samples(data), _draws()
    pairs = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        for _ in range(BATCH * TIMED // 2):
            sample(next(draws))
        alone = BATCH * TIMED // 2 / (time.perf_counter() - started)
        pairs.append((_through_loader(data), 2 * alone))
    ours, bound = map(statistics.median, zip(*pairs, strict=True))
    share = statistics.median(loaded / twice for loaded, twice in pairs)
    return row(LOADER, ours, bound, share, f"{os.cpu_count()} cores")


def _through_loader(data: Pictures) -> float:
    """Images per second of two workers; extra batches keep both busy until the end."""
    stage = cases.paper(batch=BATCH, steps=WARM + TIMED + 8, validate_at=(WARM + TIMED + 8,))
    model = cases.model(cases.SMALL)
    cpu = torch.device("cpu")
    objective = objectives.make(model, of(data), stage, cpu)
    batches, _ = loop.batches(objective.streams, stage, 0, 2, cpu)
    for _ in range(WARM):
        next(batches)
    started = time.perf_counter()
    for _ in range(TIMED):
        next(batches)
    return BATCH * TIMED / (time.perf_counter() - started)


def of(data: Pictures) -> Data:
    """Training data in which all images are labeled."""
    return Data(data.root, data.dataset, data.rows, [], None, [])


def half_pseudo(data: Pictures) -> Data:
    """Training data: val images are labeled, train images use their masks as pseudo labels."""
    labeled, pseudo = (
        [row for row in data.rows if row.subset == subset] for subset in ("val", "train")
    )
    return Data(data.root, data.dataset, labeled, pseudo, data.root / "labels/train", [])


def _samples(data: Pictures) -> Callable[[Draw], object]:
    stage = cases.paper()
    samples = Samples(data.rows, of(data), stage, cases.model(cases.SMALL))
    return lambda draw: samples(draw, sample_generator(stage.seed, stage.round, draw))


def _draws() -> Iterator[Draw]:
    """Endless draws: every image once in each pass."""
    return (Draw(0, pass_, i) for pass_ in itertools.count() for i in range(IMAGES))


# --------------------------------------------------------------------------- decoding alone


def fastest_decoders(data: Pictures) -> dict[str, str]:
    """File suffix -> name of the fastest installed library that decodes such files."""
    found = {}
    for suffix, path in ((".jpg", data.rows[0].image), (".png", data.rows[0].label)):
        content = (data.root / path).read_bytes()
        wanted, fitting = _pillow(content), {}
        for name, decoder in DECODERS[suffix].items():
            # Skip libraries that are not installed. JPEG decoders may differ by rounding.
            with suppress(Exception):
                if abs(np.asarray(decoder(content)).astype(int) - wanted).max() < 16:
                    fitting[name] = decoder
        calls = [partial(one, content) for one in fitting.values()]
        times = map(min, in_turns(*calls, seconds=1.5))
        found[suffix] = min(zip(times, fitting, strict=True))[1]
    return found


def decode(path: Path, names: dict[str, str]) -> np.ndarray:
    """The pixels of a file, decoded by the library that `names` has for its suffix."""
    return DECODERS[path.suffix][names[path.suffix]](path.read_bytes())


def _pillow(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def _opencv(content: bytes) -> np.ndarray:
    import cv2

    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)


def _torchvision(content: bytes) -> np.ndarray:
    from torchvision.io import decode_image

    decoded = decode_image(torch.frombuffer(bytearray(content), dtype=torch.uint8))
    return decoded.permute(1, 2, 0).squeeze(-1).numpy()


def _imagecodecs(content: bytes) -> np.ndarray:
    import imagecodecs

    return imagecodecs.imread(content)


DECODERS = {
    ".jpg": {
        "Pillow": _pillow,
        "OpenCV": _opencv,
        "torchvision": _torchvision,
        "imagecodecs": _imagecodecs,
    },
    # The other libraries return the colours of an indexed file, not its class numbers.
    ".png": {"Pillow": _pillow, "torchvision": _torchvision},
}
"""File suffix -> library -> function: bytes -> uint8 (H, W, 3), or (H, W) for an indexed PNG."""


# --------------------------------------------------------------------------- the data check


def check_row(folder: Path, names: dict[str, str]) -> Row:
    """The data check, compared with decoding, both on all cores. Also calls `checks_once`."""
    data, cores = pictures.write(folder / "data", CHECKED), os.cpu_count()
    records = list_records(data.root, data.dataset)
    paths = [data.root / path for row in data.rows for path in (row.image, row.label)]

    def bound() -> None:
        with ProcessPoolExecutor(cores) as pool:
            list(pool.map(partial(_decode_only, names), paths, chunksize=32))

    def ours() -> None:
        with redirect_stdout(io.StringIO()):
            check(data.root, records, data.dataset, processes=cores)

    bound()
    taken = in_turns(ours, bound, seconds=10)
    checks_once(folder)
    return paired(CHECK, *taken, 1, f"{cores} cores")


def _decode_only(names: dict[str, str], path: Path) -> None:
    decode(path, names)


def checks_once(folder: Path) -> None:
    """Exit with an error if the workflow checks the data again although nothing has changed."""
    classes = json.dumps(pictures.CLASSES)
    (folder / "check.yaml").write_text(EXPERIMENT.format(classes=classes))
    command = [sys.executable, "-m", "snakemake", "results/check/dataset.csv", "--cores", "2"]
    command += ["-s", REPOSITORY / "Snakefile", "--configfile", "check.yaml", "--nocolor"]
    for expected in ("1 of 1 steps", "Nothing to be done"):
        said = run(command, cwd=folder)
        if expected not in said:
            sys.exit(f"data check: expected {expected!r}, but\n{said}")
