"""What rules read, and the parameters that decide whether they run again."""

import shlex
from functools import cache

from dst_cbc.data.records import selecting
from dst_cbc.runtime.files import digest
from dst_cbc.settings.stages import PART_IMAGES
from snakemake.io import IOFile
from snakemake.settings.types import DeploymentMethod

# -------------------------------------------------------------- how stages run

# Conda and a container bring their own Python.
BROUGHT = {DeploymentMethod.CONDA, DeploymentMethod.APPTAINER}
BROUGHT &= workflow.deployment_settings.deployment_method
PYTHON = "python" if BROUGHT else sys.executable


def stage(script, *options):
    """Parameter function: the command of a stage, with some of the `options` --data, …

    It takes `input`, so that Snakemake counts it as derived and leaves it out of what reruns a job:
    a moved folder, another device or number of workers reruns nothing. A job is tied to the
    process that started it; `exec` makes that Snakemake itself.
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
    command = f"END_WITH_PARENT=1 exec {shlex.join(map(str, words))}"
    return lambda wildcards, input: command


def given(options):
    """`--option file` of each, for a shell."""
    return " ".join(f"--{option} {shlex.quote(str(file))}" for option, file in options.items())


# -------------------------------------------------------------- settings


def model_settings(wildcards):
    return model_of(wildcards).settings.canonical()


def threshold_settings(wildcards):
    return model_of(wildcards).settings.thresholds.canonical()


def split_settings(wildcards):
    return split_of(wildcards).stage.canonical()


def prediction_settings(wildcards):
    return PLAN.variants[wildcards.variant].canonical()


# -------------------------------------------------------------- files of the data set


def training_files(wildcards):
    """(ids, whether their masks count) of what a training reads."""
    model, split = model_of(wildcards), split_of(wildcards)
    validated = [record.id for record in selecting(RECORDS, model.settings.train)]
    yield split.labeled + validated, True
    yield split.unlabeled if model.learns_unlabeled else [], False


def predicted_files(wildcards):
    """The same of a prediction."""
    yield split_of(wildcards).unlabeled, False


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
        made = on_disk(expand(output, **wildcards)[0]).exists()
        path = model_of(wildcards).path
        changed = any(are_changed(tuple(ids), labels) for ids, labels in files(wildcards))
        return INDEX if changed or not made or path in REPLACED else ancient(INDEX)

    return index


def index_of_training_ids(wildcards):
    """Input function: the same for a split, which depends on the ids of the training images."""
    checked = [row.id for row in CHECKED.values() if row.subset == "train"]
    return ancient(INDEX) if checked == SUBSETS["train"] else INDEX


def drawn_scenes(wildcards):
    return [f"{EXPERIMENT.data}/scenes.json"] if DRAWN else []


def images(wildcards):
    """Input function: scenes that were drawn and deleted are drawn again; nothing else."""
    return [ancient(path) for path in drawn_scenes(wildcards)]


def files_of_the_user(paths):
    """Paths that are not the rules' and so have no prefix."""
    return [local(path) for path in paths]


def imported_lists(wildcards):
    """Lists of the splits that come from files."""
    rules = [split.stage.rule.files for split in PLAN.splits.values()]
    return files_of_the_user(sorted({files.labeled for files in rules if files}))


def imported_list_of(wildcards):
    files = split_of(wildcards).stage.rule.files
    return files_of_the_user([files.labeled, files.unlabeled] if files else [])


# -------------------------------------------------------------- training

# What every training makes.
TRAINED = {
    "model": f"{MODEL}/model.pt",
    "last": f"{MODEL}/last.pt",
    "settings": f"{MODEL}/settings.json",
    "history": f"{MODEL}/history.csv",
    "run": f"{MODEL}/run.json",
}


def rounds_of(methods):
    """Constraint of `model`: the rounds of these methods."""
    return rf"(?:{'|'.join(map(re.escape, methods)) or 'none'})/round[1-9]\d*"


def initial_weights(wildcards):
    """The files of the user's that training starts from: weights, an earlier model."""
    weights = [EXPERIMENT.network.weights, EXPERIMENT.start_from]
    return files_of_the_user(p for p in weights if p and not p.startswith("package:"))


def weights_of_round(wildcards):
    """The same of a round, which mostly goes on from the round before."""
    return initial_weights(wildcards) if model_of(wildcards).starts_anew else []


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
    return given({option: getattr(input, option.replace("-", "_")) for option in reads})


def pseudo_label_folder(wildcards):
    model = model_of(wildcards)
    return ancient(f"{STUDY}/{model.path}/pseudo_labels") if model.labeled_by else []


# -------------------------------------------------------------- pseudo labels


def labeled_from(name, suffix):
    """Input function: a file of the predictions that a round's labels are made from."""

    def file(wildcards):
        return f"{STUDY}/{model_of(wildcards).labeling(name, suffix)}"

    return file


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
    if not input.model:
        return given({"predictions": input.predictions})
    settings = model_of(wildcards).settings.predict.canonical()
    return given({"model": input.model, "inference": settings})


def thresholds_in_use(wildcards):
    """What a person edited where it exists, else what was computed."""
    folder = f"{STUDY}/{model_of(wildcards).path}"
    edited = f"{folder}/thresholds.edited.csv"
    return edited if on_disk(edited).is_file() else f"{folder}/thresholds.csv"


def edited_thresholds(wildcards):
    edited = of_labeled_rounds("thresholds.edited.csv")
    return [path for path in edited if on_disk(path).is_file()]


def later_predictions(path):
    """Predictions of round 1 and later: kept, or deleted after their use."""
    return path if EXPERIMENT.keep_predictions == "all" else temp(path)


def shards_for(name, joined):
    """Input function: the files `name` of all shards; none for one of them, or for a whole.

    What is there is what it was made of: another number of shards reruns nothing.
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
            # As they lie on disk, with the prefix.
            return [local(match[0]) for match in sorted(found, key=lambda match: int(match[1]))]
        count = min(EXPERIMENT.shards, -(-len(split_of(wildcards).unlabeled) // PART_IMAGES))
        numbers = range(1, count + 1) if count > 1 else []
        return expand(name, **wildcards, shard=numbers, shards=count)

    return shards


def shard_options(wildcards, input):
    """Which shard a job is, or which it joins, for the command."""
    if "shard" in wildcards.keys():
        return f"--shard {wildcards.shard} {wildcards.shards}"
    return f"--join {shlex.join(input.shards)}" if input.shards else ""


# -------------------------------------------------------------- pages of a method


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


def labeled_rounds_on_disk(wildcards):
    return [str(on_disk(folder)) for folder in labeled_rounds(wildcards)]


def manifests_of_method(wildcards):
    return [f"{folder}/pseudo_labels.csv" for folder in labeled_rounds(wildcards)]


def settings_of_method(wildcards):
    """Settings that tell whose predictions the labels are from, where not of the round before."""
    foreign = {f"{STUDY}/{m.path}" for m in LABELED_ROUNDS if m.settings.labels_from}
    rounds = labeled_rounds(wildcards)
    return [f"{folder}/settings.json" for folder in rounds if folder in foreign]
