"""Draw the demo's scenes: scikit-learn's handwritten digits on paper, as a data set on disk."""

from dst_cbc.cli import Parser, main
from dst_cbc.data import digit_scenes
from dst_cbc.settings.data import DrawSettings


def run() -> None:
    parser = Parser(__doc__)
    parser.settings(DrawSettings)
    parser.path("--out", "folder to write, in the layout of `format: folder`")
    arguments = parser.parse_args()
    digit_scenes.write_scenes(arguments.settings, arguments.out)


if __name__ == "__main__":
    main(run)
