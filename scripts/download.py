"""Download, verify and unpack a public data set.

nuclei, sunnybrook and cwfid also become images and masks for `format: pairs`. README.txt beside
them says the source, the licence and what was done. CWFID HAS NO OPEN LICENCE: it may only be used
for non-commercial research.
"""

from dst_cbc.cli import Parser, main
from dst_cbc.data.downloads import README, SOURCES, download


def run() -> None:
    parser = Parser(__doc__)
    parser.add_argument("name", choices=sorted(SOURCES), help="name of the data set")
    parser.path("--out", "folder to make; it must not exist")
    arguments = parser.parse_args()
    if arguments.out.exists() and any(arguments.out.iterdir()):
        parser.error(f"{arguments.out} exists; delete it to download it again")
    source = SOURCES[arguments.name]
    download(source, arguments.out)
    if source.prepare:
        print((arguments.out / README).read_text())
    else:
        print(f"{arguments.name}: {sum(source.counts.values())} files")


if __name__ == "__main__":
    main(run)
