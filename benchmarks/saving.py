"""What saving the state of a training costs, at the default interval.

Saves the state of the network of camvid.yaml, and of the paper's ResNet-101, as the training loop
does: weights, momentum, the best weights so far; fsync included. Prints seconds of a save, and
their share of the time between two. Fails when one is above --limit percent.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

SCRIPTS = Path(__file__).parents[1] / "scripts"
sys.path.insert(0, str(SCRIPTS))

INTERVAL = 60.0  # `save_seconds` by default
SAVES = 7


def seconds(backbone: str, stages: int | None) -> tuple[float, float]:
    """Median seconds of a save, and MB written."""
    import torch

    from dst_cbc import models, optimization, training
    from dst_cbc.settings import Inference, NetworkSettings, TrainStage

    network = NetworkSettings(backbone=backbone, stages=stages, output_stride=16)
    classes = {str(number): "#000000" for number in range(19)}
    model = models.build(network, classes)
    stage = TrainStage(
        steps=1,
        validate_at=(1,),
        seed=0,
        round=0,
        select="val",
        validation=Inference(batch=1, tile=512),
    )
    optimizer = optimization.optimizer(model.network, stage)
    for parameter in model.network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    best = training.cpu_state(model)
    progress = training.Progress(1, {"score": 1.0}, best, [])
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    taken = []
    with tempfile.TemporaryDirectory(dir=".") as folder:
        path = Path(folder, "state.pt")
        for _ in range(SAVES):
            started = time.monotonic()
            training.save_state(path, progress, model.network, optimizer, scaler)
            taken.append(time.monotonic() - started)
        return statistics.median(taken), path.stat().st_size / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=float, default=1.0, help="percent (default 1)")
    limit = parser.parse_args().limit
    print("network,MB,seconds,percent of training")
    costly = []
    for backbone, stages in (("tf_efficientnet_lite0", 4), ("resnet101", None)):
        taken, size = seconds(backbone, stages)
        percent = 100 * taken / (INTERVAL + taken)
        print(f"{backbone},{size:.0f},{taken:.3f},{percent:.2f}")
        costly += [backbone] if percent > limit else []
    if costly:
        sys.exit(f"saving takes more than {limit} % of the time: {', '.join(costly)}")


if __name__ == "__main__":
    main()
