"""What is wrong in one annotation file, in few lines, and its JSON of any form."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

from ...runtime.escape import shown
from ...runtime.reading import explained, read_text

MOST_NAMED = 3
"""Most places that are named with a cause that they share."""
MOST_CAUSES = 20
"""Most causes of one file that are listed."""


class Faults:
    """Collects what is wrong in `file`: one line for each cause, with its first places."""

    def __init__(self, file: Path):
        self.file = file
        self._places: dict[str, list[str]] = {}

    def add(self, cause: str, place: str = "") -> None:
        """Add a fault. place: such as "annotation 3 ('cell')"; "" means the whole file."""
        self._places.setdefault(cause, []).append(place)

    def lines(self) -> list[str]:
        """Return lines `file: places: cause`."""
        lines = []
        for cause, places in itertools.islice(self._places.items(), MOST_CAUSES):
            named = ", ".join(dict.fromkeys(filter(None, places[:MOST_NAMED])))
            if len(places) > MOST_NAMED and named:
                named += f" and {len(places) - MOST_NAMED:,} more"
            lines.append(": ".join(filter(None, (str(self.file), named, cause))))
        if len(self._places) > MOST_CAUSES:
            lines.append(f"{self.file}: and {len(self._places) - MOST_CAUSES:,} more problems")
        return lines

    def objects(self, content: dict[str, Any], key: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield number, from 1, and content of each object of the list `content[key]`."""
        if not isinstance(found := content.get(key), list):
            self.add(f"`{key}` is {shown(found)}, expected a list; export the annotations again")
            return
        for number, one in enumerate(found, 1):
            if isinstance(one, dict):
                yield number, one
            else:
                self.add(
                    f"found {shown(one)}, expected an object {{…}}", f"entry {number} of `{key}`"
                )


def load_json(file: Path) -> Any:
    """Content of a JSON file, of any type; it may hold NaN. Raises DataError and OSError."""
    text = read_text(file)
    with explained(file, "JSON", "export the annotations again"):
        return json.loads(text)


def is_name(value: Any) -> TypeGuard[str]:
    """Whether a value of a file can be the name of a class or of an image."""
    # JSON can hold halves of characters, which no file can.
    half = re.compile("[\ud800-\udfff]")
    return isinstance(value, str) and bool(value.strip()) and not half.search(value)


def size_of(width: Any, height: Any) -> tuple[int, int] | None:
    """Size of an image, in pixels, as a file gives it; None if these are no whole numbers."""
    whole = [
        int(one)
        for one in (width, height)
        if isinstance(one, int | float) and 0 < one < 1 << 31 and one == int(one)
    ]
    return (whole[0], whole[1]) if len(whole) == 2 else None
