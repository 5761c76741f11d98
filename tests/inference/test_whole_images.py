import multiprocessing
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from damage import checked, flip
from dst_cbc.data.index import Row
from dst_cbc.inference.tiling import full_logits
from dst_cbc.inference.whole_images import evaluate, image_tensor, predict, same_size_batches
from dst_cbc.models.segmentation import build
from dst_cbc.runtime.errors import Changed, DataError
from dst_cbc.self_training import confidence, predictions
from dst_cbc.self_training.predict import normalized_labels, predict_part
from dst_cbc.settings.stages import PredictStage
from reference import histogram
from trainings import small_network

WHOLE = 2048


def settings(batch=2, tile=WHOLE, **changes):
    return PredictStage(batch=batch, tile=tile, **changes)


CPU = torch.device("cpu")
SIZES = [(12, 16), (12, 16), (16, 12), (12, 16), (20, 8), (20, 8), (20, 8)]


class Threshold(nn.Module):
    """A network without parameters that reads single pixels: red is class 2, green 1, blue 0."""

    stride = grid = 1

    def forward(self, images):
        return images.flip(1)


@pytest.fixture
def by_colour(folder_dataset):
    """A model with known predictions: the class of a pixel is its strongest colour."""
    network = small_network()
    model = build(network, folder_dataset.classes)
    return type(model)(Threshold(), network, folder_dataset.classes, (0.0,) * 3, (1.0,) * 3)


@pytest.fixture
def trained(folder_dataset):
    """A small model with varying predictions."""
    torch.manual_seed(1)
    network = small_network(aspp_rates=(1, 2))
    model = build(network, folder_dataset.classes)
    for branch in model.network.head:
        nn.init.normal_(branch.weight, std=0.5)
    return model


def logits_of(model, images):
    with torch.no_grad():
        (logits,) = full_logits(model, images, WHOLE)
    return logits


@pytest.fixture
def pictures(tmp_path, write_image):
    """Images of several sizes, random masks with a tenth ignored: folder, rows, images, masks."""
    rng = np.random.default_rng(0)
    rows, images, masks = [], [], []
    for i, (height, width) in enumerate(SIZES):
        images.append(rng.integers(0, 256, (height, width, 3)).astype(np.uint8))
        mask = rng.integers(0, 3, (height, width))
        mask[rng.random((height, width)) < 0.1] = 255
        masks.append(mask)
        write_image(tmp_path / f"{i}.png", images[-1])
        write_image(tmp_path / f"{i}_mask.png", mask)
        rows.append(Row(f"id{i}", f"{i}.png", f"{i}_mask.png", height, width, "val", "", ""))
    return tmp_path, checked(tmp_path, rows), images, masks


def by_hand(truths, answers):
    matrix = np.zeros((3, 3), np.int64)
    for truth, answer in zip(truths, answers, strict=True):
        for t, a in zip(truth.ravel(), answer.ravel(), strict=True):
            if t != 255:
                matrix[t, a] += 1
    return matrix


def rows_of(sizes):
    return [Row(str(i), "", "", h, w, "val", "", "") for i, (h, w) in enumerate(sizes)]


def test_batches_are_neighbours_of_one_size():
    assert same_size_batches(rows_of(SIZES), 2, 100) == [[0, 1], [2], [3], [4, 5], [6]]


def test_batches_never_cross_a_multiple():
    assert same_size_batches(rows_of([(4, 4)] * 7), 8, 3) == [[0, 1, 2], [3, 4, 5], [6]]


def test_no_images_are_no_batches():
    assert same_size_batches([], 4, 100) == []


@given(
    st.lists(st.sampled_from([(4, 4), (4, 8)]), max_size=30), st.integers(1, 5), st.integers(1, 9)
)
def test_every_image_is_in_one_batch_in_order(sizes, batch, every):
    rows = rows_of(sizes)
    batches = same_size_batches(rows, batch, every)
    assert [i for one in batches for i in one] == list(range(len(sizes)))
    for one in batches:
        assert 1 <= len(one) <= batch
        assert len({sizes[i] for i in one}) == 1
        assert len({i // every for i in one}) == 1


@given(st.lists(st.sampled_from([(4, 4), (4, 8)]), min_size=1, max_size=30), st.integers(1, 5))
def test_batches_of_a_part_are_those_of_the_whole(sizes, batch):
    whole = same_size_batches(rows_of(sizes), batch, 6)
    parts = []
    for first in range(0, len(sizes), 6):
        mine = same_size_batches(rows_of(sizes[first : first + 6]), batch, 6)
        parts += [[first + i for i in one] for one in mine]
    assert parts == whole


@pytest.mark.parametrize("batch", [1, 3])
def test_the_confusion_matrix_is_that_of_the_strongest_colour(
    batch, pictures, by_colour, folder_dataset
):
    root, rows, images, masks = pictures
    found = evaluate(by_colour, root, rows, folder_dataset, settings(batch), CPU)
    expected = by_hand(masks, [image[..., ::-1].argmax(-1) for image in images])
    np.testing.assert_array_equal(found, expected)


def test_neither_batches_nor_workers_change_an_evaluation(pictures, trained, folder_dataset):
    root, rows, images, masks = pictures
    trained.network.eval()
    answers = [
        logits_of(trained, image_tensor(image)[None])[0].argmax(0).numpy() for image in images
    ]
    expected = by_hand(masks, answers)
    assert (expected.sum(0) > 0).sum() > 1
    for batch, workers in ((1, 0), (4, 0), (2, 2)):
        found = evaluate(trained, root, rows, folder_dataset, settings(batch), CPU, workers)
        np.testing.assert_array_equal(found, expected)


def test_an_evaluation_sees_the_channels_of_the_model(pictures, by_colour, folder_dataset):
    root, rows, images, masks = pictures
    model = replace(by_colour, bands=(3, 2, 1))
    # The model sees red as blue, whose class is 0.
    answers = [np.argmax(image, 2) for image in images]
    found = evaluate(model, root, rows, folder_dataset, settings(), CPU)
    np.testing.assert_array_equal(found, by_hand(masks, answers))


def test_an_image_without_a_mask_cannot_be_evaluated(pictures, by_colour, folder_dataset):
    root, rows, _, _ = pictures
    bare = [*rows, Row("bare", "0.png", "", 12, 16, "val", "", "")]
    with pytest.raises(DataError, match="'bare' has no label"):
        evaluate(by_colour, root, bare, folder_dataset, settings(), CPU)


def test_an_error_of_a_loading_process_is_one_line_and_ends_all_of_them(
    pictures, by_colour, folder_dataset
):
    root, rows, _, _ = pictures
    flip(root / "1.png")
    for workers in (0, 2):
        with pytest.raises(Changed) as error:
            evaluate(by_colour, root, rows, folder_dataset, settings(), CPU, workers)
        assert str(error.value).startswith(f"{root}/1.png: has changed since the data check")
        assert "\n" not in str(error.value)
        # The processes leave SIGTERM to this one, whose end would wait for them.
        assert not multiprocessing.active_children()


def test_no_images_have_an_empty_matrix(tmp_path, by_colour, folder_dataset):
    matrix = evaluate(by_colour, tmp_path, [], folder_dataset, settings(), CPU)
    assert matrix.shape == (3, 3) and not matrix.any()


def predicted_logits(model, pixels):
    # `predict` joins tensors (N, H, W), so the logits pass it as one tensor for each class.
    parts = predict(model, pixels, settings(), CPU, lambda logits: tuple(logits.unbind(1)))
    return torch.stack(parts, 1)


def test_prediction_is_in_eval_mode_and_leaves_the_statistics(trained):
    pixels = torch.randint(0, 256, (2, 3, 12, 16), dtype=torch.uint8)
    for training in (True, False):
        trained.network.train(training)
        before = {k: v.clone() for k, v in trained.network.state_dict().items()}
        logits = predicted_logits(trained, pixels)
        assert not trained.network.training
        assert not logits.requires_grad
        assert all(torch.equal(before[k], v) for k, v in trained.network.state_dict().items())
        alone = predicted_logits(trained, pixels[:1])
        torch.testing.assert_close(logits[:1], alone, rtol=1e-4, atol=1e-4)


def test_images_are_predicted_at_their_own_size_whatever_the_input_scale(
    pictures, trained, folder_dataset
):
    root, rows, _, masks = pictures
    scaled = type(trained)(
        trained.network,
        trained.settings.model_copy(update={"input_scale": 2.0}),
        trained.classes,
        trained.mean,
        trained.std,
    )
    found = evaluate(scaled, root, rows, folder_dataset, settings(), CPU)
    assert found.sum() == sum((mask != 255).sum() for mask in masks)
    plain = evaluate(trained, root, rows, folder_dataset, settings(), CPU)
    assert (found != plain).any()


def test_a_tensor_of_an_image_has_its_own_memory():
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    tensor = image_tensor(pixels)
    assert tensor.shape == (3, 2, 4) and tensor.dtype == torch.uint8
    pixels[:] = 0
    assert tensor[2, 1, 3] == 23


def predicted(model, root, rows, folder, batch=2, workers=0, **changes):
    parts = -(-len(rows) // predictions.PART_IMAGES)
    for part in range(parts):
        predict_part(model, root, rows, part, folder, settings(batch, **changes), CPU, workers)
    counts = predictions.join_parts(folder, parts, folder / "predictions.h5", {})
    ids = [row.id for row in rows]
    return counts, list(predictions.read_predictions(folder / "predictions.h5", ids))


def test_a_prediction_holds_class_and_confidence_of_every_image(
    pictures, trained, tmp_path, monkeypatch
):
    monkeypatch.setattr(predictions, "PART_IMAGES", 3)
    root, rows, images, _ = pictures
    counts, found = predicted(trained, root, rows, tmp_path / "parts")
    trained.network.eval()
    total = 0
    for one, image in zip(found, images, strict=True):
        assert one.classes.shape == one.confidence.shape == image.shape[:2]
        with torch.no_grad():
            logits = logits_of(trained, image_tensor(image)[None])
        classes, levels = confidence.quantise(logits)
        np.testing.assert_array_equal(one.classes, classes[0].numpy())
        assert np.abs(one.confidence.astype(int) - levels[0].numpy()).max() <= 2
        total = total + histogram(one.classes, one.confidence, 3)
    np.testing.assert_array_equal(counts, total)


def test_workers_and_a_new_start_change_no_byte_of_a_prediction(
    pictures, trained, tmp_path, monkeypatch
):
    monkeypatch.setattr(predictions, "PART_IMAGES", 3)
    root, rows, _, _ = pictures
    for folder, workers in (("a", 0), ("b", 2)):
        predicted(trained, root, rows, tmp_path / folder, workers=workers)
    for name in ("predictions.h5", "000001.npz"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    for name in ("000001.h5", "000001.npz"):
        (tmp_path / "b" / name).unlink()
    predict_part(trained, root, rows, 1, tmp_path / "b", settings(), CPU)
    for name in ("000001.h5", "000001.npz"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_evaluation_and_prediction_tile_large_images_alike(trained, folder_dataset, tmp_path):
    rng = np.random.default_rng(5)
    Image.fromarray(rng.integers(0, 256, (90, 150, 3), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((90, 150), np.uint8)).save(tmp_path / "m.png")
    (row,) = checked(tmp_path, [Row("a", "a.png", "m.png", 90, 150, "val", "", "")])
    tiled, passes = settings(tile=64), []
    trained.network.register_forward_hook(lambda *_: passes.append(1))
    matrix = evaluate(trained, tmp_path, [row], folder_dataset, tiled, CPU)
    assert len(passes) > 1
    predict_part(trained, tmp_path, [row], 0, tmp_path / "parts", tiled, CPU)
    assert len(passes) % 2 == 0
    predictions.join_parts(tmp_path / "parts", 1, tmp_path / "p.h5", {})
    (one,) = predictions.read_predictions(tmp_path / "p.h5", ["a"])
    assert one.classes.shape == one.confidence.shape == (90, 150)
    assert np.bincount(one.classes.ravel(), minlength=3).tolist() == matrix[0].tolist()


@pytest.fixture
def blocks(tmp_path, write_image):
    """Images of 4x6 uniform blocks, in three sizes: folder, rows, colours, masks of the blocks."""
    rng = np.random.default_rng(3)
    rows, colours, classes = [], [], []
    for i, (tall, wide) in enumerate([(2, 2), (4, 2), (2, 4)]):
        colours.append(rng.integers(0, 256, (4, 6, 3)).astype(np.uint8))
        classes.append(rng.choice([0, 1, 2, 255], (4, 6)))
        for name, small in ((f"{i}.png", colours[-1]), (f"{i}_mask.png", classes[-1])):
            write_image(tmp_path / name, small.repeat(tall, 0).repeat(wide, 1))
        rows.append(Row(f"id{i}", f"{i}.png", f"{i}_mask.png", 4 * tall, 6 * wide, "val", "", ""))
    return tmp_path, checked(tmp_path, rows), colours, classes


def seen_by(model):
    """A list that collects all batches that the network gets from now on."""
    seen = []
    model.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    return seen


def test_with_a_size_images_and_masks_are_resized_and_compared_there(
    blocks, by_colour, folder_dataset
):
    root, rows, colours, classes = blocks
    seen = seen_by(by_colour)
    found = evaluate(by_colour, root, rows, folder_dataset, settings(4, size=(4, 6)), CPU)
    expected = by_hand(classes, [image[..., ::-1].argmax(-1) for image in colours])
    np.testing.assert_array_equal(found, expected)
    # Images of several sizes are one batch now.
    assert [batch.shape for batch in seen] == [(3, 3, 4, 6)]


def test_with_own_masks_images_are_resized_and_compared_at_the_masks_size(
    blocks, by_colour, folder_dataset
):
    root, rows, _, _ = blocks
    seen = seen_by(by_colour)
    found = evaluate(
        by_colour, root, rows, folder_dataset, settings(4, size=(4, 6), masks="own"), CPU
    )
    masks = [np.asarray(Image.open(root / row.label)) for row in rows]
    assert found.sum() == sum((mask != 255).sum() for mask in masks)
    # Masks of several sizes are no batch.
    assert [batch.shape for batch in seen] == [(1, 3, 4, 6)] * 3


def test_padding_is_the_mean_colour_at_the_right_and_the_bottom_and_never_compared(
    pictures, by_colour, folder_dataset
):
    root, rows, images, masks = pictures
    model = type(by_colour)(
        Threshold(), by_colour.settings, by_colour.classes, (0.2, 0.4, 0.6), (1 / 255,) * 3
    )
    seen = seen_by(model)
    found = evaluate(model, root, rows, folder_dataset, settings(pad=(21, 24)), CPU)
    plain = evaluate(model, root, rows, folder_dataset, settings(), CPU)
    np.testing.assert_array_equal(found, plain)
    assert found.sum() == sum((mask != 255).sum() for mask in masks)
    padded = torch.cat(seen[:4])
    assert padded.shape == (len(rows), 3, 21, 24)
    for one, image in zip(padded.numpy().transpose(0, 2, 3, 1), images, strict=True):
        height, width = image.shape[:2]
        np.testing.assert_allclose(one[:height, :width], image - [51.0, 102, 153], atol=1e-3)
        assert np.abs(one[height:]).max() < 1e-3 and np.abs(one[:, width:]).max() < 1e-3


def test_an_image_that_padding_would_cut_is_named_before_any_is_read(
    pictures, by_colour, folder_dataset
):
    root, rows, *_ = pictures
    seen = seen_by(by_colour)
    with pytest.raises(DataError, match=r"evaluation\.pad: found \[20, 15\], .*0\.png has 12 x 16"):
        evaluate(by_colour, root, rows, folder_dataset, settings(pad=(20, 15)), CPU)
    assert not seen
    evaluate(by_colour, root, rows[:2], folder_dataset, settings(pad=(12, 16)), CPU)


def test_with_a_size_predictions_and_their_counts_are_of_the_squashed_images(
    blocks, by_colour, tmp_path
):
    root, rows, colours, _ = blocks
    counts, found = predicted(by_colour, root, rows, tmp_path / "parts", size=(4, 6))
    for one, image in zip(found, colours, strict=True):
        np.testing.assert_array_equal(one.classes, image[..., ::-1].argmax(-1))
        assert one.confidence.shape == (4, 6)
    assert counts.sum() == 3 * 24
    stage = settings(size=(4, 6))
    labels = dict(normalized_labels(by_colour, root, rows, [-np.inf] * 3, stage, CPU))
    assert list(labels) == ["id0", "id1", "id2"]
    for one in found:
        np.testing.assert_array_equal(labels[one.id], one.classes)


def test_sampling_counts_every_16th_pixel_of_a_flattened_batch(trained, tmp_path, write_image):
    rng = np.random.default_rng(4)
    rows = [Row(f"id{i}", f"{i}.png", "", 5, 7, "train", "", "") for i in range(5)]
    for row in rows:
        write_image(tmp_path / row.image, rng.integers(0, 256, (5, 7, 3)))
    rows = checked(tmp_path, rows)
    counts, found = predicted(trained, tmp_path, rows, tmp_path / "parts", 3, sampling=16)
    every, stored = predicted(trained, tmp_path, rows, tmp_path / "all", 3)
    expected = 0
    for batch in (found[:3], found[3:]):
        classes, levels = (
            np.concatenate([getattr(one, kind).ravel() for one in batch])[::16]
            for kind in predictions.KINDS
        )
        expected = expected + histogram(classes, levels, 3)
    np.testing.assert_array_equal(counts, expected)
    # ceil(3 * 35 / 16) + ceil(2 * 35 / 16)
    assert counts.sum() == 7 + 5 and every.sum() == 5 * 35
    # The file has every pixel; sampling only changes the histogram.
    assert all((a.confidence == b.confidence).all() for a, b in zip(found, stored, strict=True))


def test_at_a_width_that_16_divides_only_one_column_is_sampled(by_colour, tmp_path, write_image):
    pixels = np.zeros((4, 32, 3), np.uint8)
    pixels[:, 0, 1] = pixels[:, 16, 1] = 200
    write_image(tmp_path / "0.png", pixels)
    rows = checked(tmp_path, [Row("id0", "0.png", "", 4, 32, "train", "", "")])
    counts, _ = predicted(by_colour, tmp_path, rows, tmp_path / "parts", sampling=16)
    assert counts.sum(1).tolist() == [0, 8, 0]


def test_a_pass_lays_the_weights_out_as_its_settings_say(trained):
    pixels = torch.randint(256, (2, 3, 24, 20), dtype=torch.uint8)
    keep, logits, layouts = lambda found: (found,), [], []
    for channels_last in (False, True, False):
        stage = settings(channels_last=channels_last)
        (found,) = predict(trained, pixels, stage, CPU, keep)
        weight = trained.network.head[0].weight
        logits.append(found)
        layouts.append(weight.is_contiguous(memory_format=torch.channels_last))
    assert layouts == [False, True, False]
    assert torch.equal(logits[0], logits[2])
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-4, atol=1e-4)
