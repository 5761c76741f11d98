import json

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from dst_cbc.data import digit_scenes
from dst_cbc.data.digit_scenes import CLASSES, SUBSETS, draw_scene, pools, scene_ids, write_scenes
from dst_cbc.settings.data import DrawSettings

SETTINGS = DrawSettings(size=64, digits=(3, 5), digit_size=(14.0, 18.0))
SCENES = [(subset, index) for subset in SUBSETS for index in range(6)]


@pytest.mark.parametrize("seed", [0, 1, 77])
def test_no_digit_of_one_subset_is_in_the_pool_of_another(seed):
    drawn_from = pools(seed)
    together = np.concatenate([drawn_from[subset] for subset in SUBSETS])
    assert sorted(together) == list(range(1797))
    shares = [len(drawn_from[subset]) / 1797 for subset in SUBSETS]
    np.testing.assert_allclose(shares, [0.60, 0.15, 0.25], atol=0.001)


@pytest.mark.parametrize("seed", [0, 1])
def test_every_pool_has_every_digit(seed):
    targets = load_digits().target
    for pool in pools(seed).values():
        assert set(targets[pool]) == set(range(10))


def test_a_scene_draws_only_from_the_pool_of_its_subset(monkeypatch):
    used = []
    stroke = digit_scenes._stroke
    monkeypatch.setattr(
        digit_scenes, "_stroke", lambda s, r, digit: used.append(digit) or stroke(s, r, digit)
    )
    for subset in SUBSETS:
        used.clear()
        for index in range(12):
            draw_scene(SETTINGS, subset, index)
        assert len(used) >= 36 and set(used) <= set(pools(SETTINGS.seed)[subset])


@pytest.mark.parametrize("subset, index", SCENES[::5])
def test_a_scene_is_the_same_whatever_the_numbers_of_scenes(subset, index):
    few = SETTINGS.model_copy(update={"train": 1, "val": 1, "test": 1})
    many = SETTINGS.model_copy(update={"train": 900, "val": 90, "test": 9})
    for one, other in zip(
        draw_scene(few, subset, index), draw_scene(many, subset, index), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_two_draws_are_equal_whatever_was_drawn_between():
    first = draw_scene(SETTINGS, "val", 2)
    draw_scene(SETTINGS, "train", 0)
    np.random.default_rng(0).random()
    for one, other in zip(first, draw_scene(SETTINGS, "val", 2), strict=True):
        np.testing.assert_array_equal(one, other)


def test_every_scene_differs_by_subset_index_and_seed():
    other_seed = SETTINGS.model_copy(update={"seed": 1})
    images = {draw_scene(SETTINGS, subset, index)[0].tobytes() for subset, index in SCENES}
    images |= {draw_scene(other_seed, subset, index)[0].tobytes() for subset, index in SCENES}
    assert len(images) == 2 * len(SCENES)


@pytest.mark.parametrize("subset, index", SCENES)
def test_a_scene_has_its_size_and_different_digits_only(subset, index):
    image, label = draw_scene(SETTINGS, subset, index)
    assert image.shape == (64, 64, 3) and image.dtype == np.uint8
    assert label.shape == (64, 64) and label.dtype == np.uint8
    assert label.max() <= 10 and 0 in label
    assert 1 <= len(np.unique(label)) - 1 <= 5


def test_classes_are_where_the_ink_is_and_nowhere_else():
    flat = SETTINGS.model_copy(
        update={"ruled": 0.0, "stains": 0, "shade": 0.0, "noise": (0.0, 0.0), "ink": (0.9, 0.95)}
    )
    for index in range(8):
        image, label = draw_scene(flat, "train", index)
        brightness = image.astype(float).mean(-1)
        paper = np.median(brightness)
        assert (brightness[label > 0] < paper - 25).all()
        dark = brightness < paper - 110
        beside = np.pad(label, 1)
        near = np.max(
            [beside[1 + y : 65 + y, 1 + x : 65 + x] for y in (-1, 0, 1) for x in (-1, 0, 1)], 0
        )
        assert (near[dark] > 0).all()


def test_class_names_are_the_background_and_the_digits():
    assert list(CLASSES) == ["background", *map(str, range(10))]


def test_ids_name_every_scene_once(small_scenes):
    found = list(scene_ids(small_scenes))
    assert len(found) == len(set(found)) == 8 + 3 + 2
    assert found[0] == ("train", "train-0000") and found[-1] == ("test", "test-0001")


def test_written_scenes_are_the_drawn_ones(drawn, small_scenes):
    image, label = draw_scene(small_scenes, "val", 1)
    written = Image.open(drawn / "labels/val/val-0001.png")
    np.testing.assert_array_equal(np.asarray(Image.open(drawn / "images/val/val-0001.png")), image)
    np.testing.assert_array_equal(np.asarray(written), label)
    assert written.mode == "P"
    assert json.loads((drawn / "scenes.json").read_text()) == json.loads(small_scenes.canonical())


def test_drawing_again_writes_no_file_again(tmp_path, small_scenes):
    few = small_scenes.model_copy(update={"train": 2, "val": 1, "test": 1})
    write_scenes(few, tmp_path)
    before = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in tmp_path.rglob("*.*")}
    write_scenes(few, tmp_path)
    assert {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in tmp_path.rglob("*.*")} == before


def test_a_drawing_that_was_interrupted_does_not_look_whole(tmp_path, small_scenes, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(digit_scenes, "draw_scene", fail)
    with pytest.raises(KeyboardInterrupt):
        write_scenes(small_scenes, tmp_path)
    assert not (tmp_path / "scenes.json").exists()
