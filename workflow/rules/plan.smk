"""Reads the experiment file and plans the models of the study and the paths of their files."""

import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

# Not workflow.basedir: in a module that is the folder of the outer workflow.
REPOSITORY = Path(str(workflow.current_basedir.get_path_or_uri(secret_free=True))).parents[1]
if not (REPOSITORY / "scripts").is_dir():
    raise WorkflowError(
        f"{REPOSITORY}: not a local folder with scripts/ in it; `snakefile:` of the module "
        "statement must name the Snakefile of a local copy of DST-CBC: git clone it"
    )
sys.path.insert(0, str(REPOSITORY / "scripts"))

from dst_cbc.data.fingerprints import Fingerprints
from dst_cbc.data.index import read_index
from dst_cbc.planning.edits import replaced_trainings
from dst_cbc.planning.plan import load_plan
from dst_cbc.report.tables import describe_selection
from dst_cbc.runtime import checksums
from dst_cbc.runtime.escape import terminal
from dst_cbc.runtime.errors import DataError
from dst_cbc.settings.methods import SUPERVISED
from dst_cbc.settings.yaml_files import ConfigError

PATHS = workflow.modifier.path_modifier


def on_disk(path):
    """The path on disk of a path in the rules: with the `prefix:` of a module statement."""
    return Path(PATHS.replace_prefix(str(path)))


try:
    if workflow.modifier.skip_configfile:
        # `config:` of the module statement holds the experiment.
        EXPERIMENT, RECORDS, PLAN = load_plan(REPOSITORY, [config], {})
    else:
        EXPERIMENT, RECORDS, PLAN = load_plan(
            REPOSITORY, workflow.config_settings.configfiles, workflow.config_settings.config
        )
    STUDY = f"results/{EXPERIMENT.name}"
    INDEX = f"{STUDY}/dataset.csv"
    # What is damaged can still be verified and made again: a run of the whole study stops.
    REPLACED, DAMAGE = replaced_trainings(PLAN, on_disk(STUDY))
    try:
        CHECKED = read_index(on_disk(INDEX)) if on_disk(INDEX).is_file() else {}
    except DataError as error:
        CHECKED = {}
        DAMAGE.append(str(error))
except (ConfigError, DataError, OSError, ValueError) as error:
    raise WorkflowError(terminal(str(error)))

# No rule makes these folders, so Snakemake does not add the prefix of a module.
STATE = on_disk(f"results/.resume/{EXPERIMENT.name}")
BOARD = on_disk(f"{STUDY}/tensorboard")
# Path patterns: the folder of a model, of a model from elsewhere, and of a round of self-training.
MODEL = f"{STUDY}/{{division}}/{{model}}"
GIVEN = f"{STUDY}/{checksums.GIVEN}/{{name}}"
ROUND = f"{STUDY}/{{division}}/{{method}}/round{{round}}"
# Part of the names of shards, the files that several jobs make and another job joins.
SHARD = "{shard}of{shards}"

# A rule makes drawn scenes, so they get the prefix of a module; the user's data do not.
DRAWN = EXPERIMENT.format == "digits"
DATA = on_disk(EXPERIMENT.data) if DRAWN else Path(EXPERIMENT.data)
FILES = Fingerprints(DATA, RECORDS, PLAN.dataset, on_disk(f"{STUDY}/.fingerprints.json"))
SUBSETS = {
    subset: [record.id for record in RECORDS if record.subset == subset]
    for subset in ("train", "val", "test")
}
MODELS = list(PLAN.models.values())
SELF_TRAINED = sorted({m.method for m in MODELS if m.learns_unlabeled})
LABELED_ONLY = sorted({m.name for m in MODELS if not m.learns_unlabeled})
KEEP_SNAPSHOTS = sorted({m.method for m in MODELS if m.settings.train.snapshots})
# The models that reports show: those of folds only choose the others.
SHOWN = [m for m in MODELS if not m.fold]
LABELED_ROUNDS = [m for m in SHOWN if m.labeled_by]

REPORT = f"{STUDY}/report/{EXPERIMENT.report.name or EXPERIMENT.name}"
# Each method with label files gets one gallery page, and one agreement.csv.
LABELED_METHODS = sorted({f"{STUDY}/{m.division}/{m.method}" for m in LABELED_ROUNDS})
GALLERIES = [f"{folder}/gallery.html" for folder in LABELED_METHODS]
CHAINS = [m for m in LABELED_ROUNDS if m.round > 1 and "@" not in m.method]
MASKED = {record.id for record in RECORDS if record.label}
COMPARABLE = any(MASKED.intersection(PLAN.splits[m.division].unlabeled) for m in CHAINS)
# Only the figures that have something to show.
FIGURES = [
    *(["rounds", "classes", "pseudo_labels", "agreement"] if CHAINS else []),
    *(["kept"] if COMPARABLE else []),
    *(["cost"] if SELF_TRAINED else []),
    *(["sweep"] if any(run.vary for run in EXPERIMENT.runs) else []),
]
# If a study reports several subsets, the figures show the last one.
SHOWN_SUBSET = PLAN.evaluate.report[-1]
SELECTIONS = sorted({split.select for split in PLAN.splits.values() if not split.stage.fold})
WHAT_IS_SHOWN = (
    f"{describe_selection(SELECTIONS).removeprefix('the ')}, and last step, "
    f"reported on {', '.join(PLAN.evaluate.report)}"
)

# One model is recommended if all models are of one split and chosen in one way, perhaps on several
# seeds, and if the images that choose are evaluated.
SEEDS = list(dict.fromkeys(model.division for model in SHOWN))
CHOICES = sorted({model.choice for model in SHOWN if model.choice})
KINDS = {(PLAN.splits[division].name, PLAN.splits[division].select) for division in SEEDS}
RECOMMENDS = len(KINDS) == 1 and bool(CHOICES or "val" in PLAN.evaluate.report)
TESTED = "test" in PLAN.evaluate.report and bool(SUBSETS["test"])
# The last model of each method that all seeds have: first those without unlabeled images.
LAST_ROUNDS = {(model.division, model.method): model.name for model in SHOWN}
FINAL_MODELS = sorted(
    (
        name
        for name in dict.fromkeys(LAST_ROUNDS.values())
        if all(name in (m.name for m in SHOWN if m.division == division) for division in SEEDS)
    ),
    key=lambda name: (name != SUPERVISED, name not in LABELED_ONLY),
)

if DRAWN and (Path(EXPERIMENT.data).parts[:1] != ("results",) or ".." in DATA.parts):
    raise WorkflowError(
        f"data: found {EXPERIMENT.data!r}; format `digits` writes its scenes there, and nothing is "
        "written outside results/: choose a folder below it, e.g. results/digits"
    )
if REPLACED and not EXPERIMENT.replace:
    raise WorkflowError(
        "Edited settings would replace finished trainings:",
        *(f"{STUDY}/{path}: {why}" for path, why in REPLACED.items()),
        "To keep them, give the experiment another `name`, or undo the edit. "
        "To replace them, add --config replace=true",
    )


wildcard_constraints:
    division="|".join(map(re.escape, PLAN.splits)),
    method="|".join(map(re.escape, SELF_TRAINED)) or "none",
    # Empty for the predictions that all methods share.
    variant=f"(?:{'|'.join(map(re.escape, filter(None, PLAN.variants)))})?",
    round=r"[1-9]\d*",
    shard=r"\d+",
    shards=r"\d+",


def of_labeled_rounds(name):
    """Paths of the file `name` in all rounds that have pseudo label files."""
    return [f"{STUDY}/{model.path}/{name}" for model in LABELED_ROUNDS]


def model_of(wildcards):
    """The planned model that the wildcards of a path name."""
    name = wildcards.get("model") or f"{wildcards.method}/round{wildcards.round}"
    path = f"{wildcards.division}/{name}"
    if path not in PLAN.models:
        raise WorkflowError(f"{STUDY}/{path} is not among the runs of this experiment")
    return PLAN.models[path]


def split_of(wildcards):
    """The labeled split that the wildcards of a path name."""
    return PLAN.splits[wildcards.division]
