"""Use a trained model on a folder of images: masks, and on request confidences and overlays.

The mask is the last file that is written for an image, is written atomically, and holds the
SHA-256 of the image. So an interrupted pass continues with the images that have no valid mask.
"""

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ..data.images import decode, open_image
from ..data.layouts.layout import IMAGE_SUFFIXES, each_page, files_below, same_name
from ..data.masks import indexed_png, palette
from ..data.pages import sha256_of
from ..models.segmentation import SegmentationModel
from ..runtime import signals
from ..runtime.errors import DataError, loaded
from ..runtime.files import sweep, write_bytes, write_json
from ..runtime.paths import inside
from ..runtime.reading import read_json
from ..settings.stages import Inference
from .tiling import View
from .whole_images import image_tensor, predict

MASKS, CONFIDENCE, OVERLAYS = "masks", "confidence", "overlays"
MANIFEST = "infer.json"
OVERLAY_OPACITY = 0.5
_NOTE = "image_sha256"


@dataclass(frozen=True)
class Outputs:
    """Paths of the output files. confidence, overlay: whether these files are written, too."""

    folder: Path
    confidence: bool
    overlay: bool

    def mask(self, id: str) -> Path:
        return inside(self.folder, f"{MASKS}/{id}.png")

    def of(self, id: str) -> dict[str, Path]:
        """Paths of the files of one image by kind; the mask comes last."""
        paths = {}
        if self.confidence:
            paths[CONFIDENCE] = inside(self.folder, f"{CONFIDENCE}/{id}.png")
        if self.overlay:
            paths[OVERLAYS] = inside(self.folder, f"{OVERLAYS}/{id}.jpg")
        return {**paths, MASKS: self.mask(id)}


def list_images(root: Path, out: Path) -> dict[str, Path]:
    """List the images below `root` by id, the relative path without suffix; pages: `stack/0003`.

    Links to folders are followed; hidden files and what systems leave behind are left out.
    Raises DataError if there are no images, if two images would have the same mask, and if `out`
    lies inside `root`: the next pass would take masks for images.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; expected a folder of images")
    if out.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{out} lies inside {root}, which is only read; choose an --out elsewhere")
    # A link below `root` may lead to masks of an earlier pass.
    below = files_below(root, ".", IMAGE_SUFFIXES, str(out.resolve()))
    found = {
        root / page: one
        for id, path in below
        for one, page, _ in each_page(root, id, path, id, lambda name: "")
    }
    if not found:
        raise DataError(f"{root}: no images found; expected files {', '.join(IMAGE_SUFFIXES)}")
    first: dict[str, Path] = {}
    for path, id in sorted(found.items()):
        other = first.setdefault(same_name(id).casefold(), path)
        if other != path:
            raise DataError(
                f"{path}: the name of another image, {other}, differs only in its suffix, in upper "
                "and lower case or in how Unicode writes an accent, and both would have the mask "
                f"{id}.png; rename one"
            )
    return {id: path for path, id in sorted(found.items())}


def claim(out: Path, made_with: dict) -> None:
    """Create the output folder and its MANIFEST, or check that an existing one fits `made_with`.

    Raises DataError if `out` was made with other options or holds other files, which are never
    replaced.
    """
    manifest = out / MANIFEST
    if not manifest.is_file():
        sweep(out)
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise DataError(
                f"{out} is not an empty folder and has no {MANIFEST}; choose a new --out"
            )
        write_json(manifest, made_with)
        return
    found = read_json(manifest)
    for key in {**made_with, **found}:
        if found.get(key) != made_with.get(key):
            raise DataError(
                f"{out} was made with another `{key}`: found {found.get(key)!r} in {MANIFEST}, "
                f"asked for {made_with.get(key)!r}; choose another folder as --out, or delete "
                "this one"
            )


def segment_folder(
    model: SegmentationModel,
    images: dict[str, Path],
    outputs: Outputs,
    settings: Inference,
    views: Sequence[View],
    device: torch.device,
    workers: int = 0,
) -> dict[str, str]:
    """Write the masks that are missing; returns the error messages of bad images by id.

    images: paths by id. Raises Unusable if the model's output is not finite, and Stopped after a
    signal.
    """
    loader = DataLoader(
        _Missing(images, outputs, model),
        batch_size=None,
        num_workers=workers,
        worker_init_fn=signals.leave_to_parent,
    )
    write = _writer(outputs, palette(list(model.classes.values())))
    problems: dict[str, str] = {}
    # A thread writes the files while the network computes the next image.
    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(lambda: None)
        bar = tqdm(loaded(loader), "infer", len(images), disable=None)
        for id, (pixels, note) in zip(images, bar, strict=True):
            signals.stop_if_asked("finished masks are kept")
            if pixels is None:
                problems |= {id: note} if note else {}
                continue
            classes, confidence = predict(model, pixels[None], settings, device, _bytes, views)
            written.result()
            arrays = (one[0].cpu().numpy() for one in (classes, confidence))
            written = pool.submit(write, id, pixels, *arrays, note)
        written.result()
    return problems


class _Missing(Dataset):
    """For each image without a mask, its pixels, uint8 (3, H, W), and its SHA-256.

    For a bad image, None and the error message; for an image that has a mask, None and "".
    """

    def __init__(self, images: dict[str, Path], outputs: Outputs, model: SegmentationModel):
        self.images, self.outputs = list(images.items()), outputs
        self.window, self.bands = model.window, model.bands

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor | None, str]:
        id, path = self.images[index]
        try:
            digest = sha256_of(path)
            if _is_done(self.outputs, id, digest):
                return None, ""
            image = open_image(path, self.window, bands=self.bands)
            return image_tensor(np.asarray(image)), digest
        except DataError as error:
            return None, str(error)
        except OSError as error:
            return None, f"{path}: cannot be read ({error})"


def _is_done(outputs: Outputs, id: str, digest: str) -> bool:
    """Whether all files exist and the mask was made from this image.

    A mask without a digest was drawn by hand; it counts as done.
    """
    if not all(path.is_file() for path in outputs.of(id).values()):
        return False
    try:
        mask = decode(outputs.mask(id)).image
    except DataError:
        return False
    return mask is not None and mask.info.get(_NOTE, digest) == digest


def _bytes(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The winning class and 255 times its probability, both uint8 (N, H, W)."""
    share, winner = logits.float().log_softmax(1).max(1)
    return winner.to(torch.uint8), (255 * share.exp()).round().to(torch.uint8)


def _writer(outputs: Outputs, colours: list[int]) -> Callable[..., None]:
    def write(id: str, pixels, classes: np.ndarray, confidence: np.ndarray, digest: str) -> None:
        png = indexed_png(classes, colours, {_NOTE: digest})
        for kind, path in outputs.of(id).items():
            if kind == CONFIDENCE:
                write_bytes(path, _encoded(Image.fromarray(confidence), "PNG"))
            elif kind == OVERLAYS:
                image = Image.fromarray(pixels.numpy().transpose(1, 2, 0))
                mask = Image.open(io.BytesIO(png)).convert("RGB")
                write_bytes(path, _encoded(Image.blend(image, mask, OVERLAY_OPACITY), "JPEG"))
            else:
                write_bytes(path, png)

    return write


def _encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 90} if kind == "JPEG" else {}))
    return buffer.getvalue()
