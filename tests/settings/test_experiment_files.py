import copy
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dst_cbc.settings.choices import DeepLabV2
from dst_cbc.settings.experiment_files import load_experiment, load_methods, merge
from dst_cbc.settings.methods import MethodRow
from dst_cbc.settings.network import NetworkSettings
from dst_cbc.settings.yaml_files import ConfigError, read_yaml
from workflow import REPOSITORY

PRESETS = {
    "standard": {},
    "paper": {"train": {"learning_rate": 0.002, "epochs": 6}, "network": {"output_stride": 8}},
}
BASE = {
    "name": "study",
    "data": "pictures",
    "format": "digits",
    "train": {"batch": 4, "augmentation": {"rotation": 5}},
    "splits": {"few": {"count": 4}},
    "runs": [{"splits": ["few"], "methods": ["dst-cbc"]}],
}


@pytest.fixture
def write(tmp_path):
    """Function that writes YAML (text or content) and returns its path."""

    def to(name, content):
        text = content if isinstance(content, str) else yaml.safe_dump(content)
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return to


@pytest.fixture
def refused(write):
    """Function that returns the error message for BASE with some keys changed, or for `files`."""

    def message(*files, overrides=None, **changes):
        files = files or [write("base.yaml", {**BASE, **changes})]
        with pytest.raises(ConfigError) as error:
            load_experiment(files, PRESETS, overrides)
        return str(error.value)

    return message


def test_a_file_becomes_typed_settings_with_defaults(write):
    experiment = load_experiment([write("a.yaml", BASE)], PRESETS)
    assert experiment.name == "study" and experiment.train.batch == 4
    assert experiment.train.gamma == 9 and experiment.evaluation.select == "val"
    assert experiment.runs[0].seeds == (0,)


@pytest.mark.parametrize(
    "changes, place, close",
    [
        ({"trian": {}}, "trian", "train"),
        ({"train": {"gama": 1}}, "train.gama", "gamma"),
        ({"train": {"augmentation": {"rotaton": 1}}}, "train.augmentation.rotaton", "rotation"),
        ({"supervised": {"stpes": 1}}, "supervised.stpes", "steps"),
        ({"runs": [{**BASE["runs"][0], "seed": [1]}]}, "runs.0.seed", "seeds"),
        ({"splits": {"few": {"cuont": 3}}}, "splits.few.cuont", "count"),
        ({"by_split": {"few": {"gama": 3}}}, "by_split.few.gama", "gamma"),
        ({"switches": {"ruel": "threshold"}}, "switches.ruel", "rule"),
        ({"prediction": {"sice": [9, 9]}}, "prediction.sice", "size"),
        (
            {"splits": {"few": {"files": {"labelled": "a", "unlabeled": "b"}}}},
            "splits.few.files.labelled",
            "labeled",
        ),
    ],
)
def test_an_unknown_key_is_refused_with_its_file_and_the_nearest_known_one(
    changes, place, close, refused
):
    text = refused(**changes)
    assert f"base.yaml: {place}: unknown key; did you mean '{close}'?" in text


def test_a_key_like_no_other_is_refused_with_all_known_ones(refused):
    text = refused(evaluation={"xyzzy": 1})
    assert (
        "evaluation.xyzzy: unknown key; known: batch, candidates, masks, pad, pad_colour, report"
        in text
    )


@pytest.mark.parametrize(
    "changes, place, found, expected",
    [
        ({"train": {"batch": "many"}}, "train.batch", "'many'", "integer"),
        ({"train": {"batch": 0}}, "train.batch", "0", "greater than or equal to 1"),
        ({"train": 5}, "train", "5", "dictionary"),
        ({"format": "cocoa"}, "format", "'cocoa'", "'pairs' or 'voc'"),
        ({"evaluation": {"select": "test"}}, "evaluation.select", "'test'", "'val'"),
        ({"runs": 3}, "runs", "3", "expected a list"),
        ({"ignore": 255}, "ignore", "255", "expected a list, in brackets: [255]"),
        ({"ignore": "#ff0000"}, "ignore", "'#ff0000'", "expected a list, in brackets: ['#ff0000']"),
        ({"labels": {0: False}}, "labels.0", "False",
         "expected text: no, off and false are text only in quotes, such as 'no'"),
        ({"name": True}, "name", "True", "only in quotes, such as 'yes'"),
        ({"runs": []}, "runs", "[]", "at least 1"),
        ({"name": "../up"}, "name", "'../up'", "match pattern"),
        ({"train": {"crop": [32]}}, "train.crop", "[32]", ""),
        ({"train": {"learning_rate": float("nan")}}, "train.learning_rate", "nan", "finite"),
        ({"train": {"augmentation": {"scale": [2, 1]}}}, "train.augmentation.scale", "[2, 1]",
         "must not be above"),
        ({"splits": {"few": {"count": 1, "divide": 2}}}, "splits.few", "", "exactly one"),
        ({"splits": {"a/b": {"count": 1}}}, "splits.a/b", "'a/b'", "match pattern"),
        ({"network": {"output_stride": 5}}, "network.output_stride", "5", "4, 8, 14, 16 or 32"),
        ({"preset": "papre"}, "preset", "'papre'", "'standard', 'paper' or 'released'"),
        ({"preset": ["paper"]}, "preset", "['paper']", "'standard', 'paper' or 'released'"),
        ({"switches": {"rule": "threshhold"}}, "switches.rule", "'threshhold'",
         "'threshold' or 'normalized'"),
        ({"switches": {"threshold_sampling": 8}}, "switches.threshold_sampling", "8", "1 or 16"),
        ({"prediction": {"size": [321]}}, "prediction.size", "[321]", ""),
        ({"evaluation": {"pad": [0, 9]}}, "evaluation.pad.0", "0", "greater than or equal to 1"),
        ({"train": {"batch": 10**9}}, "train.batch", "1000000000", "or equal to 65536"),
        ({"train": {"gpus": 10**9}}, "train.gpus", "1000000000", "or equal to 1024"),
        ({"train": {"crop": [9, 10**9]}}, "train.crop.1", "1000000000", "or equal to 65536"),
        ({"train": {"augmentation": {"scale": [1, 1e9]}}}, "train.augmentation.scale.1",
         "1000000000.0", "or equal to 100"),
        ({"workers": 10**9}, "workers", "1000000000", "or equal to 1024"),
        ({"compute_threads": 10**9}, "compute_threads", "1000000000", "or equal to 1024"),
        ({"container": "x;id>pwned;exit"}, "container", "x;id>pwned;exit", "match pattern"),
        ({"container": "--app x"}, "container", "--app x", "match pattern"),
        ({"digits": {"train": 10**9}}, "digits.train", "1000000000", "or equal to 100000"),
        ({"digits": {"size": 10**9}}, "digits.size", "1000000000", "or equal to 4096"),
        ({"digits": {"digit_size": [9, 1e9]}}, "digits.digit_size.1", "1000000000.0", "to 4096"),
        ({"digits": {"stains": 10**9}}, "digits.stains", "1000000000", "or equal to 1000"),
        ({"network": {"aspp_rates": [10**9]}}, "network.aspp_rates.0", "1000000000", "to 1000"),
        ({"network": {"aspp_rates": [1] * 65}}, "network.aspp_rates", "", "at most 64"),
        ({"evaluation": {"batch": 10**9}}, "evaluation.batch", "1000000000", "or equal to 65536"),
        ({"evaluation": {"report": ["val"] * 4}}, "evaluation.report", "", "at most 3"),
        ({"switches": {"curriculum": [0.1] * 1001}}, "switches.curriculum", "", "at most 1000"),
        ({"switches": {"curriculum": ["1e-999999"]}}, "switches.curriculum.0", "'1e-999999'",
         "no more than 30 decimal places"),
        ({"switches": {"curriculum": [True]}}, "switches.curriculum.0", "True", "valid decimal"),
        ({"switches": {"snapshots": 10**9}}, "switches.snapshots", "1000000000", "to 1000"),
        *(({"pairs": {"labels": "a", "group": group}}, "pairs.group", "", reason)
          for group, reason in (
              ("(a{99999999999})", "the repetition number is too large"),
              ("(" * 999 + ")", "not a valid regular expression"),
              ("(a)" * 400, "at most 1000 characters"))),
        *(({"group": group}, "group", "", reason)
          for group, reason in (
              ("^slide", "expected a part in parentheses"),
              (0, "greater than or equal to 1"),
              (True, "valid integer"))),
        ({"train": {"augmentation": {"size": [[9, 9], [8, 9]]}}}, "train.augmentation.size",
         "[[9, 9], [8, 9]]", "must not be above"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_with_file_key_found_and_expected(
    changes, place, found, expected, refused
):
    text = refused(**changes)
    assert f"base.yaml: {place}: " in text and found in text and expected in text


@pytest.mark.parametrize("key", ["prediction", "evaluation"])
def test_a_size_for_the_network_and_a_scale_beside_it_are_refused(key, refused):
    text = refused(network={"input_scale": 0.5}, **{key: {"size": [64, 96]}})
    assert f"base.yaml: network.input_scale: found 0.5, but {key}.size is [64, 96]" in text
    assert "set input_scale to 1" in text


def test_every_fault_is_named_at_once(refused):
    text = refused(trian={}, train={"batch": "many"}, runs=3)
    assert len(text.splitlines()) == 3


@pytest.mark.parametrize("key", ["name", "data", "format", "splits", "runs"])
def test_a_missing_key_is_named(key, write, refused):
    file = write("short.yaml", {k: v for k, v in BASE.items() if k != key})
    assert f"short.yaml: {key}: missing" in refused(file)


def test_the_content_of_a_file_is_as_good_as_the_file(write, refused, tmp_path, monkeypatch):
    assert load_experiment([BASE], PRESETS) == load_experiment([write("a.yaml", BASE)], PRESETS)
    monkeypatch.chdir(tmp_path)
    content = {"extends": "a.yaml", "runs": [{"splits": ["few"], "methods": ["st"]}]}
    assert load_experiment([content], PRESETS).runs[0].methods == ("st",)
    assert refused({**BASE, "trian": 1}).startswith("config: trian: unknown key; did you mean 'tr")


def test_several_files_merge_left_to_right_key_by_key(write):
    first = write("1.yaml", BASE)
    second = write("2.yaml", {"train": {"augmentation": {"flip": 0}, "gamma": 3}, "name": "other"})
    third = write("3.yaml", {"train": {"gamma": 2}})
    experiment = load_experiment([first, second, third], PRESETS)
    assert experiment.name == "other"
    assert experiment.train.augmentation.rotation == 5 and experiment.train.augmentation.flip == 0
    assert experiment.train.gamma == 2


def test_a_fault_names_the_file_that_holds_the_key(write, refused):
    first, second = write("1.yaml", BASE), write("2.yaml", {"train": {"gama": 3}})
    assert "2.yaml: train.gama" in refused(first, second)
    third = write("3.yaml", {"train": {"batch": "x"}})
    assert "3.yaml: train.batch" in refused(first, third)


def test_lists_are_replaced_and_not_joined(write):
    more = write("2.yaml", {"runs": [{"splits": ["few"], "methods": ["st"]}]})
    experiment = load_experiment([write("1.yaml", BASE), more], PRESETS)
    assert [run.methods for run in experiment.runs] == [("st",)]


def test_config_overrides_every_file_and_is_named(write, refused):
    file = write("1.yaml", BASE)
    experiment = load_experiment([file], PRESETS, {"data": "elsewhere", "train": {"gamma": 1}})
    assert experiment.data == "elsewhere" and experiment.train.gamma == 1
    assert experiment.train.batch == 4
    assert "--config: train.gamma: found 'x'" in refused(file, overrides={"train": {"gamma": "x"}})
    assert "--config: dta: unknown key; did you mean 'data'?" in refused(file, overrides={"dta": 1})


def test_the_preset_lies_beneath_every_file(write):
    file = write("1.yaml", {**BASE, "preset": "paper"})
    experiment = load_experiment([file], PRESETS, {"network": {"output_stride": 16}})
    assert experiment.train.learning_rate == 0.002 and experiment.train.epochs == 6
    assert experiment.train.batch == 4 and experiment.network.output_stride == 16
    plain = load_experiment([write("2.yaml", BASE)], {"standard": {"train": {"gamma": 4}}})
    assert plain.train.gamma == 4


def test_an_extending_file_adds_splits_and_has_its_own_runs(write):
    write("base.yaml", BASE)
    more = write(
        "more.yaml",
        {
            "extends": "base.yaml",
            "splits": {"many": {"divide": 2}},
            "runs": [{"splits": ["many"], "methods": ["st"]}],
        },
    )
    experiment = load_experiment([more], PRESETS)
    assert experiment.name == "study" and set(experiment.splits) == {"few", "many"}
    assert [run.methods for run in experiment.runs] == [("st",)]


def test_an_extending_file_without_runs_only_reports_those_of_the_other(write):
    write("base.yaml", {**BASE, "report": {"title": "Base"}})
    paper = {"dst-cbc": {"few": 70.5}}
    more = write("more.yaml", {"extends": "base.yaml", "report": {"name": "t", "paper": paper}})
    experiment = load_experiment([more], PRESETS)
    assert experiment.runs == load_experiment([write("1.yaml", BASE)], PRESETS).runs
    report = {"name": "t", "title": "Base", "paper": paper}
    assert experiment.report.model_dump(exclude_defaults=True) == report


def test_an_extending_file_can_be_extended_from_another_folder(write, tmp_path):
    write("base.yaml", BASE)
    (tmp_path / "tables").mkdir()
    write("tables/1.yaml", {"extends": "../base.yaml", "runs": BASE["runs"]})
    again = write("tables/2.yaml", {"extends": "1.yaml", "splits": {"many": {"divide": 2}}})
    assert set(load_experiment([again], PRESETS).splits) == {"few", "many"}


@pytest.mark.parametrize("key", ["train", "data", "evaluation", "trian"])
def test_an_extending_file_changes_nothing_that_is_shared(key, write, refused):
    write("base.yaml", BASE)
    more = write("more.yaml", {"extends": "base.yaml", key: {}})
    assert f"more.yaml: {key}: a file that extends another may only add" in refused(more)


def test_an_extending_file_keeps_the_name(write, refused):
    write("base.yaml", BASE)
    more = write("more.yaml", {"extends": "base.yaml", "name": "new"})
    assert "more.yaml: name: found 'new'" in refused(more)
    same = write("same.yaml", {"extends": "base.yaml", "name": "study"})
    assert load_experiment([same], PRESETS).name == "study"


def test_an_extending_file_redefines_no_split(write, refused):
    write("base.yaml", BASE)
    more = write("more.yaml", {"extends": "base.yaml", "splits": {"few": {"count": 5}}})
    assert "more.yaml: splits.few: the extended file defines this split" in refused(more)


@pytest.mark.parametrize("key", ["splits", "runs"])
def test_a_base_without_runs_or_splits_of_its_own_can_be_extended(key, write):
    write("base.yaml", {k: v for k, v in BASE.items() if k != key})
    more = write("more.yaml", {"extends": "base.yaml", key: BASE[key]})
    assert (
        load_experiment([more], PRESETS).canonical()
        == load_experiment([write("whole.yaml", BASE)], PRESETS).canonical()
    )


@pytest.mark.parametrize("key, value", [("splits", 3), ("runs", 3), ("runs", {"a": 1})])
def test_an_extending_file_with_values_of_another_kind_is_refused(key, value, write, refused):
    write("base.yaml", BASE)
    more = write("more.yaml", {"extends": "base.yaml", key: value})
    assert f"more.yaml: {key}" in refused(more)


def test_a_target_that_is_taken_for_an_experiment_file_is_named_with_the_command_to_write(
    write, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    target = Path("results/tiny/metrics.json")
    target.parent.mkdir(parents=True)
    target.write_text('{"name": "other"}')
    with pytest.raises(ConfigError, match=rf"snakemake --cores all {target} --configfile FILE"):
        load_experiment([write("a.yaml", BASE), target.absolute()], {})


def test_files_that_extend_each_other_are_refused(write, refused):
    write("1.yaml", {"extends": "2.yaml"})
    assert "extends itself" in refused(write("2.yaml", {"extends": "1.yaml"}))


def test_a_file_to_extend_that_is_missing_is_named(write, refused):
    assert "none.yaml: cannot be read" in refused(write("a.yaml", {"extends": "none.yaml"}))


@pytest.mark.parametrize(
    "text", ["name: a\ndata: b\nname: c\n", "train:\n  batch: 4\n  batch: 8\n"]
)
def test_a_key_that_occurs_twice_is_refused_with_its_place(text, write, refused):
    message = refused(write("twice.yaml", text))
    assert "twice.yaml" in message and "occurs twice" in message and "line" in message


@pytest.mark.parametrize(
    "text", ["name: !!python/object/apply:os.system ['touch {}']", "!!python/object:os.X {{}}"]
)
def test_yaml_that_asks_for_code_is_refused_and_runs_nothing(text, write, refused, tmp_path):
    trace = tmp_path / "ran"
    assert "not valid YAML" in refused(write("evil.yaml", text.format(trace)))
    assert not trace.exists()


def test_aliases_that_grow_without_bounds_are_refused_at_once(write, refused):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    assert "more than 100000 values" in refused(write("bomb.yaml", "\n".join(lines)))
    assert "more than 100000 values" in refused(write("loop.yaml", "a: &a [*a]\n"))


def test_ordinary_aliases_are_as_good_as_what_they_stand_for(write):
    text = "train: &t {batch: 6}\nsupervised: *t\n"
    assert read_yaml(write("a.yaml", text)) == {"train": {"batch": 6}, "supervised": {"batch": 6}}


@pytest.mark.parametrize("text", ["name: [", "- a\n- b\n", "", "just text", "a: b: c"])
def test_a_file_that_is_no_mapping_is_refused(text, write, refused):
    assert "bad.yaml: " in refused(write("bad.yaml", text))


def test_a_file_that_is_no_text_or_not_there_is_refused(tmp_path, refused):
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    assert "bytes.yaml: " in refused(tmp_path / "bytes.yaml")
    assert "none.yaml: cannot be read" in refused(tmp_path / "none.yaml")


trees = st.recursive(
    st.integers(), lambda t: st.dictionaries(st.sampled_from("abc"), t, max_size=3), max_leaves=8
)
mappings = st.dictionaries(st.sampled_from("abc"), trees, max_size=3)


@given(mappings, mappings)
def test_merging_keeps_what_the_upper_one_says_and_leaves_its_arguments(below, above):
    before = repr((below, above))
    merged = merge(below, above)
    assert merge(below, {}) == below and merge({}, above) == above
    assert merge(merged, above) == merged
    assert merged.keys() == below.keys() | above.keys()
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            assert merged[key] == merge(below[key], value)
        else:
            assert merged[key] == value
    assert repr((below, above)) == before


def test_every_experiment_that_comes_along_is_valid():
    presets = read_yaml(REPOSITORY / "workflow/presets.yaml")
    files = [
        REPOSITORY / "config.yaml",
        *sorted((REPOSITORY / "workflow/experiments").glob("*.yaml")),
    ]
    assert len(files) > 1
    for file in files:
        load_experiment([file], presets)


def test_every_variant_that_comes_along_is_valid_over_the_experiment_that_its_name_begins_with():
    presets = read_yaml(REPOSITORY / "workflow/presets.yaml")
    folder = REPOSITORY / "workflow/experiments"
    files = sorted((folder / "variants").glob("*.yaml"))
    assert files
    for file in files:
        base = folder / f"{file.stem.rpartition('-')[0]}.yaml"
        assert load_experiment([base, file], presets).name == file.stem


def test_every_preset_that_comes_along_is_valid_and_can_be_named(write):
    presets = read_yaml(REPOSITORY / "workflow/presets.yaml")
    for preset in presets:
        load_experiment([write("a.yaml", {**BASE, "preset": preset})], presets)


HEAD = {"name": "deeplabv2", "rates": [1, 2]}


def test_a_head_of_a_file_takes_the_place_of_the_short_form_of_a_preset(write):
    presets = {"released": {"network": {"stages": 3, "aspp_rates": [6, 12], "aspp_init": "torch"}}}

    def network(**keys):
        file = write("a.yaml", {**BASE, "preset": "released", "network": keys})
        return load_experiment([file], presets).network

    assert network(head=HEAD).chosen_head == DeepLabV2(rates=(1, 2))
    assert network(head=HEAD).stages == 3
    for keys in ({}, {"head": None}):
        assert network(**keys).chosen_head == DeepLabV2(rates=(6, 12), init="torch")
    assert network(aspp_rates=[5]).chosen_head == DeepLabV2(rates=(5,), init="torch")
    for key, value in (("aspp_rates", [6]), ("aspp_init", "torch")):
        with pytest.raises(ConfigError, match=rf"a\.yaml: network: .*both head and {key}"):
            network(**{"head": HEAD, key: value})
    for name, preset in read_yaml(REPOSITORY / "workflow/presets.yaml").items():
        file = write("b.yaml", {**BASE, "preset": name, "network": {"head": HEAD}})
        assert load_experiment([file], {name: preset}).network.chosen_head.rates == (1, 2)


@pytest.mark.parametrize(
    "keys, written",
    [
        ({}, {"aspp_rates": [6, 12, 18, 24]}),
        ({"aspp_rates": (1,), "aspp_init": "normal"}, {"aspp_rates": [1]}),
        ({"aspp_init": "torch"}, {"aspp_rates": [6, 12, 18, 24], "aspp_init": "torch"}),
        ({"head": HEAD}, {"aspp_rates": [1, 2]}),
        ({"head": {**HEAD, "init": "torch"}}, {"aspp_rates": [1, 2], "aspp_init": "torch"}),
    ],
)
def test_a_head_has_one_form_in_json_and_the_default_start_is_left_out(keys, written):
    settings = NetworkSettings(**keys)
    content = json.loads(settings.canonical())
    shared = ("backbone", "output_stride", "stages", "weights", "input_scale")
    assert {key: value for key, value in content.items() if key not in shared} == written
    assert NetworkSettings(**content).chosen_head == settings.chosen_head


def test_every_method_that_comes_along_is_valid():
    methods = load_methods(REPOSITORY / "workflow/methods.yaml")
    assert [str(alpha) for alpha in methods["dst-cbc"].curriculum] == [
        "0.2", "0.4", "0.6", "0.8", "1.0",
    ]  # fmt: skip
    assert methods["st"].gamma == 0
    assert methods["supervised-long"].match in methods


@pytest.mark.parametrize(
    "row, place, reason",
    [
        ({"curriculm": [1]}, "m.curriculm", "did you mean 'curriculum'?"),
        ({"curriculum": [0.2, 1.5]}, "curriculum.1", "less than or equal to 1"),
        ({"curriculum": [0]}, "curriculum.0", "greater than 0"),
        ({}, "m", "needs one alpha per round"),
        ({"labeling": "none"}, "m", "needs `match`"),
        (5, "m", "found 5"),
        (None, "m", "found None"),
        ([{}], "m", "found [{}]"),
        ({"labeling": "none", "match": "dst", "curriculum": [1]}, "m", "no curriculum"),
        ({"curriculum": [1], "balance": "clas"}, "balance", "'class' or 'global'"),
        ({"labeling": "online", "threshold_sampling": 16}, "m", "need labeling `offline`"),
        ({"labeling": "online", "rule": "normalized"}, "m", "need labeling `offline`"),
    ],
)
def test_a_method_that_cannot_be_run_is_refused(row, place, reason, write):
    path = write("methods.yaml", {"m": row})
    with pytest.raises(ConfigError) as error:
        load_methods(path)
    text = str(error.value)
    assert "methods.yaml: m" in text and place.removeprefix("m.") in text and reason in text


@given(st.integers(1, 999).map(lambda n: n / 1000))
def test_an_alpha_stays_the_decimal_that_was_written(alpha):
    row = MethodRow(curriculum=[alpha])
    assert row.model_dump(mode="json")["curriculum"] == [str(alpha)]


WHOLE = {
    **BASE,
    "classes": {"sky": "#0000ff", "road": "#808080"},
    "labels": {0: "sky", 1: "road"},
    "ignore": [255],
    "digits": {"size": 40, "digit_size": [10, 12]},
    "preset": "standard",
    "network": {"backbone": "small", "output_stride": 4, "aspp_rates": [1]},
    "supervised": {"epochs": "formula", "augmentation": {"scale": [1, 2]}},
    "by_split": {"few": {"validate_every": {"few": 3}}},
    "evaluation": {"report": ["val"]},
    "splits": {"few": {"files": {"labeled": "a", "unlabeled": "b"}}},
    "runs": [{"splits": ["few"], "methods": ["st"], "vary": {"gamma": [1]}}],
}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda v: st.lists(v, max_size=2) | st.dictionaries(st.text(max_size=3) | st.integers(), v),
    max_leaves=4,
)


def places(content, path=()):
    """Paths, tuples of keys and indexes, of all values in an experiment file."""
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def test_the_file_that_is_spoilt_below_is_valid(write):
    assert load_experiment([write("whole.yaml", WHOLE)], PRESETS).network.backbone == "small"


@given(st.sampled_from(sorted(places(WHOLE), key=str)), VALUES, st.booleans())
def test_whatever_is_written_is_accepted_or_refused_in_words(tmp_path_factory, place, value, added):
    content = copy.deepcopy(WHOLE)
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    if added and isinstance(inner, dict):
        inner["another"] = value
    else:
        inner[place[-1]] = value
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.safe_dump(content))
    try:
        load_experiment([path], PRESETS)
    except ConfigError as error:
        assert str(place[0]) in str(error) or added
