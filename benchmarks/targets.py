"""The rows of the table: names, groups, units, lower bounds and targets."""

from __future__ import annotations

from dataclasses import dataclass

KINDS = {
    "ratio": lambda row: row.ratio <= row.target,
    "share": lambda row: row.ratio >= row.target,
    "more": lambda row: row.ours - row.bound <= row.target,
    "ours": lambda row: row.ours <= row.target,
}
"""What a target limits: at most ours / bound, at least ours / bound, at most ours - bound, or at
most ours."""


@dataclass(frozen=True)
class Target:
    """The constants of one row. kind: a key of KINDS. value: the target, None if there is none."""

    group: str
    unit: str
    bound: str
    value: float | None
    kind: str = "ratio"

    def __str__(self) -> str:
        signs = {"ratio": "{:.4g}", "share": ">= {:.4g}", "more": "+ {:.4g}", "ours": "{:.4g} {}"}
        return "" if self.value is None else signs[self.kind].format(self.value, self.unit)


SAMPLE = "training sample, 500x375 JPEG to 321x321"
LOADER = "training samples through the loader, 2 workers"
CHECK = "data check, 1,000 images"
LOSS = "dynamic loss, forward and backward, (8, 21, 321, 321)"
LOSS_PEAK = "dynamic loss, peak memory over the logits"
STEP_RESNET = "training step, DeepLabV2-ResNet101, 161x161"
STEP_DEMO = "training step, the demo's network"
STEP_LITE = "training step, EfficientNet-Lite0, 160x160, stride 8"
STEP_LITE_ALL = "the same, all stages learn"
SAVE_RESNET = "saving the state, ResNet-101"
SAVE_LITE = "saving the state, EfficientNet-Lite0"
PREDICT_RESNET = "predict stage, ResNet-101, 321x321, one core"
PREDICT_LITE = "predict stage, EfficientNet-Lite0, 321x321, one core"
VALIDATE = "validation, ResNet-101, 321x321, one core"
LABELS = "labels from predictions.h5, 321x321"
DISK = "disk of predictions.h5"
START_TORCH = "start-up of a stage with torch"
START = "start-up of a stage without torch"
PLAN = "dry run of the largest experiment, voc.yaml"
PLAN_MANY = "dry run with 10,000 unlabeled images"
PEAK_PREDICT = "peak memory of predict, 100 and 2,000 images"
PEAK_THRESHOLDS = "peak memory of thresholds, 100 and 2,000 images"
PEAK_LABELS = "peak memory of labels, 100 and 2,000 images"
STEP_CUDA = "training step, DeepLabV2-ResNet101, 321x321, CUDA"
TRAIN_CUDA = "training from files, DeepLabV2-ResNet101, CUDA"
PREDICT_CUDA = "predict stage, ResNet-101, 321x321, CUDA"
HOURS = "Table 3, 100 labels, five rounds, CUDA"
DEMO = "the demo, whole"

TARGETS = {
    SAMPLE: Target("samples", "ms", "decoding JPEG and PNG", 1.8),
    LOADER: Target("samples", "images/s", "2 x one process", 0.85, "share"),
    CHECK: Target("samples", "s", "decoding on all cores", 1.5),
    LOSS: Target("network", "ms", "F.cross_entropy", 1.05),
    LOSS_PEAK: Target("network", "MiB", "F.cross_entropy", 0.55),
    STEP_RESNET: Target("network", "ms", "bare forward, backward, step", 1.03),
    STEP_DEMO: Target("network", "ms", "bare forward, backward, step", 1.10),
    STEP_LITE: Target("network", "ms", "unmodified timm network", 0.5),
    STEP_LITE_ALL: Target("network", "ms", "unmodified timm network", 0.5),
    SAVE_RESNET: Target("network", "s", "the time between two saves", 0.01),
    SAVE_LITE: Target("network", "s", "the time between two saves", 0.01),
    PREDICT_RESNET: Target("stages", "ms", "forward passes alone", 1.05),
    PREDICT_LITE: Target("stages", "ms", "forward passes alone", 1.25),
    VALIDATE: Target("stages", "ms", "forward passes alone", 1.05),
    LABELS: Target("stages", "ms", "reading the file, writing the PNG", 1.3),
    DISK: Target("stages", "bytes/pixel", "uncompressed, as in memory", 1.6, "ours"),
    START_TORCH: Target("processes", "s", "import torch, torchvision", 1.15),
    START: Target("processes", "s", "import numpy", 0.3, "more"),
    PLAN: Target("processes", "s", "snakemake --version", 10, "ours"),
    PLAN_MANY: Target("processes", "s", "snakemake --version", 3, "ours"),
    PEAK_PREDICT: Target("processes", "MiB", "100 images", 1.05),
    PEAK_THRESHOLDS: Target("processes", "MiB", "100 images", 1.05),
    PEAK_LABELS: Target("processes", "MiB", "100 images", 1.05),
    STEP_CUDA: Target("gpu", "ms", "bare forward, backward, step", 1.03),
    TRAIN_CUDA: Target("gpu", "images/s", "bare forward, backward, step", None, "share"),
    PREDICT_CUDA: Target("gpu", "ms", "forward passes alone", 1.05),
    HOURS: Target("gpu", "h", "its steps and forward passes", None),
    DEMO: Target("demo", "s", "its steps and forward passes", 1.4),
}
