import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from dst_cbc import confidence, predictions
from dst_cbc.files import DataError
from dst_cbc.index import Row
from dst_cbc.inference import evaluate, image_tensor, predict, predict_part, same_size_batches
from dst_cbc.models import build
from dst_cbc.settings import Inference, NetworkSettings
from dst_cbc.tiling import full_logits
from reference import histogram

WHOLE = 2048


def settings(batch=2, tile=WHOLE):
    return Inference(batch=batch, tile=tile)


CPU = torch.device("cpu")
SIZES = [(12, 16), (12, 16), (16, 12), (12, 16), (20, 8), (20, 8), (20, 8)]


class Threshold(nn.Module):
    """A network without parameters: red is class 2, green 1, blue 0; each pixel for itself."""

    stride = 1

    def forward(self, images):
        return images.flip(1)


@pytest.fixture
def by_colour(folder_dataset):
    """A model whose answers are known: the class of a pixel is its strongest colour."""
    network = NetworkSettings(backbone="small", output_stride=4)
    model = build(network, folder_dataset.classes)
    return type(model)(Threshold(), network, folder_dataset.classes, (0.0,) * 3, (1.0,) * 3)


@pytest.fixture
def trained(folder_dataset):
    """A small network whose answers vary."""
    torch.manual_seed(1)
    network = NetworkSettings(backbone="small", output_stride=4, aspp_rates=(1, 2))
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
    """Images of several sizes with random masks, a tenth ignored: folder, rows, arrays."""
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
    return tmp_path, rows, images, masks


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


def test_an_image_without_a_mask_cannot_be_evaluated(pictures, by_colour, folder_dataset):
    root, rows, _, _ = pictures
    bare = [*rows, Row("bare", "0.png", "", 12, 16, "val", "", "")]
    with pytest.raises(DataError, match="'bare' has no label"):
        evaluate(by_colour, root, bare, folder_dataset, settings(), CPU)


def test_no_images_have_an_empty_matrix(tmp_path, by_colour, folder_dataset):
    matrix = evaluate(by_colour, tmp_path, [], folder_dataset, settings(), CPU)
    assert matrix.shape == (3, 3) and not matrix.any()


def predicted_logits(model, pixels):
    # As one tensor (N, H, W) for each class, which is what `predict` puts together.
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


def predicted(model, root, rows, folder, batch=2, workers=0):
    parts = -(-len(rows) // predictions.PART_IMAGES)
    for part in range(parts):
        predict_part(model, root, rows, part, folder, settings(batch), CPU, workers)
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
    row = Row("a", "a.png", "m.png", 90, 150, "val", "", "")
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
