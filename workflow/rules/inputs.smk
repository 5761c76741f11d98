"""Functions for the `input` and `params` of rules, which decide whether jobs run again."""

import json
import shlex
from functools import cache

from dst_cbc.data.records import selecting
from dst_cbc.runtime.checksums import record_of
from dst_cbc.runtime.files import digest
from dst_cbc.runtime.reading import read_ids
from dst_cbc.settings.stages import PART_IMAGES
from snakemake.io import IOFile
from snakemake.settings.types import DeploymentMethod

# -------------------------------------------------------------- how stages run

# Conda environments and containers bring their own Python.
BROUGHT = {DeploymentMethod.CONDA, DeploymentMethod.APPTAINER}
BROUGHT &= workflow.deployment_settings.deployment_method
PYTHON = "python" if BROUGHT else sys.executable


def stage(script, *options):
    """Return a params function that gives the command of a stage. options: keys of `values`.

    The params function takes `input`, so Snakemake does not compare its value to decide about a
    rerun: a moved data set, another device or another number of workers reruns nothing. CHECKSUMS
    lets a stage record what it has read and written.
    """

    def command(wildcards, input, output):
        files = json.dumps([str(record_of(Path(output[0]))), *output])
        return f"CHECKSUMS={shlex.quote(files)} {command_of(script, *options)}"

    return command


def command_of(script, *options):
    """Command of a script that records nothing. options: as of `stage`.

    END_WITH_PARENT=1 ends it with its parent process; `exec` makes Snakemake that parent.
    """
    values = {
        "data": DATA,
        "device": EXPERIMENT.device,
        "workers": EXPERIMENT.workers,
        "save-seconds": EXPERIMENT.save_seconds,
        "keep-predictions": EXPERIMENT.keep_predictions,
    }
    words = [PYTHON, REPOSITORY / "scripts" / script]
    words += [word for option in options for word in (f"--{option}", values[option])]
    return f"END_WITH_PARENT=1 exec {shlex.join(map(str, words))}"


def given(options):
    """Shell text with `--option file` for each item of `options`."""
    return " ".join(f"--{option} {shlex.quote(str(file))}" for option, file in options.items())


# -------------------------------------------------------------- settings


def model_settings(wildcards):
    return model_of(wildcards).settings.canonical()


def threshold_settings(wildcards):
    return model_of(wildcards).settings.thresholds.canonical()


def split_settings(wildcards):
    return split_of(wildcards).stage.canonical()


def evaluation_of(wildcards):
    """How a model is evaluated. A model from elsewhere belongs to no division."""
    division = wildcards.get("division")
    return PLAN.evaluate_in(division) if division else PLAN.evaluate


def evaluation_settings(wildcards):
    return evaluation_of(wildcards).canonical()


def prediction_settings(wildcards):
    return PLAN.variants[wildcards.variant].canonical()


# -------------------------------------------------------------- files of the data set


def training_files(wildcards):
    """Yield (ids, whether their masks are read) of the images that a training reads."""
    model, split = model_of(wildcards), split_of(wildcards)
    validated = [record.id for record in selecting(RECORDS, model.settings.train)]
    yield split.labeled + validated, True
    yield split.unlabeled if model.learns_unlabeled else [], False


def predicted_files(wildcards):
    """Yield (ids, False) of the images that a prediction reads; it reads no masks."""
    yield split_of(wildcards).unlabeled, False


def evaluated_files(wildcards):
    """Yield (ids, True) of the images that an evaluation reads, for each subset."""
    stage = evaluation_of(wildcards)
    for subset in stage.report:
        yield stage.held_out or SUBSETS[subset], True


# Cached, because many jobs of a study use the same files.
@cache
def contents_of(ids, labels):
    return FILES.used(ids, labels)


@cache
def are_changed(ids, labels):
    return FILES.changed(CHECKED, ids, labels)


def digest_of(files):
    """Return a params function whose value changes if the contents of `files` change."""

    def of_contents(wildcards):
        return [contents_of(tuple(ids), labels) for ids, labels in files(wildcards)]

    return of_contents


def index_for(files, output):
    """Return an input function for dataset.csv that ignores its time unless `files` changed.

    files: function that yields (ids, masks); output: path pattern of what the job makes. The data
    check runs if any file changes, and must not rerun jobs that use none of the changed files.
    So dataset.csv is ancient for a job that has no other reason to run. It must not be ancient for
    the other jobs: Snakemake does not look at the jobs behind an ancient file.
    """

    def index(wildcards):
        made = on_disk(expand(output, **wildcards)[0]).exists()
        # A model from elsewhere belongs to no division, and its settings cannot be edited.
        is_planned = "division" in wildcards.keys()
        replaced = is_planned and model_of(wildcards).path in REPLACED
        changed = any(are_changed(tuple(ids), labels) for ids, labels in files(wildcards))
        return INDEX if changed or not made or replaced else ancient(INDEX)

    return index


def index_for_split(wildcards):
    """Input function of a split: dataset.csv, ancient while the planned lists are on disk.

    The lists change when training images or masks are added or removed.
    """
    return ancient(INDEX) if is_made(wildcards.division) else INDEX


# Cached, because Snakemake asks for the inputs of a job several times.
@cache
def is_made(division):
    split = PLAN.splits[division]
    lists = {"labeled": split.labeled, "unlabeled": split.unlabeled}
    paths = {side: on_disk(f"{STUDY}/splits/{division}.{side}.txt") for side in lists}
    try:
        return all(
            paths[side].is_file() and read_ids(paths[side]) == ids for side, ids in lists.items()
        )
    except DataError:
        # The next job that reads the list names the damage.
        return False


def drawn_scenes(wildcards):
    return [f"{EXPERIMENT.data}/scenes.json"] if DRAWN else []


def images(wildcards):
    """Input function: drawn scenes, so that deleted ones are drawn again; their time is ignored."""
    return [ancient(path) for path in drawn_scenes(wildcards)]


def files_of_the_user(paths):
    """Mark paths as files of the user, to which the `prefix:` of a module does not apply."""
    return [local(path) for path in paths]


def imported_lists(wildcards):
    """Input function: the user's lists of labeled ids, for splits that are given as `files`."""
    rules = [split.stage.rule.files for split in PLAN.splits.values()]
    return files_of_the_user(sorted({files.labeled for files in rules if files}))


def imported_list_of(wildcards):
    files = split_of(wildcards).stage.rule.files
    return files_of_the_user([files.labeled, files.unlabeled] if files else [])


# -------------------------------------------------------------- training

# The files that every training writes.
TRAINED = {
    "model": f"{MODEL}/model.pt",
    "last": f"{MODEL}/last.pt",
    "settings": f"{MODEL}/settings.json",
    "history": f"{MODEL}/history.csv",
    "run": f"{MODEL}/run.json",
}

# The files that every evaluation writes.
EVALUATED = ["metrics.json", "confusions.csv"]


def rounds_of(methods):
    """Regular expression for the wildcard `model`: all rounds of these methods."""
    return rf"(?:{'|'.join(map(re.escape, methods)) or 'none'})/round[1-9]\d*"


def initial_weights(wildcards):
    """Input function: files of the user that round 0 starts from: weights, an earlier model."""
    weights = [EXPERIMENT.network.weights, EXPERIMENT.start_from]
    return files_of_the_user(p for p in weights if p and not p.startswith("package:"))


def weights_of_round(wildcards):
    """Input function: initial_weights for a round with `start: restart`; nothing for other rounds."""
    return initial_weights(wildcards) if model_of(wildcards).starts_anew else []


def read_by_training(option):
    """Return an input function for the file of an option of train.py; none if it is not used."""

    def file(wildcards):
        path = model_of(wildcards).reads.get(option)
        if path and option == "thresholds":
            return thresholds_in_use(wildcards)
        return f"{STUDY}/{path}" if path else []

    return file


def training_options(wildcards, input):
    """Options of train.py for the files that a training reads besides the labeled images."""
    model = model_of(wildcards)
    options = {option: getattr(input, option.replace("-", "_")) for option in model.reads}
    return given(options | ({"name": model.name} if model.choice else {}))


def pseudo_label_folder(wildcards):
    model = model_of(wildcards)
    return ancient(f"{STUDY}/{model.path}/pseudo_labels") if model.labeled_by else []


# -------------------------------------------------------------- pseudo labels


def labeled_from(name, suffix):
    """Return an input function for a file of the predictions that a round is labeled from."""

    def file(wildcards):
        return f"{STUDY}/{model_of(wildcards).labeling(name, suffix)}"

    return file


def labeling_predictions(wildcards):
    """Input function: the predictions that labels are made from; none if a model is needed."""
    needs_pass = model_of(wildcards).needs_pass
    return [] if needs_pass else labeled_from("predictions", ".h5")(wildcards)


def labeling_model(wildcards):
    """Input function: the labeling model, if the labels need the probabilities of all classes."""
    model = model_of(wildcards)
    return f"{STUDY}/{model.labeled_by.path}/model.pt" if model.needs_pass else []


def labeling_settings(wildcards):
    return model_of(wildcards).label_stage.canonical()


def labeling_options(wildcards, input):
    """Options of pseudo_labels.py that name the predictions, or the labeling model."""
    if not input.model:
        return given({"predictions": input.predictions})
    return given({"model": input.model})


def thresholds_in_use(wildcards):
    """Input function: thresholds.edited.csv if the user made one, else thresholds.csv."""
    folder = f"{STUDY}/{model_of(wildcards).path}"
    edited = f"{folder}/thresholds.edited.csv"
    return edited if on_disk(edited).is_file() else f"{folder}/thresholds.csv"


def edited_thresholds(wildcards):
    edited = of_labeled_rounds("thresholds.edited.csv")
    return [path for path in edited if on_disk(path).is_file()]


def later_predictions(path):
    """Mark predictions of round 1 and later as temporary, unless all predictions are kept."""
    return path if EXPERIMENT.keep_predictions == "all" else temp(path)


def shards_for(name, joined):
    """Return an input function for the files of all shards that a job joins.

    name, joined: path patterns of a shard's file and of the joined file. A job that makes a shard,
    or that is not divided, joins none. An existing joined file keeps the shards that it was made
    from, so that another number of shards reruns nothing.
    """

    def shards(wildcards):
        if "shard" in wildcards.keys():
            return []
        path = on_disk(expand(joined, **wildcards)[0])
        if path.exists() and model_of(wildcards).path not in REPLACED:
            made_of = workflow.persistence.input(IOFile(str(path))) or []
            before, _, after = Path(name).name.partition(SHARD)
            before = before.format(**wildcards)
            is_shard = re.compile(rf".*/{re.escape(before)}(\d+)of\d+{re.escape(after)}")
            found = filter(None, map(is_shard.fullmatch, made_of))
            # These recorded paths have the module's prefix already.
            return [local(match[0]) for match in sorted(found, key=lambda match: int(match[1]))]
        count = min(EXPERIMENT.shards, -(-len(split_of(wildcards).unlabeled) // PART_IMAGES))
        numbers = range(1, count + 1) if count > 1 else []
        return expand(name, **wildcards, shard=numbers, shards=count)

    return shards


def shard_options(wildcards, input):
    """Options of a stage: the shard that the job makes, or the shards that it joins."""
    if "shard" in wildcards.keys():
        return f"--shard {wildcards.shard} {wildcards.shards}"
    return f"--join {shlex.join(input.shards)}" if input.shards else ""


# -------------------------------------------------------------- folds


def folds_of(division):
    """The splits of the folds that choose the models of a split; none without folds."""
    stage = PLAN.splits[division].stage
    return [
        fold
        for fold, split in PLAN.splits.items()
        if split.stage.fold and split.stage.model_copy(update={"fold": None}) == stage
    ]


def models_of(division):
    """The names of the models of a split: `supervised`, `dst-cbc/round1`, …"""
    return [model.name for model in MODELS if model.division == division]


def of_folds(division, name):
    """Paths of the file `name` in all models of the folds that choose the models of a split."""
    models = models_of(division)
    return [f"{STUDY}/{fold}/{model}/{name}" for fold in folds_of(division) for model in models]


def of_final_models(name):
    """Paths of the file `name` of all models of which one is recommended."""
    if not RECOMMENDS:
        raise WorkflowError(
            f"{STUDY}: no model can be recommended: its runs have several splits, or choose models "
            "in several ways, or evaluation.report lacks val"
        )
    return [f"{STUDY}/{division}/{model}/{name}" for division in SEEDS for model in FINAL_MODELS]


# -------------------------------------------------------------- gallery page of a method


def labeled_rounds(wildcards):
    """Folders of the rounds of a method that have pseudo label files."""
    found = [
        f"{STUDY}/{model.path}"
        for model in MODELS
        if model.labeled_by
        and (model.division, model.method) == (wildcards.division, wildcards.method)
    ]
    if not found:
        raise WorkflowError(
            f"{STUDY}/{wildcards.division}/{wildcards.method}: has no pseudo label files to show: "
            "its images are labeled during training, or it uses no unlabeled images"
        )
    return found


def labeled_rounds_on_disk(wildcards):
    return [str(on_disk(folder)) for folder in labeled_rounds(wildcards)]


def predictions_of_rounds(wildcards, input):
    """Params function, which Snakemake does not compare: the predictions behind each round."""
    models = {f"{STUDY}/{model.path}": model for model in MODELS}
    rounds = [models[folder] for folder in labeled_rounds(wildcards)]
    return [str(on_disk(f"{STUDY}/{one.labeling('predictions', '.h5')}")) for one in rounds]


def manifests_of_method(wildcards):
    return [f"{folder}/pseudo_labels.csv" for folder in labeled_rounds(wildcards)]


def settings_of_method(wildcards):
    """Input function: settings.json of the rounds that name other predictions in labels_from."""
    foreign = {f"{STUDY}/{m.path}" for m in MODELS if m.settings.labels_from}
    rounds = labeled_rounds(wildcards)
    return [f"{folder}/settings.json" for folder in rounds if folder in foreign]
