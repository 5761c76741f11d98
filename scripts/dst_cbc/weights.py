"""Initial weights of a backbone: from a file or an installed package, never from a network."""

from __future__ import annotations

import importlib.util
import pickle
import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from .files import DataError


def load_backbone_weights(backbone: nn.Module, source: str, root: Path = Path()) -> list[str]:
    """Load `source` into `backbone`.

    Every parameter of the backbone must be in the file, with its shape; what the file has beyond
    (the classifier, stages cut off) is left. Returns the names left. Raises DataError.
    """
    path = locate(source, root)
    state = _timm_names(_read(path))
    wanted = backbone.state_dict()
    missing = [
        key for key in wanted if key not in state and not key.endswith("num_batches_tracked")
    ]
    wrong = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
    if missing or wrong:
        raise DataError(
            f"{path}: does not fit the backbone: {len(missing)} of {len(wanted)} entries missing"
            f"{f' (first: {missing[0]})' if missing else ''}, {len(wrong)} of another shape"
            f"{f' (first: {wrong[0]})' if wrong else ''}"
        )
    backbone.load_state_dict({**wanted, **{key: state[key] for key in wanted if key in state}})
    return [key for key in state if key not in wanted]


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


def _timm_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names of efficientnet-pytorch (Lite0) to timm's; anything else unchanged."""
    if "_conv_stem.weight" not in state:
        return state
    places = [(s, i) for s, repeats in enumerate(_LITE0_REPEATS) for i in range(repeats)]
    renamed = {}
    for key, value in state.items():
        block = re.fullmatch(r"_blocks\.(\d+)\.(\w+?)\.(.+)", key)
        if block:
            stage, place = places[int(block[1])]
            names = _LITE0_FIRST if stage == 0 else _LITE0_BLOCK
            renamed[f"blocks.{stage}.{place}.{names[block[2]]}.{block[3]}"] = value
        else:
            layer, _, rest = key.partition(".")
            renamed[f"{_LITE0_TOP[layer]}.{rest}"] = value
    return renamed
