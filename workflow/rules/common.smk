"""Configuration, plan, and the functions that rules ask for their inputs and parameters."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

HOUSE = Path(workflow.basedir)
sys.path.insert(0, str(HOUSE / "scripts"))

from dst_cbc import cost
from dst_cbc.datasets import selecting
from dst_cbc.devices import cuda_is_likely, free_memory, memory_now
from dst_cbc.experiment import ConfigError
from dst_cbc.files import DataError, digest, no_space
from dst_cbc.fingerprints import Fingerprints
from dst_cbc.index import read_index
from dst_cbc.plan import load_plan
from dst_cbc.settings import PART_IMAGES
from dst_cbc.tables import selection_in_words
from snakemake.io import IOFile
from snakemake.settings.types import DeploymentMethod

try:
    EXPERIMENT, RECORDS, PLAN = load_plan(
        HOUSE, workflow.config_settings.configfiles, workflow.config_settings.config
    )
    REPLACED = PLAN.replaced(Path("results", EXPERIMENT.name))
except (ConfigError, DataError, ValueError) as error:
    raise WorkflowError(str(error))
DATA = EXPERIMENT.data
STUDY = f"results/{EXPERIMENT.name}"
INDEX = f"{STUDY}/dataset.csv"
STATE = f"results/.resume/{EXPERIMENT.name}"

FILES = Fingerprints(Path(DATA), RECORDS, PLAN.dataset, Path(STUDY, ".fingerprints.json"))
CHECKED = read_index(INDEX) if Path(INDEX).is_file() else {}
SUBSETS = {
    subset: [record.id for record in RECORDS if record.subset == subset]
    for subset in ("train", "val", "test")
}
SELF_TRAINED = sorted({m.method for m in PLAN.models.values() if m.learns_unlabeled})
LABELED_ONLY = sorted({m.name for m in PLAN.models.values() if not m.learns_unlabeled})
KEEP_SNAPSHOTS = sorted({m.method for m in PLAN.models.values() if m.settings.train.snapshots})
REPORT = f"{STUDY}/report/{EXPERIMENT.report.name or EXPERIMENT.name}"
LABELED_ROUNDS = [m for m in PLAN.models.values() if m.labeled_by]
EVIDENCE = {
    name: [f"{STUDY}/{model.path}/{name}" for model in LABELED_ROUNDS]
    for name in (
        "thresholds.csv",
        "pseudo_labels.csv",
        "pseudo_labels.quality.csv",
        "contact_sheet.jpg",
    )
}
# By method: one page, and the figures that need no ground truth.
LABELED_METHODS = sorted({f"{STUDY}/{m.division}/{m.method}" for m in LABELED_ROUNDS})
GALLERIES = [f"{folder}/gallery.html" for folder in LABELED_METHODS]
AGREEMENTS = [f"{folder}/agreement.csv" for folder in LABELED_METHODS]
EDITED_THRESHOLDS = [f"{STUDY}/{model.path}/thresholds.edited.csv" for model in LABELED_ROUNDS]
CHAINS = [m for m in LABELED_ROUNDS if m.round > 1 and "@" not in m.method]
MASKED = {record.id for record in RECORDS if record.label}
COMPARABLE = any(MASKED.intersection(PLAN.splits[m.division].unlabeled) for m in CHAINS)
# Those that have something to show.
FIGURES = [
    *(["rounds", "classes", "pseudo_labels", "agreement"] if CHAINS else []),
    *(["kept"] if COMPARABLE else []),
    *(["cost"] if SELF_TRAINED else []),
    *(["sweep"] if any(run.vary for run in EXPERIMENT.runs) else []),
]
SELECTIONS = sorted({split.select for split in PLAN.splits.values()})
# What the figures show, where a study reports several subsets.
SHOWN_SUBSET = PLAN.evaluate.report[-1]
WHAT_IS_SHOWN = (
    f"{selection_in_words(SELECTIONS).removeprefix('the ')}, and last step, "
    f"reported on {', '.join(PLAN.evaluate.report)}"
)

place = Path(DATA).parts
if EXPERIMENT.format == "digits" and (place[:1] != ("results",) or ".." in place):
    raise WorkflowError(
        f"data: found {DATA!r}; format `digits` draws its scenes, and nothing is "
        "written outside results/: choose a folder there, e.g. results/digits"
    )
if REPLACED and not EXPERIMENT.replace:
    raise WorkflowError(
        "Edited settings would replace finished trainings:",
        *(f"{STUDY}/{path}: {why}" for path, why in REPLACED.items()),
        "To keep them, give the experiment another `name`, or undo the edit. "
        "To replace them, add --config replace=true",
    )


# Where things are and how stages run, as variables of every rule's shell: part of no rule's
# parameters, so that a moved folder or another number of workers reruns nothing.
# Conda and a container bring their own.
brought = {DeploymentMethod.CONDA, DeploymentMethod.APPTAINER}
brought &= workflow.deployment_settings.deployment_method
SHELL = {
    "PYTHON": "python" if brought else sys.executable,
    "SCRIPTS": str(HOUSE / "scripts"),
    "DATA": DATA,
    "DEVICE": EXPERIMENT.device,
    "WORKERS": str(EXPERIMENT.workers),
    "SAVE_SECONDS": str(EXPERIMENT.save_seconds),
    "KEEP_PREDICTIONS": EXPERIMENT.keep_predictions,
}
assignments = "".join(f"{name}={shlex.quote(value)}; " for name, value in SHELL.items())
# A job is tied to the process that started it: `exec` in the rules makes that Snakemake itself.
ties = "export END_WITH_PARENT=1; "
# This replaces Snakemake's own prefix, strict mode; braces are doubled against its formatting.
prefix = f"set -euo pipefail; {assignments}{ties}"
shell.prefix(prefix.replace("{", "{{").replace("}", "}}"))

# Where jobs run elsewhere: this machine, a login node, then tells nothing of theirs.
ON_SLURM = "slurm_partition" in (workflow.resource_settings.default_resources or {})
# One `gpu` token where a stage will use CUDA, none on a CPU.
GPU = int(
    EXPERIMENT.device == "cuda" or (EXPERIMENT.device == "auto" and (ON_SLURM or cuda_is_likely()))
)
# Processes of a stage that reads images without a network.
READERS = 4 if ON_SLURM else workflow.cores

# What jobs ask a cluster for, from the cost estimate; without a cluster it says nothing.
COST = cost.remembered(PLAN)
if not COST or COST.device.startswith("cuda") != bool(GPU):
    COST = cost.GUESS
CPUS = EXPERIMENT.compute_threads + EXPERIMENT.workers


def training_time(wildcards):
    return cost.minutes(cost.training_seconds(model_of(wildcards), RECORDS, COST))


def prediction_time(wildcards):
    images = len(PLAN.splits[wildcards.division].unlabeled) / int(wildcards.get("shards", 1))
    return cost.minutes(COST.image * images)


# What starts anew when its time is over gets more of it.
def evaluation_time(wildcards, attempt):
    images = sum(len(SUBSETS[subset]) for subset in PLAN.evaluate.report)
    return attempt * cost.minutes(2 * COST.image * images)


def labeling_time(wildcards, attempt):
    seconds = COST.image if model_of(wildcards).needs_pass else cost.READ_SECONDS
    return attempt * cost.minutes(seconds * len(PLAN.splits[wildcards.division].unlabeled))


def check_time(wildcards, attempt):
    return attempt * cost.minutes(cost.READ_SECONDS * len(RECORDS))


def memory(wildcards, attempt):
    return cost.megabytes(COST, EXPERIMENT.workers, attempt)


MEASURED_FROM = 5000  # steps: shorter work is over sooner than it is worth to measure


def cost_in_words():
    """What the run will take, printed at its start; long work is measured first, once."""
    work = cost.schedule(PLAN, RECORDS)
    if work.steps >= MEASURED_FROM and not ON_SLURM and not cost.remembered(PLAN):
        settings = workflow.config_settings
        files = settings.configfiles or [HOUSE / "config.yaml"]
        pairs = [f"{key}={json.dumps(value)}" for key, value in settings.config.items()]
        command = [sys.executable, HOUSE / "scripts/cost.py", *files, "--config", *pairs]
        # In a process of its own: torch stays out of this one. Its failure stops nothing.
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return f"no estimate: {done.stderr.strip()}"
    free = shutil.disk_usage(".").free
    if ON_SLURM:
        jobs, memory_here = workflow.resource_settings.nodes, 0
    else:
        jobs = 1 if GPU else max(1, workflow.cores // EXPERIMENT.compute_threads)
        memory_here = free_memory()
    lines = cost.in_words(work, cost.remembered(PLAN), jobs, free, memory_here)
    return "\n".join(lines)


def last_words(log):
    """Why jobs died where they could not say so themselves. log: Snakemake's own, its text."""
    words = ["Each failed job's own words stand above, and in its log."]
    if shutil.disk_usage("results").free < 1 << 20:
        # Their logs lie on the same disk.
        words = [no_space("results/")]
    signals = sorted(set(re.findall(r"died with <Signals[.](SIG\w+)", log)))
    if signals:
        words.append(
            f"A job was ended by {', '.join(signals)}, not by itself. SIGKILL is what the system "
            f"does when memory runs out ({memory_now()}; `dmesg | tail` tells). Lower train.batch "
            "or train.crop, in prediction and evaluation evaluation.batch or evaluation.tile, or "
            "run fewer jobs at once: --cores. The same command goes on from the last save."
        )
    return "\n".join(words)


wildcard_constraints:
    division="|".join(map(re.escape, PLAN.splits)),
    method="|".join(map(re.escape, SELF_TRAINED)) or "none",
    # Empty for the pass that all methods share.
    view=f"(?:{'|'.join(map(re.escape, filter(None, PLAN.views)))})?",
    round=r"[1-9]\d*",
    shard=r"\d+",
    shards=r"\d+",


def model_of(wildcards):
    """The planned model that a path names."""
    name = wildcards.get("model") or f"{wildcards.method}/round{wildcards.round}"
    path = f"{wildcards.division}/{name}"
    if path not in PLAN.models:
        raise WorkflowError(f"{STUDY}/{path} is not among the runs of this experiment")
    return PLAN.models[path]


def model_settings(wildcards):
    return model_of(wildcards).settings.canonical()


def training_gpus(wildcards):
    """Tokens of a training: one for each GPU that it uses."""
    return GPU * model_of(wildcards).settings.train.gpus


def training_threads(wildcards):
    """CPU threads of all processes of a training."""
    return EXPERIMENT.compute_threads * model_of(wildcards).settings.train.gpus


def training_cpus(wildcards):
    return CPUS * model_of(wildcards).settings.train.gpus


def training_memory(wildcards, attempt):
    return memory(wildcards, attempt) * model_of(wildcards).settings.train.gpus


def threshold_settings(wildcards):
    return model_of(wildcards).settings.thresholds.canonical()


def split_settings(wildcards):
    return PLAN.splits[wildcards.division].stage.canonical()


def read_by_training(option):
    """Input function: the file that a training reads by this option of train.py; none without."""

    def file(wildcards):
        path = model_of(wildcards).reads.get(option)
        if path and option == "thresholds":
            return thresholds_in_use(wildcards)
        return f"{STUDY}/{path}" if path else []

    return file


def training_options(wildcards, input):
    """What a training reads beside the labeled images, for the command."""
    reads = model_of(wildcards).reads
    files = {option: getattr(input, option.replace("-", "_")) for option in reads}
    return " ".join(f"--{option} {shlex.quote(file)}" for option, file in files.items())


def pseudo_label_folder(wildcards):
    model = model_of(wildcards)
    return ancient(f"{STUDY}/{model.path}/pseudo_labels") if model.labeled_by else []


def labeled_from(name, suffix):
    """Input function: a file of the predictions that a round's labels are made from."""

    def file(wildcards):
        return f"{STUDY}/{model_of(wildcards).labeling(name, suffix)}"

    return file


def labeled_rounds(wildcards):
    """Folders of the rounds of a method whose labels lie in files."""
    found = [
        f"{STUDY}/{model.path}"
        for model in LABELED_ROUNDS
        if (model.division, model.method) == (wildcards.division, wildcards.method)
    ]
    if not found:
        raise WorkflowError(
            f"{STUDY}/{wildcards.division}/{wildcards.method}: has no files of pseudo labels to "
            "look at: the model in training labels, or no image is labeled"
        )
    return found


def manifests_of_method(wildcards):
    return [f"{folder}/pseudo_labels.csv" for folder in labeled_rounds(wildcards)]


def settings_of_method(wildcards):
    """Settings that tell whose predictions the labels are from, where not of the round before."""
    foreign = {f"{STUDY}/{m.path}" for m in LABELED_ROUNDS if m.settings.labels_from}
    rounds = labeled_rounds(wildcards)
    return [f"{folder}/settings.json" for folder in rounds if folder in foreign]


def labeling_gpus(wildcards):
    """Tokens of a labeling: it has a pass of its own where it needs all probabilities."""
    return GPU if model_of(wildcards).needs_pass else 0


def labeling_predictions(wildcards):
    """What is labeled from: predictions …"""
    needs_pass = model_of(wildcards).needs_pass
    return [] if needs_pass else labeled_from("predictions", ".h5")(wildcards)


def labeling_model(wildcards):
    """… or the model that made them, where the labels need a pass of their own."""
    model = model_of(wildcards)
    return f"{STUDY}/{model.labeled_by.path}/model.pt" if model.needs_pass else []


def labeling_options(wildcards, input):
    """The same for the command."""
    if input.model:
        settings = model_of(wildcards).settings.predict.canonical()
        return f"--model {shlex.quote(input.model)} --inference {shlex.quote(settings)}"
    return f"--predictions {shlex.quote(input.predictions)}"


def prediction_settings(wildcards):
    return PLAN.views[wildcards.view].canonical()


def thresholds_in_use(wildcards):
    """What a person edited where it exists, else what was computed."""
    folder = f"{STUDY}/{wildcards.division}/{wildcards.method}/round{wildcards.round}"
    edited = f"{folder}/thresholds.edited.csv"
    return edited if Path(edited).is_file() else f"{folder}/thresholds.csv"


def training_files(wildcards):
    """(ids, whether their masks count) of what a training reads."""
    model = model_of(wildcards)
    split = PLAN.splits[wildcards.division]
    validated = [record.id for record in selecting(RECORDS, model.settings.train)]
    yield split.labeled + validated, True
    yield split.unlabeled if model.learns_unlabeled else [], False


def predicted_files(wildcards):
    """The same of a prediction."""
    yield PLAN.splits[wildcards.division].unlabeled, False


def evaluated_files(wildcards):
    """The same of an evaluation."""
    for subset in PLAN.evaluate.report:
        yield SUBSETS[subset], True


# Many jobs of a study use the same files.
@cache
def contents_of(ids, labels):
    return FILES.used(ids, labels)


@cache
def are_changed(ids, labels):
    return FILES.changed(CHECKED, ids, labels)


def digest_of(files):
    """Parameter function: changes with the contents of `files`."""

    def of_contents(wildcards):
        return [contents_of(tuple(ids), labels) for ids, labels in files(wildcards)]

    return of_contents


def index_for(files, output):
    """Input function: the index; its own time starts nothing unless `files` have changed.

    A data check runs whenever any file changes, and must not retrain what used none of them.
    What has other reasons to run must not take the index as ancient: Snakemake does not look at
    jobs behind an ancient file that is being made.
    """

    def index(wildcards):
        made = Path(expand(f"{STUDY}/{{division}}/{output}", **wildcards)[0]).exists()
        path = model_of(wildcards).path
        changed = any(are_changed(tuple(ids), labels) for ids, labels in files(wildcards))
        return INDEX if changed or not made or path in REPLACED else ancient(INDEX)

    return index


def index_of_training_ids(wildcards):
    """Input function: the same for a split, which depends on the ids of the training images."""
    checked = [row.id for row in CHECKED.values() if row.subset == "train"]
    return ancient(INDEX) if checked == SUBSETS["train"] else INDEX


def initial_weights(wildcards):
    """The files of the user's that training starts from: weights, an earlier model."""
    weights = [EXPERIMENT.network.weights, EXPERIMENT.start_from]
    return [path for path in weights if path and not path.startswith("package:")]


def weights_of_round(wildcards):
    """The same of a round, which mostly goes on from the round before."""
    return initial_weights(wildcards) if model_of(wildcards).starts_anew else []


def drawn_scenes(wildcards):
    return [f"{DATA}/scenes.json"] if EXPERIMENT.format == "digits" else []


def images(wildcards):
    """Input function: scenes that were drawn and deleted are drawn again; nothing else."""
    return [ancient(path) for path in drawn_scenes(wildcards)]


def imported_lists(wildcards):
    """Lists of the splits that come from files."""
    rules = [split.stage.rule.files for split in PLAN.splits.values()]
    return sorted({files.labeled for files in rules if files})


def imported_list_of(wildcards):
    files = PLAN.splits[wildcards.division].stage.rule.files
    return [files.labeled, files.unlabeled] if files else []


# Folder of one round of self-training.
ROUND = f"{STUDY}/{{division}}/{{method}}/round{{round}}"
# Of files that one of several jobs makes and another joins.
SHARD = "{shard}of{shards}"


def shards_for(name, joined):
    """Input function: the files `name` of all shards; none where one job does the whole.

    What is there is what it was made of: another number of shards reruns nothing.
    """

    def shards(wildcards):
        path = expand(f"{STUDY}/{{division}}/{joined}", **wildcards)[0]
        if Path(path).exists() and model_of(wildcards).path not in REPLACED:
            made_of = workflow.persistence.input(IOFile(path)) or []
            before, _, after = Path(name).name.partition(SHARD)
            before = before.format(**wildcards)
            is_shard = re.compile(rf".*/{re.escape(before)}(\d+)of\d+{re.escape(after)}")
            found = filter(None, map(is_shard.fullmatch, made_of))
            return [match[0] for match in sorted(found, key=lambda match: int(match[1]))]
        images = len(PLAN.splits[wildcards.division].unlabeled)
        count = min(EXPERIMENT.shards, -(-images // PART_IMAGES))
        numbers = range(1, count + 1) if count > 1 else []
        pattern = f"{STUDY}/{{division}}/{name}"
        return expand(pattern, **wildcards, shard=numbers, shards=count)

    return shards


def joining_gpus(wildcards, input):
    """Tokens of a prediction: it has a pass of its own unless it joins shards."""
    return 0 if input.shards else GPU


def joined_labeling_gpus(wildcards, input):
    """The same of a labeling."""
    return 0 if input.shards else labeling_gpus(wildcards)


def later_predictions(path):
    """Predictions of round 1 and later: kept, or deleted after their use."""
    return path if EXPERIMENT.keep_predictions == "all" else temp(path)
