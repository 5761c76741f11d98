"""Writes drafts as the files that programs for labeling open: polygons with labels."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from ..data.annotations.shapes import Ring, Shape, ring_area

BACKGROUND = "background"
"""The class that people leave unlabeled: where there is no shape."""


@dataclass(frozen=True)
class DraftedImage:
    """Shapes that are drafted for an image; the largest first.

    id: path of the image without its ending. name: path of the image in its folder of images, as
    programs for labeling show it. path: of the image, absolute. size: (width, height), in pixels.
    """

    id: str
    name: str
    path: Path
    size: tuple[int, int]
    shapes: Sequence[Shape]


Colours = Mapping[str, str]
"""Label: '#rrggbb', in order."""


@dataclass(frozen=True)
class DraftFormat:
    """How a program for labeling reads drafts.

    write: the texts of the files, by path. file: the path of the file with an image's draft, `{}`
    stands for its id. holes: whether polygons may have holes. advice: how to open them; `{folder}`
    stands for the folder of the files, `{images}` for that of the images, `{above}` for the one
    above it.
    """

    write: Callable[[Sequence[DraftedImage], Colours], dict[str, str]]
    file: str
    advice: str
    holes: bool = False


def labels_of(
    classes: Iterable[str], names: Mapping[str, str], unannotated: str = BACKGROUND
) -> dict[int, str]:
    """Return the label of each class number that becomes shapes: all but the background.

    names: label: class, as in the person's own annotations; the first label of a class counts. A
    class without a label keeps its name. unannotated: the class of pixels without a shape; any
    other text if they have none.
    """
    labels = {name: label for label, name in reversed(list(names.items()))}
    return {
        number: labels.get(name, name)
        for number, name in enumerate(classes)
        if name.lower() != unannotated
    }


def labelme(images: Sequence[DraftedImage], colours: Colours) -> dict[str, str]:
    """One JSON for each image. The image's path is absolute: people move the files."""
    return {
        f"{image.id}.json": _json(
            {
                "version": "5.5.0",
                "flags": {},
                "shapes": [
                    {
                        "label": shape.label,
                        "points": _ring(shape).tolist(),
                        "group_id": None,
                        "description": "",
                        "shape_type": "polygon",
                        "flags": {},
                        "mask": None,
                    }
                    for shape in image.shapes
                ],
                "imagePath": image.path.as_posix(),
                "imageData": None,
                "imageHeight": image.size[1],
                "imageWidth": image.size[0],
            }
        )
        for image in images
    }


def coco(images: Sequence[DraftedImage], colours: Colours) -> dict[str, str]:
    """One file of instances."""
    categories, numbers = {label: i for i, label in enumerate(colours, 1)}, count(1)
    content = {
        "images": [
            {"id": i, "file_name": image.name, "width": image.size[0], "height": image.size[1]}
            for i, image in enumerate(images, 1)
        ],
        "annotations": [
            {
                "id": next(numbers),
                "image_id": i,
                "category_id": categories[shape.label],
                "segmentation": [_ring(shape).ravel().tolist()],
                "area": ring_area(_ring(shape)),
                "bbox": [*_ring(shape).min(0), *(_ring(shape).max(0) - _ring(shape).min(0))],
                "iscrowd": 0,
            }
            for i, image in enumerate(images, 1)
            for shape in image.shapes
        ],
        "categories": [
            {"id": i, "name": label, "supercategory": "", "color": _rgb(colours[label])}
            for label, i in categories.items()
        ],
    }
    return {"annotations.json": _json(content)}


def label_studio(images: Sequence[DraftedImage], colours: Colours) -> dict[str, str]:
    """Tasks with predictions, and the labeling interface that they belong to."""
    tasks = [
        {
            "data": {"image": _local_file(image)},
            "predictions": [
                {"model_version": "dst-cbc", "result": list(_regions(image))},
            ],
        }
        for image in images
    ]
    view = Element("View")
    SubElement(view, "Image", name="image", value="$image", zoom="true")
    control = SubElement(view, "PolygonLabels", name="label", toName="image")
    for label, colour in colours.items():
        SubElement(control, "Label", value=label, background=colour)
    return {"tasks.json": _json(tasks), "labeling-interface.xml": _xml(view)}


def _regions(image: DraftedImage) -> Iterable[dict[str, Any]]:
    width, height = image.size
    for number, shape in enumerate(image.shapes, 1):
        percent = _ring(shape) * 100 / image.size
        yield {
            "id": str(number),
            "type": "polygonlabels",
            "from_name": "label",
            "to_name": "image",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {
                "points": percent.round(6).tolist(),
                "closed": True,
                "polygonlabels": [shape.label],
            },
        }


def _local_file(image: DraftedImage) -> str:
    """The URL of a local file, below the folder that is above the folder of images."""
    return f"/data/local-files/?d={quote(f'{images_folder(image).name}/{image.name}')}"


def images_folder(image: DraftedImage) -> Path:
    """The folder in which the image has its name."""
    return image.path.parents[image.name.count("/")]


def geojson(images: Sequence[DraftedImage], colours: Colours) -> dict[str, str]:
    """One collection of features for each image, in pixels, with the classes of QuPath."""
    return {
        f"{image.id}.geojson": _json(
            {
                "type": "FeatureCollection",
                "features": [
                    {
                        "type": "Feature",
                        "geometry": {
                            "type": "Polygon",
                            "coordinates": [_closed(ring) for ring in shape.polygons[0]],
                        },
                        "properties": {
                            "objectType": "annotation",
                            "classification": {
                                "name": shape.label,
                                "color": _rgb(colours[shape.label]),
                            },
                        },
                    }
                    for shape in image.shapes
                ],
            }
        )
        for image in images
    }


def cvat(images: Sequence[DraftedImage], colours: Colours) -> dict[str, str]:
    """One XML of `CVAT for images 1.1`. Images have the numbers that CVAT gives them: by name."""
    root = Element("annotations")
    SubElement(root, "version").text = "1.1"
    task = SubElement(SubElement(root, "meta"), "task")
    for key, text in {"name": "drafts", "size": str(len(images)), "mode": "annotation"}.items():
        SubElement(task, key).text = text
    labels = SubElement(task, "labels")
    for name, colour in colours.items():
        label = SubElement(labels, "label")
        SubElement(label, "name").text = name
        SubElement(label, "color").text = colour
        SubElement(label, "attributes")
    for i, image in enumerate(sorted(images, key=lambda image: image.name)):
        width, height = map(str, image.size)
        parent = SubElement(root, "image", id=str(i), name=image.name, width=width, height=height)
        for shape in image.shapes:
            points = ";".join(f"{x:.2f},{y:.2f}" for x, y in _ring(shape))
            polygon = {"label": shape.label, "source": "auto", "occluded": "0", "points": points}
            SubElement(parent, "polygon", {**polygon, "z_order": "0"})
    return {"annotations.xml": _xml(root)}


FORMATS = {
    "coco": DraftFormat(
        coco, "annotations.json", "import {folder}/annotations.json together with the images"
    ),
    "cvat": DraftFormat(
        cvat,
        "annotations.xml",
        "make a task of these images in CVAT, with the labels of the file, then choose "
        "Upload annotations, CVAT 1.1, {folder}/annotations.xml",
    ),
    "geojson": DraftFormat(
        geojson, "{}.geojson", "open an image in QuPath, and drag its file onto it", holes=True
    ),
    "label-studio": DraftFormat(
        label_studio,
        "tasks.json",
        "start Label Studio with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and "
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={above}; make a project whose labeling interface "
        "is {folder}/labeling-interface.xml; add the source storage Local files, path {images}, "
        "without a sync; import {folder}/tasks.json",
    ),
    "labelme": DraftFormat(labelme, "{}.json", "labelme {images} --output {folder}"),
}


def _ring(shape: Shape) -> Ring:
    return shape.polygons[0][0]


def _closed(ring: Ring) -> list[list[float]]:
    return [*ring.tolist(), ring[0].tolist()]


def _rgb(colour: str) -> list[int]:
    return list(bytes.fromhex(colour[1:]))


def _json(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n"


def _xml(root: Element) -> str:
    # Label Studio refuses a declaration of the encoding, and CVAT needs none.
    ElementTree.indent(root)
    return ElementTree.tostring(root, "unicode") + "\n"
