"""Paths and ids that come from files: they must stay in the folder that they are relative to."""

import functools
import re
import site
from pathlib import Path

from .errors import DataError
from .escape import shown


def make_folder(folder: Path) -> None:
    """Make a folder to write into, and those above it.

    Raises DataError where a symbolic link leads out of the first folder of a relative path, such as
    `results`. That folder itself may be a link, to another disk.
    """
    if folder.parts and folder.parts[0] not in ("/", ".."):
        _require_inside(folder, Path(folder.parts[0]))
    folder.mkdir(parents=True, exist_ok=True)


def package_folder(name: str) -> Path | None:
    """The folder of an installed Python package; None if there is none of that name.

    Nothing is imported, so no code runs. The current folder and PYTHONPATH are not searched.
    """
    if not name.isidentifier():
        return None
    user = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    found = (Path(packages, name) for packages in [*user, *site.getsitepackages()])
    return next((folder for folder in found if (folder / "__init__.py").is_file()), None)


def is_relative(name: str) -> bool:
    """Whether an id or a path, read from a file, stays in the folder that it is relative to.

    It must consist of names divided by `/`, none of them `.` or `..`, without backslashes, line
    breaks, NUL and characters that UTF-8 cannot write.
    """
    return _RELATIVE.fullmatch(name) is not None


_NAME = r"(?!\.{1,2}(?:/|\Z))[^/\\\x00\n\r\ud800-\udfff]+"


_RELATIVE = re.compile(f"{_NAME}(?:/{_NAME})*")


def require_relative(name: str, source: Path | str) -> str:
    """Return `name`, which was read from `source`. Raises DataError unless `is_relative`."""
    if is_relative(name):
        return name
    raise DataError(
        f"{source}: {shown(name)} cannot be an id or a path; expected a relative path without "
        "`..`, backslashes and line breaks, in UTF-8"
    )


def inside(folder: Path, name: str) -> Path:
    """The path `folder / name` of a file to write, where `name` comes from data.

    Raises DataError if `name` or a symbolic link would lead out of `folder`.
    """
    path = folder / require_relative(name, folder)
    _require_inside(path.parent, folder)
    return path


def _require_inside(folder: Path, root: Path) -> None:
    here = Path.cwd()
    found = _resolved(here / folder)
    if not found.is_relative_to(_resolved(here / root)):
        raise DataError(
            f"{folder}: nothing is written there, because a symbolic link leads out of {root}, to "
            f"{found}; remove the link, or make {root} itself the link"
        )


@functools.lru_cache(maxsize=64)
def _resolved(folder: Path) -> Path:
    # Cached, because thousands of files are written into a few folders.
    return folder.resolve()
