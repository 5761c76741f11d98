"""The interface between the training loop and an objective, which defines the losses of a step."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import nn

from ..data.index import Row
from ..models.segmentation import Network, SegmentationModel
from ..settings.stages import TrainStage
from .loading import Batch, Tensors
from .optimization import frozen_modules, learning_rate, optimizer
from .ranks import ALONE, Ranks
from .sampling import Draw, generator


@dataclass(frozen=True)
class Stream:
    """A set of images, of which each step takes some.

    rows: all images. share: number of images of the stream in a whole batch. sample: (draw,
    generator for all randomness of the draw) -> tensors, with the same names, shapes and dtypes for
    every image of the stream. It runs in worker processes, so it must not hold a network. joined:
    at the end of a pass over the images, fill the batch with images of the next pass (True), or
    return a short batch (False).
    """

    name: str
    rows: Sequence[Row]
    share: int
    sample: Callable[[Draw, np.random.Generator], Tensors]
    joined: bool = True


@dataclass(frozen=True)
class Trained:
    """A module that changes in training: by its optimizer, in a forward pass, or after a step.

    rate: step -> learning rate, set before each step. clip: maximum norm of the gradient. norm:
    batch normalisation with the statistics of the batch (`train`) or with the running statistics
    (`frozen`), or the whole module in evaluation mode (`eval`). frozen: submodules that are in
    evaluation mode for every `norm`.
    """

    module: nn.Module
    optimizer: torch.optim.Optimizer | None = None
    rate: Callable[[int], float] | None = None
    clip: float | None = None
    norm: Literal["train", "frozen", "eval"] = "train"
    frozen: Sequence[nn.Module] = ()

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that the optimizer updates."""
        groups = self.optimizer.param_groups if self.optimizer else ()
        return [parameter for group in groups for parameter in group["params"]]


def trained(network: Network, stage: TrainStage) -> Trained:
    """A network with the optimizer, learning rate, clipping and frozen layers that `stage` sets."""
    return Trained(
        network,
        optimizer(network, stage),
        partial(learning_rate, stage),
        stage.clip,
        "frozen" if stage.freeze_norm else "train",
        frozen_modules(network, stage),
    )


@dataclass(frozen=True)
class Step:
    """Position in the training: step `number` of `steps`, 0 .. steps - 1.

    places: stream name -> positions of this process's images in the whole batch.
    """

    number: int
    steps: int
    seed: int
    round: int
    places: Mapping[str, range] = field(default_factory=dict)
    ranks: Ranks = ALONE

    def generator(self, stream: str, image: int) -> np.random.Generator:
        """Return the generator for position `image` of this process's batch, in this step.

        The seed depends on the position in the whole batch, so the random numbers do not depend on
        the number of processes.
        """
        number = list(self.places).index(stream)
        return generator(self.seed, self.round, 3, self.number, number, self.places[stream][image])


class Objective:
    """Base class of all objectives. Constructed from (model, data, stage), the model on its device.

    streams: where the images come from; their order numbers them and so affects all random draws.
    modules: name -> module. Every tensor that changes in training must be a parameter or a buffer
    of one of them; only these are saved and resumed. evaluated: the model that is validated,
    selected and written; its network must be one of the modules.
    """

    streams: Sequence[Stream]
    modules: Mapping[str, Trained]
    evaluated: SegmentationModel

    def losses(self, batch: Batch, step: Step) -> Iterator[tuple[str, torch.Tensor, bool]]:
        """Yield (module name, scalar loss, whether the module's optimizer steps now), in order.

        The loop computes the gradient of a loss for the parameters of that module's optimizer only,
        and accumulates gradients until the optimizer steps. With several processes, a loss is this
        process's part of the loss of the whole batch: the parts add up to it. Sum any count or
        statistic over the whole batch with `step.ranks.sum`, or with `differentiable_sum` if a
        gradient flows through it. Only images of the same process can be mixed with one another.
        """
        raise NotImplementedError

    def after_step(self, step: Step) -> None:
        """Make further changes after a step; not called when mixed precision skipped the step."""
