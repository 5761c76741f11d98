"""What becomes of each file below the folders of images and masks: used, or why not."""

import difflib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import get_args

from ..runtime.errors import first_of
from ..settings.data import DatasetStage, PairSettings
from ..settings.stages import Subset
from .layouts import LAYOUTS
from .layouts.layout import IMAGE_SUFFIXES, MASK_SUFFIXES, Record, same_name
from .layouts.listing import Kind, entries
from .layouts.pairs import continued, in_one_folder, shared_name
from .pages import file_of, listed, numbered, split

NAMED = 3
"""So many files of each cause are named; the others are counted."""

_PICTURES = (
    ".heic", ".heif", ".avif", ".gif", ".jp2", ".j2k", ".jpx", ".jxl", ".svg", ".psd", ".dng",
    ".cr2", ".cr3", ".nef", ".arw", ".raw", ".exr", ".hdr", ".ppm", ".pgm", ".tga", ".pdf", ".eps",
    ".npy", ".npz", ".dcm", ".nii", ".nrrd", ".mha", ".czi", ".nd2", ".lif", ".svs", ".ndpi",
    ".mp4", ".avi", ".mov", ".mkv", ".zip",
)  # fmt: skip
_LOSSY = (".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class Cause:
    """Why files are not used, as said after `3 files, `. expected: whether nobody need act."""

    what: str
    advice: str = ""
    expected: bool = False


LEFT_BEHIND = Cause("hidden, or left by the system or another program", expected=True)
OTHER = Cause("neither images nor masks, by their endings", expected=True)
ANNOTATIONS = Cause(
    "annotations in text form",
    "to use them instead of masks, give them alone: --labels FILE_OR_FOLDER",
    expected=True,
)
BESIDE = Cause(
    "in text form, but not among the annotations that are used",
    "export damaged ones again, and move others elsewhere",
)
OUTSIDE = Cause("in text form, and outside of the annotations that are given", expected=True)
UNREAD = Cause(
    f"of types that are not read (read are {', '.join(IMAGE_SUFFIXES)})",
    "convert masks to PNG, and images to PNG or JPEG",
)
LOSSY = Cause(
    "masks as JPEG or WebP, which change the values of a mask",
    "export them as PNG; an image without another mask counts as unlabeled",
)
CASE = Cause(
    "masks whose names differ from their images' in upper and lower case",
    "rename them; an image without another mask counts as unlabeled",
)
ORPHAN = Cause(
    "masks that match no image",
    "give each the name of its image; an image without another mask counts as unlabeled",
)
SEVERAL = Cause("further masks of an image", "join the masks of one image, or remove some")
OF_UNUSED = Cause("masks of images that are not used", expected=True)
AGAIN = Cause("listed already, under another path to the same file or folder", expected=True)
_BY_KIND = {
    "left behind": LEFT_BEHIND,
    "nowhere": Cause("links to nothing", "repair or remove them"),
    "again": AGAIN,
    "closed": Cause("folders that may not be read", "get the permission to read them"),
    "special": Cause("sockets, pipes or devices", expected=True),
}


@dataclass(frozen=True)
class Account:
    """Every file below the folders. unused: paths below the data set's folder, by cause.

    images, masks: the numbers of files that are used. pages: the numbers of images and of masks in
    them, which are more if there are stacks. likely: for some masks that match no image, the name
    that may be meant. annotations: the number of annotation files that are used instead of masks.
    """

    folders: PairSettings
    images: int
    masks: int
    pages: tuple[int, int]
    unused: dict[Cause, list[str]]
    likely: dict[str, str]
    annotations: int = 0

    @property
    def total(self) -> int:
        used = self.images + self.masks + self.annotations
        return used + sum(map(len, self.unused.values()))

    def lines(self) -> list[str]:
        """Return the paragraph that says what is used, and what is not; warnings come last."""
        folders = " and ".join(dict.fromkeys((self.folders.images, self.folders.labels)))
        files = f"{self.annotations} annotation file{'s' if self.annotations > 1 else ''}"
        used = f"{self._used('images')} and {files if self.annotations else self._used('masks')}"
        start = f"what is used, and what is not, of {self.total} files below {folders}: {used}"
        if not self.unused:
            return [f"{start}, all are used"]
        causes = sorted(self.unused, key=lambda cause: not cause.expected)
        return [f"{start} are used", *map(self._line, causes)]

    def _used(self, what: str) -> str:
        files, count = getattr(self, what), self.pages[what == "masks"]
        inside = "" if count == files else f" in {files} file{'s' if files > 1 else ''}"
        return f"{count} {what}{inside}"

    def _line(self, cause: Cause) -> str:
        paths = self.unused[cause]
        names = [
            f"{path} (of {self.likely[path]}?)" if path in self.likely else path for path in paths
        ]
        advice = f". Advice: {cause.advice}" if cause.advice else ""
        start = "not used" if cause.expected else "WARNING: not used"
        files = "1 file" if len(paths) == 1 else f"{len(paths)} files"
        return f"{start}: {files}, {cause.what}: {first_of(names, NAMED)}{advice}"


def account(root: Path, dataset: DatasetStage, records: Iterable[Record]) -> Account | None:
    """Account for every file of a data set; None for formats whose lists name their files."""
    layout = LAYOUTS[dataset.format]
    folders = layout.folders(dataset)
    if folders is None:
        return None
    parts = get_args(Subset) if dataset.format == "folder" else ()
    used = [(record.image, record.label) for record in records]
    left_out = layout.left_out
    if dataset.subsets and dataset.subsets.none:
        # The layout `pairs` holds nothing out then.
        others = f", or {left_out}" if dataset.format == "folder" else ""
        left_out = f"left out by `subsets.none`{others}"
    return account_of(root, folders, used, left_out, parts)


def account_of(
    root: Path,
    folders: PairSettings,
    used: Collection[tuple[str, str]],
    left_out: str = "",
    parts: Sequence[str] = (),
    annotations: Collection[str] = (),
) -> Account:
    """Account for every file below the folders of images and masks; it reads names only.

    used: paths of the image, and of its mask or "". left_out: says which other images there can be.
    parts: subfolders that the layout lists by themselves. annotations: paths of annotation files
    that are used instead of masks.
    """
    image_pages, mask_pages = {image for image, _ in used}, {mask for _, mask in used if mask}
    images, masks = {*map(file_of, image_pages)}, {*map(file_of, mask_pages)}
    names = _Names(root, folders, used)
    unused: dict[Cause, list[str]] = defaultdict(list)
    unmatched = []
    for path, (kind, is_mask) in sorted(_lying(root, folders, parts).items()):
        if path in images or path in masks or path in annotations:
            continue
        suffix = os.path.splitext(path)[1].lower()
        if kind != "file":
            unused[_BY_KIND[kind]].append(path)
        elif suffix in (".json", ".xml"):
            is_below = PurePosixPath(path).is_relative_to(folders.labels)
            cause = BESIDE if is_below else OUTSIDE
            unused[cause if annotations else ANNOTATIONS].append(path)
        elif suffix in _PICTURES:
            unused[UNREAD].append(path)
        elif is_mask and suffix in MASK_SUFFIXES:
            unmatched.append(path)
        elif is_mask and suffix in _LOSSY:
            unused[LOSSY].append(path)
        elif suffix in IMAGE_SUFFIXES:
            unused[Cause(f"images {left_out}", expected=True)].append(path)
            names.leave_out(path)
        else:
            unused[OTHER].append(path)
    for path, cause in names.causes(unmatched).items():
        unused[cause].append(path)
    likely = names.likely(unused.get(ORPHAN, [])[:NAMED])
    pages = (len(image_pages), len(mask_pages))
    counts = (len(images), len(masks), pages)
    return Account(folders, *counts, dict(unused), likely, len({*annotations}))


def _lying(root: Path, folders: PairSettings, parts: Sequence[str]) -> dict[str, tuple[Kind, bool]]:
    """Return each file below the folders: what it is, and whether its name is that of a mask."""
    lying: dict[str, tuple[Kind, bool]] = {}
    for folder, other in ((folders.images, folders.labels), (folders.labels, folders.images)):
        for part in ("", *parts):
            below = PurePosixPath(folder, part)
            inside = {
                str(below / entry.path): entry
                for entry in entries(root / below, root / other, everything=True)
            }
            if part:
                lying = {p: v for p, v in lying.items() if not p.startswith(f"{below}/")}
                lying.pop(str(below), None)
            for path, entry in inside.items():
                lying[path] = (entry.kind, _is_mask(path, folder, folders))
        if in_one_folder(folders):
            break
    return lying


def _is_mask(path: str, folder: str, folders: PairSettings) -> bool:
    if not in_one_folder(folders):
        return folder == folders.labels
    id = _below(path, folder).casefold()
    return shared_name(id, folders.mask_name.casefold()) is not None


def _below(path: str, folder: str) -> str:
    """Return the path below the folder, without its suffix."""
    return os.path.splitext(PurePosixPath(path).relative_to(folder).as_posix())[0]


class _Names:
    """The names of the images, to say why a mask matches none of those that are used."""

    def __init__(self, root: Path, folders: PairSettings, used: Collection[tuple[str, str]]):
        self._root, self._folders = root, folders
        self._masks: dict[str, str] = {}
        self._others: set[str] = set()
        for image, mask in used:
            for name in self._names(image):
                self._masks[name] = self._masks.get(name) or (mask and file_of(mask))
        # Of a stack, some pages may not be used.
        for stack in {file_of(image) for image, _ in used} - {image for image, _ in used}:
            self.leave_out(stack)
        self._folded = {name.casefold() for name in self._masks}
        self._stems = {_below(mask, folders.labels) for mask in self._masks.values() if mask}

    def _names(self, image: str) -> list[str]:
        """The name of an image; of a page, the names of its stack and its own."""
        file, page = split(PurePosixPath(image))
        id = _below(file.as_posix(), self._folders.images)
        name = same_name(shared_name(id, self._folders.image_name) or id)
        return [name] if page is None else [name, f"{name}/{numbered(page)}"]

    def leave_out(self, image: str) -> None:
        """Note that an image, or each page of a stack, is not used; those in use do not count."""
        for page in listed(self._root, image):
            self._others.update(self._names(page))

    def causes(self, masks: Sequence[str]) -> dict[str, Cause]:
        """Return why each of these masks is not used."""
        ids = {mask: _below(mask, self._folders.labels) for mask in masks}
        # Of x_1 and x_2, both are masks of the image x; x_1 alone is rather a typing error.
        begun = {mask: continued(self._shared(id), self._masks) or "" for mask, id in ids.items()}
        several = {image for image, times in Counter(begun.values()).items() if image and times > 1}
        several |= {image for image, mask in self._masks.items() if mask}
        used = {os.path.realpath(self._root / mask) for mask in self._masks.values() if mask}
        causes = {}
        for mask, id in ids.items():
            name = self._shared(id)
            folded = shared_name(id.casefold(), self._folders.mask_name.casefold())
            if os.path.realpath(self._root / mask) in used:
                causes[mask] = AGAIN
            elif name in self._others and name not in self._masks:
                causes[mask] = OF_UNUSED
            elif {name, begun[mask]} & several or continued(id, self._stems):
                causes[mask] = SEVERAL
            elif same_name(folded or "") in self._folded:
                causes[mask] = CASE
            else:
                causes[mask] = ORPHAN
        return causes

    def _shared(self, id: str) -> str:
        """Return the name that a mask shares with its image; its id if the pattern is another."""
        return same_name(shared_name(id, self._folders.mask_name) or id)

    def likely(self, masks: Iterable[str]) -> dict[str, str]:
        """Return for each mask the most similar name of an image without a mask, if any."""
        # Most alike are names that differ in case, or in zeros before a number.
        free = {_plain(name): name for name, mask in self._masks.items() if not mask}
        likely = {}
        for mask in masks:
            name = _plain(self._shared(_below(mask, self._folders.labels)))
            begun = continued(name, free)
            for near in [begun] if begun else difflib.get_close_matches(name, free, 1):
                likely[mask] = free[near]
        return likely


def _plain(name: str) -> str:
    return re.sub(r"0+(?=\d)", "", name.casefold())
