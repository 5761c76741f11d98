"""Divide the training images into labeled and unlabeled ones."""

from pathlib import Path

from dst_cbc.cli import Parser, main
from dst_cbc.data.index import read_index
from dst_cbc.data.splits import divide, published
from dst_cbc.runtime.files import write_text
from dst_cbc.settings.data import SplitStage


def run() -> None:
    parser = Parser(__doc__)
    parser.settings(SplitStage)
    parser.path("--index", "dataset.csv of the data check")
    parser.path("--labeled", "list of labeled ids to write, one a line")
    parser.path("--unlabeled", "list of unlabeled ids to write, one a line")
    arguments = parser.parse_args()
    rows = {id: row for id, row in read_index(arguments.index).items() if row.subset == "train"}
    with_mask = {id for id, row in rows.items() if row.label}
    labeled, unlabeled = divide(list(rows), with_mask, arguments.settings, Path())
    for path, ids in ((arguments.labeled, labeled), (arguments.unlabeled, unlabeled)):
        write_text(path, "".join(f"{id}\n" for id in ids))
    print(f"{len(labeled)} labeled, {len(unlabeled)} unlabeled images")
    if name := published(labeled, unlabeled):
        print(f"identical to the published split {name}")


if __name__ == "__main__":
    main(run)
