import io
import shutil
import tracemalloc
import zipfile
import zlib

import h5py
import numpy as np
import pytest

from dst_cbc.runtime import files, reading
from dst_cbc.runtime.errors import DataError, NoSpace
from dst_cbc.self_training import hdf5_heaps, predictions
from dst_cbc.self_training.confidence import BINS
from dst_cbc.self_training.predictions import (
    Prediction,
    close_part,
    join_parts,
    new_part,
    part_file,
    part_is_closed,
    read_histogram,
    read_predictions,
    store,
    write_histogram,
)
from reference import histogram

IDS = ["town/a", "b", "c", "d"]


def make_predictions(ids=IDS):
    """One prediction per id, in several sizes."""
    rng = np.random.default_rng(1)
    sizes = [(4, 6), (5, 3), (4, 6), (2, 2)]
    return [
        Prediction(
            row,
            id,
            rng.integers(0, 3, size).astype(np.uint8),
            rng.integers(0, BINS, size).astype(np.uint16),
        )
        for row, (id, size) in enumerate(zip(ids, sizes, strict=False))
    ]


def write_parts(folder, predictions, images_a_part=3):
    parts = range(-(-len(predictions) // images_a_part))
    for part in parts:
        mine = predictions[part * images_a_part : (part + 1) * images_a_part]
        with new_part(folder, part) as file:
            for prediction in mine:
                store(file, [prediction])
        counts = sum(histogram(p.classes, p.confidence, 3) for p in mine)
        close_part(folder, part, counts)
    return len(parts)


def joined(folder, images_a_part=3, predictions=None):
    predictions = predictions or make_predictions()
    parts = write_parts(folder, predictions, images_a_part)
    path = folder / "predictions.h5"
    counts = join_parts(folder, parts, path, {"model_sha256": "abc", "lowest": -16.0})
    return path, counts


@pytest.mark.parametrize("images_a_part", [1, 3, 4])
def test_joined_parts_hold_what_was_predicted_in_order(images_a_part, tmp_path):
    path, counts = joined(tmp_path, images_a_part)
    for stored, made in zip(read_predictions(path, IDS), make_predictions(), strict=True):
        assert (stored.row, stored.id) == (made.row, made.id)
        assert stored.classes.dtype == np.uint8 and stored.confidence.dtype == np.uint16
        np.testing.assert_array_equal(stored.classes, made.classes)
        np.testing.assert_array_equal(stored.confidence, made.confidence)
    whole = sum(histogram(p.classes, p.confidence, 3) for p in make_predictions())
    np.testing.assert_array_equal(counts, whole)


def test_the_way_a_pass_is_cut_changes_no_byte(tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    one, _ = joined(tmp_path / "1", 4)
    many, _ = joined(tmp_path / "2", 1)
    assert one.read_bytes() == many.read_bytes()


def test_more_than_ten_images_stay_in_order(tmp_path):
    ids = [f"image{i}" for i in range(12)]
    predictions = [
        Prediction(i, id, np.full((1, 2), i % 3, np.uint8), np.full((1, 2), i, np.uint16))
        for i, id in enumerate(ids)
    ]
    contents = set()
    for images_a_part in (3, 5, 12):
        folder = tmp_path / str(images_a_part)
        folder.mkdir()
        path, _ = joined(folder, images_a_part, predictions)
        assert [p.confidence[0, 0] for p in read_predictions(path, ids)] == list(range(12))
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_equal_predictions_are_stored_in_equal_bytes_whatever_was_stored_before(tmp_path):
    """HDF5's LZF reads uninitialised memory, and would write some of these bytes differently."""
    rng = np.random.default_rng(1)
    predictions = []
    for row in range(200):
        levels = np.cumsum(rng.integers(-900, 901, (96, 128)), 1).clip(0, BINS - 1)
        classes = levels // 22000
        predictions.append(
            Prediction(row, str(row), classes.astype(np.uint8), levels.astype(np.uint16))
        )
    contents = set()
    for name in "1234":
        (tmp_path / name).mkdir()
        path, _ = joined(tmp_path / name, 200, predictions)
        contents.add(path.read_bytes())
    assert len(contents) == 1


@pytest.mark.parametrize("view", [lambda a: a, lambda a: a.T, lambda a: a[::2, ::3]])
def test_what_is_stored_is_read_back_however_it_lies_in_memory(tmp_path, view):
    classes = np.arange(70).reshape(7, 10).astype(np.uint8)
    levels = (np.arange(70).reshape(7, 10) * 931).astype(np.uint16)
    with new_part(tmp_path, 0) as file:
        store(file, [Prediction(0, "a", view(classes), view(levels))])
    (stored,) = read_predictions(part_file(tmp_path, 0), ["a"])
    np.testing.assert_array_equal(stored.classes, view(classes))
    np.testing.assert_array_equal(stored.confidence, view(levels))


def test_the_file_says_what_it_holds(tmp_path):
    path, _ = joined(tmp_path)
    with h5py.File(path) as file:
        assert dict(file.attrs) == {"model_sha256": "abc", "lowest": -16.0}
        assert file["classes/0"].attrs["id"] == b"town/a"
        assert file["classes/0"].chunks == file["classes/0"].shape == (4, 6)
        assert file["confidence/1"].chunks == (5, 3)
        assert {kind: file[f"{kind}/0"].compression for kind in file} == {
            "classes": "gzip",
            "confidence": "gzip",
        }


def test_a_histogram_counts_each_class_at_each_level():
    classes = np.array([[0, 1], [1, 1]], np.uint8)
    levels = np.array([[5, 65535], [65535, 0]], np.uint16)
    counts = histogram(classes, levels, 3)
    assert counts.shape == (3, BINS) and counts.dtype == np.int64
    assert counts[0, 5] == 1 and counts[1, 65535] == 2 and counts[1, 0] == 1
    assert counts.sum() == 4


def test_equal_histograms_are_written_in_equal_bytes_and_read_back(tmp_path):
    counts = np.random.default_rng(0).integers(0, 9, (2, BINS))
    for name in ("a.npz", "b.npz"):
        write_histogram(tmp_path / name, counts)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    np.testing.assert_array_equal(read_histogram(tmp_path / "a.npz"), counts)


def test_a_part_counts_as_closed_only_with_its_histogram(tmp_path):
    write_parts(tmp_path, make_predictions())
    assert part_is_closed(tmp_path, 0) and part_is_closed(tmp_path, 1)
    assert not part_is_closed(tmp_path, 2)
    (tmp_path / "000000.npz").unlink()
    (tmp_path / "000001.h5").unlink()
    assert not part_is_closed(tmp_path, 0) and not part_is_closed(tmp_path, 1)


def test_a_part_that_fails_leaves_no_file(tmp_path):
    with pytest.raises(KeyboardInterrupt), new_part(tmp_path, 0) as file:
        store(file, make_predictions()[:1])
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "ids", [["town/a", "c", "b", "d"], ["other", "b", "c", "d"], [*IDS, "a fifth"]]
)
def test_predictions_of_other_ids_are_refused(ids, tmp_path):
    path, _ = joined(tmp_path)
    with pytest.raises(DataError, match=r"predictions\.h5: row \d"):
        list(read_predictions(path, ids))


def test_missing_predictions_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.h5"):
        list(read_predictions(tmp_path / "none.h5", IDS))


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.6, 0.99])
def test_truncated_predictions_are_refused(share, tmp_path):
    path, _ = joined(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=r"predictions\.h5"):
        list(read_predictions(path, IDS))


@pytest.mark.parametrize("position", [0, 20, 48, 100, 300])
def test_predictions_with_overwritten_structure_are_refused(position, tmp_path):
    path, _ = joined(tmp_path)
    content = bytearray(path.read_bytes())
    content[position : position + 16] = b"\xff" * 16
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"predictions\.h5"):
        list(read_predictions(path, IDS))


def test_predictions_without_their_confidences_are_refused(tmp_path):
    path, _ = joined(tmp_path)
    with h5py.File(path, "a") as file:
        del file["confidence/1"]
    with pytest.raises(DataError, match=r"predictions\.h5: row 1"):
        list(read_predictions(path, IDS))


def test_a_missing_histogram_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.npz"):
        read_histogram(tmp_path / "none.npz")


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_a_truncated_histogram_is_refused(share, tmp_path):
    path = tmp_path / "histogram.npz"
    write_histogram(path, np.random.default_rng(0).integers(0, 9, (2, BINS)))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=r"histogram\.npz"):
        read_histogram(path)


def test_a_histogram_with_overwritten_bytes_is_refused(tmp_path):
    path = tmp_path / "histogram.npz"
    write_histogram(path, np.random.default_rng(0).integers(0, 9, (2, BINS)))
    content = bytearray(path.read_bytes())
    content[20000:20100] = b"\0" * 100
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"histogram\.npz"):
        read_histogram(path)


@pytest.mark.parametrize(
    "counts", [np.zeros((2, 100), np.int64), np.zeros(BINS, np.int64), np.zeros((2, BINS))]
)
def test_a_histogram_of_another_shape_or_type_is_refused(counts, tmp_path):
    np.savez(tmp_path / "h.npz", counts=counts)
    with pytest.raises(DataError, match=r"h\.npz: found .* expected int64 \(classes, 65536\)"):
        read_histogram(tmp_path / "h.npz")


def test_a_histogram_that_hides_a_pickle_is_refused(tmp_path):
    np.savez(tmp_path / "h.npz", counts=np.array([print], object))
    with pytest.raises(DataError, match=r"h\.npz"):
        read_histogram(tmp_path / "h.npz")


@pytest.mark.parametrize("trick", ["link to another file", "link within", "storage", "virtual"])
def test_values_that_lie_elsewhere_are_not_read(trick, tmp_path):
    path, _ = joined(tmp_path)
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as other:
        other["values"] = np.full((4, 6), 7, np.uint8)
    with h5py.File(path, "r+") as file:
        original = file["classes/0"][...]
        del file["classes/0"]
        if trick == "link to another file":
            file["classes/0"] = h5py.ExternalLink(str(secret), "values")
        elif trick == "link within":
            file["elsewhere"] = original
            file["classes/0"] = h5py.SoftLink("/elsewhere")
        elif trick == "storage":
            place = [(str(secret), 0, 24)]
            file.create_dataset("classes/0", (4, 6), np.uint8, external=place)
        else:
            layout = h5py.VirtualLayout((4, 6), np.uint8)
            layout[...] = h5py.VirtualSource(str(secret), "values", (4, 6))
            file.create_virtual_dataset("classes/0", layout)
        if trick in ("storage", "virtual"):
            file["classes/0"].attrs["id"] = IDS[0]
    with pytest.raises(DataError, match=r"predictions\.h5: row 0: .*delete the file"):
        next(read_predictions(path, IDS))


def test_smooth_predictions_take_half_of_their_size_and_noise_no_more_than_it(tmp_path):
    smooth = np.add.outer(np.arange(300), np.arange(400)).astype(np.uint16) * 60
    noise = np.random.default_rng(0).integers(0, BINS, smooth.shape).astype(np.uint16)
    sizes = []
    for name, confidence in (("smooth", smooth), ("noise", noise)):
        classes = (confidence // 30000).astype(np.uint8)
        (tmp_path / name).mkdir()
        path, _ = joined(tmp_path / name, predictions=[Prediction(0, "a", classes, confidence)])
        sizes.append(path.stat().st_size / confidence.size)
    assert sizes[0] < 1.6 and sizes[1] < 3.05


def change_first(path, change):
    """Replace the classes of the first image by what `change` makes of (file, old values)."""
    with h5py.File(path, "r+") as file:
        old = file["classes/0"][...]
        del file["classes/0"]
        change(file, old)
        if "classes/0" in file and isinstance(file["classes/0"], h5py.Dataset):
            file["classes/0"].attrs["id"] = IDS[0]


def stored(shape, dtype=np.uint8, **options):
    options = {"chunks": shape, "shuffle": True, "compression": "gzip", **options}
    return lambda file, old: file.create_dataset("classes/0", shape, dtype, **options)


def with_chunk(content, mask=0):
    """A data set of 4 x 6 pixels, whose chunk holds these bytes."""

    def change(file, old):
        made = stored((4, 6))(file, old)
        made.id.write_direct_chunk((0, 0), content, mask)

    return change


UNUSABLE = {
    "a group": lambda file, old: file.create_group("classes/0"),
    "numbers of another type": stored((4, 6), np.int16),
    "texts": stored((4, 6), h5py.string_dtype()),
    "a line of pixels": stored((24,)),
    "no pixels": lambda file, old: file.create_dataset("classes/0", (0, 0), np.uint8),
    "nothing at all": lambda file, old: file.create_dataset("classes/0", data=h5py.Empty("u1")),
    "a size without data": stored((60_000, 60_000)),
    "a size of petabytes": lambda file, old: file.create_dataset(
        "classes/0", (1 << 31, 1 << 20), np.uint8, chunks=(1 << 10, 1 << 10)
    ),
    "several chunks": lambda file, old: file.create_dataset(
        "classes/0", data=old, chunks=(2, 2), shuffle=True, compression="gzip"
    ),
    "another filter": stored((4, 6), fletcher32=True),
    "a chunk of noise": with_chunk(b"noise" * 5),
    "a chunk without the end of its checksum": with_chunk(zlib.compress(bytes(24))[:-2]),
    "a chunk of too few pixels": with_chunk(zlib.compress(bytes(23))),
    "a chunk of too many pixels": with_chunk(zlib.compress(bytes(25))),
    "a chunk that was not compressed": with_chunk(bytes(24), mask=2),
    "a chunk that expands a thousand times": with_chunk(zlib.compress(bytes(1 << 16))),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_predictions_of_another_form_are_refused_before_memory_is_taken(kind, tmp_path):
    path, _ = joined(tmp_path)
    change_first(path, UNUSABLE[kind])
    tracemalloc.start()
    with pytest.raises(DataError, match=r"predictions\.h5: .*delete the file to make it again"):
        list(read_predictions(path, IDS))
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()


def test_a_chunk_is_not_expanded_beyond_its_size(tmp_path):
    large = Prediction(0, IDS[0], np.zeros((300, 300), np.uint8), np.zeros((300, 300), np.uint16))
    path, _ = joined(tmp_path, predictions=[large])
    bomb = zlib.compress(bytes(80 << 20))

    def change(file, old):
        stored((300, 300))(file, old).id.write_direct_chunk((0, 0), bomb)

    change_first(path, change)
    tracemalloc.start()
    with pytest.raises(DataError, match=r"predictions\.h5: .*does not hold 90000 bytes"):
        list(read_predictions(path, IDS[:1]))
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()


def test_larger_predictions_than_any_image_are_refused(tmp_path, monkeypatch):
    path, _ = joined(tmp_path)
    monkeypatch.setattr(predictions, "MOST_PIXELS", 23)
    with pytest.raises(DataError, match=r"row 0: classes: found \(4, 6\)"):
        list(read_predictions(path, IDS))


@pytest.mark.parametrize("shuffle, mask", [(False, 0), (True, 1)])
def test_confidences_whose_bytes_are_in_another_order_are_refused(shuffle, mask, tmp_path):
    path, _ = joined(tmp_path)
    levels = make_predictions()[0].confidence
    with h5py.File(path, "r+") as file:
        del file["confidence/0"]
        options = {"shuffle": shuffle, "compression": "gzip", "chunks": levels.shape}
        made = file.create_dataset("confidence/0", data=levels, **options)
        made.id.write_direct_chunk((0, 0), zlib.compress(levels.tobytes()), mask)
    with pytest.raises(DataError, match=r"predictions\.h5: .*delete the file"):
        list(read_predictions(path, IDS))


def test_a_link_to_predictions_in_another_file_is_not_followed(tmp_path):
    path, _ = joined(tmp_path)
    shutil.copy(path, tmp_path / "other.h5")
    with h5py.File(path, "r+") as file:
        del file["classes/0"]
        file["classes/0"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/classes/0")
    with pytest.raises(DataError, match=r"predictions\.h5: row 0: no classes, or a link"):
        list(read_predictions(path, IDS))


@pytest.mark.parametrize("id", [None, 7, [1, 2], "town/b", b"\xff", h5py.Empty("S1")])
def test_predictions_of_an_image_without_its_id_are_refused(id, tmp_path):
    path, _ = joined(tmp_path)
    with h5py.File(path, "r+") as file:
        del file["classes/0"].attrs["id"]
        if id is not None:
            file["classes/0"].attrs["id"] = id
    with pytest.raises(DataError, match=r"predictions\.h5: row 0 is not the image 'town/a'"):
        list(read_predictions(path, IDS))


def with_ids_of_any_length(path):
    """Give the ids the type that earlier versions wrote, which HDF5 stores in a heap."""
    with h5py.File(path, "r+") as file:
        for kind in file:
            for row, id in enumerate(IDS):
                file[f"{kind}/{row}"].attrs["id"] = id
    assert b"GCOL" in path.read_bytes()


def test_predictions_of_an_earlier_version_are_read(tmp_path):
    path, _ = joined(tmp_path)
    new = list(read_predictions(path, IDS))
    with_ids_of_any_length(path)
    for one, other in zip(new, read_predictions(path, IDS), strict=True):
        assert one.id == other.id
        np.testing.assert_array_equal(one.classes, other.classes)


def test_a_heap_in_which_hdf5_would_search_for_ever_is_refused(tmp_path, monkeypatch):
    path, _ = joined(tmp_path)
    assert b"GCOL" not in part_file(tmp_path, 0).read_bytes()
    with_ids_of_any_length(path)
    hdf5_heaps.require_sound(path)
    content = bytearray(path.read_bytes())
    start = content.rindex(b"GCOL") + 16
    content[start : start + 16] = bytes(16)
    path.write_bytes(content)
    # If it were not refused, the test would end here, not in the library.
    monkeypatch.setattr(h5py.AttributeManager, "__getitem__", lambda *_: pytest.fail("was read"))
    with pytest.raises(DataError, match=r"predictions\.h5: not readable as HDF5: damaged at byte"):
        list(read_predictions(path, IDS))


def test_classes_and_confidences_of_two_sizes_are_refused(tmp_path):
    path, _ = joined(tmp_path)
    with h5py.File(path, "r+") as file:
        file.move("confidence/0", "confidence/9")
        file.copy("confidence/1", file["confidence"], "0")
    with pytest.raises(DataError, match=r"predictions\.h5: row 0 is not the image 'town/a'"):
        list(read_predictions(path, IDS))


@pytest.mark.parametrize("damage", ["cut", "group", "row", "no file", "histogram"])
def test_a_damaged_part_is_named_when_the_parts_are_joined(damage, tmp_path):
    parts = write_parts(tmp_path, make_predictions())
    part = part_file(tmp_path, 1)
    if damage == "cut":
        part.write_bytes(part.read_bytes()[:-400])
    elif damage == "no file":
        part.write_bytes(b"")
    elif damage == "histogram":
        part = part.with_suffix(".npz")
        part.write_bytes(b"PK")
    else:
        with h5py.File(part, "r+") as file:
            del file["confidence"]
            if damage == "row":
                file["classes"].create_group("first")
    with pytest.raises(DataError, match=rf"{part.name}: .*delete the file"):
        join_parts(tmp_path, parts, tmp_path / "predictions.h5", {})
    assert not (tmp_path / "predictions.h5").exists() or damage == "histogram"


def test_a_full_disk_is_told_while_parts_are_joined(tmp_path, monkeypatch):
    parts = write_parts(tmp_path, make_predictions())

    def full(*_, **__):
        raise RuntimeError("HDF5 cannot write")

    monkeypatch.setattr(h5py.Group, "copy", full)
    for module in (files, reading):
        monkeypatch.setattr(module, "is_full", lambda error, folder: True)
    with pytest.raises(NoSpace, match="no space left"):
        join_parts(tmp_path, parts, tmp_path / "predictions.h5", {})


def test_an_array_that_is_named_npz_is_refused(tmp_path):
    path = tmp_path / "h.npy"
    np.save(path, np.zeros((2, BINS), np.int64))
    with pytest.raises(DataError, match=r"h\.npz: not readable as a histogram"):
        read_histogram(path.rename(tmp_path / "h.npz"))


@pytest.mark.parametrize(
    "header, reason",
    [
        ({"shape": (1 << 50, BINS)}, "1125899906842624 classes, expected 1 to 255"),
        ({"shape": (3, BINS)}, "1048576 bytes of 3 classes"),
        ({"shape": (1, BINS)}, "524289 bytes of 1 classes"),
        ({"descr": "|O"}, "found object"),
        ({"fortran_order": True}, "found int64"),
        ({"shape": (-1, BINS)}, "-1 classes, expected 1 to 255"),
    ],
)
def test_a_histogram_whose_header_does_not_fit_is_refused(header, reason, tmp_path):
    buffer = io.BytesIO()
    whole = {"descr": "<i8", "fortran_order": False, "shape": (2, BINS), **header}
    np.lib.format.write_array_header_1_0(buffer, whole)
    with zipfile.ZipFile(tmp_path / "h.npz", "w") as file:
        file.writestr("counts.npy", buffer.getvalue() + bytes(2 * BINS * 8))
    with pytest.raises(DataError, match=rf"h\.npz: .*{reason}.*delete the file"):
        read_histogram(tmp_path / "h.npz")


def test_a_histogram_with_less_than_no_pixels_is_refused(tmp_path):
    counts = np.zeros((2, BINS), np.int64)
    counts[1, 5] = -1
    write_histogram(tmp_path / "h.npz", counts)
    with pytest.raises(DataError, match=r"h\.npz: counts from -1 to 0"):
        read_histogram(tmp_path / "h.npz")


def test_the_number_of_threads_that_encode_changes_no_byte(tmp_path):
    for threads in (1, 3):
        with new_part(tmp_path / str(threads), 0) as file:
            store(file, make_predictions(), threads)
    one, three = (part_file(tmp_path / str(threads), 0).read_bytes() for threads in (1, 3))
    assert one == three
