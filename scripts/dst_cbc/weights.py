"""Initial weights of a backbone: from a file or an installed package, never from a network."""

from __future__ import annotations

import importlib.util
import json
import pickle
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from .files import DataError


@dataclass(frozen=True)
class Weights:
    """A file of weights, under timm's names, and what must go with them.

    mean, std: of RGB in 0..1, as trained; None: as the backbone's name says. backbone: the only
    one whose padding and normalisation constants are those of the weights; None: any that fits.
    """

    path: Path
    state: dict[str, torch.Tensor]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    backbone: str | None = None


def read_weights(source: str, root: Path = Path()) -> Weights:
    """The weights that `network.weights` names. Raises DataError.

    A file of the Hugging Face hub has a `config.json` beside it, which says how images were
    normalised; it is believed.
    """
    path = locate(source, root)
    state = _read(path)
    if "_conv_stem.weight" in state:
        # Lite0 was converted from TensorFlow: (x - 127) / 128, SAME padding, epsilon 1e-3.
        mean, std = (127 / 255,) * 3, (128 / 255,) * 3
        return Weights(path, _timm_names(path, state), mean, std, "tf_efficientnet_lite0")
    return Weights(path, state, *_normalisation(path.with_name("config.json")))


def load_weights(network: nn.Module, backbone: str, weights: Weights) -> list[str]:
    """Load `weights` into `network`, a backbone that timm calls `backbone`.

    Every parameter of the network must be among them, with its shape; what they have beyond
    (the classifier, stages cut off) is left. Returns the names left. Raises DataError.
    """
    if weights.backbone not in (None, backbone):
        raise DataError(
            f"{weights.path}: these weights belong to {weights.backbone!r}, found network.backbone "
            f"{backbone!r}, whose padding and constants differ; set network.backbone"
        )
    wanted, state = network.state_dict(), weights.state
    source = {key: key if key in state else _plain_name(key) for key in wanted}
    missing = [
        key
        for key in wanted
        if source[key] not in state and not key.endswith("num_batches_tracked")
    ]
    found = {key: state[source[key]] for key in wanted if source[key] in state}
    wrong = [key for key in found if found[key].shape != wanted[key].shape]
    if missing or wrong:
        raise DataError(
            f"{weights.path}: does not fit the backbone: {len(missing)} of {len(wanted)} entries "
            f"missing{f' (first: {missing[0]})' if missing else ''}, {len(wrong)} of another shape"
            f"{f' (first: {wrong[0]})' if wrong else ''}"
        )
    network.load_state_dict({**wanted, **found})
    return sorted(set(state) - set(source.values()))


def _plain_name(key: str) -> str:
    """The name in timm's whole model of a parameter of its wrappers for features."""
    return re.sub(r"^([a-z]+)_(\d+)\.", r"\1.\2.", key.removeprefix("model."))


def _normalisation(config: Path) -> tuple[tuple | None, tuple | None]:
    if not config.is_file():
        return None, None
    try:
        made_for = json.loads(config.read_text())["pretrained_cfg"]
        return tuple(map(float, made_for["mean"])), tuple(map(float, made_for["std"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{config}: expected timm's pretrained_cfg with mean and std "
            f"({type(error).__name__}: {error}); move it away if it is another program's"
        ) from error


def locate(source: str, root: Path = Path()) -> Path:
    """The file that `network.weights` names: a path, or `package:NAME/FILE`."""
    if not source.startswith("package:"):
        path = root / source
    else:
        package, _, inside = source.removeprefix("package:").partition("/")
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise DataError(f"network.weights: {source!r}: no package {package!r} is installed")
        path = Path(spec.submodule_search_locations[0]) / inside
    if not path.is_file():
        raise DataError(f"network.weights: {source!r}: no such file")
    return path


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (
        SafetensorError,
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
    ) as error:
        raise DataError(f"{path}: not readable as weights ({error})") from error


# Blocks per stage of EfficientNet-B0 and Lite0; efficientnet-pytorch numbers them through.
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
    """Names of efficientnet-pytorch (Lite0) to timm's."""
    places = [(s, i) for s, repeats in enumerate(_LITE0_REPEATS) for i in range(repeats)]
    renamed = {}
    try:
        for key, value in state.items():
            block = re.fullmatch(r"_blocks\.(\d+)\.(\w+?)\.(.+)", key)
            if block:
                stage, place = places[int(block[1])]
                names = _LITE0_FIRST if stage == 0 else _LITE0_BLOCK
                renamed[f"blocks.{stage}.{place}.{names[block[2]]}.{block[3]}"] = value
            else:
                layer, _, rest = key.partition(".")
                renamed[f"{_LITE0_TOP[layer]}.{rest}"] = value
    except (IndexError, KeyError) as error:
        raise DataError(f"{path}: {key!r} is not a name of EfficientNet-Lite0") from error
    return renamed
