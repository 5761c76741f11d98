"""Make VOC 2012 with SBD's masks, 10582 training images, from the two original releases.

It writes a new folder in the layout of `format: voc`. In it, JPEGImages is a link to the folder
JPEGImages of --voc.
"""

import os

from dst_cbc.cli import Parser, main
from dst_cbc.data.trainaug import build


def run() -> None:
    parser = Parser(__doc__)
    parser.path("--voc", "folder VOCdevkit/VOC2012 of VOCtrainval_11-May-2012.tar")
    parser.path("--sbd", "folder benchmark_RELEASE/dataset of SBD's benchmark.tgz")
    parser.path("--out", "folder to make; it must not exist")
    parser.add_argument(
        "--processes",
        type=int,
        default=os.cpu_count(),
        help="number of processes (default: one per core)",
    )
    arguments = parser.parse_args()
    if arguments.out.exists() and any(arguments.out.iterdir()):
        parser.error(f"{arguments.out} exists; delete it to make it again")
    train, val = build(arguments.voc, arguments.sbd, arguments.out, arguments.processes)
    print(f"{train} training and {val} validation images; the paper has 10582 and 1449")


if __name__ == "__main__":
    main(run)
