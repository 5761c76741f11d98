"""VOC with SBD's masks, built from tiny copies of the two releases in their own formats."""

import os
import runpy
import shutil
import sys

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from dst_cbc.data import trainaug
from dst_cbc.data.index import check
from dst_cbc.data.layouts.voc import CLASSES as VOC_CLASSES
from dst_cbc.data.masks import label_table, open_label, palette
from dst_cbc.data.records import dataset_stage, list_records
from dst_cbc.data.trainaug import build, sbd_mask
from dst_cbc.runtime.errors import DataError
from workflow import REPOSITORY, Project

SCRIPT = REPOSITORY / "scripts/build_trainaug.py"
A, B, C, D, E, F = (f"2008_00000{n}" for n in range(1, 7))
MASKS = dict(zip((A, B, C, D, E, F), np.arange(6 * 12).reshape(6, 3, 4) % 21, strict=True))
OTHER = np.full((3, 4), 20)


def write_mat(path, mask):
    boundaries = np.zeros((20, 1), object)
    content = {"Boundaries": boundaries, "Segmentation": np.uint8(mask), "CategoriesPresent": 1}
    savemat(path, {"GTcls": content}, do_compression=True)


@pytest.fixture
def releases(tmp_path):
    """VOC: train A, B; val C, D. SBD: train A, C, E; val D, F; its masks of A, C, D differ."""
    voc, sbd = tmp_path / "voc", tmp_path / "sbd"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (voc / folder).mkdir(parents=True)
    (sbd / "cls").mkdir(parents=True)
    for listing, ids in {
        voc / "ImageSets/Segmentation/train.txt": (A, B),
        voc / "ImageSets/Segmentation/val.txt": (C, D),
        sbd / "train.txt": (A, C, E),
        sbd / "val.txt": (D, F),
    }.items():
        listing.write_text("".join(f"{id}\n" for id in ids))
    for id in MASKS:
        Image.new("RGB", (4, 3), f"#0000{id[-1]}f").save(voc / f"JPEGImages/{id}.jpg")
    for id in (A, B, C, D):
        border = MASKS[id].copy()
        border[0, 0] = 255
        mask = Image.fromarray(np.uint8(border))
        mask.putpalette([224, 224, 192] * 256)
        mask.save(voc / f"SegmentationClass/{id}.png")
    for id in (A, C, D, E, F):
        write_mat(sbd / f"cls/{id}.mat", OTHER if id in (A, C, D) else MASKS[id])
    return voc, sbd


def contents(*folders):
    return {p: p.read_bytes() for folder in folders for p in folder.rglob("*") if p.is_file()}


def test_the_training_images_are_both_releases_without_vocs_val(releases, tmp_path):
    before = contents(*releases)
    assert build(*releases, tmp_path / "new/voc") == (4, 2)
    lists = tmp_path / "new/voc/ImageSets/Segmentation"
    assert (lists / "trainaug.txt").read_text().split() == [A, B, E, F]
    assert (lists / "val.txt").read_text().split() == [C, D]
    assert contents(*releases) == before
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["voc"]


def test_vocs_own_mask_wins_and_keeps_its_border_sbds_has_none(releases, tmp_path):
    build(*releases, tmp_path / "out")
    masks = tmp_path / "out/SegmentationClassAug"
    assert {p.stem for p in masks.iterdir()} == set(MASKS)
    for id, expected in MASKS.items():
        with Image.open(masks / f"{id}.png") as mask:
            assert mask.mode == "P" and mask.getpalette()[:768] == palette([*VOC_CLASSES.values()])
            found = np.asarray(mask).copy()
        if id in (A, B, C, D):
            assert found[0, 0] == 255
            found[0, 0] = expected[0, 0]
        assert (found == expected).all()


def test_the_folder_is_a_data_set_in_the_layout_voc(releases, tmp_path, make_experiment, capsys):
    out = tmp_path / "results/downloads/voc"
    build(*releases, out)
    assert (out / "JPEGImages").is_symlink()
    # The link is relative, so that the folder that contains both can be moved.
    assert os.readlink(out / "JPEGImages") == "../../../voc/JPEGImages"
    dataset = dataset_stage(make_experiment(format="voc", classes=None))
    rows = check(out, list_records(out, dataset), dataset)
    assert [(row.id, row.subset) for row in rows] == [
        (A, "train"), (B, "train"), (C, "val"), (D, "val"), (E, "train"), (F, "train"),
    ]  # fmt: skip
    assert all(row.label == f"SegmentationClassAug/{row.id}.png" for row in rows)
    assert capsys.readouterr().out == ""


def test_vocs_masks_may_be_of_its_colours(releases, tmp_path, make_experiment):
    voc, sbd = releases
    colours = np.array([[(128, 0, 0), (224, 224, 192), (128, 128, 128), (0, 0, 0)]] * 3, np.uint8)
    Image.fromarray(colours).save(voc / f"SegmentationClass/{B}.png")
    build(voc, sbd, tmp_path / "out")
    dataset = dataset_stage(make_experiment(format="voc", classes=None))
    mask = open_label(tmp_path / f"out/SegmentationClassAug/{B}.png", label_table(dataset))
    assert np.asarray(mask).tolist() == [[1, 255, 7, 0]] * 3


def test_two_processes_make_the_same_bytes(releases, tmp_path):
    for processes in (1, 2):
        build(*releases, tmp_path / f"out{processes}", processes)
    one, two = (
        {p.relative_to(out): content for p, content in contents(out).items()}
        for out in (tmp_path / "out1", tmp_path / "out2")
    )
    assert one == two


def test_snakemake_makes_it_of_what_was_downloaded(releases, tmp_path):
    project = Project.create(tmp_path / "project")
    downloads = project.root / "results/downloads"
    for release, name in zip(releases, ("voc2012", "sbd"), strict=True):
        shutil.copytree(release, downloads / name)
    project.snakemake("download_voc")
    assert os.readlink(downloads / "voc/JPEGImages") == "../voc2012/JPEGImages"
    assert (downloads / f"voc/JPEGImages/{A}.jpg").is_file()
    assert "4 training and 2 validation images" in (downloads / "voc.log").read_text()


@pytest.mark.parametrize(
    "missing", ["voc/JPEGImages", "voc/ImageSets/Segmentation/train.txt", "sbd/cls", "sbd/val.txt"]
)
def test_what_a_release_lacks_is_named_with_its_archive(missing, releases, tmp_path):
    (tmp_path / missing).rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=rf"{missing}: not found; .*May-2012\.tar.*benchmark\.tgz"):
        build(*releases, tmp_path / "out")


def test_all_bad_masks_are_named_at_once_and_nothing_is_left(releases, tmp_path):
    voc, sbd = releases
    content = (sbd / f"cls/{E}.mat").read_bytes()
    (sbd / f"cls/{E}.mat").write_bytes(content[: len(content) // 2])
    (sbd / f"cls/{F}.mat").unlink()
    Image.new("L", (4, 3), 21).save(voc / f"SegmentationClass/{A}.png")
    before = set(tmp_path.rglob("*"))
    with pytest.raises(DataError) as error:
        build(voc, sbd, tmp_path / "out")
    text = str(error.value)
    assert text.startswith("3 masks cannot be used")
    assert f"{E}.mat: not readable as SBD's mask, GTcls.Segmentation" in text
    assert f"{F}.mat: no such file; it is part of SBD's benchmark.tgz" in text
    assert f"{A}.png: mask values [21] are neither" in text
    assert set(tmp_path.rglob("*")) == before


def test_a_reader_that_dies_on_damaged_bytes_is_told_in_words(releases, tmp_path, monkeypatch):
    read = trainaug.sbd_mask
    dies = lambda path: os._exit(1) if path.stem == E else read(path)  # noqa: E731
    monkeypatch.setattr(trainaug, "sbd_mask", dies)
    with pytest.raises(DataError, match=rf"1 masks .*\n.*{E}\.mat: the process .*the archives"):
        build(*releases, tmp_path / "out")


@pytest.mark.parametrize(
    "content",
    [
        {"GTcls": {"Segmentation": np.full((3, 4), 21, np.uint8)}},
        {"GTcls": {"Segmentation": np.zeros((3, 4, 3), np.uint8)}},
        {"GTcls": {"Segmentation": np.zeros((3, 4))}},
        {"GTcls": {"Segmentation": "text"}},
        {"GTcls": {"Boundaries": 1}},
        {"GTcls": 1},
        {"GTinst": {"Segmentation": np.zeros((3, 4), np.uint8)}},
    ],
)
def test_a_mat_file_of_anything_else_is_refused_by_name(content, tmp_path):
    savemat(tmp_path / "m.mat", content)
    with pytest.raises(DataError, match=r"m\.mat: .*GTcls\.Segmentation"):
        sbd_mask(tmp_path / "m.mat")


def test_ids_that_are_none_are_refused_before_they_become_paths(releases, tmp_path):
    voc, sbd = releases
    (sbd / "train.txt").write_text("../../up\n")
    with pytest.raises(DataError, match=r"train\.txt: found '\.\./\.\./up', expected ids such as"):
        build(voc, sbd, tmp_path / "out")


@pytest.mark.parametrize("place", ["voc/new", "sbd", "link/new"])
def test_nothing_is_written_into_the_releases(place, releases, tmp_path):
    (tmp_path / "link").symlink_to(releases[0])
    with pytest.raises(DataError, match=r"lies in .*, which is only read; choose another folder"):
        build(*releases, tmp_path / place)


def test_the_command_makes_the_folder_once(releases, tmp_path, monkeypatch, capsys):
    voc, sbd = releases
    arguments = ["--voc", voc, "--sbd", sbd, "--out", tmp_path / "out", "--processes", "1"]
    monkeypatch.setattr(sys, "argv", ["build_trainaug.py", *map(str, arguments)])
    runpy.run_path(str(SCRIPT))["run"]()
    said = "4 training and 2 validation images; the paper has 10582 and 1449\n"
    assert capsys.readouterr().out == said
    with pytest.raises(SystemExit):
        runpy.run_path(str(SCRIPT))["run"]()
    assert "out exists; delete it to make it again" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "out")
    assert (voc / "JPEGImages" / f"{A}.jpg").is_file()
