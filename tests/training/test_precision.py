"""Mixed precision: only the forward pass runs in 16 bits, and only float16 scales its loss."""

import copy
from contextlib import suppress

import pytest
import torch

import trainings
from dst_cbc.data.index import Row
from dst_cbc.inference import tiling
from dst_cbc.inference.whole_images import predict
from dst_cbc.models import segmentation
from dst_cbc.models.segmentation import build
from dst_cbc.runtime.resume import resume_folder
from dst_cbc.self_training import confidence
from dst_cbc.self_training.predict import normalized_labels, predict_part
from dst_cbc.settings.stages import Inference, PredictStage
from dst_cbc.training import losses
from dst_cbc.training.objectives import self_training
from dst_cbc.training.samples import Data
from trainings import small_network, train

CPU = torch.device("cpu")
LOW = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def make_stage(precision, **changes):
    validation = {"batch": 3, "tile": 2048, "precision": precision}
    values = {"steps": 2, "validate_at": (2,), "round": 1, "validation": validation}
    return trainings.make_stage(**values | {"precision": precision} | changes)


@pytest.fixture
def model(digits_dataset):
    torch.manual_seed(0)
    settings = small_network(aspp_rates=(1, 2))
    return build(settings, digits_dataset.classes)


@pytest.fixture
def data(drawn, drawn_rows, digits_dataset):
    """Four labeled scenes, and four that the model labels during training."""
    rows = drawn_rows["train"]
    return Data(drawn, digits_dataset, rows[:4], rows[4:], None, drawn_rows["val"])


@pytest.fixture
def seen(monkeypatch):
    """Function that wraps `module.name`, and returns the set of its floating-point dtypes."""
    found = {}

    def watch(module, name):
        real, types = getattr(module, name), found.setdefault(name, set())

        def watched(*arguments, **options):
            assert not torch.is_autocast_enabled("cpu")
            result = real(*arguments, **options)
            tensors = (*arguments, *(result if isinstance(result, tuple) else (result,)))
            types.update(t.dtype for t in tensors if torch.is_tensor(t) and t.is_floating_point())
            return result

        monkeypatch.setattr(module, name, watched)
        return types

    return watch


def heads_of(model):
    """The set of dtypes that the head's convolutions return."""
    found = set()
    for branch in model.network.head:
        branch.register_forward_hook(lambda *call: found.add(call[2].dtype))
    return found


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_training_upsamples_labels_and_weighs_in_float32(precision, model, data, seen, tmp_path):
    low = heads_of(model)
    watched = [
        seen(segmentation, "upsample"),
        seen(self_training, "online_labels"),
        seen(self_training, "dynamic_loss"),
        seen(losses._CrossEntropy, "apply"),
        seen(tiling, "upsample"),
    ]
    with resume_folder(tmp_path / "state", "same") as work:
        train(model, None, data, make_stage(precision, online_threshold=0.1), CPU, work)
    assert low == {LOW[precision]}
    assert watched == [{torch.float32}] * 5
    assert {weight.dtype for weight in model.network.parameters()} == {torch.float32}


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_confidences_and_labels_are_computed_in_float32(
    precision, model, drawn, drawn_rows, seen, tmp_path
):
    low = heads_of(model)
    rows: list[Row] = drawn_rows["train"]
    upsampled, quantised = seen(tiling, "upsample"), seen(confidence, "quantise")
    stage = PredictStage(batch=4, tile=2048, precision=precision)
    predict_part(model, drawn, rows, 0, tmp_path, stage, CPU)
    ranked = seen(confidence, "quantise")
    list(normalized_labels(model, drawn, rows, [0.0] * 11, stage, CPU))
    assert low == {LOW[precision]}
    assert upsampled == quantised == ranked == {torch.float32}


@pytest.mark.parametrize("tile", [64, 2048])
def test_logits_of_whole_images_and_of_tiles_are_float32(tile, model):
    stage = Inference(batch=1, tile=tile, precision="bfloat16")
    images = torch.randint(0, 256, (1, 3, 40, 200), dtype=torch.uint8)
    types = []
    predict(model, images, stage, CPU, lambda x: types.append(x.dtype) or (x[:, 0],))
    assert len(types) == (2 if tile == 64 else 1) and set(types) == {torch.float32}


@pytest.mark.parametrize("precision", LOW)
def test_only_float16_scales_its_loss(precision, model, data, monkeypatch, tmp_path):
    scaled, made = [], []

    class Scaler(torch.amp.GradScaler):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            made.append(self)

        def scale(self, loss):
            scaled.append((loss, super().scale(loss)))
            return scaled[-1][1]

    monkeypatch.setattr(torch.amp, "GradScaler", Scaler)
    with resume_folder(tmp_path / "state", "same") as work:
        train(model, None, data, make_stage(precision, online_threshold=0.1), CPU, work)
    (scaler,) = made
    assert scaler.is_enabled() == (precision == "float16") and len(scaled) == 2
    factor = 2.0**16 if precision == "float16" else 1.0
    assert all(large.item() == factor * loss.item() for loss, large in scaled)
    assert {large.dtype for _, large in scaled} == {torch.float32}


def test_a_step_whose_scaled_gradient_overflows_is_left_out_and_the_scale_halved(
    model, data, monkeypatch, tmp_path
):
    class Large(torch.amp.GradScaler):
        def __init__(self, device, enabled):
            super().__init__(device, init_scale=2.0**126, enabled=enabled)

    monkeypatch.setattr(torch.amp, "GradScaler", Large)
    before = copy.deepcopy(dict(model.network.named_parameters()))

    class Kept(Exception):
        pass

    stage = make_stage("float16", online_threshold=0.1)
    with suppress(Kept), resume_folder(tmp_path / "state", "same") as work:
        train(model, None, data, stage, CPU, work, save_seconds=0)
        # Keep the folder, whose state was saved after the first step.
        raise Kept
    after = dict(model.network.named_parameters())
    assert all(torch.equal(before[name], after[name]) for name in before)
    state = torch.load(tmp_path / "state/state.pt", weights_only=True)
    assert state["progress"]["step"] == 1 and state["scalers"]["network"]["scale"] == 2.0**125
