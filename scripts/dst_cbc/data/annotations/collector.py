"""Collects what is in annotation files, and what is wrong there, for the readers of all formats."""

import itertools
import json
import os
import posixpath
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeGuard

from ...runtime.errors import DataError
from ...runtime.escape import shown
from ...runtime.reading import explained, read_text
from .shapes import FARTHEST, Annotated, Annotations, Shape

MOST_BYTES = 1 << 28
"""Largest size in bytes of an annotation file that is no JSON."""
MOST_PROBLEMS = 20
"""Most problems of one file that are listed."""
MOST_PLACES = 3
"""Most places in a file that are named with a problem that they share."""
AGAIN = "export it again"
NO_AREA = "they cover no area"


class Collector:
    """What was found so far in the annotation files of a data set."""

    def __init__(self, files: Sequence[Path]):
        self._folder = os.path.commonpath([file.parent for file in files]) if files else ""
        self._images: dict[str, Annotated] = {}
        self._classes: dict[str, str | None] = {}
        # The places of each problem of a file; "" means the whole file.
        self._problems: dict[Path, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        self._left_out: dict[str, Counter[str]] = defaultdict(Counter)
        self._notices: dict[str, None] = {}

    def image_name(self, file: Path, name: str) -> str:
        """Return the name of an image that a file gives, below the folder of all files.

        So files of two subfolders that name `a.jpg` mean two images. The name is only text.
        """
        folder = Path(os.path.relpath(file.parent, self._folder)).as_posix()
        return posixpath.normpath(posixpath.join(folder, name.replace("\\", "/")))

    def add(
        self,
        file: Path,
        image: str,
        size: tuple[int, int] | None,
        shapes: Sequence[Shape],
        relative: bool = False,
    ) -> None:
        """Add an image, once: a second one of its name becomes a problem."""
        one = Annotated(file, image, size, shapes, relative)
        before = self._images.setdefault(image, one)
        if before is not one:
            self.problem(
                file,
                f"describes the image {shown(image)}, which {before.file} describes, too; keep "
                "one of the two",
            )

    def add_class(self, label: Any, colour: str | None = None) -> str:
        """Add the class of a label, with its colour '#rrggbb', and return the label.

        Raises DataError, without the name of a file, if it is no text that can be written.
        """
        if not is_name(label):
            raise DataError(
                f"the label {shown(label)}, expected the name of a class, without control "
                "characters"
            )
        self._classes[label] = self._classes.get(label) or colour
        return label

    def problem(self, file: Path, what: str, place: str = "") -> None:
        """Note what is wrong in a file, or at a place in it."""
        self._problems[file][what].append(place)

    def objects(
        self, file: Path, content: dict[str, Any], key: str
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield number, from 1, and content of each object of the list `content[key]`."""
        if not isinstance(listed := content.get(key), list):
            self.problem(file, f"`{key}` is {shown(listed)}, expected a list; {AGAIN}")
            return
        for number, one in enumerate(listed, 1):
            if isinstance(one, dict):
                yield number, one
            else:
                place = f"entry {number} of `{key}`"
                self.problem(file, f"found {shown(one)}, expected an object {{…}}", place)

    @contextmanager
    def problems_of(self, file: Path, place: str = "") -> Iterator[None]:
        """Turn a DataError into a problem of a place in a file; "": its message names the file."""
        try:
            yield
        except DataError as error:
            self.problem(file, str(error).removeprefix(f"{file}: "), place)

    def leave_out(self, kind: str, reason: str = NO_AREA) -> None:
        """Count something that is left out. kind: its name in the plural."""
        self._left_out[reason][kind] += 1

    def notice(self, sentence: str) -> None:
        """Note a sentence, once."""
        self._notices[sentence] = None

    def annotations(self) -> Annotations:
        """Return everything that was found."""
        problems = [line for file, found in self._problems.items() for line in _lines(file, found)]
        notices = [
            "left out: "
            + ", ".join(f"{kind} ({number:,})" for kind, number in kinds.items())
            + f", because {reason}"
            for reason, kinds in self._left_out.items()
        ]
        return Annotations(
            list(self._images.values()), self._classes, problems, [*notices, *self._notices]
        )


def _lines(file: Path, problems: dict[str, list[str]]) -> Iterator[str]:
    """Yield a line `file: places: what is wrong` for each problem."""
    for what, places in itertools.islice(problems.items(), MOST_PROBLEMS):
        named = ", ".join(dict.fromkeys(filter(None, places[:MOST_PLACES])))
        if named and len(places) > MOST_PLACES:
            named += f" and {len(places) - MOST_PLACES:,} more"
        yield ": ".join(filter(None, (str(file), named, what)))
    if len(problems) > MOST_PROBLEMS:
        yield f"{file}: and {len(problems) - MOST_PROBLEMS:,} more problems"


def collect(files: Sequence[Path], read_file: Callable[[Path, Collector], None]) -> Collector:
    """Read files by a function that adds the content of one of them to a Collector."""
    found = Collector(files)
    for file in files:
        try:
            with found.problems_of(file):
                read_file(file, found)
        except OSError as error:
            found.problem(file, f"cannot be read ({error.strerror})")
    return found


def read_each(files: Sequence[Path], read_file: Callable[[Path, Collector], None]) -> Annotations:
    """Return everything that `collect` finds."""
    return collect(files, read_file).annotations()


def is_name(value: Any) -> TypeGuard[str]:
    """Whether a value is text that can name a class or an image, without control characters."""
    return (
        isinstance(value, str)
        and bool(value.strip())
        and all(unicodedata.category(letter) not in ("Cc", "Cs") for letter in value)
    )


def load_json(file: Path) -> Any:
    """Return the content of a JSON file. Raises DataError if it is damaged or too large."""
    text = read_text(file)
    with explained(file, "JSON", AGAIN):
        return json.loads(text)


def whole_size(width: Any, height: Any) -> tuple[int, int] | None:
    """Return the size of an image as a file gives it; None if it gives none.

    Raises DataError, without the name of a file, if it is no whole number of 1 or more.
    """
    if width is None and height is None:
        return None
    if (
        isinstance(width, int)
        and isinstance(height, int)
        and min(width, height) > 0
        and max(width, height) <= FARTHEST
    ):
        return width, height
    raise DataError(
        f"an image of {shown(width)} x {shown(height)} pixels, expected whole numbers of 1 or more"
    )
