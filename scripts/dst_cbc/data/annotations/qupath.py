"""Reads the GeoJSON that QuPath exports: one file for each image, which has the image's name.

- The label is the class of an object, in QuPath's words its classification; a derived class is
  `Tumor: Positive`. An object without a class is left out, as in QuPath's own export of masks: its
  `name` is the name of one object, not of a class.
- QuPath's classes that end in `*`, such as `Ignore*`, mean no class; a `Region*` is only a frame
  around what is labeled, and is left out.
- Of a cell, its outline is drawn; its nucleus is left out.
- Coordinates are pixels of the whole image. No property of an object names an image.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...runtime.errors import DataError
from ...runtime.escape import shown
from .collector import Collector, load_json, read_each
from .shapes import AnnotationFormat, Annotations, Polygon, Shape, ring

REGION = "Region*"
_FEATURE = re.compile(rb'"type"\s*:\s*"Feature(Collection)?"')
_NO_AREA = {
    "Point": "points",
    "MultiPoint": "points",
    "LineString": "lines",
    "MultiLineString": "lines",
}
_NO_CLASS = "they have no class"
# The second names are those of QuPath 0.2.
_CORES = ("tmaCore", "tma_core", "TMACoreObject")
_ROOTS = ("root", "PathRootObject")


def _recognises(file: Path, start: bytes) -> bool:
    begins = start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"["))
    return begins and bool(_FEATURE.search(start))


def _read(files: Sequence[Path]) -> Annotations:
    found = read_each(files, _read_file)
    shapes = any(one.shapes for one in found.images)
    if not shapes and any(notice.endswith(_NO_CLASS) for notice in found.notices):
        what = "no object has a class; give the objects classes in QuPath, and export them again"
        return replace(found, problems=[*found.problems, f"{files[0]}: {what}"])
    return found


def _read_file(file: Path, found: Collector) -> None:
    shapes: list[Shape] = []
    objects = list(_objects(file, load_json(file)))
    for number, one in enumerate(objects, 1):
        properties = one.get("properties") if isinstance(one, dict) else None
        named = one
        if isinstance(properties, dict):
            named = _classification(properties.get("classification"))[0]
        with found.problems_of(file, f"object {number} ({shown(named)})"):
            if not isinstance(one, dict) or not isinstance(properties, dict | None):
                raise DataError("found no GeoJSON feature with properties")
            children = (properties or {}).get("childObjects")
            objects += children if isinstance(children, list) else []
            shapes += _shapes(one, properties or {}, found)
    found.add(file, found.image_name(file, file.stem), None, shapes)


def _objects(file: Path, content: Any) -> list:
    if isinstance(content, dict) and "crs" in content:
        raise DataError(
            f"{file}: coordinates on the Earth (`crs`), expected pixels of an image; make masks of "
            "them, such as by gdal_rasterize"
        )
    if isinstance(content, dict) and content.get("type") == "Feature":
        return [content]
    found = content.get("features") if isinstance(content, dict) else content
    if not isinstance(found, list):
        raise DataError(f"{file}: no list `features`; expected GeoJSON as QuPath exports it")
    return found


def _shapes(one: dict, properties: dict, found: Collector) -> list[Shape]:
    """Return the shape of an object; none if it is left out."""
    kind = properties.get("objectType", one.get("id"))
    if kind in _ROOTS:
        return []
    if kind in _CORES:
        found.leave_out("cores", "a core of a tissue microarray is no object of a class")
        return []
    if one.get("nucleusGeometry") is not None:
        found.leave_out("nuclei", "their cells are drawn whole")
    polygons = _polygons(one.get("geometry"), found)
    label, colour = _classification(properties.get("classification"))
    if not polygons:
        return []
    if label is None:
        found.leave_out("objects", _NO_CLASS)
        return []
    if label == REGION:
        found.leave_out("objects", f"{REGION} is a frame around what is labeled")
        return []
    if isinstance(label, str) and label.endswith("*"):
        return [Shape(label, polygons, ignored=True)]
    return [Shape(found.add_class(label, colour), polygons)]


def _polygons(geometry: Any, found: Collector) -> list[Polygon]:
    """Return the areas of a GeoJSON geometry; none for points and lines."""
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if not isinstance(kind, str):
        raise DataError(f"the geometry {shown(geometry)}, expected one of GeoJSON")
    plane = geometry.get("plane")
    if isinstance(plane, dict) and any(plane.get(axis, 0) != 0 for axis in ("z", "t")):
        raise DataError(
            f"the plane {shown(plane)} of a stack, expected an image of one plane; write the plane "
            "to an image of its own, and export its objects there"
        )
    if kind in _NO_AREA:
        found.leave_out(_NO_AREA[kind])
        return []
    if kind == "GeometryCollection":
        parts = geometry.get("geometries")
        if not isinstance(parts, list) or any(_is_collection(part) for part in parts):
            raise DataError("a GeometryCollection without a list of other geometries")
        return [area for part in parts for area in _polygons(part, found)]
    coordinates = geometry.get("coordinates")
    if kind == "Polygon":
        return [_polygon(coordinates)]
    if kind == "MultiPolygon" and isinstance(coordinates, list):
        return [_polygon(rings) for rings in coordinates]
    raise DataError(f"the geometry {shown(kind)}, expected a Polygon or a MultiPolygon")


def _is_collection(geometry: Any) -> bool:
    return isinstance(geometry, dict) and geometry.get("type") == "GeometryCollection"


def _polygon(rings: Any) -> Polygon:
    if not isinstance(rings, list) or not rings or not all(isinstance(one, list) for one in rings):
        raise DataError(f"the coordinates {shown(rings)}, expected a list of rings of points")
    return [ring(one) for one in rings]


def _classification(value: Any) -> tuple[Any, str | None]:
    """Return the name of a class, None without one, and its colour '#rrggbb' if it has one."""
    if not isinstance(value, dict):
        return value, None
    names = value.get("names")
    label = ": ".join(map(str, names)) if isinstance(names, list) else value.get("name")
    return label, _colour(value.get("color", value.get("colorRGB")))


def _colour(value: Any) -> str | None:
    """Return the colour of three numbers, or of one signed number of 32 bits (QuPath 0.2)."""
    if type(value) is int:
        return f"#{value & 0xFFFFFF:06x}"
    if isinstance(value, list) and len(value) == 3 and all(one in range(256) for one in value):
        return "#" + "".join(f"{int(one):02x}" for one in value)
    return None


FORMAT = AnnotationFormat(
    "QuPath (GeoJSON)", (".geojson", ".json"), _recognises, _read, one_each=True
)
