"""An experiment file from two folders: what is found, assumed, held out and refused."""

import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dst_cbc.cli import Parser
from dst_cbc.data.groups import groups_of
from dst_cbc.own_images import experiment_text, inspection
from dst_cbc.own_images.classes import class_table
from dst_cbc.own_images.draft import Machine, hold_out, make
from dst_cbc.own_images.inspection import common_folder, guess_group, with_names
from dst_cbc.planning import cost
from dst_cbc.planning.cost import Measured
from dst_cbc.planning.plan import load_plan
from dst_cbc.runtime import devices
from dst_cbc.runtime.errors import DataError
from dst_cbc.settings.data import PairSettings
from workflow import REPOSITORY, new_experiment

LAPTOP = Machine(cuda=False, cores=4, threads=4)


@pytest.fixture
def folders(tmp_path):
    """Function that writes images `<name>.tif` and masks, and returns both folders."""

    def write(names, masks, image=None):
        for folder in ("my images", "masks"):
            (tmp_path / folder).mkdir(exist_ok=True)
        pixels = np.zeros((64, 96), np.uint8) if image is None else image
        for name in names:
            path = tmp_path / "my images" / f"{name}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(path, pixels)
        for name, mask in masks.items():
            path = tmp_path / "masks" / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.asarray(mask, np.uint8)).save(path)
        return tmp_path / "my images", tmp_path / "masks"

    return write


def halves(low=0, high=255):
    mask = np.full((64, 96), low, np.uint8)
    mask[:32] = high
    return mask


def look(folders, **options):
    root, settings = common_folder(*folders)
    return inspection.inspect(root, with_names(root, settings), **options)


def made_up(pixels, images=9, coloured=False):
    """An inspection in which only the mask values matter."""
    pairs = [(f"i{n}", f"i{n}.png", "m.png") for n in range(images)]
    counted = Counter(dict.fromkeys(pixels, images))
    return inspection.Inspection(
        Path(), PairSettings(labels="m"), pairs, Counter(pixels), counted, coloured, {},
        Counter({(96, 64): images}), Counter({"8-bit grey": images}), Counter(),
    )  # fmt: skip


def test_a_folder_of_images_and_one_of_masks_become_an_experiment_that_loads(folders, tmp_path):
    names = [f"cell {n:03}" for n in range(24)]
    deep = np.arange(64 * 96, dtype=np.uint16).reshape(64, 96)
    both = folders(names, {f"{name}_mask": halves() for name in names[:10]}, deep)
    found = look(both)
    assert (len(found.pairs), len(found.masked)) == (24, 10)
    assert found.kinds == {"16-bit grey": 24} and found.pixels == {0: 30720, 255: 30720}
    proposed = make("cells", found, None, LAPTOP)
    text = experiment_text.text(proposed, str(found.root), "a command")
    (tmp_path / "cells.yaml").write_text(text)
    experiment, records, plan = load_plan(REPOSITORY, [tmp_path / "cells.yaml"], {})
    assert experiment.classes == {"background": "#000000", "foreground": "#e69f00"}
    assert experiment.labels == {0: "background", 255: "foreground"}
    assert Counter(r.subset for r in records) == {"train": 22, "test": 2}
    assert all(r.label for r in records if r.subset != "train")
    names = ["supervised", *(f"dst-cbc/round{n}" for n in range(1, 6)), "supervised-long/round1"]
    splits = [*(f"all_0_fold{n}" for n in (1, 2, 3)), "all_0_folds"]
    assert {*plan.models} == {f"{split}/{name}" for split in splits for name in names}
    said = "\n".join(experiment_text.describe(proposed))
    for words in (
        "24 images, 10 of them",
        "`{}_mask`",
        "16-bit grey (24)",
        "8 masks are divided into 3",
    ):
        assert words in said


@pytest.mark.parametrize(
    "bands, kind, note",
    [
        (None, "8-bit RGB", "alpha channel of the image is not used"),
        ((4, 3, 2), "8-bit RGB", "1 of 4 channels of the image are not used (`bands`)"),
        ((4,), "8-bit grey", "3 of 4 channels of the image are not used (`bands`)"),
    ],
)
def test_channels_are_named_and_chosen(bands, kind, note, folders, tmp_path):
    names = [f"field {n}" for n in range(9)]
    image = np.zeros((64, 96, 4), np.uint8)
    found = look(folders(names, {name: halves() for name in names[:4]}, image), bands=bands)
    assert found.kinds == {kind: 9}
    proposed = make("fields", found, None, LAPTOP)
    assert f"found: {note}: 9 images" in experiment_text.describe(proposed)
    (tmp_path / "fields.yaml").write_text(experiment_text.text(proposed, str(found.root), "x"))
    experiment, _, _ = load_plan(REPOSITORY, [tmp_path / "fields.yaml"], {})
    assert experiment.bands == bands


def test_images_that_are_turned_are_counted_and_explain_a_mask_of_another_size(folders):
    both = folders(["a", "b", "c"], {"a": halves(), "b": halves()})
    tag = [(274, "H", 1, 3, True)]
    tifffile.imwrite(both[0] / "b.tif", np.zeros((64, 96), np.uint8), extratags=tag)
    note = "image is turned as its EXIF orientation says; its mask must fit the turned image"
    assert look(both).notes == {note: 1}
    tag = [(274, "H", 1, 6, True)]
    tifffile.imwrite(both[0] / "b.tif", np.zeros((64, 96), np.uint8), extratags=tag)
    with pytest.raises(DataError, match=r"b\.png: size .* turned as its EXIF .*; turn its mask"):
        look(both)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float32])
def test_masks_of_whole_numbers_of_any_type_are_looked_at(dtype, folders):
    images, masks = folders(["a", "b"], {"a": halves()})
    (masks / "a.png").unlink()
    tifffile.imwrite(masks / "a.tif", halves(high=3).astype(dtype))
    assert look((images, masks)).pixels == {0: 3072, 3: 3072}


IDS = st.lists(
    st.tuples(st.integers(0, 8), st.integers(0, 99)).map(lambda p: f"s{p[0]}_{p[1]:02}"),
    min_size=3, max_size=40, unique=True,
)  # fmt: skip


@given(IDS, st.sampled_from([None, r"^(s\d)_"]))
def test_every_mask_has_one_role_and_no_group_two(ids, group):
    val, test = hold_out(ids, group)
    train = {*ids} - {*val} - {*test}
    assert not {*val} & {*test} and {*val, *test} <= {*ids} and train
    sides = [{*groups_of(side, group).values()} for side in (val, test, train)]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    groups = {*groups_of(ids, group).values()}
    assert bool(val) == (len(groups) > 1) and bool(test) == (len(groups) > 2)
    assert hold_out(ids[::-1], group) == (val, test)


TWINS = st.lists(st.lists(st.sampled_from([f"s{n // 9}_{n:02}" for n in range(60)]),
                          min_size=2, max_size=3, unique=True), max_size=4)  # fmt: skip


@given(IDS, st.sampled_from([None, r"^(s\d)_"]), TWINS)
def test_identical_images_are_on_one_side(ids, group, twins):
    val, test = hold_out(ids, group, twins)
    held = {*val, *test}
    groups = groups_of({*ids, *(id for one in twins for id in one)}, group)
    out = {groups[id] for id in held}
    for one in twins:
        sides = {
            "val" if id in val else "test" if id in test else "train"
            for id in one
            if id in held or groups[id] not in out
        }
        assert len(sides) <= 1
    train = {*ids} - held
    assert train and not {*val} & {*test}
    assert not {groups[id] for id in train} & out


def test_about_a_fifth_is_held_out_for_each_and_never_more_than_a_hundred():
    assert [*map(len, hold_out([f"{n:04}" for n in range(60)], None))] == [12, 12]
    assert [*map(len, hold_out([f"{n:04}" for n in range(3000)], None))] == [100, 100]


@pytest.mark.parametrize(
    "stems, group",
    [
        ([f"scene{s}_{n:04}" for s in range(4) for n in range(5)], "scene1"),
        ([f"slide{s}/tile {n}" for s in range(3) for n in range(9)], "slide1"),
        ([f"img1-s{s}-{n}" for s in range(3) for n in range(9)], "img1-s1"),
        ([f"cell_{n:04}" for n in range(30)], None),
        ([f"{n:04}" for n in range(30)], None),
        ([f"{n:04}_x" for n in range(30)], None),
    ],
)
def test_groups_are_guessed_from_the_beginnings_of_names(stems, group):
    pattern = guess_group(stems, stems)
    assert (pattern is None) == (group is None)
    if group:
        groups = {*groups_of(stems, pattern).values()}
        assert group in groups and len(groups) in (3, 4)


def test_zero_and_255_are_background_and_foreground_and_255_among_several_is_ignored():
    table = class_table(made_up({0: 900, 255: 100}))
    assert table.labels == {0: "background", 255: "foreground"} and table.ignore == []
    table = class_table(made_up({0: 900, 1: 50, 255: 50}))
    assert table.labels == {0: "background", 1: "foreground"} and table.ignore == [255]
    table = class_table(made_up({0x000000: 9, 0xFF0000: 9, 0xFFFF00: 9}, coloured=True))
    assert table.labels == {
        "#000000": "background", "#ff0000": "colour ff0000", "#ffff00": "colour ffff00",
    }  # fmt: skip
    assert list(table.classes.values()) == ["#000000", "#ff0000", "#ffff00"]


def test_hundreds_of_values_are_refused_with_the_most_frequent():
    with pytest.raises(DataError, match=r"200 different values.*most frequent: 7 \(4\.8%\)"):
        class_table(made_up({**dict.fromkeys(range(200), 100), 7: 1000}))
    with pytest.raises(DataError, match="hold only 0; expected at least two classes"):
        class_table(made_up({0: 100}))


def test_rare_classes_are_warned_of():
    (warning,) = class_table(made_up({0: 100_000, 1: 50_000, 2: 90})).warnings
    assert "class 'class 2' has 0.060% of the pixels" in warning
    few = made_up({0: 10, 1: 10, 2: 10})
    (warning,) = class_table(replace(few, images=Counter({0: 9, 1: 9, 2: 2}))).warnings
    assert "in 2 of 9 masks" in warning


def test_no_pair_tells_what_was_seen_on_both_sides(folders):
    both = folders(["a1", "a2"], {"b1": halves()})
    with pytest.raises(DataError, match=r"no image and mask.*'a1', 'a2'; masks: 'b1'"):
        look(both)


def test_empty_and_missing_folders_and_jpeg_masks_are_named(folders, tmp_path):
    images, masks = folders([], {"b": halves()})
    with pytest.raises(DataError, match=r"my images: no file ends in .*found nothing"):
        look((images, masks))
    with pytest.raises(DataError, match="nowhere: no such folder"):
        look((images, tmp_path / "nowhere"))
    folders(["b"], {})
    (masks / "b.png").rename(masks / "b.jpg")
    with pytest.raises(DataError, match=r"found 1 of \.jpg\. JPEG changes"):
        look((images, masks))


def test_float_images_are_named_with_the_conversion_to_make(folders):
    both = folders(["a"], {"a": halves()}, np.zeros((64, 96), np.float32))
    with pytest.raises(DataError, match=r"a\.tif: .*floating point.*tifffile\.imwrite"):
        look(both)


def test_too_few_masks_are_refused_before_anything_is_trained():
    with pytest.raises(DataError, match=r"3 images have a mask.*at least 2 to train on"):
        make("few", made_up({0: 1, 1: 1}, images=3), None, LAPTOP)
    assert make("few", made_up({0: 1, 1: 1}, images=4), None, LAPTOP).batch == 4


@given(st.dictionaries(st.text("abcXYZ ._é", min_size=1), st.just(1), min_size=1, max_size=3))
def test_any_value_is_written_so_that_yaml_reads_it_back(values):
    for value in values:
        assert yaml.safe_load(f"k: {experiment_text._flow(value)}")["k"] == value


def command(script, *arguments, cwd, fails=False):
    done = subprocess.run(
        [sys.executable, REPOSITORY / "scripts" / script, *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_the_command_measures_writes_a_file_that_loads_and_then_the_next_one(folders, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (48, 40), np.uint8)
    mask = np.zeros((48, 40), np.uint8)
    mask[10:30] = 255
    both = folders([f"a {n}" for n in range(9)], {f"a {n}": mask for n in range(6)}, noise)
    options = ("--images", both[0], "--labels", both[1], "--name", "cells", "--hours", 1)
    before = {path: path.read_bytes() for folder in both for path in folder.rglob("*.*")}
    work = tmp_path / "work"
    work.mkdir()
    said = command("new_experiment.py", *options, cwd=work)
    assert "9 images, 6 of them with a mask" in said and "s per step" in said and "disk:" in said
    experiment, _, plan = load_plan(REPOSITORY, [work / "cells.yaml"], {})
    assert experiment.network.backbone == "small" and len(plan.models) == 4 * 7
    assert {path: path.read_bytes() for path in before} == before
    assert {path.name for path in work.iterdir()} == {"cells.yaml", "results"}
    assert "exists already" in command("new_experiment.py", *options, cwd=work, fails=True)
    said = command("new_experiment.py", "--update", "cells.yaml", cwd=work)
    assert "training starts anew: the models of results/cells have seen the masks" in said
    assert "kept: test has the same images as before" in said
    renamed = yaml.safe_load((work / "cells-2.yaml").read_text())
    assert renamed == {**yaml.safe_load((work / "cells.yaml").read_text()), "name": "cells-2"}


def test_copies_of_images_are_found_and_held_out_together(folders):
    names = [f"i{n:02}" for n in range(20)]
    both = folders(names, {name: halves() for name in names[:15]})
    for n, name in enumerate(names):
        tifffile.imwrite(both[0] / f"{name}.tif", np.full((64, 96), n, np.uint8))
    for n in range(8):
        shutil.copy(both[0] / f"i{n:02}.tif", both[0] / f"copy{n}.tif")
    found = look(both)
    assert found.twins == [[f"copy{n}", f"i{n:02}"] for n in range(8)]
    proposed = make("p", found, None, LAPTOP)
    assert not {*proposed.val, *proposed.test} & {*names[:8]} and not proposed.parted_twins
    assert (len(proposed.val), len(proposed.test)) == (0, 3)
    assert not {*hold_out(found.masked, None, found.twins)[0]} & {*names[:8]}
    assert "8 images are copies of others, such as copy0 and i00" in "\n".join(
        experiment_text.describe(proposed)
    )


def test_where_nearly_all_images_are_copies_the_sides_share_some_with_a_warning(folders):
    names = [f"i{n:02}" for n in range(12)]
    found = look(folders(names, {name: halves() for name in names[:10]}))
    proposed = make("p", found, None, LAPTOP)
    assert len(proposed.test) == 2 and len(proposed.parted_twins) == 1
    assert "WARNING: 1 images are in two folds, or in train and test" in "\n".join(
        experiment_text.describe(proposed)
    )


def test_frames_of_one_video_are_warned_of_before_anything_is_trained(folders):
    names = [f"a{clip} {n}" for clip in range(5) for n in range(4)]
    both = folders(names, {name: halves() for name in names})
    for name in names:
        wide = np.random.default_rng(int(name[1])).integers(0, 256, (12, 19), np.uint8)
        pixels = np.asarray(Image.fromarray(wide).resize((152, 96), Image.Resampling.BICUBIC))
        start = int(name[3:])
        tifffile.imwrite(both[0] / f"{name}.tif", pixels[:64, start : start + 96])
    found = look(both)
    said = "\n".join(experiment_text.describe(make("p", found, None, LAPTOP)))
    assert "WARNING: images that look alike in train and val" in said and "--group '^(" in said
    group = guess_group(names, names)
    assert "look alike" not in "\n".join(experiment_text.describe(make("p", found, group, LAPTOP)))


def test_contradicting_masks_of_identical_images_are_refused_at_the_start(folders):
    with pytest.raises(DataError, match=r"masks/b\.png contradicts .*masks/a\.png: their images"):
        look(folders(["a", "b"], {"a": halves(), "b": halves(255, 0)}))


def test_a_group_that_is_no_pattern_is_refused_at_once(tmp_path):
    options = ("--images", tmp_path, "--labels", tmp_path, "--group", "(")
    assert "not a valid regular" in command("new_experiment.py", *options, cwd=".", fails=True)


def test_a_folder_s_name_cannot_end_a_comment(tmp_path):
    proposed = make("p", made_up({0: 1, 1: 1}), None, LAPTOP)
    text = experiment_text.text(proposed, "data", "python x 'a\nname: other\u2028b'")
    assert yaml.safe_load(text)["name"] == "p"


def test_of_many_pairs_200_are_decoded_spread_evenly_and_the_headers_of_all_are_read(
    folders, monkeypatch
):
    monkeypatch.setattr(inspection, "LOOKED_AT", 3)
    for n in range(9):
        both = folders([f"{n:02}"], {f"{n:02}": halves(0, n)}, np.full((64, 96), n, np.uint8))
    found = look(both)
    assert found.pixels == {0: 3 * 3072 + 3072, 3: 3072, 6: 3072} and found.decoded == 3
    assert "in 1 of 3 masks" in class_table(found).warnings[0]
    said = experiment_text.describe(make("many", found, None, LAPTOP))
    assert any("3 of the 9 masks were read" in line for line in said)
    folders([], {"01": halves()[:40], "02": halves().T})
    with pytest.raises(DataError, match=r"2 files.*\n.*01\.png: size \(96, 40\), but its image"):
        look(both)


def test_a_name_is_searched_once_for_each_pattern(monkeypatch):
    searched = Counter()
    original = inspection.shared_name

    def counted(id, pattern):
        searched[id, pattern] += 1
        return original(id, pattern)

    monkeypatch.setattr(inspection, "shared_name", counted)
    monkeypatch.setattr(
        inspection, "files_below", lambda root, folder, _: [(f"{folder}{n}", "") for n in range(9)]
    )
    with pytest.raises(DataError, match="matching names"):
        with_names(Path(), PairSettings(images="i", labels="m"))
    assert set(searched.values()) == {1}


class Measuring(Exception):
    pass


def test_findings_are_printed_before_anything_is_measured_and_look_stops_after_them(
    folders, tmp_path, monkeypatch, capsys
):
    def measure(*_):
        raise Measuring

    monkeypatch.setattr(cost, "measure", measure)
    both = folders([f"{n}" for n in range(9)], {f"{n}": halves() for n in range(9)})
    options = ("--images", both[0], "--labels", both[1], "--name", "cells")
    new_experiment(monkeypatch, tmp_path / "work", *options, "--look")
    findings = capsys.readouterr().out
    assert "found: class 'foreground': value 255" in findings and not [*Path().iterdir()]
    with pytest.raises(SystemExit):
        new_experiment(monkeypatch, tmp_path / "work", "--update", "cells.yaml", "--look")
    with pytest.raises(Measuring):
        new_experiment(monkeypatch, tmp_path / "work", *options)
    said = capsys.readouterr().out
    assert said.startswith(findings) and "measuring the speed of training, about " in said


@pytest.mark.parametrize("cuda, measured", [(False, [4, 1]), (True, [1])])
def test_threads_are_measured_only_where_they_matter(
    folders, tmp_path, monkeypatch, cuda, measured
):
    threads = []

    def measure(plan, *_):
        threads.append(plan.experiment.compute_threads)
        return Measured("cpu", step=0.001, image=0.001, memory=1, model=1)

    monkeypatch.setattr(cost, "measure", measure)
    monkeypatch.setattr(devices, "cuda_is_likely", lambda: cuda)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(4), raising=False)
    both = folders([f"{n}" for n in range(9)], {f"{n}": halves() for n in range(9)})
    options = ("--images", both[0], "--labels", both[1], "--name", "cells")
    new_experiment(monkeypatch, tmp_path / "work", *options)
    assert threads == measured


@pytest.mark.parametrize("hours, folds", [(0.5, False), (8, True)])
def test_hours_decide_whether_there_are_folds_and_the_command_says_so(
    folders, tmp_path, monkeypatch, capsys, hours, folds
):
    known = Measured("cpu", step=1.0, image=0.01, memory=1, model=1)
    monkeypatch.setattr(cost, "measure", lambda *_: known)
    names = [f"{n}" for n in range(40)]
    both = folders(names, {name: halves() for name in names[:12]})
    options = ("--images", both[0], "--labels", both[1], "--name", "cells", "--hours", hours)
    new_experiment(monkeypatch, tmp_path / "work", *options)
    said = capsys.readouterr().out
    assert "the other 10 masks are divided into 3 folds" in said
    assert (f"{hours:g} hours are too few for folds, which need 1.2" in said) != folds
    assert ("2 images with a mask are held out for val, 2 for test; 8 labeled" in said) != folds
    assert "Read it, then run: snakemake --cores" in said.splitlines()[-2]
    assert said.splitlines()[-1].startswith("its result: results/cells/recommendation.md says")
    experiment, _, plan = load_plan(REPOSITORY, [Path("cells.yaml")], {})
    assert (experiment.splits["all"].folds == 3) == folds
    assert (experiment.pairs.val == ()) == folds and len(experiment.pairs.test) == 2
    assert cost.remembered(plan, Path("results/cells")) == known


@pytest.mark.parametrize(
    "image, mask",
    [
        ("{}_0000", "{}"),
        ("{}_leftImg8bit", "{}_gtFine_labelIds"),
        ("{}.ome", "{}_mask"),
        ("{}", "{}.tif"),
        ("{}", "{}_Mask"),
        ("img {}", "{}"),
    ],
)
def test_names_of_usual_exports_are_guessed(folders, image, mask):
    cases = [f"town/case {n}" for n in range(4)]

    def named(pattern, case):
        return f"town/{pattern.replace('{}', case.removeprefix('town/'))}"

    both = folders(
        [named(image, case) for case in cases], {named(mask, case): halves() for case in cases[:3]}
    )
    found = look(both)
    assert (found.settings.image_name, found.settings.mask_name) == (image, mask)
    assert len(found.masked) == 3


def test_names_are_taken_as_they_are_given(folders, tmp_path, monkeypatch, capsys):
    names = [f"{n}" for n in range(9)]
    both = folders([f"{name}a" for name in names], {f"old-{name}": halves() for name in names[:8]})
    with pytest.raises(DataError, match=re.escape("--image-name '{}_0000' --mask")):
        look(both)
    options = ("--images", both[0], "--labels", both[1], "--look")
    given = ("--image-name", "{}a", "--mask-name", "old-{}")
    new_experiment(monkeypatch, tmp_path / "work", *options, *given)
    assert "9 images, 8 of them with a mask" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        new_experiment(monkeypatch, tmp_path / "work", *options, "--mask-name", "mask")
    assert "found 'mask'; expected a file name with one {}" in capsys.readouterr().err


def test_the_home_folder_is_expanded_in_every_option_that_is_a_path(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    parser = Parser("says nothing")
    parser.path("--images", "images")
    assert parser.parse_args(["--images=~/photos"]).images == tmp_path / "photos"


def test_ids_are_quoted_alike():
    ids = ["001", "1e3", "no", "a b", "c"]
    assert experiment_text._wrapped(ids) == "['001', '1e3', 'no', 'a b', 'c']"
    assert experiment_text._wrapped([1, 255]) == "[1, 255]"


@pytest.mark.parametrize(
    "images, group, said",
    [(4, "^(.)[0-2]", "1 val image chooses"), (50, None, "10 val images are few"),
     (150, None, None), (30, None, None)],
)  # fmt: skip
def test_few_val_images_are_warned_of(images, group, said):
    lines = experiment_text.describe(make("p", made_up({0: 1, 1: 1}, images), group, LAPTOP))
    found = [line for line in lines if re.match(r"WARNING: \d+ val image", line)]
    assert [line.startswith(f"WARNING: {said}") for line in found] == [True] * bool(said)


@pytest.mark.parametrize("images, candidates", [(50, "ends"), (150, None)])
def test_only_ends_compete_where_val_images_are_few(images, candidates):
    proposed = make("p", made_up({0: 1, 1: 1}, images), None, LAPTOP)
    written = yaml.safe_load(experiment_text.text(proposed, "photos", "a command"))
    assert written["evaluation"]["select"] == "val"
    assert written["evaluation"].get("candidates") == candidates


def test_images_that_are_gone_when_the_speed_is_measured_are_said_in_words(
    folders, tmp_path, monkeypatch
):
    monkeypatch.setattr(cost, "measure", lambda *_: None)
    both = folders([f"{n}" for n in range(9)], {f"{n}": halves() for n in range(9)})
    options = ("--images", both[0], "--labels", both[1], "--name", "cells")
    with pytest.raises(DataError, match="no image with a mask can be opened now"):
        new_experiment(monkeypatch, tmp_path / "work", *options)
