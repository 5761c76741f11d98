"""Recommend one model of a study, and copy it to model.pt in the study's folder.

recommendation.md says which model and why, its score, what it gains over the labels alone, whether
the unlabeled images paid, and what to do next. recommendation.json has the same numbers.
"""

from pathlib import Path

import numpy as np

from dst_cbc.cli import Parser, main
from dst_cbc.data.index import read_index
from dst_cbc.inference.confusions import Confusions, read_confusions
from dst_cbc.inference.paired import resampling_groups
from dst_cbc.report.choice import out_of_fold, read_choice
from dst_cbc.report.model_files import read_metrics
from dst_cbc.report.recommendation import Candidate, Images, recommend, stacked, summary, text
from dst_cbc.runtime.errors import DataError
from dst_cbc.runtime.files import write_bytes, write_json, write_text
from dst_cbc.runtime.reading import read_bytes
from dst_cbc.runtime.tables import read_csv, whole
from dst_cbc.settings.data import DatasetStage
from dst_cbc.settings.experiment_files import load_methods

REPOSITORY = Path(__file__).resolve().parents[1]


def parse():
    parser = Parser(__doc__)
    parser.settings(DatasetStage)
    parser.path("--index", "dataset.csv of the data check")
    parser.path("--study", "folder of the study")
    parser.add_argument(
        "--divisions",
        nargs="+",
        required=True,
        metavar="FOLDER",
        help="folders below STUDY of the split, one for each seed, such as all_0",
    )
    parser.add_argument(
        "--models",
        nargs="+",
        required=True,
        metavar="NAME",
        help="folders below each of them of the models to choose from, the last one of each "
        "method: supervised, supervised-long/round1, dst-cbc/round5",
    )
    parser.add_argument(
        "--labeled-only",
        nargs="+",
        required=True,
        metavar="NAME",
        help="those of them that use no unlabeled images",
    )
    parser.add_argument(
        "--folds",
        type=int,
        default=0,
        help="number of folds that choose the model (default 0: the subset val chooses it)",
    )
    parser.add_argument(
        "--tested", action="store_true", help="the score is that of the subset test"
    )
    parser.path("--out", "recommendation.md to write; its folder gets the other files")
    return parser.parse_args()


def run() -> None:
    arguments = parse()
    dataset: DatasetStage = arguments.settings
    classes = list(dataset.classes)
    candidates = [candidate(arguments, name, len(classes)) for name in arguments.models]
    known = read_index(arguments.index)
    images = Images(
        by_folds=arguments.folds > 0,
        tested=arguments.tested,
        chosen_in=resampling_groups(candidates[0].chosen_on.ids, known, dataset.group),
        scored_in=resampling_groups(candidates[0].scored.ids, known, dataset.group),
    )
    found = recommend(candidates, images)
    methods = list(load_methods(REPOSITORY / "workflow/methods.yaml"))
    model = arguments.study / found.folder / "model.pt"
    folder = arguments.out.parent
    write_bytes(folder / "model.pt", read_bytes(model))
    write_json(folder / "recommendation.json", found.content())
    write_text(arguments.out, text(found, arguments.study, classes, methods))
    print("\n".join(summary(found, arguments.study)))


def candidate(arguments, name: str, classes: int) -> Candidate:
    """The last model of a method on all seeds."""
    folders = [arguments.study / division / name for division in arguments.divisions]
    found = [read_confusions(folder / "confusions.csv", classes) for folder in folders]
    if arguments.folds:
        chosen_on = [by_folds(arguments, one, name, classes) for one in arguments.divisions]
    else:
        chosen_on = [one["best", "val"] for one in found]
    scored = [one["best", "test"] for one in found] if arguments.tested else chosen_on
    metrics = [read_metrics(folder / "metrics.json") for folder in folders]
    if None in metrics:
        raise DataError(f"{folders[metrics.index(None)]}: no metrics.json; run the workflow again")
    return Candidate(
        method=name.rpartition("/")[0] or name,
        folders=[f"{division}/{name}" for division in arguments.divisions],
        rounds=[one["best"]["round"] for one in metrics if one],
        learns_unlabeled=name not in arguments.labeled_only,
        chosen_on=stacked(chosen_on),
        scored=stacked(scored),
        still_rises=all(still_rises(folder) for folder in folders),
    )


def by_folds(arguments, division: str, name: str, classes: int) -> Confusions:
    """The models of the folds that stand for a model, each on the masks of its own fold."""
    method = name.rpartition("/")[0]
    choice = read_choice(arguments.study / division / "choice.json")["models"]
    rounds = [one for one in choice if one.rpartition("/")[0] == method and method]
    trained = [one for one in rounds if "stopped" not in choice[one]]
    folds = [
        arguments.study / f"{division.removesuffix('folds')}fold{fold}"
        for fold in range(1, arguments.folds + 1)
    ]
    name = trained[-1] if trained else "supervised"
    return out_of_fold([fold / name for fold in folds], classes).found


def still_rises(folder: Path) -> bool:
    """Whether the last of several validations of a training reached the highest mIoU."""
    rows = read_csv(folder / "history.csv", {"step": whole, "miou": float})
    reached = [row["miou"] for row in rows]
    return len(reached) > 1 and not np.isnan(reached).any() and reached[-1] > max(reached[:-1])


if __name__ == "__main__":
    main(run)
