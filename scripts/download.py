"""Download, verify and unpack a public data set."""

from dst_cbc.cli import Parser, main
from dst_cbc.data.downloads import SOURCES, download


def run() -> None:
    parser = Parser(__doc__)
    parser.add_argument("name", choices=sorted(SOURCES), help="name of the data set")
    parser.path("--out", "folder to make; it must not exist")
    arguments = parser.parse_args()
    if arguments.out.exists() and any(arguments.out.iterdir()):
        parser.error(f"{arguments.out} exists; delete it to download it again")
    download(SOURCES[arguments.name], arguments.out)
    print(f"{arguments.name}: {sum(SOURCES[arguments.name].counts.values())} files")


if __name__ == "__main__":
    main(run)
