"""From images and a file of annotations to an experiment file, and what Snakemake makes of it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dst_cbc.data.layouts.annotations import images_of
from dst_cbc.own_images.annotated import class_names
from dst_cbc.planning import cost
from dst_cbc.planning.cost import Measured
from dst_cbc.planning.plan import load_plan
from dst_cbc.runtime.errors import DataError
from dst_cbc.settings.data import PairSettings
from dst_cbc.settings.yaml_files import ConfigError
from workflow import REPOSITORY, Project, new_experiment

SIDE = 32


def write_coco(path, boxes, labels):
    """Write COCO's JSON. boxes: {file of an image: [(label, left, top, right, bottom)]}."""
    images, annotations = [], []
    for number, (name, found) in enumerate(boxes.items(), 1):
        images.append({"id": number, "file_name": name, "width": SIDE, "height": SIDE})
        for label, left, top, right, bottom in found:
            corners = [left, top, right, top, right, bottom, left, bottom]
            one = {"image_id": number, "category_id": labels.index(label), "iscrowd": 0}
            annotations.append({"id": len(annotations), "segmentation": [corners], **one})
    categories = [{"id": number, "name": label} for number, label in enumerate(labels)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content))


@pytest.fixture
def folder(tmp_path):
    """A folder with ten images, of which eight are annotated: a cell each, a vessel in some."""
    (tmp_path / "photos").mkdir()
    random = np.random.default_rng(0)
    for number in range(10):
        pixels = random.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"photos/{number}.png")
    write_coco(tmp_path / "shapes.json", boxes_of(8), ["cell", "vessel", "spare"])
    return tmp_path


def boxes_of(count):
    cells = {f"{number}.png": [("cell", number, 0, number + 8, 16)] for number in range(count)}
    for number in range(0, count, 2):
        cells[f"{number}.png"].append(("vessel", 0, 20, 32, 28))
    return cells


@pytest.fixture
def write_file(folder, monkeypatch):
    """Function that runs new_experiment.py on the folder, with further options."""

    def run(*options):
        measured = Measured("cpu", step=0.001, image=0.001, memory=1, model=1)
        monkeypatch.setattr(cost, "measure", lambda *_: measured)
        folders = ("--images", folder / "photos", "--labels", folder / "shapes.json")
        new_experiment(monkeypatch, folder / "work", *folders, "--name", "cells", *options)

    return run


def test_annotations_become_an_experiment_of_their_classes(write_file, folder, capsys):
    write_file()
    told = capsys.readouterr().out
    assert "of 11 files below photos and shapes.json: 10 images and 1 annotation file, all" in told
    assert "found: COCO: 12 shapes of 2 labels in 8 images" in told
    assert "labels without a shape are left out: spare" in told
    assert "found: 10 images, 8 of them with a mask, 2 without" in told
    experiment, records, plan = load_plan(REPOSITORY, [Path("cells.yaml")], {})
    assert experiment.format == "annotations" and experiment.data == str(folder)
    assert list(plan.dataset.classes) == ["background", "cell", "vessel"]
    assert experiment.annotations and experiment.annotations.names == {
        "cell": "cell", "vessel": "vessel",
    }  # fmt: skip
    assert sum(bool(record.label) for record in records) == 8
    mask = np.array(Image.open("results/cells/masks/2.png"))
    assert mask[0, [1, 2, 9, 10]].tolist() == [0, 1, 1, 0] and (mask[20:28] == 2).all()
    # The background's share is what the shapes leave: 1 - (8 x 128 + 4 x 256) / (8 x 1024).
    assert "background: '#000000'   # 75.00% of the mask pixels" in Path("cells.yaml").read_text()


def test_unannotated_pixels_may_have_no_class(write_file):
    write_file("--unannotated", "ignore")
    experiment, _, plan = load_plan(REPOSITORY, [Path("cells.yaml")], {})
    assert experiment.annotations and experiment.annotations.unannotated == "ignore"
    assert list(plan.dataset.classes) == ["cell", "vessel"]
    assert np.unique(np.array(Image.open("results/cells/masks/1.png"))).tolist() == [0, 255]


@pytest.mark.parametrize(
    ("labels", "options", "said"),
    [
        (["cell", "cell"], ("--unannotated", "ignore"), "of the class cell; expected a second"),
        (["Background", "ignore"], (), "of the class background; expected a second class$"),
        (
            ["ignore", "Ignored"],
            ("--unannotated", "ignore"),
            "of the class ignore; .*--unannotated",
        ),
    ],
)
def test_a_single_class_is_refused(write_file, folder, labels, options, said):
    content = json.loads((folder / "shapes.json").read_text())
    content["categories"] = [{"id": n, "name": name} for n, name in enumerate(labels)]
    (folder / "shapes.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=said):
        write_file(*options)


@pytest.mark.parametrize("name", ["/abs", "../a", "a/b", ".", "\u00e4 b", ""])
def test_a_name_that_no_study_can_have_is_refused_before_masks_are_drawn(
    folder, monkeypatch, capsys, name
):
    name = f"{folder}{name}" if name.startswith("/") else name
    folders = ("--images", folder / "photos", "--labels", folder / "shapes.json")
    with pytest.raises(SystemExit):
        new_experiment(monkeypatch, folder / "work", *folders, "--name", name)
    assert "error: --name: found " in capsys.readouterr().err
    assert not [path for path in folder.rglob("*") if path.suffix in (".csv", ".yaml")]


def test_looking_leaves_nothing_and_a_second_call_goes_on(write_file, folder, monkeypatch):
    write_file("--look")
    assert not [path for path in Path().rglob("*") if path.is_file()]

    def fail(*_):
        raise DataError("measuring fails")

    monkeypatch.setattr(cost, "remember", fail)
    with pytest.raises(DataError, match="measuring fails"):
        write_file()
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    write_file()
    with pytest.raises(DataError, match=r"cells\.yaml: exists already"):
        write_file()


@pytest.mark.parametrize(
    "options", [("--classes", "list.txt"), ("--mask-name", "{}_m"), ("--image-name", "{}_i")]
)
def test_options_for_masks_are_refused(write_file, options):
    with pytest.raises(DataError, match=f"{options[0]}: is for folders of masks"):
        write_file(*options)


def test_annotations_of_identical_images_that_contradict_are_said_of_the_images(write_file, folder):
    (folder / "photos/1.png").write_bytes((folder / "photos/0.png").read_bytes())
    with pytest.raises(DataError) as caught:
        write_file("--look")
    said = "annotations contradict each other: the images are identical, such as "
    assert str(caught.value).startswith(f"{said}photos/0.png and photos/1.png; ")


@pytest.mark.parametrize("options", [("--unannotated", "ignore"), ("--partial",)])
def test_options_for_annotations_are_refused_with_masks(folder, monkeypatch, options):
    (folder / "masks").mkdir()
    Image.new("L", (SIDE, SIDE)).save(folder / "masks/0.png")
    folders = ("--images", folder / "photos", "--labels", folder / "masks", "--look")
    with pytest.raises(DataError, match=f"{options[0]}: is for annotations"):
        new_experiment(monkeypatch, folder / "work", *folders, *options)


def test_images_that_are_not_there_are_left_out_if_asked(write_file, folder):
    write_coco(folder / "shapes.json", boxes_of(12), ["cell", "vessel"])
    with pytest.raises(DataError, match="2 of 12 images with shapes are not below"):
        write_file()
    assert not [path for path in Path().rglob("*") if path.is_file()]
    write_file("--partial")
    assert load_plan(REPOSITORY, [Path("cells.yaml")], {})[0].annotations.partial


def test_pictures_among_the_annotations_are_no_images(folder):
    inside = folder / "photos/annotations"
    inside.mkdir()
    (folder / "shapes.json").rename(inside / "shapes.json")
    Image.new("RGB", (9, 9)).save(inside / "preview.png")
    pairs = PairSettings(images="photos", labels="photos/annotations")
    assert len(images_of(folder, pairs)) == 10
    assert len(images_of(folder, PairSettings(images="photos", labels="photos"))) == 11


@pytest.mark.parametrize(
    ("segmentation", "said"),
    [
        ([[float("nan")] * 6], r"annotation 1 .* and 9 more: the point \(nan, nan\)"),
        ([], "annotation 1 .* and 9 more: a box without `segmentation`"),
        ([[1, 1, 2, 2]], r"no image has a shape .*polygons with fewer than three points \(12\)"),
    ],
)
def test_what_is_wrong_with_every_shape_is_said_before_the_classes_are_counted(
    write_file, folder, segmentation, said
):
    content = json.loads((folder / "shapes.json").read_text())
    for annotation in content["annotations"]:
        annotation["segmentation"] = segmentation
    (folder / "shapes.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=said):
        write_file()
    assert not [path for path in Path().rglob("*") if path.is_file()]


def test_annotation_files_beside_those_that_are_used_are_accounted_for(folder, monkeypatch, capsys):
    (folder / "all").mkdir()
    (folder / "shapes.json").rename(folder / "all/shapes.json")
    (folder / "all/damaged.json").write_text("{")
    (folder / "photos/other.json").write_text("{}")
    folders = ("--images", folder / "photos", "--labels", folder / "all", "--look")
    new_experiment(monkeypatch, folder / "work", *folders)
    told = capsys.readouterr().out
    assert "of 13 files below photos and all: 10 images and 1 annotation file are used" in told
    assert "WARNING: not used: 1 file, in text form, but not among the annotations" in told
    assert "\nnot used: 1 file, in text form, and outside of the annotations that are given" in told


def test_the_folder_of_an_export_holds_the_images_too(folder, monkeypatch, capsys):
    folders = ("--images", folder / "photos", "--labels", folder, "--look")
    new_experiment(monkeypatch, folder / "work", *folders)
    assert "found: COCO: 12 shapes of 2 labels in 8 images" in capsys.readouterr().out


def test_a_folder_of_other_files_is_neither_of_masks_nor_of_annotations(folder, monkeypatch):
    (folder / "all").mkdir()
    (folder / "shapes.json").rename(folder / "all/shapes.json")
    (folder / "all/shapes.json").write_bytes(b"")
    folders = ("--images", folder / "photos", "--labels", folder / "all", "--look")
    message = r"no file ends in .*found 1 of \.json\. None of them holds annotations of COCO, CVAT"
    with pytest.raises(DataError, match=message):
        new_experiment(monkeypatch, folder / "work", *folders)


def test_the_names_of_yolos_classes_are_used(folder, monkeypatch, capsys):
    (folder / "all").mkdir()
    for number in range(8):
        line = f"{number % 2} 0.1 0.1 0.5 0.1 0.5 0.5"
        (folder / f"all/{number}.txt").write_text(line)
    (folder / "all/classes.txt").write_text("cell\nvessel\n")
    folders = ("--images", folder / "photos", "--labels", folder / "all", "--look")
    new_experiment(monkeypatch, folder / "work", *folders)
    assert "10 images and 9 annotation files, all are used" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (
            "vessel: vessel",
            "vessel: nerve",
            "annotations.names: 'vessel' is mapped to 'nerve', whi",
        ),
        ("  background: '#000000'", "  other: '#000000'", "annotations.unannotated: found backgr"),
    ],
)
def test_a_class_that_is_not_there_is_said_of_its_key(write_file, before, after, said):
    write_file()
    text = Path("cells.yaml").read_text()
    assert before in text
    Path("cells.yaml").write_text(text.replace(before, after))
    with pytest.raises(ConfigError) as caught:
        load_plan(REPOSITORY, [Path("cells.yaml")], {})
    assert str(caught.value).startswith(said)


def test_labels_get_valid_names_of_their_own():
    labels = ["cell", "Cell/a", "Cell\\a", "_background_", "Background", "ignore", "über", "?"]
    names = class_names(labels)
    assert names == {
        "cell": "cell",
        "Cell/a": "Cell-a",
        "Cell\\a": "Cell-a 2",
        "_background_": "background",
        "Background": "background",
        "ignore": "ignore",
        "über": "uber",
        "?": "class",
    }


def test_an_edited_shape_is_checked_and_trained_on_again(folder, tmp_path_factory):
    project = Project.create(
        tmp_path_factory.mktemp("project"),
        data=str(folder),
        format="annotations",
        digits={},
        pairs={"images": "photos", "labels": "shapes.json", "val": ["0"], "test": ["1"]},
        annotations={"names": {"cell": "cell", "vessel": "vessel"}},
        classes={"background": "#000000", "cell": "#e69f00", "vessel": "#56b4e9"},
        splits={"6": {"all": True}},
    )
    index = "results/tiny/dataset.csv"
    assert "masks are drawn into results/tiny/masks" in project.snakemake(index)
    assert project.jobs(index) == {}
    rows = (project.study / "dataset.csv").read_text().splitlines()
    assert [row.split(",")[2] for row in rows[1:]] == [*(f"{n}.png" for n in range(8)), "", ""]
    boxes = boxes_of(8)
    boxes["5.png"][0] = ("vessel", 5, 0, 13, 16)
    write_coco(folder / "shapes.json", boxes, ["cell", "vessel"])
    assert set(project.jobs(index)) == {"check_data"}
    project.snakemake(index)
    changed = (project.study / "dataset.csv").read_text().splitlines()
    assert [a.split(",")[0] for a, b in zip(rows, changed, strict=True) if a != b] == ["5"]
