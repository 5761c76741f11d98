"""Estimate the time, disk space and memory that an experiment needs, before it runs.

Measures 3 to 20 training steps and the prediction of a few images, and extrapolates from the
schedule. Finished stages are not counted. `snakemake` prints the same estimate when it starts. The
measured times are stored in results/<name>/cost.json. Before the estimate comes a table of the
steps of all trainings, finished ones too; with --steps nothing else is done.
"""

import os
import shutil
import tempfile
from pathlib import Path

from dst_cbc.cli import Parser, main
from dst_cbc.planning import cost
from dst_cbc.planning.plan import load_plan
from dst_cbc.runtime.devices import free_memory
from dst_cbc.runtime.paths import make_folder
from dst_cbc.settings.yaml_files import parse_yaml

REPOSITORY = Path(__file__).resolve().parents[1]


def run() -> None:
    parser = Parser(__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="experiment files")
    parser.add_argument(
        "--config", nargs="*", default=[], metavar="KEY=VALUE", help="as for snakemake --config"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, help="number of trainings at the same time (default 1)"
    )
    parser.add_argument(
        "--steps",
        action="store_true",
        help="print only the steps and validations of each training; measure and write nothing",
    )
    arguments = parser.parse_args()
    os.environ["TQDM_DISABLE"] = "1"
    pairs = (pair.partition("=") for pair in arguments.config)
    overrides = {key: parse_yaml(value, f"--config {key}") for key, _, value in pairs}
    experiment, records, plan = load_plan(REPOSITORY, arguments.files, overrides)
    # Flushed, because a measurement may take long.
    print(*cost.steps(plan), sep="\n", flush=True)
    if arguments.steps:
        return
    study, state = Path("results", experiment.name), Path("results/.resume")
    make_folder(state)
    measured = cost.remembered(plan, study)
    if not measured:
        with tempfile.TemporaryDirectory(dir=state) as folder:
            measured = cost.measure(plan, records, Path(folder, "cost"))
        if measured:
            cost.remember(plan, study, measured)
    work, free = cost.schedule(plan, records, study), shutil.disk_usage("results").free
    print("", *cost.describe(work, measured, arguments.jobs, free, free_memory()), sep="\n")


if __name__ == "__main__":
    main(run)
