"""Turn the keys of `train` into one training: merge and check the layers, count the steps."""

import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..data.layouts import LAYOUTS
from ..runtime.reading import read_ids
from ..settings.data import DatasetStage
from ..settings.experiment import Experiment
from ..settings.experiment_files import explain, merge, nearest
from ..settings.stages import Compute, Inference, TrainStage
from ..settings.training import Optimization, TrainSettings
from ..settings.yaml_files import ConfigError
from .models import Split

MOST_STEPS = 10**9
"""Most steps of one training."""
MOST_VALIDATIONS = 1_000_000
"""Most validations of a study: the settings of each training list them."""


class Trainings:
    """The settings of each training of an experiment, and what all trainings share.

    train_ids, val_ids: ids of these subsets. root: the folder in which a relative path of
    `evaluation.valtiny` starts. The methods raise ConfigError.
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
        self.validations = 0

    @cached_property
    def compute(self) -> dict[str, Any]:
        """The keys of `Compute`, the same for every stage with a network."""
        return {key: getattr(self.experiment, key) for key in Compute.model_fields}

    @property
    def inference(self) -> dict[str, Any]:
        """Settings of every pass over whole images, without sizes."""
        evaluation = self.experiment.evaluation
        return {"batch": evaluation.batch, "tile": evaluation.tile, **self.compute}

    @property
    def evaluation(self) -> dict[str, Any]:
        """Settings of every pass whose result is compared with masks."""
        evaluation = self.experiment.evaluation
        own = ("size", "pad", "pad_colour", "masks")
        return {**{key: getattr(evaluation, key) for key in own}, **self.inference}

    def settings(self, split: Split, *layers: Mapping[str, Any]) -> TrainSettings:
        """`train`, overridden by `by_split`, then by each of `layers` in turn."""
        merged = self.experiment.train.model_dump(exclude_unset=True)
        by_split = self.experiment.by_split.get(split.name)
        for layer in (by_split.model_dump(exclude_unset=True) if by_split else {}, *layers):
            # `steps` from the layers below would win over the `epochs` of this layer.
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
                f"train.sync_norm: found true with device {device!r}, but torch synchronises batch "
                "normalisation on CUDA only; set train.sync_norm to false, or device to cuda"
            )
        if settings.batch % settings.gpus:
            raise ConfigError(
                f"train.gpus: found {settings.gpus} with batch {settings.batch}, for "
                f"{split.division}; expected a number that divides the batch"
            )
        if self.experiment.resampling == "torch":
            self._check_steps_of_torch(split, settings)
        for name in settings.class_weights if isinstance(settings.class_weights, dict) else ():
            if name not in self.dataset.classes:
                hint = nearest(name, list(self.dataset.classes))
                raise ConfigError(f"train.class_weights: {name!r} is not a class; {hint}")

    def _check_steps_of_torch(self, split: Split, settings: TrainSettings) -> None:
        """Refuse augmentation that `resampling: torch` does not have."""
        augmentation, crop = settings.augmentation, settings.crop
        low = augmentation.size[0] if augmentation.size else (0, 0)
        if low[0] < crop[0] or low[1] < crop[1]:
            raise ConfigError(
                f"train.augmentation.size, for {split.division}: found "
                f"{list(low) if any(low) else 'null'} with resampling: torch, which cuts the crop "
                f"out of the resized image; expected at least train.crop, {list(crop)}, as the "
                "smallest size"
            )
        others = ("rotation", "brightness", "contrast", "saturation", "hue", "noise")
        for key in others:
            if getattr(augmentation, key):
                raise ConfigError(
                    f"train.augmentation.{key}, for {split.division}: found "
                    f"{getattr(augmentation, key):g} with resampling: torch, which only resizes, "
                    "crops and mirrors; set it to 0, or resampling to warp"
                )

    def check_halves(self, method: str, split: Split, settings: TrainSettings) -> None:
        """Refuse a batch that cannot be half labeled and half pseudo-labeled on each GPU."""
        if settings.batch % 2:
            raise ConfigError(
                f"{method}: batch: found {settings.batch}; half of it is pseudo-labeled, so it "
                "must be even"
            )
        if settings.batch // 2 % settings.gpus:
            raise ConfigError(
                f"{method}: train.gpus: found {settings.gpus} with batch {settings.batch}, for "
                f"{split.division}; expected a number that divides each half of the batch, labeled "
                f"and pseudo-labeled: {settings.batch // 2}"
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
        """One training with all values final.

        images: number of images in an epoch; share: how many of them a step takes. length: factor
        on the number of steps. switches: keys of TrainStage that replace those from `settings`.
        """
        steps = switches.get("steps") or length * self._steps(split, settings, images, share)
        if split.stage.fold and "steps" not in switches:
            steps = math.ceil(split.stage.rule.fold_length * steps)
        every = _of_split(settings.validate_every, split.name, "validate_every")
        if split.stage.fold:
            every = math.ceil(split.stage.rule.fold_length * every)
        # Estimated first: the list of a billion validations would fill the memory.
        validations = len(switches.get("validate_at", ())) or -(-steps // every)
        self.validations += validations
        if steps > MOST_STEPS:
            raise ConfigError(
                f"train.steps or train.epochs, for {split.division}: {steps:,} steps or more in "
                f"one training; expected at most {MOST_STEPS:,}"
            )
        if self.validations > MOST_VALIDATIONS:
            raise ConfigError(
                f"train.validate_every, for {split.division}: {validations:,} validations in one "
                f"training, {self.validations:,} in the study up to here; expected at most "
                f"{MOST_VALIDATIONS:,} in the study"
            )
        candidates = self.experiment.evaluation.candidates
        at_end = split.select == "last" or candidates == "ends"
        keys = {
            **settings.model_dump(include=set(Optimization.model_fields)),
            **self.compute,
            "algorithm": 2 if self.experiment.network.input_scale == 1 else 3,
            "steps": steps,
            "validate_at": _validated(steps, every, settings.validate_early, at_end),
            "seed": split.stage.seed if settings.seed is None else settings.seed,
            "round": round,
            "select": split.select,
            "candidates": candidates,
            "valtiny": self.valtiny if split.select == "valtiny" else (),
            "held_out": tuple(split.held_out),
            "validation": Inference(**self.evaluation),
        }
        return TrainStage(**keys | switches)

    def _steps(self, split: Split, settings: TrainSettings, images: int, share: int) -> int:
        if settings.steps:
            return settings.steps
        in_epoch = -(-images // share) if settings.short_batches else images / share
        # The limit keeps infinity out of `int`.
        steps = min(self._epochs(split, settings) * in_epoch, MOST_STEPS + 1)
        return max(1, int(steps))

    def _epochs(self, split: Split, settings: TrainSettings) -> float:
        if settings.epochs == "formula":
            return 30 * math.sqrt(len(self.train_ids) / len(split.labeled))
        return _of_split(settings.epochs, split.name, "epochs")

    @cached_property
    def valtiny(self) -> tuple[str, ...]:
        """Ids of the val images that select models: the experiment's list, else the format's."""
        evaluation, format = self.experiment.evaluation, self.experiment.format
        place, ids = f"valtiny of format {format!r}", LAYOUTS[format].valtiny
        if evaluation.valtiny:
            place = f"evaluation.valtiny: {self.root / evaluation.valtiny}"
            if not (self.root / evaluation.valtiny).is_file():
                raise ConfigError(
                    f"{place}: no such file; expected a file with ids of val, one per line"
                )
            ids = tuple(read_ids(self.root / evaluation.valtiny))
        if not ids:
            raise ConfigError(
                f"select: found 'valtiny', but {place} has no ids; set evaluation.valtiny to a "
                "file with ids of val, one per line, or select val"
            )
        others = [id for id in ids if id not in self.val_ids]
        if others:
            raise ConfigError(f"{place}: {others[0]!r} is not in val ({len(others)} such ids)")
        return ids


def _validated(steps: int, every: int, early: bool, at_end: bool) -> tuple[int, ...]:
    """The steps after which a training of `steps` steps is validated, ascending.

    at_end: whether the last one must be among them.
    """
    if not early:
        return (*range(every, steps, every), steps)
    found = {*range(every - 1, steps + 1, every), steps - 1} - {0}
    return tuple(sorted(found | {steps} if at_end or not found else found))


def _of_split(value: Any, split: str, key: str) -> Any:
    if not isinstance(value, dict):
        return value
    if split not in value:
        raise ConfigError(
            f"train.{key}: no value for split {split!r}; found values for {sorted(value)}"
        )
    return value[split]
