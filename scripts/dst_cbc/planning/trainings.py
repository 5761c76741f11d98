"""From the keys of `train` to one training: layers merged and checked, steps counted."""

import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..data.layouts import LAYOUTS
from ..runtime.files import read_ids
from ..settings.data import DatasetStage
from ..settings.experiment import Experiment
from ..settings.experiment_files import ConfigError, explain, merge, nearest
from ..settings.stages import Compute, Inference, TrainStage
from ..settings.training import TrainSettings
from .models import Split


class Trainings:
    """What all trainings of an experiment share, and each of them resolved.

    train_ids, val_ids: of the data set. root: the folder that a relative path of `valtiny` starts
    from. Its methods raise ConfigError.
    """

    def __init__(
        self,
        experiment: Experiment,
        dataset: DatasetStage,
        train_ids: list[str],
        val_ids: set[str],
        root: Path,
    ):
        self.experiment, self.dataset, self.root = experiment, dataset, root
        self.train_ids, self.val_ids = train_ids, val_ids

    @cached_property
    def compute(self) -> dict[str, Any]:
        """What every stage with a network shares."""
        return {key: getattr(self.experiment, key) for key in Compute.model_fields}

    @property
    def inference(self) -> dict[str, Any]:
        """What every pass over whole images shares."""
        evaluation = self.experiment.evaluation
        return {"batch": evaluation.batch, "tile": evaluation.tile, **self.compute}

    @property
    def evaluation(self) -> dict[str, Any]:
        """What every comparison with masks shares."""
        evaluation = self.experiment.evaluation
        return {"size": evaluation.size, "pad": evaluation.pad, **self.inference}

    def settings(self, split: Split, *layers: Mapping[str, Any]) -> TrainSettings:
        """`train`, then `by_split`, then `layers`."""
        merged = self.experiment.train.model_dump(exclude_unset=True)
        by_split = self.experiment.by_split.get(split.name)
        for layer in (by_split.model_dump(exclude_unset=True) if by_split else {}, *layers):
            # `epochs` in a layer replaces `steps` of one below, and the other way round.
            if "epochs" in layer and "steps" not in layer:
                merged = merge(merged, {"steps": None})
            merged = merge(merged, layer)
        try:
            settings = TrainSettings.model_validate(merged)
        except ValidationError as error:
            place = f"train, supervised, by_split or method, for {split.division}"
            raise ConfigError(explain(error, TrainSettings, [(place, merged)])) from None
        self._check(split, settings)
        return settings

    def _check(self, split: Split, settings: TrainSettings) -> None:
        device = self.experiment.device
        if settings.sync_norm and settings.gpus > 1 and device not in ("auto", "cuda"):
            raise ConfigError(
                f"train.sync_norm: found true with device {device!r}; torch synchronises batch "
                "normalisation on CUDA only: set it to false, or device to cuda"
            )
        if settings.batch % settings.gpus:
            raise ConfigError(
                f"train.gpus: found {settings.gpus} with batch {settings.batch}, for "
                f"{split.division}; expected a number that divides the batch"
            )
        for name in settings.class_weights if isinstance(settings.class_weights, dict) else ():
            if name not in self.dataset.classes:
                hint = nearest(name, list(self.dataset.classes))
                raise ConfigError(f"train.class_weights: {name!r} is not a class; {hint}")

    def check_halves(self, method: str, split: Split, settings: TrainSettings) -> None:
        """Refuse a batch that cannot be half labeled, half pseudo-labeled on all GPUs."""
        if settings.batch % 2:
            raise ConfigError(
                f"{method}: batch: found {settings.batch}; half of it is pseudo-labeled, so even"
            )
        if settings.batch // 2 % settings.gpus:
            raise ConfigError(
                f"{method}: train.gpus: found {settings.gpus} with batch {settings.batch}, for "
                f"{split.division}; expected a number that divides each half of it, labeled and "
                f"pseudo: {settings.batch // 2}"
            )

    def stage(
        self,
        split: Split,
        settings: TrainSettings,
        round: int,
        images: int,
        share: int,
        length: int = 1,
        **switches: Any,
    ) -> TrainStage:
        """Training resolved: `share` of `images` images a step, `length` times the schedule."""
        steps = settings.steps or int(self._epochs(split, settings) * images / share)
        steps = max(1, steps) * length
        every = _of_split(settings.validate_every, split.name, "validate_every")
        keys = {
            **settings.model_dump(exclude={"epochs", "steps", "validate_every", "seed"}),
            **self.compute,
            "steps": steps,
            "validate_at": (*range(every, steps, every), steps),
            "seed": split.stage.seed if settings.seed is None else settings.seed,
            "round": round,
            "select": split.select,
            "valtiny": self.valtiny if split.select == "valtiny" else (),
            "validation": Inference(**self.evaluation),
        }
        return TrainStage(**keys | switches)

    def _epochs(self, split: Split, settings: TrainSettings) -> float:
        if settings.epochs == "formula":
            return 30 * math.sqrt(len(self.train_ids) / len(split.labeled))
        return _of_split(settings.epochs, split.name, "epochs")

    @cached_property
    def valtiny(self) -> tuple[str, ...]:
        """Ids of val that select models: the experiment's own list, else the format's."""
        evaluation, format = self.experiment.evaluation, self.experiment.format
        place, ids = f"valtiny of format {format!r}", LAYOUTS[format].valtiny
        if evaluation.valtiny:
            place = f"evaluation.valtiny: {self.root / evaluation.valtiny}"
            if not (self.root / evaluation.valtiny).is_file():
                raise ConfigError(f"{place}: no such file; expected ids of val, one a line")
            ids = tuple(read_ids(self.root / evaluation.valtiny))
        if not ids:
            raise ConfigError(
                f"select: found 'valtiny', but {place} has no ids; list some of val, one a line, "
                "in a file that evaluation.valtiny names, or select val"
            )
        others = [id for id in ids if id not in self.val_ids]
        if others:
            raise ConfigError(f"{place}: {others[0]!r} is not in val ({len(others)} such ids)")
        return ids


def _of_split(value: Any, split: str, key: str) -> Any:
    if not isinstance(value, dict):
        return value
    if split not in value:
        raise ConfigError(f"train.{key}: no value for split {split!r}; found {sorted(value)}")
    return value[split]
