"""Makes deleted results again, and records results of earlier versions that have no checksums."""

import subprocess

from dst_cbc.planning.lost import EXPENSIVE, Lost
from dst_cbc.report.model_files import read_run
from dst_cbc.runtime import checksums, job_record
from snakemake_interface_executor_plugins.settings import ExecMode


def planned_jobs():
    """Target of each job of the study -> its results, as paths on disk."""
    jobs = {
        INDEX: [INDEX],
        f"{STUDY}/summary.csv": [f"{STUDY}/summary.csv", f"{STUDY}/summary.md"],
        f"{REPORT}/table.csv": [f"{REPORT}/table.{suffix}" for suffix in ("csv", "md", "tex")],
    }
    if DRAWN:
        jobs[f"{EXPERIMENT.data}/scenes.json"] = [f"{EXPERIMENT.data}/scenes.json"]
    if RECOMMENDS:
        names = ("recommendation.md", "recommendation.json", "model.pt")
        jobs[f"{STUDY}/recommendation.md"] = [f"{STUDY}/{name}" for name in names]
    if FIGURES:
        paths = [f"{REPORT}/{figure}.{end}" for figure in FIGURES for end in ("svg", "png")]
        jobs[paths[0]] = paths
    for folder in LABELED_METHODS:
        jobs[f"{folder}/gallery.html"] = [f"{folder}/gallery.html", f"{folder}/agreement.csv"]
    for division in PLAN.splits:
        lists = [f"{STUDY}/splits/{division}.{side}.txt" for side in ("labeled", "unlabeled")]
        jobs[lists[0]] = lists
    for choice in {model.choice for model in MODELS if model.choice}:
        jobs[f"{STUDY}/{choice}"] = [f"{STUDY}/{choice}"]
    for model in MODELS:
        folder = f"{STUDY}/{model.path}"
        names = ["model.pt", "last.pt", "settings.json", "history.csv", "run.json"]
        names += ["snapshots"] if model.settings.train.snapshots else []
        jobs[f"{folder}/model.pt"] = [f"{folder}/{name}" for name in names]
        jobs[f"{folder}/metrics.json"] = [f"{folder}/{name}" for name in EVALUATED]
    for model in MODELS:
        if not model.labeled_by:
            continue
        folder = f"{STUDY}/{model.path}"
        histogram = f"{STUDY}/{model.labeling('histogram', '.npz')}"
        # Predictions of later rounds may be deleted, histograms not.
        jobs[histogram] = [histogram, f"{STUDY}/{model.labeling('predictions', '.h5')}"]
        for name in ["thresholds.csv"] if model.fold else ["thresholds.csv", "contact_sheet.jpg"]:
            jobs[f"{folder}/{name}"] = [f"{folder}/{name}"]
        labels = ["pseudo_labels.csv", "pseudo_labels.quality.csv", "pseudo_labels"]
        jobs[f"{folder}/pseudo_labels.csv"] = [f"{folder}/{name}" for name in labels]
    return {on_disk(target): [*map(on_disk, paths)] for target, paths in jobs.items()}


def needed_by_jobs(planned):
    """Target of a job -> files that Snakemake needs for it, which not every job reads."""
    scenes = {on_disk(path) for path in drawn_scenes(None)}
    needed = {target: {*scenes} for target in planned if target not in scenes}
    manifests = [*map(on_disk, of_labeled_rounds("pseudo_labels.csv"))]
    for manifest in manifests:
        needed[manifest.with_name("contact_sheet.jpg")].add(manifest)
        needed[manifest.parents[1] / "gallery.html"].add(manifest)
    if FIGURES:
        files = of_labeled_rounds("thresholds.csv") + of_labeled_rounds("pseudo_labels.quality.csv")
        files += [f"{folder}/agreement.csv" for folder in LABELED_METHODS]
        files += [f"{STUDY}/{m.labeling('histogram', '.npz')}" for m in LABELED_ROUNDS]
        needed[on_disk(f"{REPORT}/{FIGURES[0]}.svg")].update(manifests, map(on_disk, files))
    return needed


WITHHELD = set()


def whole_study(wildcards):
    """Input function of `all`: everything that the study should have.

    Deleted results are made again first, each alone by a Snakemake of its own: here, Snakemake would
    also run all that follows from them, although their bytes are the same.
    """
    wanted = [
        f"{STUDY}/summary.csv",
        f"{STUDY}/summary.md",
        f"{REPORT}/table.md",
        *(f"{REPORT}/{figure}.svg" for figure in FIGURES),
        *of_labeled_rounds("contact_sheet.jpg"),
        *GALLERIES,
        *([f"{STUDY}/recommendation.md"] if RECOMMENDS else []),
    ]
    # None: Snakemake only describes the study, e.g. for --summary.
    if workflow.execution_settings is None or workflow.exec_mode != ExecMode.DEFAULT:
        return wanted
    planned = Planned(workflow.dag, [*DAMAGE])
    workflow.dag.dag_processors.append(planned)
    asked = workflow.dag_settings
    asked = asked.targets, asked.forceall, asked.forcerun, asked.until, asked.omit_from, asked.batch
    has_records = (on_disk(STUDY) / checksums.FOLDER).is_dir()
    if any(asked) or workflow.touch or planned.problems or not has_records:
        return wanted
    try:
        lost = make_again()
    except (DataError, WorkflowError) as error:
        planned.problems.append(str(error))
        return wanted
    WITHHELD.update(str(path) for job in lost.withheld for path in job.gone)
    # A dry run only says what is made again first.
    first = {str(path) for step in lost.steps for path in step.gone} if workflow.dryrun else set()
    wanted = [path for path in wanted if str(on_disk(path)) not in WITHHELD | first]
    # A job that failed has no record, and Snakemake has deleted its results.
    return wanted + files_of_the_user(map(str, lost.unrecorded))


@cache
def make_again():
    """Make deleted results again, as far as they are cheap or `remake` is set; list the others."""
    planned = planned_jobs()
    lost = Lost(planned, EXPERIMENT.remake, needed_by_jobs(planned))
    for job in lost.withheld:
        print(
            terminal(f"not made again: {sorted(map(str, job.gone))[0]}: {why(job)}"),
            file=sys.stderr,
        )
    for step in lost.steps:
        run_alone(step)
    return lost


def why(job):
    """Why a deleted result is not made again, and what making it again costs."""
    path = job.target.parent.relative_to(on_disk(STUDY)).as_posix()
    ways = "`--config remake=true` makes it again"
    if job.accepted:
        return (
            f"it was edited by hand; `snakemake {job.target} --forcerun {job.target}` replaces it"
        )
    if job.job == "train":
        model, run = PLAN.models[path], read_run(job.target.with_name("run.json"))
        seconds = run["seconds"] if run else cost.training_seconds(model, RECORDS, COST)
        steps = model.settings.train.steps
        return f"a training of {steps} steps, about {seconds / 60:.0f} min; {ways}"
    if job.job == "predict":
        images = len(PLAN.splits[path.partition("/")[0]].unlabeled)
        return f"a prediction of {images} images, about {COST.image * images / 60:.0f} min; {ways}"
    return f"it needs a deleted training or prediction; {ways}"


def run_alone(step):
    """Run a step by a Snakemake of its own, with the options of this one."""
    would = "would first make" if workflow.dryrun else "making"
    print(f"{would} again: {', '.join(map(str, step.gone or step.targets))}", file=sys.stderr)
    if workflow.dryrun:
        return
    before = {path: checksums.recorded(path) for path in step.wrote}
    command = [sys.executable, "-m", "snakemake", *map(str, step.targets), *sys.argv[1:]]
    command += ["--forcerun", *map(str, step.forced)] if step.forced else []
    if subprocess.run(command).returncode:
        raise WorkflowError("Deleted results could not be made again; see the messages above")
    # The other Snakemake has removed this folder at its end, and this one has made it already.
    Path(workflow.persistence.path, "locks").mkdir(exist_ok=True)
    for path, known in before.items():
        checksums.date_back(path)
        if checksums.recorded(path) != known and not checksums.is_timed(path):
            print(f"{path}: has other bytes than before; what follows runs again", file=sys.stderr)


def require_meant():
    """Raise WorkflowError if a job would make a deleted training or prediction without `remake`."""
    files = {str(file) for job in workflow.dag.needrun_jobs() for file in job.output}
    if needed := sorted(files & WITHHELD):
        raise WorkflowError(
            f"{needed[0]} is missing, and unfinished jobs need it; its cost is above. To have it made "
            "again, add --config remake=true"
        )


class Planned:
    """Snakemake calls `process` once it has planned all jobs, also if there is nothing to do.

    It stops for the problems that were found before, because an input function cannot do so with a
    plain message. It records the files of finished jobs that have no record: those of an earlier
    version.
    """

    def __init__(self, dag, problems):
        self.dag, self.problems = dag, problems
        self.done = False

    def process(self):
        if self.problems:
            advice = "To list all damage: snakemake verify"
            raise WorkflowError(*map(terminal, self.problems), advice)
        if self.done or workflow.dryrun or workflow.touch:
            return
        self.done = True
        jobs = [job for level in self.dag.toposorted() for job in level]
        try:
            adopted = [job for job in jobs if not self.dag.needrun(job) and adopt(job)]
        except DataError as error:
            raise WorkflowError(terminal(str(error)))
        if adopted:
            print(
                f"{len(adopted)} jobs of an earlier run have no record of checksums: recorded their "
                f"files as they are now, first {adopted[0].output[0]}",
                file=sys.stderr,
            )


def adopt(job):
    """Record the files of a finished job that has no record; returns whether it did."""
    outputs = [Path(path) for path in job.output]
    script = re.search(r"scripts/(\w+)[.]py", job.params.get("stage", ""))
    if not script or not any(path.exists() for path in outputs):
        return False
    settings = job_record.digest_of_settings(job.params.get("settings", ""))
    recording = job_record.Job(checksums.record_of(outputs[0]), outputs, script[1], settings)
    if unwritten := job_record.unwritten(recording):
        read = [Path(path) for path in job.input if Path(path).is_file()]
        job_record.write(recording, {path: checksums.sha256_of(path) for path in read}, unwritten)
    return bool(unwritten)
