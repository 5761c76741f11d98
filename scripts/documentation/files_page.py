"""The reference page of output files: what each rule writes, and the columns of each table."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dst_cbc.report.tables import markdown_table
from dst_cbc.runtime.errors import DataError

from .pages import page
from .snakemake_output import snakemake

STUDY, SPLIT = "results/<study>", "results/<study>/<split>_<seed>"
MODEL, ROUND = f"{SPLIT}/<model>", f"{SPLIT}/<method>/round<r>"
GIVEN = f"{STUDY}/given/<name>"
REPORT = f"{STUDY}/report/<name>"
CHECKSUMS = "<folder>/checksums/<file>.json"


TITLES = {
    STUDY: "A study",
    f"{STUDY}/splits": "The split lists",
    MODEL: "A model",
    ROUND: "A round",
    f"{SPLIT}/<method>": "A method",
    REPORT: "The report",
    f"{MODEL}/export": "An export",
    GIVEN: "A model from elsewhere",
    "results/digits": "The demo's images",
}
"""Folder -> what its files belong to."""


@dataclass(frozen=True)
class File:
    """What a file or folder holds. columns: of a CSV file, each with its meaning."""

    text: str
    columns: dict[str, str] = field(default_factory=dict)


BY_RULES = {
    f"{STUDY}/dataset.csv": File(
        "One row for each image of the data set, written by the check that decodes all of them.",
        {
            "id": "name of the image in all other files",
            "image": "path of the image below `data`; of a page of a stack: file and page, from 1",
            "label": "path of its mask below `data`; empty for an image without a mask",
            "height": "pixels",
            "width": "pixels",
            "subset": "`train`, `val` or `test`",
            "image_sha256": "SHA-256 of the image file; of a page, that of its stack",
            "label_sha256": "SHA-256 of the mask file; empty without a mask",
            "black": "value of a 16-bit image that becomes 0; empty for 8 bits",
            "white": "value of a 16-bit image that becomes 255; empty for 8 bits",
        },
    ),
    f"{STUDY}/recommendation.md": File(
        "Which model to use and why: its score and its gain with 95 % intervals, whether the "
        "unlabeled images paid, what was not tried, and what to do next. Made if all runs are on "
        "one split, perhaps with several seeds, and `evaluation.report` has `val` or folds choose."
    ),
    f"{STUDY}/recommendation.json": File(
        "The numbers of `recommendation.md`, and `model`: the folder of the recommended model."
    ),
    f"{STUDY}/model.pt": File("A copy of the recommended model."),
    f"{STUDY}/splits/<split>_<seed>.labeled.txt": File(
        "Ids of the training images whose masks training may read, one a line."
    ),
    f"{STUDY}/splits/<split>_<seed>.unlabeled.txt": File(
        "Ids of all other training images, one a line. No training reads their masks."
    ),
    f"{MODEL}/model.pt": File(
        "The best model of the chain so far, selected on `evaluation.select`. If a round does not "
        "beat the round before, it passes the earlier model on. Holds weights, classes and "
        "normalisation, so that `scripts/infer.py` needs no other file, and a SHA-256 of all "
        "these, which is compared whenever the file is opened."
    ),
    f"{MODEL}/last.pt": File("The model after the last training step of this round."),
    f"{MODEL}/settings.json": File(
        "Every setting that this model depends on, merged from all files and defaults."
    ),
    f"{MODEL}/history.csv": File(
        "The learning curve: one row for each validation.",
        {
            "step": "training steps so far in this round",
            "loss": "mean loss of the steps since the row before",
            "learning_rate": "learning rate of the last step",
            "miou": "mIoU of this step on the selection subset, percent",
            "pixel_accuracy": "pixel accuracy of this step on the selection subset, percent",
            "best": "highest mIoU of the chain so far, percent",
        },
    ),
    f"{MODEL}/run.json": File(
        "How the training ran: Git commit, versions, device, seconds, number of resumes. `stopped` "
        "says why a round has trained nothing and copied its model. The only file of a model that "
        "differs from one run to the next."
    ),
    f"{MODEL}/metrics.json": File(
        "Evaluation of `model.pt` (`best`) and `last.pt` (`last`) on each reported subset: IoU of "
        "each class, mIoU, pixel accuracy, confusion matrix."
    ),
    f"{MODEL}/confusions.csv": File(
        "The confusion matrix of each evaluated image, one row for each entry above 0. With it, "
        "two models are compared on the same images.",
        {
            "checkpoint": "`best` for `model.pt`, `last` for `last.pt`",
            "subset": "`val` or `test`",
            "id": "name of the image",
            "truth": "number of the class in the mask, counted from 0",
            "predicted": "number of the class that the model predicts, counted from 0",
            "pixels": "number of pixels",
        },
    ),
    f"{MODEL}/predictions.h5": File(
        "Class and confidence of every pixel of the unlabeled images. Datasets `classes/<n>` "
        "(uint8) and `confidence/<n>` (uint16, quantised log-odds); n is the line of the id in "
        "the list of unlabeled images, counted from 0. `h5py` reads it."
    ),
    f"{MODEL}/histogram.npz": File(
        "How many pixels of each predicted class have each confidence: `counts`, int64 of shape "
        "(classes, 65536). Thresholds follow from this file alone."
    ),
    f"{ROUND}/thresholds.csv": File(
        "The confidence that a pixel of each class must reach to become a pseudo label.",
        {
            "class": "number of the class, counted from 0",
            "name": "name of the class",
            "pixels": "pixels for which the model predicts this class",
            "threshold": "log-odds log(p / (1 - p)); `-inf` keeps all; empty without pixels",
            "threshold_probability": "the same as a probability p",
            "kept": "pixels that reach the threshold",
            "kept_fraction": "`kept` divided by `pixels`",
        },
    ),
    f"{ROUND}/pseudo_labels": File(
        "One indexed PNG for each unlabeled image, in the colours of the classes: value n is "
        "class number n, 255 is ignored. Any image viewer opens them."
    ),
    f"{ROUND}/pseudo_labels.csv": File(
        "One row for each PNG. Fine-tuning checks these digests before it trains.",
        {
            "id": "id of the image",
            "sha256": "SHA-256 of the PNG",
            "edited": "`yes` if the PNG was changed by hand and the change was accepted",
            "height": "pixels",
            "width": "pixels",
            "kept": "labeled pixels",
            "kept_fraction": "`kept` divided by all pixels",
            "correct": "labeled pixels that agree with the mask; empty without a mask",
            "compared": "labeled pixels whose mask is not ignored; empty without a mask",
            "accuracy": "`correct` divided by `compared`",
            "pixels <class>": "labeled pixels of this class; one column for each class",
        },
    ),
    f"{ROUND}/pseudo_labels.quality.csv": File(
        "How good the pseudo labels of each class are, where masks exist. No training reads it.",
        {
            "class": "number of the class, counted from 0",
            "name": "name of the class",
            "truth": "pixels of this class in the masks",
            "labeled": "pixels with this class as pseudo label",
            "correct": "pixels where both agree",
            "precision": "`correct` divided by `labeled`",
            "recall": "`correct` divided by `truth`",
            "iou_of_labeled": "IoU of this class over the pixels that have a pseudo label",
        },
    ),
    f"{ROUND}/contact_sheet.jpg": File(
        "A dozen unlabeled images: image, mask, prediction, pseudo label, confidence."
    ),
    f"{SPLIT}/<method>/gallery.html": File(
        "A page to browse the unlabeled images, round by round. Needs no network."
    ),
    f"{SPLIT}/<method>/agreement.csv": File(
        "How the pseudo labels of each image change from round to round. Needs no masks.",
        {
            "id": "id of the image",
            "round": "number of the round",
            "height": "pixels",
            "width": "pixels",
            "kept": "labeled pixels",
            "both": "pixels with a label in this round and in the round before",
            "same": "pixels of `both` with the same class in both rounds",
            "changed": "share of all pixels whose predicted class differs from the round before",
            "confidence": "mean probability of the predicted class over all pixels",
        },
    ),
    f"{STUDY}/summary.csv": File(
        "One row for each model, checkpoint and reported subset.",
        {
            "split": "name of the split",
            "seed": "seed of the split",
            "labeled": "number of labeled images",
            "unlabeled": "number of unlabeled images",
            "method": "row of `workflow/methods.yaml`, or `supervised`",
            "round": "number of the round; 0 is `supervised`",
            "checkpoint": "`best` for `model.pt`, `last` for `last.pt`",
            "origin_round": "round in which this model was trained",
            "selected_on": "subset that chose the best model",
            "subset": "evaluated subset",
            "images": "number of its images",
            "miou": "mIoU on this subset, percent",
            "pixel_accuracy": "percentage of pixels with the right class",
            "gain": "mIoU points over `supervised` of the same split and seed",
            "steps": "training steps of the whole chain up to this model",
            "edited": "what was changed by hand in this chain of rounds",
        },
    ),
    f"{STUDY}/summary.md": File("The same for people: every round, mean over seeds."),
    f"{REPORT}/table.csv": File(
        "Mean and spread over the seeds of a split.",
        {
            "split": "name of the split",
            "labeled": "number of labeled images",
            "method": "row of `workflow/methods.yaml`, or `supervised`",
            "round": "number of the round",
            "checkpoint": "`best` or `last`",
            "selected_on": "subset that chose the best model",
            "subset": "evaluated subset",
            "n": "number of seeds with a result",
            "seeds": "these seeds",
            "missing": "seeds of the experiment without a result",
            "miou": "mean, percent",
            "miou_std": "standard deviation of the sample; empty for one seed",
            "gain": "mean of the points over `supervised` of the same split and seed",
            "gain_std": "its standard deviation",
            "over_control": "mean of the points over `supervised-long`, of the last round",
            "over_control_std": "its standard deviation",
            "relative": "mIoU as a percentage of the mIoU with all labels",
            "paper": "the paper's mIoU, where the experiment file names one",
            "difference": "`miou` minus `paper`",
            "steps": "training steps of the whole chain",
            "seconds": "training time of the whole chain",
            "edited": "what was changed by hand in this chain of rounds",
        },
    ),
    f"{REPORT}/table.md": File(
        "The last round of each method as a Markdown table. With `report.paper_table`, the paper's "
        "table beside it: mIoU, and mIoU relative to all labels."
    ),
    f"{REPORT}/table.tex": File("The same for LaTeX."),
    f"{REPORT}/<figure>.svg": File(
        "Figures: `rounds` (mIoU by round), `classes` (IoU by class), `pseudo_labels` (accuracy "
        "and number of pseudo labels), `agreement`, `kept` (accuracy over the share kept), `cost`, "
        "and `sweep` where `vary` tries several values. A figure with nothing to show is not made."
    ),
    f"{REPORT}/<figure>.png": File("The same as PNG."),
    f"{MODEL}/export/model.onnx": File("The model for ONNX Runtime, made on request."),
    f"{MODEL}/export/model.pt2": File("The model as a program of `torch.export`."),
    f"{MODEL}/export/model.md": File("The model card."),
    f"{GIVEN}/confusions.csv": File("As in the folder of a model."),
    f"{GIVEN}/metrics.json": File(
        "Evaluation of a model that is not of this study, `model.pt` in the same folder, with the "
        "study's settings: as `metrics.json` of a model, but only `best`. Made on request; see "
        "[Evaluate the authors' models](../experiments/paper.md#evaluate-the-authors-models)."
    ),
    "results/digits/scenes.json": File(
        "The settings that the demo's images were drawn with. The images and masks are in the same "
        "folder. Only `format: digits` makes this folder; its name is the experiment's `data`."
    ),
}
"""What the rules write, in the order of the page."""

BY_HAND = {
    f"{ROUND}/thresholds.edited.csv": File(
        "Your copy of `thresholds.csv`. Where it exists, labels follow from it."
    ),
    f"{GIVEN}/model.pt": File(
        "A model from elsewhere that you put there; `scripts/convert_weights.py` can write it. "
        "`<name>` is yours to choose."
    ),
    f"{SPLIT}_folds/choice.json": File(
        "With `folds`: `share`, after which share of its steps each training on all masks ends, or "
        "`stopped`, why a round trains nothing; and `best`, the best of them."
    ),
    f"{ROUND}/snapshots/<n>.pt": File(
        "Weights during the round, if the method's switch `snapshots` asks for them."
    ),
    CHECKSUMS: File(
        "What a job read and wrote: name of its script, SHA-256 of its settings, of each file and "
        "of the record itself. `<folder>` is the folder of the job's results, `<file>` its first "
        "result. `.timed.json` has the files that hold run times."
    ),
    f"{STUDY}/.fingerprints.json": File(
        "Size, time and SHA-256 of the data's files, so that an unchanged file is not read again. "
        "If it is damaged or deleted, all files are read again."
    ),
    f"{STUDY}/masks": File(
        "With `format: annotations`: the masks, which are drawn before the jobs are planned. "
        "`masks.csv` lists them: id, mask, annotation file, number of shapes."
    ),
    f"{STUDY}/cost.json": File("The measured time of a training step, for the cost estimate."),
    f"{STUDY}/suggestions": File(
        "Written by `scripts/suggest.py`: `suggest.csv`, and drafts as masks or polygons."
    ),
    f"{STUDY}/logs": File("One log for each job, in the folders of its model."),
    f"{STUDY}/benchmarks": File("Seconds and memory of trainings and predictions."),
    f"{STUDY}/tensorboard": File("Learning curves for `tensorboard --logdir`."),
    "results/gain": File(
        "Made by `workflow/gain.smk` from several studies: `gain.csv`, `cells.csv`, `gain.svg` and "
        "`gain.png`; see [Tables of gains](../explanation/gains.md#the-files)."
    ),
    "results/.resume": File("State of unfinished work. It is deleted when the work is finished."),
    "results/downloads": File("Files that the download rules have downloaded."),
    "results/.slurm": File("Logs of SLURM, with `profiles/slurm`."),
}
"""Files that are not the output of a rule: your own files, files made on request, logs."""


def files_page() -> str:
    """Table of all files below results/."""
    rules = rules_by_pattern()
    if rules.keys() != BY_RULES.keys():
        raise DataError(
            "scripts/documentation/files_page.py: BY_RULES and the rules' outputs differ in "
            f"{sorted(rules.keys() ^ BY_RULES.keys())}; describe each output, and only outputs"
        )
    folders = dict.fromkeys(name.rpartition("/")[0] for name in BY_RULES)
    return page(
        "Output files",
        "`<study>` is the experiment's `name`. `<split>_<seed>` is one labeled split, with "
        "the selection subset at its end if that is not val (`106_0_valtiny`). `<method>` is a row "
        "of `workflow/methods.yaml`, and `<r>` the number of a round. `<model>` is `supervised` or "
        "`<method>/round<r>`. A method with several chains has a folder for each: "
        "`<method>/<chain>/round<r>`.",
        "Ask for any file by its path: Snakemake makes it and what it needs. A file is written "
        "whole or not at all. Equal settings give equal bytes, except in `run.json`, `cost.json`, "
        "logs, and the times in tables, and the checksums of these.",
        *(_section(folder, rules) for folder in folders),
        "## Other files",
        "No rule names these files as its output.",
        markdown_table(["file", "content"], ([f"`{n}`", f.text] for n, f in BY_HAND.items())),
    )


def _section(folder: str, rules: Mapping[str, Sequence[str]]) -> str:
    """The files of one folder, then the columns of its CSV files."""
    files = {n.rpartition("/")[2]: n for n in BY_RULES if n.rpartition("/")[0] == folder}
    lines = [
        [f"`{short}`", BY_RULES[name].text, ", ".join(f"`{rule}`" for rule in rules[name])]
        for short, name in files.items()
    ]
    parts = [
        f"## {TITLES[folder]}",
        f"In `{folder}/`:",
        markdown_table(["file", "content", "rule"], lines),
    ]
    for short, name in files.items():
        if columns := BY_RULES[name].columns:
            found = ([f"`{column}`", meaning] for column, meaning in columns.items())
            parts += [f"### Columns of `{short}`", markdown_table(["column", "meaning"], found)]
    return "\n\n".join(parts)


def rules_by_pattern() -> dict[str, list[str]]:
    """The rules that write each file of the demo, by the pattern of the file's path.

    Planned in an empty folder, so that existing results have no effect.
    """
    export = "results/demo/12_0/dst-cbc/round1/export/model.onnx"
    given = "results/demo/given/mine"
    asked = ["--detailed-summary", "all", export, f"{given}/metrics.json"]
    printed = snakemake(*asked, given=[f"{given}/model.pt"])
    found: dict[str, list[str]] = {}
    for line in printed.splitlines():
        cells = line.split("\t")
        if len(cells) > 3 and cells[0].startswith("results/"):
            rules = found.setdefault(pattern(cells[0]), [])
            if cells[2] not in rules:
                rules.append(cells[2])
    return found


def pattern(path: str) -> str:
    """The documented pattern of a file of the demo, e.g. `results/<study>/summary.csv`."""
    if "/checksums/" in path:
        return CHECKSUMS
    split = "results/demo/12_0"
    path = re.sub(r"/report/\w+/(table\.\w+)$", r"/report/<name>/\1", path)
    path = re.sub(r"/report/\w+/\w+\.(svg|png)$", r"/report/<name>/<figure>.\1", path)
    path = re.sub(r"/splits/\w+\.(\w+)\.txt$", r"/splits/<split>_<seed>.\1.txt", path)
    of_round = r"/(thresholds|pseudo_labels|contact_sheet)(\.[\w.]+)?$"
    round = ROUND if re.search(of_round, path) else MODEL
    path = re.sub(r"/given/\w+/", "/given/<name>/", path)
    path = re.sub(rf"^{split}/(supervised|dst-cbc/round\d+)/", f"{round}/", path)
    path = path.replace(f"{split}/dst-cbc/", f"{SPLIT}/<method>/")
    return path.replace("results/demo/", f"{STUDY}/")
