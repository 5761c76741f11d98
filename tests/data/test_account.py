"""What is used, and what is not: every file below the folders is accounted for, with its cause."""

import os
import tempfile
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from dst_cbc.data import account as causes
from dst_cbc.data.account import account, account_of
from dst_cbc.data.layouts.listing import entries
from dst_cbc.data.layouts.pairs import continued, paired
from dst_cbc.data.records import list_records
from dst_cbc.own_images import inspection
from dst_cbc.runtime.errors import DataError
from dst_cbc.settings.data import DatasetStage, PairSettings


def stage_of(pairs=None):
    return DatasetStage(
        format="pairs" if pairs else "folder", classes={"a": "#000000", "b": "#ffffff"},
        labels={0: "a", 1: "b"}, ignore=(), test_from_val=0, digits=None, pairs=pairs,
    )  # fmt: skip


IMAGES, MASKS = "images used", "masks used"
LAYOUTS = {
    "two folders": ("pictures", "masks", "{}"),
    "an ending": ("pictures", "masks", "{}_seg"),
    "one folder": ("all", "all", "{}_mask"),
    "subsets": ("images/train", "labels/train", "{}"),
}


class Tree:
    """Writes files one by one, and notes what must become of each."""

    def __init__(self, root: Path, layout: str):
        self.root = root / "data"
        self.images, self.masks, self.pattern = LAYOUTS[layout]
        self.expected = Counter()
        for folder in (self.images, self.masks):
            (self.root / folder).mkdir(parents=True, exist_ok=True)

    def put(self, what, *parts):
        path = self.root.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self.expected[what] += 1

    def image(self, folder, name, suffix=".png", what=IMAGES):
        self.put(what, self.images, folder, name + suffix)

    def mask(self, folder, name, suffix=".png", what=MASKS):
        self.put(what, self.masks, folder, self.pattern.replace("{}", name) + suffix)

    def link(self, what, target, *parts):
        path = self.root.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)
        self.expected[what] += 1


def pair(tree, folder, name):
    tree.image(folder, name, ".JPG")
    tree.mask(folder, name, ".TIF")


def other_form(tree, folder, name):
    tree.image(folder, unicodedata.normalize("NFC", name))
    tree.mask(folder, unicodedata.normalize("NFD", name))


def other_case(tree, folder, name):
    tree.image(folder, name)
    path = Path(folder, tree.pattern.replace("{}", name).swapcase() + ".png")
    tree.put(causes.CASE, tree.masks, path)


def several(tree, folder, name):
    pair(tree, folder, name)
    if tree.images != tree.masks:
        name = f"{tree.pattern.replace('{}', name)}_1.png"
        tree.put(causes.SEVERAL, tree.masks, folder, name)


def unread(tree, folder, name):
    tree.image(folder, name, ".heic", causes.UNREAD)
    tree.mask(folder, name, ".GIF", causes.UNREAD)


def left_behind(tree, folder, name):
    for inside in (".ipynb_checkpoints", "@eaDir/x.png", "__MACOSX/a"):
        tree.put(causes.LEFT_BEHIND, tree.images, folder, inside, f"{name}.png")
        tree.put(causes.LEFT_BEHIND, tree.masks, folder, inside, f"2{name}.png")
    for hidden in (f"._{name}.png", f".{name}.tif"):
        tree.put(causes.LEFT_BEHIND, tree.masks, folder, hidden)


def others(tree, folder, name):
    tree.put(causes.OTHER, tree.images, folder, f"{name}.txt")
    tree.put(causes.OTHER, tree.masks, folder, f"{name}2.csv")
    tree.put(causes.ANNOTATIONS, tree.images, folder, f"{name}.json")


def linked_folder(tree, folder, name):
    outside = tree.root.parent / "outside" / folder / name
    (outside / "deep").mkdir(parents=True)
    for one in ("a.png", "deep/b.jpg"):
        (outside / one).touch()
        tree.expected[IMAGES] += 1
    # The folder in the linked one leads back.
    (outside / "deep/back").symlink_to(outside)
    tree.expected[causes.AGAIN] += 1
    (tree.root / tree.images / folder).mkdir(parents=True, exist_ok=True)
    (tree.root / tree.images / folder / f"{name} link").symlink_to(outside)


def links(tree, folder, name):
    outside = tree.root.parent / "outside" / folder / f"{name}.png"
    outside.parent.mkdir(parents=True, exist_ok=True)
    outside.touch()
    tree.link(IMAGES, outside, tree.images, folder, f"{name}.png")
    tree.link(causes._BY_KIND["nowhere"], "nothing", tree.images, folder, f"{name} lost.png")
    tree.link(causes.AGAIN, tree.root / tree.images, tree.images, folder, f"{name} loop")
    tree.link(causes.AGAIN, tree.root, tree.masks, folder, f"{name} up")


def a_stack(tree, folder, name):
    """An image of two pages whose mask has two pages, too, and one whose pages have own masks."""
    for image in (name, f"s{name}"):
        tree.image(folder, image, ".tif")
        path = tree.root / tree.images / folder / f"{image}.tif"
        tifffile.imwrite(path, np.zeros((2, 4, 5), np.uint8), metadata=None)
    tree.mask(folder, name, ".tif")
    mask = Path(folder, tree.pattern.replace("{}", name))
    tifffile.imwrite(tree.root / tree.masks / f"{mask}.tif", np.zeros((2, 4, 5)), metadata=None)
    tree.mask(f"{folder}/s{name}".lstrip("/"), "0002")
    tree.mask(f"{folder}/s{name}".lstrip("/"), "0003", what=causes.ORPHAN)


def a_pipe(tree, folder, name):
    (tree.root / tree.images / folder).mkdir(parents=True, exist_ok=True)
    os.mkfifo(tree.root / tree.images / folder / f"{name}.png")
    tree.expected[causes._BY_KIND["special"]] += 1


THINGS = {
    "image": lambda tree, folder, name: tree.image(folder, name, ".webp"),
    "orphan": lambda tree, folder, name: tree.mask(folder, name, what=causes.ORPHAN),
    "lossy": lambda tree, folder, name: tree.mask(folder, name, ".jpeg", causes.LOSSY),
} | {
    make.__name__: make
    for make in (
        pair, other_form, other_case, several, unread, left_behind, others, linked_folder, links,
        a_pipe, a_stack,
    )
}  # fmt: skip

FOLDERS = st.sampled_from(["", "a", "a/b c", "é"])
WORDS = st.sampled_from(["n", "ä b", "x.y-", "Öé"])
MIXTURES = st.lists(
    st.tuples(st.sampled_from(sorted(THINGS)), FOLDERS, WORDS), min_size=4, max_size=16
)


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=25, deadline=None)
@given(mixture=MIXTURES)
def test_used_and_unused_files_add_up_to_what_lies_there(layout, mixture):
    with tempfile.TemporaryDirectory() as folder:
        tree = Tree(Path(folder), layout)
        for number, (thing, below, word) in enumerate(mixture):
            THINGS[thing](tree, below, f"{word}{number}")
        pairs = PairSettings(images=tree.images, labels=tree.masks, mask_name=tree.pattern)
        stage = stage_of(None if layout == "subsets" else pairs)
        records = list_records(tree.root, stage) if tree.expected[IMAGES] else []
        found = account(tree.root, stage, records)
    assert found is not None
    counted = {cause: len(paths) for cause, paths in found.unused.items()}
    used = {IMAGES: found.images, MASKS: found.masks}
    assert counted | {what: n for what, n in used.items() if n} == +tree.expected
    assert found.total == tree.expected.total()


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def lines_of(root, pairs):
    return account_of(root, pairs, [pair[1:] for pair in paired(root, pairs)]).lines()


PAIRS = PairSettings(images="images", labels="masks")


def test_three_files_of_a_cause_are_named_and_the_others_counted(tmp_path):
    touch(tmp_path, *(f"images/im{n:02}.png" for n in range(9)), "images/.DS_Store")
    touch(tmp_path, *(f"masks/im{n:02}.jpg" for n in range(5)), "masks/im06.png")
    assert lines_of(tmp_path, PAIRS) == [
        "what is used, and what is not, of 16 files below images and masks: 9 images and 1 masks "
        "are used",
        "not used: 1 file, hidden, or left by the system or another program: images/.DS_Store",
        "WARNING: not used: 5 files, masks as JPEG or WebP, which change the values of a mask: "
        "masks/im00.jpg, masks/im01.jpg, masks/im02.jpg and 2 more. Advice: export them as PNG; an "
        "image without another mask counts as unlabeled",
    ]


def test_where_all_is_used_one_line_says_so(tmp_path):
    touch(tmp_path, "images/a.png", "images/b.png", "masks/a.png")
    (line,) = lines_of(tmp_path, PAIRS)
    assert line.endswith("of 3 files below images and masks: 2 images and 1 masks, all are used")


def test_a_mask_that_matches_no_image_is_named_with_the_image_that_may_be_meant(tmp_path):
    touch(tmp_path, *(f"images/im{n:02}.png" for n in range(20)))
    touch(tmp_path, "masks/im00.png", "masks/im1.png", "masks/IM03.png")
    touch(tmp_path, "masks/im05 (1).png", "masks/im07_draft of Anna.png")
    _, case, orphans = lines_of(tmp_path, PAIRS)
    assert "1 file, masks whose names differ from their images' in upper and lower case" in case
    assert (
        "masks/im05 (1).png (of im05?), masks/im07_draft of Anna.png (of im07?), "
        "masks/im1.png (of im01?)"
    ) in orphans


def test_a_mask_in_another_case_in_the_folder_of_the_images_is_no_image(tmp_path):
    one = PairSettings(labels=".", mask_name="{}_mask")
    touch(tmp_path, "x.png", "x_MASK.png", "y.png", "y_mask.png", "Z_MASK.png")
    assert paired(tmp_path, one) == [
        ("Z_MASK", "Z_MASK.png", ""), ("x", "x.png", ""), ("y", "y.png", "y_mask.png"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "name, begun",
    [
        ("x_1", "x"), ("x (2)", "x"), ("x1", "x"), ("y2_a", "y2"), ("y21", None), ("xa", None),
        ("x/1", None), ("x", None), ("z_1", None),
    ],
)  # fmt: skip
def test_a_name_continues_another_by_a_number_or_a_mark(name, begun):
    assert continued(name, {"x", "y2"}) == begun


@pytest.mark.parametrize("other", ["x_mask_1", "x_mask2", "x_mask (3)", "x_mask-old"])
def test_a_further_mask_in_the_folder_of_the_images_is_not_taken_for_an_image(tmp_path, other):
    one = PairSettings(labels=".", mask_name="{}_mask")
    touch(tmp_path, "x.png", "x_mask.png", "x1.png", "x_masking.png")
    assert [id for id, _, _ in paired(tmp_path, one)] == ["x", "x1", "x_masking"]
    touch(tmp_path, f"{other}.png")
    with pytest.raises(DataError, match=r"1 files look like further masks .*: x_mask"):
        paired(tmp_path, one)


@pytest.mark.parametrize("pattern", ["{}", "{}_mask"])
def test_several_masks_of_an_image_in_their_own_folder_are_refused_at_the_start(tmp_path, pattern):
    pairs = PairSettings(images="images", labels="masks", mask_name=pattern)
    mask = pattern.replace("{}", "x")
    touch(tmp_path, "images/x.png", "images/y.png", f"masks/{mask}.png")
    assert inspection.account(tmp_path, pairs).unused == {}
    touch(tmp_path, f"masks/{mask}_1.png")
    with pytest.raises(DataError, match=r"further masks of an image: masks/x.*_1\.png"):
        inspection.account(tmp_path, pairs)


def test_images_of_a_held_out_group_and_their_masks_are_accounted_for(tmp_path):
    touch(tmp_path, *(f"images/{g}_{n}.png" for g in "ab" for n in range(3)))
    touch(tmp_path, "masks/a_0.png", "masks/a_1.png", "masks/b_0.png")
    pairs = PAIRS.model_copy(update={"group": "^(a|b)_", "val": ("a_0",)})
    stage = stage_of(pairs)
    found = account(tmp_path, stage, list_records(tmp_path, stage))
    assert found and (found.images, found.masks, found.total) == (4, 2, 9)
    assert found.unused.pop(causes.OF_UNUSED) == ["masks/a_1.png"]
    ((left_out, images),) = found.unused.items()
    assert "other images are held out" in left_out.what
    assert images == ["images/a_1.png", "images/a_2.png"]


def test_images_outside_the_subsets_are_accounted_for(tmp_path):
    touch(tmp_path, "images/train/a.png", "images/valid/b.png", "images/c.png")
    found = account(tmp_path, stage_of(), list_records(tmp_path, stage_of()))
    assert found and found.images == 1
    ((cause, paths),) = found.unused.items()
    assert "not below train, val or test" in cause.what
    assert paths == ["images/c.png", "images/valid/b.png"]


def test_one_folder_of_masks_may_be_linked_for_each_subset(tmp_path):
    touch(tmp_path, "images/train/a.png", "images/val/b.png", "elsewhere/a.png", "elsewhere/b.png")
    (tmp_path / "labels").mkdir()
    for subset in ("train", "val"):
        (tmp_path / "labels" / subset).symlink_to(tmp_path / "elsewhere")
    records = list_records(tmp_path, stage_of())
    assert [record.label for record in records] == ["labels/train/a.png", "labels/val/b.png"]
    found = account(tmp_path, stage_of(), records)
    assert found and found.unused == {causes.AGAIN: ["labels/train/b.png", "labels/val/a.png"]}


def test_links_between_folders_list_each_folder_once(tmp_path):
    names = "abcdefgh"
    touch(tmp_path, *(f"{name}/{name}.png" for name in names))
    for one in names:
        for other in names:
            (tmp_path / one / f"to {other}").symlink_to(tmp_path / other)
    found = Counter(entry.kind for entry in entries(tmp_path))
    assert found == {"file": 8, "again": 64}


def test_a_link_to_the_masks_below_the_images_makes_no_images_of_them(tmp_path):
    touch(tmp_path, "images/a.png", "masks/deep/a.png")
    (tmp_path / "images/m").symlink_to(tmp_path / "masks/deep")
    assert paired(tmp_path, PAIRS) == [("a", "images/a.png", "")]


@pytest.mark.parametrize("layout", ["pairs", "folder"])
def test_names_in_two_unicode_forms_are_the_same_and_an_exact_name_is_preferred(tmp_path, layout):
    folders = ("images", "masks") if layout == "pairs" else ("images/train", "labels/train")
    stage = stage_of(PAIRS if layout == "pairs" else None)
    touch(tmp_path, f"{folders[0]}/\u00e9.png", f"{folders[1]}/e\u0301.png")
    (record,) = list_records(tmp_path, stage)
    assert (record.id, record.label) == ("\u00e9", f"{folders[1]}/e\u0301.png")
    touch(tmp_path, f"{folders[1]}/\u00e9.png")
    (record,) = list_records(tmp_path, stage)
    assert record.label == f"{folders[1]}/\u00e9.png"


def test_images_of_one_id_are_named_with_all_their_files(tmp_path):
    touch(tmp_path, "images/a.png", "images/a.jpg", "images/b.png", "images/B.tif", "masks/a.png")
    with pytest.raises(DataError) as error:
        list_records(tmp_path, stage_of(PAIRS))
    assert "id 'a' occurs 2 times, for images/a.jpg and images/a.png" in str(error.value)
    assert "ids of images/B.tif and images/b.png differ only in case" in str(error.value)
