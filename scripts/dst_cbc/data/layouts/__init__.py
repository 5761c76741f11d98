"""Layouts of data sets on disk, by the name of their format; each lists images as records."""

from . import annotations, camvid, cityscapes, digits, folder, pairs, voc

LAYOUTS = {
    "annotations": annotations.LAYOUT,
    "camvid": camvid.LAYOUT,
    "cityscapes": cityscapes.LAYOUT,
    "digits": digits.LAYOUT,
    "folder": folder.LAYOUT,
    "pairs": pairs.LAYOUT,
    "voc": voc.LAYOUT,
}
