"""Small data sets with random faults are read correctly, or exactly their bad files are named."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from dst_cbc.data.images import open_image
from dst_cbc.data.index import check, read_index, window_of, write_index
from dst_cbc.data.masks import label_table, open_label
from dst_cbc.data.records import list_records
from dst_cbc.runtime.errors import DataError
from dst_cbc.runtime.files import write_text
from dst_cbc.runtime.reading import read_ids

SIZE = (9, 12)
NAMES = [
    "plain", "with space", "ünïcode", "dots.in.name", "-leading-dash", "$(touch x)", "{input}",
    "<img onerror=alert(1)>", "semi;colon", "quote'quote", 'double"quote', "#hash", "%percent",
    "=1+1", "deep/er", "comma,comma", "UPPER", "`tick`", "star*", "&amp;", "~", "nul-like",
]  # fmt: skip


def picture(seed):
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8)


def mask(seed):
    return np.random.default_rng(seed).integers(0, 3, SIZE).astype(np.uint8)


def save(path: Path, pixels, mode=None, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(pixels))
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def turned(seed):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    return {"exif": exif}


# Kinds of images: the suffix of the file, and a function that writes it.
GOOD_IMAGES = {
    "rgb": (".png", lambda path, seed: save(path, picture(seed))),
    "upper case": (".PNG", lambda path, seed: save(path, picture(seed), format="PNG")),
    "jpeg": (".jpg", lambda path, seed: save(path, picture(seed))),
    "grey": (".png", lambda path, seed: save(path, picture(seed), "L")),
    "palette": (".png", lambda path, seed: save(path, picture(seed), "P")),
    "alpha": (".png", lambda path, seed: save(path, picture(seed), "RGBA")),
    "turned": (".png", lambda path, seed: save(path, picture(seed), **turned(seed))),
    "16 bits": (".tif", lambda path, seed: save(path, picture(seed)[..., 0].astype(np.uint16))),
}


def circle(path):
    """Write a TIFF whose second page is followed by the first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, np.zeros((2, *SIZE), np.uint8), metadata=None)
    with tifffile.TiffFile(path) as tiff:
        first, second = (page.offset for page in tiff.pages)
    content = bytearray(path.read_bytes())
    entries = int.from_bytes(content[second : second + 2], "little")
    place = second + 2 + 12 * entries
    content[place : place + 4] = first.to_bytes(4, "little")
    path.write_bytes(content)


BAD_IMAGES = {
    "empty": (".png", lambda path, seed: save(path, picture(seed)).write_bytes(b"")),
    "truncated": (".png", lambda path, seed: cut(save(path, picture(seed)))),
    "text": (".jpg", lambda path, seed: save(path, picture(seed)).write_bytes(b"no image")),
    "cmyk": (".jpg", lambda path, seed: save(path, picture(seed), "CMYK")),
    "float": (".tif", lambda path, seed: save(path, picture(seed)[..., 0].astype(np.float32))),
    "stack in a circle": (".tif", lambda path, seed: circle(path)),
}
GOOD_MASKS = {
    "grey": lambda path, seed: save(path, mask(seed)),
    "palette": lambda path, seed: save(path, mask(seed), "P"),
    "16 bits": lambda path, seed: save(path, mask(seed).astype(np.uint16)),
    "grey in rgb": lambda path, seed: save(path, mask(seed), "RGB"),
}
BAD_MASKS = {
    "empty": lambda path, seed: save(path, mask(seed)).write_bytes(b""),
    "truncated": lambda path, seed: cut(save(path, mask(seed))),
    "another size": lambda path, seed: save(path, mask(seed)[:-1]),
    "unknown value": lambda path, seed: save(path, mask(seed) + 100),
    "colours": lambda path, seed: save(path, picture(seed)),
}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def one(names):
    return st.tuples(st.sampled_from(sorted(names)), st.integers(0, 99))


image_faults = st.one_of(one(GOOD_IMAGES), one(GOOD_IMAGES), one(BAD_IMAGES))
mask_faults = st.one_of(one(GOOD_MASKS), one(GOOD_MASKS), one(BAD_MASKS), st.none())


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.sampled_from(["train", "val", "test"]), image_faults, mask_faults),
        min_size=1,
        max_size=6,
    ),
    st.permutations(NAMES),
)
def test_a_data_set_is_read_right_or_exactly_its_bad_files_are_named(
    tmp_path_factory, folder_dataset, images, names
):
    root = tmp_path_factory.mktemp("hostile")
    bad, deep, deep_train = set(), set(), False
    for (subset, (kind, seed), label), name in zip(images, names, strict=False):
        suffix, write = {**GOOD_IMAGES, **BAD_IMAGES}[kind]
        path = root / f"images/{subset}/{name}{suffix}"
        write(path, seed)
        if kind in BAD_IMAGES:
            bad.add(path)
        elif kind == "16 bits":
            deep.add(path)
            deep_train |= subset == "train"
        if label:
            path_of_mask = root / f"labels/{subset}/{name}.png"
            {**GOOD_MASKS, **BAD_MASKS}[label[0]](path_of_mask, label[1])
            # The sizes of a mask and its image are compared only if the image can be read.
            if label[0] in BAD_MASKS and (label[0] != "another size" or kind in GOOD_IMAGES):
                bad.add(path_of_mask)
        elif subset != "train":
            bad.add(path)
    if not deep_train:
        bad |= deep
    records = list_records(root, folder_dataset)
    assert len(records) == len(images)
    try:
        rows = check(root, records, folder_dataset)
    except DataError as error:
        named = {line.split(": ")[0] for line in str(error).splitlines()[1:]}
        # A bad mask hides the problem that its image is 16-bit without a window.
        assert {str(path) for path in bad - deep} <= named <= {str(path) for path in bad}
        return
    assert not bad
    write_index(root / "dataset.csv", rows)
    assert list(read_index(root / "dataset.csv").values()) == rows
    write_text(root / "ids.txt", "".join(f"{row.id}\n" for row in rows))
    assert read_ids(root / "ids.txt") == [row.id for row in rows]
    for row in rows:
        assert open_image(root / row.image, window_of(rows)).size == (row.width, row.height)
        if row.label:
            label = open_label(root / row.label, label_table(folder_dataset))
            assert set(np.unique(label)) <= {0, 1, 2}
    shutil.rmtree(root)


def test_ids_that_differ_only_in_case_are_refused(tmp_path, folder_dataset):
    for name in ("a.png", "A.png"):
        save(tmp_path / "images/train" / name, picture(0))
    with pytest.raises(DataError, match="differ only in case"):
        list_records(tmp_path, folder_dataset)
