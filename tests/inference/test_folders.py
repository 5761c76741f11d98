"""`infer.py`: a model on a folder of images of any kind, killed at any time, in little memory."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torch import nn

from dst_cbc.inference import folders
from dst_cbc.inference.tiling import View, full_logits
from dst_cbc.inference.whole_images import image_tensor, predict
from dst_cbc.models.segmentation import build, model_bytes, read_model, write_model
from dst_cbc.runtime.errors import DataError
from dst_cbc.runtime.tables import read_csv
from dst_cbc.settings.network import NetworkSettings
from dst_cbc.settings.stages import Inference
from workflow import REPOSITORY

SCRIPT = REPOSITORY / "scripts/infer.py"
CPU = torch.device("cpu")
CLASSES = {"sky": "#0000ff", "road": "#808080", "car": "#ff0000"}


def make(window=(100, 1100), **settings):
    torch.manual_seed(1)
    network = {"backbone": "small", "output_stride": 4, "aspp_rates": (1,), **settings}
    model = build(NetworkSettings(**network), CLASSES, window=window)
    for branch in model.network.head:
        nn.init.normal_(branch.weight, std=0.5)
    return model


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    """A small model of three classes, with varying predictions and a window for 16-bit images."""
    path = tmp_path_factory.mktemp("model") / "model.pt"
    model = make()
    write_model(path, model, model.network.state_dict(), {"round": 0, "step": 1})
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Images of all kinds in folders whose names have spaces; two images are damaged."""
    root = tmp_path_factory.mktemp("my photos")
    rng = np.random.default_rng(0)
    (root / "day 1/b").mkdir(parents=True)
    colour = rng.integers(0, 256, (30, 41, 3), np.uint8)
    Image.fromarray(colour).save(root / "a.png")
    Image.fromarray(colour[:20, :20]).save(root / "day 1/b/c.d.jpg")
    Image.fromarray(colour[..., 0]).save(root / "day 1/grey.bmp")
    Image.fromarray(rng.integers(0, 1200, (17, 23)).astype(np.uint16)).save(root / "deep.tif")
    (root / "day 1/cut.png").write_bytes((root / "a.png").read_bytes()[:900])
    (root / "text.jpg").write_text("no image")
    (root / ".hidden.png").write_text("")
    (root / "notes.txt").write_text("")
    return root


GOOD = ["a", "day 1/b/c.d", "day 1/grey", "deep"]


def infer(model, images, out, *options, expect=0):
    command = [sys.executable, SCRIPT, "--model", model, "--images", images, "--out", out]
    done = subprocess.run(
        [*map(str, command), "--device", "cpu", "--threads", "1", *options],
        capture_output=True,
        text=True,
    )
    assert done.returncode == expect, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def files(folder):
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def used(photos, model_file, tmp_path_factory):
    """The output folder of a whole pass, and what the command printed."""
    out = tmp_path_factory.mktemp("used") / "out"
    return out, infer(model_file, photos, out, "--confidence", "--overlay", expect=1)


def test_every_good_image_has_a_mask_a_confidence_and_an_overlay(used, photos):
    out, said = used
    assert set(files(out)) == {"infer.json"} | {
        f"{folder}/{id}.{suffix}"
        for id in GOOD
        for folder, suffix in (("masks", "png"), ("confidence", "png"), ("overlays", "jpg"))
    }
    assert "4 of 6 images have masks" in said
    assert not [path for path in photos.rglob("*.png") if "mask" in path.name]


def test_bad_images_are_named_at_the_end_and_the_others_done(used):
    *_, count, first, second = used[1].strip().splitlines()
    assert "2 bad images" in count and "day 1/cut.png: " in first and "text.jpg: " in second


def test_masks_are_indexed_class_numbers_in_the_classes_colours(used, photos, model_file):
    out, _ = used
    model = read_model(model_file)
    deep = np.asarray(Image.open(photos / "deep.tif")).astype(float)
    seen = {
        "a": np.asarray(Image.open(photos / "a.png")),
        # Through the model's window, 100 .. 1100.
        "deep": np.rint(255 * np.clip((deep - 100) / 1000, 0, 1))[..., None].repeat(3, 2),
    }
    for id, pixels in seen.items():
        mask = Image.open(out / f"masks/{id}.png")
        assert mask.mode == "P" and mask.getpalette()[:9] == [0, 0, 255, 128, 128, 128, 255, 0, 0]
        model.network.eval()
        with torch.no_grad():
            (logits,) = full_logits(model, image_tensor(pixels.astype(np.uint8))[None], 1024)
        shares, winner = logits[0].softmax(0).max(0)
        np.testing.assert_array_equal(mask, winner)
        assert len(winner.unique()) > 1
        confidence = Image.open(out / f"confidence/{id}.png")
        assert confidence.mode == "L"
        assert np.abs(np.asarray(confidence) - 255 * shares.numpy()).max() <= 0.51
        overlay = np.asarray(Image.open(out / f"overlays/{id}.jpg"), float)
        expected = (pixels + np.asarray(mask.convert("RGB"), float)) / 2
        assert np.abs(overlay - expected).mean() < 25


def test_started_again_it_redoes_nothing_nor_does_it_with_the_model_s_folder(
    used, photos, model_file
):
    out, said = used
    before = files(out)
    for model in (model_file, model_file.parent):
        assert infer(model, photos, out, "--confidence", "--overlay", expect=1) == said
    assert files(out) == before


def test_objects_can_be_measured_after_the_pass(used, photos, model_file, tmp_path):
    out, before = tmp_path / "out", files(used[0])
    shutil.copytree(used[0], out)
    options = ("--confidence", "--overlay", "--objects", "car", "road", "--objects-min", "3")
    said = infer(model_file, photos, out, *options, expect=1)
    assert f"written: {out}/objects.csv" in said and "2 bad images" in said
    rows = read_csv(out / "objects.csv", {"area_px": int, "confidence": float})
    assert {row["image"] for row in rows} == {
        "a.png", "day 1/b/c.d.jpg", "day 1/grey.bmp", "deep.tif",
    }  # fmt: skip
    assert {row["class"] for row in rows} == {"car", "road"}
    assert min(row["area_px"] for row in rows) == 3
    assert all(0.3 < row["confidence"] <= 1 for row in rows)
    found = files(out)
    del found["objects.csv"]
    assert {name: content for name, (content, _) in found.items()} == {
        name: content for name, (content, _) in before.items()
    }


def test_missing_damaged_and_outdated_masks_are_made_again_and_drawn_ones_kept(
    used, photos, model_file, tmp_path
):
    whole = files(used[0])
    root, out = tmp_path / "images", tmp_path / "out"
    for folder, copy in ((photos, root), (used[0], out)):
        for name, (content, _) in files(folder).items():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes(content)
    (root / "day 1/cut.png").unlink()
    (root / "text.jpg").unlink()
    (out / "masks/deep.png").unlink()
    (out / "overlays/a.jpg").unlink()
    (out / "masks/day 1/grey.png").write_bytes(whole["masks/day 1/grey.png"][0][:150])
    (out / "masks/.x.png.host.1.tmp").write_text("half")
    infer(model_file, root, out, "--confidence", "--overlay")
    again = {name: content for name, (content, _) in files(out).items() if ".tmp" not in name}
    assert again == {name: content for name, (content, _) in whole.items()}
    # Another image under the same name; and a mask that was corrected by hand.
    Image.open(root / "a.png").rotate(180).save(root / "a.png")
    drawn = Image.new("P", (20, 20), 2)
    drawn.save(out / "masks/day 1/b/c.d.png")
    corrected = (out / "masks/day 1/b/c.d.png").read_bytes()
    infer(model_file, root, out, "--confidence", "--overlay")
    found = files(out)
    assert found["masks/a.png"][0] != whole["masks/a.png"][0]
    assert found["masks/day 1/b/c.d.png"][0] == corrected


def test_a_link_out_of_the_output_folder_is_not_followed(model_file, photos, tmp_path):
    out, outside = tmp_path / "out", tmp_path / "outside"
    infer(model_file, photos, out, expect=1)  # one of the images is damaged
    shutil.move(out / "masks", outside)
    before = files(outside)
    (out / "masks").symlink_to(outside)
    next(outside.rglob("*.png")).unlink()
    said = infer(model_file, photos, out, expect=1)
    assert f"a symbolic link leads out of {out}" in said
    assert files(outside).items() < before.items()


@pytest.fixture
def deep_bands(tmp_path):
    """A folder of one 16-bit image of 5 channels; the mask of a model that was trained on such."""
    pixels = np.random.default_rng(0).integers(0, 1200, (30, 41, 5)).astype(np.uint16)
    for folder, image in (("rgb", pixels[..., [3, 2, 1]]), ("five", pixels)):
        (tmp_path / folder).mkdir()
        options = {"photometric": "rgb", "planarconfig": "contig"}
        tifffile.imwrite(tmp_path / folder / "a.tif", image, **options)
    return tmp_path / "five", mask_of(make(), tmp_path / "rgb", tmp_path / "expected")


def mask_of(model, images, out):
    found, outputs = folders.list_images(images, out), folders.Outputs(out, False, False)
    settings = Inference(batch=1, tile=1024)
    assert not folders.segment_folder(model, found, outputs, settings, [View()], CPU)
    return np.asarray(Image.open(out / "masks/a.png"))


def test_an_image_has_the_channels_of_the_model(deep_bands, tmp_path):
    images, expected = deep_bands
    found = mask_of(replace(make(), bands=(4, 3, 2)), images, tmp_path / "out")
    np.testing.assert_array_equal(found, expected)


def test_a_model_of_8_bits_and_three_channels_takes_what_the_options_say(deep_bands, tmp_path):
    images, expected = deep_bands
    for number, window in enumerate((None, (0, 65535))):
        model = make(window)
        content = model_bytes(model, model.network.state_dict(), None)
        (tmp_path / f"{number}.pt").write_bytes(content)
    options = ("--bands", "4", "3", "2", "--window", "100", "1100")
    for number in (0, 1):
        infer(tmp_path / f"{number}.pt", images, tmp_path / f"{number}", *options)
        found = np.asarray(Image.open(tmp_path / f"{number}/masks/a.png"))
        np.testing.assert_array_equal(found, expected)
    said = json.loads((tmp_path / "0/infer.json").read_text())
    assert (said.pop("bands"), said["window"]) == ([4, 3, 2], [100, 1100])
    with pytest.raises(DataError, match=r"another `bands`: found \[4, 3, 2\].*asked for None"):
        folders.claim(tmp_path / "0", said)
    wrong = (*options[:3], *options[4:])
    said = infer(tmp_path / "0.pt", images, tmp_path / "x", *wrong, expect=2)
    assert "--bands: found [4, 3]; expected one channel (grey) or three" in said


def test_a_folder_of_another_model_or_other_options_is_not_mixed(
    used, photos, model_file, tmp_path
):
    out, _ = used
    before = files(out)
    said = infer(model_file, photos, out, "--confidence", "--overlay", "--flip", expect=1)
    assert "another `flip`: found False in infer.json, asked for True" in said
    other = tmp_path / "model.pt"
    write_model(other, make(), make(aspp_rates=(1,)).network.state_dict(), {"round": 9, "step": 1})
    assert "another `model_sha256`" in infer(
        other, photos, out, "--confidence", "--overlay", expect=1
    )
    assert files(out) == before


def test_nothing_is_written_beside_the_images(photos, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(photos)
    for out in (photos, photos / "out", photos / "day 1/../new", link / "masks"):
        with pytest.raises(DataError, match="which is only read"):
            folders.list_images(photos, out)
    assert list(folders.list_images(photos, tmp_path / "out")) == sorted(
        [*GOOD, "day 1/cut", "text"]
    )


def test_nothing_that_is_there_is_replaced(photos, model_file, tmp_path):
    (tmp_path / "thesis.txt").write_text("")
    said = infer(model_file, photos, tmp_path, expect=1)
    assert "not an empty folder and has no infer.json" in said
    with pytest.raises(DataError, match="not an empty folder"):
        folders.claim(tmp_path / "thesis.txt", {})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    # The temporary file of a process that was killed at its start does not count.
    early = tmp_path / "early"
    early.mkdir()
    (early / f".infer.json.{socket.gethostname()}.{2**22 + 1}.tmp").write_text("half")
    folders.claim(early, {"flip": False})
    assert [path.name for path in early.iterdir()] == ["infer.json"]


@pytest.mark.parametrize("names", [("a.png", "a.jpg"), ("b/a.png", "b/A.png")])
def test_two_images_with_one_mask_are_refused(tmp_path, write_image, names):
    for name in names:
        write_image(tmp_path / "images" / name, np.zeros((9, 9, 3)))
    with pytest.raises(DataError, match=r"both would have the mask (b/)?[aA]\.png; rename one"):
        folders.list_images(tmp_path / "images", tmp_path / "out")


def test_the_files_are_those_that_training_would_list(tmp_path):
    for name in ("photos/a.png", "elsewhere/b.png", "photos/@eaDir/a.png/thumb.jpg",
                 "photos/.ipynb_checkpoints/a-checkpoint.png", "photos/._a.png",
                 "photos/__MACOSX/a.png", "old/masks/a.png"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in ("elsewhere", "photos", "old"):
        (tmp_path / "photos" / f"link to {name}").symlink_to(tmp_path / name)
    found = folders.list_images(tmp_path / "photos", tmp_path / "old")
    assert [*found] == ["a", "link to elsewhere/b"]


def test_a_folder_without_images_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no images found; expected files \.png"):
        folders.list_images(tmp_path, tmp_path.parent / "out")
    with pytest.raises(DataError, match="nowhere: no such folder"):
        folders.list_images(tmp_path / "nowhere", tmp_path / "out")


OF_LONG = ("--scales", "1", "4", "--objects")


def start(model, images, out):
    command = [sys.executable, SCRIPT, "--model", model, "--images", images, "--out", out]
    return subprocess.Popen(
        [*map(str, command), "--device", "cpu", "--threads", "1", *OF_LONG],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_stopped_and_killed_it_goes_on_and_ends_in_the_same_bytes(
    model_file, tmp_path, write_image
):
    rng = np.random.default_rng(7)
    for i in range(12):
        write_image(tmp_path / f"images/{i:02}.png", rng.integers(0, 256, (120, 160, 3)))
    whole = tmp_path / "whole"
    infer(model_file, tmp_path / "images", whole, *OF_LONG)
    out, done, ends = tmp_path / "out", {}, []
    for sent in (signal.SIGTERM, signal.SIGKILL, None):
        process = start(model_file, tmp_path / "images", out)
        while sent and len(list(out.glob("masks/[0-9]*.png"))) < len(done) + 3:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.01)
        if sent:
            os.kill(process.pid, sent)
        said, _ = process.communicate(timeout=60)
        ends.append(process.returncode)
        now = files(out)
        assert all(now[name] == before for name, before in done.items()), "made again"
        done = {name: file for name, file in now.items() if ".tmp" not in name}
        assert sent or "12 of 12" in said
    assert ends == [143, -signal.SIGKILL, 0]
    assert {name: file[0] for name, file in files(out).items()} == {
        name: file[0] for name, file in files(whole).items()
    }


def mean_by_hand(model, pixels, views):
    """Mean probabilities in float64, from one pass for each view."""
    total = 0
    for view in views:
        seen = pixels.float()
        if view.scale != 1:
            size = [round(view.scale * side) for side in seen.shape[-2:]]
            seen = nn.functional.interpolate(
                seen, size, mode="bilinear", antialias=True, align_corners=False
            )
        seen = seen.flip(-1) if view.flip else seen
        seen = (seen - 127.5) / (0.25 * 255)
        size = pixels.shape[-2:]
        with torch.no_grad():
            logits = nn.functional.interpolate(
                model.network(seen), size, mode="bilinear", align_corners=True
            )
        total = total + (logits.flip(-1) if view.flip else logits).double().softmax(1)
    return total / len(views)


@pytest.mark.parametrize("tile", [64, 1024])
def test_views_are_averaged_as_probabilities(tile):
    model = make()
    model.network.eval()
    pixels = torch.randint(0, 256, (1, 3, 52, 45), dtype=torch.uint8)
    views = [View(scale, flip) for scale in (0.75, 1, 1.25) for flip in (False, True)]
    (mean,) = predict(
        model, pixels, Inference(batch=1, tile=1024), CPU, lambda x: (x.exp().sum(1),), views
    )
    torch.testing.assert_close(mean, torch.ones_like(mean))
    with torch.inference_mode():
        found = torch.cat(list(full_logits(model, pixels, tile, views=views)), -2)
    expected = mean_by_hand(model, pixels, views).log().float()
    # In tiles of 64, the margin is 8 pixels, and the receptive field reaches 15 pixels.
    close = (found - expected).abs() < (1e-4 if tile > 64 else 0.2)
    assert close.float().mean() > (0.9999 if tile > 64 else 0.9)


def test_the_logarithm_keeps_what_probabilities_lose():
    model = make()
    model.network.eval()
    with torch.no_grad():
        for branch in model.network.head:
            branch.weight *= 1000
    pixels = torch.randint(0, 256, (1, 3, 20, 20), dtype=torch.uint8)
    with torch.inference_mode():
        (found,) = full_logits(model, pixels, 1024, views=[View(), View(flip=True)])
    assert torch.isfinite(found).all() and found.min() < -200


def test_a_mirrored_image_has_the_mirrored_mask(model_file):
    model = read_model(model_file)
    pixels = torch.randint(0, 256, (1, 3, 24, 31), dtype=torch.uint8)
    views = [View(), View(flip=True)]
    model.network.eval()
    with torch.inference_mode():
        (one,) = full_logits(model, pixels, 1024, views=views)
        (other,) = full_logits(model, pixels.flip(-1), 1024, views=views)
    torch.testing.assert_close(one, other.flip(-1))


def test_infer_json_says_what_made_the_masks(used, model_file):
    content = json.loads((used[0] / "infer.json").read_text())
    assert content["classes"] == list(CLASSES) and content["scales"] == [1.0]
    assert len(content["model_sha256"]) == 64 and content["overlay"] is True


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/status").is_file(), reason="needs /proc to measure the memory of a process"
)


def peak(model, images, out, *options):
    """Peak memory of a pass in bytes."""
    # Not ru_maxrss, which starts in a child with the value of its parent.
    code = (
        "import runpy, sys; sys.argv = sys.argv[1:]; sys.path.insert(0, sys.argv.pop(0))\n"
        "runpy.run_path(sys.argv[0])['run']()\n"
        "print(*[line for line in open('/proc/self/status') if line.startswith('VmHWM')])"
    )
    paths = [SCRIPT.parent, SCRIPT, "--model", model, "--images", images, "--out", out]
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            code,
            *map(str, paths),
            "--device",
            "cpu",
            "--threads",
            "1",
            *options,
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return 1024 * int(done.stdout.split()[-2])


def lite0(path):
    """EfficientNet-Lite0 with 11 classes, as for CamVid, with random weights."""
    settings = NetworkSettings(
        backbone="tf_efficientnet_lite0", output_stride=16, stages=4, aspp_rates=(1, 3, 6)
    )
    torch.manual_seed(0)
    model = build(settings, {f"class {n}": f"#0000{n:02x}" for n in range(11)})
    write_model(path, model, model.network.state_dict(), {"round": 0, "step": 1})
    return path


def photograph(path, width, height):
    rng = np.random.default_rng(0)
    path.parent.mkdir()
    small = Image.fromarray(rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8))
    small.resize((width, height), Image.Resampling.BILINEAR).save(path, quality=80)


@pytest.mark.slow
@needs_proc
def test_memory_grows_with_an_image_by_less_than_its_logits(tmp_path):
    """Logits of 11 classes are 44 bytes a pixel; only pixels, classes and confidence are needed."""
    model = lite0(tmp_path / "model.pt")
    small, large = (1200, 800), (2400, 1600)
    peaks = []
    for width, height in (small, large):
        folder = tmp_path / f"images {width}"
        photograph(folder / "a.jpg", width, height)
        peaks.append(peak(model, folder, tmp_path / f"out {width}", "--tile", "512"))
    print(peaks)
    assert peaks[1] - peaks[0] < 44 * (2400 * 1600 - 1200 * 800)


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--flip", "--scales", "0.75", "1", "1.25")])
def test_a_12_megapixel_image_needs_about_2_gb(tmp_path, options):
    """Measured: 1.98 to 2.07 GB, half of it the libraries."""
    photograph(tmp_path / "images/a.jpg", 4000, 3000)
    options = (*options, "--confidence", "--overlay")
    found = peak(lite0(tmp_path / "model.pt"), tmp_path / "images", tmp_path / "out", *options)
    assert found < 2.2e9
