"""A model as ONNX and as a program of torch.export: one graph from stored pixels to the mask."""

import io
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..data.images import open_image
from ..models.segmentation import SegmentationModel, low_logits, resize, upsample
from ..runtime.files import DataError, write_bytes
from .whole_images import image_tensor

ONNX, PROGRAM = "model.onnx", "model.pt2"
INPUT, OUTPUTS = "images", ("classes", "confidence")
LEAST_EQUAL = 0.9999
"""Share of mask pixels that an exported model must have as PyTorch has them."""


COMPARED = 20
"""At most so many images are compared on, the first LARGEST pixels of each side."""

LARGEST = 1024


class Graph(nn.Module):
    """What is exported of a model: normalisation, `input_scale` and upsampling are inside."""

    def __init__(self, model: SegmentationModel):
        super().__init__()
        self.network = model.network
        self._model = model

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """uint8 (N, 3, H, W) RGB to classes uint8 and their probability float32, (N, H, W)."""
        size, scale = images.shape[-2:], self._model.settings.input_scale
        seen = images.float()
        if scale != 1:
            small = [scaled(side, scale) for side in size]
            seen = F.interpolate(seen, small, mode="bilinear", antialias=True, align_corners=False)
        return winner(upsample(low_logits(self._model, seen), size))


def winner(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, C, H, W) to the likeliest class, uint8, and its probability, both (N, H, W)."""
    share, classes = logits.softmax(1).max(1)
    return classes.to(torch.uint8), share


def scaled(side: int, scale: float) -> int:
    """round(scale * side) in whole numbers alone, which a graph of any size can hold.

    The decimal `scale` is exact here; Python's product may miss a half: 0.35 * 90 rounds to 31.
    """
    share = Fraction(str(scale))
    doubled, unit = 2 * side * share.numerator, 2 * share.denominator
    floor = doubled // unit
    # Halves go to the even number: above half, or at half and odd, one more.
    return floor + (doubled % unit + floor % 2 + share.denominator - 1) // unit


def notes(model: SegmentationModel, digest: str) -> dict[str, str]:
    """Metadata of the exported files. digest: SHA-256 of the model file."""
    return {
        "classes": json.dumps(model.classes),
        "input": f"{INPUT}: {TENSORS[0]}",
        "outputs": "; ".join(map(": ".join, zip(OUTPUTS, TENSORS[1:], strict=True))),
        "window": json.dumps(model.window),
        "model_sha256": digest,
        "made_by": "DST-CBC, scripts/export.py",
    }


def pictures(model: SegmentationModel, paths: Sequence[Path] | None) -> Iterator[torch.Tensor]:
    """uint8 (3, H, W): COMPARED of the images, evenly spaced; without `paths` made-up ones."""
    if not paths:
        generator = torch.Generator().manual_seed(0)
        for height, width in ((97, 131), (128, 64), (201, 150)):
            coarse = torch.rand(1, 3, height // 8, width // 8, generator=generator)
            yield (255 * upsample(coarse, (height, width))[0]).to(torch.uint8)
        return
    count = min(COMPARED, len(paths))
    for number in range(count):
        image = open_image(paths[number * len(paths) // count], model.window)
        yield image_tensor(np.asarray(image)[:LARGEST, :LARGEST])


def write(model: SegmentationModel, folder: Path, notes: dict[str, str]) -> None:
    """Write ONNX and PROGRAM into `folder`. notes: texts that both carry as metadata.

    model: on the CPU. Height, width and number of images stay free; torch.export forbids images
    of a single feature a side, as it takes every 1 for a constant.
    """
    program = _program(model)
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={"notes.json": json.dumps(notes, indent=2)})
    write_bytes(folder / PROGRAM, buffer.getvalue())
    write_bytes(folder / ONNX, _onnx(program, notes))


def _program(model: SegmentationModel) -> torch.export.ExportedProgram:
    free = torch.export.Dim.DYNAMIC
    # Not 1: a size of 1 in the example would be fixed. Odd sizes show every padding.
    example = torch.zeros(2, 3, 97, 131, dtype=torch.uint8)
    with patch("timm.layers.padding.get_same_padding", _same_padding), _quiet():
        return torch.export.export(
            Graph(model).eval(), (example,), dynamic_shapes=({0: free, 2: free, 3: free},)
        )


def _same_padding(side: int, kernel: int, stride: int, dilation: int) -> int:
    """TensorFlow's SAME, as timm's function of that name, without its ceil of a fraction."""
    view = (kernel - 1) * dilation + 1
    padding = view - 1 - (side - 1) % stride
    return padding if view >= stride else max(padding, 0)


def _onnx(program: torch.export.ExportedProgram, notes: dict[str, str]) -> bytes:
    import onnx

    with _quiet():
        exported: Any = torch.onnx.export(
            program,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            external_data=False,
            verbose=False,
        )
    proto = exported.model_proto
    onnx.helper.set_model_props(proto, notes)
    for value, text in zip((*proto.graph.input, *proto.graph.output), TENSORS, strict=True):
        value.doc_string = text
    return proto.SerializeToString()


TENSORS = (
    "uint8 (N, 3, H, W): RGB, 0..255, of any size above one feature a side; not normalised",
    "uint8 (N, H, W): class number, from 0",
    "float32 (N, H, W): probability of that class",
)
"""What INPUT and OUTPUTS are."""


def _quiet():
    # Advice to those who write graphs, not to those who export one.
    return warnings.catch_warnings(action="ignore")


@dataclass
class Agreement:
    """How far an exported model is from PyTorch.

    largest: difference of a probability, where the classes are equal.
    """

    images: int = 0
    pixels: int = 0
    equal: int = 0
    largest: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.equal} of {self.pixels} mask pixels equal "
            f"({100 * self.equal / self.pixels:.4f} %) in {self.images} images, "
            f"largest difference of a probability {self.largest:.1e}"
        )


def check(
    model: SegmentationModel, folder: Path, pictures: Iterable[torch.Tensor]
) -> dict[str, Agreement]:
    """Compare the files that `write` made with the model in PyTorch, on uint8 (3, H, W).

    Raises DataError where less than LEAST_EQUAL of the mask pixels are equal.
    """
    runners = {ONNX: _onnx_runner(folder / ONNX), PROGRAM: _program_runner(folder / PROGRAM)}
    found = {name: Agreement() for name in runners}
    model.network.eval()
    for pixels in pictures:
        with torch.inference_mode():
            # Not by Graph, which could be wrong in the same way.
            logits = low_logits(model, resize(model, pixels[None]))
            expected = [one.numpy() for one in winner(upsample(logits, pixels.shape[-2:]))]
        for name, run in runners.items():
            _compare(found[name], run(pixels[None]), expected)
    for name, agreement in found.items():
        if not agreement.equal >= LEAST_EQUAL * agreement.pixels > 0:
            raise DataError(
                f"{folder / name}: does not reproduce PyTorch: {agreement}; expected at least "
                f"{100 * LEAST_EQUAL:g} %"
            )
    return found


def _compare(agreement: Agreement, found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    equal = found[0] == expected[0]
    agreement.images += 1
    agreement.pixels += equal.size
    agreement.equal += int(equal.sum())
    difference = np.abs(found[1] - expected[1])[equal]
    agreement.largest = max(agreement.largest, float(difference.max(initial=0)))


def _onnx_runner(path: Path) -> Callable[[torch.Tensor], list[np.ndarray]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session: Any = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(list(OUTPUTS), {INPUT: images.numpy()})


def _program_runner(path: Path) -> Callable[[torch.Tensor], list[np.ndarray]]:
    program = torch.export.load(path).module()

    def run(images: torch.Tensor) -> list[np.ndarray]:
        with torch.no_grad():
            return [one.numpy() for one in program(images)]

    return run
