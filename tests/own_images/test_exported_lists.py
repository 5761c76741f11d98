"""Masks as CVAT and Roboflow export them: their classes come from the list beside them."""

import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dst_cbc.data.groups import groups_of
from dst_cbc.data.layouts import voc
from dst_cbc.own_images import exported_lists, inspection
from dst_cbc.own_images.classes import class_table
from dst_cbc.own_images.inspection import ROBOFLOW_COPIES, common_folder, with_names
from dst_cbc.runtime.errors import DataError
from workflow import REPOSITORY

COLOURS = [(0, 0, 0), (128, 64, 0), (250, 50, 83)]
LABELMAP = """# label:color_rgb:parts:actions
# void:9,9,9::
background:0,0,0::
car:128,64,0:wheel,door:driving
traffic light:250,50,83::
"""
CLASSES = {"background": "#000000", "car": "#804000", "traffic light": "#fa3253"}
PIXEL_VALUES = "Pixel Value, Class\n0, background\n1, cell\n2, nucleus\n"


def numbers(number=0):
    """A mask of 0 with areas of 1 and 2."""
    mask = np.zeros((40, 48), np.uint8)
    mask[4:20, 4 + number : 20], mask[24:36, 8:40] = 1, 2
    return mask


def rgb(mask):
    return Image.fromarray(np.array(COLOURS, np.uint8)[mask])


def indexed(mask, colours):
    image = Image.fromarray(mask).convert("P")
    palette = [0] * 765 + [224, 224, 192]
    palette[: 3 * len(colours)] = [channel for colour in colours for channel in colour]
    image.putpalette(palette)
    return image


def with_border(mask):
    mask[22] = 255
    return mask


@pytest.fixture
def cvat(tmp_path):
    """Function that writes an export of CVAT, with masks that it makes of class numbers."""

    def export(form=rgb, labelmap=LABELMAP):
        top = tmp_path / "export"
        shutil.rmtree(top, ignore_errors=True)
        for folder in ("JPEGImages", "SegmentationClass", "SegmentationObject"):
            (top / folder).mkdir(parents=True)
        (top / "labelmap.txt").write_text(labelmap, "utf-8")
        for number in range(6):
            Image.new("L", (48, 40), number).save(top / f"JPEGImages/i{number}.jpg")
            form(numbers(number)).save(top / f"SegmentationClass/i{number}.png")
            rgb(numbers(number) // 2).save(top / f"SegmentationObject/i{number}.png")
        return top

    return export


@pytest.fixture
def roboflow(tmp_path):
    """Function that writes an export of Roboflow with three copies of each training image."""

    def export(**lists):
        top = tmp_path / "export"
        for part, copies in (("train", 3), ("valid", 1), ("test", 1)):
            (top / part).mkdir(parents=True)
            (top / part / "_classes.csv").write_text(lists.get(part, PIXEL_VALUES), "utf-8")
            for number in range(4 if part == "train" else 1):
                for copy in range(copies):
                    name = f"IMG_{part[0]}{number}_jpg.rf.{copy}f{number}"
                    grey = {"train": 0, "valid": 50, "test": 60}[part] + 10 * number + copy
                    Image.new("L", (48, 40), grey).save(top / part / f"{name}.jpg")
                    Image.fromarray(numbers(number)).save(top / part / f"{name}_mask.png")
        return top

    return export


def table_of(images, labels=None):
    """The proposed classes, as new_experiment.py makes them."""
    folders = exported_lists.folders_of(images, labels or images)
    root, settings = common_folder(*folders)
    listed = exported_lists.find(folders[1])
    return class_table(inspection.inspect(root, with_names(root, settings), 1, listed), listed)


def look(monkeypatch, capsys, *arguments):
    """What new_experiment.py --look prints."""
    script = str(REPOSITORY / "scripts/new_experiment.py")
    monkeypatch.setattr(sys, "argv", [script, "--look", *map(str, arguments)])
    runpy.run_path(script)["run"]()
    return capsys.readouterr().out


# --------------------------------------------------------------------------- CVAT


def test_cvat_s_colours_get_their_names_whichever_folder_is_given(cvat):
    top = cvat()
    by_folder = table_of(top / "JPEGImages", top / "SegmentationClass")
    assert by_folder.classes == CLASSES
    assert by_folder.labels == {colour: name for name, colour in CLASSES.items()}
    assert table_of(top / "JPEGImages", top) == table_of(top) == by_folder
    (top / "labelmap.txt").rename(top / "SegmentationClass/labelmap.txt")
    assert table_of(top) == by_folder


def test_the_list_beside_the_current_folder_is_found(cvat, monkeypatch):
    monkeypatch.chdir(cvat() / "SegmentationClass")
    listed = exported_lists.find(Path())
    assert listed is not None and listed.file == Path("../labelmap.txt")


def test_masks_of_objects_are_never_read(cvat):
    top = cvat()
    with pytest.raises(DataError, match="tell objects apart, not classes; give the folder Segment"):
        exported_lists.folders_of(top / "JPEGImages", top / "SegmentationObject")
    for file in (top / "SegmentationObject").iterdir():
        file.write_bytes(b"no image")
    assert table_of(top).classes == CLASSES


def test_indexed_masks_are_read_by_their_palette_and_voc_s_border_is_ignored(cvat):
    table = table_of(cvat(lambda mask: indexed(with_border(mask), COLOURS)))
    assert table.classes == CLASSES and table.ignore == ["#e0e0c0"]


def test_labels_without_a_colour_as_datumaro_writes_them_have_voc_s(cvat, tmp_path):
    def form(mask):
        return Image.fromarray(np.array([(0, 0, 0), (128, 0, 0), (0, 128, 0)], np.uint8)[mask])

    labelmap = "# label:color_rgb:parts:actions\nbackground:::\ncar:::\ntraffic light:::\n"
    assert table_of(cvat(form, labelmap)).labels == {
        "#000000": "background", "#800000": "car", "#008000": "traffic light",
    }  # fmt: skip
    (tmp_path / "labelmap.txt").write_text("".join(f"{name}:::\n" for name in voc.CLASSES))
    listed = exported_lists.read(tmp_path / "labelmap.txt")
    assert {name: f"#{value:06x}" for value, name in listed.names.items()} == voc.CLASSES


@pytest.mark.parametrize(
    "form",
    [
        lambda mask: Image.fromarray(with_border(mask)),
        lambda mask: indexed(with_border(mask), [(0, 0, 0), (9, 0, 0), (0, 9, 0)]),
    ],
)
def test_masks_without_the_listed_colours_hold_the_numbers_of_the_lines(cvat, form):
    table = table_of(cvat(form))
    assert table.labels == {0: "background", 1: "car", 2: "traffic light"}
    assert table.classes == CLASSES and table.ignore == [255]
    assert "are read as the numbers of its lines: 0 is the first class" in table.warnings[0]


def test_a_colour_that_cvat_s_list_lacks_is_named_with_the_line_to_add(cvat):
    words = (
        r"labelmap\.txt: has no line for #804000, \d+\.\d\d% of the pixels of the masks; add a "
        "line `NAME:RED,GREEN,BLUE::` for each, or `ignore:RED,GREEN,BLUE::`"
    )
    with pytest.raises(DataError, match=words):
        table_of(cvat(labelmap=LABELMAP.replace("car:128,64,0", "car:128,64,1")))


def test_a_class_named_ignored_is_none_and_names_become_valid_and_stay_different(tmp_path):
    lines = ["Straße/Weg", "Straße:Weg", "日本", "dépôt", "ignore!", "Ignored", "a 1"]
    (tmp_path / "labelmap.txt").write_text(
        "".join(f"{name}:{number},0,0::\n" for number, name in enumerate(lines)), "utf-8"
    )
    listed = exported_lists.find(tmp_path)
    assert listed is not None
    assert [*listed.names.values()] == [
        "Stra-e-Weg", "Stra-e-Weg 2", "class", "depot", "ignore 2", "a 1",
    ]  # fmt: skip
    assert {0x050000} < {*listed.ignore}
    (tmp_path / "labelmap.txt").write_text("a:0,0,0::\nignore!:1,0,0::\n")
    assert exported_lists.read(tmp_path / "labelmap.txt").names[0x010000] == "ignore 2"
    (said,) = listed.notices
    assert "'日本' becomes 'class'" in said and said.endswith(" and 1 others")


def test_the_list_is_named_in_one_line_and_classes_by_hand_win(cvat, monkeypatch, capsys, tmp_path):
    top = cvat()
    said = look(monkeypatch, capsys, "--images", top, "--labels", top)
    assert f"found: {top / 'labelmap.txt'} lists 3 classes; their names and colours are" in said
    assert "class 'traffic light': value #fa3253" in said
    (tmp_path / "mine.txt").write_text("#000000 nothing\n#804000 road\n#fa3253 road\n")
    options = ("--images", top, "--labels", top, "--classes", tmp_path / "mine.txt")
    said = look(monkeypatch, capsys, *options)
    assert "labelmap.txt lists" not in said and "class 'road': value #fa3253" in said
    assert exported_lists.read(top / "labelmap.txt").names[0x804000] == "car"


# --------------------------------------------------------------------------- Roboflow


@pytest.mark.parametrize("part", ["", "train"])
def test_roboflow_s_values_get_their_names_in_an_export_and_in_one_of_its_folders(roboflow, part):
    table = table_of(roboflow() / part)
    assert table.labels == {0: "background", 1: "cell", 2: "nucleus"}


def test_lists_of_roboflow_that_contradict_each_other_are_refused_with_both_files(roboflow):
    top = roboflow(valid=PIXEL_VALUES.replace("nucleus", "debris"))
    words = r"valid/_classes\.csv contradicts .*test/_classes\.csv: they list other classes"
    with pytest.raises(DataError, match=words):
        exported_lists.find(top)


def test_a_list_beside_the_masks_is_not_read_where_there_is_one_inside(roboflow):
    top = roboflow()
    (top.parent / "labelmap.txt").write_text("a:0,0,0::\nb:0,0,0::\n")
    listed = exported_lists.find(top)
    assert listed is not None and listed.names[1] == "cell"
    with pytest.raises(
        DataError, match=r"already; remove one of them\. The file was found with th"
    ):
        exported_lists.find(top.parent / "elsewhere")


def test_a_value_that_roboflow_s_list_lacks_is_named_with_the_line_to_add(roboflow):
    top = roboflow(train="Pixel Value, Class\n0, background\n1, cell\n")
    with pytest.raises(DataError, match=r"_classes\.csv: has no line for 2, .*`VALUE, NAME`"):
        table_of(top / "train")


def warning_of_copies(top, monkeypatch, capsys, *options):
    """The warning about Roboflow's copies, or ""."""
    said = look(monkeypatch, capsys, "--images", top, "--labels", top, *options)
    return next((line for line in said.split("\n") if "Roboflow gives" in line), "")


FOLDERS = ("train", "valid", "test")
FIRST_PART = r"^([^/_\- ]+)[/_\- ]"


@pytest.mark.parametrize(
    "ids, pattern",
    [
        # Copies in the folders of a whole export: these are no groups.
        ([f"{part}/a{n}_jpg.rf.{c}" for part in FOLDERS for n in "12" for c in "xy"], None),
        # Without copies, they are groups like the folders of any other data set.
        ([f"{part}/a{n}_jpg.rf.x" for part in FOLDERS for n in "12"], FIRST_PART),
        # One copy: the names only number the images.
        ([f"a_{n}_jpg.rf.{c}" for n in range(9) for c in "xy"[: n // 8 + 1]], None),
        # Copies of the frames of three videos: a group for each video.
        ([f"v{v}_{n}_jpg.rf.{c}" for v in "123" for n in "123" for c in "xy"], FIRST_PART),
        # The part of the names that parts videos parts the copies of b, too.
        ([*(f"v_{v}_{n}_jpg.rf.x" for v in "123" for n in "1234"), "b.rf.x", "b.rf.y"], None),
    ],
)
def test_copies_that_roboflow_made_of_one_image_are_in_one_group(ids, pattern):
    guessed = inspection.guess_group(ids, ids)
    assert guessed == (pattern or ROBOFLOW_COPIES)
    groups = groups_of(ids, guessed)
    assert all(groups[id] == groups[id.replace(".rf.y", ".rf.x")] for id in ids)


def test_copies_are_warned_of_and_most_where_they_are_in_two_subsets(roboflow, monkeypatch, capsys):
    top = roboflow()
    said = warning_of_copies(top, monkeypatch, capsys)
    assert "WARNING: 8 images are augmented copies of others" in said
    assert "they are in the same subset as these. Better export without augmentation" in said
    said = warning_of_copies(top, monkeypatch, capsys, "--group", "(.+)")
    assert (
        r"folds, or in train and test, which makes results too good: --group '^(.+)\.rf\.'" in said
    )
    for file in top.glob("train/*.rf.[12]f*"):
        file.unlink()
    assert warning_of_copies(top, monkeypatch, capsys) == ""


# --------------------------------------------------------------------------- damaged lists


@pytest.mark.parametrize(
    "name, text, words",
    [
        ("labelmap.txt", "a:0,0,0::\nb:1,2::\n", r"line 2: found 'b:1,2::'; expected a line"),
        ("labelmap.txt", "a:0,0,0::\nb:1,2,256::\n", r"line 2: found 'b:1,2,256::'"),
        ("labelmap.txt", "a\nb\n", r"line 1: found 'a'; .*`car:128,64,0::`\. The file was found"),
        ("labelmap.txt", "a:0,0,0::\nb:0,0,0::\n", "line 2: value #000000 has a line already"),
        ("labelmap.txt", "a:0,0,0::\nb" + 2000 * ":" + "1,1,1", "line 2: found 'b:::"),
        ("labelmap.txt", "a:0,0,0::\n", "lists 1 classes; expected 2 to 255: a line `NAME:"),
        ("labelmap.txt", "# nothing\n", "lists 0 classes"),
        ("labelmap.txt", "a:0,0,0::\na:1,1,1::\n", "lists 1 classes"),
        ("_classes.csv", "filename, cat, dog\nx.jpg, 1, 0\n", r"line 2: found 'x\.jpg, 1, 0'; exp"),
        ("_classes.csv", "Pixel Value, Class\n0, a\n70000, b\n", "line 3: found '70000, b'"),
        (
            "_classes.csv",
            'Pixel Value, Class\n0, a\n1, ""\n',
            """line 3: found '1, ""'; expected""",
        ),
        ("_classes.csv", "Pixel Value, Class\n0, a\n0, b\n", "line 3: value 0 has a line already"),
        ("_classes.csv", "", "lists 0 classes; expected 2 to 255: a title, then a line `VALUE, N"),
    ],
)
def test_damaged_lists_are_refused_with_the_line_and_what_to_do(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=words):
        exported_lists.find(tmp_path)


def test_a_folder_without_a_list_has_none(tmp_path):
    assert exported_lists.find(tmp_path) is None
