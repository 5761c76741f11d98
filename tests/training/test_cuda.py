"""What holds on every device: each test runs on the CPU and, where there is one, on a GPU."""

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from dst_cbc.inference.tiling import View, full_logits
from dst_cbc.inference.whole_images import evaluate, predict
from dst_cbc.models.segmentation import build, cpu_state, model_bytes
from dst_cbc.runtime import devices
from dst_cbc.runtime.errors import Unusable
from dst_cbc.runtime.resume import resume_folder
from dst_cbc.self_training import confidence
from dst_cbc.self_training.predict import normalized_labels, predict_part
from dst_cbc.settings.network import NetworkSettings
from dst_cbc.settings.stages import Compute, Inference, PredictStage
from dst_cbc.training.samples import Data
from dst_cbc.training.steps import on_device
from trainings import Killed, first_batch, make_stage, pseudo_labeled, small_network, train
from workflow import SCRIPTS

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
SMALL = small_network()
RESNET = NetworkSettings(backbone="resnet18", output_stride=8, aspp_rates=(1, 2))
LITE = NetworkSettings(
    backbone="tf_efficientnet_lite0", stages=4, output_stride=8, aspp_rates=(1, 2)
)
# On a CPU, one network and one precision are enough, because other files test the CPU.
NETWORKS = {"cpu": [SMALL], "cuda": [SMALL, RESNET, LITE]}
PRECISIONS = {"cpu": ["float32"], "cuda": ["float32", "bfloat16", "float16"]}
PLACES = [
    pytest.param(name, network, id=f"{name}-{network.backbone}")
    for name in DEVICES
    for network in NETWORKS[name]
]
LOW = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def stage_of(precision="float32", **changes):
    """Settings of a training with channels last, also in its validations."""
    both = {"precision": precision, "channels_last": True}
    return make_stage(validation={"batch": 3, "tile": 2048, **both}, **both, **changes)


def prepared(name, **compute):
    """The device, with torch set up for it as in a stage."""
    return devices.prepare(name, Compute(**compute))


@pytest.fixture(autouse=True)
def restored():
    """torch's switch that `devices.prepare` sets for the whole process."""
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def data(drawn, drawn_rows, digits_dataset, tmp_path):
    """Four labeled and four pseudo-labeled scenes, whose pixels are all digit 7."""
    rows = pseudo_labeled(drawn_rows["train"][4:], tmp_path / "labels", digits_dataset.classes)
    labeled, folder = drawn_rows["train"][:4], tmp_path / "labels"
    return Data(drawn, digits_dataset, labeled, rows, folder, drawn_rows["val"])


def model_of(settings, data):
    torch.manual_seed(0)
    return build(settings, data.dataset.classes)


@pytest.fixture
def run(data, tmp_path):
    """Function that trains a new model; returns the history, and the bytes of the last weights."""

    def start(name, settings, resume, kill_at=None, data=data, workers=0, **changes):
        stage = stage_of(round=1, deterministic=True, **changes)
        device = prepared(name, deterministic=True)
        model = model_of(settings, data)

        def kill(progress):
            if progress.step == kill_at:
                raise Killed

        with resume_folder(tmp_path / resume, "same") as work:
            options = {"save_seconds": 0, "workers": workers, "on_step": kill}
            end = train(model, None, data, stage, device, work, **options)
        return end.history, model_bytes(model, cpu_state(model), {})

    return start


@pytest.mark.parametrize("name, settings", PLACES)
def test_deterministic_trainings_end_in_the_same_bytes_also_after_a_kill(name, settings, run):
    for bits in PRECISIONS[name]:
        result = partial(run, name, settings, precision=bits)
        expected = result(f"{bits}1")
        assert result(f"{bits}2", workers=1) == expected
        with pytest.raises(Killed):
            result(f"{bits}3", kill_at=5)
        assert result(f"{bits}3") == expected
        assert result(f"{bits}4", seed=2) != expected


@pytest.mark.parametrize(
    "changes",
    [{"online_threshold": 0.1}, {"class_weights": "balanced"}, {"gamma": 0.0}, {"clip": 0.1}],
    ids=str,
)
@pytest.mark.parametrize("name", DEVICES)
def test_every_kind_of_loss_has_a_deterministic_gradient(name, changes, run):
    assert run(name, SMALL, "1", **changes) == run(name, SMALL, "2", **changes)


@pytest.mark.parametrize("name, settings", PLACES)
def test_a_prediction_gives_the_same_bytes_again(name, settings, data, tmp_path):
    device = prepared(name, deterministic=True)
    stage = PredictStage(batch=3, tile=2048, deterministic=True)
    for part in ("1", "2"):
        model = model_of(settings, data)
        model.network.to(device)
        predict_part(model, data.root, data.pseudo, 0, tmp_path / part, stage, device)
    files = [sorted((tmp_path / part).iterdir()) for part in ("1", "2")]
    assert len(files[0]) == 2
    assert [f.read_bytes() for f in files[0]] == [f.read_bytes() for f in files[1]]


@pytest.mark.parametrize("precision", LOW)
@pytest.mark.parametrize("name", DEVICES)
def test_training_lowers_the_loss_with_float32_weights_and_channels_last(
    name, precision, data, tmp_path
):
    device, model = prepared(name), model_of(small_network(aspp_rates=(1, 2)), data)
    stage = stage_of(precision, steps=30, validate_at=(5, 30), learning_rate=0.1)
    found = []

    def look(branch, inputs, output):
        last = inputs[0].is_contiguous(memory_format=torch.channels_last)
        found.append((branch.training, inputs[0].device.type, output.dtype, last))

    model.network.head[1].register_forward_hook(look)
    labeled_only = replace(data, pseudo=[])
    with resume_folder(tmp_path / "state", "same") as work:
        end = train(model, None, labeled_only, stage, device, work)
    assert end.history[1]["loss"] < 0.8 * end.history[0]["loss"]
    # In training and in validation.
    assert set(found) == {(mode, name, LOW[precision], True) for mode in (True, False)}
    weights = dict(model.network.named_parameters())
    assert {(one.dtype, one.device.type) for one in weights.values()} == {(torch.float32, name)}
    squares = [one for one in weights.values() if one.ndim == 4 and one.shape[-1] == 3]
    assert len(squares) > 3
    assert all(one.is_contiguous(memory_format=torch.channels_last) for one in squares)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("name", DEVICES)
def test_batches_for_a_gpu_are_pinned_and_copied_from_there(name, workers, data):
    device, stage = prepared(name), stage_of(round=1)
    _, batch = first_batch(data, stage, model_of(SMALL, data), device)
    parts = [values for stream in batch.values() for values in stream.values()]
    assert len(parts) == 4
    assert {values.is_pinned() for values in parts} == {name == "cuda"}
    on_device(batch, device, stage)
    with torch.profiler.profile() as profile:
        copied = on_device(batch, device, stage)
        if name == "cuda":
            torch.cuda.synchronize()
    copies = [event.key for event in profile.key_averages() if "HtoD" in event.key]
    assert copies == (["Memcpy HtoD (Pinned -> Device)"] if name == "cuda" else [])
    for stream, values in batch.items():
        for part, value in values.items():
            assert torch.equal(copied[stream][part].cpu(), value)
        assert copied[stream]["image"].is_contiguous(memory_format=torch.channels_last)


# TensorFloat-32, in which cuDNN convolves by default, keeps 10 bits of a number's fraction.
TOLERANCES = {False: 1e-5, True: 5e-3}
VIEWS = (View(), View(0.5), View(1, True))


@pytest.mark.parametrize("name, settings", PLACES)
def test_logits_of_every_device_are_those_of_float64(name, settings, data, monkeypatch):
    """The difference is relative to the norm of the logits."""
    device, generator = prepared(name), torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (1, 3, 65, 97), dtype=torch.uint8, generator=generator)

    @torch.inference_mode()
    def logits(device, dtype, tile, views):
        model = model_of(settings, data)
        for branch in model.network.head:
            torch.nn.init.normal_(branch.weight, std=0.1)
        model.network.eval().to(device, dtype)
        return torch.cat([*full_logits(model, images.to(device), tile, views=views)], -2).cpu()

    for case in ((2048, VIEWS[:1]), (64, VIEWS)):
        exact = logits("cpu", torch.float64, *case)
        assert exact.dtype == torch.float64
        for tf32, tolerance in TOLERANCES.items():
            monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", tf32)
            found = logits(device, torch.float32, *case)
            off = float((found - exact).norm() / exact.norm())
            print(f"{name} {settings.backbone} tile {case[0]} TF32 {tf32}: {off:.2g}")
            assert found.dtype == torch.float32 and off < tolerance


@pytest.mark.parametrize("name", DEVICES)
def test_classes_labels_and_metrics_are_those_of_the_cpu(name, data):
    def found(device, channels_last):
        settings = Inference(batch=3, tile=2048, channels_last=channels_last)
        model = model_of(SMALL, data)
        model.network.to(device)
        images = torch.randint(
            0, 256, (2, 3, 60, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
        )
        classes, levels = predict(model, images, settings, device, confidence.quantise)
        labels = normalized_labels(model, data.root, data.pseudo, [0.0] * 11, settings, device)
        rows = [data.root, data.validation, data.dataset, settings, device]
        return (
            classes.cpu().numpy(), levels.cpu().numpy().astype(int),
            np.stack([one for _, one in labels]), evaluate(model, *rows),
        )  # fmt: skip

    # On the CPU, too, two different computations are compared.
    ours, cpu = found(prepared(name), True), found(torch.device("cpu"), False)
    assert (ours[0] == cpu[0]).mean() > 0.999
    assert np.abs(ours[1] - cpu[1])[ours[0] == cpu[0]].max() <= 20
    assert (ours[2] == cpu[2]).mean() > 0.99
    assert np.abs(ours[3] - cpu[3]).sum() <= 0.002 * cpu[3].sum()


@pytest.mark.parametrize("name", DEVICES)
def test_too_little_memory_says_which_keys_to_lower(name):
    device = prepared(name)
    kind = Unusable if name == "cuda" else MemoryError
    with (
        pytest.raises(kind, match=r"out of memory.*[Tt]ried to allocate.*Lower train\.batch"),
        devices.explain_out_of_memory("train.batch"),
    ):
        torch.empty(10**15, dtype=torch.uint8, device=device)


JOB = """
import os, sys
sys.path.insert(0, sys.argv[1])
from dst_cbc.runtime import devices, gpu_locks
from dst_cbc.settings.stages import Compute
gpu_locks.take(sys.argv[2])
import torch
device = devices.prepare(sys.argv[2], Compute())
print(torch.ones(2, device=device).sum().item(), os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("name", DEVICES)
def test_a_job_computes_on_the_gpu_that_it_has_locked_while_another_waits(name, tmp_path):
    variables = {**os.environ, "TMPDIR": str(tmp_path)}
    # The last GPU, or none.
    variables["CUDA_VISIBLE_DEVICES"] = used = str(torch.cuda.device_count() - 1)
    command = [sys.executable, "-c", JOB, str(SCRIPTS), name]
    jobs = []

    def start():
        jobs.append(subprocess.Popen(command, env=variables, **PIPES))
        return jobs[-1].stdout

    def said(output):
        return [output.readline() for _ in range(2)]

    try:
        first = start()
        assert said(first)[1] == f"2.0 {used}\n"
        if name == "cuda":
            second = start()
            assert second.readline().startswith(f"waits for 1 of the GPUs {used}")
            jobs[0].kill()
            assert said(second)[1] == f"2.0 {used}\n"
    finally:
        for one in jobs:
            one.kill()
            one.communicate()


PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
