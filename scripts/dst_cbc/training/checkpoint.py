"""Save and resume an unfinished training, so that it ends in the same bytes as without a stop."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..models.segmentation import read_checkpoint
from ..runtime.files import DataError, atomic
from .objective import Trained


@dataclass
class Progress:
    """All training state besides modules, optimizers and scalers.

    best: record of the best model of the chain (all rounds up to this one), None before the first
    validation of the chain. best_state: weights of the best model, None if an earlier round reached
    it. history: one row per validation. loss_sum, loss_steps: the losses since the last validation.
    resumes: how often the training was resumed. seconds: time of training and validation, summed
    over all starts.
    """

    step: int
    best: dict[str, Any] | None
    best_state: dict[str, torch.Tensor] | None
    history: list[dict[str, Any]]
    loss_sum: float = 0.0
    loss_steps: int = 0
    resumes: int = 0
    seconds: float = 0.0


Scalers = Mapping[str, torch.amp.GradScaler]


def save(path: Path, progress: Progress, modules: Mapping[str, Trained], scalers: Scalers) -> None:
    """Write the state to `path` atomically. scalers: one for each module with an optimizer."""
    optimizers = {name: one.optimizer for name, one in modules.items() if one.optimizer}
    state = {
        "progress": vars(progress),
        "modules": {name: one.module.state_dict() for name, one in modules.items()},
        "optimizers": {name: optimizers[name].state_dict() for name in scalers},
        "scalers": {name: scaler.state_dict() for name, scaler in scalers.items()},
    }
    with atomic(path) as temporary:
        torch.save(state, temporary)


def resume(path: Path, modules: Mapping[str, Trained], scalers: Scalers) -> Progress | None:
    """Load the state at `path` into `modules` and `scalers`, and return the progress.

    Returns None if no usable state was saved.
    """
    if not path.is_file():
        return None
    try:
        state = read_checkpoint(path)
    except DataError as error:
        print(f"{error}; starts again at the first step; the result is the same", flush=True)
        return None
    if "modules" not in state:
        print(
            f"{path}: saved by an earlier version in another format; starts again at the first "
            "step; the result is the same",
            flush=True,
        )
        return None
    for name, one in modules.items():
        one.module.load_state_dict(state["modules"][name])
    optimizers = {name: one.optimizer for name, one in modules.items() if one.optimizer}
    for name, scaler in scalers.items():
        optimizers[name].load_state_dict(state["optimizers"][name])
        scaler.load_state_dict(state["scalers"][name])
    progress = Progress(**state["progress"])
    progress.resumes += 1
    print(f"resumed at step {progress.step}", flush=True)
    return progress
