"""Train one model: supervised, or a round of self-training.

With --pseudo-labels or --unlabeled, it learns from labeled and pseudo-labeled images; otherwise
from labeled images only. If the settings name a network, it starts from initial weights; otherwise
from the weights of --previous. It writes to the folder --out: model.pt (the best model of all
rounds so far), last.pt, settings.json, history.csv and run.json, and snapshots/ if the settings ask
for them. A training that was killed continues from its last save. With --choice, it ends at the
step that the folds chose. A round behind the end of its chain trains nothing and copies the model.
"""

from contextlib import nullcontext
from pathlib import Path

from dst_cbc.cli import Parser, main
from dst_cbc.data.index import Row, read_index, require_same, rows_of, used_files, window_of
from dst_cbc.data.records import selecting
from dst_cbc.inference.metrics import FEW_IMAGES
from dst_cbc.inference.paired import resampling_groups
from dst_cbc.report.choice import chosen_for
from dst_cbc.runtime import checksums, devices, gpu_locks, signals
from dst_cbc.runtime.errors import Changed, DataError
from dst_cbc.runtime.files import digest
from dst_cbc.runtime.reading import read_ids
from dst_cbc.runtime.resume import Work, resume_folder
from dst_cbc.self_training.pseudo_labels import read_manifest, require_unchanged
from dst_cbc.settings.choices import SelfTraining
from dst_cbc.settings.stages import ModelSettings, TrainStage
from dst_cbc.training import ranks

READ = (
    ("--previous", "model.pt of the previous round: weights, and score of the best model so far"),
    ("--pseudo-labels", "pseudo_labels.csv, with the folder of its PNGs beside it"),
    ("--unlabeled", "list of ids of images to label during training, instead of --pseudo-labels"),
    ("--predictions", "predictions.h5 of the model that made the pseudo labels"),
    ("--thresholds", "thresholds.csv that made the pseudo labels"),
    ("--labeling-model", "model.pt of the model that made the pseudo labels"),
    ("--choice", "choice.json, if folds choose the model: after which step, and in which round"),
)
"""Options for inputs other than the labeled images; the method decides which are required."""


def parse():
    parser = Parser(__doc__)
    parser.settings(ModelSettings)
    parser.path("--data", "folder of the data set")
    parser.path("--index", "dataset.csv of the data check")
    parser.path("--labeled", "list of the ids of labeled images, one per line")
    for name, help in READ:
        parser.add_argument(name, type=Path, metavar="PATH", help=help)
    parser.add_argument("--name", help="with --choice: the name of this training in it")
    parser.path("--out", "folder to write the model to")
    parser.path("--resume", "folder for the state of an unfinished training")
    parser.add_argument(
        "--board", type=Path, metavar="PATH", help="folder of TensorBoard files (default: none)"
    )
    parser.add_argument(
        "--save-seconds", type=float, default=60.0, help="seconds between two saves (default 60)"
    )
    parser.device()
    arguments = parser.parse_args()
    require_what_it_reads(parser, arguments)
    return arguments


def require_what_it_reads(parser: Parser, arguments) -> None:
    """Exit with an error for an option that these settings require or do not use."""
    settings = arguments.settings
    stage, learns = settings.train, arguments.pseudo_labels or arguments.unlabeled
    if arguments.pseudo_labels and arguments.unlabeled:
        parser.error("--unlabeled: not allowed with --pseudo-labels, which also names the images")
    by_folds = stage.select == "folds"
    if by_folds != bool(arguments.choice) or by_folds != bool(arguments.name):
        parser.error("--choice, --name: required with train.select folds, not allowed otherwise")
    if not (arguments.previous or settings.network):
        parser.error("--settings: network is null, but --previous is missing; name a network")
    goes_on = not settings.network or (learns and (by_folds or stage.best == "carry"))
    if bool(arguments.previous) != bool(goes_on):
        parser.error(
            "--previous: required if the settings name no network, and with --pseudo-labels or "
            "--unlabeled, unless train.best is `restart`; not allowed otherwise"
        )
    labels_itself = bool(arguments.unlabeled)
    if isinstance(stage.objective, SelfTraining) and labels_itself != (
        stage.online_threshold is not None
    ):
        parser.error("--unlabeled: required with train.online_threshold, not allowed without it")
    for name in ("predictions", "thresholds", "labeling-model"):
        given = getattr(arguments, name.replace("-", "_"))
        if bool(given) != (name in stage.reads):
            parser.error(
                f"--{name}: required if the objective (or train.weighting: original) reads it, "
                "not allowed otherwise"
            )


def run() -> None:
    arguments = parse()
    settings: ModelSettings = arguments.settings
    gpus = settings.train.gpus
    if gpus > 1 and not ranks.is_launched():
        gpu_locks.take(arguments.device, gpus)
        ranks.launch(gpus)
        return
    mine = ranks.here(gpus)
    if gpus == 1:
        signals.listen()
    rows = read_index(arguments.index)
    labeled = rows_of(rows, read_ids(arguments.labeled), arguments.labeled)
    validation = selecting(rows.values(), settings.train)
    pseudo, folder, inputs = [], None, []
    if arguments.pseudo_labels:
        manifest = read_manifest(arguments.pseudo_labels, list(settings.dataset.classes))
        folder = arguments.pseudo_labels.with_suffix("")
        if mine.first:
            require_unchanged(folder, arguments.pseudo_labels, manifest)
        pseudo = rows_of(rows, (row.id for row in manifest), arguments.pseudo_labels)
        # Only the checksums, not the accuracy columns, which come from masks of unlabeled images:
        # no such mask may affect a model.
        inputs = [row.sha256 for row in manifest]
    if arguments.unlabeled:
        pseudo = rows_of(rows, read_ids(arguments.unlabeled), arguments.unlabeled)
    previous = arguments.previous
    more = (arguments.predictions, arguments.thresholds, arguments.labeling_model)
    inputs = [
        *([checksums.sha256_of(previous)] if previous else []),
        *inputs,
        *(checksums.sha256_of(path) for path in (*more, arguments.choice) if path),
    ]
    files = digest([used_files([*labeled, *validation], True), used_files(pseudo, False)])
    if settings.start_from:
        inputs.append(checksums.sha256_of(Path(settings.start_from)))
    # With initial weights, the data set determines the window; a previous model has its own.
    window = window_of(rows.values()) if settings.network else None
    fingerprint = digest([settings.canonical(), files, str(window), *inputs])
    keys = "train.batch or train.crop; in validation, evaluation.batch or evaluation.tile"
    job = f"training of {arguments.out}"
    holding = (
        resume_folder(arguments.resume, fingerprint, job)
        if mine.first
        else nullcontext(Work.of_another(arguments.resume))
    )
    with holding as work, devices.explain_out_of_memory(keys), ranks.explain_lost_ranks():
        # Before the import of torch, which reads the number of threads only once.
        devices.limit_threads(settings.train.compute_threads)
        if gpus == 1:
            gpu_locks.take(arguments.device)
        from dst_cbc.training import loop, model_folder, objectives, samples

        device = devices.prepare(arguments.device, settings.train)
        mine.join(device, settings.train)
        size = settings.predict.size if settings.predict else None
        data = samples.Data(
            arguments.data,
            settings.dataset,
            labeled,
            pseudo,
            folder,
            validation,
            *more,
            size,
            groups_of_few(validation, list(rows), settings),
        )
        model, best, best_model = starting_point(previous, settings, window)
        chosen = chosen_for(arguments.choice, arguments.name) if arguments.choice else {}
        if why := chosen.get("stopped") or has_ended(settings.train, best):
            if mine.first:
                model_folder.write_copy(arguments.out, settings, previous, why)
                model_folder.write_run(arguments.out, device, stopped=why)
            return
        stage = loop.ended_early(settings.train, chosen.get("share", 1))
        try:
            # Its rates and ramps are those of the whole length, as in the folds.
            objective = objectives.make(model, data, settings.train, device, mine)
            end = loop.train(
                objective,
                best,
                data,
                stage,
                device,
                work,
                arguments.board,
                arguments.workers,
                arguments.save_seconds,
                mine,
                best_model=best_model,
            )
        except (Changed, DataError):
            # If a file has changed since the data check, raise Spoiled instead: a retry can help,
            # but not with the steps that may have used it.
            require_checked_files(data)
            raise
        require_checked_files(data)
        if not mine.first:
            return
        work.require_held()
        say_if_lost(settings.train.round, best, end)
        model_folder.write(arguments.out, settings, objective.evaluated, end, previous, work.folder)
    seconds = round(end.seconds, 1)
    model_folder.write_run(arguments.out, device, seconds=seconds, resumes=end.resumes)


def groups_of_few(validation: list[Row], known: list[str], settings: ModelSettings) -> list[int]:
    """The groups of the images that choose, if they are few; else none."""
    stage = settings.train
    if len(validation) >= FEW_IMAGES or stage.select not in ("val", "valtiny"):
        return []
    ids = [row.id for row in validation]
    return resampling_groups(ids, known, settings.dataset.group)


def require_checked_files(data) -> None:
    require_same(data.root, [*data.labeled, *data.validation], data.masks)
    require_same(data.root, data.pseudo)


def say_if_lost(round: int, best: dict | None, end) -> None:
    """Print a line if a round ends below the best of its chain. best: record before the round."""
    reached = end.history[-1]
    scored = [record for record in (best, end.best) if record and record["score"] is not None]
    top = max(scored, key=lambda record: record["score"], default=None)
    if top and reached["step"] == end.step and reached["miou"] < top["score"]:
        print(
            f"round {round} ends at mIoU {reached['miou']:.2f}, below the best of the chain, "
            f"{top['score']:.2f} of round {top['round']}, step {top['step']}"
        )


def starting_point(previous: Path | None, settings: ModelSettings, window):
    """The model with its starting weights, and the best model of the chain so far with its record.

    Without an earlier model, or if the best is not carried on, the last two are None.
    """
    import torch

    from dst_cbc.models import segmentation

    before = segmentation.read_model(previous) if previous else None
    carried = before if settings.train.best == "carry" else None
    best = carried.record if carried else None
    if not settings.network:
        assert before is not None
        return before, best, carried
    torch.manual_seed(settings.train.seed)
    classes, bands = settings.dataset.classes, settings.dataset.bands
    if settings.start_from:
        path = Path(settings.start_from)
        model = segmentation.going_on(path, settings.network, classes, window, bands)
    else:
        model = segmentation.build(settings.network, classes, window=window, bands=bands)
    return model, best, carried


def has_ended(stage: TrainStage, best: dict | None) -> str | None:
    """Why a round trains nothing: its chain has had no better model for `patience` rounds."""
    if not (stage.patience and best) or stage.round - 1 - best["round"] < stage.patience:
        return None
    return (
        f"no round after round {best['round']} has reached a better model, and patience is "
        f"{stage.patience}"
    )


if __name__ == "__main__":
    main(run)
