"""Images that occur more than once: in two subsets, or with masks that contradict each other."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Protocol, TypeVar, get_args

from ..runtime.files import sha256, sha256_file
from ..settings.stages import Subset

SHOWN = 3
"""So many pairs are named; the others are counted."""
_PART = 4096


class _Row(Protocol):
    @property
    def image(self) -> str: ...
    @property
    def subset(self) -> str: ...
    @property
    def image_sha256(self) -> str: ...


Row = TypeVar("Row", bound=_Row)


def identical_files(root: Path, paths: Iterable[str]) -> list[list[str]]:
    """Return the groups of two or more files of the same bytes, in the order of `paths`.

    Files are compared by size first, then by 4 KiB of their middle, so few are read whole.
    """
    groups = [list(paths)]
    steps: Sequence[Callable[[Path], object]] = (_size, _middle, sha256_file)
    for step in steps:
        groups = [alike for group in groups for alike in _by(step, root, group) if len(alike) > 1]
    return groups


def _size(path: Path) -> int:
    return path.stat().st_size


def _middle(path: Path) -> str:
    with open(path, "rb") as file:
        file.seek(max(0, _size(path) - _PART) // 2)
        return sha256(file.read(_PART))


def _by(step: Callable[[Path], object], root: Path, paths: Sequence[str]) -> list[list[str]]:
    alike = defaultdict(list)
    for path in paths:
        alike[step(root / path)].append(path)
    return list(alike.values())


def copies(rows: Iterable[Row]) -> list[list[Row]]:
    """Return the groups of two or more rows whose images are identical."""
    alike = defaultdict(list)
    for row in rows:
        alike[row.image_sha256].append(row)
    return [group for group in alike.values() if len(group) > 1]


def across_subsets(pairs: Iterable[tuple[Row, Row]], what: str, advice: str) -> list[str]:
    """Return a warning for each two subsets that hold images of these pairs."""
    found = defaultdict(list)
    for pair in pairs:
        first, second = sorted(pair, key=lambda row: get_args(Subset).index(row.subset))
        if first.subset != second.subset:
            found[first.subset, second.subset].append(f"{second.image} and {first.image}")
    return [
        f"WARNING: {what} in {first} and {second}, {len(names)} pairs: "
        f"{', '.join(names[:SHOWN])}"
        + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
        + f". The result on {second} is too good then. Advice: {advice}"
        for (first, second), names in sorted(found.items())
    ]


def identical_across(rows: Iterable[Row]) -> list[str]:
    """Return warnings of identical images in two subsets."""
    pairs = [pair for group in copies(rows) for pair in combinations(group, 2)]
    return across_subsets(
        pairs, "identical images", "remove one of each, or move both into one subset"
    )
