"""Draw the figures of a study from its files, each as SVG and as PNG."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from dst_cbc.cli import Parser, main


def run() -> None:
    with TemporaryDirectory() as cache:
        # matplotlib writes a cache of fonts, by default into the user's home.
        os.environ.setdefault("MPLCONFIGDIR", cache)
        from dst_cbc.report.figure_data import read_models
        from dst_cbc.report.figures import FIGURES, write
        from dst_cbc.report.losing import losses, notes

        parser = Parser(__doc__)
        parser.add_argument(
            "study", type=Path, metavar="STUDY", help="folder of the study, e.g. results/demo"
        )
        parser.add_argument(
            "figures", nargs="+", choices=FIGURES, metavar="FIGURE", help=", ".join(FIGURES)
        )
        parser.add_argument(
            "--subset", required=True, help="subset whose mIoU is shown: train, val or test"
        )
        parser.path("--out", "folder to write <figure>.svg and <figure>.png into")
        arguments = parser.parse_args()
        models = read_models(arguments.study, arguments.subset)
        for name in arguments.figures:
            write(FIGURES[name](arguments.study, models, arguments.subset), arguments.out / name)
            print(arguments.out / f"{name}.svg")
        if text := notes(losses(arguments.study, [str(model.path) for model in models])):
            print(text)


if __name__ == "__main__":
    main(run)
