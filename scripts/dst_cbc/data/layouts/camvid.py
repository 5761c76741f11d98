"""CamVid in SegNet's layout.

The folder holds `train.txt`, `val.txt` and, where there is a test subset, `test.txt`. Each line
names an image and its mask. Only the last two parts of a path count, such as `train/NAME.png` and
`trainannot/NAME.png`, because the lists name folders of another machine.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ...runtime.errors import DataError
from ...runtime.escape import shown
from ...runtime.reading import read_text
from ...settings.data import DatasetStage
from .layout import Layout, Record

CLASSES = {
    "sky": "#808080", "building": "#800000", "pole": "#c0c080", "road": "#804080",
    "pavement": "#3c28de", "tree": "#808000", "sign": "#c08080", "fence": "#404080",
    "car": "#400080", "pedestrian": "#404000", "bicyclist": "#0080c0",
}  # fmt: skip


def _records(root: Path, dataset: DatasetStage) -> Iterator[Record]:
    """Yield the images of train.txt, val.txt and test.txt, whose lines are `IMAGE MASK`.

    The lists hold absolute paths of the machine on which they were made, so only the last two
    parts are used: `train/NAME.png` and `trainannot/NAME.png`. Raises DataError when train.txt is
    missing or a line is malformed.
    """
    for subset in ("train", "val", "test"):
        listing = root / f"{subset}.txt"
        if not listing.is_file():
            if subset == "train":
                raise DataError(f"{listing}: no such file; format `camvid` needs it")
            continue
        for number, line in enumerate(read_text(listing).split("\n"), 1):
            if not line.strip():
                continue
            paths = [PurePosixPath(*PurePosixPath(part).parts[-2:]) for part in line.split()]
            if len(paths) != 2:
                raise DataError(
                    f"{listing}, line {number}: found {shown(line)}, expected `IMAGE MASK`"
                )
            yield Record(paths[0].stem, str(paths[0]), str(paths[1]), subset)


LAYOUT = Layout(
    _records,
    CLASSES,
    ignore=(11,),
    hint=". `snakemake download_camvid` downloads CamVid into results/downloads/camvid",
)
