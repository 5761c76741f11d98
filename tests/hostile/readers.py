"""Every reader of files: valid files that the code made, ways to damage them, and what is read.

A reader may raise only OWN. If it returns, `read` asserts that the values are valid.
"""

import contextlib
import io
import json
import random
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile
import yaml
from mutations import (
    Damage,
    damage_bytes,
    damage_json,
    damage_text,
    damage_value,
    in_gzip,
    in_npy,
    in_png,
    in_safetensors,
    in_tar,
    in_zip,
    splice,
)
from PIL import Image
from pydantic import TypeAdapter

from dst_cbc.data.annotations import coco, cvat, imagej, label_studio, labelme, qupath, yolo
from dst_cbc.data.annotations.shapes import PEEK, AnnotationFormat
from dst_cbc.data.downloads import unpack
from dst_cbc.data.fingerprints import Fingerprints
from dst_cbc.data.images import open_image
from dst_cbc.data.index import Row, read_index
from dst_cbc.data.layouts.layout import Record
from dst_cbc.data.masks import label_table, open_label
from dst_cbc.data.pixel_size import pixel_size
from dst_cbc.data.trainaug import sbd_mask
from dst_cbc.own_images import exported_lists, next_study
from dst_cbc.planning import cost
from dst_cbc.planning.lost import Lost
from dst_cbc.planning.plan import load_plan
from dst_cbc.report import figure_data, model_card, summary, tables
from dst_cbc.report.agreement import labels_from
from dst_cbc.report.verification import verify
from dst_cbc.runtime import checksums
from dst_cbc.runtime.errors import Changed, DataError, Unusable
from dst_cbc.runtime.files import sha256, sha256_file
from dst_cbc.runtime.job_record import Job, write
from dst_cbc.runtime.reading import read_ids
from dst_cbc.runtime.resume import Busy, resume_folder
from dst_cbc.self_training.predictions import read_histogram, read_predictions
from dst_cbc.self_training.pseudo_labels import join_shards, read_labels, read_manifest
from dst_cbc.self_training.thresholds import read_cutoffs, read_thresholds
from dst_cbc.settings.base import Bands, ClassName
from dst_cbc.settings.data import DatasetStage
from dst_cbc.settings.experiment import Experiment
from dst_cbc.settings.experiment_files import ConfigError, load_experiment, load_methods, read_yaml

REPOSITORY = Path(__file__).parents[2]
OWN = (DataError, ConfigError, Busy, Changed, Unusable, FileNotFoundError)
"""The errors for which a command prints one line."""
LABELMAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nä/b:1,2,3:x:y\nc:9,9,9::"
PIXEL_VALUES = "Pixel Value, Class\n0, background\n1, ä/b\n2, c"
CLASS_LIST = "value name\n0 background\nroad: 7\n8, road\n255 ignore"
CLASSES = ["background", *"0123456789"]
DIVISION = "3_0"
MODELS = [f"{DIVISION}/supervised", f"{DIVISION}/dst-cbc/round1", f"{DIVISION}/dst-cbc/round2"]
ROUND = MODELS[-1]


@dataclass(frozen=True)
class Reader:
    """A reader of the file `name`, a path below the study's folder.

    read: reads the file in the study's folder. damage: functions that damage a valid file; each is
    as likely as another. samples: function from the study's folder to valid files; None: the file
    of the study. past: whether a file gets past the check of its header. group: what is read in one
    process. refused: whether a valid file is refused, too, as the lock of another process is.
    share: weight of the number of files.
    """

    name: str
    read: Callable[[Path], Any]
    damage: Sequence[Damage]
    past: Callable[[bytes], bool]
    samples: Callable[[Path], list[bytes]] | None = None
    group: str = "study"
    refused: bool = False
    share: float = 1.0


# --------------------------------------------------------------------------- headers


def _opens(opening: Callable[[io.BytesIO], Any]) -> Callable[[bytes], bool]:
    """Whether a function opens a file with this content."""

    def past(content: bytes) -> bool:
        try:
            opening(io.BytesIO(content))
        except Exception:
            return False
        return True

    return past


def is_text(content: bytes) -> bool:
    with contextlib.suppress(UnicodeDecodeError):
        return bool(content.decode()) and b"\0" not in content
    return False


def has_header(*columns: str) -> Callable[[bytes], bool]:
    """Whether a CSV file is text, and its first line names the columns."""

    def past(content: bytes) -> bool:
        first = content.removeprefix(b"\xef\xbb\xbf").partition(b"\n")[0].decode(errors="replace")
        return is_text(content) and {*columns} <= {*first.rstrip("\r").split(",")}

    return past


is_json = _opens(lambda file: json.load(file))
is_yaml = _opens(lambda file: dict(yaml.load(file, yaml.CSafeLoader)))
is_image = _opens(Image.open)
is_zip = _opens(lambda file: zipfile.ZipFile(file).infolist()[0])
is_tar = _opens(lambda file: tarfile.open(fileobj=file).close())
is_hdf5 = _opens(lambda file: h5py.File(file, "r").close())
is_safetensors = _opens(
    lambda file: json.loads(file.read(int.from_bytes(file.read(8), "little")).decode())
)

# --------------------------------------------------------------------------- damage


def in_yaml(draw: random.Random, content: bytes) -> bytes:
    value = damage_value(draw, yaml.load(content, yaml.CSafeLoader))
    return yaml.safe_dump(value, sort_keys=False).encode()


def in_hdf5(draw: random.Random, content: bytes) -> bytes:
    """Replace a dataset, an attribute or a group of an HDF5 file by another that is valid HDF5."""
    buffer = io.BytesIO(content)
    with h5py.File(buffer, "r+") as file:
        kind, row = draw.choice(("classes", "confidence")), str(draw.randrange(2))
        name = f"{kind}/{row}"
        old = file[name][...]
        id = file[name].attrs["id"]
        what = draw.randrange(16)
        if what == 0:
            del file[name].attrs["id"]
        elif what == 1:
            file[name].attrs["id"] = draw.choice(
                (7, 1.5, [1, 2], b"\xff", "x" * 60_000, h5py.Empty("S1"), np.zeros((3, 3)))
            )
        elif what == 2:
            del file[draw.choice((name, kind))]
        elif what == 3:
            file[name].attrs.create("id", b"\xff\xfe", dtype=h5py.string_dtype("utf-8"))
        elif what == 4:
            file[name].attrs["_FillValue"] = draw.randrange(99)
            file[name].id.write_direct_chunk((0, 0), draw.randbytes(draw.choice((1, 40, 5000))))
        elif what == 5:
            chunk = bytearray(file[name].id.read_direct_chunk((0, 0))[1])
            file[name].id.write_direct_chunk((0, 0), damage_bytes(draw, bytes(chunk)) or b"x")
        elif what == 6:
            mask = draw.choice((1, 2, 3))
            file[name].id.write_direct_chunk((0, 0), old.tobytes()[: draw.randint(1, 3000)], mask)
        else:
            del file[name]
            shape = draw.choice(
                ((), (0,), (5,), (0, 0), (32, 32, 3), (1, 1), (60_000, 60_000), (2**31, 2**20))
            )
            types: tuple[Any, ...] = ("u1", "u2", "i8", "f4", "S3", "O", "c16", [("a", "u1")])
            kinds = draw.choice(types)
            if what == 7:
                file.create_group(name)
            elif what == 8:
                file[name] = draw.choice((h5py.SoftLink("/x"), h5py.ExternalLink("x.h5", "/x")))
            elif what == 9:
                wanted = h5py.string_dtype() if kinds == "O" else kinds
                file.create_dataset(name, (32, 32), wanted)
            elif what == 10:
                chunks = shape if shape and 0 < np.prod(shape, dtype=float) < 2**32 else None
                file.create_dataset(name, shape, old.dtype, chunks=chunks, maxshape=shape or None)
            elif what == 11:
                file.create_dataset(
                    name, (1 << 16, 1 << 15), old.dtype, chunks=(1 << 16, 1 << 15), shuffle=True,
                    compression="gzip", fillvalue=draw.choice((None, 7)),
                )  # fmt: skip
            elif what == 12:
                file.create_dataset(name, data=h5py.Empty(old.dtype))
            elif what == 13:
                options = draw.choice(
                    ({"fletcher32": True}, {"scaleoffset": 3}, {"compression": "lzf"}, {})
                )
                file.create_dataset(name, data=old, chunks=(8, 8), **options)
            elif what == 14:
                layout = h5py.VirtualLayout((32, 32), old.dtype)
                layout[...] = h5py.VirtualSource("x.h5", "x", (32, 32))
                file.create_virtual_dataset(name, layout)
            else:
                file.create_dataset(name, (32, 32), old.dtype, external=[("/etc/passwd", 0, 4096)])
            if what not in (7, 8):
                file[name].attrs["id"] = id
    return buffer.getvalue()


def pt_damage(draw: random.Random, content: bytes) -> bytes:
    return in_zip(draw, content, partial(damage_bytes, safe=2))


CSV = (damage_text,)
JSON = (damage_json,)

# --------------------------------------------------------------------------- images


def pictures(*formats: tuple[str, dict]) -> Callable[[Path], list[bytes]]:
    """Make a small picture of each (mode, options of Pillow's `save`)."""

    def make(_: Path) -> list[bytes]:
        pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 4), np.uint8)
        found = []
        for mode, options in formats:
            buffer = io.BytesIO()
            if mode == "I;16":
                image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 250)
            else:
                image = (
                    Image.fromarray(pixels).convert("RGB" if mode == "1" else mode).convert(mode)
                )
            image.save(buffer, **options)
            found.append(buffer.getvalue())
        return found

    return make


def tiffs(study: Path) -> list[bytes]:
    found = pictures(
        ("RGB", {"format": "TIFF"}), ("L", {"format": "TIFF", "compression": "tiff_lzw"}),
        ("P", {"format": "TIFF"}), ("I;16", {"format": "TIFF"}),
        ("RGB", {"format": "TIFF", "compression": "tiff_deflate"}),
        ("1", {"format": "TIFF", "compression": "group4"}),
        ("RGB", {"format": "TIFF", "compression": "jpeg"}),
    )(study)  # fmt: skip
    deep = np.random.default_rng(0).integers(0, 65536, (9, 12, 3), np.uint16)
    for options in (
        {"photometric": "rgb"}, {"photometric": "rgb", "compression": "zlib"},
        {"photometric": "rgb", "tile": (16, 16)}, {"photometric": "rgb", "bigtiff": True},
    ):  # fmt: skip
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, deep, **options)
        found.append(buffer.getvalue())
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, deep.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    return [*found, buffer.getvalue()]


def band_tiffs(study: Path) -> list[bytes]:
    found = []
    for dtype, channels, options in (
        (np.uint8, 4, {"planarconfig": "contig"}), (np.uint16, 4, {"compression": "zlib"}),
        (np.uint8, 5, {"planarconfig": "separate"}), (np.uint16, 7, {"tile": (16, 16)}),
    ):  # fmt: skip
        pixels = np.random.default_rng(0).integers(0, 256, (9, 12, channels)).astype(dtype)
        planar = options.get("planarconfig") == "separate"
        kind = {"photometric": "rgb", "planarconfig": "contig", **options}
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, np.moveaxis(pixels, 2, 0) if planar else pixels, **kind)
        found.append(buffer.getvalue())
    return found


def stacks(study: Path) -> list[bytes]:
    found = []
    ome = {"Channel": {"Name": ["a", "b"]}, "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    imagej = {"axes": "TCYX", "unit": "um"}
    for axes, options in (
        ("TCYX", {"ome": True, "metadata": {"axes": "TCYX", **ome}}),
        ("TCYX", {"imagej": True, "resolution": (4, 4), "metadata": imagej}),
        ("TYX", {"metadata": {"axes": "TYX"}, "compression": "zlib"}),
        ("TYX", {"metadata": {"axes": "TYX"}, "bigtiff": True, "byteorder": ">"}),
    ):
        pixels = np.random.default_rng(0).integers(0, 256, (3, 2, 9, 12)[-len(axes) :])
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, pixels.astype(np.uint8), photometric="minisblack", **options)
        found.append(buffer.getvalue())
    return found


def number_masks(study: Path) -> list[bytes]:
    numbers = np.random.default_rng(0).integers(0, len(CLASSES), (9, 12))
    found = []
    for dtype, compression in ((np.int32, None), (np.float32, "zlib"), (np.int64, "lzw")):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, numbers.astype(dtype), compression=compression)
        found.append(buffer.getvalue())
    return found


def is_tiff(content: bytes) -> bool:
    """Pillow opens no TIFF of more than six channels."""
    try:
        with tifffile.TiffFile(io.BytesIO(content)) as tiff:
            return tiff.pages[0].dtype is not None
    except Exception:
        return False


def deep_pngs(study: Path) -> list[bytes]:
    import imagecodecs

    deep = np.random.default_rng(0).integers(0, 65536, (9, 12, 3), np.uint16)
    exif = Image.Exif()
    exif[274] = 6
    return [
        imagecodecs.png_encode(deep),
        *pictures(
            ("RGB", {"format": "PNG", "exif": exif}), ("P", {"format": "PNG"}),
            ("1", {"format": "PNG"}), ("LA", {"format": "PNG"}), ("I;16", {"format": "PNG"}),
            ("RGBA", {"format": "PNG"}),
        )(study),
    ]  # fmt: skip


def read_image(path: Path, bands: Bands | None = None) -> None:
    image = open_image(path, (0, 65535), bands=bands)
    assert image.mode == "RGB" and np.asarray(image).shape == (*image.size[::-1], 3)
    size = pixel_size(path)
    assert size is None or all(side > 0 for side in size)


@cache
def folder_stage() -> DatasetStage:
    return DatasetStage(
        format="folder",
        classes={name: f"#0000{number:02x}" for number, name in enumerate(CLASSES)},
        labels=dict(enumerate(CLASSES)),
        ignore=(255,),
        test_from_val=0,
        digits=None,
    )


def read_mask(path: Path) -> None:
    classes = np.asarray(open_label(path, label_table(folder_stage())))
    assert classes.dtype == np.uint8 and {*np.unique(classes)} <= {*range(len(CLASSES)), 255}


def masks(_: Path) -> list[bytes]:
    classes = np.random.default_rng(0).integers(0, len(CLASSES), (9, 12)).astype(np.uint8)
    found = []
    for pixels in (classes, classes.astype(np.uint16), np.dstack([classes] * 3)):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        found.append(buffer.getvalue())
    return found


# --------------------------------------------------------------------------- files of a study


def ids_of(study: Path, side: str = "unlabeled") -> list[str]:
    return read_ids(study / f"splits/{DIVISION}.{side}.txt")


def read_classes(name: str) -> Callable[[Path], None]:
    def read(study: Path) -> None:
        found = exported_lists.read(study / name)
        assert len({*found.names.values()}) > 1 and not {*found.names} & {*found.ignore}
        assert all(0 <= value < (1 << 24 if found.coloured else 1 << 16) for value in found.names)
        TypeAdapter(list[ClassName]).validate_python([*found.names.values()])

    return read


def read_lists(study: Path) -> None:
    ids = ids_of(study)
    assert all(id and "\n" not in id for id in ids)
    summary._images(study, ROUND, "unlabeled")
    rows = [{"split": "3", "seed": 0, "selected_on": "val", "method": "dst-cbc", "round": 2}]
    summary.published_note(study, rows)


def read_dataset(study: Path) -> None:
    for id, row in read_index(study / "dataset.csv").items():
        assert id == row.id and row.height > 0 and row.width > 0, row


def read_h5(study: Path) -> None:
    for found in read_predictions(study / f"{ROUND}/predictions.h5", ["train-0002", "train-0001"]):
        assert found.classes.dtype == np.uint8 and found.confidence.dtype == np.uint16
        assert found.classes.ndim == 2 and found.classes.shape == found.confidence.shape


def read_npz(study: Path) -> None:
    counts = read_histogram(study / f"{ROUND}/histogram.npz")
    assert counts.dtype == np.int64 and counts.shape[1:] == (65536,) and (counts >= 0).all()


def read_table(name: str) -> Callable[[Path], None]:
    def read(study: Path) -> None:
        path = study / f"{ROUND}/{name}"
        edges = read_thresholds(path, CLASSES)
        assert len(edges) == len(CLASSES) and not np.isnan(edges).any()
        cutoffs = read_cutoffs(path, CLASSES)
        assert cutoffs.min() >= 0 and cutoffs.max() <= 65536

    return read


def of_figures(study: Path) -> None:
    """Read the tables and records behind the figures of a study."""
    models = figure_data.read_models(study, "val")
    figure_data.label_quality(study, models, "dst-cbc")
    figure_data.agreement(study, models, "dst-cbc")
    figure_data.kept_and_right(study, models, "dst-cbc")
    figure_data.costs(study, models)
    figure_data.class_iou(study, models, "dst-cbc")


def of_summary(study: Path) -> None:
    rows = summary.read_summary(study / "summary.csv")
    tables.compare({"a": rows, "b": rows})
    tables.markdown("study", tables.aggregate(rows), "")
    summary.with_seconds(study, rows)
    of_figures(study)


def of_models(study: Path) -> None:
    rows = summary.summarize(study, MODELS, ["val", "test"])
    tables.markdown("study", tables.aggregate(rows), "")
    summary.interval_notes(study, MODELS, ["val", "test"])
    summary.share_notes(study, MODELS)
    labels_from(study / ROUND)
    model_card.surroundings(study / ROUND / "model.pt")
    of_figures(study)


def read_manifests(study: Path) -> None:
    for row in read_manifest(study / f"{ROUND}/pseudo_labels.csv", CLASSES):
        assert row.height > 0 and row.width > 0 and (row.counts >= 0).all()
    of_figures(study)


def read_png(study: Path) -> None:
    path = study / f"{ROUND}/pseudo_labels/train-0002.png"
    labels = read_labels(path, (32, 32), len(CLASSES))
    assert labels.dtype == np.uint8 and {*np.unique(labels)} <= {*range(len(CLASSES)), 255}


def read_annotations(format: AnnotationFormat, name: str) -> Callable[[Path], None]:
    """Annotations list what is wrong in their files instead of raising an error."""

    def read(study: Path) -> None:
        path = study / name
        format.recognises(path, path.read_bytes()[:PEEK])
        found = format.read([path])
        assert all(line.startswith(str(study)) for line in found.problems)
        for shape in (shape for image in found.images for shape in image.shapes):
            assert all(np.isfinite(ring).all() for area in shape.polygons for ring in area)
            assert shape.mask is None or shape.mask.counts.min() >= 0

    return read


QUPATH = """{"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": {"type":
"Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 0]], [[4, 2], [5, 2], [5, 3], [4, 2]]]},
"properties": {"objectType": "annotation", "classification": {"name": "cell", "color": [1, 2, 3]}}},
{"type": "Feature", "geometry": {"type": "MultiPolygon", "coordinates": [[[[0, 0], [1, 0], [1, 1],
[0, 0]]]]}, "properties": {"classification": {"name": "Ignore*", "colorRGB": -9408287}}}]}"""


def annotation_file(name: str) -> Callable[[Path], list[bytes]]:
    return lambda study: [(REPOSITORY / "tests/data/annotations/files" / name).read_bytes()]


def read_shard(study: Path) -> None:
    rows, quality = join_shards([study / "shard", study / "other"], study / "joined", CLASSES)
    assert all(row.pixels for row in rows)
    assert quality.shape == (len(CLASSES), len(CLASSES) + 1) and quality.dtype == np.int64


def shard_file(name: str) -> Callable[[Path], list[bytes]]:
    def samples(study: Path) -> list[bytes]:
        for folder in ("shard", "other"):
            shutil.copytree(study / ROUND / "pseudo_labels", study / folder, dirs_exist_ok=True)
            quality = np.arange(11 * 12).reshape(11, 12)
            (study / folder / "quality.json").write_text(json.dumps(quality.tolist()))
            shutil.copy(study / ROUND / "pseudo_labels.csv", study / folder / "manifest.csv")
        return [(study / "shard" / name).read_bytes()]

    return samples


def read_state(study: Path) -> None:
    with resume_folder(study / "state", "abc"):
        pass


RECORD = "checksums/summary.csv.json"


def read_records(study: Path) -> None:
    """Use the record of a job as the planner, a reader of its file and `verify` do."""
    summary_csv = study / "summary.csv"
    problems = list(verify(study))
    assert all(state in ("missing", "changed", "foreign") for state, _ in problems)
    lost = Lost({summary_csv: [summary_csv]})
    assert all(step.targets == [summary_csv] for step in lost.steps)
    checksums.sha256_of(summary_csv)


def record_file(study: Path) -> list[bytes]:
    outputs = [study / "summary.csv", study / "summary.md"]
    job = Job(study / RECORD, outputs, "summarize", "")
    write(job, {path: sha256_file(path) for path in study.glob("splits/*.txt")})
    content = (study / RECORD).read_bytes()
    # Readers of other files must get past the comparison with it.
    (study / RECORD).unlink()
    return [content]


def in_record(draw: random.Random, content: bytes) -> bytes:
    """Damage a record; mostly, its own checksum fits again."""
    damaged = damage_json(draw, content)
    with contextlib.suppress(ValueError, AttributeError, RecursionError):
        value = json.loads(damaged)
        kept = {key: kind for key, kind in value.items() if key != "sha256"}
        if draw.random() < 0.8:
            value["sha256"] = sha256(json.dumps(kept, sort_keys=True).encode())
        return json.dumps(value).encode()
    return damaged


def read_failure(study: Path) -> None:
    (study / "state/fingerprint").write_text("abc")
    read_state(study)


def text_file(content: str) -> Callable[[Path], list[bytes]]:
    return lambda study: [content.encode()]


def read_cache(study: Path) -> None:
    records = [Record("a", "dataset.csv", "summary.csv", "train")]
    found = Fingerprints(study, records, folder_stage(), study / "fingerprints.json")
    assert len(found._of("a", True)[0]) == 64


def cache_file(study: Path) -> list[bytes]:
    read_cache(study)
    return [(study / "fingerprints.json").read_bytes()]


@cache
def demo_plan():
    return load_plan(REPOSITORY, [], {})[2]


def read_cost(study: Path) -> None:
    plan, measured = demo_plan(), cost.remembered(demo_plan(), study)
    work = cost.schedule(plan, [], study)
    cost.describe(work, measured, 1, 1 << 40, 1 << 40)


def cost_file(study: Path) -> list[bytes]:
    cost.remember(demo_plan(), study, cost.Measured("cpu", 0.1, 0.1, 1 << 30, 1 << 20))
    return [(study / cost.REMEMBERED).read_bytes()]


def recommendation_file(study: Path) -> list[bytes]:
    # With a model that exists, the file is read.
    path = next(iter(demo_plan().models))
    (study / path).mkdir(parents=True, exist_ok=True)
    (study / path / "model.pt").touch()
    content = {"model": path, "miou": 50.5, "miou_interval": [45.0, 55.0]}
    return [json.dumps(content).encode()]


def read_experiment(study: Path) -> None:
    presets = read_yaml(REPOSITORY / "workflow/presets.yaml")
    assert isinstance(load_experiment([study / "experiment.yaml"], presets), Experiment)


def experiments(_: Path) -> list[bytes]:
    names = ("config.yaml", *(f"workflow/experiments/{one}.yaml" for one in ("camvid", "voc")))
    return [(REPOSITORY / name).read_bytes() for name in names]


# --------------------------------------------------------------------------- archives


def read_archive(name: str) -> Callable[[Path], None]:
    def read(study: Path) -> None:
        out = study / "unpacked/out"
        shutil.rmtree(out.parent, ignore_errors=True)
        out.parent.mkdir()
        before = set(study.iterdir())
        try:
            unpack(study / name, "Set", out, ("train", "val"))
        finally:
            found = [*out.parent.rglob("*")]
            assert set(study.iterdir()) == before, "written outside"
            assert all(path.is_relative_to(out) for path in found), "written outside"
            assert not any(path.is_symlink() for path in found), "a link"
            assert sum(path.lstat().st_size for path in found) < 1 << 24, "too much"

    return read


FILES = {"Set/train/a.png": b"1" * 700, "Set/val/c.png": b"333", "Set/n.txt": b"n", "R.md": b"x"}


def zips(_: Path) -> list[bytes]:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in FILES.items():
            file.writestr(f"top-master/{name}", content)
    return [buffer.getvalue()]


def tars(mode: str) -> Callable[[Path], list[bytes]]:
    def make(_: Path) -> list[bytes]:
        found = []
        for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode=f"w:{mode}", format=kind) as file:
                for name, content in {**FILES, f"Set/train/{'ü' * 80}.png": b"long"}.items():
                    info = tarfile.TarInfo(f"top/{name}")
                    info.size = len(content)
                    file.addfile(info, io.BytesIO(content))
            found.append(buffer.getvalue())
        return found

    return make


def mats(_: Path) -> list[bytes]:
    from scipy.io import savemat

    found = []
    for compress in (False, True):
        buffer = io.BytesIO()
        mask = np.random.default_rng(0).integers(0, 21, (9, 12)).astype(np.uint8)
        savemat(buffer, {"GTcls": {"Segmentation": mask}}, do_compression=compress)
        found.append(buffer.getvalue())
    return found


# --------------------------------------------------------------------------- torch


def read_model(study: Path) -> None:
    from dst_cbc.models import segmentation

    model = segmentation.read_model(study / f"{ROUND}/model.pt")
    assert len(model.mean) == len(model.std) == 3 and model.classes


def model_files(study: Path) -> list[bytes]:
    """The study's model file, which has no digest, and the same model as it is written now."""
    from dst_cbc.models import segmentation

    path = study / f"{ROUND}/model.pt"
    model = segmentation.read_model(path)
    now = segmentation.model_bytes(model, model.network.state_dict(), model.record)
    return [path.read_bytes(), now]


def in_model(draw: random.Random, content: bytes) -> bytes:
    """Damage a field or a tensor of a model file; mostly, its digest fits again."""
    import torch

    from dst_cbc.models.model_file import digest

    said = torch.load(io.BytesIO(content), weights_only=True)
    state = dict(said.pop("state"))
    if draw.random() < 0.5:
        said = damage_value(draw, said)
    else:
        damage_tensor(draw, state)
    if isinstance(said, dict):
        said = {**said, "state": state}
        if "sha256" in said and draw.random() < 0.8:
            # What is no plain tensor has no digest.
            with contextlib.suppress(AttributeError, RuntimeError):
                said["sha256"] = digest(said)
    buffer = io.BytesIO()
    torch.save(said, buffer)
    return buffer.getvalue()


def damage_tensor(draw: random.Random, state: dict[str, Any]) -> None:
    """Replace, remove or rename one tensor."""
    import torch

    name = draw.choice(list(state))
    value = state[name]
    others = (
        value.half(), value.bfloat16(), value.double(), value.bool(), value.flatten(), value[None],
        value + 1, value * float("nan"), torch.zeros(0), torch.zeros(1).expand(1 << 20),
        torch.nn.Parameter(value.float()), value.to_sparse() if value.ndim else value, None, 1, "x",
    )  # fmt: skip
    kind = draw.randrange(5)
    if kind <= 2:
        state[name] = draw.choice(others)
    elif kind == 3:
        del state[name]
    else:
        state[draw.choice(("x", "", name.upper(), draw.choice(list(state))))] = state.pop(name)


@cache
def model_of(path: Path):
    from dst_cbc.models import segmentation

    return segmentation.read_model(path)


def read_weights(name: str) -> Callable[[Path], None]:
    def read(study: Path) -> None:
        from dst_cbc.models.weights import load_weights, read_weights

        network = model_of(study / "supervised.pt").network.backbone
        load_weights(network, "small", read_weights(str(study / name)))

    return read


def read_checkpoint(study: Path) -> None:
    from dst_cbc.models.weights import Weights, load_weights, read_state

    network, path = model_of(study / "supervised.pt").network.backbone, study / "checkpoint.pt"
    load_weights(network, "small", Weights(path, read_state(path, "model")))


def weight_file(name: str) -> Callable[[Path], list[bytes]]:
    def samples(study: Path) -> list[bytes]:
        import torch

        from dst_cbc.models.weights import Weights, write_weights

        shutil.copy(study / MODELS[0] / "model.pt", study / "supervised.pt")
        state = model_of(study / "supervised.pt").network.backbone.state_dict()
        path = study / name
        if name == "checkpoint.pt":
            torch.save({"model": state, "optimizer": {"state": {}}, "amp": None}, path)
        elif path.suffix == ".pt":
            torch.save(state, path)
        else:
            write_weights(path, Weights(path, state, (0.5,) * 3, (0.2,) * 3, "small"))
        return [path.read_bytes()]

    return samples


@cache
def objective_of(path: Path):
    import torch

    from dst_cbc.training import objectives
    from dst_cbc.training.samples import Data
    from trainings import make_stage

    row = Row("a", "a.png", "b.png", 32, 32, "train", "", "")
    data = Data(path.parent, folder_stage(), [row], [], None, [])
    objective = objectives.make(model_of(path), data, make_stage(), torch.device("cpu"))
    scalers = {
        name: torch.amp.GradScaler("cpu", enabled=False)
        for name, one in objective.modules.items()
        if one.optimizer
    }
    return objective.modules, scalers


def read_training(study: Path) -> None:
    from dst_cbc.training import checkpoint

    with contextlib.redirect_stdout(io.StringIO()):
        found = checkpoint.resume(study / "training.pt", *objective_of(study / "supervised.pt"))
    if found:
        assert isinstance(found.step, int) and found.step >= 0
        assert isinstance(found.history, list)


def training_file(study: Path) -> list[bytes]:
    from dst_cbc.training import checkpoint

    shutil.copy(study / MODELS[0] / "model.pt", study / "supervised.pt")
    row = {"step": 3, "loss": 0.5, "miou": 20.0}
    progress = checkpoint.Progress(3, {"score": 1.0}, None, [row])
    modules, scalers = objective_of(study / "supervised.pt")
    checkpoint.save(study / "training.pt", progress, modules, scalers)
    return [(study / "training.pt").read_bytes()]


# --------------------------------------------------------------------------- all readers

_PNG = (in_png, in_png, partial(damage_bytes, safe=33))
_RAW = (partial(damage_bytes, safe=60), partial(damage_bytes, safe=30))
_H5 = (in_hdf5, in_hdf5, partial(damage_bytes, safe=100))
_NPZ = (partial(in_zip, damage=in_npy), in_zip, partial(damage_bytes, safe=60))
_TEXT = (damage_text, partial(damage_text, header=0))

READERS = [
    Reader("experiment.yaml", read_experiment, (in_yaml, partial(damage_text, header=0)), is_yaml,
           experiments, share=0.5),
    Reader("methods.yaml", lambda s: load_methods(s / "methods.yaml"), (in_yaml, damage_text),
           is_yaml, lambda _: [(REPOSITORY / "workflow/methods.yaml").read_bytes()], share=0.3),
    Reader("dataset.csv", read_dataset, CSV, has_header("id", "image", "white")),
    Reader(f"splits/{DIVISION}.unlabeled.txt", read_lists, _TEXT, is_text),
    Reader("classes.txt", read_classes("classes.txt"), _TEXT, is_text, text_file(CLASS_LIST),
           share=0.3),
    Reader("labelmap.txt", read_classes("labelmap.txt"), _TEXT, is_text, text_file(LABELMAP),
           share=0.3),
    Reader("_classes.csv", read_classes("_classes.csv"), _TEXT, is_text, text_file(PIXEL_VALUES),
           share=0.3),
    Reader("summary.csv", of_summary, CSV, has_header("split", "miou", "edited"), share=0.3),
    Reader(f"{ROUND}/predictions.h5", read_h5, _H5, is_hdf5, share=2),
    Reader(f"{ROUND}/histogram.npz", read_npz, _NPZ, is_zip),
    Reader(f"{ROUND}/thresholds.csv", read_table("thresholds.csv"), CSV,
           has_header("class", "threshold")),
    Reader(f"{ROUND}/thresholds.edited.csv", read_table("thresholds.edited.csv"), CSV,
           has_header("class", "threshold"),
           lambda study: [(study / ROUND / "thresholds.csv").read_bytes()]),
    Reader(f"{ROUND}/pseudo_labels.csv", read_manifests, CSV, has_header("id", "kept"), share=0.5),
    Reader(f"{ROUND}/pseudo_labels.quality.csv", of_figures, CSV, has_header("class", "precision"),
           share=0.5),
    Reader(f"{DIVISION}/dst-cbc/agreement.csv", of_figures, CSV, has_header("id", "changed"),
           share=0.5),
    Reader(f"benchmarks/{ROUND}/predict.tsv", of_figures, CSV, is_text, share=0.3),
    Reader(f"{ROUND}/metrics.json", of_models, JSON, is_json, share=0.5),
    Reader(f"{ROUND}/run.json", of_models, JSON, is_json, share=0.3),
    Reader(f"{ROUND}/settings.json", of_models, JSON, is_json, share=0.5),
    Reader("shard/manifest.csv", read_shard, CSV, has_header("id", "kept"),
           shard_file("manifest.csv"), share=0.5),
    Reader("shard/quality.json", read_shard, JSON, is_json, shard_file("quality.json"), share=0.5),
    Reader("state/fingerprint", read_state, _TEXT, is_text, text_file("abc"), share=0.3),
    Reader("state/failure", read_failure, _TEXT, is_text, text_file("it failed"), share=0.3,
           refused=True),
    Reader("state.lock", read_state, JSON, is_json,
           text_file('{"host": "x", "pid": 1, "started": 1, "job": "x"}'), share=0.3,
           refused=True),
    Reader("fingerprints.json", read_cache, JSON, is_json, cache_file),
    Reader(RECORD, read_records, (in_record,), is_json, record_file, "records", share=0.5),
    Reader("cost.json", read_cost, JSON, is_json, cost_file, share=0.3),
    Reader("recommendation.json", lambda s: next_study.model_to_continue(demo_plan(), s), JSON,
           is_json, recommendation_file, share=0.3),
    Reader(f"{ROUND}/pseudo_labels/train-0002.png", read_png, _PNG, is_image),
    Reader("image.png", lambda s: read_image(s / "image.png"), _PNG, is_image, deep_pngs, share=2,
           group="images"),
    Reader("image.tif", lambda s: read_image(s / "image.tif"), _RAW[:1], is_image, tiffs, share=2,
           group="images"),
    Reader("bands.tif", lambda s: read_image(s / "bands.tif", (4, 3, 2)), _RAW[:1], is_tiff,
           band_tiffs, group="images"),
    Reader("stack.tif", lambda s: read_image(s / "stack.tif/0002"), _RAW[:1], is_tiff, stacks,
           group="images"),
    Reader("image.jpg", lambda s: read_image(s / "image.jpg"), _RAW, is_image,
           pictures(("RGB", {"format": "JPEG"}), ("L", {"format": "JPEG"}),
                    ("RGB", {"format": "JPEG", "progressive": True})),
           group="images"),
    Reader("image.bmp", lambda s: read_image(s / "image.bmp"), _RAW, is_image,
           pictures(*((mode, {"format": "BMP"}) for mode in ("RGB", "P", "1"))),
           group="images"),
    Reader("image.webp", lambda s: read_image(s / "image.webp"), _RAW, is_image,
           pictures(("RGB", {"format": "WEBP"}), ("RGBA", {"format": "WEBP", "lossless": True})),
           group="images"),
    Reader("mask.png", lambda s: read_mask(s / "mask.png"), _PNG, is_image, masks,
           group="images"),
    Reader("mask.tif", lambda s: read_mask(s / "mask.tif"), _RAW[:1], is_tiff, number_masks,
           share=0.5, group="images"),
    Reader("coco.json", read_annotations(coco.FORMAT, "coco.json"), JSON, is_json,
           annotation_file("datumaro_coco.json"), "annotations"),
    Reader("label_studio.json", read_annotations(label_studio.FORMAT, "label_studio.json"), JSON,
           is_json, annotation_file("label_studio.json"), "annotations"),
    Reader("labelme.json", read_annotations(labelme.FORMAT, "labelme.json"), JSON, is_json,
           annotation_file("labelme.json"), "annotations"),
    Reader("qupath.geojson", read_annotations(qupath.FORMAT, "qupath.geojson"), JSON, is_json,
           text_file(QUPATH), "annotations"),
    Reader("cvat.xml", read_annotations(cvat.FORMAT, "cvat.xml"),
           (damage_text, partial(damage_text, header=0)), is_text, annotation_file("cvat.xml"),
           "annotations"),
    Reader("rois.zip", read_annotations(imagej.FORMAT, "rois.zip"), (in_zip, damage_bytes), is_zip,
           annotation_file("field-RoiSet.zip"), "annotations"),
    Reader("labels.txt", read_annotations(yolo.FORMAT, "labels.txt"), _TEXT, is_text,
           text_file("0 0 0 0.5 0 0.5 0.75\n1 0.25 0.25 1 0.5 1 1\n"), "annotations", share=0.5),
    Reader("set.zip", read_archive("set.zip"), (in_zip, damage_bytes), is_zip, zips,
           group="archives"),
    Reader("set.tar", read_archive("set.tar"), (in_tar,), is_tar, tars(""),
           group="archives"),
    Reader("set.tgz", read_archive("set.tgz"),
           (partial(in_gzip, damage=in_tar), partial(damage_bytes, safe=10)), is_tar, tars("gz"),
           group="archives"),
    Reader("mask.mat", lambda s: sbd_mask(s / "mask.mat"), _RAW, lambda content: len(content) > 128,
           mats, share=0.5,
           group="archives"),
    Reader(f"{ROUND}/model.pt", read_model, (pt_damage, in_model, in_model), is_zip, model_files,
           group="torch"),
    Reader("weights.safetensors", read_weights("weights.safetensors"), (in_safetensors,),
           is_safetensors, weight_file("weights.safetensors"), group="torch"),
    Reader("weights.pt", read_weights("weights.pt"), (pt_damage,), is_zip,
           weight_file("weights.pt"), group="torch", share=0.5),
    Reader("checkpoint.pt", read_checkpoint, (pt_damage,), is_zip, weight_file("checkpoint.pt"),
           group="torch", share=0.5),
    Reader("training.pt", read_training, (pt_damage,), is_zip, training_file, group="torch",
           share=0.5),
]  # fmt: skip


def damaged(reader: Reader, samples: Sequence[bytes], seed: int) -> bytes:
    """The file with this seed: now and then two valid files spliced, else one damaged."""
    draw = random.Random(f"{reader.name} {seed}")
    sample = draw.choice(samples)
    if draw.random() < 0.03:
        return splice(draw, sample, draw.choice(samples))
    return draw.choice(reader.damage)(draw, sample)
