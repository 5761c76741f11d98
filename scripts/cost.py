"""Estimate what an experiment costs before it runs: time, disk, memory.

Measures 20 training steps and a few images, as the stages would compute them, and counts the rest
from the schedule. What is finished already counts nothing. `snakemake` prints the same at its
start; it remembers the measurement in results/<name>/cost.json.
"""

import os
import shutil
import tempfile
from pathlib import Path

import yaml

from dst_cbc.cli import Parser, main
from dst_cbc.planning import cost
from dst_cbc.planning.plan import load_plan
from dst_cbc.runtime.devices import free_memory

REPOSITORY = Path(__file__).resolve().parents[1]


def run() -> None:
    parser = Parser(__doc__)
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="experiment files, as for --configfile"
    )
    parser.add_argument(
        "--config", nargs="*", default=[], metavar="KEY=VALUE", help="as for snakemake"
    )
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once (default 1)")
    arguments = parser.parse_args()
    os.environ["TQDM_DISABLE"] = "1"
    pairs = (pair.partition("=") for pair in arguments.config)
    overrides = {key: yaml.safe_load(value) for key, _, value in pairs}
    experiment, records, plan = load_plan(REPOSITORY, arguments.files, overrides)
    study, state = Path("results", experiment.name), Path("results/.resume")
    state.mkdir(parents=True, exist_ok=True)
    measured = cost.remembered(plan, study)
    if not measured:
        with tempfile.TemporaryDirectory(dir=state) as folder:
            measured = cost.measure(plan, records, Path(folder, "cost"))
        if measured:
            cost.remember(plan, study, measured)
    work, free = cost.schedule(plan, records, study), shutil.disk_usage("results").free
    print("\n".join(cost.describe(work, measured, arguments.jobs, free, free_memory())))


if __name__ == "__main__":
    main(run)
