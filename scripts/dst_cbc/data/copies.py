"""Images that occur more than once, or nearly so: copies, and frames of one video."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePath
from typing import Any, Protocol, TypeVar, get_args

import numpy as np
from PIL import Image

from ..runtime.errors import first_of
from ..runtime.files import sha256
from ..settings.data import PairSettings
from ..settings.stages import Subset
from .groups import groups_of
from .images import Decoded
from .layouts.pairs import name_cuts
from .pages import sha256_of, split

SHOWN = 3
"""So many pairs are named; the others are counted."""
_PART = 4096
_GRID = 9
_LEAST_SLOPES = 16
_MOST_UNLIKE = 1 / 5
"""Share of differing slopes up to which images are alike. Frames that are shifted by 1.5 % of their
width differ in a fifth; the most alike of other photographs, of street scenes and of drawn scenes,
that were tried, in three tenths."""


class _Row(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def image(self) -> str: ...
    @property
    def subset(self) -> str: ...
    @property
    def image_sha256(self) -> str: ...


Row = TypeVar("Row", bound=_Row)


def identical_files(root: Path, paths: Iterable[str]) -> list[list[str]]:
    """Return the groups of two or more files of the same bytes, in the order of `paths`.

    Pages are identical if they have the same number in such files. Files are compared by size
    first, then by 4 KiB of their middle, so few are read whole.
    """
    groups = [list(paths)]
    steps: Sequence[Callable[[Path], object]] = (_page, _size, _middle, sha256_of)
    for step in steps:
        groups = [alike for group in groups for alike in _by(step, root, group) if len(alike) > 1]
    return groups


def _page(path: PurePath) -> int | None:
    return split(path)[1]


def _size(path: Path) -> int:
    return split(path)[0].stat().st_size


def _middle(path: Path) -> str:
    with open(split(path)[0], "rb") as file:
        file.seek(max(0, _size(path) - _PART) // 2)
        return sha256(file.read(_PART))


def _by(step: Callable[[Path], object], root: Path, paths: Sequence[str]) -> list[list[str]]:
    alike = defaultdict(list)
    for path in paths:
        alike[step(root / path)].append(path)
    return list(alike.values())


def content(row: Any, what: str = "image") -> tuple[str, int | None]:
    """What is equal for equal images, or for what="label" masks: SHA-256 of the file, and page."""
    return getattr(row, f"{what}_sha256"), _page(PurePath(getattr(row, what)))


def copies(rows: Iterable[Row]) -> list[list[Row]]:
    """Return the groups of two or more rows whose images are identical."""
    alike = defaultdict(list)
    for row in rows:
        alike[content(row)].append(row)
    return [group for group in alike.values() if len(group) > 1]


def across_subsets(pairs: Iterable[tuple[Row, Row]], what: str, advice: str) -> list[str]:
    """Return a warning for each two subsets that hold images of these pairs, the later one last."""
    found = defaultdict(list)
    for first, second in pairs:
        found[first.subset, second.subset].append(f"{second.image} and {first.image}")
    return [
        f"WARNING: {what} in {first} and {second}, {len(names)} of {second}: "
        f"{first_of(names, SHOWN)}. The result on {second} is too good then. Advice: {advice}"
        for (first, second), names in sorted(found.items())
    ]


def _precedes(first: _Row, second: _Row) -> bool:
    order = get_args(Subset)
    return order.index(first.subset) < order.index(second.subset)


def identical_across(rows: Iterable[Row]) -> list[str]:
    """Return warnings of identical images in two subsets."""
    pairs = []
    for group in copies(rows):
        # One copy of each subset stands for all: of thousands of plain images, pairs are millions.
        ones = {row.subset: row for row in reversed(group)}
        pairs += [(one, row) for row in group for one in ones.values() if _precedes(one, row)]
    return across_subsets(
        pairs, "identical images", "remove one of each, or move both into one subset"
    )


# --------------------------------------------------------------------------- nearly identical


def slopes(image: Decoded) -> np.ndarray | None:
    """Return a perceptual hash: whether a 9x9 thumbnail rises, falls or is level, int8 (128,).

    It is the difference hash (dHash) in both directions, with a third value for level ground; 64
    numbers are of steps to the right, 64 of steps down. None for images of a single tone.
    """
    if image.image is not None:
        plain = image.image if image.image.mode in ("L", "RGB") else image.image.convert("RGB")
    else:
        assert image.deep is not None
        grey = image.deep if image.deep.ndim == 2 else image.deep[..., 1]
        plain = Image.fromarray(grey.astype(np.float32))
    # Some pixels of each cell suffice, and take a fiftieth of the time.
    width, height = (min(side, _GRID * 32) for side in plain.size)
    some = plain.resize((width, height), Image.Resampling.NEAREST)
    small = some.resize((_GRID, _GRID), Image.Resampling.BOX)
    tones = np.asarray(small.convert("L") if small.mode == "RGB" else small, np.float32)
    spread = float(np.ptp(tones))
    if spread <= 1 + 0.01 * float(tones.max()):
        return None
    steps = np.stack([np.diff(tones[:-1], axis=1), np.diff(tones[:, :-1], axis=0)])
    level = np.abs(steps) <= spread / 64
    return np.where(level, 0, np.sign(steps)).astype(np.int8).ravel()


def alike_across(
    rows: Sequence[Row], hashes: Sequence[np.ndarray | None], pairs: PairSettings | None
) -> list[str]:
    """Return warnings of images in val or test that look like one of another subset.

    hashes: of the images, as `slopes` returns them. pairs: of `format: pairs`, to advise a group.
    """
    usable = [(row, one) for row, one in zip(rows, hashes, strict=True) if one is not None]
    found = []
    for held, others in (("val", ("train",)), ("test", ("train",)), ("test", ("val",))):
        near = [one for one in usable if one[0].subset == held]
        far = [one for one in usable if one[0].subset in others]
        found += [(far[j][0], near[i][0]) for i, j in _alike(near, far)]
    found = [(a, b) for a, b in found if content(a) != content(b)]
    advice = "keep all frames of a video in one subset; ignore this if only a border is alike"
    pattern = pairs and _parting([row.id for row in rows], [(a.id, b.id) for a, b in found])
    if pattern:
        advice += f". new_experiment.py --group '{pattern}' does, or the key pairs.group"
    return across_subsets(found, "images that look alike", advice)


def _alike(near: Sequence[tuple], far: Sequence[tuple]) -> list[tuple[int, int]]:
    """Return for each hash of `near` that is like one of `far` both places; the nearest counts."""
    if not near or not far:
        return []
    other = np.stack([one for _, one in far]).astype(np.float32)
    found = []
    for place, (_, one) in enumerate(near):
        # Slopes of either image, and those that agree; level ground in both says nothing.
        both = np.abs(other) @ np.abs(one).astype(np.float32)
        agreeing = (other @ one.astype(np.float32) + both) / 2
        either = np.abs(other).sum(1) + np.abs(one).sum() - both
        unlike = np.where(either < _LEAST_SLOPES, 1, 1 - agreeing / np.maximum(either, 1))
        if unlike.min() <= _MOST_UNLIKE:
            found.append((place, int(unlike.argmin())))
    return found


def _parting(ids: Sequence[str], pairs: Sequence[tuple[str, str]]) -> str | None:
    """Return the pattern of three groups or more that has most of these pairs in one group each."""
    best, most = None, len(pairs) / 2
    for pattern in name_cuts():
        groups = groups_of(ids, pattern)
        together = sum(groups[a] == groups[b] for a, b in pairs)
        if len({*groups.values()}) >= 3 and together > most:
            best, most = pattern, together
    return best
