"""Planned models and splits: paths, and what each one depends on."""

from __future__ import annotations

from dataclasses import dataclass

from ..settings.data import SplitStage
from ..settings.stages import ModelSettings

SUPERVISED = "supervised"


@dataclass(frozen=True)
class Split:
    """One labeled split: its rule, what selects its models, and the ids on both sides."""

    name: str
    stage: SplitStage
    select: str
    labeled: list[str]
    unlabeled: list[str]

    @property
    def division(self) -> str:
        """Name of its folder below the study's."""
        selection = "" if self.select == "val" else f"_{self.select}"
        return f"{self.name}_{self.stage.seed}{selection}"


@dataclass(frozen=True)
class PlannedModel:
    """One model of the study, and what the row of its method decides of it.

    division: folder of its split. method: its chain, `<method>/<part>` where a method has several.
    previous: the model of the round before in its chain. labeled_by: the model whose predictions
    become its files of pseudo labels, None without such files. variant: what tells these
    predictions from those that all methods share, part of their file's name. labels_itself: whether
    it labels the unlabeled images in training.
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
        assert self.labeled_by is not None
        return f"{self.labeled_by.path}/{name}{self.variant}{suffix}"

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
            files = {
                "predictions": self.labeling("predictions", ".h5"),
                "thresholds": f"{self.path}/thresholds.csv",
                "labeling-model": f"{self.labeled_by.path}/model.pt",
            }
            needed = self.settings.train.reads
            found |= {option: path for option, path in files.items() if option in needed}
        elif self.labels_itself:
            found["unlabeled"] = f"splits/{self.division}.unlabeled.txt"
        return found
