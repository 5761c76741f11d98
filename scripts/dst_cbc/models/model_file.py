"""The fields of a model file, and the checks that each of them passes before it is used."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import ConfigDict, Field, ValidationError

from ..runtime.errors import DataError
from ..runtime.escape import problem, shown
from ..settings.base import Bands, Deviation, Mean, Settings, Window
from ..settings.data import ClassColours
from ..settings.network import NetworkSettings
from ..settings.stages import Selected
from .torch_files import Unreadable, load, require_checksums, require_finite

_ADVICE = "get the file again from where it came, or remove it to have it made again"
_NOT_PLAIN = "found a value that is no plain number, text, list or mapping"

FORMAT = 2
"""Format of the model files that are written; those of format 1 have no digest."""

DIGEST = "sha256"
"""The field with the digest of all others."""


class Record(Settings):
    """Where weights come from; score: mIoU in percent on the subset `selected_on`."""

    round: Annotated[int, Field(ge=0, le=10**9)]
    step: Annotated[int, Field(ge=0, le=10**9)]
    selected_on: Selected | None = None
    score: Annotated[float, Field(ge=0, le=100)] | None = None


class ModelFile(Settings):
    """The content of a model file; see `segmentation.SegmentationModel`.

    record: None in a model that this workflow has not trained. bands: missing in the file if None.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    network: NetworkSettings
    classes: ClassColours
    mean: Mean
    std: Deviation
    window: Window | None
    record: Record | None
    state: dict[str, torch.Tensor]
    bands: Bands | None = None


def read(path: Path) -> ModelFile:
    """Read a model file. Raises DataError with the file, the field, and what was found.

    Raises DataError, too, if the content has changed since it was written. Its digest shows this; a
    file of format 1 has none, but the checksums of torch.save.
    """
    with _named(path):
        content = load(path)
    # A file can give its dictionaries attributes of any name, also `items`.
    said = dict(dict.items(content)) if isinstance(content, dict) else {}
    number = said.get("format")
    if type(number) is not int or number not in (1, FORMAT):
        raise DataError(
            f"{path}: not a model file of format 1 or {FORMAT} (found format {shown(number)}); "
            "expected a model.pt or last.pt of this version"
        )
    fields = {key: value for key, value in said.items() if key != "format"}
    if number == 1:
        with _named(path):
            require_checksums(path)
    else:  # its digest covers all that is used of the file, so that checksums would find no more
        fields.pop(DIGEST, None)
    try:
        found = ModelFile.model_validate(fields)
    except ValidationError as error:
        raise _damaged(path, problem(error)) from None
    except TypeError as error:
        raise _damaged(path, _NOT_PLAIN) from error
    claimed, size = sum(value.nbytes for value in found.state.values()), path.stat().st_size
    if claimed > size:
        # Parts of the file may overlap, and one number may be repeated by a stride of 0.
        raise _damaged(path, f"state: found {claimed} bytes of weights in a file of {size} bytes")
    if number == FORMAT:
        _require_digest(path, {**said, "state": found.state})
    return found


def digest(content: Mapping[str, Any]) -> str:
    """Hexadecimal SHA-256 of everything that a model file says, without the field `sha256`.

    content: the fields of the file, in its order; `state`: tensors on the CPU. Hashed are the other
    fields and the name, dtype and shape of each tensor, as one JSON list, then the bytes of each
    tensor. Raises TypeError or ValueError if JSON has no such value.
    """
    state = content["state"]
    said = {key: value for key, value in content.items() if key not in ("state", DIGEST)}
    tensors = [[key, str(value.dtype), list(value.shape)] for key, value in state.items()]
    found = hashlib.sha256(json.dumps([said, tensors], separators=(",", ":")).encode())
    for value in state.values():
        # As bytes, because NumPy has no bfloat16; flat, because torch views no scalar so.
        found.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def _require_digest(path: Path, content: dict[str, Any]) -> None:
    try:
        found = digest(content)
    except (TypeError, ValueError) as error:
        # A tensor of one number passes for a number.
        raise _damaged(path, _NOT_PLAIN) from error
    if content.get(DIGEST) != found:
        raise _damaged(
            path,
            f"its content has changed since it was written: found SHA-256 {found}, expected "
            f"{shown(content.get(DIGEST))}",
        )


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a file of torch.save with only tensors and plain values.

    Raises DataError, also if the file has changed since it was written.
    """
    with _named(path):
        content = load(path)
        require_checksums(path)
        return content


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except Unreadable as error:
        raise DataError(f"{path}: not a readable checkpoint: {error}; {_ADVICE}") from error


def require_fit(path: Path, found: ModelFile, wanted: dict[str, torch.Tensor]) -> None:
    """Raise DataError unless the file has finite weights of these names, shapes and dtypes.

    wanted: of the network that the file names, on the device `meta`, so without memory.
    """
    if fault := difference(found.state, wanted):
        raise _damaged(path, f"state: {fault}")
    try:
        require_finite(path, found.state)
    except Unreadable as error:
        raise _damaged(path, f"state: {error}") from error


def difference(found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> str:
    """The first name that only one state has, or with another shape or dtype; "" if there is none.

    Says what `found` has there, and what `wanted` has.
    """
    for key in [*wanted, *found]:
        kinds = [_kind(state.get(key)) for state in (found, wanted)]
        if kinds[0] != kinds[1]:
            return f"{shown(key)}: found {kinds[0]}, expected {kinds[1]}"
    return ""


def _damaged(path: Path, what: str) -> DataError:
    return DataError(f"{path}: a damaged model file: {what}; {_ADVICE}")


def _kind(value: torch.Tensor | None) -> str:
    return "none" if value is None else f"{str(value.dtype)[6:]} {shown(list(value.shape))}"
