"""One scene as each tool writes it: a shape with a hole, an overlap, and one over the border."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image
from roifile import ROI_TYPE
from test_imagej import composite, rectangle, zip_of

from dst_cbc.data.annotations.drawing import draw
from dst_cbc.data.annotations.matching import matched
from dst_cbc.data.annotations.sources import FORMATS, read

SIZE = (10, 8)
MASK = """
2200000000
2211111000
0111111000
0110011000
0110011000
0111122220
0111122220
0000022220
"""
FRAME, HOLE = [[1, 1], [7, 1], [7, 7], [1, 7]], [[3, 3], [3, 5], [5, 5], [5, 3]]
CUT = [*FRAME, FRAME[0], *HOLE, HOLE[0]]
"""The frame as one line, with a cut from a corner to the hole."""
BESIDE = [[5, 5], [9, 5], [9, 8], [5, 8]]
OVER = [[-2, 0], [2, 0], [2, 2], [-2, 2]]


def frame():
    """The pixels of the frame, bool (6, 6), from (1, 1) on."""
    pixels = np.ones((6, 6), bool)
    pixels[2:4, 2:4] = False
    return pixels


def lengths(pixels):
    """Run lengths of a flat mask: off, on, off, …"""
    ends = np.flatnonzero(np.diff(pixels, prepend=False))
    return np.diff(ends, prepend=0, append=pixels.size).tolist()


def coco(folder):
    whole = np.zeros((8, 10), bool)
    whole[1:7, 1:7] = frame()
    masks = [{"size": [8, 10], "counts": lengths(whole.T.ravel())}]
    masks += [[np.ravel(points).tolist()] for points in (BESIDE, OVER)]
    annotations = [
        {"id": n, "image_id": 7, "category_id": 1 + (n > 0), "segmentation": mask, "iscrowd": 0}
        for n, mask in enumerate(masks)
    ]
    image = {"id": 7, "file_name": "scene.png", "width": 10, "height": 8}
    categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    content = {"images": [image], "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))


def labelme(folder):
    buffer = io.BytesIO()
    Image.fromarray(frame()).save(buffer, "PNG")
    mask = {"mask": base64.b64encode(buffer.getvalue()).decode(), "points": [[1, 1], [6, 6]]}
    shapes = [
        {"label": "a", "shape_type": "mask", **mask},
        {"label": "b", "shape_type": "polygon", "points": BESIDE},
        {"label": "b", "shape_type": "rectangle", "points": [OVER[0], OVER[2]]},
    ]
    content = {"version": "5.5.0", "shapes": shapes, "imagePath": "..\\photos\\scene.png"}
    (folder / "scene.json").write_text(json.dumps(content | {"imageWidth": 10, "imageHeight": 8}))


def cvat(folder):
    (folder / "annotations.xml").write_text(f"""<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
  <image id="0" name="scene.png" width="10" height="8">
    <mask label="a" rle="{", ".join(map(str, lengths(frame().ravel())))}" left="1" top="1"
      width="6" height="6" z_order="0"></mask>
    <polygon label="b" points="{";".join(f"{x}.00,{y}.00" for x, y in BESIDE)}" z_order="0">
    </polygon>
    <box label="b" xtl="-2" ytl="0" xbr="2" ybr="2" z_order="0"></box>
  </image>
</annotations>""")


def label_studio(folder):
    def region(label, points):
        shares = [[100 * x / 10, 100 * y / 8] for x, y in points]
        value = {"points": shares, "polygonlabels": [label], "closed": True}
        size = {"original_width": 10, "original_height": 8}
        return {"type": "polygonlabels", "value": value, **size}

    result = [region("a", CUT), region("b", BESIDE), region("b", OVER)]
    task = {"data": {"image": "/data/upload/1/0a1b2c3d-scene.png"}}
    task["annotations"] = [{"result": result}]
    (folder / "project.json").write_text(json.dumps([task]))


def qupath(folder):
    def feature(label, *rings):
        geometry = {"type": "Polygon", "coordinates": [[*ring, ring[0]] for ring in rings]}
        properties = {"objectType": "annotation", "classification": {"name": label}}
        return {"type": "Feature", "geometry": geometry, "properties": properties}

    features = [feature("a", FRAME, HOLE), feature("b", BESIDE), feature("b", OVER)]
    content = {"type": "FeatureCollection", "features": features}
    (folder / "scene.geojson").write_text(json.dumps(content))


def imagej(folder):
    # 0: move to, 1: line to, 4: close.
    path = [
        number
        for ring in (FRAME, HOLE)
        for number in (0, *ring[0], *(n for point in ring[1:] for n in (1, *point)), 4)
    ]
    beside = rectangle(5, 5, 9, 8, "b", ROI_TYPE.RECT)
    rois = composite(*path, name="a"), beside, rectangle(-2, 0, 2, 2, "b", ROI_TYPE.RECT)
    zip_of(folder / "scene_RoiSet.zip", *rois)


def yolo(folder):
    lines = [
        " ".join(f"{share:g}" for share in (number, *np.divide(points, SIZE).ravel()))
        for number, points in ((0, CUT), (1, BESIDE), (1, OVER))
    ]
    (folder / "labels").mkdir()
    (folder / "labels/scene.txt").write_text("\n".join(lines))
    (folder / "data.yaml").write_text("train: images\nnames: [a, b]\n")


WRITERS = [coco, cvat, imagej, label_studio, labelme, qupath, yolo]


def test_every_format_is_here():
    assert len(WRITERS) == len(FORMATS)


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_the_scene_becomes_its_mask(tmp_path, write):
    write(tmp_path)
    program, found = read(tmp_path)
    assert program.name and not found.problems and list(found.classes)[:2] == ["a", "b"]
    by_id, problems, _ = matched(found, {"scene": "photos/scene.png"}, False, tmp_path)
    assert list(by_id) == ["scene"] and not problems
    one = by_id["scene"]
    assert one.size in (None, SIZE)
    mask = draw(one.shapes, SIZE, {"a": 1, "b": 2}, 0, one.relative)
    assert ["".join(map(str, row)) for row in mask] == MASK.split()
