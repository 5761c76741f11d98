"""Damaged copies of valid files, and what every reader must return of them."""

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from dst_cbc.data.annotations.shapes import PEEK, AnnotationFormat, Annotations

VALUES = (
    None, True, -1, 0, 3, 0.5, 1 << 70, 10**400, 1e300, float("nan"), float("inf"), "", "x", "1",
    "../../x", "\ud800", "9" * 5000, [], {}, [[]], [[1], [2, 3]], [1, 2, 3], ["a"], {"a": 1},
)  # fmt: skip


@st.composite
def damaged(draw: Callable, content: Any) -> Any:
    """A tree of JSON with one to three of its values replaced, removed or exchanged."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(content))
        if not places:
            break
        around, key = places[draw(st.integers(0, len(places) - 1))]
        kind = draw(st.integers(0, 3))
        if kind == 0:
            del around[key]
        elif kind == 1:
            other, of_other = places[draw(st.integers(0, len(places) - 1))]
            around[key] = copy.deepcopy(other[of_other])
        else:
            around[key] = draw(st.sampled_from(VALUES))
    return content


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Each list or object with each index or key of it."""
    inner = content if isinstance(content, dict) else range(len(content))
    for key in inner:
        yield content, key
        if isinstance(content[key], dict | list):
            yield from _places(content[key])


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def read(format: AnnotationFormat, files: Sequence[Path]) -> Annotations:
    """Read, and assert what the contract says of every result."""
    for file in files:
        assert format.recognises(file, file.read_bytes()[:PEEK]) in (True, False)
    result = format.read(files)
    for image in result.images:
        image.image.encode()
        for shape in image.shapes:
            shape.label.encode()
            assert shape.polygons or shape.mask
            for ring in (ring for polygon in shape.polygons for ring in polygon):
                assert ring.dtype == np.float64 and ring.shape[1:] == (2,) and len(ring) >= 3
                assert np.isfinite(ring).all()
    assert len({image.image for image in result.images}) == len(result.images)
    assert all(any(line.startswith(f"{file}") for file in files) for line in result.problems)
    return result


def corners(rings: Sequence[np.ndarray]) -> list[list[list[float]]]:
    """The corners of rings, rounded, to compare them with numbers written by hand."""
    return [np.round(ring, 6).tolist() for ring in rings]


def rows(mask: np.ndarray) -> list[str]:
    """A mask, one text of 0 and 1 for each row."""
    return ["".join(map(str, row)) for row in mask.astype(int)]
