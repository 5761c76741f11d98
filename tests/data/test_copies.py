"""Images that occur more than once: by their bytes, or by what they show."""

import re
from pathlib import Path

import numpy as np
from PIL import Image

from dst_cbc.data import copies
from dst_cbc.data.copies import alike_across, identical_files, slopes
from dst_cbc.data.groups import groups_of
from dst_cbc.data.images import Decoded
from dst_cbc.data.index import Row
from dst_cbc.settings.data import PairSettings


def test_files_are_identical_if_all_their_bytes_are(tmp_path, monkeypatch):
    middle = bytes(5000)
    contents = {
        "a": b"1" * 9000 + middle + b"2" * 9000, "b": b"1" * 9000 + middle + b"3" * 9000,
        "c": b"1" * 9000 + middle + b"2" * 9000, "d": b"short", "e": b"other", "f": b"short",
        "g": b"longer", "h": b"",
    }  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    read = []
    whole = copies.sha256_of
    monkeypatch.setattr(copies, "sha256_of", lambda path: read.append(path.name) or whole(path))
    assert identical_files(tmp_path, contents) == [["a", "c"], ["d", "f"]]
    assert sorted(read) == ["a", "b", "c", "d", "f"]
    assert identical_files(Path("nowhere"), []) == []


def scene(seed, shift=0, size=(96, 128)):
    """A smooth random picture, uint8 (H, W, 3), moved to the left by some pixels."""
    height, width = size
    noise = np.random.default_rng(seed).integers(0, 256, (12, 24, 3), np.uint8)
    wide = Image.fromarray(noise).resize((2 * width, height), Image.Resampling.BICUBIC)
    return np.asarray(wide)[:, shift : shift + width]


def hash_of(pixels):
    deep = pixels if pixels.dtype == np.uint16 else None
    return slopes(Decoded(None if deep is not None else Image.fromarray(pixels), deep, False))


def row(id, subset, sha256=""):
    return Row(id, f"{id}.png", "", 96, 128, subset, sha256 or id, "")


def warned(frames, pairs=None):
    """Warnings for frames, by id: (subset, pixels)."""
    rows = [row(id, subset) for id, (subset, _) in frames.items()]
    return alike_across(rows, [hash_of(pixels) for _, pixels in frames.values()], pairs)


def test_the_slopes_of_a_thumbnail_rise_fall_or_are_level():
    ramp = np.tile(np.repeat(np.arange(0, 180, 20, dtype=np.uint8), 4), (36, 1))
    found = hash_of(ramp)
    assert found is not None and found.dtype == np.int8 and found.shape == (128,)
    assert (found[:64] == 1).all() and (found[64:] == 0).all()
    assert (hash_of(ramp.T.copy()) == np.roll(found, 64)).all()
    assert (hash_of(180 - ramp) == -found).all()
    assert (hash_of(ramp.astype(np.uint16) * 200) == found).all()
    assert hash_of(np.full((9, 9), 7, np.uint8)) is None


def test_frames_of_one_video_in_two_subsets_are_warned_of_with_the_group_that_parts_them():
    frames = {
        f"clip{clip}_{n:03}": ("val" if n == 2 else "train", scene(clip, n))
        for clip in range(4)
        for n in range(4)
    }
    (warning,) = warned(frames, PairSettings(labels="m"))
    assert warning.startswith(
        "WARNING: images that look alike in train and val, 4 of val: clip0_002"
    )
    pattern = re.search(r"--group '(.+?)' does", warning)
    assert pattern and groups_of(frames, pattern[1])["clip2_001"] == "clip2"
    (warning,) = warned(frames)
    assert "--group" not in warning and "all frames of a video in one subset" in warning
    parted = {id: ("val" if "clip0" in id else "train", p) for id, (_, p) in frames.items()}
    assert warned(parted) == []


def test_names_that_show_no_group_get_no_pattern_and_numbers_alone_may_show_one():
    frames = {f"clip_{n}": ("test" if n % 3 else "val", scene(0, n)) for n in range(9)}
    (warning,) = warned(frames, PairSettings(labels="m"))
    assert "in val and test, 6 of test" in warning and "--group" not in warning
    named = {
        f"seq{c}x{n}": ("val" if n else "train", scene(c, n)) for c in range(4) for n in (0, 1)
    }
    assert r"--group '^(.*?)\d+$'" in warned(named, PairSettings(labels="m"))[0]


def test_different_brightness_and_noise_are_alike_and_different_scenes_are_not():
    noise = np.random.default_rng(0).normal(0, 8, (96, 128, 3))
    darker = np.clip(0.8 * scene(0) + noise, 0, 255).astype(np.uint8)
    assert len(warned({"a": ("train", scene(0)), "b": ("val", darker)})) == 1
    many = {f"{n}": ("val" if n % 2 else "train", scene(n)) for n in range(80)}
    assert warned(many) == []


def test_identical_and_plain_images_are_not_said_to_look_alike():
    one = scene(0)
    rows = [row("a", "train", "same"), row("b", "val", "same")]
    assert alike_across(rows, [hash_of(one)] * 2, None) == []
    plain = np.full((96, 128), 3, np.uint8)
    plain[:40, :40] = 200
    assert warned({"a": ("train", plain), "b": ("val", plain + 1)}) == []
