import copy
import json
import math
from contextlib import suppress
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import trainings
from dst_cbc.data.masks import label_table, open_label, write_indexed_png
from dst_cbc.models.model_file import read_checkpoint
from dst_cbc.models.segmentation import build, cpu_state
from dst_cbc.runtime import signals
from dst_cbc.runtime.errors import DataError, Unusable
from dst_cbc.runtime.resume import Busy, resume_folder
from dst_cbc.settings.network import NetworkSettings
from dst_cbc.training import checkpoint, loop, objectives, optimization
from dst_cbc.training.loop import beats
from dst_cbc.training.objectives import self_training
from dst_cbc.training.optimization import learning_rate
from dst_cbc.training.samples import Data
from dst_cbc.training.sampling import Draw, batches
from trainings import LABELED, PSEUDO, Killed, pseudo_labeled, same, sample, small_network, train

CPU = torch.device("cpu")


class Kept(Exception):
    """Leaves `resume_folder` with an exception, so that it keeps the folder."""


def killing(step):
    """Return an `on_step` hook that raises Killed after step `step`."""

    def kill(progress, _):
        if progress.step == step:
            raise Killed

    return kill


make_stage = partial(
    trainings.make_stage, augmentation={"rotation": 10, "brightness": 0.2, "noise": 0.02}
)


@pytest.fixture
def data(drawn, drawn_rows, digits_dataset):
    """Four labeled scenes, and three validation scenes."""
    return Data(drawn, digits_dataset, drawn_rows["train"][:4], [], None, drawn_rows["val"])


@pytest.fixture
def pseudo_data(data, drawn_rows, digits_dataset, tmp_path):
    """The same, with four pseudo-labeled scenes, all pixels digit 7; their masks cannot be read."""
    rows = pseudo_labeled(drawn_rows["train"][4:], tmp_path / "labels", digits_dataset.classes)
    return replace(data, pseudo=rows, pseudo_folder=tmp_path / "labels")


@pytest.fixture
def run(tmp_path, data, digits_dataset):
    """Function that trains a new model, and returns the final progress and the model's state dict.

    on_step: called after each step with the progress and the model.
    """

    def start(stage=None, data=data, best=None, resume="state", seed=0, on_step=None, **options):
        if on_step:
            options["on_step"] = lambda progress: on_step(progress, model)
        torch.manual_seed(seed)
        settings = small_network()
        model = build(settings, digits_dataset.classes)
        with suppress(Kept), resume_folder(tmp_path / resume, "same") as work:
            end = train(model, best, data, stage or make_stage(), CPU, work, **options)
            # Keep the folder, like a stage that fails after its training.
            raise Kept
        return end, cpu_state(model)

    return start


def initial(digits_dataset, seed=0):
    torch.manual_seed(seed)
    settings = small_network()
    return cpu_state(build(settings, digits_dataset.classes))


@pytest.mark.parametrize(
    "score, best, expected",
    [
        (50.0, None, True),
        (50.1, {"score": 50.0}, True),
        (50.0, {"score": 50.0}, False),
        (49.0, {"score": 50.0}, False),
        (0.0, None, True),
        (math.nan, None, False),
        (math.nan, {"score": 50.0}, False),
    ],
)
def test_a_model_is_kept_until_it_is_beaten_and_nan_never_beats(score, best, expected):
    assert beats(score, best) is expected


def test_training_lowers_the_loss_and_changes_every_weight(run, digits_dataset):
    stage = make_stage(steps=30, validate_at=(5, 30), learning_rate=0.1)
    end, state = run(stage)
    assert end.step == 30 and [row["step"] for row in end.history] == [5, 30]
    assert end.history[1]["loss"] < 0.8 * end.history[0]["loss"]
    before = initial(digits_dataset)
    assert not any(torch.equal(before[key], state[key]) for key in state)


@pytest.mark.parametrize("short, sizes", [(True, [3, 1, 3, 1]), (False, [3, 3, 3, 3])])
def test_with_short_batches_the_last_one_of_a_pass_holds_the_images_that_are_left(
    short, sizes, pseudo_data, digits_dataset
):
    """Four labeled and four pseudo-labeled images, three of each in a batch."""
    assert len(pseudo_data.labeled) == len(pseudo_data.pseudo) == 4
    model = build(small_network(), digits_dataset.classes)
    stage = make_stage(batch=6, short_batches=short)
    objective = objectives.make(model, pseudo_data, stage, CPU)
    loader, draws = loop.batches(objective.streams, stage, 0, 0, CPU)
    for number, (draw, batch) in enumerate(zip(draws[:4], loader, strict=False)):
        assert [len(of_stream) for of_stream in draw] == [sizes[number]] * 2
        assert [len(parts["image"]) for parts in batch.values()] == [sizes[number]] * 2
    if short:
        for stream in (0, 1):
            passed = [one.index for draw in draws[:2] for one in draw[stream]]
            assert sorted(passed) == [0, 1, 2, 3]


def test_history_has_the_columns_of_the_file_and_figures_in_percent(run):
    end, _ = run()
    for row in end.history:
        assert list(row) == loop.HISTORY
        assert 0 <= row["miou"] <= 100 and 0 <= row["pixel_accuracy"] <= 100
    assert end.history[0]["learning_rate"] == pytest.approx(learning_rate(make_stage(), 2))


def test_equal_settings_give_equal_bytes_and_another_seed_others(run):
    (one, first), (two, second) = run(resume="1"), run(resume="2")
    assert same(first, second) and one.history == two.history
    _, other = run(make_stage(seed=2), resume="3")
    _, later = run(make_stage(round=1), resume="4")
    assert not same(first, other) and not same(first, later)


def test_the_best_of_the_chain_keeps_its_weights_until_it_is_beaten(run, monkeypatch):
    scores = iter([30.0, 20.0, 40.0, 40.0])
    monkeypatch.setattr(loop, "mean_iou", lambda _: next(scores) / 100)
    states = []

    def keep(_, model):
        states.append({k: v.clone() for k, v in cpu_state(model).items()})

    end, last = run(make_stage(steps=4, validate_at=(1, 2, 3, 4)), on_step=keep)
    assert [row["best"] for row in end.history] == pytest.approx([30, 30, 40, 40])
    assert (end.best["round"], end.best["step"], end.best["selected_on"]) == (0, 3, "val")
    assert same(end.best_state, states[2]) and not same(end.best_state, last)


@pytest.mark.parametrize("before, best", [(None, 40), ({"round": 0, "step": 9, "score": 45.0}, 45)])
def test_where_ends_compete_only_the_last_step_can_replace_the_best_of_the_chain(
    run, monkeypatch, before, best
):
    curve = [30.0, 50.0, 40.0]
    scores = iter(curve)
    monkeypatch.setattr(loop, "mean_iou", lambda _: next(scores) / 100)
    stage = make_stage(steps=3, validate_at=(1, 2, 3), candidates="ends", round=1)
    end, weights = run(stage, best=before)
    assert [row["miou"] for row in end.history] == pytest.approx(curve)
    assert end.best["score"] == pytest.approx(best)
    assert same(end.best_state, weights) if before is None else end.best_state is None


def test_where_the_last_step_is_selected_it_is_the_model_whatever_came_before(run, monkeypatch):
    scores = iter([0.9, 0.4])
    monkeypatch.setattr(loop, "mean_iou", lambda confusion: next(scores))
    before = {"round": 0, "step": 9, "selected_on": "last", "score": 99.0}
    end, weights = run(make_stage(select="last"), best=before)
    assert (end.best["step"], end.best["score"], end.best["selected_on"]) == (6, 40, "last")
    assert same(end.best_state, weights)


def test_a_last_step_without_a_score_is_still_the_model(run, monkeypatch):
    monkeypatch.setattr(loop, "mean_iou", lambda confusion: math.nan)
    end, _ = run(make_stage(select="last"))
    assert (end.best["step"], end.best["score"]) == (6, None)


def test_a_chain_that_is_not_beaten_stays(run):
    before = {"round": 0, "step": 9, "selected_on": "val", "score": 100.0}
    end, _ = run(best=before)
    assert end.best == before and end.best_state is None
    assert [row["best"] for row in end.history] == [100.0, 100.0]


def test_with_few_images_the_log_says_how_sure_each_comparison_with_the_best_is(
    run, data, digits_dataset, capsys
):
    """Also with the best model of an earlier round, which a killed training does not forget."""
    few = replace(data, groups=[*range(len(data.validation))])
    before = {"round": 0, "step": 9, "selected_on": "val", "score": 99.0}
    torch.manual_seed(5)
    earlier = build(small_network(), digits_dataset.classes)
    end, _ = run(make_stage(round=1), data=few, best=before, best_model=earlier)
    said = [line for line in capsys.readouterr().out.splitlines() if "against" in line]
    assert len(said) == len(end.history) == 2
    assert all(" points (95 % interval " in line and " % sure)" in line for line in said)
    with pytest.raises(Killed):
        run(
            make_stage(round=1), data=few, best=before, best_model=earlier, save_seconds=0,
            on_step=killing(6), resume="killed",
        )  # fmt: skip
    capsys.readouterr()
    run(make_stage(round=1), data=few, best=before, resume="killed")
    assert [line for line in capsys.readouterr().out.splitlines() if "against" in line] == said[-1:]


def test_the_first_model_of_a_chain_is_compared_with_nothing(run, data, monkeypatch, capsys):
    few = replace(data, groups=[*range(len(data.validation))])
    scores = iter([30.0, 40.0] * 2)
    monkeypatch.setattr(loop, "mean_iou", lambda _: next(scores) / 100)
    run(data=few)
    said = [line for line in capsys.readouterr().out.splitlines() if "against" in line]
    assert len(said) == 1
    run(resume="without groups")
    assert "against" not in capsys.readouterr().out


def test_a_stage_that_ends_early_takes_the_steps_of_its_share_at_the_rates_of_the_whole():
    stage = make_stage(steps=10, validate_at=(4, 8, 10))
    early = loop.ended_early(stage, 0.6)
    assert (early.steps, early.validate_at) == (6, (4, 6))
    assert loop.ended_early(stage, 1.0) is stage
    assert loop.ended_early(stage, 0.8).validate_at == (4, 8)
    assert loop.ended_early(stage, 0.01).steps == 1
    assert stage.steps == 10


@pytest.mark.parametrize("killed_at, resumed_at", [(3, 2), (6, 5)])
def test_a_killed_and_resumed_training_ends_in_the_same_bytes(
    killed_at, resumed_at, run, pseudo_data, tmp_path, capsys
):
    undisturbed, expected = run(data=pseudo_data, resume="undisturbed")
    with pytest.raises(Killed):
        run(data=pseudo_data, save_seconds=0, on_step=killing(killed_at))
    assert read_checkpoint(tmp_path / "state/state.pt")["progress"]["step"] == resumed_at
    capsys.readouterr()
    end, state = run(data=pseudo_data, save_seconds=0, seed=99)
    assert f"resumed at step {resumed_at}\n" in capsys.readouterr().out
    assert same(state, expected)
    assert end.history == undisturbed.history and end.best == undisturbed.best
    assert same(end.best_state, undisturbed.best_state)
    assert (end.resumes, undisturbed.resumes) == (1, 0)


def test_the_seconds_of_all_sittings_count(run, tmp_path):
    with pytest.raises(Killed):
        run(save_seconds=0, on_step=killing(3))
    path = tmp_path / "state/state.pt"
    state = read_checkpoint(path)
    assert 0 < state["progress"]["seconds"] < 1000
    state["progress"]["seconds"] = 1000.0
    torch.save(state, path)
    end, _ = run(save_seconds=0)
    assert 1000 < end.seconds < 2000


def test_a_damaged_state_starts_anew_and_says_so(run, tmp_path, capsys):
    _, expected = run()
    assert (tmp_path / "state/fingerprint").is_file()
    (tmp_path / "state/state.pt").write_bytes(b"damaged")
    end, state = run()
    assert "state.pt: not a readable checkpoint" in capsys.readouterr().out
    assert end.resumes == 0 and same(state, expected)


@pytest.fixture
def asked(monkeypatch):
    """Function that simulates a signal that asks this process to stop."""
    return lambda: monkeypatch.setattr(signals, "_asked_by", "SIGTERM")


@pytest.mark.parametrize("stop_at", [2, 3, 6])
def test_a_training_that_is_asked_to_stop_saves_after_its_step_and_loses_nothing(
    stop_at, run, asked, pseudo_data, monkeypatch, tmp_path
):
    undisturbed, expected = run(data=pseudo_data, resume="undisturbed")
    calls = []

    def ask(*_):
        calls.append(1)
        if len(calls) == stop_at:
            asked()

    with pytest.raises(signals.Stopped, match=f"stopped by SIGTERM; step {stop_at} of 6 is saved"):
        run(data=pseudo_data, on_step=ask)
    assert len(calls) == stop_at
    monkeypatch.setattr(signals, "_asked_by", None)
    end, state = run(data=pseudo_data, seed=99, on_step=ask)
    assert len(calls) == 6 and same(state, expected)
    assert end.history == undisturbed.history and same(end.best_state, undisturbed.best_state)


def test_a_stop_during_a_validation_repeats_the_validation_and_no_step(
    run, asked, pseudo_data, monkeypatch
):
    undisturbed, expected = run(data=pseudo_data, resume="undisturbed")
    steps = []
    count = lambda *_: steps.append(1)  # noqa: E731
    with monkeypatch.context() as patch:
        evaluate = loop.evaluate_each
        patch.setattr(loop, "evaluate_each", lambda *a: asked() or evaluate(*a))
        with pytest.raises(signals.Stopped, match="step 3 of 6 is saved"):
            run(data=pseudo_data, on_step=count)
    monkeypatch.setattr(signals, "_asked_by", None)
    end, state = run(data=pseudo_data, seed=99, on_step=count)
    assert len(steps) == 6 and same(state, expected) and end.history == undisturbed.history


def test_a_training_whose_work_was_taken_over_stops_before_it_writes(run, tmp_path):
    def taken(*_):
        (tmp_path / "state.lock").write_text(json.dumps({"host": "node7", "pid": 1}))

    with pytest.raises(Busy, match="another process has taken this work over"):
        run(save_seconds=0, on_step=taken)
    assert not (tmp_path / "state/state.pt").exists()


def test_a_sample_is_seen_through_the_window_of_the_model(data, digits_dataset, tmp_path):
    row = data.labeled[0]
    grey = np.linspace(1000, 2000, row.height * row.width).reshape(row.height, row.width)
    Image.fromarray(grey.astype(np.uint16)).save(tmp_path / "deep.png")
    deep = replace(data, root=tmp_path, labeled=[replace(row, image="deep.png", label="m.png")])
    Image.open(data.root / row.label).save(tmp_path / "m.png")
    settings = small_network()
    stage = make_stage(crop=(row.height, row.width), augmentation={"scale": [1, 1], "flip": 0})
    for window, expected in (((1000, 2000), (0, 255)), ((0, 4000), (64, 128))):
        model = build(settings, digits_dataset.classes, window=window)
        image, _ = sample(deep, stage, model, Draw(LABELED, 0, 0))
        found = (int(image.min()), int(image.max()))
        assert found == pytest.approx(expected, abs=1)


def test_a_sample_has_the_channels_of_the_model(data, digits_dataset):
    row = data.labeled[0]
    pixels = np.asarray(Image.open(data.root / row.image))
    stage = make_stage(crop=(row.height, row.width), augmentation={"scale": [1, 1], "flip": 0})
    model = build(small_network(), digits_dataset.classes, bands=(3, 1, 1))
    image, _ = sample(data, stage, model, Draw(LABELED, 0, 0))
    np.testing.assert_array_equal(image.permute(1, 2, 0), pixels[..., [2, 0, 0]])


def test_a_state_half_written_is_no_state(run, monkeypatch, tmp_path):
    _, expected = run(resume="undisturbed")

    def fail(content, path):
        path.write_bytes(b"half")
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.torch, "save", fail)
        with pytest.raises(Killed):
            run(save_seconds=0)
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["fingerprint"]
    _, state = run()
    assert same(state, expected)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_with_step_images_and_the_last_state(
    bad, run, data, monkeypatch, tmp_path
):
    real, calls = self_training.dynamic_loss, []

    def spoil(*arguments):
        calls.append(arguments)
        return real(*arguments) * (bad if len(calls) == 3 else 1)

    monkeypatch.setattr(self_training, "dynamic_loss", spoil)
    with pytest.raises(Unusable) as error:
        run(save_seconds=0)
    (draws,) = next(batches(1, 0, [(4, 4, True)], 2, 3))
    text = str(error.value)
    assert f"step 2: the loss is {bad}" in text
    assert ", ".join(data.labeled[draw.index].id for draw in draws) in text
    assert str(tmp_path / "state") in text
    assert read_checkpoint(tmp_path / "state/state.pt")["progress"]["step"] == 2


def test_a_learning_rate_far_too_large_ends_with_a_message(run):
    with pytest.raises(Unusable, match=r"Lower train\.learning_rate or set train\.clip"):
        run(make_stage(learning_rate=1e30, validate_at=(6,)))


@pytest.mark.parametrize("steps", [1, 2])
def test_weights_that_are_no_numbers_are_never_the_best(steps, run):
    """The loss of the last step is finite, but its update makes the weights infinite or NaN."""
    spoilt = {"learning_rate": 3e38, "power": 0.0, "steps": steps, "validate_at": (steps,)}
    with pytest.raises(Unusable):
        run(make_stage(**spoilt))


def test_half_of_a_batch_is_pseudo_labeled_and_reads_only_its_pseudo_labels(
    run, pseudo_data, monkeypatch
):
    real, seen = self_training.dynamic_loss, []

    def watch(logits, labels, pseudo, gamma, weights, confidence, valid):
        assert weights is None and confidence is None
        seen.append((labels.clone(), pseudo, gamma))
        return real(logits, labels, pseudo, gamma, valid=valid)

    monkeypatch.setattr(self_training, "dynamic_loss", watch)
    run(data=pseudo_data)
    assert len(seen) == 6
    for labels, pseudo, gamma in seen:
        assert labels.shape == (4, 24, 24) and labels.dtype == torch.int64
        assert (pseudo, gamma) == (2, 2.0)
        assert set(labels[2:].unique().tolist()) <= {8, 255}
        assert 0 in labels[:2]


def test_without_pseudo_labels_the_whole_batch_is_labeled(run, monkeypatch):
    real, seen = self_training.dynamic_loss, []
    monkeypatch.setattr(
        self_training, "dynamic_loss", lambda *a: seen.append((len(a[0]), a[2])) or real(*a)
    )
    run()
    assert set(seen) == {(4, 0)}


def test_the_learning_rate_of_each_step_reaches_the_optimizer(run, monkeypatch):
    rates = []
    real = optimization.SGD.step
    monkeypatch.setattr(
        optimization.SGD,
        "step",
        lambda self, *a, **k: rates.append(self.param_groups[0]["lr"]) or real(self, *a, **k),
    )
    stage = make_stage()
    run(stage)
    assert rates == [learning_rate(stage, step) for step in range(6)]


def test_workers_change_no_byte(run, pseudo_data):
    _, alone = run(data=pseudo_data, resume="1")
    _, with_workers = run(data=pseudo_data, resume="2", workers=2)
    assert same(alone, with_workers)


def test_where_validations_lie_changes_no_weight(run):
    _, often = run(make_stage(validate_at=(1, 2, 3, 4, 5, 6)), resume="1")
    _, once = run(make_stage(validate_at=(6,)), resume="2")
    assert same(often, once)


def test_the_network_is_back_in_training_mode_after_a_validation(run, monkeypatch):
    modes = []
    real = self_training.logits_of
    monkeypatch.setattr(
        self_training, "logits_of", lambda m, *a: modes.append(m.network.training) or real(m, *a)
    )
    run()
    assert modes == [True] * 6


def test_bfloat16_trains_with_float32_weights_and_losses(run, monkeypatch):
    real, losses = self_training.dynamic_loss, []

    def watch(*arguments):
        losses.append(real(*arguments))
        return losses[-1]

    monkeypatch.setattr(self_training, "dynamic_loss", watch)
    _, low = run(make_stage(precision="bfloat16"), resume="1")
    assert {loss.dtype for loss in losses} == {torch.float32}
    assert {value.dtype for value in low.values()} == {torch.float32, torch.int64}
    _, exact = run(resume="2")
    assert not same(low, exact)
    torch.testing.assert_close(low["head.0.weight"], exact["head.0.weight"], rtol=0.2, atol=0.02)


def test_padding_that_would_cut_an_image_stops_before_the_first_step(run):
    small = {"batch": 3, "tile": 2048, "pad": (39, 40)}
    with pytest.raises(DataError, match=r"evaluation\.pad: found \[39, 40\], but .* 40 x 40"):
        run(make_stage(validation=small), on_step=lambda *_: pytest.fail("a step was made"))


def test_channels_last_changes_no_more_than_the_rounding(run):
    _, other = run(make_stage(channels_last=True, steps=3, validate_at=(3,)), resume="1")
    _, usual = run(make_stage(steps=3, validate_at=(3,)), resume="2")
    for key in usual:
        torch.testing.assert_close(other[key], usual[key], rtol=1e-3, atol=1e-3)


def test_a_clipped_gradient_moves_the_weights_by_no_more_than_it_may(run, digits_dataset):
    still = {"weight_decay": 0.0, "momentum": 0.0, "learning_rate": 1.0, "power": 0.0}
    one = {"steps": 1, "validate_at": (1,)}
    before = initial(digits_dataset)
    parameters = [k for k in before if not k.endswith(("running_mean", "running_var", "tracked"))]

    def moved(**clip):
        _, after = run(make_stage(**still, **one, **clip), resume=f"{clip}")
        return math.sqrt(sum(((after[k] - before[k]) ** 2).sum().item() for k in parameters))

    free = moved()
    assert moved(clip=free / 10) == pytest.approx(free / 10, rel=1e-3)
    assert moved(clip=free * 10) == pytest.approx(free, rel=1e-5)


def logged(board):
    events = EventAccumulator(str(board))
    events.Reload()
    return {tag: [e.step for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_has_every_step_once_also_after_a_resume(run, monkeypatch, tmp_path):
    real, flushed = loop.SummaryWriter.flush, []

    def kill(writer):
        real(writer)
        flushed.append(1)
        if len(flushed) == 2:
            raise Killed

    board = tmp_path / "board"
    with monkeypatch.context() as patch:
        patch.setattr(loop.SummaryWriter, "flush", kill)
        with pytest.raises(Killed):
            run(save_seconds=0, board=board)
    assert logged(board)["miou"] == [3, 6]
    run(save_seconds=0, board=board)
    steps = logged(board)
    assert set(steps) == {"loss", "learning_rate", "miou", "pixel_accuracy"}
    assert all(found == [3, 6] for found in steps.values())


def test_a_sample_follows_from_its_draw_alone(data, digits_dataset):
    settings = small_network()
    model = build(settings, digits_dataset.classes)
    of = partial(sample, data, make_stage(), model)
    first = of(Draw(LABELED, 2, 1))
    of(Draw(LABELED, 0, 0))
    for one, again in zip(first, of(Draw(LABELED, 2, 1)), strict=True):
        assert torch.equal(one, again)
    assert not torch.equal(first[0], of(Draw(LABELED, 3, 1))[0])
    image, label = first
    assert image.shape == (3, 24, 24) and image.dtype == torch.uint8
    assert label.shape == (24, 24) and label.dtype == torch.uint8


def test_what_lies_outside_the_image_has_the_mean_colour_and_is_ignored(data, digits_dataset):
    settings = small_network()
    model = replace(build(settings, digits_dataset.classes), mean=(0.2, 0.4, 0.6))
    stage = make_stage(crop=(60, 60), augmentation={"scale": (1, 1), "flip": 0})
    image, label = sample(data, stage, model, Draw(LABELED, 0, 0))
    outside = label == 255
    assert outside.sum() == 60 * 60 - 40 * 40
    # With bilinear interpolation, the pixels next to the image may mix with it.
    beside = F.max_pool2d((~outside).float()[None], 3, stride=1, padding=1)[0] > 0
    assert image[:, ~beside].unique(dim=1).ravel().tolist() == [51, 102, 153]


def test_a_pseudo_labeled_sample_reads_the_file_of_its_id(pseudo_data, digits_dataset):
    settings = small_network()
    model = build(settings, digits_dataset.classes)
    path = pseudo_data.pseudo_folder / f"{pseudo_data.pseudo[2].id}.png"
    write_indexed_png(path, np.full((40, 40), 7, np.uint8), digits_dataset.classes)
    _, label = sample(pseudo_data, make_stage(), model, Draw(PSEUDO, 0, 2))
    assert set(label.unique().tolist()) <= {7, 255} and 7 in label
    _, label = sample(pseudo_data, make_stage(), model, Draw(PSEUDO, 0, 1))
    assert set(label.unique().tolist()) <= {8, 255} and 8 in label


@pytest.mark.parametrize("labels", [np.full((40, 40), 11), np.zeros((40, 39))])
def test_a_pseudo_label_of_a_value_or_size_that_cannot_be_is_not_trained_on(
    labels, pseudo_data, digits_dataset
):
    """The checksum of the file does not help if somebody else made both."""
    assert len(digits_dataset.classes) == 11
    path = pseudo_data.pseudo_folder / f"{pseudo_data.pseudo[2].id}.png"
    write_indexed_png(path, labels.astype(np.uint8), digits_dataset.classes)
    model = build(small_network(), digits_dataset.classes)
    with pytest.raises(
        DataError, match=r"\.png: found .*expected .* 40 x 40, values 0 to 10 or 255"
    ):
        sample(pseudo_data, make_stage(), model, Draw(PSEUDO, 0, 2))


def test_the_labeled_loss_is_weighted_by_the_masks_of_the_labeled_images(run, data, monkeypatch):
    real, seen = self_training.dynamic_loss, []
    monkeypatch.setattr(self_training, "dynamic_loss", lambda *a: seen.append(a[4]) or real(*a))
    run(make_stage(class_weights="balanced"))
    table = label_table(data.dataset)
    masks = [np.asarray(open_label(data.root / row.label, table)) for row in data.labeled]
    share = np.mean(np.stack(masks) == 0)
    present = len(np.unique(masks))
    assert seen[0][0].item() == pytest.approx(1 / (present * share))
    assert all(torch.equal(seen[0], weights) for weights in seen)


def test_what_is_frozen_stays_frozen_through_validation_and_resume(run, digits_dataset):
    stage = make_stage(freeze_stages=2, freeze_norm=True)
    _, state = run(stage)
    before = initial(digits_dataset)
    changed = {key for key in state if not torch.equal(before[key], state[key])}
    assert changed == {
        "backbone.2.0.weight", "backbone.3.0.weight", "head.0.weight", "head.0.bias"
    }  # fmt: skip


def test_on_a_cpu_dilated_depthwise_stages_train_interleaved(data, digits_dataset, tmp_path):
    settings = NetworkSettings(backbone="tf_efficientnet_lite0", output_stride=16, aspp_rates=(1,))
    model, seen = build(settings, digits_dataset.classes), set()
    model.network.backbone.blocks[6][0].conv_dw.register_forward_hook(
        lambda convolution, *_: seen.add((model.network.training, convolution.dilation))
    )
    stage = make_stage(crop=(64, 64), steps=1, validate_at=(1,))
    with resume_folder(tmp_path / "state", "same") as work:
        train(model, None, data, stage, CPU, work)
    assert seen == {(True, (1, 1)), (False, (2, 2))}


@pytest.mark.parametrize("gamma, weight_decay", [(0.0, 0.0), (0.0, 1e-3), (5.0, 1e-3)])
def test_steps_in_float64_are_those_written_out_with_plain_pytorch(
    gamma, weight_decay, pseudo_data, digits_dataset, tmp_path
):
    """Forward, loss, backward, momentum, poly rate; to the last bit if gamma is 0 (stock loss)."""
    steps = 3
    stage = make_stage(gamma=gamma, weight_decay=weight_decay, steps=steps, validate_at=(steps,))
    torch.manual_seed(0)
    settings = small_network(aspp_rates=(1, 2))
    model = build(settings, digits_dataset.classes)
    plain = copy.deepcopy(model.network).double()
    model.network.double()
    of = partial(sample, pseudo_data, stage, model)
    with resume_folder(tmp_path / "state", "64") as work:
        train(model, None, pseudo_data, stage, CPU, work)

    plain.train()
    momenta = [torch.zeros_like(weight) for weight in plain.parameters()]
    mean, std = (torch.tensor(v).double().view(3, 1, 1) * 255 for v in (model.mean, model.std))
    streams = [(4, 2, True), (4, 2, True)]
    for step, (labeled, pseudo) in enumerate(batches(stage.seed, 0, streams, 0, steps)):
        images, labels = map(torch.stack, zip(*map(of, labeled + pseudo), strict=True))
        labels = labels.long()
        features = plain.backbone((images.double() - mean) / std)[-1]
        logits = plain.head[0](features) + plain.head[1](features)
        logits = F.interpolate(logits, labels.shape[-2:], mode="bilinear", align_corners=True)
        if gamma == 0:
            loss = F.cross_entropy(logits, labels, ignore_index=255, reduction="sum")
        else:
            known = labels != 255
            log_p = logits.log_softmax(1).gather(1, labels.where(known, 0)[:, None])[:, 0]
            weight = log_p.detach().exp() ** gamma
            weight[:2] = 1
            loss = -(weight * log_p)[known].sum()
        plain.zero_grad()
        (loss / (labels != 255).sum()).backward()
        rate = 0.05 * (1 - step / steps) ** 0.9
        with torch.no_grad():
            for weight, momentum in zip(plain.parameters(), momenta, strict=True):
                assert weight.grad.abs().max() > 0
                momentum.mul_(0.9).add_(weight.grad.add(weight, alpha=weight_decay))
                weight.add_(momentum, alpha=-rate)
    ours, expected = model.network.state_dict(), plain.state_dict()
    for name, value in expected.items():
        if gamma == 0:
            assert torch.equal(ours[name], value), name
        else:
            torch.testing.assert_close(ours[name], value, rtol=1e-12, atol=1e-14)
