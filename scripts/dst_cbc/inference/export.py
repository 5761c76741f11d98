"""Export a model to ONNX and to torch.export: one graph from stored pixels to the mask."""

import io
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from ..data.records import evenly
from ..models.segmentation import SegmentationModel, low_logits, resize, upsample
from ..runtime.errors import DataError
from ..runtime.files import write_bytes
from .whole_images import image_tensor

ONNX, PROGRAM = "model.onnx", "model.pt2"
INPUT, OUTPUTS = "images", ("classes", "confidence")
LEAST_EQUAL = 0.9999
"""Minimum share of mask pixels in which an exported model and PyTorch must agree."""


COMPARED = 20
"""Maximum number of compared images; of each, only the first LARGEST rows and columns are used."""

LARGEST = 1024


class Graph(nn.Module):
    """The exported graph of a model, which includes normalisation, `input_scale` and upsampling."""

    def __init__(self, model: SegmentationModel):
        super().__init__()
        self.network = model.network
        self._model = model

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """uint8 (N, 3, H, W) RGB to classes, uint8, and their probabilities, float32, (N, H, W)."""
        size, scale = images.shape[-2:], self._model.settings.input_scale
        seen = images.float()
        if scale != 1:
            small = [scaled(side, scale) for side in size]
            seen = F.interpolate(seen, small, mode="bilinear", antialias=True, align_corners=False)
        return winner(upsample(low_logits(self._model, seen), size))


def winner(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (N, C, H, W) to the most probable class, uint8, and its probability, (N, H, W)."""
    share, classes = logits.softmax(1).max(1)
    return classes.to(torch.uint8), share


def scaled(side: int, scale: float) -> int:
    """round(scale * side) by integer arithmetic only, as a graph for any image size requires.

    The decimal `scale` counts exactly here, where Python's float product may miss a half:
    round(0.35 * 90) is 31, and round(31.5) is 32.
    """
    share = Fraction(str(scale))
    doubled, unit = 2 * side * share.numerator, 2 * share.denominator
    floor = doubled // unit
    # Round half to even: add 1 if the rest is above half, or if it is half and `floor` is odd.
    return floor + (doubled % unit + floor % 2 + share.denominator - 1) // unit


def notes(model: SegmentationModel, digest: str) -> dict[str, str]:
    """Metadata of the exported files. digest: SHA-256 of the model file."""
    return {
        "classes": json.dumps(model.classes),
        "input": f"{INPUT}: {TENSORS[0]}",
        "outputs": "; ".join(map(": ".join, zip(OUTPUTS, TENSORS[1:], strict=True))),
        "window": json.dumps(model.window),
        **({"bands": json.dumps(model.bands)} if model.bands else {}),
        "model_sha256": digest,
        "made_by": "DST-CBC, scripts/export.py",
    }


def pictures(model: SegmentationModel, images: Mapping[Path, str | None]) -> Iterator[torch.Tensor]:
    """Yield uint8 (3, H, W): up to COMPARED of the images, evenly spaced, or made-up images.

    images: the path of each, and its SHA-256 at the data check, None if it was not checked. Raises
    what `open_image` raises.
    """
    if not images:
        generator = torch.Generator().manual_seed(0)
        for height, width in ((97, 131), (128, 64), (201, 150)):
            coarse = torch.rand(1, 3, height // 8, width // 8, generator=generator)
            yield (255 * upsample(coarse, (height, width))[0]).to(torch.uint8)
        return
    for path in evenly([*images], COMPARED):
        image = open_image(path, model.window, images[path], model.bands)
        yield image_tensor(np.asarray(image)[:LARGEST, :LARGEST])


def write(model: SegmentationModel, folder: Path, notes: dict[str, str]) -> None:
    """Write the files ONNX and PROGRAM into `folder`. notes: metadata of both files.

    model: on the CPU. The graph takes any height, width and number of images, except images that
    are only one feature high or wide: torch.export treats a size of 1 as a constant.
    """
    program = _program(model)
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={"notes.json": json.dumps(notes, indent=2)})
    write_bytes(folder / PROGRAM, buffer.getvalue())
    write_bytes(folder / ONNX, _onnx(program, notes))


def _program(model: SegmentationModel) -> torch.export.ExportedProgram:
    free = torch.export.Dim.DYNAMIC
    # Two images, because torch.export fixes a size of 1; odd sides, to trace every padding.
    example = torch.zeros(2, 3, 97, 131, dtype=torch.uint8)
    with patch("timm.layers.padding.get_same_padding", _same_padding), _quiet():
        return torch.export.export(
            Graph(model).eval(), (example,), dynamic_shapes=({0: free, 2: free, 3: free},)
        )


def _same_padding(side: int, kernel: int, stride: int, dilation: int) -> int:
    """TensorFlow's SAME padding, like timm's get_same_padding but by integer arithmetic only."""
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
    "uint8 (N, 3, H, W): RGB, 0..255, not normalised; any size of more than one feature a side",
    "uint8 (N, H, W): class number, from 0",
    "float32 (N, H, W): probability of that class",
)
"""Descriptions of INPUT and OUTPUTS, in this order."""


def _quiet():
    # The warnings are advice for authors of models, not for users of this command.
    return warnings.catch_warnings(action="ignore")


@dataclass
class Agreement:
    """Agreement of an exported model with PyTorch.

    equal: number of pixels with the same class; largest: largest difference of the probability in
    these pixels.
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
    """Compare the files that `write` made with PyTorch; returns an Agreement for each file name.

    pictures: uint8 (3, H, W). Raises DataError if less than LEAST_EQUAL of the mask pixels are
    equal.
    """
    runners = {ONNX: _onnx_runner(folder / ONNX), PROGRAM: _program_runner(folder / PROGRAM)}
    found = {name: Agreement() for name in runners}
    model.network.eval()
    for pixels in pictures:
        with torch.inference_mode():
            # Not with Graph, which could be wrong in the same way.
            logits = low_logits(model, resize(model, pixels[None]))
            expected = [one.numpy() for one in winner(upsample(logits, pixels.shape[-2:]))]
        for name, run in runners.items():
            _compare(found[name], run(pixels[None]), expected)
    for name, agreement in found.items():
        if not agreement.equal >= LEAST_EQUAL * agreement.pixels > 0:
            raise DataError(
                f"{folder / name}: does not reproduce PyTorch: {agreement}; expected at least "
                f"{100 * LEAST_EQUAL:g} % equal pixels"
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
