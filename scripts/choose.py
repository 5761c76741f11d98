"""Choose the round and the steps of each method by the results of the folds.

Writes choice.json, which the trainings on all masks read. Prints each comparison: the difference of
the mIoU on the masks, each of which was held out in one fold, and how sure it is.
"""

from dst_cbc.cli import Parser, main
from dst_cbc.data.index import read_index
from dst_cbc.inference.paired import describe, resampling_groups
from dst_cbc.report.choice import choose, out_of_fold
from dst_cbc.runtime.files import write_json
from dst_cbc.settings.data import DatasetStage


def run() -> None:
    parser = Parser(__doc__)
    parser.settings(DatasetStage)
    parser.path("--index", "dataset.csv of the data check")
    parser.path("--study", "folder of the study")
    parser.add_argument(
        "--folds",
        nargs="+",
        required=True,
        metavar="FOLDER",
        help="folders below STUDY of the folds' splits, such as all_0_fold1",
    )
    parser.add_argument(
        "--models",
        nargs="+",
        required=True,
        metavar="NAME",
        help="folders of the models below each of them: supervised, dst-cbc/round1, …",
    )
    parser.path("--out", "choice.json to write")
    arguments = parser.parse_args()
    dataset: DatasetStage = arguments.settings
    folds = [arguments.study / fold for fold in arguments.folds]
    trainings = {
        name: out_of_fold([fold / name for fold in folds], len(dataset.classes))
        for name in arguments.models
    }
    ids = next(iter(trainings.values())).found.ids
    groups = resampling_groups(ids, read_index(arguments.index), dataset.group)
    choice, compared = choose(trainings, groups)
    for ours, theirs, difference in compared:
        print(f"{ours} against {theirs}: {describe(difference)}")
    print(f"best: {choice['best']}")
    write_json(arguments.out, choice)


if __name__ == "__main__":
    main(run)
