"""What a step of training minimises, as the loop sees it: the contract of an objective."""

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
    """Images that a step takes.

    rows: of all images; share: how many of them a whole batch takes. sample: (draw, all randomness
    of this one use) -> tensors, of the same names, shapes and dtypes for every image of the
    stream; it runs in loading processes, so it holds no network. joined: whether a batch that
    reaches the end of a pass over the images takes on those of the next; else it is short.
    """

    name: str
    rows: Sequence[Row]
    share: int
    sample: Callable[[Draw, np.random.Generator], Tensors]
    joined: bool = True


@dataclass(frozen=True)
class Trained:
    """A module that changes in training: by its optimizer, by its passes, or after a step.

    rate: step -> learning rate, set before each step. clip: largest norm of its gradient. norm:
    batch normalisation by the batch's statistics (`train`) or the stored ones (`frozen`), or the
    whole module in evaluation mode (`eval`). frozen: parts that are in it whatever `norm` says.
    """

    module: nn.Module
    optimizer: torch.optim.Optimizer | None = None
    rate: Callable[[int], float] | None = None
    clip: float | None = None
    norm: Literal["train", "frozen", "eval"] = "train"
    frozen: Sequence[nn.Module] = ()

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What its optimizer changes."""
        groups = self.optimizer.param_groups if self.optimizer else ()
        return [parameter for group in groups for parameter in group["params"]]


def trained(network: Network, stage: TrainStage) -> Trained:
    """A network that learns as `stage` says: its optimizer, rates, clipping, and what is frozen."""
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
    """Where training stands: step `number` of `steps`, 0 .. steps - 1.

    places: by stream the positions in the whole batch of the images that this process has.
    """

    number: int
    steps: int
    seed: int
    round: int
    places: Mapping[str, range] = field(default_factory=dict)
    ranks: Ranks = ALONE

    def generator(self, stream: str, image: int) -> np.random.Generator:
        """All randomness of the image at this place of this process's batch, in this step.

        It follows from the place in the whole batch: two processes draw what one draws.
        """
        number = list(self.places).index(stream)
        return generator(self.seed, self.round, 3, self.number, number, self.places[stream][image])


class Objective:
    """Base of all objectives. One is made of (model, data, stage); the model is on its device.

    streams: their order numbers them, and so decides what is drawn. modules: by name all that
    changes; every tensor that does is a parameter or a buffer of one of them, and so is saved and
    resumed. evaluated: the model, its network among the modules, that is validated, selected and
    written.
    """

    streams: Sequence[Stream]
    modules: Mapping[str, Trained]
    evaluated: SegmentationModel

    def losses(self, batch: Batch, step: Step) -> Iterator[tuple[str, torch.Tensor, bool]]:
        """(Name of the module to descend, scalar loss, whether its optimizer steps now), in order.

        The loop differentiates a loss by the parameters of that module's optimizer alone, and adds
        the gradients up until it steps. With several processes a loss is this process's part of
        the whole batch's: the parts add up to it. What enters a loss and counts over the batch is
        summed by `step.ranks.sum`, or `differentiable_sum` where a gradient flows through. Images
        that are mixed with one another are those of this process.
        """
        raise NotImplementedError

    def after_step(self, step: Step) -> None:
        """What else changes after a step; left out where mixed precision skipped it."""
