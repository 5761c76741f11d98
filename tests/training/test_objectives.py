"""The interface of objectives, tested with two that are not part of the package.

`EmaTeacher` is the example of docs/contributing/method.md, unchanged. `PeersAndCritic` uses every
feature of the interface: two networks, a critic with its own optimizer, two backward passes before
a step, a stream with two views of different shapes, randomness by position in the batch, a
differentiable sum over the batch, and a running count in a buffer. The tests train, kill, resume
and evaluate both, and train them with two processes.
"""

import copy
import math
from contextlib import suppress
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import trainings
from dst_cbc.models.segmentation import cpu_state, logits_of
from dst_cbc.runtime.resume import resume_folder
from dst_cbc.training import loop, objectives, steps
from dst_cbc.training.losses import dynamic_loss
from dst_cbc.training.objective import Objective, Step, Stream, Trained, trained
from dst_cbc.training.optimization import average
from dst_cbc.training.ranks import Ranks
from dst_cbc.training.samples import Data, labeled_stream, pseudo_stream
from examples import METHOD_CODE, load
from trainings import (
    CPU,
    Killed,
    require_gradients_of_one,
    same,
    small_model,
    weights_after_two,
)


def ema_teacher(model, data, stage, device, ranks):
    """The documentation's objective, whose teacher keeps 0.75 of its weights in each step."""
    objectives.place(model, stage, device, ranks)
    chosen = SimpleNamespace(name="ema_teacher", keep=0.75)
    stage = stage.model_copy(update={"objective": chosen})
    example = load("dst_cbc.training.objectives.ema_teacher", METHOD_CODE)
    return example.Objective(model, data, stage)


class Count(nn.Module):
    """The number of pixels labeled as each class since the start of training."""

    def __init__(self, classes):
        super().__init__()
        self.register_buffer("seen", torch.zeros(classes, dtype=torch.int64))


def two_views(stream, draw, random):
    """A weak view, the unchanged sample, and a strong view, its corner as noisy floats."""
    weak = stream.sample(draw, random)
    corner = weak["image"][:, :16, :20].float()
    return {"weak": weak["image"], "strong": corner + random.normal(0, 5)}


class PeersAndCritic(Objective):
    """The left network labels the images for both networks; the right network is evaluated."""

    def __init__(self, model, data, stage):
        left, right = model, replace(model, network=copy.deepcopy(model.network))
        with torch.no_grad():
            for weight in right.network.parameters():
                weight.mul_(1.1)
        kind = {"dtype": next(model.network.parameters()).dtype}
        classes = len(model.classes)
        critic = nn.Conv2d(classes, 1, 4, stride=4, **kind)
        self.left, self.right, self.critic, self.count = left, right, critic, Count(classes)
        self.modules = {
            "left": trained(left.network, stage),
            "right": trained(right.network, stage),
            "critic": Trained(
                critic,
                torch.optim.SGD(critic.parameters(), momentum=stage.momentum),
                rate=lambda step: stage.learning_rate / 2,
            ),
            "count": Trained(self.count),
        }
        self.evaluated = right
        pseudo = pseudo_stream(data, stage, model, 4)
        self.streams = [
            labeled_stream(data, stage, model, 2),
            Stream("views", data.pseudo, 4, partial(two_views, pseudo)),
        ]

    def losses(self, batch, step):
        labeled, views = batch["labeled"], batch["views"]
        assert views["weak"].shape[1:] == (3, 24, 24) and views["weak"].dtype == torch.uint8
        assert views["strong"].shape[1:] == (3, 16, 20) and views["strong"].dtype == torch.float32
        labels = labeled["label"].long()
        valid = step.ranks.sum((labels != 255).sum())
        for name, model in (("left", self.left), ("right", self.right)):
            logits = logits_of(model, labeled["image"])
            loss = F.cross_entropy(logits, labels, ignore_index=255, reduction="sum") / valid
            # The first of two backward passes; False: no optimizer step yet.
            yield name, loss, False
        with torch.no_grad():
            whole = logits_of(self.left, views["weak"])
        own = whole[..., :16, :20].argmax(1)
        self.count.seen += step.ranks.sum(own.flatten().bincount(minlength=len(self.count.seen)))
        places = len(step.places["views"])
        weights = [step.generator("views", image).uniform() for image in range(places)]
        pixels = step.ranks.sum(torch.tensor(own.numel()))
        for name, model in (("left", self.left), ("right", self.right)):
            logits = logits_of(model, views["strong"])
            each = F.cross_entropy(logits, own, reduction="none").mean((1, 2))
            judged = self.critic(logits.softmax(1)).sum()
            total = step.ranks.differentiable_sum(logits.square().sum()) / pixels
            loss = (each * each.new_tensor(weights)).sum() - 0.01 * judged
            # `total` is of the whole batch, so each process contributes an equal part.
            yield name, loss + total.sqrt() / step.ranks.size, True
        # Not detached: the loop must restrict the gradient to the critic.
        scores = self.critic(logits_of(self.right, views["strong"]).softmax(1))
        yield "critic", scores.sigmoid().sum() / pixels, True


def peers_and_critic(model, data, stage, device, ranks):
    objectives.place(model, stage, device, ranks)
    return PeersAndCritic(model, data, stage)


BOTH = pytest.mark.parametrize("make", [ema_teacher, peers_and_critic])


make_stage = partial(
    trainings.make_stage,
    learning_rate=0.02,
    gamma=9.0,
    round=1,
    augmentation={"rotation": 10, "noise": 0.02},
)


@pytest.fixture
def data(drawn, drawn_rows, digits_dataset):
    """Four labeled scenes, and four to label during training, whose masks cannot be read."""
    rows = [replace(row, label="no/such/mask.png") for row in drawn_rows["train"][4:]]
    return Data(drawn, digits_dataset, drawn_rows["train"][:4], rows, None, drawn_rows["val"])


@pytest.fixture
def run(tmp_path, data):
    """Function that trains a new objective; returns it and the final progress; keeps the state."""

    def start(make, stage=None, resume="state", seed=0, **options):
        stage = stage or make_stage()
        torch.manual_seed(seed)
        model = small_model(data.dataset)
        objective = make(model, data, stage, CPU, Ranks())

        class Kept(Exception):
            pass

        with suppress(Kept), resume_folder(tmp_path / resume, "same") as work:
            end = loop.train(objective, None, data, stage, CPU, work, **options)
            raise Kept
        return objective, end

    return start


def tensors(objective):
    """All tensors of the modules and of their optimizers (momenta), by name."""
    found = {}
    for name, one in objective.modules.items():
        found |= {f"{name}.{key}": value for key, value in one.module.state_dict().items()}
        if one.optimizer:
            state = one.optimizer.state_dict()["state"]
            found |= {
                f"{name}.{number}.{key}": value
                for number, values in state.items()
                for key, value in values.items()
                if torch.is_tensor(value)
            }
    return found


@BOTH
def test_all_that_an_objective_changes_is_trained(make, run):
    first, _ = run(make, make_stage(steps=1, validate_at=(1,)), "first step")
    before = tensors(first)
    objective, end = run(make)
    assert end.step == 6 and [row["step"] for row in end.history] == [3, 6]
    assert all(math.isfinite(row["loss"]) for row in end.history)
    after = tensors(objective)
    assert not [key for key in before if torch.equal(before[key], after[key])]


@BOTH
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_and_resumed_it_ends_in_the_same_bytes(make, workers, run, capsys):
    undisturbed, expected = run(make, resume="undisturbed")

    def kill(progress):
        if progress.step == 5:
            raise Killed

    with pytest.raises(Killed):
        run(make, save_seconds=0, on_step=kill, workers=workers)
    objective, end = run(make, save_seconds=0, seed=99, workers=workers)
    assert "resumed at step 4\n" in capsys.readouterr().out
    assert same(tensors(objective), tensors(undisturbed))
    assert end.history == expected.history and same(end.best_state, expected.best_state)


@pytest.mark.parametrize("make, evaluated", [(ema_teacher, "teacher"), (peers_and_critic, "right")])
def test_the_stated_module_is_validated_and_kept(make, evaluated, run, monkeypatch):
    scores = iter([0.4, 0.2])
    monkeypatch.setattr(loop, "mean_iou", lambda confusion: next(scores))
    seen, states = [], []
    real = loop.evaluate_each
    monkeypatch.setattr(
        loop, "evaluate_each", lambda model, *rest: seen.append(model.network) or real(model, *rest)
    )
    # `run` makes the objective; keep a reference to inspect it during training.
    made = []

    def keep(progress):
        states.append({k: v.clone() for k, v in cpu_state(made[0].evaluated).items()})

    objective, end = run(lambda *a: made.append(make(*a)) or made[0], on_step=keep)
    module = objective.modules[evaluated].module
    assert seen == [module, module] and objective.evaluated.network is module
    assert end.best["step"] == 3 and same(end.best_state, states[2])
    assert not same(end.best_state, cpu_state(objective.evaluated))


@pytest.mark.slow
@BOTH
def test_two_processes_give_the_gradients_of_one_on_the_same_batch(make, data, tmp_path):
    plain = {"learning_rate": 1.0, "momentum": 0.0, "weight_decay": 0.0, "power": 0.0}
    stage = make_stage(steps=1, validate_at=(1,), freeze_norm=True, gpus=2, **plain)
    before, after, learning = require_gradients_of_one(make, data, stage, tmp_path)
    assert all(not torch.equal(before[name], after[name]) for name in learning)


@pytest.mark.slow
def test_all_processes_have_the_running_statistics_of_the_first(data, tmp_path):
    """Each process sees half of the batch; after each step, the statistics are shared."""
    stage = make_stage(steps=2, validate_at=(2,), gpus=2)
    first, second = weights_after_two(ema_teacher, data, stage, tmp_path)
    assert any("running_mean" in name for name in first) and same(first, second)


def test_the_teacher_of_the_example_is_the_average_of_what_the_student_was(run):
    """Two steps, written out: t <- 3/4 t + 1/4 s for floats; integer counts are copied."""
    students, made = [], []

    def keep(_=None):
        student = made[0].modules["student"].module
        students.append({key: value.clone() for key, value in student.state_dict().items()})

    def make(*arguments):
        made.append(ema_teacher(*arguments))
        keep()
        return made[0]

    run(make, make_stage(steps=2, validate_at=(2,)), on_step=keep)
    teacher = made[0].modules["teacher"].module.state_dict()
    start, first, second = students
    for name, value in teacher.items():
        if value.is_floating_point():
            expected = 0.75 * (0.75 * start[name] + 0.25 * first[name]) + 0.25 * second[name]
            torch.testing.assert_close(value, expected)
        else:
            assert value == second[name] == 2


def test_the_student_of_the_example_learns_what_the_teacher_says(data):
    stage = make_stage()
    objective = ema_teacher(small_model(data.dataset), data, stage, CPU, Ranks())
    average(objective.teacher.network, small_model(data.dataset, seed=1).network, 0.0)
    steps.set_modes(objective.modules)
    loader, _ = loop.batches(objective.streams, stage, 0, 0, CPU)
    batch = next(loader)
    state = copy.deepcopy(objective.student.network.state_dict())
    ((name, found, now),) = objective.losses(batch, Step(0, 6, 1, 1))
    objective.student.network.load_state_dict(state)
    parts = [batch[stream][part] for part in ("image", "label") for stream in ("labeled", "pseudo")]
    images, labels = torch.cat(parts[:2]), torch.cat(parts[2:]).long()
    objective.teacher.network.eval()
    own = logits_of(objective.teacher, parts[1]).argmax(1)
    labels[2:] = torch.where(labels[2:] == 255, 255, own)
    logits = logits_of(objective.student, images)
    assert (name, now) == ("student", True)
    torch.testing.assert_close(found, dynamic_loss(logits, labels, 0, 0.0))


def test_no_loss_fills_the_gradients_of_another_module(data):
    """The critic's loss depends on the right network, whose loss depends on the critic."""
    stage = make_stage(learning_rate=1.0, momentum=0.0, weight_decay=0.0)
    objective = peers_and_critic(small_model(data.dataset), data, stage, CPU, Ranks())
    steps.set_modes(objective.modules)
    descents = steps.descents_of(objective, stage, CPU)
    loader, _ = loop.batches(objective.streams, stage, 0, 0, CPU)
    batch, step = next(loader), Step(0, 6, 1, 1, {"labeled": range(2), "views": range(4)})
    for name, loss, now in objective.losses(batch, step):
        others = {n: one.module for n, one in objective.modules.items() if n != name}
        before = {n: [p.grad for p in module.parameters()] for n, module in others.items()}
        kept = {n: [None if g is None else g.clone() for g in grads] for n, grads in before.items()}
        descents[name].descend(loss, now)
        for n, module in others.items():
            for parameter, old in zip(module.parameters(), kept[n], strict=True):
                assert (parameter.grad is None) == (old is None), (name, n)
                assert old is None or torch.equal(parameter.grad, old), (name, n)


def test_gradients_without_a_step_are_a_fault_of_the_objective(run):
    class Forgetful(PeersAndCritic):
        def losses(self, batch, step):
            for name, loss, now in super().losses(batch, step):
                yield name, loss, now and name != "critic"

    def make(model, data, stage, device, ranks):
        objectives.place(model, stage, device, ranks)
        return Forgetful(model, data, stage)

    with pytest.raises(ValueError, match="Forgetful: gradients of 'critic' without a step"):
        run(make)


def test_what_is_evaluated_must_be_among_the_modules(run):
    def make(*arguments):
        objective = ema_teacher(*arguments)
        objective.evaluated = replace(
            objective.evaluated, network=copy.deepcopy(objective.evaluated.network)
        )
        return objective

    with pytest.raises(ValueError, match="`evaluated` is not one of its modules"):
        run(make)


def test_two_backward_passes_before_a_step_add_up(data):
    """Two backward passes with half the loss give the same step as one with the whole loss."""
    after = []
    for halves in (1, 2):
        torch.manual_seed(0)
        network = nn.Linear(3, 2)
        sgd = torch.optim.SGD(network.parameters(), 0.5)
        descent = steps.Descent(Trained(network, sgd), make_stage(), CPU)
        for number in range(halves):
            loss = network(torch.arange(3.0)).square().sum() / halves
            descent.descend(loss, now=number == halves - 1)
        after.append(network.weight.detach().clone())
    torch.testing.assert_close(*after)


def test_a_step_that_mixed_precision_leaves_out_is_not_followed_by_the_average(run, monkeypatch):
    class Large(torch.amp.GradScaler):
        def __init__(self, device, enabled):
            super().__init__(device, init_scale=2.0**126, enabled=enabled)

    followed = []

    def make(*arguments):
        objective = ema_teacher(*arguments)
        real = objective.after_step
        objective.after_step = lambda step: followed.append(step.number) or real(step)
        return objective

    stage = make_stage(precision="float16", steps=2, validate_at=(2,))
    run(make, stage, "usual")
    assert followed == [0, 1]
    followed.clear()
    monkeypatch.setattr(torch.amp, "GradScaler", Large)
    run(make, stage)
    assert followed == []


def test_the_randomness_of_an_image_follows_from_its_place_in_the_whole_batch():
    def drawn_by(rank, size):
        ranks = Ranks(rank, size)
        places = {"a": ranks.places(4), "b": ranks.places(8)}
        step = Step(7, 10, 1, 2, places, ranks)
        return [step.generator("b", i).random() for i in range(len(places["b"]))]

    alone = drawn_by(0, 1)
    assert len(set(alone)) == 8
    assert drawn_by(0, 2) + drawn_by(1, 2) == alone
    one, other = (Step(n, 10, 1, 2, {"a": range(4)}).generator("a", 0).random() for n in (7, 8))
    assert one != other


@pytest.mark.parametrize("norm, expected", [("train", True), ("frozen", False), ("eval", False)])
def test_the_loop_sets_the_mode_that_a_module_states(norm, expected):
    module = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.Dropout(), nn.ReLU())
    steps.set_modes({"one": Trained(module, norm=norm, frozen=[module[3]])})
    assert module[1].training is expected and module[3].training is False
    assert module[2].training is (norm != "eval")


def test_a_stream_whose_passes_are_not_joined_ends_each_with_a_short_batch(run):
    sizes = []

    class Short(Objective):
        def __init__(self, model, data, stage):
            self.evaluated, self.modules = model, {"network": trained(model.network, stage)}
            self.streams = [replace(labeled_stream(data, stage, model, 3), joined=False)]

        def losses(self, batch, step):
            labels = batch["labeled"]["label"].long()
            sizes.append((len(labels), len(step.places["labeled"])))
            logits = logits_of(self.evaluated, batch["labeled"]["image"])
            yield "network", dynamic_loss(logits, labels, 0, 0.0), True

    def make(model, data, stage, device, ranks):
        objectives.place(model, stage, device, ranks)
        return Short(model, data, stage)

    run(make, make_stage(steps=4, validate_at=(4,)))
    assert sizes == [(3, 3), (1, 1)] * 2
