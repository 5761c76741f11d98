"""Plan an experiment: all models that it asks for, their paths and their settings."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any

from ..data.annotations.masks import draw_masks
from ..data.folds import folds
from ..data.images import size_of
from ..data.layouts.layout import Record
from ..data.records import dataset_stage, evenly, list_records
from ..data.splits import MOST_SHUFFLED, divide, shuffled
from ..runtime.errors import DataError
from ..settings.base import Sampling
from ..settings.choices import SelfTraining
from ..settings.data import SplitStage
from ..settings.experiment import Experiment
from ..settings.experiment_files import (
    load_experiment,
    load_methods,
    merge,
    method_row,
    nearest,
)
from ..settings.methods import SUPERVISED, MethodRow, MethodSwitches, TrainOverrides
from ..settings.stages import (
    EvaluateStage,
    ModelSettings,
    PredictStage,
    Selected,
    ThresholdStage,
    TrainStage,
)
from ..settings.yaml_files import ConfigError, found, read_yaml
from ..training import passes
from .models import PlannedModel, Split
from .trainings import Trainings

OF_FILES = (
    "curriculum", "balance", "weighting", "rule", "threshold_sampling", "teacher", "chains",
)  # fmt: skip
"""Switches about label files: how they are made, and how their pixels are weighted."""
OF_ROUNDS = ("start", "best", "snapshots", "objective", "patience")
"""Switches about rounds of training on unlabeled images, with labels from files or not."""
OF_CONTROLS = ("control", "match_by")
"""Switches about trainings on labeled images alone, as long as a method with unlabeled ones."""

MOST_TRAININGS = 10_000
"""Most trainings of a study; the largest one that comes along has about a hundred."""
LONGEST_SUFFIX = 150
"""Most characters in the part of a method's folder that names varied values."""


class Plan:
    """All models and splits of an experiment, by path below the study's folder.

    methods: rows of workflow/methods.yaml by name. records: all images of the data set. root: the
    folder in which relative paths of lists of ids start. Raises ConfigError for every error that
    can be found without decoding a file.
    """

    def __init__(
        self,
        experiment: Experiment,
        methods: Mapping[str, MethodRow],
        records: Sequence[Record],
        root: Path = Path(),
    ):
        self.experiment, self.root = experiment, root
        self.methods = {name: self._over_switches(name, row) for name, row in methods.items()}
        self.dataset = dataset_stage(experiment)
        train = [record for record in records if record.subset == "train"]
        self.train_images = [record.image for record in train]
        self.train_ids = [record.id for record in train]
        self.with_mask = {record.id for record in train if record.label}
        val_ids = {record.id for record in records if record.subset == "val"}
        self._check_subsets(records)
        self.trainings = Trainings(experiment, self.dataset, self.train_ids, val_ids, root)
        unknown = set(experiment.by_split) - set(experiment.splits)
        if unknown:
            known = nearest(min(unknown), list(experiment.splits))
            raise ConfigError(f"by_split: split {min(unknown)!r} does not exist; {known}")
        self._check_number()
        drawn = [run for run in experiment.runs if any(self._is_drawn(name) for name in run.splits)]
        self.orders = shuffled(self.train_ids, {seed for run in drawn for seed in run.seeds})
        self.splits: dict[str, Split] = {}
        self.models: dict[str, PlannedModel] = {}
        for run in experiment.runs:
            select = run.select or experiment.evaluation.select
            for split, seed, method in itertools.product(run.splits, run.seeds, run.methods):
                for name, row in self._varied(method, run.vary):
                    for stage, chosen_by in self._stages(split, seed, select):
                        self._add_chain(split, stage, chosen_by, name, row)

    def _check_number(self) -> None:
        """Refuse runs that ask for more trainings than Snakemake can plan."""
        total, lists = 0, 0
        for place, run in enumerate(self.experiment.runs):
            varied = math.prod(map(len, run.vary.values()))
            rounds = sum(map(self._trainings, run.methods))
            divisions = len(run.seeds) * sum(map(self._divisions, run.splits))
            total += divisions * (1 + rounds * varied)
            if total > MOST_TRAININGS:
                raise ConfigError(
                    f"runs.{place}: {total:,} trainings up to here: {len(run.splits)} splits, "
                    f"{len(run.seeds)} seeds, {rounds} rounds of {len(run.methods)} methods, "
                    f"{varied} combinations of values to vary; expected at most "
                    f"{MOST_TRAININGS:,} in a study. Ask for fewer, or make several studies"
                )
            lists += divisions
            if lists * len(self.train_ids) > MOST_SHUFFLED:
                raise ConfigError(
                    f"runs.{place}: {lists:,} splits up to here, of {len(self.train_ids):,} "
                    f"training images each; expected at most {MOST_SHUFFLED:,} images in all "
                    "splits. Ask for fewer splits or seeds"
                )

    def _trainings(self, method: str) -> int:
        """Number of trainings of a method on one split, besides round 0."""
        row = self.methods.get(method)
        if row and row.labeling == "none":
            # It is planned from all rounds of the method that it matches.
            row = self.methods.get(row.match or "")
        return max(1, len(row.curriculum)) * max(1, len(row.chains)) if row else 0

    def _divisions(self, split: str) -> int:
        """How often each seed trains on a split: once, and with folds once more for each fold."""
        rule = self.experiment.splits.get(split)
        return 1 + (rule.folds or 0) if rule else 1

    def _is_drawn(self, split: str) -> bool:
        rule = self.experiment.splits.get(split)
        return rule is not None and rule.files is None

    @property
    def evaluate(self) -> EvaluateStage:
        """How the models of the study are evaluated, those of folds excepted."""
        report = self.experiment.evaluation.report
        return EvaluateStage(dataset=self.dataset, report=report, **self.trainings.evaluation)

    def evaluate_in(self, division: str) -> EvaluateStage:
        """How the models of a split are evaluated: those of a fold on the images of the fold."""
        if not self.splits[division].stage.fold:
            return self.evaluate
        held_out = tuple(self.splits[division].held_out)
        changes = {"report": ("val",), "held_out": held_out}
        return self.evaluate.model_copy(update=changes)

    @property
    def predict(self) -> PredictStage:
        """Settings of a prediction that uses only the switches of the experiment."""
        return self._predict(self.experiment.switches.threshold_sampling or 1)

    @property
    def variants(self) -> dict[str, PredictStage]:
        """Settings of all kinds of predictions by `variant`, a part of their files' names."""
        own = {m.variant: m.settings.predict for m in self.models.values() if m.settings.predict}
        return {"": self.predict, **own}

    def _predict(self, sampling: Sampling) -> PredictStage:
        size = self.experiment.prediction.size
        return PredictStage(sampling=sampling, size=size, **self.trainings.inference)

    def _variant(self, stage: PredictStage) -> str:
        """`@key=value,…` for the settings that differ from `predict`; "" if none does."""
        ours, common = (s.model_dump(mode="python") for s in (stage, self.predict))
        changes = [f"{key}={ours[key]}" for key in ours if ours[key] != common[key]]
        return f"@{','.join(changes)}" if changes else ""

    def _over_switches(self, name: str, row: MethodRow) -> MethodRow:
        """The row, with the experiment's `switches` for keys that the row does not set."""
        own = row.model_dump(exclude_unset=True)
        below = self.experiment.switches.model_dump(exclude_unset=True)
        labeling = merge(below, own).get("labeling", "offline")
        idle = {
            "offline": OF_CONTROLS,
            "online": (*OF_FILES, *OF_CONTROLS),
            "none": (*OF_FILES, *OF_ROUNDS),
        }[labeling]
        below = {key: value for key, value in below.items() if key not in idle}
        return method_row(merge(below, own), f"switches, for method {name}") if below else row

    def _check_subsets(self, records: Sequence[Record]) -> None:
        evaluation = self.experiment.evaluation
        sizes = {s: sum(r.subset == s for r in records) for s in ("train", "val", "test")}
        # Folds choose models without val, and have a score of their own without val and test.
        by_folds = all(rule.folds for rule in self.experiment.splits.values())
        for key, subset in [("select", "val"), *(("report", s) for s in evaluation.report)]:
            if not sizes[subset] and not by_folds:
                raise ConfigError(
                    f"evaluation.{key}: subset {subset!r} has no images in {self.experiment.data} "
                    f"(images found: {sizes}); choose another subset, or set test_from_val"
                )
        if not sizes["train"]:
            raise ConfigError(f"{self.experiment.data}: no training images (images found: {sizes})")

    def _varied(
        self, method: str, vary: Mapping[str, Sequence]
    ) -> Iterator[tuple[str, MethodRow | None]]:
        """Name and row of the method for each combination of the values to vary."""
        if method == SUPERVISED:
            if vary:
                raise ConfigError(
                    "runs: vary: `supervised` is shared by all methods and cannot vary; give it "
                    "runs without `vary`"
                )
            yield method, None
            return
        if method not in self.methods:
            known = [SUPERVISED, *self.methods]
            raise ConfigError(f"runs: methods: {method!r} does not exist; {nearest(method, known)}")
        for values in itertools.product(*vary.values()):
            changes = dict(zip(vary, values, strict=True))
            row = merge(self.methods[method].model_dump(exclude_unset=True), changes)
            suffix = ",".join(f"{key}={value}" for key, value in changes.items())
            if (
                set(suffix) & set("/\\ {}")
                or suffix.startswith(".")
                or len(suffix) > LONGEST_SUFFIX
            ):
                raise ConfigError(
                    f"runs: vary: {found(suffix)} cannot be part of a folder's name; expected "
                    f"values without slashes, spaces and braces, {LONGEST_SUFFIX} characters in all"
                )
            name = f"{method}@{suffix}" if suffix else method
            yield name, method_row(row, f"runs: vary: {name}")

    def _stages(
        self, name: str, seed: int, select: Selected
    ) -> Iterator[tuple[SplitStage, Selected]]:
        """How a split is made, and how its models are chosen: with folds, first each fold."""
        rules = self.experiment.splits
        if name not in rules:
            raise ConfigError(
                f"runs: splits: {name!r} does not exist; {nearest(name, list(rules))}"
            )
        rule = rules[name]
        if not rule.folds:
            yield SplitStage(rule=rule, seed=seed), select
            return
        if select != "val":
            raise ConfigError(
                f"evaluation.select, or select in runs: found {select!r} with splits.{name}.folds, "
                "which choose the models; remove the key `select`"
            )
        shared = {"rule": rule, "seed": seed, "group": self.dataset.group}
        for fold in range(1, rule.folds + 1):
            yield SplitStage(**shared, fold=fold), "last"
        yield SplitStage(**shared), "folds"

    def _add_chain(
        self, split_name: str, stage: SplitStage, select: Selected, name: str, row: MethodRow | None
    ) -> None:
        split = self._split(split_name, stage, select)
        supervised = self._supervised(split)
        self.models[supervised.path] = supervised
        if row is None:
            return
        if not split.unlabeled:
            raise ConfigError(
                f"runs: split {split_name!r} has no unlabeled images; only `supervised` runs on it"
            )
        if row.labeling == "none":
            models = [self._control(split, supervised, name, row)]
        else:
            models = self._rounds(split, supervised, name, row)
        self.models.update((model.path, model) for model in models)

    def _split(self, name: str, stage: SplitStage, select: Selected) -> Split:
        """A labeled split; the first call computes its lists of ids."""
        split = Split(name, stage, select, [], [])
        if split.division not in self.splits:
            order = self.orders.get(stage.seed)
            labeled, unlabeled = divide(self.train_ids, self.with_mask, stage, self.root, order)
            half = max(1, self.experiment.train.batch // 2)
            if len(labeled) < half:
                raise ConfigError(
                    f"splits.{name}: {len(labeled)} labeled images, but a batch of "
                    f"{self.experiment.train.batch} takes {half} of them; lower train.batch, or "
                    "label more images"
                )
            held_out = []
            if stage.fold:
                assert order is not None
                held_out = folds(order, self.with_mask, stage)[stage.fold - 1]
            self.splits[split.division] = replace(
                split, labeled=labeled, unlabeled=unlabeled, held_out=held_out
            )
        return self.splits[split.division]

    def _supervised(self, split: Split) -> PlannedModel:
        layer = self.experiment.supervised.model_dump(exclude_unset=True)
        settings = self.trainings.settings(split, layer)
        images, share = len(split.labeled), settings.batch
        # Without pseudo labels, gamma has no effect: a changed gamma must rerun nothing.
        stage = self.trainings.stage(split, settings, 0, images, share, gamma=0.0)
        return self._model(split, SUPERVISED, stage, **self.initial)

    def _model(
        self,
        split: Split,
        method: str,
        stage: TrainStage,
        links: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> PlannedModel:
        """links: fields of PlannedModel that name other models. more: keys of ModelSettings."""
        settings = ModelSettings(dataset=self.dataset, split=split.stage, train=stage, **more)
        return PlannedModel(split.division, method, stage.round, settings, **links or {})

    @property
    def initial(self) -> dict[str, Any]:
        """The keys of ModelSettings that say where initial weights come from."""
        experiment = self.experiment
        return {"network": experiment.network, "start_from": experiment.start_from}

    def _rounds(
        self, split: Split, supervised: PlannedModel, name: str, row: MethodRow
    ) -> list[PlannedModel]:
        """All rounds of all chains of a method; each follows the models that it depends on."""
        parts = {f"{name}/{part}": keys for part, keys in row.chains.items()} or {name: None}
        before = dict.fromkeys(parts, supervised)
        models = []
        for round, alpha in enumerate(row.curriculum or [None], 1):
            # Each chain labels for the next one, and the last for the first.
            labelers = [*before.values()][-1:] + [*before.values()][:-1]
            made = {
                chain: self._round(split, row, chain, keys, round, alpha, before[chain], labeler)
                for (chain, keys), labeler in zip(parts.items(), labelers, strict=True)
            }
            models += made.values()
            before = made
        return models

    def _round(
        self,
        split: Split,
        row: MethodRow,
        chain: str,
        keys: TrainOverrides | None,
        round: int,
        alpha: Decimal | None,
        previous: PlannedModel,
        labeler: PlannedModel,
    ) -> PlannedModel:
        """keys: those keys of `train` that the chain changes. alpha: None for online labels."""
        own = keys.model_dump(exclude_unset=True) if keys else {}
        settings = self.trainings.settings(split, _overrides(row), own)
        self.trainings.check_halves(chain, split, settings)
        online = row.labeling == "online"
        is_ours = isinstance(row.objective, SelfTraining)
        stage = self.trainings.stage(
            split,
            settings,
            round,
            len(split.unlabeled),
            settings.batch // 2,
            row.round_length,
            weighting=row.weighting,
            augment_pseudo=row.augment_pseudo,
            online_threshold=row.online_threshold if online and is_ours else None,
            objective=row.objective,
            best=row.best,
            snapshots=row.snapshots,
            patience=None if split.stage.rule.folds else row.patience,
        )
        if stage.patience and stage.select == "last":
            raise ConfigError(
                f"patience, for {chain} on {split.division}: found {stage.patience} with select "
                "`last`, which never keeps the model of an earlier round; set `evaluation.select` "
                "to val, or patience to null"
            )
        more = self.initial if row.start == "restart" else {}
        links = {"previous": previous, "labels_itself": online}
        if alpha is not None:
            more |= self._labels(row, alpha)
            variant = self._variant(more["predict"])
            links |= {"labeled_by": labeler, "variant": variant}
            if variant or labeler != previous:
                more["labels_from"] = f"{labeler.name}/predictions{variant}.h5"
        return self._model(split, chain, stage, links, **more)

    def _labels(self, row: MethodRow, alpha: Decimal) -> dict[str, Any]:
        """Settings of the prediction and of the thresholds that make the labels of a round."""
        sampling = row.threshold_sampling
        thresholds = ThresholdStage(
            # Labels of 2 are compared by levels, and have the size of the predictions.
            algorithm=2 if row.rule == "normalized" or self.experiment.prediction.size else 1,
            alpha=alpha,
            balance=row.balance,
            rule=row.rule,
            sampling=sampling,
        )
        return {"predict": self._predict(sampling), "thresholds": thresholds}

    def _control(
        self, split: Split, supervised: PlannedModel, name: str, row: MethodRow
    ) -> PlannedModel:
        """Training on labeled images alone, with the steps or passes of `row.match`.

        It has as many validations. Those of round 0 are not repeated if it continues round 0.
        """
        matched = self.methods.get(row.match or "")
        if matched is None or matched.labeling == "none":
            raise ConfigError(
                f"methods: {name}: match: {row.match!r} is not a self-training method; expected a "
                "row with labeling `offline` or `online`"
            )
        rounds = self._rounds(split, supervised, row.match or "", matched)
        # One of several chains, because each chain ends in a model of its own.
        chain = [model for model in rounds if model.method == rounds[0].method]
        continues = row.control == "continue"
        repeated = chain if continues else [supervised, *chain]
        stages = [model.settings.train for model in repeated]
        layer = self.experiment.supervised.model_dump(exclude_unset=True)
        settings = self.trainings.settings(split, layer, _overrides(row))
        steps = sum(stage.steps for stage in stages)
        if row.match_by == "passes":
            work = sum(map(self.work, rounds if continues else [supervised, *rounds]))
            steps = passes.steps_of(work, settings, len(split.labeled))
        count = min(steps, sum(len(stage.validate_at) for stage in stages))
        validate_at = tuple(-(-steps * k // count) for k in range(1, count + 1))
        stage = self.trainings.stage(
            split, settings, 1, 1, 1, gamma=0.0, steps=steps, validate_at=validate_at
        )
        if continues:
            return self._model(split, name, stage, {"previous": supervised})
        return self._model(split, name, stage, **self.initial)

    def work(self, model: PlannedModel) -> int:
        """Pixels that pass through a network forward for a planned model, see `training.passes`."""
        split = self.splits[model.division]
        labeled, unlabeled = len(split.labeled), len(split.unlabeled)
        return passes.of_model(
            model.settings,
            self.experiment.network,
            labeled,
            unlabeled if model.learns_unlabeled else 0,
            self.sizes if model.labeled_by else (),
        )

    @cached_property
    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of some training images, evenly spaced, read from their headers.

        Raises ConfigError if none can be read.
        """
        if self.experiment.format == "digits":
            return [(self.experiment.digits.size, self.experiment.digits.size)]
        root, found = Path(self.experiment.data), []
        images = evenly(self.train_images, passes.MOST_SIZES)
        for image in images:
            # The data check names every file that cannot be read.
            with suppress(DataError):
                width, height = size_of(root / image)
                found.append((height, width))
        if not found:
            raise ConfigError(
                f"match_by: passes needs the sizes of images, but of {len(images)} training images "
                f"in {root} none can be read, first {images[0]}; expected images as the format of "
                "the data set says"
            )
        return found


def load_plan(
    repository: Path, files: Sequence[Path | Mapping[str, Any]], overrides: Mapping[str, Any]
) -> tuple[Experiment, list[Record], Plan]:
    """Experiment, images and plan of experiment files, given as paths or as their contents.

    repository: the folder of the Snakefile. files: none for config.yaml. overrides: keys of
    --config, which override all files. Raises ConfigError and DataError.
    """
    try:
        return _load_plan(repository, files, overrides)
    except (ConfigError, DataError):
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _load_plan(
    repository: Path, files: Sequence[Path | Mapping[str, Any]], overrides: Mapping[str, Any]
) -> tuple[Experiment, list[Record], Plan]:
    presets = read_yaml(repository / "workflow/presets.yaml")
    experiment = load_experiment(files or [repository / "config.yaml"], presets, overrides)
    dataset = dataset_stage(experiment)
    draw_masks(Path(experiment.data), dataset)
    records = list_records(Path(experiment.data), dataset)
    methods = load_methods(repository / "workflow/methods.yaml")
    return experiment, records, Plan(experiment, methods, records)


def _overrides(row: MethodRow) -> dict[str, Any]:
    return row.model_dump(exclude_unset=True, exclude=set(MethodSwitches.model_fields))
