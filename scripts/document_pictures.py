"""Make the pictures of the documentation from the demo's results: docs/pictures/.

Copies the figure of the rounds, cuts the contact sheet, puts the pseudo labels of one image side
by side, and takes a screenshot of the gallery with headless Chromium.
"""

import io
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw

from documentation.pages import DOCS
from dst_cbc.cli import Parser, main
from dst_cbc.runtime.errors import DataError
from dst_cbc.runtime.files import write_bytes
from dst_cbc.runtime.tables import read_csv

PICTURES = DOCS / "pictures"
SHEET_ROWS = 4
SIDE, GAP = 220, 8


def run() -> None:
    parser = Parser(__doc__)
    parser.add_argument("study", type=Path, metavar="STUDY", help="results/demo, finished")
    parser.add_argument("--data", type=Path, default=Path("results/digits"), metavar="PATH",
                        help="the demo's drawn images (default results/digits)")  # fmt: skip
    parser.add_argument("--out", type=Path, default=PICTURES, metavar="PATH",
                        help="folder to write to (default docs/pictures)")  # fmt: skip
    arguments = parser.parse_args()
    if not shutil.which("chromium"):
        raise DataError("chromium: not found; the screenshot of the gallery needs it: install it")
    method = arguments.study / "12_0/dst-cbc"
    figure = arguments.study / f"report/{arguments.study.name}/rounds.svg"
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_bytes(arguments.out / "rounds.svg", figure.read_bytes())
    sheet = Image.open(method / "round1/contact_sheet.jpg")
    _save(arguments.out / "contact-sheet.jpg", _first_rows(sheet))
    _save(arguments.out / "pseudo-labels.png", _labels_by_round(method, arguments.data))
    _save(arguments.out / "gallery.png", _screenshot(method / "gallery.html"))


def _first_rows(sheet: Image.Image) -> Image.Image:
    """The headings and the first images of a contact sheet, which shows a dozen."""
    return sheet.crop((0, 0, sheet.width, round(sheet.height * (SHEET_ROWS + 0.2) / 12.45)))


def _labels_by_round(method: Path, data: Path) -> Image.Image:
    """The image with the most labeled pixels that are not background, and its labels."""
    rows = read_csv(method / "round1/pseudo_labels.csv", ["id", "kept", "pixels background"])
    id = max(rows, key=lambda row: int(row["kept"]) - int(row["pixels background"]))["id"]
    last = len(list(method.glob("round*")))
    columns = {
        "image": data / f"images/train/{id}.png",
        **{
            f"round {r}": method / f"round{r}/pseudo_labels/{id}.png"
            for r in sorted({1, (last + 1) // 2, last})
        },
        "true mask": data / f"labels/train/{id}.png",
    }
    canvas = Image.new("RGB", (len(columns) * (SIDE + GAP) - GAP, SIDE + 24), "white")
    draw = ImageDraw.Draw(canvas)
    for place, (title, path) in enumerate(columns.items()):
        x = place * (SIDE + GAP)
        picture = Image.open(path).convert("RGB").resize((SIDE, SIDE), Image.Resampling.NEAREST)
        canvas.paste(picture, (x, 24))
        draw.rectangle((x, 24, x + SIDE - 1, 23 + SIDE), outline="#999999")
        draw.text((x + 2, 3), title, fill="black", font_size=16)
    return canvas


def _screenshot(page: Path) -> Image.Image:
    """The gallery as a browser shows it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "gallery.png")
        subprocess.run(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             f"--user-data-dir={folder}/browser", "--virtual-time-budget=10000",
             "--window-size=1000,760", f"--screenshot={path}", page.resolve().as_uri()],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
        return Image.open(io.BytesIO(path.read_bytes()))


def _save(path: Path, image: Image.Image) -> None:
    buffer = io.BytesIO()
    small = image.convert("RGB")
    if path.suffix == ".png":
        small = small.quantize(128)
    small.save(buffer, {".png": "PNG", ".jpg": "JPEG"}[path.suffix], quality=85, optimize=True)
    write_bytes(path, buffer.getvalue())


if __name__ == "__main__":
    main(run)
