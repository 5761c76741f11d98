"""Reads files of torch.save that may come from strangers: runs no code, claims no excess memory."""

import os
import pickletools
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..runtime import checksums
from ..runtime.errors import DataError
from ..runtime.escape import shown
from ..runtime.files import open_regular

LONGEST = 1 << 24
"""Most bytes of the pickle in a file, which has the names and shapes, not the numbers."""

MOST_STEPS = 1_000_000
"""Most instructions in a pickle; a network of a thousand tensors has about 20000."""

_KINDS = ("Bool", "Byte", "Char", "Short", "Int", "Long", "Half", "BFloat16", "Float", "Double")
# torch's own list for weights_only also has bytearray, which makes an array of any size, sparse and
# quantized tensors, and tensors without memory.
_KNOWN = {
    "collections OrderedDict",
    *(f"torch._utils {name}" for name in ("_rebuild_tensor", "_rebuild_tensor_v2")),
    "torch._utils _rebuild_parameter",
    *(f"torch {kind}Storage" for kind in _KINDS),
}


class Unreadable(ValueError):
    """A file is damaged, holds code, or is no file of torch.save; the message does not name it."""


def load(path: Path) -> Any:
    """Read plain tensors and values, onto the CPU.

    Raises Unreadable, OSError, and DataError for what is no regular file, or has changed since a
    job made it.
    """
    checksums.check(path)
    with _unreadable():
        with open_regular(path) as file:
            zipped = file.read(4) == b"PK\x03\x04"
            file.seek(0)
            if zipped:
                _require_known(_zipped_pickle(path))
            else:
                # What torch wrote before 1.6: four short pickles and the content.
                for _ in range(5):
                    _require_known(file)
        return torch.load(path, map_location="cpu", weights_only=True)


def require_checksums(path: Path) -> None:
    """Raise Unreadable if a part of a file that `load` has read is not as torch.save wrote it.

    torch.save writes a CRC-32 for each part of the file, and torch.load does not compare them.
    """
    with _unreadable():
        with zipfile.ZipFile(path) as file:
            written = {one.filename.partition("/")[2]: one.CRC for one in file.infolist()}
        # The bytes come from torch: another zip reader may find other content.
        reader: Any = torch._C.PyTorchFileReader(os.fspath(path))
        for name in reader.get_all_records():
            if zlib.crc32(reader.get_record(name)) != written.get(name):
                raise Unreadable(
                    f"its part {shown(name)} has changed since it was written: found a CRC-32 "
                    "other than the one of torch.save"
                )


@contextmanager
def _unreadable() -> Iterator[None]:
    try:
        yield
    except (Unreadable, DataError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:
        # Damage can surface anywhere in torch, as an exception of any class.
        raise Unreadable(f"not a whole file of torch.save ({type(error).__name__})") from error


def require_finite(path: Path, state: Mapping[str, torch.Tensor]) -> None:
    """Raise Unreadable if a tensor of the file is larger than the file, or has NaN or infinity."""
    for key, value in state.items():
        if value.nbytes > path.stat().st_size:  # a stride of 0 repeats a number
            raise Unreadable(f"{shown(key)}: found {value.nbytes} bytes, more than the file has")
        if value.is_floating_point() and not torch.isfinite(value.float()).all():
            raise Unreadable(f"{shown(key)}: found NaN or infinite numbers, expected finite ones")


def _zipped_pickle(path: Path) -> bytes:
    """The pickle, unpacked by torch itself: another zip reader may find other content."""
    reader: Any = torch._C.PyTorchFileReader(os.fspath(path))
    sizes = {name: reader.get_record_size(name) for name in reader.get_all_records()}
    if sum(sizes.values()) > path.stat().st_size:
        raise Unreadable(
            f"its parts have {sum(sizes.values())} bytes when unpacked, but the file has only "
            f"{path.stat().st_size}; torch.save packs nothing"
        )
    if sizes["data.pkl"] > LONGEST:
        raise Unreadable(f"found {sizes['data.pkl']} bytes of names; expected at most {LONGEST}")
    return reader.get_record("data.pkl")


def _require_known(pickle: Any) -> None:
    for number, (step, argument, place) in enumerate(pickletools.genops(pickle)):
        if number > MOST_STEPS or (place or 0) > LONGEST:
            raise Unreadable("found too many values; expected the tensors of one training")
        if step.name == "GLOBAL" and argument not in _KNOWN:
            name = shown(str(argument).replace(" ", "."))[1:-1]
            raise Unreadable(f"holds code, {name}, which was not run")
