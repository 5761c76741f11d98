"""Networks, and the model file, which holds everything that is needed to use a network."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from ..data.images import Window
from ..runtime.errors import DataError
from ..runtime.files import write_bytes
from ..settings.base import Bands
from ..settings.network import NetworkSettings
from . import model_file
from .backbones import Backbone, build_backbone
from .heads import head_class
from .sizes import scaled_size
from .weights import load_head


@dataclass(frozen=True)
class SegmentationModel:
    """A network and everything that is needed to use it.

    classes: colour '#rrggbb' by name, in the order of the class numbers. mean, std: normalisation
    of RGB in 0..1. window: values of 16-bit images that become black and white; None: it was
    trained on 8-bit images. bands: the channels of an image that become grey or RGB; None: the
    first, or the first three. record: origin of the weights: `round` and `step` at which they were
    reached, `selected_on`, `score` (mIoU in percent on that subset; None for a last step that was
    not selected). It is empty if this workflow has not trained them.
    """

    network: Network
    settings: NetworkSettings
    classes: dict[str, str]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    window: Window | None = None
    record: dict[str, Any] = field(default_factory=dict)
    bands: Bands | None = None


class Network(nn.Module):
    """A backbone and a head.

    ends: as in `Backbone`. stride: image pixels from one logit to the next. grid: the largest
    stride of its feature maps; an image shifted by a multiple of `grid` gives the same features,
    shifted.
    """

    def __init__(self, backbone: Backbone, head: Any):
        super().__init__()
        self.backbone, self.head = backbone.network, head
        self.ends, self.stride = backbone.ends, head.stride
        self.grid = max(one.stride for one in backbone.maps)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """float (N, 3, H, W), normalised -> logits (N, classes, H/stride, W/stride)."""
        return self.head(self.backbone(images))


def _assemble(
    settings: NetworkSettings, classes: int, root: Path = Path()
) -> tuple[Network, Backbone]:
    options = settings.chosen_head
    kind = head_class(options)
    choose = partial(kind.choose, options=options) if hasattr(kind, "choose") else None
    backbone = build_backbone(settings, root, choose)
    return Network(backbone, kind(backbone.maps, classes, options)), backbone


def build(
    settings: NetworkSettings,
    classes: dict[str, str],
    root: Path = Path(),
    window: Window | None = None,
    bands: Bands | None = None,
) -> SegmentationModel:
    """Build a model with the initial weights that `settings` names; other weights are random.

    The random weights depend on torch's seed. root: the folder of a relative path in `weights`. If
    that file has a head that fits, it is loaded, too. Raises DataError as `build_backbone` does.
    """
    network, backbone = _assemble(settings, len(classes), root)
    if backbone.weights:
        load_head(network.head, backbone.weights)
    mean, std = backbone.mean, backbone.std
    return SegmentationModel(network, settings, classes, mean, std, window, bands=bands)


def going_on(
    path: Path,
    settings: NetworkSettings,
    classes: dict[str, str],
    window: Window | None = None,
    bands: Bands | None = None,
) -> SegmentationModel:
    """Build a model with the weights, the head and the window of the earlier model at `path`.

    window: used if the earlier model has none. bands: of the images from now on. Raises
    DataError as `read_model` does, and when the earlier model has other classes or another network.
    """
    earlier = read_model(path)
    require_classes(f"start_from: {path}", earlier, classes)
    theirs, ours = (
        one.without_start().model_copy(update={"input_scale": 1.0}).canonical()
        for one in (earlier.settings, settings)
    )
    if theirs != ours:
        raise DataError(
            f"start_from: {path} has the network {theirs}; expected `network` of the experiment: "
            f"{ours}"
        )
    window = earlier.window or window
    return replace(
        earlier, settings=settings, classes=classes, window=window, record={}, bands=bands
    )


def require_classes(source: str, model: SegmentationModel, classes: Iterable[str]) -> None:
    """Raise DataError unless a model has these classes in this order. source: what names it."""
    if list(model.classes) != list(classes):
        raise DataError(
            f"{source} has the classes {', '.join(model.classes)}; expected the "
            f"classes of the experiment, in their order: {', '.join(classes)}"
        )


def resize(model: SegmentationModel, images: torch.Tensor, scale: float = 1) -> torch.Tensor:
    """Resize images to the size that the network sees, by `input_scale` times `scale`.

    images: (N, 3, H, W) of any dtype. Returns float32, bilinear and antialiased, or `images`
    themselves if the factor is 1.
    """
    return scaled(images, scale * model.settings.input_scale)


def scaled(images: torch.Tensor, scale: float) -> torch.Tensor:
    """Images (N, 3, H, W), resized by a factor as `resize` does."""
    if scale == 1:
        return images
    size = scaled_size(images.shape[-2:], scale)
    return F.interpolate(images.float(), size, mode="bilinear", antialias=True, align_corners=False)


def low_logits(
    model: SegmentationModel, images: torch.Tensor, precision: str = "float32"
) -> torch.Tensor:
    """Logits at the network's stride, (N, classes, H/stride, W/stride), in the network's dtype.

    images: (N, 3, H, W) of any dtype, in 0..255; they are normalised here.
    """
    dtype = next((weight.dtype for weight in model.network.parameters()), torch.float32)
    kind = {"device": images.device, "dtype": dtype}
    mean, std = (torch.tensor(v, **kind).view(3, 1, 1) * 255 for v in (model.mean, model.std))
    with torch.autocast(images.device.type, getattr(torch, precision), precision != "float32"):
        return model.network((images.to(dtype) - mean) / std).to(dtype)


def upsample(logits: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Upsample logits to `size` (H, W): bilinear with align_corners=True, as in DeepLabV2."""
    return F.interpolate(logits, size, mode="bilinear", align_corners=True)


def logits_of(
    model: SegmentationModel, images: torch.Tensor, precision: str = "float32"
) -> torch.Tensor:
    """`low_logits`, upsampled to the size of the images, to be compared with labels."""
    return upsample(low_logits(model, images, precision), images.shape[-2:])


def cpu_state(model: SegmentationModel) -> dict[str, torch.Tensor]:
    """The network's state_dict, on the CPU."""
    return {key: value.detach().cpu() for key, value in model.network.state_dict().items()}


def model_bytes(
    model: SegmentationModel, state: dict[str, torch.Tensor], record: dict[str, Any] | None
) -> bytes:
    """The content of a model file with the weights `state`; equal models give equal bytes.

    record: as of the model; None if this workflow has not trained these weights.
    """
    content = {
        "format": model_file.FORMAT,
        "network": model.settings.model_dump(mode="json"),
        "classes": model.classes,
        "mean": list(model.mean),
        "std": list(model.std),
        "window": model.window,
        # Without the key, models of images without `bands` keep their bytes.
        **({"bands": list(model.bands)} if model.bands else {}),
        "record": record,
        "state": {key: value.cpu().contiguous() for key, value in state.items()},
    }
    buffer = io.BytesIO()
    torch.save({**content, model_file.DIGEST: model_file.digest(content)}, buffer)
    return buffer.getvalue()


def write_model(
    path: Path, model: SegmentationModel, state: dict[str, torch.Tensor], record: dict | None
) -> None:
    """Write the file of `model_bytes`."""
    write_bytes(path, model_bytes(model, state, record))


def without_memory(settings: NetworkSettings, classes: int) -> Network:
    """A network on the device `meta`, whose weights have names, shapes and dtypes, but no numbers.

    Raises DataError as `build_backbone` does.
    """
    with torch.device("meta"), _WithoutRandomValues():
        return _assemble(settings, classes)[0]


class _WithoutRandomValues(TorchFunctionMode):
    """Draws no values for tensors, because on the device `meta` this imports torch.compile."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (nn.init.normal_, torch.Tensor.normal_):
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def read_model(path: Path, device: torch.device | str = "cpu") -> SegmentationModel:
    """Read a model file; never runs code that the file may contain.

    Raises DataError when the file is missing or damaged, contains code, has another format, or has
    weights that are not those of its network.
    """
    found = model_file.read(path)
    # The file's weights replace all others: the file in `network.weights` need not exist.
    bare = found.network.model_copy(update={"weights": None})
    # A network without memory first: the file may name one that is much larger than its weights.
    try:
        wanted = without_memory(bare, len(found.classes))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    model_file.require_fit(path, found, wanted.state_dict())
    network, _ = _assemble(bare, len(found.classes))
    network.load_state_dict(found.state)
    return SegmentationModel(
        network.to(device),
        found.network,
        found.classes,
        found.mean,
        found.std,
        found.window,
        found.record.model_dump(exclude_unset=True) if found.record else {},
        found.bands,
    )
