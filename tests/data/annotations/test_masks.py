"""Masks drawn from a file of annotations: when, from what, and what is refused."""

import json
import os

import numpy as np
import pytest
import tifffile
from PIL import Image

from dst_cbc.data.annotations.masks import draw_masks
from dst_cbc.data.layouts.annotations import drawn_masks
from dst_cbc.data.records import list_records
from dst_cbc.runtime.errors import DataError
from dst_cbc.settings.data import AnnotationSettings, DatasetStage, PairSettings

CLASSES = {"background": "#000000", "cell": "#e69f00", "vessel": "#56b4e9"}
SQUARE = [1, 1, 5, 1, 5, 3, 1, 3]


def coco(shapes):
    """COCO's JSON of the shapes of each image: {name: [(label, polygon)]}."""
    labels = sorted({label for found in shapes.values() for label, _ in found} | {"cell"})
    images = [
        {"id": number, "file_name": name, "width": 8, "height": 6}
        for number, name in enumerate(shapes, 1)
    ]
    annotations = [
        {"image_id": number, "category_id": labels.index(label), "segmentation": [polygon]}
        for number, found in enumerate(shapes.values(), 1)
        for label, polygon in found
    ]
    numbered = [{"id": number} | one for number, one in enumerate(annotations, 1)]
    categories = [{"id": number, "name": label} for number, label in enumerate(labels)]
    return json.dumps({"images": images, "annotations": numbered, "categories": categories})


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Function that writes a file of annotations and draws its masks; three images lie there."""
    monkeypatch.chdir(tmp_path)
    os.mkdir("photos")
    for place, name in enumerate(("a", "b", "c")):
        Image.new("RGB", (8, 6), (place, 0, 0)).save(f"photos/{name}.png")

    def draw(shapes=None, **settings):
        if shapes is not None:
            (tmp_path / "shapes.json").write_text(coco(shapes))
        names = {"cell": "cell", "vessel": "vessel"}
        dataset = DatasetStage(
            format="annotations",
            classes=CLASSES,
            labels=dict(enumerate(CLASSES)),
            ignore=(255,),
            test_from_val=0,
            digits=None,
            pairs=PairSettings(images="photos", labels="shapes.json"),
            annotations=AnnotationSettings(**{"names": names} | settings),
            drawn="results/study/masks",
        )
        draw_masks(tmp_path, dataset)
        return dataset

    return draw


def masks_in(tmp_path):
    folder = tmp_path / "results/study/masks"
    return {id: np.array(Image.open(folder / mask)) for id, mask in drawn_masks(folder).items()}


def test_each_image_with_shapes_has_a_mask_and_the_others_are_unlabeled(study, tmp_path, capsys):
    dataset = study({"a.png": [("cell", SQUARE)], "b.png": []})
    expected = np.zeros((6, 8), np.uint8)
    expected[1:3, 1:5] = 1
    (mask,) = masks_in(tmp_path).values()
    assert (mask == expected).all()
    labels = {record.id: record.label for record in list_records(tmp_path, dataset)}
    assert labels == {"a": "a.png", "b": "", "c": ""}
    assert dataset.mask_root(tmp_path).as_posix() == "results/study/masks"
    told = capsys.readouterr().err
    assert "shapes.json: masks are drawn into results/study/masks" in told
    assert "1 images are listed without a shape, and count as unlabeled" in told


def test_what_is_not_annotated_is_as_asked(study, tmp_path):
    study({"a.png": [("cell", SQUARE)], "b.png": []}, unannotated="ignore", empty="labeled")
    masks = masks_in(tmp_path)
    assert np.unique(masks["a"]).tolist() == [1, 255]
    assert np.unique(masks["b"]).tolist() == [255]


def test_each_page_of_a_stack_is_an_image(study, tmp_path):
    tifffile.imwrite("photos/deep.tif", np.zeros((3, 6, 8), np.uint8), photometric="minisblack")
    dataset = study({"deep/0002": [("cell", SQUARE)], "deep.tif/0003": [("vessel", SQUARE)]})
    assert {id: mask.max() for id, mask in masks_in(tmp_path).items()} == {
        "deep/0002": 1, "deep/0003": 2,
    }  # fmt: skip
    records = {record.id: record.image for record in list_records(tmp_path, dataset)}
    assert records["deep/0001"] == "photos/deep.tif/0001" and len(records) == 6


def test_labels_become_the_classes_that_names_give(study, tmp_path):
    names = {"cell": "ignore", "vessel": "cell"}
    beside = [0, 4, 8, 4, 8, 6, 0, 6]
    study({"a.png": [("cell", SQUARE), ("vessel", beside)]}, names=names)
    assert masks_in(tmp_path)["a"][[2, 5], [2, 5]].tolist() == [255, 1]


def test_masks_are_drawn_again_only_if_something_changes(study, tmp_path, capsys):
    one, other = {"a.png": [("cell", SQUARE)]}, {"b.png": [("vessel", SQUARE)]}
    study(one | other)
    capsys.readouterr()
    mask = tmp_path / "results/study/masks/a.png"
    made = mask.stat().st_mtime_ns
    study()
    assert capsys.readouterr().err == "" and mask.stat().st_mtime_ns == made
    # Another image changes: this mask keeps its time, so nothing that uses it runs again.
    study(one | {"b.png": [("cell", SQUARE)]})
    assert "masks are drawn" in capsys.readouterr().err and mask.stat().st_mtime_ns == made
    assert masks_in(tmp_path)["b"].max() == 1
    mask.unlink()
    study()
    assert mask.is_file()
    Image.new("L", (8, 6), 2).save(mask)
    study()
    assert masks_in(tmp_path)["a"].max() == 1
    study(other)
    assert not mask.exists() and list(masks_in(tmp_path)) == ["b"]


def test_with_a_damaged_list_or_stamp_all_is_drawn_again(study, tmp_path):
    for name in ("masks.csv", ".drawn_from"):
        study({"a.png": [("cell", SQUARE)]})
        (tmp_path / "results/study/masks" / name).write_bytes(b"\xff\x00")
        (tmp_path / "results/study/masks/a.png").write_bytes(b"")
        study()
        assert masks_in(tmp_path)["a"].max() == 1


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"a.png": [("nerve", SQUARE)]}, "the label 'nerve' is not under `annotations.names`"),
        ({"gone.png": [("cell", SQUARE)]}, "1 of 1 images with shapes are not below"),
        ({"../../a/gone.png": [("cell", SQUARE)]}, "are not below"),
        ({"a.png": []}, "no image has a shape"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(study, tmp_path, shapes, message):
    with pytest.raises(DataError, match=message):
        study(shapes)
    assert not (tmp_path / "results").exists()


def test_all_that_is_wrong_is_said_at_once(study, tmp_path):
    Image.new("RGB", (6, 8)).save(tmp_path / "photos/b.png")
    (tmp_path / "photos/c.png").write_bytes(b"no image")
    with pytest.raises(DataError) as caught:
        study({f"{name}.png": [("nerve", SQUARE)] for name in ("a", "b", "c", "gone")})
    message = str(caught.value)
    assert message.startswith("4 problems in the annotations:\n")
    for part in (
        "'nerve'",
        "gone.png",
        "has a size of (8, 6) there",
        "photos/c.png: cannot be decoded",
    ):
        assert part in message
