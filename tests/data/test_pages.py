"""The pages of a TIFF stack are images of one group; the channels of an OME-TIFF have names."""

import struct
import tempfile
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dst_cbc.data import pages
from dst_cbc.data.account import OF_UNUSED, ORPHAN, account
from dst_cbc.data.copies import alike_across, copies, identical_files, slopes
from dst_cbc.data.fingerprints import Fingerprints
from dst_cbc.data.groups import groups_of
from dst_cbc.data.images import decode, decode_mask, open_image, size_of
from dst_cbc.data.index import check, read_index, require_same, write_index
from dst_cbc.data.layouts.pairs import paired
from dst_cbc.data.pages import listed, split, stack_of
from dst_cbc.data.records import list_records
from dst_cbc.inference.folders import list_images
from dst_cbc.own_images import experiment_text, inspection
from dst_cbc.own_images.draft import Machine, make
from dst_cbc.own_images.inspection import guess_group, stacks_of
from dst_cbc.own_images.suggestions import draft_name
from dst_cbc.report.verification import verify
from dst_cbc.runtime.errors import Changed, DataError, Spoiled
from dst_cbc.runtime.files import sha256_file
from dst_cbc.settings.data import PairSettings

RANDOM = np.random.default_rng(0)
SIZE = (8, 11)
PAIRS = PairSettings(images="images", labels="masks")


def noise(*shape, dtype=np.uint8):
    return RANDOM.integers(0, np.iinfo(dtype).max + 1, shape, dtype)


def stack(path, pixels, axes=None, **options):
    """Write each of the pixels (N, ...) as a page; with axes, as tifffile describes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {"photometric": "rgb" if pixels.shape[-1] == 3 else "minisblack"}
    metadata = {"axes": axes} if axes else None
    tifffile.imwrite(path, pixels, **{**kind, "metadata": metadata, **options})
    return pixels


def values(image):
    return np.asarray(image.image) if image.deep is None else image.deep


# --------------------------------------------------------------------------- pages


@settings(max_examples=60)
@given(
    count=st.integers(2, 12),
    dtype=st.sampled_from([np.uint8, np.uint16]),
    colour=st.booleans(),
    byteorder=st.sampled_from("<>"),
    bigtiff=st.booleans(),
    compression=st.sampled_from([None, "lzw", "zlib", "packbits", "zstd"]),
    kind=st.sampled_from(["plain", "ome", "imagej"]),
)
def test_each_page_of_a_stack_is_the_array_that_was_written(
    count, dtype, colour, byteorder, bigtiff, compression, kind
):
    shape = (count, *SIZE, 3) if colour else (count, *SIZE)
    options = {"byteorder": byteorder, "bigtiff": bigtiff, "compression": compression}
    axes = "TYXS" if colour else "TYX"
    if kind == "imagej":
        # ImageJ knows neither BigTIFF nor colours of 16 bits.
        dtype, options = (np.uint8 if colour else dtype), {"imagej": True}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.tif")
        pixels = stack(path, noise(*shape, dtype=dtype), axes, **options, ome=kind == "ome")
        assert listed(Path(folder), "a.tif") == [f"a.tif/{n:04}" for n in range(1, count + 1)]
        for number, page in enumerate(pixels, 1):
            found = decode(path / f"{number:04}")
            np.testing.assert_array_equal(values(found), page)
            assert size_of(path / f"{number:04}") == found.size == SIZE[::-1]
        for number in (0, count + 1):
            with pytest.raises(DataError, match=rf"/{number:04}: no such page; the file has 0001"):
                decode(path / f"{number:04}")


def test_pages_differ_in_kind_and_orientation(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        first, second = noise(3, 4, dtype=np.uint16), noise(3, 4, 3)
        tiff.write(first, photometric="miniswhite", metadata=None)
        tiff.write(second, photometric="rgb", metadata=None, compression="zlib")
        tiff.write(second, photometric="rgb", metadata=None, extratags=[(274, 3, 1, 6, True)])
    np.testing.assert_array_equal(values(decode(tmp_path / "a.tif/0001")), 65535 - first)
    np.testing.assert_array_equal(values(decode(tmp_path / "a.tif/0002")), second)
    np.testing.assert_array_equal(values(decode(tmp_path / "a.tif/0003")), np.rot90(second, 3))
    assert size_of(tmp_path / "a.tif/0003") == (3, 4)


def test_pages_of_different_sizes_are_no_stack(tmp_path):
    """Scanners of slides write thumbnails and labels behind the image, and do not mark them."""
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for side in (64, 16, 8):
            tiff.write(noise(side, side), metadata=None)
    assert listed(tmp_path, "a.tif") == ["a.tif"]
    with pytest.raises(DataError, match=r"a\.tif: pages of 3 sizes, such as 8 x 8 and 16 x 16"):
        decode(tmp_path / "a.tif")


def test_pages_of_masks_may_be_indexed_or_floating_point(tmp_path):
    indexed = [Image.fromarray(noise(*SIZE) % 4) for _ in range(3)]
    for one in indexed:
        one.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    indexed[0].save(tmp_path / "p.tif", save_all=True, append_images=indexed[1:])
    stack(tmp_path / "f.tif", np.stack([np.asarray(one, np.float32) for one in indexed]))
    for number, one in enumerate(indexed, 1):
        for name in "pf":
            found = decode_mask(tmp_path / f"{name}.tif/{number:04}").image
            np.testing.assert_array_equal(np.asarray(found), np.asarray(one))
        assert decode_mask(tmp_path / f"p.tif/{number:04}").image.getpalette()[3:6] == [255, 0, 0]


def test_reduced_copies_and_masks_of_a_page_are_no_pages(tmp_path):
    pixels = noise(2, 32, 32)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for page in pixels:
            tiff.write(page, metadata=None)
            tiff.write(page[::2, ::2], subfiletype=1, metadata=None)
            tiff.write(page > 9, subfiletype=4, photometric="mask", metadata=None)
    assert listed(tmp_path, "a.tif") == ["a.tif/0001", "a.tif/0002"]
    np.testing.assert_array_equal(values(decode(tmp_path / "a.tif/0002")), pixels[1])


def test_a_path_is_a_page_only_behind_a_tiff(tmp_path):
    assert split(PurePosixPath("a/b.TIF/0003")) == (Path("a/b.TIF"), 3)
    assert split(PurePosixPath("b.tiff/12345")) == (Path("b.tiff"), 12345)
    for path in (
        "a/b.png/0003",
        "a/b.tif/3",
        "a/b.tif/00003",
        "a/b.tif/x",
        "a/0003",
        "b.tif",
        "b.tif/٣٣٣٣",
    ):
        assert split(PurePosixPath(path)) == (Path(path), None)
    Image.fromarray(noise(*SIZE)).save(tmp_path / "a.tif")
    assert listed(tmp_path, "a.tif") == ["a.tif"]
    np.testing.assert_array_equal(
        values(decode(tmp_path / "a.tif/0001")), values(decode(tmp_path / "a.tif"))
    )
    with pytest.raises(DataError, match=r"b\.tif/0001: no such file"):
        decode(tmp_path / "b.tif/0001")


def test_only_one_page_files_are_read_by_their_name_alone(tmp_path):
    stack(tmp_path / "a.tif", noise(3, *SIZE))
    for read in (decode, decode_mask, size_of):
        with pytest.raises(DataError, match=r"a\.tif: several pages, 3; expected one image"):
            read(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_of_a_file_of_one_image_only_the_first_directory_is_read(suffix, tmp_path, monkeypatch):
    Image.fromarray(noise(300, 300)).save(tmp_path / f"a{suffix}")
    read = []

    class Counted:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def read(self, size):
            read.append(size)
            return self.file.read(size)

    opened = pages.open_regular
    monkeypatch.setattr(pages, "open_regular", lambda path: Counted(opened(path)))
    assert len(stack_of(tmp_path / f"a{suffix}").images) == 1
    assert sum(read) < 400 and len(read) < 8


# --------------------------------------------------------------------------- channels


NAMES = ["DAPI", "GFP", "Cy5"]


def composite(path, channels, axes="CYX", names=NAMES, **options):
    """Write an OME-TIFF whose channels are pages."""
    metadata = {"axes": axes, "Channel": {"Name": names}}
    tifffile.imwrite(path, channels, ome=True, photometric="minisblack", metadata=metadata)
    return channels


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_channels_of_an_ome_tiff_are_chosen_by_name_or_number(dtype, tmp_path):
    pixels = composite(tmp_path / "a.ome.tif", noise(3, *SIZE, dtype=dtype))
    assert listed(tmp_path, "a.ome.tif") == ["a.ome.tif"]
    for bands, chosen in (
        (("GFP",), pixels[1]),
        (("Cy5", "DAPI", "GFP"), pixels[[2, 0, 1]].transpose(1, 2, 0)),
        (("Cy5", 1, 1), pixels[[2, 0, 0]].transpose(1, 2, 0)),
        (None, pixels.transpose(1, 2, 0)),
    ):
        np.testing.assert_array_equal(values(decode(tmp_path / "a.ome.tif", bands=bands)), chosen)
    assert size_of(tmp_path / "a.ome.tif") == SIZE[::-1]
    said = r"`bands` names channel 'Cy3', but the channels of the file are 'DAPI', 'GFP', 'Cy5'"
    with pytest.raises(DataError, match=said):
        decode(tmp_path / "a.ome.tif", bands=("Cy3",))


def test_what_becomes_of_the_channels_is_said(tmp_path):
    composite(tmp_path / "a.tif", noise(3, *SIZE))
    (note,) = decode(tmp_path / "a.tif").notes
    assert note.endswith("red, green and blue of one image, as the file says (DAPI, GFP, Cy5)")
    (note,) = decode(tmp_path / "a.tif", bands=("DAPI",)).notes
    assert note == "2 of 3 channels of the image are not used (`bands`)"
    pixels = composite(tmp_path / "b.tif", noise(2, *SIZE), names=NAMES[:2])
    found = decode(tmp_path / "b.tif")
    np.testing.assert_array_equal(values(found), pixels[0])
    assert found.unused == "channel 2 (GFP) of the image is not used (to use it: `bands: [2]`)"
    names = [f"stain {n}" for n in range(5)]
    composite(tmp_path / "c.tif", noise(5, *SIZE), names=names)
    with pytest.raises(DataError, match=r"5 channels \('stain 0', .*'stain 4'\), expected at most"):
        decode(tmp_path / "c.tif")
    assert values(decode(tmp_path / "c.tif", bands=("stain 4",))).shape == SIZE


@pytest.mark.parametrize("axes", ["ZCYX", "CZYX", "TZCYX", "TCZYX"])
@pytest.mark.parametrize("kind", ["ome", "imagej", "shaped"])
def test_with_depth_or_time_each_place_is_a_page_with_its_channels(kind, axes, tmp_path):
    sizes = {"T": 2, "Z": 3, "C": 2}
    shape = [sizes[axis] for axis in axes[:-2]]
    pixels = noise(*shape, *SIZE, dtype=np.uint16)
    written, stored = pixels, axes
    if kind == "imagej" and axes.index("C") < axes.index("Z"):
        # ImageJ stores the channels of one place together.
        written = np.moveaxis(pixels, axes.index("C"), -3)
        stored = axes.replace("CZ", "ZC")
    metadata = {"axes": stored} | ({"Channel": {"Name": NAMES[:2]}} if kind == "ome" else {})
    tifffile.imwrite(
        tmp_path / "a.tif", written, ome=kind == "ome", imagej=kind == "imagej", metadata=metadata,
        photometric="minisblack",
    )  # fmt: skip
    images = np.moveaxis(pixels, axes.index("C"), -1).reshape(-1, *SIZE, 2)
    assert len(listed(tmp_path, "a.tif")) == len(images)
    for number, image in enumerate(images, 1):
        found = decode(tmp_path / f"a.tif/{number:04}", bands=(2,))
        np.testing.assert_array_equal(values(found), image[..., 1])
    bands = ("GFP",)
    if kind == "ome":
        found = decode(tmp_path / "a.tif/0002", bands=bands)
        np.testing.assert_array_equal(values(found), images[1][..., 1])
        return
    with pytest.raises(DataError, match="does not name its channels, as an OME-TIFF does"):
        decode(tmp_path / "a.tif/0001", bands=bands)


def test_tiff_data_may_store_the_planes_in_any_order(tmp_path):
    pixels = composite(tmp_path / "a.tif", noise(3, *SIZE))
    said = tifffile.tiffcomment(tmp_path / "a.tif")
    parts = "".join(f'<TiffData FirstC="{c}" IFD="{2 - c}"/>' for c in range(3))
    tifffile.tiffcomment(
        tmp_path / "a.tif", said.replace('<TiffData IFD="0" PlaneCount="3"/>', parts).encode()
    )
    found = decode(tmp_path / "a.tif", bands=("DAPI",))
    np.testing.assert_array_equal(values(found), pixels[2])


def test_pages_of_several_positions_follow_one_another(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif", ome=True) as tiff:
        both = [noise(2, *SIZE) for _ in range(3)]
        for pixels in both:
            tiff.write(pixels, photometric="minisblack", metadata={"axes": "CYX"})
    assert listed(tmp_path, "a.tif") == [f"a.tif/{n:04}" for n in (1, 2, 3)]
    np.testing.assert_array_equal(values(decode(tmp_path / "a.tif/0003", bands=(2,))), both[2][1])


def test_every_plane_of_a_mask_is_a_page(tmp_path):
    """`tifffile.imwrite(mask, imagej=True)` calls the pages of any stack channels."""
    pixels = noise(5, *SIZE) % 3
    tifffile.imwrite(tmp_path / "a.tif", pixels, imagej=True)
    assert len(listed(tmp_path, "a.tif", mask=True)) == 5
    for number in range(5):
        found = decode_mask(tmp_path / f"a.tif/{number + 1:04}")
        np.testing.assert_array_equal(values(found), pixels[number])
    assert listed(tmp_path, "a.tif") == ["a.tif"]
    with pytest.raises(DataError, match=r"5 channels, .*if the pages are images instead"):
        decode(tmp_path / "a.tif")


# --------------------------------------------------------------------------- damaged files


@pytest.mark.parametrize(
    "options", [{}, {"ome": True}, {"imagej": True}, {"bigtiff": True}, {"byteorder": ">"}]
)
def test_a_truncated_stack_is_refused(options, tmp_path):
    stack(tmp_path / "a.tif", noise(6, *SIZE), "TYX", **options)
    whole = (tmp_path / "a.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        fourth = tiff.pages[3].offset
    for end in (fourth - 1, fourth + 1, fourth + 30):
        (tmp_path / "b.tif").write_bytes(whole[:end])
        with pytest.raises(DataError, match=r"b\.tif.*damaged or cut off: .* page 4 is not"):
            decode(tmp_path / "b.tif/0001")
        assert listed(tmp_path, "b.tif") == ["b.tif"]


def tiff_of(*directories, order="<"):
    """Bytes of a TIFF of directories (next, entries); directory n begins at byte 1000 n."""
    content = bytearray(1000 * (len(directories) + 1))
    content[:8] = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 1000)
    for number, (following, entries) in enumerate(directories, 1):
        packed = b"".join(struct.pack(f"{order}HHII", *entry) for entry in entries)
        body = struct.pack(f"{order}H", len(entries)) + packed
        place = 1000 * number
        content[place : place + len(body) + 4] = body + struct.pack(f"{order}I", following)
    return bytes(content)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_circle_of_directories_is_refused(order, tmp_path):
    page = [(256, 4, 1, 1), (257, 4, 1, 1)]
    for chain in ([(1000, page)], [(2000, page), (1000, page)], [(2000, page), (2000, page)]):
        (tmp_path / "a.tif").write_bytes(tiff_of(*chain, order=order))
        with pytest.raises(DataError, match=r"damaged or cut off.*occurs twice"):
            decode(tmp_path / "a.tif")


def test_directories_that_overlap_are_read_only_as_far_as_the_file_is_long(tmp_path, monkeypatch):
    content = bytearray(900_000)
    content[:8] = struct.pack("<2sHI", b"II", 42, 8)
    for place in range(8, 8000, 4):
        # Each directory has 65,535 entries, 780 KB, and the next begins 4 bytes after it does.
        content[place : place + 2] = b"\xff\xff"
        behind = place + 2 + 12 * 65_535
        content[behind : behind + 4] = struct.pack("<I", place + 4)
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(DataError, match="damaged or cut off: the directory of page 2"):
        stack_of(tmp_path / "a.tif")
    chain = [(1000 * n + 2000, [(256, 4, 1, 1)]) for n in range(30)]
    chain[-1] = (0, [(256, 4, 1, 1)])
    (tmp_path / "b.tif").write_bytes(tiff_of(*chain))
    assert len(stack_of(tmp_path / "b.tif").images) == 30
    monkeypatch.setattr(pages, "MOST_DIRECTORIES", 29)
    (tmp_path / "c.tif").write_bytes(tiff_of(*chain))
    with pytest.raises(DataError, match="more than 29 pages, the most that are read"):
        decode(tmp_path / "c.tif")


@pytest.mark.parametrize("kind", ["imagej", "shaped"])
def test_frames_without_directories_are_never_left_out_silently(kind, tmp_path):
    pixels = stack(
        tmp_path / "a.tif", noise(4, *SIZE), "TYX", truncate=True, imagej=kind == "imagej"
    )
    with pytest.raises(DataError, match=r"a\.tif: 4 pages, of which only 1 can be") as error:
        decode(tmp_path / "a.tif")
    advice = str(error.value).rpartition("write it again: ")[2]
    known = {"tifffile": tifffile, "OLD": tmp_path / "a.tif", "NEW": tmp_path / "b.tif"}
    exec(advice, known)
    np.testing.assert_array_equal(values(decode(tmp_path / "b.tif/0004")), pixels[3])
    # A single page that was cut out of a stack has kept its description.
    said = tifffile.tiffcomment(tmp_path / "a.tif").replace("[4,", "[400,").replace("=4", "=400")
    stack(tmp_path / "c.tif", pixels[0], metadata=None, description=said)
    np.testing.assert_array_equal(values(decode(tmp_path / "c.tif")), pixels[0])


BOMB = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><OME>&b;</OME>'


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda xml: BOMB, "DOCTYPE"),
        (lambda xml: xml[:-20], "unclosed|mismatched|not well-formed"),
        (lambda xml: xml.replace('SizeC="3"', 'SizeC="4"'), r"describes 4 or more, not 3"),
        (lambda xml: xml.replace('SizeC="3"', 'SizeC="2"'), "overlap"),
        (lambda xml: xml.replace('SizeC="3"', 'SizeC="999999999"'), "describes 999999999"),
        (lambda xml: xml.replace('PlaneCount="3"', 'PlaneCount="9"'), "overlap"),
        (lambda xml: xml.replace('IFD="0"', 'IFD="7"'), "describes"),
        (lambda xml: xml.replace("DimensionOrder", "Order"), "DimensionOrder"),
        (lambda xml: xml.replace('SamplesPerPixel="1"', 'SamplesPerPixel="0"'), "zero"),
    ],
)
def test_a_description_that_does_not_fit_the_pages_is_refused(change, said, tmp_path):
    composite(tmp_path / "a.tif", noise(3, *SIZE))
    xml = change(tifffile.tiffcomment(tmp_path / "a.tif"))
    tifffile.tiffcomment(tmp_path / "a.tif", xml.encode())
    with pytest.raises(DataError, match=rf"a\.tif: its description does not fit.*({said})"):
        decode(tmp_path / "a.tif")
    # Of a file of one page, it does not matter.
    tifffile.imwrite(tmp_path / "b.tif", noise(*SIZE), description=xml, metadata=None)
    assert listed(tmp_path, "b.tif") == ["b.tif"] and decode(tmp_path / "b.tif").size


def test_channels_of_different_types_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        said = "ImageJ=1.54f\nimages=2\nchannels=2\n"
        tiff.write(noise(8, 8), description=said, metadata=None)
        tiff.write(noise(8, 8, dtype=np.uint16), metadata=None)
    with pytest.raises(DataError, match="pages of different size or type, but the file says"):
        decode(tmp_path / "a.tif")


def test_names_that_occur_twice_are_chosen_by_number(tmp_path):
    composite(tmp_path / "a.tif", noise(3, *SIZE), names=["DAPI", "DAPI", "GFP"])
    with pytest.raises(DataError, match="2 channels of the file have this name"):
        decode(tmp_path / "a.tif", bands=("DAPI",))
    assert decode(tmp_path / "a.tif", bands=("GFP",))


# --------------------------------------------------------------------------- data sets


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.mark.parametrize(
    "names, folders",
    [
        (("{}", "{}"), ("images", "masks")),
        (("raw_{}", "{}_mask"), ("images", "masks")),
        (("raw_{}", "{}_mask"), ("all", "all")),
    ],
)
def test_a_stack_of_masks_is_paired_page_by_page(names, folders, tmp_path):
    pairs = PairSettings(
        images=folders[0], labels=folders[1], image_name=names[0], mask_name=names[1]
    )
    image, mask = (name.replace("{}", "mouse") for name in names)
    stack(tmp_path / folders[0] / f"{image}.tif", noise(2, *SIZE))
    stack(tmp_path / folders[1] / f"{mask}.tif", noise(2, *SIZE) % 2)
    assert paired(tmp_path, pairs) == [
        (f"{image}/{n}", f"{folders[0]}/{image}.tif/{n}", f"{folders[1]}/{mask}.tif/{n}")
        for n in ("0001", "0002")
    ]


def test_pages_may_have_masks_of_their_own(tmp_path):
    pairs = PairSettings(images="images", labels="masks", image_name="{}_raw", mask_name="{}_seg")
    stack(tmp_path / "images/a_raw.tif", noise(3, *SIZE))
    save(tmp_path / "masks/a/0002_seg.png", noise(*SIZE) % 2)
    found = paired(tmp_path, pairs)
    assert [(id, mask) for id, _, mask in found] == [
        ("a_raw/0001", ""), ("a_raw/0002", "masks/a/0002_seg.png"), ("a_raw/0003", ""),
    ]  # fmt: skip
    # Where suggest.py puts the draft of a mask, the mask is found.
    for id, image, mask in found[1:2]:
        assert f"masks/{draft_name(id, pairs, image)}" == mask


def test_stacks_are_found_by_new_experiment_whose_pages_have_masks(tmp_path):
    stack(tmp_path / "images/a.tif", noise(30, *SIZE))
    for number in range(1, 31):
        save(tmp_path / f"masks/a/{number:04}_mask.png", noise(*SIZE) % 2)
    names = inspection.with_names(tmp_path, PAIRS)
    assert (names.image_name, names.mask_name) == ("{}", "{}_mask")
    assert len(inspection.inspect(tmp_path, names).masked) == 30


@pytest.mark.parametrize("layout", ["pairs", "folder"])
@pytest.mark.parametrize(
    "images, masks, said",
    [(5, 3, "3 pages, .*has 5 pages"), (5, 1, "one page, .* 5 pages"), (1, 2, "2 pages, .*one")],
)
def test_a_mask_of_another_number_of_pages_is_refused(
    layout, images, masks, said, tmp_path, folder_dataset
):
    parts = ("images", "masks") if layout == "pairs" else ("images/train", "labels/train")
    for folder, count in zip(parts, (images, masks), strict=True):
        stack(tmp_path / folder / "a.tif", noise(count, *SIZE) % 3)
    dataset = folder_dataset
    if layout == "pairs":
        dataset = dataset.model_copy(update={"format": "pairs", "pairs": PAIRS})
    with pytest.raises(DataError, match=rf"{parts[1]}/a\.tif: a mask of {said}.*a/0001\.png"):
        list_records(tmp_path, dataset)


def test_a_damaged_stack_of_masks_is_called_damaged(tmp_path):
    stack(tmp_path / "images/a.tif", noise(3, *SIZE))
    stack(tmp_path / "masks/a.tif", noise(3, *SIZE))
    content = (tmp_path / "masks/a.tif").read_bytes()
    (tmp_path / "masks/a.tif").write_bytes(content[:-40])
    with pytest.raises(DataError, match=r"masks/a\.tif: damaged or cut off"):
        paired(tmp_path, PAIRS)


@pytest.fixture
def study(tmp_path, folder_dataset):
    """Two equal stacks, one in train and one in val, with equal masks, and their data set."""
    pixels, masks = noise(3, *SIZE), noise(3, *SIZE) % 3
    for subset in ("train", "val"):
        stack(tmp_path / f"images/{subset}/{subset}1.tif", pixels)
        stack(tmp_path / f"labels/{subset}/{subset}1.tif", masks)
    save(tmp_path / "images/train/single.png", pixels[0])
    return tmp_path, folder_dataset


def test_the_data_check_reads_each_page_and_its_table_can_be_read_again(study, capsys):
    root, dataset = study
    rows = check(root, list_records(root, dataset), dataset)
    assert [row.id for row in rows] == [
        "single", *(f"{s}1/{n:04}" for s in ("train", "val") for n in (1, 2, 3))
    ]  # fmt: skip
    assert {row.image_sha256 for row in rows[1:]} == {sha256_file(root / "images/val/val1.tif")}
    write_index(root / "dataset.csv", rows)
    assert list(read_index(root / "dataset.csv").values()) == rows
    assert "identical images in train and val, 3 of val" in capsys.readouterr().out


def test_pages_of_a_stack_are_no_copies_and_pages_of_equal_stacks_are(study, capsys):
    root, dataset = study
    rows = check(root, list_records(root, dataset), dataset)
    assert [[row.id for row in group] for group in copies(rows)] == [
        [f"train1/{n}", f"val1/{n}"] for n in ("0001", "0002", "0003")
    ]
    paths = [row.image for row in rows]
    assert len(identical_files(root, paths)) == 3
    # Pages of one stack that look alike, in two subsets, are warned of.
    plain = slopes(decode(root / rows[1].image))
    one = [rows[1], type(rows[1])(**{**vars_of(rows[2]), "subset": "val"})]
    assert len(alike_across(one, [plain, plain], None)) == 1


def vars_of(row):
    return {name: getattr(row, name) for name in row.__slots__}


def test_contradicting_masks_of_equal_stacks_are_named_by_page(study):
    root, dataset = study
    masks = tifffile.imread(root / "labels/val/val1.tif").copy()
    masks[1] = 2 - masks[1]
    stack(root / "labels/val/val1.tif", masks)
    with pytest.raises(DataError, match=r"val1\.tif/0002 contradicts .*train1\.tif/0002") as error:
        check(root, list_records(root, dataset), dataset)
    assert "1 problems" in str(error.value)


def test_a_changed_stack_is_noticed_wherever_files_are_compared(study):
    root, dataset = study
    records = list_records(root, dataset)
    rows = check(root, records, dataset)
    write_index(root / "results/dataset.csv", rows)
    before = Fingerprints(root, records, dataset, root / "cache.json")
    ids, index = [row.id for row in rows], {row.id: row for row in rows}
    assert not before.changed(index, ids, labels=True)
    require_same(root, rows, root)
    assert list(verify(root / "results", root)) == [("foreign", root / "results/dataset.csv")]
    row = index["val1/0002"]
    open_image(root / row.image, None, row.image_sha256)
    changed = stack(root / row.image.rpartition("/")[0], noise(4, *SIZE))
    with pytest.raises(Changed, match=r"val1\.tif/0002: has changed since the data check"):
        open_image(root / row.image, None, row.image_sha256)
    with pytest.raises(Spoiled, match=r"1 files have changed .* first .*val1\.tif\."):
        require_same(root, rows, root)
    after = Fingerprints(root, records, dataset, root / "cache.json")
    assert after.changed(index, ["val1/0001"], labels=False) and len(changed) == 4
    assert not after.changed(index, ["train1/0001"], labels=True)
    assert ("changed", root / "images/val/val1.tif") in list(verify(root / "results", root))
    (root / "images/val/val1.tif").unlink()
    with pytest.raises(Changed, match=r"val1\.tif/0002: no such file"):
        open_image(root / row.image, None, row.image_sha256)


def test_the_account_counts_files_and_says_how_many_images_are_in_them(tmp_path, folder_dataset):
    stack(tmp_path / "images/a.tif", noise(4, *SIZE))
    stack(tmp_path / "images/b.tif", noise(3, *SIZE))
    stack(tmp_path / "masks/a.tif", noise(4, *SIZE))
    save(tmp_path / "images/c.png", noise(*SIZE))
    for name in ("b/0002", "b/0004", "c", "d"):
        save(tmp_path / f"masks/{name}.png", noise(*SIZE))
    pairs = PAIRS.model_copy(update={"group": r"^(.+)/\d+$"})
    dataset = folder_dataset.model_copy(update={"format": "pairs", "pairs": pairs})
    found = account(tmp_path, dataset, list_records(tmp_path, dataset))
    assert (
        found and found.total == 8 and found.unused == {ORPHAN: ["masks/b/0004.png", "masks/d.png"]}
    )
    assert (
        "of 8 files below images and masks: 8 images in 3 files and 6 masks in 3 files"
        in (found.lines()[0])
    )
    # Of the stack b, only the held-out page is used.
    held = dataset.model_copy(update={"pairs": pairs.model_copy(update={"val": ("b/0001",)})})
    found = account(tmp_path, held, list_records(tmp_path, held))
    assert found and found.pages == (6, 5) and found.unused[OF_UNUSED] == ["masks/b/0002.png"]


# --------------------------------------------------------------------------- groups


def pairs_of(**counts):
    return [
        (f"{name}/{n:04}", f"{name}.tif/{n:04}", "m") if count > 1 else (name, f"{name}.tif", "m")
        for name, count in counts.items()
        for n in range(1, count + 1)
    ]


@pytest.mark.parametrize(
    "counts, expected",
    [
        ({"a": 3, "b": 3, "c": 3, "single": 1}, {"a": 3, "b": 3, "c": 3, "single": 1}),
        # Names say which stacks belong together.
        ({"m1_a": 2, "m1_b": 2, "m2_a": 3, "m3_a": 2}, {"m1": 4, "m2": 3, "m3": 2}),
        # A cut of the names that would part the stack `x`.
        ({"a_1_p": 6, "a_2_p": 6, "x": 4}, {"a_1_p": 6, "a_2_p": 6, "x": 4}),
        # Neighbours of one stack are together: pages 1 to 9, 10 to 19, 20 to 25.
        ({"a": 25}, {"a/000": 9, "a/001": 10, "a/002": 6}),
        ({"a": 5}, dict.fromkeys([f"a/{n:04}" for n in range(1, 6)], 1)),
    ],
)
def test_no_stack_is_parted_where_three_stacks_have_masks(counts, expected):
    pairs = pairs_of(**counts)
    ids = [id for id, _, _ in pairs]
    groups = groups_of(ids, guess_group(ids, ids, stacks_of(pairs)))
    found = {name: list(groups.values()).count(name) for name in groups.values()}
    assert found == expected


@pytest.mark.parametrize("stacks, parted", [(3, False), (1, True)])
def test_pages_of_one_stack_on_two_sides_are_warned_of(stacks, parted, tmp_path):
    for number in range(stacks):
        stack(tmp_path / f"images/s{number}.tif", noise(30, *SIZE))
        stack(tmp_path / f"masks/s{number}.tif", noise(30, *SIZE) % 2)
    found = inspection.inspect(tmp_path, inspection.with_names(tmp_path, PAIRS))
    group = guess_group(found.masked, found.masked, stacks_of(found.pairs))
    said = "\n".join(experiment_text.describe(make("s", found, group, Machine(False, 1, 1))))
    assert ("pages of the same stack (images/s0.tif) are in two of" in said) == parted
    assert "WARNING: pages of" not in said or parted


# --------------------------------------------------------------------------- use


def test_infer_lists_each_page(tmp_path):
    stack(tmp_path / "in/day/a.tif", noise(2, *SIZE))
    save(tmp_path / "in/b.png", noise(*SIZE))
    assert list_images(tmp_path / "in", tmp_path / "out") == {
        "b": tmp_path / "in/b.png", "day/a/0001": tmp_path / "in/day/a.tif/0001",
        "day/a/0002": tmp_path / "in/day/a.tif/0002",
    }  # fmt: skip
    save(tmp_path / "in/day/a/0002.png", noise(*SIZE))
    with pytest.raises(DataError, match=r"both would have the mask day/a/0002\.png"):
        list_images(tmp_path / "in", tmp_path / "out")
