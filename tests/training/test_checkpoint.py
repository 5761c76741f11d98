import re

import pytest
import torch
from torch import nn

from dst_cbc.models.model_file import read_checkpoint
from dst_cbc.training.checkpoint import Progress, resume, save
from dst_cbc.training.objective import Trained

SCALERS = {"student": torch.amp.GradScaler("cpu", enabled=False)}


def student(seed):
    torch.manual_seed(seed)
    module = nn.Linear(2, 3)
    return {"student": Trained(module, torch.optim.SGD(module.parameters(), 1.0, momentum=0.9))}


def changed(part, key, value):
    return lambda state: {**state, part: {**state[part], key: value}}


def momentum(value, number=0):
    state = {"state": {number: {"momentum_buffer": value}}, "param_groups": []}
    return changed("optimizers", "student", state)


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda state: [state], "another format"),
        (lambda state: {**state, "progress": 3}, "not the state of a training: progress: found 3"),
        (changed("progress", "step", "\x1b[2J"), r"progress\.step: found '\\x1b\[2J'"),
        (changed("progress", "best_state", {"a": 1}), r"progress\.best_state\.a: found 1"),
        (changed("modules", "student", {}), "the state of another network or objective"),
        (changed("modules", "student", {"weight": torch.zeros(2, 3)}), "of another network"),
        (changed("modules", "critic", {}), "of another network"),
        (changed("optimizers", "student", {"state": 1}), r"optimizers\.student\.state: found 1"),
        (lambda state: {**state, "optimizers": {}}, "of another network"),
        (changed("scalers", "student", {"scale": "x"}), r"scalers\.student\.scale: found 'x'"),
        (lambda state: {**state, "more": 1}, "more: found 1"),
        (changed("progress", "best", {"round": 1}), r"progress\.best\.step: missing"),
        (changed("progress", "history", [{"step": 3}]), r"progress\.history\.0\.loss: missing"),
        (changed("progress", "step", -1), r"progress\.step: found -1"),
        (changed("progress", "loss_steps", 0), "the state of another network"),
        (momentum(torch.zeros(2, 3)), "the state of another network"),
        (momentum(torch.tensor(1.0)), "the state of another network"),
        (momentum("text"), "the state of another network"),
        (momentum(torch.zeros(3, 2), number=7), "the state of another network"),
    ],
)
def test_a_state_that_does_not_fit_is_not_used_and_changes_nothing(spoil, said, tmp_path, capsys):
    path, ours = tmp_path / "state.pt", student(1)
    before = {key: value.clone() for key, value in ours["student"].module.state_dict().items()}
    save(path, Progress(3, None, None, [], loss_steps=3), student(0), SCALERS)
    torch.save(spoil(read_checkpoint(path)), path)
    assert resume(path, ours, SCALERS) is None
    out = capsys.readouterr().out.removeprefix(f"{path}: ")
    assert re.search(said, out)
    assert out.endswith("; starts again at the first step; the result is the same\n")
    after = ours["student"].module.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("part", ["weights", "best weights"])
def test_a_state_with_a_flipped_bit_is_not_used(part, tmp_path, capsys):
    path, theirs = tmp_path / "state.pt", student(0)
    best = {"weight": torch.full((3, 2), 0.7)}
    save(path, Progress(3, None, best, [], loss_steps=3), theirs, SCALERS)
    weight = {"weights": theirs["student"].module.weight.detach(), "best weights": best["weight"]}
    whole, bits = path.read_bytes(), weight[part].numpy().tobytes()
    at = whole.index(bits)
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    assert resume(path, student(1), SCALERS) is None
    assert re.search("its part .data/.. has changed since it was written", capsys.readouterr().out)


def test_a_state_brings_weights_and_momentum_and_no_rates(tmp_path):
    theirs, ours, path = student(0), student(1), tmp_path / "state.pt"
    theirs["student"].module(torch.ones(1, 2)).sum().backward()
    theirs["student"].optimizer.step()
    theirs["student"].optimizer.param_groups[0]["momentum"] = 5.0
    save(path, Progress(3, None, None, [], loss_steps=3), theirs, SCALERS)
    assert resume(path, ours, SCALERS) == Progress(3, None, None, [], loss_steps=3, resumes=1)
    optimizer = ours["student"].optimizer
    assert torch.equal(ours["student"].module.weight, theirs["student"].module.weight)
    momentum = optimizer.state[ours["student"].module.weight]["momentum_buffer"]
    assert torch.equal(momentum, torch.ones(3, 2))
    assert optimizer.param_groups[0]["momentum"] == 0.9
