"""Save and resume an unfinished training, so that it ends in the same bytes as without a stop."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import TypedDict

from ..models.model_file import Record, read_checkpoint
from ..runtime import escape
from ..runtime.errors import DataError
from ..runtime.escape import problem
from ..runtime.files import atomic
from .objective import Trained

_KIND = ConfigDict(extra="forbid", arbitrary_types_allowed=True)


class HistoryRow(TypedDict):
    """Figures of one validation, a row of history.csv; mIoU and pixel accuracy in percent."""

    __pydantic_config__ = _KIND  # pyright: ignore[reportGeneralTypeIssues]

    step: int
    loss: float
    learning_rate: float
    miou: float
    pixel_accuracy: float
    best: float | None


def _is_record(value: dict[str, Any]) -> dict[str, Any]:
    Record.model_validate(value)
    return value


@dataclass
class Progress:
    """All training state besides modules, optimizers and scalers.

    best: record of the best model of the chain (all rounds up to this one), None before the first
    validation of the chain. best_state: weights of the best model, None if an earlier round reached
    it. history: one row per validation. best_confusions: int64 (images, classes, classes), the
    matrices of the best model on the images of the validation, None if unknown. loss_sum,
    loss_steps: the losses since the last validation. resumes: how often the training was resumed.
    seconds: time of training and validation, summed over all starts.
    """

    __pydantic_config__ = _KIND

    step: Annotated[int, Field(ge=0)]
    best: Annotated[dict[str, Any], AfterValidator(_is_record)] | None
    best_state: dict[str, torch.Tensor] | None
    history: list[HistoryRow]
    best_confusions: torch.Tensor | None = None
    loss_sum: float = 0.0
    loss_steps: int = 0
    resumes: Annotated[int, Field(ge=0)] = 0
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    @property
    def is_consistent(self) -> bool:
        """Whether the losses since the last validation are as many as the steps since then."""
        return self.loss_steps == self.step - (self.history[-1]["step"] if self.history else 0)


class _Optimizer(BaseModel):
    model_config = _KIND

    state: dict[int, dict[str, Any]]
    param_groups: list[dict[str, Any]]


class _State(BaseModel):
    """The content of a file of `save`."""

    model_config = _KIND

    progress: Progress
    modules: dict[str, dict[str, torch.Tensor]]
    optimizers: dict[str, _Optimizer]
    scalers: dict[str, dict[str, float]]


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
        content = read_checkpoint(path)
    except DataError as error:
        return _unused(str(error))
    if not (isinstance(content, dict) and "modules" in content):
        return _unused(f"{path}: saved by an earlier version in another format")
    try:
        state = _State.model_validate(content)
    except ValidationError as error:
        return _unused(f"{path}: not the state of a training: {problem(error)}")
    optimizers = {name: one.optimizer for name, one in modules.items() if one.optimizer}
    ours = {name: one.module.state_dict() for name, one in modules.items()}
    fits = _outline(state.modules) == _outline(ours) and state.progress.is_consistent
    if not fits or not all(
        name in state.optimizers and _fits(optimizers[name], state.optimizers[name].state)
        for name in scalers
    ):
        return _unused(f"{path}: the state of another network or objective")
    for name, one in modules.items():
        one.module.load_state_dict(state.modules[name])
    for name, scaler in scalers.items():
        # The settings know the groups and rates better than a file does.
        groups = optimizers[name].state_dict()["param_groups"]
        optimizers[name].load_state_dict(
            {"state": state.optimizers[name].state, "param_groups": groups}
        )
        scaler.load_state_dict(state.scalers[name])
    progress = state.progress
    progress.resumes += 1
    print(f"resumed at step {progress.step}", flush=True)
    return progress


def _unused(why: str) -> None:
    text = f"{why}; starts again at the first step; the result is the same"
    print(escape.terminal(text), flush=True)


def _fits(optimizer: torch.optim.Optimizer, state: dict[int, dict[str, Any]]) -> bool:
    """Whether the state of an optimizer has the shapes of its parameters."""
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    return all(
        0 <= number < len(parameters)
        and all(
            value is None
            or (
                isinstance(value, torch.Tensor)
                and value.shape == (() if key == "step" else parameters[number].shape)
            )
            for key, value in values.items()
        )
        for number, values in state.items()
    )


def _outline(modules: Mapping[str, Mapping[str, torch.Tensor]]) -> dict[str, dict[str, Any]]:
    return {
        name: {key: (value.shape, value.dtype) for key, value in state.items()}
        for name, state in modules.items()
    }
