"""The fields of a model file, and the checks that each of them passes before it is used."""

from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import ConfigDict, Field, ValidationError

from ..runtime.errors import DataError
from ..runtime.escape import problem, shown
from ..settings.base import Deviation, Mean, Settings, Window
from ..settings.data import ClassColours
from ..settings.network import NetworkSettings
from ..settings.stages import Selection
from .torch_files import Unreadable, load, require_finite

_ADVICE = "get the file again from where it came, or remove it to have it made again"


class Record(Settings):
    """Where weights come from; score: mIoU in percent on the subset `selected_on`."""

    round: Annotated[int, Field(ge=0, le=10**9)]
    step: Annotated[int, Field(ge=0, le=10**9)]
    selected_on: Selection | None = None
    score: Annotated[float, Field(ge=0, le=100)] | None = None


class ModelFile(Settings):
    """The content of a model file; see `segmentation.SegmentationModel`."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    network: NetworkSettings
    classes: ClassColours
    mean: Mean
    std: Deviation
    window: Window | None
    record: Record
    state: dict[str, torch.Tensor]


def read(path: Path) -> ModelFile:
    """Read a model file. Raises DataError with the file, the field, and what was found."""
    content = read_checkpoint(path)
    # A file can give its dictionary attributes of any name, also `items`.
    fields = dict(dict.items(content)) if isinstance(content, dict) else {}
    found = fields.pop("format", None)
    if not isinstance(found, int) or found != 1:
        raise DataError(
            f"{path}: not a model file of format 1 (found format {shown(found)}); expected a "
            "model.pt or last.pt of this version"
        )
    try:
        return ModelFile.model_validate(fields)
    except ValidationError as error:
        raise DataError(f"{path}: a damaged model file: {problem(error)}; {_ADVICE}") from None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a file of torch.save with only tensors and plain values. Raises DataError."""
    try:
        return load(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except Unreadable as error:
        raise DataError(f"{path}: not a readable checkpoint: {error}; {_ADVICE}") from error


def require_fit(path: Path, found: ModelFile, wanted: dict[str, torch.Tensor]) -> None:
    """Raise DataError unless the file has finite weights of these names, shapes and dtypes.

    wanted: of the network that the file names, on the device `meta`, so without memory.
    """
    claimed, size = sum(value.nbytes for value in found.state.values()), path.stat().st_size
    if claimed > size:
        # Parts of the file may overlap, and one number may be repeated by a stride of 0.
        raise _misfit(path, f"found {claimed} bytes of weights in a file of {size} bytes")
    for key in [*wanted, *found.state]:
        kinds = [_kind(state.get(key)) for state in (found.state, wanted)]
        if kinds[0] != kinds[1]:
            raise _misfit(path, f"{shown(key)}: found {kinds[0]}, expected {kinds[1]}")
    try:
        require_finite(path, found.state)
    except Unreadable as error:
        raise _misfit(path, str(error)) from error


def _misfit(path: Path, what: str) -> DataError:
    return DataError(f"{path}: a damaged model file: state: {what}; {_ADVICE}")


def _kind(value: torch.Tensor | None) -> str:
    return "none" if value is None else f"{str(value.dtype)[6:]} {shown(list(value.shape))}"
