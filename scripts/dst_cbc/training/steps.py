"""One training step: compute the losses of an objective and update the modules they belong to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ..runtime import devices
from ..settings.stages import TrainStage
from . import sampling
from .loading import Batch
from .objective import Objective, Step, Trained
from .optimization import norms, set_rate
from .ranks import ALONE, Ranks


def set_modes(modules: Mapping[str, Trained]) -> None:
    """Set training mode, except for frozen layers, whose running statistics must not change."""
    for one in modules.values():
        one.module.train(one.norm != "eval")
        still = norms(one.module) if one.norm == "frozen" else []
        for module in (*still, *one.frozen):
            module.training = False


def seed_torch(stage: TrainStage, number: int, device: torch.device, ranks: Ranks = ALONE) -> None:
    """Seed torch's own generators for step `number`, on the CPU and on `device`.

    torch.manual_seed would seed all kinds of devices, which takes a hundred times as long.
    """
    seed = sampling.torch_seed(stage.seed, stage.round, number, ranks.rank)
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        getattr(torch, device.type).manual_seed(seed)


def on_device(batch: Batch, device: torch.device, stage: TrainStage) -> Batch:
    """Copy the batch to `device`, images in the memory format that `stage` sets."""
    layout = devices.memory_format(stage)
    return {
        stream: {
            part: values.to(
                device,
                non_blocking=True,
                memory_format=layout if values.ndim == 4 else torch.preserve_format,
            )
            for part, values in parts.items()
        }
        for stream, parts in batch.items()
    }


@dataclass
class Descent:
    """Updates one module: accumulates its gradients and steps its optimizer, with a GradScaler.

    pending: gradients have been accumulated since the last optimizer step. skipped: the scaler
    skipped an optimizer step because a gradient was not finite.
    """

    trained: Trained
    stage: TrainStage
    device: torch.device
    ranks: Ranks = ALONE
    pending: bool = False
    skipped: bool = False

    def __post_init__(self) -> None:
        assert self.trained.optimizer is not None
        self.parameters, self.optimizer = self.trained.parameters, self.trained.optimizer
        enabled = self.stage.precision == "float16"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=enabled)

    def begin(self, step: int) -> None:
        """Set the learning rate of step `step`."""
        self.skipped = False
        if self.trained.rate:
            set_rate(self.optimizer, self.trained.rate(step))

    def descend(self, loss: torch.Tensor, now: bool) -> None:
        """Accumulate the gradient of `loss`; step the optimizer if `now`."""
        if not self.pending:
            self.optimizer.zero_grad(set_to_none=True)
        # Only these parameters: a loss must not add gradients to another module.
        self.scaler.scale(loss).backward(inputs=self.parameters)
        self.pending = not now
        if now:
            self._step()

    def _step(self) -> None:
        optimizer, scaler = self.optimizer, self.scaler
        self.ranks.sum_gradients(self.parameters)
        if self.trained.clip:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(self.parameters, self.trained.clip)
        scale = scaler.get_scale() if scaler.is_enabled() else None
        scaler.step(optimizer)
        scaler.update()
        if scale is not None:
            # The scaler lowers its scale if and only if it skipped the step.
            self.skipped |= scaler.get_scale() < scale


def descents_of(
    objective: Objective, stage: TrainStage, device: torch.device, ranks: Ranks = ALONE
) -> dict[str, Descent]:
    """Return a Descent for each module that has an optimizer."""
    return {
        name: Descent(one, stage, device, ranks)
        for name, one in objective.modules.items()
        if one.optimizer
    }


def take_step(
    objective: Objective,
    descents: Mapping[str, Descent],
    batch: Batch,
    sizes: Sequence[int],
    stage: TrainStage,
    number: int,
    ranks: Ranks = ALONE,
) -> list[float]:
    """Take step `number`, and return its losses, each summed over all processes.

    batch: this process's share, as returned by `loop.batches`. sizes: number of images of each
    stream in the whole batch. Raises ValueError if accumulated gradients are left without a step.
    """
    device = next(iter(descents.values())).device
    places = {
        stream.name: ranks.places(size)
        for stream, size in zip(objective.streams, sizes, strict=True)
    }
    step = Step(number, stage.steps, stage.seed, stage.round, places, ranks)
    for descent in descents.values():
        descent.begin(number)
    losses = []
    for name, loss, now in objective.losses(on_device(batch, device, stage), step):
        losses.append(loss.detach().float())
        descents[name].descend(loss, now)
    left = [name for name, descent in descents.items() if descent.pending]
    if left:
        raise ValueError(
            f"{type(objective).__name__}: gradients of {left[0]!r} without a step; `losses` must "
            "yield True for the last loss of each module"
        )
    # One transfer for all losses, because it waits for the device.
    values = ranks.sum(torch.stack(losses)).tolist()
    if not any(descent.skipped for descent in descents.values()):
        objective.after_step(step)
    # Each process updated its buffers with its own share of the batch only.
    ranks.share_buffers(one.module for one in objective.modules.values())
    return values
