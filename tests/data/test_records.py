import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dst_cbc.data.layouts import LAYOUTS
from dst_cbc.data.layouts.camvid import CLASSES as CAMVID_CLASSES
from dst_cbc.data.layouts.layout import Record
from dst_cbc.data.records import dataset_stage, evenly, list_records
from dst_cbc.runtime.errors import DataError
from dst_cbc.runtime.files import sha256, write_text
from dst_cbc.runtime.reading import read_ids

PICTURE = np.zeros((2, 2, 3))
MASK = np.zeros((2, 2))


@pytest.fixture
def pictures(tmp_path, write_image):
    """A data set in the layout `folder`."""
    for name in ("images/train/town/a.png", "images/train/b.JPG", "images/val/c.png"):
        write_image(tmp_path / name, PICTURE)
    write_image(tmp_path / "images/test/d.webp", PICTURE)
    write_image(tmp_path / "labels/train/town/a.png", MASK)
    write_image(tmp_path / "labels/val/c.png", MASK)
    (tmp_path / "images/train/notes.txt").write_text("no image")
    return tmp_path


@pytest.fixture
def camvid(tmp_path, make_experiment):
    """Folder and settings of a data set in SegNet's layout."""
    for subset, ids in {"train": ["0001TP_a", "0001TP_b"], "val": ["v"], "test": ["t"]}.items():
        lines = (f"/SegNet/CamVid/{subset}/{id}.png /x/{subset}annot/{id}.png\n" for id in ids)
        (tmp_path / f"{subset}.txt").write_text("".join(lines))
    return tmp_path, dataset_stage(make_experiment(format="camvid", classes=None))


def test_a_folder_yields_every_image_sorted_by_id(pictures, folder_dataset):
    assert list_records(pictures, folder_dataset) == [
        Record("b", "images/train/b.JPG", "", "train"),
        Record("c", "images/val/c.png", "labels/val/c.png", "val"),
        Record("d", "images/test/d.webp", "", "test"),
        Record("town/a", "images/train/town/a.png", "labels/train/town/a.png", "train"),
    ]


def test_listing_decodes_nothing(pictures, folder_dataset):
    before = list_records(pictures, folder_dataset)
    (pictures / "images/train/b.JPG").write_bytes(b"damaged")
    assert list_records(pictures, folder_dataset) == before


def test_an_id_that_occurs_twice_is_refused_with_its_count(pictures, folder_dataset, write_image):
    write_image(pictures / "images/val/b.png", PICTURE)
    write_image(pictures / "images/test/b.bmp", PICTURE)
    write_image(pictures / "images/train/c.png", PICTURE)
    with pytest.raises(DataError) as error:
        list_records(pictures, folder_dataset)
    assert "'b' occurs 3 times" in str(error.value) and "'c' occurs 2 times" in str(error.value)


def test_a_missing_or_empty_folder_is_refused(tmp_path, folder_dataset):
    with pytest.raises(DataError, match=r"nowhere: no such folder"):
        list_records(tmp_path / "nowhere", folder_dataset)
    with pytest.raises(DataError, match="no images found in the layout `folder`"):
        list_records(tmp_path, folder_dataset)


def test_every_third_validation_image_is_held_back(tmp_path, folder_dataset, write_image):
    for i in range(7):
        write_image(tmp_path / f"images/val/v{i}.png", PICTURE)
    write_image(tmp_path / "images/train/a.png", PICTURE)
    held_back = folder_dataset.model_copy(update={"test_from_val": 3})
    subsets = {record.id: record.subset for record in list_records(tmp_path, held_back)}
    assert [id for id, subset in subsets.items() if subset == "test"] == ["v2", "v5"]
    assert [id for id, subset in subsets.items() if subset == "val"] == [
        "v0", "v1", "v3", "v4", "v6",
    ]  # fmt: skip
    assert subsets["a"] == "train"


def test_camvid_lists_name_files_by_their_last_two_parts(camvid):
    root, dataset = camvid
    records = list_records(root, dataset)
    assert records[0] == Record(
        "0001TP_a", "train/0001TP_a.png", "trainannot/0001TP_a.png", "train"
    )
    assert [(r.id, r.subset) for r in records] == [
        ("0001TP_a", "train"), ("0001TP_b", "train"), ("t", "test"), ("v", "val"),
    ]  # fmt: skip


def test_camvid_knows_its_eleven_classes_and_that_11_is_ignored(camvid):
    _, dataset = camvid
    assert list(dataset.classes) == list(CAMVID_CLASSES) and len(dataset.classes) == 11
    assert dataset.ignore == (11,)
    assert dataset.labels == dict(enumerate(CAMVID_CLASSES))


def test_a_malformed_camvid_line_is_named(camvid):
    root, dataset = camvid
    with open(root / "val.txt", "a") as file:
        file.write("\nonly-one.png\n")
    with pytest.raises(DataError, match=r"val\.txt, line 3: found 'only-one\.png'"):
        list_records(root, dataset)


def test_camvid_needs_its_training_list_and_no_other(camvid):
    root, dataset = camvid
    (root / "test.txt").unlink()
    assert {record.subset for record in list_records(root, dataset)} == {"train", "val"}
    (root / "train.txt").unlink()
    with pytest.raises(DataError, match=r"train\.txt: no such file"):
        list_records(root, dataset)


@pytest.mark.parametrize(
    "line", ["../../etc/.. x/y.png", "x/.. a/b.png", "../e.png a/b.png", "a/b.png /e.png"]
)
def test_a_list_cannot_name_an_id_outside_its_folder(line, camvid):
    root, dataset = camvid
    (root / "train.txt").write_text(line + "\n")
    with pytest.raises(DataError, match="cannot be an id"):
        list_records(root, dataset)


@pytest.mark.parametrize("mark", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028", " ", ";", "'", "ä"])
def test_an_id_is_refused_or_survives_a_list_of_ids(mark, tmp_path, folder_dataset, write_image):
    name = f"a{mark}b"
    write_image(tmp_path / f"images/train/{name}.png", PICTURE)
    try:
        (record,) = list_records(tmp_path, folder_dataset)
    except DataError:
        return
    write_text(tmp_path / "ids.txt", f"{record.id}\nlast\n")
    assert read_ids(tmp_path / "ids.txt") == [name, "last"]


@pytest.fixture
def voc(tmp_path, make_experiment):
    """Folder and settings of VOC, with SegmentationClassAug."""
    lists = tmp_path / "ImageSets/Segmentation"
    for folder in (lists, tmp_path / "JPEGImages", tmp_path / "SegmentationClassAug"):
        folder.mkdir(parents=True)
    (lists / "val.txt").write_text("2007_000033\n2007_000042\n")
    for id in ("2008_000001", "2007_000032", "2007_000033"):
        (tmp_path / f"SegmentationClassAug/{id}.png").touch()
    return tmp_path, dataset_stage(make_experiment(format="voc", classes=None))


def test_voc_trains_on_every_augmented_mask_that_is_not_in_val(voc):
    assert list_records(*voc) == [
        Record(id, f"JPEGImages/{id}.jpg", f"{masks}/{id}.png", subset)
        for id, masks, subset in (
            ("2007_000032", "SegmentationClassAug", "train"),
            ("2007_000033", "SegmentationClassAug", "val"),
            ("2007_000042", "SegmentationClass", "val"),
            ("2008_000001", "SegmentationClassAug", "train"),
        )
    ]


def test_voc_ids_of_trainaug_without_a_mask_are_unlabeled_and_others_left_out(voc):
    root, dataset = voc
    (root / "ImageSets/Segmentation/trainaug.txt").write_text("2007_000032\n2009_000009\n")
    train = [r for r in list_records(root, dataset) if r.subset == "train"]
    assert [(r.id, r.label) for r in train] == [
        ("2007_000032", "SegmentationClassAug/2007_000032.png"), ("2009_000009", ""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "missing, advice",
    [
        ("JPEGImages", "set `data` to the folder VOCdevkit/VOC2012"),
        ("ImageSets/Segmentation/val.txt", r"VOCtrainval_11-May-2012\.tar"),
        ("SegmentationClassAug", r"SegmentationClassAug\.zip, or .*build_trainaug\.py"),
    ],
)
def test_what_voc_lacks_is_named_with_where_to_get_it(missing, advice, voc):
    root, dataset = voc
    (root / missing).rename(root / "elsewhere")
    with pytest.raises(DataError, match=f"{missing}: not found.*{advice}"):
        list_records(root, dataset)


def test_voc_has_21_classes_in_its_official_colours_and_ignores_the_border(voc):
    _, dataset = voc
    assert list(dataset.classes)[::5] == ["background", "bottle", "cow", "person", "tv monitor"]
    assert dataset.labels == dict(enumerate(dataset.classes)) and len(dataset.labels) == 21
    assert dataset.ignore == (255,)
    for number, colour in enumerate(dataset.classes.values()):
        # The devkit's colour map: bits 0, 1, 2 of the class number are bit 7 of red, green, blue;
        # bits 3, 4, 5 are their bit 6.
        red, green, blue = ((number >> i & 1) << 7 | (number >> 3 + i & 1) << 6 for i in range(3))
        assert colour == f"#{red:02x}{green:02x}{blue:02x}"


@pytest.fixture
def cityscapes(tmp_path, make_experiment):
    """Folder and settings of Cityscapes: two training images, the second without a mask."""
    for subset, id in (
        ("train", "aachen/aachen_000000_000019"), ("train", "bochum/bochum_000000_000313"),
        ("val", "lindau/lindau_000005_000019"), ("test", "berlin/berlin_000000_000019"),
    ):  # fmt: skip
        image = tmp_path / f"leftImg8bit/{subset}/{id}_leftImg8bit.png"
        image.parent.mkdir(parents=True)
        image.touch()
        masks = tmp_path / f"gtFine/{subset}/{id}_gtFine"
        masks.parent.mkdir(parents=True)
        for kind in ("color.png", "instanceIds.png", "labelIds.png", "polygons.json"):
            if "bochum" not in id:
                masks.with_name(f"{masks.name}_{kind}").touch()
    return tmp_path, dataset_stage(make_experiment(format="cityscapes", classes=None))


def test_cityscapes_ids_are_city_and_name_and_images_without_a_mask_unlabeled(cityscapes):
    aachen, bochum = "aachen/aachen_000000_000019", "bochum/bochum_000000_000313"
    lindau = "lindau/lindau_000005_000019"
    assert list_records(*cityscapes) == [
        Record(
            aachen,
            f"leftImg8bit/train/{aachen}_leftImg8bit.png",
            f"gtFine/train/{aachen}_gtFine_labelIds.png",
            "train",
        ),
        Record(bochum, f"leftImg8bit/train/{bochum}_leftImg8bit.png", "", "train"),
        Record(
            lindau,
            f"leftImg8bit/val/{lindau}_leftImg8bit.png",
            f"gtFine/val/{lindau}_gtFine_labelIds.png",
            "val",
        ),
    ]


def test_cityscapes_without_masks_says_what_to_get(cityscapes):
    root, dataset = cityscapes
    (root / "gtFine").rename(root / "gtCoarse")
    with pytest.raises(DataError, match=r"gtFine: no such folder.*gtFine_trainvaltest\.zip"):
        list_records(root, dataset)


def test_cityscapes_training_numbers_are_not_taken_for_no_mask(cityscapes):
    root, dataset = cityscapes
    (mask,) = root.glob("gtFine/val/*/*_labelIds.png")
    mask.rename(mask.with_name(mask.name.replace("labelIds", "labelTrainIds")))
    said = (
        r"_labelIds\.png: not found, but there is labelTrainIds"
        r".*`labels: \{0: road, 1: sidewalk, .* 18: bi"
    )
    with pytest.raises(DataError, match=r"val/lindau/lindau_0.*" + said):
        list_records(root, dataset)


def test_cityscapes_training_numbers_are_read_where_labels_names_them(cityscapes, make_experiment):
    root, dataset = cityscapes
    numbers = dict(enumerate(dataset.classes))
    own = dataset_stage(make_experiment(format="cityscapes", classes=None, labels=numbers))
    assert own.labels == numbers and 255 in own.ignore and not {*own.ignore} & {*own.labels}
    with pytest.raises(DataError, match=r"_labelTrainIds\.png: not found, but there is labelIds"):
        list_records(root, own)
    for mask in root.glob("gtFine/*/*/*_labelIds.png"):
        mask.rename(mask.with_name(mask.name.replace("labelIds", "labelTrainIds")))
    masks = [record.label for record in list_records(root, own) if record.label]
    assert len(masks) == 2 and all(label.endswith("_gtFine_labelTrainIds.png") for label in masks)


def test_cityscapes_maps_its_19_classes_and_ignores_the_other_values(cityscapes):
    _, dataset = cityscapes
    assert dataset.labels == {
        7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole",
        19: "traffic light", 20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky",
        24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train",
        32: "motorcycle", 33: "bicycle",
    }  # fmt: skip
    assert list(dataset.labels.values()) == list(dataset.classes)
    assert sorted({*dataset.labels, *dataset.ignore}) == [*range(34), 255]
    assert dataset.classes["road"] == "#804080" and dataset.classes["bicycle"] == "#770b20"


def test_an_experiment_may_map_the_numbers_of_cityscapes_otherwise(make_experiment):
    own = {"classes": {"flat": "#804080", "car": "#00008e"}, "labels": {7: "flat", 26: "car"}}
    stage = dataset_stage(make_experiment(format="cityscapes", ignore=[0, 8], **own))
    assert stage.labels == {7: "flat", 26: "car"} and stage.ignore == (0, 8)


@pytest.mark.parametrize(
    "format, count, first, last, digest",
    [
        (
            "voc", 20, "2007_000033", "2011_003011",
            "48df9b6c26a660102bffd9c31df992badcdb87538494061af1350d320e4b13d2",
        ),
        (
            "cityscapes", 19, "frankfurt/frankfurt_000000_000294",
            "munster/munster_000150_000019",
            "1435c46b2e6e55e09d3e33011092b42f3c417050e0fa0455b2052d33279f3fa1",
        ),
    ],
)  # fmt: skip
def test_valtiny_is_the_published_list(format, count, first, last, digest):
    ids = LAYOUTS[format].valtiny
    assert (len(ids), ids[0], ids[-1]) == (count, first, last)
    assert sha256("".join(f"{id}\n" for id in ids).encode()) == digest


@pytest.mark.parametrize(
    "format, advice",
    [
        ("voc", r"VOCtrainval_11-May-2012\.tar.*snakemake download_voc"),
        ("cityscapes", r"www\.cityscapes-dataset\.com.*leftImg8bit_trainvaltest\.zip and gtFine"),
        ("camvid", "snakemake download_camvid"),
    ],
)
def test_a_data_set_that_is_not_there_is_told_where_to_get(
    format, advice, make_experiment, tmp_path
):
    dataset = dataset_stage(make_experiment(format=format, classes=None))
    with pytest.raises(DataError, match=f"none: no such folder.*{advice}"):
        list_records(tmp_path / "none", dataset)


def test_digits_are_known_before_they_are_drawn(tmp_path, digits_dataset):
    records = list_records(tmp_path / "not there", digits_dataset)
    assert len(records) == 13
    first = Record("test-0000", "images/test/test-0000.png", "labels/test/test-0000.png", "test")
    assert records[0] == first


def test_classes_come_from_the_experiment_before_the_format(make_experiment):
    own = dataset_stage(make_experiment(format="camvid"))
    assert list(own.classes) == ["sky", "road"]
    assert own.labels == {0: "sky", 1: "road"}


def test_a_format_without_classes_needs_them_from_the_experiment(make_experiment):
    with pytest.raises(ValueError, match=r"classes: missing; format 'folder'"):
        dataset_stage(make_experiment(classes=None))


def test_settings_of_the_drawing_matter_to_drawn_data_only(make_experiment):
    drawing = {"digits": {"seed": 5}}
    assert dataset_stage(make_experiment(**drawing)) == dataset_stage(make_experiment())
    assert dataset_stage(make_experiment(format="digits", **drawing)).digits.seed == 5


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"labels": {0: "sky", 1: "street"}}, "labels: value 1 is mapped to 'street'"),
        ({"labels": {0: "sky", 255: "road"}}, "labels: value 255 is also listed under ignore"),
        ({"labels": {0: "sky", "#ff0000": "road"}}, "numbers or colours, not both"),
        ({"labels": {"#ff0000": "sky"}, "ignore": [3]}, "numbers or colours, not both"),
        ({"labels": {"#FF0000": "sky"}, "ignore": ["#ff0000"]}, "also listed under ignore"),
    ],
)
def test_labels_that_contradict_the_classes_are_refused(changes, reason, make_experiment):
    with pytest.raises(ValueError, match=reason):
        dataset_stage(make_experiment(**changes))


def test_the_order_of_classes_is_part_of_the_settings_and_survives_json(make_experiment):
    classes = {"sky": "#0000ff", "road": "#808080", "car": "#ff0000"}
    stage = dataset_stage(make_experiment(classes=classes))
    again = type(stage).model_validate_json(stage.canonical())
    assert list(again.classes) == ["sky", "road", "car"] and again == stage
    other = dataset_stage(make_experiment(classes=dict(sorted(classes.items()))))
    same_labels = other.model_copy(update={"labels": stage.labels})
    assert same_labels.canonical() != stage.canonical()


def test_no_ignored_value_at_all_can_be_asked_for(make_experiment):
    assert dataset_stage(make_experiment(ignore=[])).ignore == ()


def test_colours_name_mask_values_as_numbers_do_and_ignore_none_by_default(make_experiment):
    stage = dataset_stage(make_experiment(labels={"#00FF00": "sky", "#000000": "road"}))
    assert stage.labels == {"#00ff00": "sky", "#000000": "road"} and stage.ignore == ()
    assert type(stage).model_validate_json(stage.canonical()) == stage


@pytest.mark.parametrize("suffix", ["tif", "tiff", "TIF", "bmp"])
def test_masks_may_be_of_any_kind_without_loss(suffix, tmp_path, folder_dataset, write_image):
    write_image(tmp_path / "images/train/a.png", PICTURE)
    write_image(tmp_path / f"labels/train/a.{suffix}", PICTURE[..., 0])
    (record,) = list_records(tmp_path, folder_dataset)
    assert record.label == f"labels/train/a.{suffix}"
    write_image(tmp_path / "labels/train/a.png", PICTURE[..., 0])
    with pytest.raises(DataError, match="two masks of 'a': labels/train/a"):
        list_records(tmp_path, folder_dataset)


@given(st.integers(1, 500), st.integers(1, 30))
def test_a_sample_is_spread_evenly_over_all_images(images, most):
    found = evenly(range(images), most)
    assert len(found) == min(images, most) and found[0] == 0
    gaps = [b - a for a, b in itertools.pairwise([*found, images])]
    assert max(gaps) - min(gaps) <= 1


def test_no_images_have_no_sample():
    assert evenly([], 3) == []
