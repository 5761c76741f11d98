"""Peak memory of prediction, thresholds and pseudo labels for 100 and for 1,000 images.

They stream, so the peak must not grow with the number of images. Prints a line per stage with
the ratio of the two, measured side by side in one run, and fails when one is above --limit.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

SCRIPTS = Path(__file__).parents[1] / "scripts"
sys.path.insert(0, str(SCRIPTS))

IMAGES = (100, 1000)


# A child's peak starts at its parent's size, and this process holds torch: a small one in between.
MEASURE = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""


def peak_mib(stage: str, arguments: dict[str, object]) -> float:
    """Largest resident memory of one run of a stage, MiB."""
    command = [sys.executable, str(SCRIPTS / stage)]
    for option, value in arguments.items():
        command += [option, *(map(str, value) if isinstance(value, list) else [str(value)])]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *command], stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        sys.exit(f"{stage} failed: {' '.join(command)}")
    return int(done.stdout) / 1024


def stages(folder: Path, images: int) -> dict[str, float]:
    """Peaks of the stages over `images` scenes of 160x160, MiB."""
    import torch

    from dst_cbc import digits, models
    from dst_cbc.settings import (
        DatasetStage,
        DrawSettings,
        NetworkSettings,
        PredictStage,
        ThresholdStage,
    )

    draw = DrawSettings(size=160, train=images, val=1, test=1)
    digits.write_scenes(draw, folder / "data")
    names = list(digits.CLASSES)
    dataset = DatasetStage(
        format="digits",
        classes=digits.CLASSES,
        labels=dict(enumerate(names)),
        ignore=(255,),
        test_from_val=0,
        digits=draw,
    )
    torch.manual_seed(0)
    network = NetworkSettings(backbone="small", output_stride=4, aspp_rates=(1,))
    model = models.build(network, digits.CLASSES)
    models.write_model(folder / "model.pt", model, model.network.state_dict(), {})
    ids = [id for subset, id in digits.scene_ids(draw) if subset == "train"]
    (folder / "ids.txt").write_text("".join(f"{id}\n" for id in ids))
    data = {"--data": folder / "data", "--index": folder / "dataset.csv"}
    common = {**data, "--unlabeled": folder / "ids.txt", "--predictions": folder / "p.h5"}
    check = {
        "--settings": dataset.canonical(),
        "--data": folder / "data",
        "--out": folder / "dataset.csv",
    }
    peak_mib("check_data.py", check)
    return {
        "predict": peak_mib(
            "predict.py",
            {
                "--settings": PredictStage(batch=8, tile=2048).canonical(),
                **common,
                "--model": folder / "model.pt",
                "--histogram": folder / "h.npz",
                "--resume": folder / "resume",
                "--device": "cpu",
            },
        ),
        "thresholds": peak_mib(
            "thresholds.py",
            {
                "--settings": ThresholdStage(alpha="0.2", balance="class").canonical(),
                "--histogram": folder / "h.npz",
                "--classes": names,
                "--out": folder / "thresholds.csv",
            },
        ),
        "pseudo_labels": peak_mib(
            "pseudo_labels.py",
            {
                "--settings": dataset.canonical(),
                **common,
                "--thresholds": folder / "thresholds.csv",
                "--out": folder / "pseudo_labels",
            },
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=float, default=1.1, help="largest ratio (default 1.1)")
    limit = parser.parse_args().limit
    with tempfile.TemporaryDirectory() as folder:
        few, many = (stages(Path(folder, str(images)), images) for images in IMAGES)
    print("stage,MiB for {},MiB for {},ratio".format(*IMAGES))
    for stage in few:
        print(f"{stage},{few[stage]:.0f},{many[stage]:.0f},{many[stage] / few[stage]:.3f}")
    grown = [stage for stage in few if many[stage] > limit * few[stage]]
    if grown:
        sys.exit(f"grows with the number of images: {', '.join(grown)}")


if __name__ == "__main__":
    main()
