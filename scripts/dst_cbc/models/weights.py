"""Initial weights: from a file or an installed package, never from the internet."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from ..runtime import checksums
from ..runtime.errors import DataError
from ..runtime.escape import problem, shown, terminal
from ..runtime.files import atomic
from ..runtime.paths import package_folder
from ..settings.base import Deviation, Mean, Settings
from .torch_files import Unreadable, load, require_finite

COCO_FILE = "resnet101COCO-41f33a49.pth"
COCO_MEAN = (122.675, 116.669, 104.008)
"""Mean of red, green and blue in 0..255."""
COCO_STD = (1 / 255,) * 3
"""Standard deviation of red, green and blue in 0..1: the images were not divided by any."""

DESCRIPTION = "dst_cbc"
"""Key in the metadata of a .safetensors file: mean, std and backbone of its weights, as JSON."""


class _Normalisation(Settings):
    model_config = ConfigDict(extra="ignore")

    mean: Mean
    std: Deviation


class _Description(Settings):
    """What goes with the weights of a file: its own description, or timm's `config.json`."""

    model_config = ConfigDict(extra="ignore")

    pretrained_cfg: _Normalisation
    backbone: Annotated[str, Field(max_length=100)] | None = None


@dataclass(frozen=True)
class Weights:
    """The weights of a file, under timm's names, and the settings that they require.

    mean, std: normalisation of RGB in 0..1 in their training; None: timm's values for the backbone.
    backbone: the only backbone whose geometry and constants match the weights; None: any backbone
    whose names and shapes fit.
    """

    path: Path
    state: dict[str, torch.Tensor]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    backbone: str | None = None


def read_weights(source: str, root: Path = Path()) -> Weights:
    """Read the weights that `network.weights` names. Raises DataError.

    mean and std come from the file itself if `write_weights` wrote it, else from a `config.json`
    beside it, as on the Hugging Face hub.
    """
    path = locate(source, root)
    if not source.startswith("package:"):
        checksums.sha256_of(path)
    state = read_state(path)
    if "_conv_stem.weight" in state:
        # Lite0 was converted from TensorFlow: (x - 127) / 128, SAME padding, epsilon 1e-3.
        mean, std = (127 / 255,) * 3, (128 / 255,) * 3
        return Weights(path, _timm_names(path, state), mean, std, "tf_efficientnet_lite0")
    return Weights(path, state, *_description(path))


def write_weights(path: Path, weights: Weights) -> None:
    """Write a .safetensors file for `read_weights`, with mean, std and backbone."""
    made_for = {"mean": weights.mean, "std": weights.std}
    text = json.dumps({"pretrained_cfg": made_for, "backbone": weights.backbone})
    with atomic(path) as temporary:
        save_file(weights.state, temporary, {DESCRIPTION: text})


def load_weights(network: nn.Module, backbone: str, weights: Weights) -> list[str]:
    """Load `weights` into `network`, the backbone with the name `backbone`.

    The weights must hold every parameter of the network, with its shape. Further weights (of the
    classifier, or of stages that were cut off) are ignored. Returns the names of these ignored
    weights. Raises DataError.
    """
    if weights.backbone not in (None, backbone):
        raise DataError(
            f"{weights.path}: these weights belong to {weights.backbone!r}, found network.backbone "
            f"{backbone!r}, whose geometry or constants differ; set network.backbone to "
            f"{weights.backbone!r}"
        )
    wanted, state = network.state_dict(), weights.state
    source = {key: key if key in state else _plain_name(key) for key in wanted}
    missing = [
        key
        for key in wanted
        if source[key] not in state and not key.endswith("num_batches_tracked")
    ]
    found = {key: state[source[key]] for key in wanted if source[key] in state}
    wrong = [
        key
        for key, value in found.items()
        if value.shape != wanted[key].shape
        or value.is_floating_point() != wanted[key].is_floating_point()
    ]
    if missing or wrong:
        raise DataError(
            f"{weights.path}: does not fit the backbone: {len(missing)} of {len(wanted)} entries "
            f"missing{f' (first: {missing[0]})' if missing else ''}, {len(wrong)} of another shape "
            f"or type{f' (first: {wrong[0]})' if wrong else ''}"
        )
    network.load_state_dict({**wanted, **found})
    return sorted(set(state) - set(source.values()))


def load_head(head: nn.Module, weights: Weights) -> None:
    """Load the head from `weights` if it has the same classes and at least as many branches.

    Names in the file: `head.<branch>.weight` and `.bias`. If the file has more branches, the first
    ones are loaded, as in the released code. Prints whether the head is loaded; prints nothing if
    the file has no head.
    """
    found = {
        key.removeprefix("head."): value
        for key, value in weights.state.items()
        if re.match(r"head\.\d+\.", key)
    }
    if not found:
        return
    theirs, ours = _shapes(found), _shapes(head.state_dict())
    if ours.items() <= theirs.items():
        head.load_state_dict({key: found[key] for key in ours})
        said = f"its head is loaded, {_branches(ours)}"
    else:
        said = (
            f"its head is not loaded, {_branches(theirs)}; the network gets a new head, "
            f"{_branches(ours)}"
        )
    print(terminal(f"{weights.path}: {said}"), flush=True)


def _branches(shapes: dict[str, tuple[int, ...]]) -> str:
    weights = [shape for key, shape in shapes.items() if key.endswith(".weight")]
    sizes = sorted({"x".join(map(str, shape)) for shape in weights})
    more = " and other sizes" if len(sizes) > 3 else ""
    return f"{len(weights)} branches of {' and '.join(sizes[:3])}{more} (classes first)"


def _shapes(state: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items()}


def our_name(key: str) -> str:
    """A parameter's name in our network, from its name in the released network or the COCO file."""
    return re.sub(r"^(classifier\.0\.convs|layer5\.conv2d_list)\.", "head.", key)


def from_coco(path: Path, backbone: str) -> Weights:
    """Read the paper's COCO weights (section 4.2), `resnet101COCO-41f33a49.pth`, for `backbone`.

    Raises DataError if the file does not have the expected head.
    """
    state = read_state(path, "model")
    branch = {"weight": (21, 2048, 3, 3), "bias": (21,)}
    expected = {f"layer5.conv2d_list.{i}.{part}": branch[part] for i in range(4) for part in branch}
    found = {key: shape for key, shape in _shapes(state).items() if key.startswith("layer5.")}
    if found != expected:
        classes = sorted({shape[0] for shape in found.values() if shape})
        raise DataError(
            f"{path}: layer5.conv2d_list: found {len(found)} tensors, for {shown(classes)} "
            "classes; expected 8, weight and bias of four branches, for the 21 classes of PASCAL "
            f"VOC; give the file {COCO_FILE}, or a checkpoint of the authors' code, with names "
            "that begin with `backbone.` and `classifier.0.convs.`"
        )
    ours = {
        our_name(key): for_rgb(value) if key == "conv1.weight" and value.ndim == 4 else value
        for key, value in state.items()
    }
    return Weights(path, ours, tuple(v / 255 for v in COCO_MEAN), COCO_STD, backbone)


def for_rgb(kernel: torch.Tensor) -> torch.Tensor:
    """The first convolution for RGB, from its kernel for BGR, (out, 3, height, width).

    Networks of Caffe's weights were trained on BGR in 0..255, minus the mean. On RGB, with this
    mean and a standard deviation of 1 in 0..255, a network gives the same results if the input
    channels of its first convolution are reversed. So no other code has to handle BGR.
    """
    return kernel.flip(1)


def _plain_name(key: str) -> str:
    """A parameter's name in timm's whole model, from its name in timm's feature wrapper."""
    return re.sub(r"^([a-z]+)_(\d+)\.", r"\1.\2.", key.removeprefix("model."))


def _description(path: Path) -> tuple[tuple | None, tuple | None, str | None]:
    """mean, std and backbone from the file itself or a `config.json` beside it; None: unknown."""
    place, text = path, None
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(DESCRIPTION)
    if text is None:
        place = path.with_name("config.json")
        if not place.is_file():
            return None, None, None
    try:
        content = json.loads(place.read_text(encoding="utf-8") if text is None else text)
        found = _Description.model_validate(content)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{place}: expected timm's pretrained_cfg with mean and std, three numbers each "
            f"({problem(error)}); move the file away if another program wrote it"
        ) from error
    return found.pretrained_cfg.mean, found.pretrained_cfg.std, found.backbone


def locate(source: str, root: Path = Path()) -> Path:
    """The file that `network.weights` names, by path or `package:NAME/FILE`. Raises DataError."""
    place = f"network.weights: {source!r}"
    if "\0" in source:
        raise DataError(f"{place}: no such file")
    if not source.startswith("package:"):
        folder, path = None, root / source
    else:
        package, _, inside = source.removeprefix("package:").partition("/")
        folder = package_folder(package)
        if folder is None:
            raise DataError(
                f"{place}: no package {package!r} is installed; expected a name that Python "
                "imports, without dots, of a package with an __init__.py"
            )
        path = folder / inside
    if folder and not path.resolve().is_relative_to(folder.resolve()):
        raise DataError(
            f"{place}: this is outside of the package's folder, {folder}; give the path of the file"
        )
    if not path.is_file():
        raise DataError(f"{place}: no such file")
    return path


def read_state(path: Path, entry: str | None = None) -> dict[str, torch.Tensor]:
    """Read the named tensors of a file, all finite. Raises DataError.

    entry: name of the entry that holds them in a checkpoint, whose other entries are ignored; a
    file without this entry must hold the tensors themselves.
    """
    try:
        content = load_file(path) if path.suffix == ".safetensors" else load(path)
        if entry and isinstance(content, dict):
            # A file can give its dictionaries attributes of any name, also `get`.
            content = dict.get(content, entry, content)
        state = _TENSORS.validate_python(content)
        require_finite(path, state)
        return state
    except ValidationError:
        wanted = f", alone or as the entry {entry!r}" if entry else ""
        raise DataError(
            f"{path}: not readable as weights: expected a dictionary of named tensors{wanted}; "
            "save only the weights: torch.save(model.state_dict(), PATH). "
            "scripts/convert_weights.py converts checkpoints of the authors' code"
        ) from None
    except Unreadable as error:
        raise DataError(
            f"{path}: not readable as weights: {error}; expected a file of only tensors, as "
            "torch.save(model.state_dict(), PATH) writes it"
        ) from error
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (SafetensorError, RuntimeError, OSError, ValueError) as error:
        raise DataError(
            f"{path}: not readable as weights: not a whole file of safetensors "
            f"({type(error).__name__}); get the file again"
        ) from error


_TENSORS = TypeAdapter(
    dict[str, torch.Tensor], config=ConfigDict(arbitrary_types_allowed=True, strict=True)
)


# Blocks per group of EfficientNet-B0 and Lite0; efficientnet-pytorch numbers all blocks in a row.
_LITE0_REPEATS = (1, 2, 2, 3, 3, 4, 1)
_LITE0_TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head",
              "_bn1": "bn2", "_fc": "classifier"}  # fmt: skip
_LITE0_FIRST = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
_LITE0_BLOCK = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw",
                "_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3"}  # fmt: skip


def _timm_names(path: Path, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the weights of a Lite0 of efficientnet-pytorch to timm's names. Raises DataError."""
    places = [(s, i) for s, repeats in enumerate(_LITE0_REPEATS) for i in range(repeats)]
    renamed = {}
    try:
        for key, value in state.items():
            block = re.fullmatch(r"_blocks\.(\d+)\.(\w+?)\.(.+)", key)
            if block:
                group, place = places[int(block[1])]
                names = _LITE0_FIRST if group == 0 else _LITE0_BLOCK
                renamed[f"blocks.{group}.{place}.{names[block[2]]}.{block[3]}"] = value
            else:
                layer, _, rest = key.partition(".")
                renamed[f"{_LITE0_TOP[layer]}.{rest}"] = value
    except (IndexError, KeyError) as error:
        raise DataError(f"{path}: {shown(key)} is not a name in EfficientNet-Lite0") from error
    return renamed
