"""Collects what is in annotation files, and what is wrong there, for the readers of all formats."""

import json
import os
import posixpath
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...runtime.errors import DataError
from ...runtime.escape import shown
from ...runtime.reading import explained, read_text
from .shapes import Annotated, Annotations, Shape

MOST_BYTES = 1 << 28
"""Largest size in bytes of an annotation file."""
MOST_PROBLEMS = 20
"""Most problems of one file that are listed."""
AGAIN = "export it again"
NO_AREA = "they cover no area"


class Collector:
    """What was found so far in the annotation files of a data set."""

    def __init__(self, files: Sequence[Path]):
        self._folder = os.path.commonpath([file.parent for file in files]) if files else ""
        self._images: dict[str, Annotated] = {}
        self._classes: dict[str, str | None] = {}
        self._problems: dict[Path, list[str]] = defaultdict(list)
        self._left_out: dict[str, Counter[str]] = defaultdict(Counter)
        self._notices: dict[str, None] = {}

    def image_name(self, file: Path, name: str) -> str:
        """Return the name of an image that a file gives, below the folder of all files.

        So files of two subfolders that name `a.jpg` mean two images. The name is only text.
        """
        folder = Path(os.path.relpath(file.parent, self._folder)).as_posix()
        return posixpath.normpath(posixpath.join(folder, name.replace("\\", "/")))

    def add(
        self, file: Path, image: str, size: tuple[int, int] | None, shapes: Sequence[Shape]
    ) -> None:
        """Add an image, once: a second one of its name becomes a problem."""
        before = self._images.setdefault(image, one := Annotated(file, image, size, shapes))
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
        if not isinstance(label, str) or not label.strip():
            raise DataError(f"the label {shown(label)}, expected the name of a class")
        if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in label):
            raise DataError(f"the label {shown(label)}, expected text without control characters")
        self._classes[label] = self._classes.get(label) or colour
        return label

    def problem(self, file: Path, what: str) -> None:
        """Note what is wrong in a file."""
        self._problems[file].append(f"{file}: {what}")

    @contextmanager
    def problems_of(self, file: Path, place: str = "") -> Iterator[None]:
        """Turn a DataError into a problem of a place in a file; "": its message names the file."""
        try:
            yield
        except DataError as error:
            self._problems[file].append(f"{file}: {place}: {error}" if place else str(error))

    def leave_out(self, kind: str, reason: str = NO_AREA) -> None:
        """Count something that is left out. kind: its name in the plural."""
        self._left_out[reason][kind] += 1

    def notice(self, sentence: str) -> None:
        """Note a sentence, once."""
        self._notices[sentence] = None

    def annotations(self) -> Annotations:
        """Return everything that was found."""
        problems = []
        for file, found in self._problems.items():
            problems += found[:MOST_PROBLEMS]
            if len(found) > MOST_PROBLEMS:
                problems.append(f"{file}: and {len(found) - MOST_PROBLEMS:,} more problems")
        notices = [
            "left out: "
            + ", ".join(f"{kind} ({number:,})" for kind, number in kinds.items())
            + f", because {reason}"
            for reason, kinds in self._left_out.items()
        ]
        return Annotations(
            list(self._images.values()), self._classes, problems, [*notices, *self._notices]
        )


def read_each(files: Sequence[Path], read_file: Callable[[Path, Collector], None]) -> Annotations:
    """Read files by a function that adds the content of one of them to a Collector."""
    found = Collector(files)
    for file in files:
        try:
            with found.problems_of(file):
                read_file(file, found)
        except OSError as error:
            found.problem(file, f"cannot be read ({error.strerror})")
    return found.annotations()


def load_json(file: Path) -> Any:
    """Return the content of a JSON file. Raises DataError if it is damaged or too large."""
    text = read_text(file, MOST_BYTES)
    with explained(file, "JSON", AGAIN):
        return json.loads(text)


def whole_size(width: Any, height: Any) -> tuple[int, int] | None:
    """Return the size of an image as a file gives it; None if it gives none.

    Raises DataError, without the name of a file, if it is no whole number of 1 or more.
    """
    if width is None and height is None:
        return None
    if isinstance(width, int) and isinstance(height, int) and min(width, height) > 0:
        return width, height
    raise DataError(
        f"an image of {shown(width)} x {shown(height)} pixels, expected whole numbers of 1 or more"
    )
