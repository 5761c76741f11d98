"""Inspects the user's folders: pairs of image and mask, kinds of files, sizes, mask values."""

import functools
import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from os.path import commonpath
from pathlib import Path, PurePosixPath

import numpy as np
from tqdm import tqdm

from ..data.account import SEVERAL, Account, account_of
from ..data.annotations.sources import known_formats
from ..data.copies import identical_files, slopes
from ..data.groups import groups_of
from ..data.images import DIED, Decoded, decode, decode_mask, size_of, size_problem
from ..data.layouts.layout import IMAGE_SUFFIXES, MASK_SUFFIXES, files_below, same_name
from ..data.layouts.listing import entries
from ..data.layouts.pairs import (
    images_below,
    masks_below,
    name_cuts,
    paired,
    several_masks,
    shared_name,
)
from ..data.masks import colours_of, numbers_of, palette_of
from ..data.pages import listed as pages_of
from ..data.pages import numbered, split
from ..runtime import pool
from ..runtime.errors import DataError, by_cause, first_of
from ..settings.base import Bands
from ..settings.data import PairSettings
from .class_list import ClassList
from .mask_shapes import measured
from .mask_values import MaskSeen, are_colours, listed_as_colours

LOOKED_AT = 200
"""At most this many images with a mask, and as many without, are decoded, evenly spread.

Of other pairs the headers are read; the data check decodes all."""

_WORDS = ("mask", "masks", "label", "labels", "seg", "segmentation", "gt", "annotation", "manual")
_IMAGE_WORDS = ("image", "img", "im", "raw")
# Names that programs and data sets give: nnU-Net, Cityscapes, OME-TIFF, masks named after a file.
_IMAGE_NAMES = ("{}_0000", "{}_leftImg8bit", "{}.ome")
_MASK_NAMES = (
    *(f"{{}}_gt{kind}_label{ids}" for kind in ("Fine", "Coarse") for ids in ("Ids", "TrainIds")),
    *(f"{{}}{form}" for suffix in IMAGE_SUFFIXES for form in (suffix, suffix.upper())),
)


@dataclass(frozen=True)
class Seen:
    """What one decoded pair holds.

    kind: of the image, such as `8-bit grey`. hash: of what it shows, as `copies.slopes` returns it.
    notes: clauses about the image, such as that a channel is not used.
    """

    size: tuple[int, int]
    kind: str
    mask: MaskSeen | None
    hash: np.ndarray | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inspection:
    """What the folders hold.

    pairs: (id, image, mask), paths below `root`; mask "" if there is none. pixels, images: mask
    value: number of pixels and of images that have it; the values are 0xrrggbb where `coloured`.
    palette: mask value: '#rrggbb', of indexed masks. sizes: (width, height) of the decoded images:
    their number. kinds, mask_kinds: such as `8-bit grey`: number of files. warnings: of what the
    files say about the meaning of the values. masks: all that were decoded. twins: ids of identical
    images, with or without masks. hashes: of what each decoded image shows, by id. notes: clause
    about an image: number of the decoded images of which it is true. bands: the channels that are
    used.
    """

    root: Path
    settings: PairSettings
    pairs: list[tuple[str, str, str]]
    pixels: Counter[int]
    images: Counter[int]
    coloured: bool
    palette: dict[int, str]
    sizes: Counter[tuple[int, int]]
    kinds: Counter[str]
    mask_kinds: Counter[str]
    warnings: Sequence[str] = ()
    masks: Sequence[MaskSeen] = ()
    twins: list[list[str]] = field(default_factory=list)
    hashes: dict[str, np.ndarray | None] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)
    bands: Bands | None = None

    @property
    def masked(self) -> list[str]:
        """Ids of the images that have a mask."""
        return [id for id, _, mask in self.pairs if mask]

    @property
    def decoded(self) -> int:
        """Number of the masks whose values were read."""
        return min(len(self.masked), LOOKED_AT)


def common_folder(images: Path, labels: Path) -> tuple[Path, PairSettings]:
    """Return the folder that contains both, and their paths in it; DataError if one is missing.

    labels: a folder of masks or annotations, or a file of annotations.
    """
    if not images.is_dir():
        raise DataError(f"{images}: no such folder")
    if not labels.exists():
        raise DataError(f"{labels}: no such folder, and no such file of annotations")
    whole = [path if path.is_absolute() else Path.cwd() / path for path in (images, labels)]
    whole = [path.resolve() for path in whole]
    root = Path(commonpath(whole))
    below = [path.relative_to(root).as_posix() for path in whole]
    shown = root.relative_to(Path.cwd()) if root.is_relative_to(Path.cwd()) else root
    return shown, PairSettings(images=below[0], labels=below[1])


def with_names(
    root: Path,
    settings: PairSettings,
    image_name: str | None = None,
    mask_name: str | None = None,
) -> PairSettings:
    """Return the settings with the name patterns that give the most pairs.

    image_name, mask_name: the pattern, if it is known, such as `{}_0000` or `{}_mask`. Raises
    DataError when there are no images, no masks, or no pairs.
    """
    images = dict(files_below(root, settings.images, IMAGE_SUFFIXES))
    masks = [id for id, _ in files_below(root, settings.labels, MASK_SUFFIXES)]
    for found, folder, kinds in (
        (images, settings.images, IMAGE_SUFFIXES),
        (masks, settings.labels, MASK_SUFFIXES),
    ):
        if not found:
            others = Counter(
                PurePosixPath(entry.path).suffix
                for entry in entries(root / folder)
                if entry.kind == "file"
            )
            raise DataError(
                f"{root / folder}: no file ends in {', '.join(kinds)}; found "
                + (_counted(others) or "nothing")
                + (_advice(others) if folder == settings.labels else "")
            )
    same = settings.images == settings.labels
    # Each pattern is in many pairs of patterns, so its names are searched once.
    pages = {id: len(pages_of(root, path)) for id, path in images.items()}
    stacks = {id: count for id, count in pages.items() if count > 1}
    image_names = functools.cache(lambda p: _named(images, p) | _page_names(stacks, p))
    mask_names = functools.cache(lambda pattern: _named(masks, pattern))

    def pairs(names: tuple[str, str]) -> int:
        return len(image_names(names[0]) & mask_names(names[1]))

    most = min(len(images), len(masks))
    patterns = _patterns(same, image_name, mask_name)
    whole = next((names for names in patterns if pairs(names) == most), None)
    best = whole or max(patterns, key=pairs)
    if not pairs(best):
        raise DataError(
            f"no image and mask have matching names; images: {_some(list(images))}; masks: "
            f"{_some(masks)}. Give each mask the name of its image, with or without an ending such "
            "as _mask, and the same subfolder; or say how they are named, `{}` for what is common: "
            "--image-name '{}_0000' --mask-name '{}_mask'"
        )
    return settings.model_copy(update={"image_name": best[0], "mask_name": best[1]})


def _advice(suffixes: Collection[str]) -> str:
    """Return what to do if there are only files with these endings where masks should be."""
    if {".jpg", ".jpeg"} & {*suffixes}:
        return ". JPEG changes the values of a mask: export masks as PNG"
    if {".json", ".geojson", ".xml", ".txt", ".roi", ".zip"} & {*suffixes}:
        return f". None of them holds annotations of {known_formats()}: export them again"
    return ""


def account(root: Path, settings: PairSettings) -> Account:
    """Account for every file below the folders, by names only.

    Raises DataError when images have several masks, such as x_mask and x_mask_1.
    """
    pairs = paired(root, settings)
    found = account_of(root, settings, [(image, mask) for _, image, mask in pairs])
    several = found.unused.get(SEVERAL, [])
    if several:
        raise DataError(several_masks(root, several))
    return found


def _patterns(same: bool, image_name: str | None, mask_name: str | None) -> list[tuple[str, str]]:
    """Return the (image, mask) name patterns to try, the simplest first.

    same: whether images and masks are in one folder. image_name, mask_name: if known.
    """

    def of(words: Sequence[str]) -> list[str]:
        spelled = [form for word in words for form in (word, word.capitalize(), word.upper())]
        return [
            pattern
            for word in spelled
            for mark in ("_", "-", " ", ".", "")
            for pattern in (f"{{}}{mark}{word}", f"{word}{mark}{{}}")
        ]

    images = [image_name] if image_name else ["{}", *of(_IMAGE_WORDS), *_IMAGE_NAMES]
    simple = [] if same else ["{}"]
    masks = [mask_name] if mask_name else [*simple, *of(_WORDS), *_MASK_NAMES]
    return list(itertools.product(images, masks))


def _page_names(stacks: Mapping[str, int], pattern: str) -> set[str]:
    """Return the names of the pages, which may have masks of their own.

    stacks: number of pages by id.
    """
    return {
        f"{name}/{numbered(page)}"
        for id, count in stacks.items()
        for name in _named([id], pattern)
        for page in range(1, count + 1)
    }


def _named(ids: Iterable[str], pattern: str) -> set[str]:
    return {same_name(name) for id in ids if (name := shared_name(id, pattern))}


def _some(ids: list[str]) -> str:
    return first_of([*map(repr, sorted(ids))], 5, "others")


def _counted(counter: Counter) -> str:
    return ", ".join(f"{count} of {key or 'no ending'}" for key, count in counter.most_common(5))


def inspect(
    root: Path,
    settings: PairSettings,
    processes: int = 1,
    listed: ClassList | None = None,
    bands: Bands | None = None,
    drawn: tuple[Path, list[tuple[str, str, str]]] | None = None,
) -> Inspection:
    """Decode some pairs and some images without a mask; of the other pairs read the headers.

    listed: decides whether the masks are read by number or by colour; if None, the masks decide.
    bands: the channels of the images that are used, as for `decode`. drawn: for masks that are
    drawn from annotations, their folder, and (id, image, mask) of all images. Raises DataError that
    names all bad files at once, and for masks that contradict each other.
    """
    mask_root, pairs = drawn or (root, paired(root, settings))
    if not any(mask for _, _, mask in pairs):
        images, masks = images_below(root, settings), masks_below(root, settings)
        raise DataError(
            f"{root}: no image has a mask; images: {_some([id for id, _ in images])}; masks: "
            f"{_some(list(masks))}"
        )
    masked = [pair for pair in pairs if pair[2]]
    without = [pair for pair in pairs if not pair[2]]
    decoded = _spread(masked)
    chosen = [*decoded, *_spread(without)]
    found = pool.results(
        partial(_look, root, mask_root, bands), chosen, processes, partial(_ended, root)
    )
    looked = list(tqdm(found, "images", len(chosen), unit="image", disable=None, leave=False))
    known = set(decoded)
    problems = [one for one in looked if isinstance(one, str)]
    problems += filter(
        None, (_mismatch(root, mask_root, pair) for pair in masked if pair not in known)
    )
    if problems:
        raise DataError(f"{len(problems)} files cannot be used:\n{by_cause(problems)}")
    seen = [one for one in looked if not isinstance(one, str)]
    masks = [one.mask for one in seen if one.mask]
    coloured, warnings = listed_as_colours(masks, listed) if listed else are_colours(masks)
    pixels, images = Counter(), Counter()
    if coloured:
        masks = [mask.by_colour() for mask in masks]
    for mask in masks:
        pixels.update(mask.pixels)
        images.update(mask.pixels.keys())
    return Inspection(
        root, settings, pairs, pixels, images, coloured,
        {} if coloured else {v: colour for mask in masks for v, colour in mask.palette.items()},
        Counter(one.size for one in seen),
        Counter(one.kind for one in seen),
        Counter(mask.kind for mask in masks),
        warnings,
        masks,
        _twins(root, mask_root, pairs, coloured),
        {id: one.hash for (id, _, _), one in zip(chosen, seen, strict=True)},
        Counter(note for one in seen for note in one.notes),
        bands,
    )  # fmt: skip


def _twins(
    root: Path, mask_root: Path, pairs: Sequence[tuple[str, str, str]], coloured: bool
) -> list[list[str]]:
    """Return the ids of identical images. Raises DataError if their masks contradict each other.

    coloured: whether the masks are read by colour.
    """
    ids = {image: id for id, image, _ in pairs}
    masks = {image: mask_root / mask for _, image, mask in pairs if mask}
    groups = identical_files(root, ids)
    problems = []
    for images in groups:
        first, *others = [image for image in images if image in masks] or [""]
        for other in others:
            if not np.array_equal(_values(masks[first], coloured), _values(masks[other], coloured)):
                said = f"{masks[other]} contradicts {masks[first]}: their images"
                if mask_root != root:
                    # Drawn masks are no files of the user.
                    said = "annotations contradict each other: the images"
                both = f"such as {first} and {other}"
                problems.append(f"{said} are identical, {both}; keep one of the two")
    if problems:
        raise DataError("\n".join(problems))
    return [[ids[image] for image in images] for images in groups]


def _values(path: Path, coloured: bool) -> np.ndarray:
    mask = decode_mask(path)
    numbers = None if coloured and mask.image is not None else numbers_of(mask)
    return colours_of(mask) if numbers is None else numbers


def _spread(pairs: Sequence[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    count = min(len(pairs), LOOKED_AT)
    return [pairs[place * len(pairs) // count] for place in range(count)]


def _mismatch(root: Path, mask_root: Path, pair: tuple[str, str, str]) -> str:
    """Return how the headers of an image and its mask contradict each other; "" if they do not."""
    file = mask_root / pair[2]
    try:
        image, mask = size_of(root / pair[1]), size_of(file, mask=True)
    except DataError as error:
        return str(error)
    return "" if image == mask else f"{file}: size {mask}, but its image has {image}"


def _ended(root: Path, pair: tuple[str, str, str]) -> str:
    return f"{' or '.join(str(root / file) for file in pair[1:] if file)}: {DIED}"


def _look(
    root: Path, mask_root: Path, bands: Bands | None, pair: tuple[str, str, str]
) -> Seen | str:
    """Decode one image and its mask; return what they hold, or what is wrong with them."""
    _, image_path, mask_path = pair
    try:
        image = decode(root / image_path, bands=bands)
        notes = tuple(image.notes)
        if not mask_path:
            return Seen(image.size, _kind(image), None, slopes(image), notes)
        mask = decode_mask(mask_root / mask_path)
        if wrong := size_problem(mask_root / mask_path, mask.size, image):
            return wrong
        numbers = numbers_of(mask)
        if numbers is None and mask.deep is not None:
            return f"{mask_root / mask_path}: a mask of 16-bit colours; expected 8 bits a channel"
    except DataError as error:
        return str(error)
    values = colours_of(mask) if numbers is None else numbers
    found, counts = np.unique(values, return_counts=True)
    pixels = dict(zip(found.tolist(), counts.tolist(), strict=True))
    file, kind = str(mask_root / mask_path), _kind(mask)
    coloured = numbers is None
    shapes = measured(values, coloured)
    seen = MaskSeen(file, kind, pixels, coloured, palette_of(mask), shapes)
    return Seen(image.size, _kind(image), seen, slopes(image), notes)


def _kind(image: Decoded) -> str:
    if image.deep is not None:
        return "16-bit RGB" if image.deep.ndim == 3 else "16-bit grey"
    assert image.image is not None
    return {
        "1": "black and white", "L": "8-bit grey", "LA": "8-bit grey", "P": "palette",
        "PA": "palette",
    }.get(image.image.mode, "8-bit RGB")  # fmt: skip


# --------------------------------------------------------------------------- groups


ROBOFLOW_COPIES = r"^(.+)\.rf\."
"""Pattern of groups: augmented copies of one image, `a_jpg.rf.1f` and `a_jpg.rf.2b`, are one."""
_ROBOFLOW_FOLDERS = {"train", "valid", "test"}
PAGE_GROUPS = (r"^(.+)/\d+$", r"^(.+/\d+)\d$")
"""Patterns of groups for the pages of stacks: a stack, or ten neighbouring pages."""


def guess_group(
    ids: Sequence[str], masked: Collection[str], stacks: Mapping[str, str] | None = None
) -> str | None:
    """Guess the pattern of groups: the shortest beginning of the names that gives three or more.

    stacks: of `stacks_of`. Names are cut at `/`, `_`, `-` and spaces: `scene1_0001` is in the group
    `scene1`. No stack is cut; of under three stacks with masks, neighbouring pages are groups.
    Copies that Roboflow made of one image are always in one group; its folders are none. Returns
    None where no cut gives three groups with masks, or the groups have under two images on average:
    then the names only number the images.
    """
    pattern = _shortest_beginning(ids, masked, stacks or {})
    originals = groups_of(ids, ROBOFLOW_COPIES)
    if len({*originals.values()}) == len(ids):
        return pattern
    groups = groups_of(ids, pattern)
    parted = len({(originals[id], groups[id]) for id in ids}) > len({*originals.values()})
    return ROBOFLOW_COPIES if parted or {*groups.values()} <= _ROBOFLOW_FOLDERS else pattern


def _shortest_beginning(
    ids: Sequence[str], masked: Collection[str], stacks: Mapping[str, str]
) -> str | None:
    for pattern in name_cuts()[:-1]:
        group = groups_of(ids, pattern)
        groups = Counter(group.values())
        with_masks = {group[id] for id in masked}
        if len(with_masks) >= 3:
            whole = len({(stack, group[id]) for id, stack in stacks.items()})
            if 2 * len(groups) <= len(ids) and whole == len({*stacks.values()}):
                return pattern
            break
    for pattern in PAGE_GROUPS if stacks else ():
        group = groups_of(ids, pattern)
        if len({group[id] for id in masked}) >= 3:
            return pattern
    return None


def stacks_of(pairs: Iterable[tuple[str, str, str]]) -> dict[str, str]:
    """Return the file of each image that is a page, by id."""
    files = {id: split(PurePosixPath(image)) for id, image, _ in pairs}
    return {id: str(file) for id, (file, page) in files.items() if page is not None}
