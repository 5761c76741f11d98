"""From an experiment file to the models it asks for: paths, and what each one depends on."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from .datasets import LAYOUTS, Record, dataset_stage, list_records
from .experiment import (
    ConfigError,
    explain,
    load_experiment,
    load_methods,
    merge,
    method_row,
    nearest,
    read_yaml,
)
from .files import read_ids, read_json
from .settings import (
    Compute,
    EvaluateStage,
    Experiment,
    Inference,
    MethodRow,
    MethodSwitches,
    ModelSettings,
    PredictStage,
    SelfTraining,
    SplitStage,
    ThresholdStage,
    TrainOverrides,
    TrainSettings,
    TrainStage,
)
from .splits import divide

SUPERVISED = "supervised"
OF_FILES = (
    "curriculum", "balance", "weighting", "rule", "threshold_sampling", "teacher", "chains",
)  # fmt: skip
"""Switches that say how files of pseudo labels are made and weighed."""
OF_ROUNDS = ("start", "best", "snapshots", "objective")
"""Switches of rounds that learn from unlabeled images, whoever labels them."""


@dataclass(frozen=True)
class Split:
    """One labeled split: its rule, what selects its models, and the ids on both sides."""

    name: str
    stage: SplitStage
    select: str
    labeled: list[str]
    unlabeled: list[str]


@dataclass(frozen=True)
class PlannedModel:
    """One model of the study, and what the row of its method decides of it.

    division: folder of its split. method: its chain, `<method>/<part>` where a method has several.
    previous: the model of the round before in its chain. labeled_by: the model whose predictions
    become its files of pseudo labels, None without such files. view: what tells these predictions
    from those that all methods share, part of their file's name. labels_itself: whether it labels
    the unlabeled images in training.
    """

    division: str
    method: str
    round: int
    settings: ModelSettings
    previous: PlannedModel | None = None
    labeled_by: PlannedModel | None = None
    view: str = ""
    labels_itself: bool = False

    @property
    def name(self) -> str:
        """Folder below the split's: `supervised` or `<method>/round<r>`."""
        return SUPERVISED if self.method == SUPERVISED else f"{self.method}/round{self.round}"

    @property
    def path(self) -> str:
        """Folder below the study's."""
        return f"{self.division}/{self.name}"

    @property
    def learns_unlabeled(self) -> bool:
        """Whether unlabeled images are part of its training."""
        return self.labeled_by is not None or self.labels_itself

    @property
    def starts_anew(self) -> bool:
        """Whether it starts from the initial weights, and not from those of the round before."""
        return self.settings.network is not None

    @property
    def needs_pass(self) -> bool:
        """Whether making its labels needs the labeling model, and not its predictions alone."""
        return self.settings.thresholds is not None and self.settings.thresholds.needs_pass

    def labeling(self, name: str, suffix: str) -> str:
        """Path below the study's of a file of the predictions that its labels are made from."""
        return f"{self.labeled_by.path}/{name}{self.view}{suffix}"

    @property
    def reads(self) -> dict[str, str]:
        """What its training reads beside the labeled images.

        Option of train.py -> path below the study's folder.
        """
        found = {}
        if self.previous and (not self.starts_anew or self.settings.train.best == "carry"):
            found["previous"] = f"{self.previous.path}/model.pt"
        if self.labeled_by:
            found["pseudo-labels"] = f"{self.path}/pseudo_labels.csv"
        elif self.labels_itself:
            found["unlabeled"] = f"splits/{self.division}.unlabeled.txt"
        if needed := self.settings.train.reads:
            files = {
                "predictions": self.labeling("predictions", ".h5"),
                "thresholds": f"{self.path}/thresholds.csv",
                "labeling-model": f"{self.labeled_by.path}/model.pt",
            }
            found |= {option: path for option, path in files.items() if option in needed}
        return found


class Plan:
    """All models of an experiment.

    root: the folder that relative paths of imported lists start from. Raises ConfigError for
    everything that can be wrong before a file is decoded.
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
        self.train_ids = [record.id for record in train]
        self.with_mask = {record.id for record in train if record.label}
        self.val_ids = {record.id for record in records if record.subset == "val"}
        self._check_subsets(records)
        unknown = set(experiment.by_split) - set(experiment.splits)
        if unknown:
            known = nearest(min(unknown), list(experiment.splits))
            raise ConfigError(f"by_split: split {min(unknown)!r} does not exist; {known}")
        self.splits: dict[str, Split] = {}
        self.models: dict[str, PlannedModel] = {}
        for run in experiment.runs:
            select = run.select or experiment.evaluation.select
            for split, seed, method in itertools.product(run.splits, run.seeds, run.methods):
                for name, row in self._varied(method, run.vary):
                    self._add_chain(split, seed, select, name, row)

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

    @property
    def evaluate(self) -> EvaluateStage:
        report = self.experiment.evaluation.report
        return EvaluateStage(dataset=self.dataset, report=report, **self.evaluation)

    @property
    def predict(self) -> PredictStage:
        """A pass over the unlabeled images as the experiment says, without a method's own word."""
        return self._predict(self.experiment.switches.threshold_sampling or 1)

    @property
    def views(self) -> dict[str, PredictStage]:
        """All passes, by what tells their files from those of `predict`."""
        own = {m.view: m.settings.predict for m in self.models.values() if m.labeled_by}
        return {"": self.predict, **own}

    def _predict(self, sampling: int) -> PredictStage:
        size = self.experiment.prediction.size
        return PredictStage(sampling=sampling, size=size, **self.inference)

    def _view(self, stage: PredictStage) -> str:
        """`@key=value` of what is not as in `predict`; "" where everything is."""
        ours, common = (s.model_dump(mode="python") for s in (stage, self.predict))
        changes = [f"{key}={ours[key]}" for key in ours if ours[key] != common[key]]
        return f"@{','.join(changes)}" if changes else ""

    def _over_switches(self, name: str, row: MethodRow) -> MethodRow:
        """The row with the experiment's `switches` beneath it."""
        own = row.model_dump(exclude_unset=True)
        below = self.experiment.switches.model_dump(exclude_unset=True)
        labeling = merge(below, own).get("labeling", "offline")
        idle = {"offline": (), "online": OF_FILES, "none": (*OF_FILES, *OF_ROUNDS)}[labeling]
        below = {key: value for key, value in below.items() if key not in idle}
        return method_row(merge(below, own), f"switches, beneath method {name}") if below else row

    def _check_subsets(self, records: Sequence[Record]) -> None:
        evaluation = self.experiment.evaluation
        sizes = {s: sum(r.subset == s for r in records) for s in ("train", "val", "test")}
        for key, subset in [
            ("select", "val"),
            *(("report", s) for s in evaluation.report),
        ]:
            if not sizes[subset]:
                raise ConfigError(
                    f"evaluation.{key}: subset {subset!r} has no images in {self.experiment.data}; "
                    f"found {sizes}; choose another subset, or set test_from_val"
                )
        if not sizes["train"]:
            raise ConfigError(f"{self.experiment.data}: no training images; found {sizes}")

    def _varied(
        self, method: str, vary: Mapping[str, Sequence]
    ) -> Iterator[tuple[str, MethodRow | None]]:
        """The method, once for each combination of varied values, under a name of its own."""
        if method == SUPERVISED:
            if vary:
                raise ConfigError(
                    "runs: vary: `supervised` is shared by all methods and cannot vary"
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
            if set(suffix) & set("/\\ {}") or suffix.startswith("."):
                raise ConfigError(f"runs: vary: {suffix!r} cannot be part of a folder's name")
            name = f"{method}@{suffix}" if suffix else method
            yield name, method_row(row, f"runs: vary: {name}")

    def _add_chain(
        self, split: str, seed: int, select: str, name: str, row: MethodRow | None
    ) -> None:
        division = self._division(split, seed, select)
        supervised = self._supervised(division)
        self.models[supervised.path] = supervised
        if row is None:
            return
        if not self.splits[division].unlabeled:
            raise ConfigError(
                f"runs: split {split!r} has no unlabeled images; only `supervised` runs on it"
            )
        models = self._control(division, name, row) if row.labeling == "none" else self._rounds(
            supervised, name, row
        )  # fmt: skip
        self.models.update((model.path, model) for model in models)

    def _division(self, name: str, seed: int, select: str) -> str:
        """Folder name of a split; the split is worked out at its first use."""
        rules = self.experiment.splits
        if name not in rules:
            raise ConfigError(
                f"runs: splits: {name!r} does not exist; {nearest(name, list(rules))}"
            )
        division = f"{name}_{seed}" + ("" if select == "val" else f"_{select}")
        if division not in self.splits:
            stage = SplitStage(rule=rules[name], seed=seed)
            labeled, unlabeled = divide(self.train_ids, self.with_mask, stage, self.root)
            half = max(1, self.experiment.train.batch // 2)
            if len(labeled) < half:
                raise ConfigError(
                    f"splits.{name}: {len(labeled)} labeled images, but a batch of "
                    f"{self.experiment.train.batch} takes {half} of them; lower train.batch, or "
                    "label more"
                )
            self.splits[division] = Split(name, stage, select, labeled, unlabeled)
        return division

    def _train_settings(self, division: str, *layers: Mapping[str, Any]) -> TrainSettings:
        """`train`, then `by_split`, then `layers`."""
        merged = self.experiment.train.model_dump(exclude_unset=True)
        by_split = self.experiment.by_split.get(self.splits[division].name)
        for layer in (by_split.model_dump(exclude_unset=True) if by_split else {}, *layers):
            # `epochs` in a layer replaces `steps` of one below, and the other way round.
            if "epochs" in layer and "steps" not in layer:
                merged = merge(merged, {"steps": None})
            merged = merge(merged, layer)
        try:
            settings = TrainSettings.model_validate(merged)
        except ValidationError as error:
            place = f"train, supervised, by_split or method, for {division}"
            raise ConfigError(explain(error, TrainSettings, [(place, merged)])) from None
        device = self.experiment.device
        if settings.sync_norm and settings.gpus > 1 and device not in ("auto", "cuda"):
            raise ConfigError(
                f"train.sync_norm: found true with device {device!r}; torch synchronises batch "
                "normalisation on CUDA only: set it to false, or device to cuda"
            )
        if settings.batch % settings.gpus:
            raise ConfigError(
                f"train.gpus: found {settings.gpus} with batch {settings.batch}, for {division}; "
                "expected a number that divides the batch"
            )
        for name in settings.class_weights if isinstance(settings.class_weights, dict) else ():
            if name not in self.dataset.classes:
                hint = nearest(name, list(self.dataset.classes))
                raise ConfigError(f"train.class_weights: {name!r} is not a class; {hint}")
        return settings

    def _stage(
        self,
        division: str,
        settings: TrainSettings,
        round: int,
        images: int,
        share: int,
        length: int = 1,
    ) -> TrainStage:
        """Training resolved: `share` of `images` images a step, `length` times the schedule."""
        split = self.splits[division]
        steps = settings.steps or int(self._epochs(settings, split) * images / share)
        steps = max(1, steps) * length
        every = _of_split(settings.validate_every, split.name, "validate_every")
        return TrainStage(
            **settings.model_dump(exclude={"epochs", "steps", "validate_every", "seed"}),
            **self.compute,
            steps=steps,
            validate_at=(*range(every, steps, every), steps),
            seed=split.stage.seed if settings.seed is None else settings.seed,
            round=round,
            select=split.select,
            valtiny=self.valtiny if split.select == "valtiny" else (),
            validation=Inference(**self.evaluation),
        )

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

    def _epochs(self, settings: TrainSettings, split: Split) -> float:
        if settings.epochs == "formula":
            return 30 * math.sqrt(len(self.train_ids) / len(split.labeled))
        return _of_split(settings.epochs, split.name, "epochs")

    def _supervised(self, division: str) -> PlannedModel:
        split = self.splits[division]
        layer = self.experiment.supervised.model_dump(exclude_unset=True)
        settings = self._train_settings(division, layer)
        stage = self._stage(division, settings, 0, len(split.labeled), settings.batch)
        # gamma weighs pseudo labels; without any it must not retrain this model.
        return self._labeled_only(division, SUPERVISED, stage.model_copy(update={"gamma": 0.0}))

    def _labeled_only(self, division: str, method: str, stage: TrainStage) -> PlannedModel:
        settings = self._model_settings(division, stage, **self.initial)
        return PlannedModel(division, method, stage.round, settings)

    def _model_settings(self, division: str, stage: TrainStage, **more: Any) -> ModelSettings:
        split = self.splits[division].stage
        return ModelSettings(dataset=self.dataset, split=split, train=stage, **more)

    @property
    def initial(self) -> dict[str, Any]:
        """Where initial weights come from."""
        experiment = self.experiment
        return {"network": experiment.network, "start_from": experiment.start_from}

    def _rounds(self, supervised: PlannedModel, name: str, row: MethodRow) -> list[PlannedModel]:
        """All rounds of a method, of each of its chains, in an order in which they can be made."""
        parts = {f"{name}/{part}": keys for part, keys in row.chains.items()} or {name: None}
        before = dict.fromkeys(parts, supervised)
        models = []
        for round, alpha in enumerate(row.curriculum or [None], 1):
            # Each labels for the next, the last for the first.
            labelers = [*before.values()][-1:] + [*before.values()][:-1]
            made = {
                chain: self._round(row, chain, keys, round, alpha, before[chain], labeler)
                for (chain, keys), labeler in zip(parts.items(), labelers, strict=True)
            }
            models += made.values()
            before = made
        return models

    def _round(
        self,
        row: MethodRow,
        chain: str,
        keys: TrainOverrides | None,
        round: int,
        alpha: Decimal | None,
        previous: PlannedModel,
        labeler: PlannedModel,
    ) -> PlannedModel:
        """keys: of `train` in which the chain differs. alpha: None where labels are made online."""
        division = previous.division
        own = keys.model_dump(exclude_unset=True) if keys else {}
        settings = self._train_settings(division, _overrides(row), own)
        self._check_halves(chain, division, settings)
        unlabeled, half = len(self.splits[division].unlabeled), settings.batch // 2
        stage = self._stage(division, settings, round, unlabeled, half, row.round_length)
        online = row.labeling == "online"
        is_ours = isinstance(row.objective, SelfTraining)
        switches = {
            "weighting": row.weighting,
            "augment_pseudo": row.augment_pseudo,
            "online_threshold": row.online_threshold if online and is_ours else None,
            "objective": row.objective,
            "best": row.best,
            "snapshots": row.snapshots,
        }
        initial = self.initial if row.start == "restart" else {}
        labels, view = {}, ""
        if not online:
            labels = self._labels(row, alpha)
            view = self._view(labels["predict"])
            if view or labeler != previous:
                labels["labels_from"] = f"{labeler.name}/predictions{view}.h5"
        more = {**initial, **labels}
        settings = self._model_settings(division, stage.model_copy(update=switches), **more)
        labeled_by = None if online else labeler
        return PlannedModel(division, chain, round, settings, previous, labeled_by, view, online)

    def _check_halves(self, name: str, division: str, settings: TrainSettings) -> None:
        if settings.batch % 2:
            raise ConfigError(
                f"{name}: batch: found {settings.batch}; half of it is pseudo-labeled, so even"
            )
        if settings.batch // 2 % settings.gpus:
            raise ConfigError(
                f"{name}: train.gpus: found {settings.gpus} with batch {settings.batch}, for "
                f"{division}; expected a number that divides each half of it, labeled and pseudo: "
                f"{settings.batch // 2}"
            )

    def _labels(self, row: MethodRow, alpha: Decimal) -> dict[str, Any]:
        """How the files of pseudo labels of one round are made."""
        sampling = row.threshold_sampling
        thresholds = ThresholdStage(
            alpha=alpha, balance=row.balance, rule=row.rule, sampling=sampling
        )
        return {"predict": self._predict(sampling), "thresholds": thresholds}

    def _control(self, division: str, name: str, row: MethodRow) -> list[PlannedModel]:
        """Labeled images alone, with the steps and the number of validations of another chain."""
        matched = self.methods.get(row.match)
        if matched is None or matched.labeling == "none":
            raise ConfigError(f"methods: {name}: match: {row.match!r} is no self-training method")
        supervised = self._supervised(division)
        rounds = self._rounds(supervised, row.match, matched)
        # Of several chains one: each ends in a model.
        chain = [model for model in rounds if model.method == rounds[0].method]
        stages = [model.settings.train for model in (supervised, *chain)]
        steps = sum(stage.steps for stage in stages)
        validations = sum(len(stage.validate_at) for stage in stages)
        settings = self._train_settings(
            division, self.experiment.supervised.model_dump(exclude_unset=True), _overrides(row)
        )
        stage = self._stage(division, settings, 1, 1, 1).model_copy(
            update={
                "gamma": 0.0,
                "steps": steps,
                "validate_at": tuple(
                    -(-steps * k // validations) for k in range(1, validations + 1)
                ),
            }
        )
        return [self._labeled_only(division, name, stage)]

    def replaced(self, study: Path) -> dict[str, str]:
        """Paths of finished trainings below `study` that this plan would replace, and why.

        Raises DataError when the settings that one of them has written are damaged.
        """
        stale: dict[str, str] = {}
        for path, model in self.models.items():
            written = study / path / "settings.json"
            if not (written.is_file() and (study / path / "model.pt").is_file()):
                continue
            old, new = read_json(written), json.loads(model.settings.canonical())
            changes = [f"{k}: {a!r} -> {b!r}" for k, a, b in _differences(old, new)]
            if changes:
                stale[path] = "; ".join(changes)
            elif model.previous and model.previous.path in stale:
                stale[path] = f"starts from {model.previous.path}"
            elif model.labeled_by and model.labeled_by.path in stale:
                stale[path] = f"is labeled by {model.labeled_by.path}"
        return stale


def load_plan(
    house: Path, files: Sequence[Path], overrides: Mapping[str, Any]
) -> tuple[Experiment, list[Record], Plan]:
    """Experiment, images and plan of experiment files, then `overrides` (--config).

    house: the folder of the Snakefile. Raises ConfigError, DataError.
    """
    presets = read_yaml(house / "workflow/presets.yaml")
    experiment = load_experiment(files or [house / "config.yaml"], presets, overrides)
    records = list_records(Path(experiment.data), dataset_stage(experiment))
    methods = load_methods(house / "workflow/methods.yaml")
    return experiment, records, Plan(experiment, methods, records)


def _overrides(row: MethodRow) -> dict[str, Any]:
    return row.model_dump(exclude_unset=True, exclude=set(MethodSwitches.model_fields))


def _of_split(value: Any, split: str, key: str) -> Any:
    if not isinstance(value, dict):
        return value
    if split not in value:
        raise ConfigError(f"train.{key}: no value for split {split!r}; found {sorted(value)}")
    return value[split]


def _differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted keys whose values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif old != new:
        yield path, old, new
