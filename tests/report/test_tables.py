"""Aggregation over seeds: every column of the table against numbers worked out by hand."""

import pytest

from dst_cbc.report.tables import COLUMNS, aggregate, compare, last_rounds, latex, markdown, table


def row(method, miou, seed=0, split="12", round=1, checkpoint="best", subset="val", **other):
    return {
        "split": split, "seed": seed, "labeled": 12, "unlabeled": 88, "method": method,
        "round": 0 if method == "supervised" else round, "checkpoint": checkpoint,
        "origin_round": round, "selected_on": "val", "subset": subset, "images": 3, "miou": miou,
        "pixel_accuracy": 90.0, "gain": None, "steps": 100, "edited": "", **other,
    }  # fmt: skip


def both(*arguments, **other):
    """Rows of both checkpoints, with equal figures."""
    return [row(*arguments, checkpoint=name, **other) for name in ("best", "last")]


def only(found, **wanted):
    (one,) = [r for r in found if all(r[key] == value for key, value in wanted.items())]
    return one


def test_mean_and_deviation_are_those_of_a_sample_over_the_seeds():
    rows = [row("dst-cbc", miou, seed) for seed, miou in enumerate([40.0, 43.0, 46.0])]
    (found,) = aggregate(rows)
    assert list(found.keys() ^ set(COLUMNS)) == []
    # Squared distances from the mean: 9 + 0 + 9, divided by 3 - 1.
    assert (found["miou"], found["miou_std"]) == (43.0, 3.0)
    assert (found["n"], found["seeds"], found["missing"]) == (3, "0 1 2", "")


def test_one_seed_has_no_deviation():
    (found,) = aggregate([row("dst-cbc", 40.0, gain=2.0)])
    assert (found["miou_std"], found["gain_std"]) == (None, None)
    assert (found["miou"], found["gain"]) == (40.0, 2.0)


def test_gains_are_averaged_over_the_seeds_that_have_one():
    rows = [row("dst-cbc", 40.0, 0, gain=1.0), row("dst-cbc", 50.0, 1, gain=4.0)]
    rows.append(row("dst-cbc", 60.0, 2))
    (found,) = aggregate(rows)
    assert found["gain"] == 2.5 and found["gain_std"] == pytest.approx(4.5**0.5)


def test_the_control_is_subtracted_seed_by_seed_checkpoint_and_subset():
    rows = [
        row("dst-cbc", 50.0, 0), row("supervised-long", 49.0, 0),
        row("dst-cbc", 60.0, 1), row("supervised-long", 57.0, 1),
        row("dst-cbc", 99.0, 2),  # its control has not run
        row("supervised-long", 10.0, 0, checkpoint="last"),
        row("supervised-long", 10.0, 0, split="other"),
    ]  # fmt: skip
    found = only(aggregate(rows), method="dst-cbc")
    assert found["over_control"] == 2.0 and found["over_control_std"] == pytest.approx(2**0.5)


def test_only_the_last_round_is_compared_with_the_control_which_took_as_many_steps():
    rows = [row("dst-cbc", 50.0, round=1), row("dst-cbc", 52.0, round=2)]
    rows += [row("supervised-long", 49.0), row("supervised-passes", 50.0), row("supervised", 45.0)]
    found = aggregate(rows)
    over = {(r["method"], r["round"]): r["over_control"] for r in found}
    assert over == {
        ("dst-cbc", 1): None,
        ("dst-cbc", 2): 3.0,
        ("supervised-long", 1): None,
        ("supervised-passes", 1): None,
        ("supervised", 0): None,
    }


def test_the_oracle_is_supervised_training_where_no_image_is_unlabeled():
    rows = [
        row("supervised", 80.0, 0, split="1", unlabeled=0),
        row("supervised", 84.0, 1, split="1", unlabeled=0),
        row("dst-cbc", 41.0),
        row("dst-cbc", 41.0, subset="test"),
    ]
    found = aggregate(rows)
    assert only(found, method="dst-cbc", subset="val")["relative"] == 50.0
    assert only(found, method="dst-cbc", subset="test")["relative"] is None
    assert only(found, split="1")["relative"] == 100.0


def test_models_selected_on_other_images_are_relative_to_their_oracle_or_else_to_that_of_val():
    few = {"selected_on": "valtiny"}
    rows = [*both("dst-cbc", 40.0, **few), row("supervised", 80.0, split="1", unlabeled=0)]
    (best, last) = (r for r in aggregate(rows) if r["method"] == "dst-cbc")
    assert (best["relative"], last["relative"]) == (50.0, None)
    rows.append(row("supervised", 64.0, split="1", unlabeled=0, **few))
    assert only(aggregate(rows), method="dst-cbc", checkpoint="best")["relative"] == 62.5


def test_the_papers_figure_stands_beside_the_best_on_val_of_the_last_round():
    rows = [
        row("dst-cbc", miou, round=round, checkpoint=checkpoint, subset=subset)
        for round, miou in ((1, 60.0), (2, 69.0))
        for checkpoint in ("best", "last")
        for subset in ("val", "test")
    ]
    found = aggregate(rows, {"dst-cbc": {"12": 70.33, "8": 70.7}, "st": {"12": 66.61}})
    with_paper = [r for r in found if r["paper"] is not None]
    assert [(r["round"], r["checkpoint"], r["subset"]) for r in with_paper] == [(2, "best", "val")]
    assert with_paper[0]["paper"] == 70.33
    assert with_paper[0]["difference"] == pytest.approx(-1.33)


def test_models_selected_on_other_images_stand_apart_with_a_figure_of_their_own():
    rows = [
        *both("dst-cbc", 60.0), *both("supervised", 45.0),
        *both("dst-cbc", 58.0, selected_on="valtiny", gain=14.0),
        *both("supervised", 44.0, selected_on="valtiny"),
    ]  # fmt: skip
    paper = {"dst-cbc": {"12": 61.6, "12_valtiny": 59.2}, "supervised": {"12_valtiny": 44.8}}
    found = aggregate(rows, paper)
    printed = {
        (r["selected_on"], r["method"]): r["paper"] for r in found if r["checkpoint"] == "best"
    }
    assert printed == {
        ("val", "dst-cbc"): 61.6, ("val", "supervised"): None,
        ("valtiny", "dst-cbc"): 59.2, ("valtiny", "supervised"): 44.8,
    }  # fmt: skip
    header, lines = table(found, "val")
    column = header.index("selected on")
    assert [line[column] for line in lines] == ["", "", "valtiny", "valtiny"]
    assert "selected on val or valtiny." in markdown("s", found)
    assert "selected on" not in table(aggregate(rows[:4]), "val")[0]


def test_the_cost_is_that_of_the_whole_chain_with_round_0_but_a_control_has_none():
    seconds = {"supervised": 100.0, "supervised-long": 150.0, "supervised-passes": 170.0}
    rows = [row(name, 50.0, seconds=s) for name, s in seconds.items()]
    rows += [row("dst-cbc", 50.0, round=r, seconds=20.0) for r in (1, 2)]
    rows += [row("st", 50.0, round=1, seconds=None)]
    found = {(r["method"], r["round"]): r["seconds"] for r in aggregate(rows)}
    assert found == {
        ("supervised", 0): 100.0,
        ("supervised-long", 1): 150.0,
        ("supervised-passes", 1): 170.0,
        ("dst-cbc", 1): 120.0,
        ("dst-cbc", 2): 140.0,
        ("st", 1): None,
    }


def test_a_missing_run_is_told_and_counts_nothing():
    rows = [
        *both("dst-cbc", 40.0, 0), *both("dst-cbc", None, 1, steps=None),
        *both("st", None, 0, steps=None), *both("st", None, 1, steps=None),
    ]  # fmt: skip
    found = aggregate(rows)
    first = only(found, method="dst-cbc", checkpoint="best")
    assert (first["miou"], first["n"], first["missing"]) == (40.0, 1, "1")
    header, lines = table(found, "val")
    cells = [dict(zip(header, line, strict=True)) for line in lines]
    assert [line["seeds"] for line in cells] == ["0 (missing: 1)", " (missing: 0, 1)"]
    assert [line["mIoU %, best"] for line in cells] == ["40.00", "missing"]


def test_a_table_has_a_line_per_model_best_and_last_step_side_by_side():
    rows = [
        row("dst-cbc", 40.0, 0, gain=1.0), row("dst-cbc", 44.0, 1, gain=1.0),
        row("dst-cbc", 39.0, 0, checkpoint="last", gain=-0.5),
        row("dst-cbc", 43.0, 1, checkpoint="last", gain=-0.5),
    ]  # fmt: skip
    header, (line,) = table(aggregate(rows), "val")
    assert header == [
        "split", "labels", "method", "round", "steps", "mIoU %, best", "gain", "mIoU %, last step",
        "gain", "seeds",
    ]  # fmt: skip
    assert line == [
        "12", "12", "dst-cbc", "1", "100", "42.00 ± 2.83", "+1.00 ± 0.00", "41.00 ± 2.83",
        "-0.50 ± 0.00", "0, 1",
    ]  # fmt: skip


def test_the_last_rounds_are_those_of_each_method_on_its_split():
    rows = [row("a", 1.0, round=r) for r in (1, 2)] + [row("a", 1.0, split="8"), row("b", 1.0)]
    found = [(r["split"], r["method"], r["round"]) for r in last_rounds(aggregate(rows))]
    assert found == [("12", "a", 2), ("8", "a", 1), ("12", "b", 1)]


def test_what_a_person_edited_is_told():
    rows = [*both("dst-cbc", 40.0, 0), *both("dst-cbc", 41.0, 1, edited="labels of round1")]
    text = markdown("study", aggregate(rows))
    assert "edited by hand" in text and "| labels of round1 |" in text


def test_every_subset_has_its_own_table_whose_caption_names_it_and_the_rule_of_the_checkpoint():
    rows = [*both("dst-cbc", 40.0), *both("dst-cbc", 41.0, subset="test")]
    text = markdown("My study", aggregate(rows))
    assert text.startswith("# My study\n")
    for subset in ("val", "test"):
        assert f"## `{subset}`" in text
        assert f"mIoU on `{subset}`" in text
    assert text.count("the best of the chain, selected on val") == 2


def test_a_note_stands_at_the_end():
    found = aggregate(both("dst-cbc", 40.0))
    assert markdown("s", found, "Identical.") == markdown("s", found) + "\nIdentical.\n"


def test_a_bar_in_markdown_ends_no_cell():
    text = markdown("s", aggregate(both("dst-cbc", 40.0, edited="a|b")))
    assert "a\\|b" in text


def test_a_title_and_the_names_of_a_summary_are_only_text():
    rows = aggregate(both("a`b\n|c", 40.0, split="[x](y)"))
    text = markdown("a\n# b <c>", rows)
    assert text.startswith("# a # b \\<c\\>\n")
    assert "| \\[x\\](y) | 12 | `a'b \\|c` |" in text
    assert "\\caption{a \\# b <c>. " in latex("a\n# b <c>", rows)


def test_latex_has_booktabs_and_its_special_characters_are_text():
    rows = [*both("dst_cbc@gamma=3,a", 40.0, 0), *both("dst_cbc@gamma=3,a", 42.0, 1)]
    text = latex("50 % & #1 {x} $y$ ^~\\", aggregate(rows))
    assert r"50 \% \& \#1 \{x\} \$y\$ \^{}\textasciitilde{}\textbackslash{}" in text
    assert r"dst\_cbc@gamma=3,a & 1 & 100 & 41.00 $\pm$ 1.41 & 41.00 $\pm$ 1.41" in text
    for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\end{table}"):
        assert text.count(rule) == 1
    assert r"\begin{tabular}{llllllll}" in text


def test_studies_stand_side_by_side_with_the_difference_over_common_seeds():
    first = [row("dst-cbc", 40.0, 0), row("dst-cbc", 50.0, 1)]
    second = [row("dst-cbc", 43.0, 0), row("dst-cbc", None, 1), row("dst-cbc", 60.0, 2)]
    second.append(row("st", 30.0))
    header, lines = compare({"a": first, "b": second})
    assert header[-3:] == ["a", "b", "difference"]
    assert [line[2:] for line in lines] == [
        ["dst-cbc", "best", "val", "45.00 ± 7.07", "51.50 ± 12.02", "+3.00"],
        ["st", "best", "val", "", "30.00", ""],
    ]
