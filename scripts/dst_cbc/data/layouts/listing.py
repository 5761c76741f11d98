"""What lies below a folder: files, links, and what systems and programs leave behind there."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_LEFT_BEHIND = frozenset({
    "@eadir", "#recycle", "#snapshot", "@recycle", "$recycle.bin", "__macosx", "__pycache__",
    "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "lost+found", "system volume information",
})  # fmt: skip

Kind = Literal["file", "left behind", "nowhere", "again", "closed", "special"]
"""`file`: an ordinary file, or a link to one. `left behind`: hidden, or of a name that systems use.
`nowhere`: a link to nothing. `again`: a link to a folder that is listed elsewhere, or that contains
the listed one. `closed`: a folder without permission to read. `special`: a socket, pipe or device.
"""


@dataclass(frozen=True, order=True)
class Entry:
    """A path below the listed folder, with `/`, and what it is."""

    path: str
    kind: Kind


def is_left_behind(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or made by a system and not by a person."""
    return name.startswith(".") or name.casefold() in _LEFT_BEHIND


def entries(folder: Path, apart: Path | None = None, everything: bool = False) -> list[Entry]:
    """List all files below a folder, sorted; links to folders are followed, each folder once.

    apart: a folder that is listed by itself; it and links into it are left out. everything: also
    list what is left behind, file by file. Empty if there is no such folder.
    """
    return sorted(_Walk(folder, apart, everything).entries()) if folder.is_dir() else []


class _Walk:
    """One search. A link is followed last, so that a folder is listed where it really lies."""

    def __init__(self, folder: Path, apart: Path | None, everything: bool):
        self._top, self._everything = folder, everything
        real = Path(os.path.realpath(folder))
        self._seen = {_identity(parent) for parent in real.parents}
        self._apart = Path(os.path.realpath(apart)) if apart else None
        if self._apart and real.is_relative_to(self._apart):
            # Here, all would be left out.
            self._apart = None

    def entries(self) -> Iterator[Entry]:
        folders, links = [""], []
        while folders or links:
            if folders:
                path = folders.pop()
            else:
                links.sort(reverse=True)
                path = links.pop()
                if self._is_apart(path) or _identity(self._top / path) in self._seen:
                    yield Entry(path, "again")
                    continue
            if _identity(self._top / path) in self._seen or self._is_apart(path):
                continue
            self._seen.add(_identity(self._top / path))
            yield from self._inside(path, folders, links)

    def _inside(self, path: str, folders: list[str], links: list[str]) -> Iterator[Entry]:
        """Yield the files in one folder; add its subfolders and its links to folders."""
        try:
            with os.scandir(self._top / path) as found:
                inside = list(found)
        except PermissionError:
            yield Entry(path or ".", "closed")
            return
        for one in inside:
            name = f"{path}/{one.name}" if path else one.name
            if is_left_behind(one.name):
                if self._everything:
                    yield from _all_below(self._top, name)
            elif one.is_dir(follow_symlinks=False):
                folders.append(name)
            elif os.path.isdir(one.path):
                links.append(name)
            elif os.path.isfile(one.path):
                yield Entry(name, "file")
            else:
                yield Entry(name, "nowhere" if one.is_symlink() else "special")

    def _is_apart(self, path: str) -> bool:
        real = Path(os.path.realpath(self._top / path))
        return self._apart is not None and real.is_relative_to(self._apart)


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _all_below(top: Path, name: str) -> Iterator[Entry]:
    """Yield each file of a folder that is left behind, or the file itself; follow no link."""
    if not os.path.isdir(top / name) or os.path.islink(top / name):
        yield Entry(name, "left behind")
        return
    for folder, folders, files in os.walk(top / name):
        inside = Path(folder).relative_to(top)
        linked = [one for one in folders if os.path.islink(os.path.join(folder, one))]
        for one in (*files, *linked):
            yield Entry((inside / one).as_posix(), "left behind")
