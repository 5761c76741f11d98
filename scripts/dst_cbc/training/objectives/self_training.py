"""The paper's objective, equations (1) and (2); without pseudo labels, supervised training.

One network learns from labeled and pseudo-labeled images. The pseudo labels come from files, or,
with `online_threshold`, from the network in training.
"""

from collections.abc import Iterator

import numpy as np
import torch

from ...data.masks import label_table, open_label
from ...models.segmentation import SegmentationModel, logits_of
from ...settings.stages import TrainStage
from ..loading import Batch
from ..losses import dynamic_loss, online_labels, valid_pixels
from ..objective import Objective as Base
from ..objective import Step, trained
from ..optimization import class_weights
from ..samples import Data, labeled_stream, pseudo_stream


class Objective(Base):
    """Half of each batch is pseudo-labeled; in supervised training, none of it (section 4.2)."""

    def __init__(self, model: SegmentationModel, data: Data, stage: TrainStage):
        self.stage, self.evaluated = stage, model
        self.modules = {"network": trained(model.network, stage)}
        pseudo = stage.batch // 2 if data.pseudo else 0
        self.streams = [labeled_stream(data, stage, model, stage.batch - pseudo)]
        if pseudo:
            self.streams.append(pseudo_stream(data, stage, model, pseudo))
        self.class_weights = _class_weights(data, stage, model)

    def losses(self, batch: Batch, step: Step) -> Iterator[tuple[str, torch.Tensor, bool]]:
        images = torch.cat([parts["image"] for parts in batch.values()])
        labels = torch.cat([parts["label"] for parts in batch.values()]).long()
        logits = logits_of(self.evaluated, images, self.stage.precision)
        pseudo = len(images) - len(batch["labeled"]["image"])
        if pseudo and self.stage.online_threshold is not None:
            own = online_labels(logits[-pseudo:], labels[-pseudo:], self.stage.online_threshold)
            labels = torch.cat((labels[:-pseudo], own))
        original = batch["pseudo"].get("confidence") if pseudo else None
        valid = step.ranks.sum(valid_pixels(labels))
        gamma = self.stage.gamma
        yield (
            "network",
            dynamic_loss(logits, labels, pseudo, gamma, self.class_weights, original, valid),
            True,
        )


def _class_weights(data: Data, stage: TrainStage, model: SegmentationModel) -> torch.Tensor | None:
    table = label_table(data.dataset)
    labels = (np.asarray(open_label(data.masks / row.label, table)) for row in data.labeled)
    weights = class_weights(stage, list(data.dataset.classes), labels)
    return None if weights is None else weights.to(next(model.network.parameters()).device)
