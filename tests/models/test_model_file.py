import hashlib
import io
import os
import pickle
import random
import re
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from dst_cbc.models import segmentation, torch_files
from dst_cbc.models.model_file import digest, read_checkpoint
from dst_cbc.models.segmentation import build, model_bytes, read_model
from dst_cbc.models.weights import read_weights
from dst_cbc.runtime.errors import DataError
from dst_cbc.settings.network import NetworkSettings

CLASSES = {"sky": "#0000ff", "road": "#808080"}
MODEL = build(NetworkSettings(backbone="small", output_stride=4, aspp_rates=(1,)), CLASSES)
RECORD = {"round": 2, "step": 40, "selected_on": "val", "score": 61.5}
STATE = MODEL.network.state_dict()
NAN, INF = float("nan"), float("inf")
STUDY = Path(__file__).parents[1] / "rules/studies/finished.tar.xz"
CHANGED = "a damaged model file: its content has changed since it was written: found SHA-256 "


def content():
    """The content of a valid model file, which a test may change."""
    file = io.BytesIO(model_bytes(MODEL, STATE, RECORD))
    return torch.load(file, weights_only=True)


def older():
    """The content of a valid model file of format 1, which has no digest."""
    return {k: v for k, v in content().items() if k != "sha256"} | {"format": 1}


def weights(**changed):
    return STATE | {key.replace("__", "."): value for key, value in changed.items()}


def refused(path, message):
    """Assert that the file is refused by name in one short line that a terminal shows as it is."""
    with pytest.raises(DataError) as refusal:
        read_model(path)
    said = str(refusal.value).removeprefix(f"{path}: ")
    assert re.match(message, said) and said.isprintable() and len(said) < 500, said


def deep(depth=200):
    """Lists in lists that share their parts: written out, they have 2 to the 200 values."""
    nested = [1]
    for _ in range(depth):
        nested = [nested, nested]
    return nested


HOSTILE = [
    ("classes", {"a\nb": "#000000", "c": "#000000"}, r"classes\.a\\nb"),
    ("classes", {"a\x1b[31m": "#000000", "c": "#000000"}, r"classes\.a\\x1b\[31m"),
    ("classes", {"<b>": "#000000", "c": "#000000"}, r"classes\.<b>"),
    ("classes", {"\0": "#000000", "c": "#000000"}, r"classes\.\\x00"),
    ("classes", {"a" * 10**6: "#000000", "c": "#000000"}, r"classes\.a+\.\.\.a+"),
    ("classes", {}, "classes: found {}"),
    ("classes", {f"c{i}": "#000000" for i in range(256)}, "classes: found"),
    ("classes", {**CLASSES, "car": "#000000"}, r"state: 'head\.0\.weight'"),
    ("classes", ["sky", "road"], "classes: found"),
    ("classes", deep(), "classes: found"),
    ("classes", {"sky": "#00000g", "road": "#808080"}, r"classes\.sky"),
    ("classes", {"sky": [0, 0, 256], "road": "#808080"}, r"classes\.sky"),
    ("mean", [0.5, NAN, 0.5], r"mean\.1: found nan"),
    ("mean", [0.5, 0.5, -0.1], r"mean\.2: found -0\.1"),
    ("mean", [0.5, 0.5, 300.0], r"mean\.2: found 300"),
    ("mean", [0.5, 0.5], r"mean\.2: missing"),
    ("mean", [0.5] * 4, "mean: found"),
    ("std", [0.0, 1.0, 1.0], r"std\.0: found 0\.0"),
    ("std", [1.0, INF, 1.0], r"std\.1: found inf"),
    ("std", "fff", r"std: found 'fff'"),
    ("window", [5, 5], r"window: found \[5, 5\]"),
    ("window", [-1, 5], r"window\.0: found -1"),
    ("window", [0, 2**40], r"window\.1"),
    ("window", [0.5, 1.5], r"window\.0: found 0\.5"),
    ("bands", [1, 2], r"bands: found \[1, 2\]; expected one channel"),
    ("bands", [0], r"bands\.0\.constrained-int: found 0"),
    ("bands", [2**40], r"bands\.0"),
    ("record", {**RECORD, "step": -1}, r"record\.step: found -1"),
    ("record", {**RECORD, "score": NAN}, r"record\.score: found nan"),
    ("record", {**RECORD, "selected_on": "|x|"}, r"record\.selected_on: found '\|x\|'"),
    ("record", {**RECORD, "note": "x"}, r"record\.note: found 'x'"),
    ("record", {}, r"record\.round: missing"),
    ("state", weights(head__0__bias=torch.zeros(2).long()), r"state: 'head\.0\.bias': found int64"),
    ("state", weights(head__0__bias=torch.zeros(2).double()), r"state: .* found float64"),
    ("state", weights(head__0__bias=torch.zeros(3)), r"state: .* found float32 \[3\], expected"),
    ("state", weights(head__0__bias=torch.tensor([0, NAN])), r"state: .* found NaN"),
    ("state", weights(more=torch.zeros(2)), r"state: 'more': found float32 \[2\], expected none"),
    ("state", weights(head__0__bias=None), r"state\.head\.0\.bias: found None"),
    ("state", {k: torch.zeros(()).expand(v.shape) for k, v in STATE.items()}, "state: .* bytes"),
    ("more", 1, "more: found 1"),
]  # fmt: skip


@pytest.mark.parametrize(
    "field, value, message", HOSTILE, ids=[message[:25] for *_, message in HOSTILE]
)
def test_a_field_that_no_experiment_could_have_is_refused_by_name(field, value, message, tmp_path):
    torch.save({**older(), field: value}, tmp_path / "m.pt")
    refused(tmp_path / "m.pt", f"a damaged model file: {message}")


@pytest.mark.parametrize(
    "field", ["network", "classes", "mean", "std", "window", "record", "state"]
)
def test_a_field_that_is_missing_is_named(field, tmp_path):
    torch.save({k: v for k, v in content().items() if k != field}, tmp_path / "m.pt")
    refused(tmp_path / "m.pt", f"a damaged model file: {field}: missing")


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("backbone", "x" * 10**6, r"a damaged model file: network\.backbone: found 'xxx"),
        ("backbone", "no\nmodel", r"network\.backbone: 'no\\nmodel' is not in timm"),
        ("backbone", "resnet18", r"network: 'resnet18' cannot be built with output_stride 4"),
        ("output_stride", 3, r"a damaged model file: network\.output_stride: found 3"),
        ("stages", 0, r"a damaged model file: network\.stages: found 0"),
        ("aspp_rates", [0], r"a damaged model file: network\.aspp_rates\.0: found 0"),
        ("aspp_rates", [2**40], r"a damaged model file: network\.aspp_rates\.0"),
        ("aspp_rates", [1] * 10**5, r"a damaged model file: network\.aspp_rates: found"),
        ("aspp_rates", [1, 1], r"a damaged model file: state: 'head\.1\.weight': found none"),
        ("input_scale", 1e-300, r"a damaged model file: network\.input_scale"),
        ("weights", "x" * 10**6, r"a damaged model file: network\.weights"),
        ("heads", 1, r"a damaged model file: network\.heads: found 1"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_network_that_cannot_be_is_refused_by_its_key(key, value, message, tmp_path):
    changed = older()
    changed["network"][key] = value
    torch.save(changed, tmp_path / "m.pt")
    refused(tmp_path / "m.pt", message)


def test_a_head_with_an_unknown_name_is_refused(tmp_path):
    changed = older()
    del changed["network"]["aspp_rates"]
    changed["network"]["head"] = {"name": "os"}
    torch.save(changed, tmp_path / "m.pt")
    refused(tmp_path / "m.pt", r"a damaged model file: network\.head\.name: found 'os'")


@pytest.mark.parametrize(
    "found", [0, 3, True, None, "1", torch.zeros(2), deep()], ids=list("abcdefg")
)
def test_a_file_of_another_format_is_refused(found, tmp_path):
    torch.save({**content(), "format": found}, tmp_path / "m.pt")
    refused(tmp_path / "m.pt", "not a model file of format 1 or 2 ")


def test_a_network_larger_than_its_file_never_gets_memory(tmp_path, monkeypatch):
    devices, assemble = [], segmentation._assemble

    def spied(*arguments):
        devices.append(torch.get_default_device().type)
        return assemble(*arguments)

    monkeypatch.setattr(segmentation, "_assemble", spied)
    changed = older()
    changed["network"] |= {"backbone": "resnet152", "output_stride": 32}
    torch.save(changed, tmp_path / "m.pt")
    refused(tmp_path / "m.pt", "a damaged model file: state: .* expected float32")
    assert devices == ["meta"]


def archive(path, data, packed=zipfile.ZIP_STORED):
    """Write a file that torch takes for one of torch.save; data: its pickle."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", data, packed)
        file.writestr("archive/data/0", bytes(10**6), packed)
        file.writestr("archive/version", "3\n")


GOOD = pickle.dumps({"format": 1}, 2)
BOMB = b"\x80\x02cbuiltins\nbytearray\n\x8a\x05\0\0\0\0\x10\x85R."
"""A pickle of twenty bytes that makes an array of 64 GiB."""


@pytest.mark.parametrize(
    "data, packed, message",
    [
        (BOMB, zipfile.ZIP_STORED, "holds code, builtins.bytearray, which was not run"),
        (GOOD, zipfile.ZIP_DEFLATED, r"its parts have 10000\d\d bytes when unpacked, but the file"),
        (b"\x80\x02" + b"N" * 60 + b".", zipfile.ZIP_STORED, "found too many values"),
        (pickle.dumps("x" * 200, 2), zipfile.ZIP_STORED, "found 2.. bytes of names"),
    ],
    ids=["array", "packed", "values", "names"],
)  # fmt: skip
def test_a_small_file_gets_no_large_memory(data, packed, message, tmp_path, monkeypatch):
    monkeypatch.setattr(torch_files, "MOST_STEPS", 50)
    monkeypatch.setattr(torch_files, "LONGEST", 150)
    archive(tmp_path / "m.pt", data, packed)
    refused(tmp_path / "m.pt", f"not a readable checkpoint: {message}")


@pytest.mark.parametrize("zipped", [True, False])
def test_only_plain_tensors_are_read(zipped, tmp_path):
    for value in (torch.tensor(1j), torch.eye(2).to_sparse(), torch.empty(9, device="meta"), {1j}):
        torch.save({"a": value}, tmp_path / "m.pt", _use_new_zipfile_serialization=zipped)
        refused(tmp_path / "m.pt", "not a readable checkpoint: holds code, .*, which was not run")


class Replaced:
    """Pickled as an OrderedDict that has attributes in place of its methods."""

    def __init__(self, items):
        self.items = items

    def __reduce__(self):
        methods = dict.fromkeys(("keys", "items", "get", "__iter__"), 5)
        return OrderedDict, (), methods, None, iter(self.items.items())


def test_a_dictionary_whose_methods_the_file_has_replaced_does_no_harm(tmp_path):
    torch.save(Replaced({"a": torch.ones(2)}), tmp_path / "w.pt")
    torch.save(Replaced(content()), tmp_path / "m.pt")
    with pytest.raises(DataError, match=r"w\.pt: not readable .* named tensors"):
        read_weights("w.pt", tmp_path)
    assert read_model(tmp_path / "m.pt").classes == CLASSES


@pytest.mark.parametrize("make, found", [(os.mkdir, "a folder"), (os.mkfifo, "a pipe")])
def test_a_folder_and_a_pipe_are_no_checkpoints(make, found, tmp_path):
    make(tmp_path / "m.pt")
    with pytest.raises(DataError, match=rf"m\.pt: found {found}"):
        read_checkpoint(tmp_path / "m.pt")


# --------------------------------------------------------------------------- damage


@pytest.fixture(scope="module")
def earlier():
    """A model file of format 1 that an earlier version wrote."""
    with tarfile.open(STUDY) as archive:
        return archive.extractfile("results/tiny/3_0/supervised/model.pt").read()


def said_by(path):
    """All that a model file says, as plain values, and its weights."""
    model = read_model(path)
    fields = (model.settings, model.classes, model.mean, model.std, model.window, model.record)
    return repr(fields), model.network.state_dict()


def test_a_model_file_of_an_earlier_version_is_read(earlier, tmp_path):
    (tmp_path / "m.pt").write_bytes(earlier)
    found = torch.load(tmp_path / "m.pt", weights_only=True)
    model = read_model(tmp_path / "m.pt")
    assert found["format"] == 1 and "sha256" not in found
    assert model.record == found["record"] and list(model.classes) == list(found["classes"])
    assert all(torch.equal(v, found["state"][k]) for k, v in model.network.state_dict().items())


@pytest.mark.parametrize("number", [1, 2])
def test_a_flipped_bit_is_found_or_changes_nothing(number, earlier, tmp_path):
    path, draw, found = tmp_path / "m.pt", random.Random(number), 0
    path.write_bytes(earlier)
    if number == 2:
        model = read_model(path)
        path.write_bytes(model_bytes(model, model.network.state_dict(), model.record))
    whole, (fields, state) = path.read_bytes(), said_by(path)
    for _ in range(300):
        flipped = bytearray(whole)
        flipped[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        try:
            now, values = said_by(path)
        except DataError as error:
            assert str(error).startswith(f"{path}: ") and str(error).isprintable()
            found += 1
        else:
            assert now == fields and all(torch.equal(values[key], state[key]) for key in state)
    assert found > 200  # most bits belong to a weight


def test_a_flipped_bit_of_a_weight_is_explained(earlier, tmp_path):
    part = "not a readable checkpoint: its part 'data/0' has changed since it was written: found a "
    for whole, message in ((earlier, part), (model_bytes(MODEL, STATE, RECORD), CHANGED)):
        state = torch.load(io.BytesIO(whole), weights_only=True)["state"]
        at = whole.index(next(iter(state.values())).numpy().tobytes())
        (tmp_path / "m.pt").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        refused(tmp_path / "m.pt", f"{message}.*; get the file again from where it came, or remove")


@pytest.mark.parametrize(
    "change",
    [
        {"state": weights(head__0__bias=STATE["head.0.bias"] + torch.tensor([0, 1e-6]))},
        {"state": dict(reversed(STATE.items()))},
        {"mean": [0.5, 0.5, 0.6]},
        {"std": [0.25, 0.25, 0.3]},
        {"window": [0, 255]},
        {"bands": [3, 2, 1]},
        {"record": {**RECORD, "score": 61.6}},
        {"record": {"round": 2, "step": 40}},
        {"classes": {"road": "#808080", "sky": "#0000ff"}},
        {"classes": {**CLASSES, "sky": "#0000fe"}},
        {"network": {**content()["network"], "input_scale": 0.5}},
        {"sha256": "0" * 64},
        {"sha256": torch.zeros(2)},
    ],
    ids=lambda change: str(change)[:50],
)
def test_a_file_that_was_changed_and_saved_again_is_refused(change, tmp_path):
    torch.save({**content(), **change}, tmp_path / "m.pt")
    refused(tmp_path / "m.pt", CHANGED)
    torch.save({**older(), **change, "format": 2}, tmp_path / "m.pt")
    refused(tmp_path / "m.pt", CHANGED)


def test_a_file_of_format_1_has_no_digest(tmp_path):
    torch.save({**content(), "format": 1}, tmp_path / "m.pt")
    refused(tmp_path / "m.pt", "a damaged model file: sha256: found '")


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("state", weights(head__0__bias=torch.zeros(3)), r"state: .*\[3\], expected float32 \[2\]"),
        ("state", weights(head__0__bias=torch.tensor([0, NAN])), "state: .* found NaN"),
        ("record", {**RECORD, "step": -1}, r"record\.step: found -1"),
    ],
)  # fmt: skip
def test_a_digest_that_fits_excuses_no_other_fault(field, value, message, tmp_path):
    changed = {**content(), field: value}
    torch.save({**changed, "sha256": digest(changed)}, tmp_path / "m.pt")
    refused(tmp_path / "m.pt", f"a damaged model file: {message}")


@pytest.mark.parametrize(
    "change",
    [{"mean": [torch.tensor(0.5)] * 3}, {"record": Replaced(RECORD)}],
    ids=["tensors", "methods"],
)
def test_a_value_that_json_does_not_have_is_refused(change, tmp_path):
    torch.save({**content(), **change}, tmp_path / "m.pt")
    refused(tmp_path / "m.pt", "a damaged model file: found a value that is no plain number, text,")


def test_the_digest_is_that_of_the_fields_as_json_and_the_bytes_of_the_tensors():
    """Worked out by hand, because files of this version must be read by later ones."""
    state = {
        "a": torch.tensor([[1.0, 2.0], [-2.0, 0.0]]).bfloat16().T,  # bytes 3f80 c000 4000 0000
        "b": torch.tensor(258),
        "c": torch.tensor([True, False]),
        "d": torch.zeros(0, 3),
    }
    said = (
        '[{"format":2,"classes":{"z":"#000000","\\u00e9":"#ffffff"},"mean":[0.1],"window":null},'
        '[["a","torch.bfloat16",[2,2]],["b","torch.int64",[]],["c","torch.bool",[2]],'
        '["d","torch.float32",[0,3]]]]'
    )
    numbers = "803f 00c0 0040 0000" + "0201 0000 0000 0000" + "01 00"
    classes = {"z": "#000000", "é": "#ffffff"}
    fields = {"format": 2, "classes": classes, "mean": (0.1,), "window": None, "state": state}
    expected = hashlib.sha256(said.encode() + bytes.fromhex(numbers)).hexdigest()
    assert digest(fields) == digest({**fields, "sha256": "another"}) == expected
