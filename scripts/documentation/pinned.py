"""The packages that the environment's files pin."""

import re
from collections.abc import Iterable

from dst_cbc.runtime.errors import DataError

from .pages import REPOSITORY

PINNED = ("requirements-build.lock", "requirements.lock", "requirements-torch.txt")


def pins(names: Iterable[str] = PINNED) -> dict[str, str]:
    """Package -> version, in alphabetical order, of files in the repository's root.

    Raises DataError when a file is missing.
    """
    found: dict[str, str] = {}
    for name in names:
        path = REPOSITORY / name
        if not path.is_file():
            raise DataError(f"{path}: no such file; `git checkout {name}` brings it back")
        found |= re.findall(r"^([\w.-]+)==(\S+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return dict(sorted(found.items()))
