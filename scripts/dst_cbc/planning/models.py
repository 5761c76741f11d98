"""Planned models and splits: their paths, settings and inputs."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..settings.data import SplitStage
from ..settings.methods import SUPERVISED
from ..settings.stages import Inference, LabelStage, ModelSettings, NormalizedPass, Selected


@dataclass(frozen=True)
class Split:
    """One labeled split: name, rule, seed, how its models are selected, and its lists of ids.

    held_out: in a fold, the ids of its own images, on which its models are evaluated.
    """

    name: str
    stage: SplitStage
    select: Selected
    labeled: list[str]
    unlabeled: list[str]
    held_out: list[str] = field(default_factory=list)

    @property
    def division(self) -> str:
        """Name of the split's folder in the study: `<name>_<seed>`, and `_<select>` unless val.

        That of a fold is `<name>_<seed>_fold<k>`.
        """
        part = f"fold{self.stage.fold}" if self.stage.fold else self.select
        return f"{self.name}_{self.stage.seed}" + ("" if part == "val" else f"_{part}")


@dataclass(frozen=True)
class PlannedModel:
    """One model of the study: its place, its settings and the models that it depends on.

    division: folder of its split. method: name of its chain of rounds: the method, or
    `<method>/<chain>` if the method has several. previous: the model of the round before in the
    chain. labeled_by: the model whose predictions become its label files; None: it reads no label
    files. variant: part of the name of these predictions if their settings differ from those that
    all methods share, else "". labels_itself: whether it labels the unlabeled images in training.
    """

    division: str
    method: str
    round: int
    settings: ModelSettings
    previous: PlannedModel | None = None
    labeled_by: PlannedModel | None = None
    variant: str = ""
    labels_itself: bool = False

    @property
    def name(self) -> str:
        """Path below the split's folder: `supervised` or `<method>/round<r>`."""
        return SUPERVISED if self.method == SUPERVISED else f"{self.method}/round{self.round}"

    @property
    def path(self) -> str:
        """Path below the study's folder."""
        return f"{self.division}/{self.name}"

    @property
    def fold(self) -> int | None:
        """Number of the fold that it belongs to, from 1; None for a model of the study itself."""
        return self.settings.split.fold

    @property
    def choice(self) -> str | None:
        """Path below the study's folder of what the folds have chosen; None if no folds choose."""
        chosen = self.settings.train.select == "folds"
        return f"{self.division}/choice.json" if chosen else None

    @property
    def learns_unlabeled(self) -> bool:
        """Whether it is trained on unlabeled images, too."""
        return self.labeled_by is not None or self.labels_itself

    @property
    def starts_anew(self) -> bool:
        """Whether training starts from initial weights, not from weights of the round before."""
        return self.settings.network is not None

    @property
    def needs_pass(self) -> bool:
        """Whether its labels need the labeling model itself; else predictions.h5 is enough."""
        return self.settings.thresholds is not None and self.settings.thresholds.needs_pass

    @property
    def label_stage(self) -> LabelStage:
        """Settings of the stage that makes its pseudo labels."""
        predict = self.settings.predict
        assert predict is not None
        shared = {key: getattr(predict, key) for key in Inference.model_fields}
        inference = NormalizedPass(**shared) if self.needs_pass else None
        return LabelStage(
            **dict(self.settings.dataset), inference=inference, resampling=predict.resampling
        )

    def labeling(self, name: str, suffix: str) -> str:
        """Path below the study's folder of `<name><suffix>` of the prediction behind its labels."""
        assert self.labeled_by is not None
        return f"{self.labeled_by.path}/{name}{self.variant}{suffix}"

    @property
    def reads(self) -> dict[str, str]:
        """Files that its training reads besides the data set and the list of labeled images.

        Option of train.py -> path below the study's folder.
        """
        found = {}
        # What folds end early copies the model of the round before.
        carried = self.settings.train.best == "carry" or self.choice
        if self.previous and (not self.starts_anew or carried):
            found["previous"] = f"{self.previous.path}/model.pt"
        if self.labeled_by:
            found["pseudo-labels"] = f"{self.path}/pseudo_labels.csv"
            files = {
                "predictions": self.labeling("predictions", ".h5"),
                "thresholds": f"{self.path}/thresholds.csv",
                "labeling-model": f"{self.labeled_by.path}/model.pt",
            }
            needed = self.settings.train.reads
            found |= {option: path for option, path in files.items() if option in needed}
        elif self.labels_itself:
            found["unlabeled"] = f"splits/{self.division}.unlabeled.txt"
        if self.choice:
            found["choice"] = self.choice
        return found
