"""Writes the folder of a model: model.pt, last.pt, settings.json, history.csv and run.json."""

import math
import subprocess
from pathlib import Path

import torch

from ..models.segmentation import SegmentationModel, cpu_state, write_model
from ..runtime import devices
from ..runtime.errors import DataError
from ..runtime.files import write_bytes, write_json, write_text
from ..runtime.tables import write_csv
from ..settings.stages import ModelSettings
from . import loop
from .checkpoint import HistoryRow, Progress


def write(
    out: Path,
    settings: ModelSettings,
    model: SegmentationModel,
    end: Progress,
    previous: Path | None,
    state: Path,
) -> None:
    """Write what a finished training has made, except run.json.

    model: with the weights after the last step. previous: model.pt of the round before. state:
    folder of the training's state, which has the snapshots. Raises DataError if no validation had a
    mIoU, so that no model could be selected.
    """
    if end.best is None:
        raise DataError(
            f"train.select: the mIoU on {settings.train.select!r} was NaN in each validation, "
            "because its masks have no labeled pixel; add labeled masks or select another subset"
        )
    if end.best_state is None:
        assert previous is not None
        write_bytes(out / "model.pt", previous.read_bytes())
    else:
        write_model(out / "model.pt", model, end.best_state, end.best)
    reached = end.history[-1]
    score = reached["miou"] if reached["step"] == end.step else math.nan
    last = loop.record(settings.train, end.step, None if math.isnan(score) else score)
    write_model(out / "last.pt", model, cpu_state(model), last)
    # Copy by name: a killed write may have left a temporary file beside the snapshots.
    for number in range(1, settings.train.snapshots + 1):
        name = f"{loop.SNAPSHOTS}/{number}.pt"
        write_bytes(out / name, (state / name).read_bytes())
    _write_texts(out, settings, end.history)


def write_copy(out: Path, settings: ModelSettings, previous: Path, why: str) -> None:
    """Write what a round has that trains nothing, except run.json; its model is `previous`."""
    print(f"stopped: {why}. The model of the round before is copied", flush=True)
    for name in ("model.pt", "last.pt"):
        write_bytes(out / name, previous.read_bytes())
    _write_texts(out, settings, [])


def _write_texts(out: Path, settings: ModelSettings, history: list[HistoryRow]) -> None:
    write_csv(out / "history.csv", loop.HISTORY, history)
    write_text(out / "settings.json", settings.model_dump_json(indent=2) + "\n")


def write_run(
    out: Path, device: torch.device, seconds: float = 0.0, resumes: int = 0, **more: str
) -> None:
    """Write run.json: facts that may differ between two runs that produce the same model."""
    ran = {"seconds": seconds, "resumes": resumes, **more}
    found = {"device": devices.describe(device.type), "versions": devices.versions()}
    write_json(out / "run.json", {"commit": commit(), **found, **ran})


def commit() -> str | None:
    """The commit of this copy of the workflow; None without git, or outside of a repository."""
    command = ["git", "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None
