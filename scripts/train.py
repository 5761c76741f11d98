"""Train one model: supervised from initial weights, or a round of self-training.

With --previous and --pseudo-labels it fine-tunes that model on labeled and pseudo-labeled images;
without them it trains on the labeled images alone. Into the folder --out it writes model.pt (the
best of the chain so far), last.pt, settings.json, history.csv and run.json. A training that was
killed goes on where it last saved.
"""

import subprocess
from contextlib import nullcontext
from pathlib import Path

from dst_cbc import devices, free_gpus, ranks, stopping
from dst_cbc.command import Parser, main
from dst_cbc.datasets import selecting
from dst_cbc.files import (
    DataError,
    digest,
    read_ids,
    sha256_file,
    write_bytes,
    write_csv,
    write_json,
    write_text,
)
from dst_cbc.index import read_index, require_same, rows_of, used_files, window_of
from dst_cbc.pseudo_labels import read_manifest, require_unchanged
from dst_cbc.resume import Work, resume_folder
from dst_cbc.settings import ModelSettings


def parse():
    parser = Parser(__doc__)
    parser.settings(ModelSettings)
    parser.path("--data", "folder of the data set")
    parser.path("--index", "dataset.csv")
    parser.path("--labeled", "list of labeled ids")
    parser.add_argument("--previous", type=Path, metavar="PATH", help="model.pt to fine-tune")
    parser.add_argument(
        "--pseudo-labels", type=Path, metavar="PATH", help="pseudo_labels.csv, its PNGs beside it"
    )
    parser.add_argument(
        "--unlabeled", type=Path, metavar="PATH", help="instead: ids that the model labels itself"
    )
    parser.add_argument(
        "--predictions", type=Path, metavar="PATH", help="of the model that labeled, as weights"
    )
    parser.path("--out", "folder of the model")
    parser.path("--resume", "folder for the state of an unfinished training")
    parser.add_argument(
        "--board", type=Path, metavar="PATH", help="folder of TensorBoard files (default: none)"
    )
    parser.add_argument(
        "--save-seconds", type=float, default=60.0, help="between two saves (default 60)"
    )
    parser.device()
    arguments = parser.parse_args()
    if bool(arguments.previous) != bool(arguments.pseudo_labels or arguments.unlabeled):
        parser.error("--previous goes with --pseudo-labels or --unlabeled")
    stage = arguments.settings.train
    if bool(arguments.unlabeled) != (stage.online_threshold is not None):
        parser.error("--unlabeled goes with online_threshold")
    if bool(arguments.predictions) != (stage.weighting == "original"):
        parser.error("--predictions goes with weighting `original`")
    return arguments


def run() -> None:
    arguments = parse()
    settings: ModelSettings = arguments.settings
    gpus = settings.train.gpus
    if gpus > 1 and not ranks.is_launched():
        free_gpus.take(arguments.device, gpus)
        ranks.launch(gpus)
        return
    mine = ranks.here(gpus)
    if gpus == 1:
        stopping.listen()
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
        # Accuracy columns stay outside: no mask of an unlabeled image may reach a model.
        inputs = [sha256_file(arguments.previous), *(row.sha256 for row in manifest)]
    if arguments.unlabeled:
        pseudo = rows_of(rows, read_ids(arguments.unlabeled), arguments.unlabeled)
        inputs = [sha256_file(arguments.previous)]
    if arguments.predictions:
        inputs.append(sha256_file(arguments.predictions))
    files = digest([used_files([*labeled, *validation], True), used_files(pseudo, False)])
    if settings.start_from:
        inputs.append(sha256_file(settings.start_from))
    # Of the data set where the chain starts; a later round's model brings its own.
    window = None if arguments.previous else window_of(rows.values())
    fingerprint = digest([settings.canonical(), files, str(window), *inputs])
    keys = "train.batch or train.crop; in validation, evaluation.batch or evaluation.tile"
    job = f"training of {arguments.out}"
    holding = (
        resume_folder(arguments.resume, fingerprint, job)
        if mine.first
        else nullcontext(Work.of_another(arguments.resume))
    )
    with holding as work, devices.memory_in_words(keys), ranks.losses_in_words():
        # torch reads the number of threads once, when it is imported.
        devices.limit_threads(settings.train.compute_threads)
        if gpus == 1:
            free_gpus.take(arguments.device)
        import torch

        from dst_cbc import models, training

        device = devices.prepare(arguments.device, settings.train)
        mine.join(device, settings.train)
        data = training.Data(
            arguments.data, settings.dataset, labeled, pseudo, folder, validation,
            arguments.predictions,
        )  # fmt: skip
        if arguments.previous:
            model = models.read_model(arguments.previous)
            best = model.record
        else:
            torch.manual_seed(settings.train.seed)
            classes, best = settings.dataset.classes, None
            if settings.start_from:
                path = Path(settings.start_from)
                model = models.going_on(path, settings.network, classes, window)
            else:
                model = models.build(settings.network, classes, window=window)
        try:
            end = training.train(
                model,
                best,
                data,
                settings.train,
                device,
                work,
                arguments.board,
                arguments.workers,
                arguments.save_seconds,
                mine,
            )
        except DataError:
            # The file at fault may be another one than was checked: that can be cured.
            require_checked_files(data)
            raise
        require_checked_files(data)
        if not mine.first:
            return
        work.require_held()
        write_model_folder(arguments, settings, model, end)
    write_run(arguments.out / "run.json", end, device)


def require_checked_files(data) -> None:
    require_same(data.root, [*data.labeled, *data.validation], labels=True)
    require_same(data.root, data.pseudo, labels=False)


def write_model_folder(arguments, settings: ModelSettings, model, end) -> None:
    from dst_cbc import models, training

    out = arguments.out
    if end.best is None:
        raise DataError(
            f"mIoU on {settings.train.select!r} was never a number: its masks have no labeled pixel"
        )
    if end.best_state is None:
        write_bytes(out / "model.pt", arguments.previous.read_bytes())
    else:
        models.write_model(out / "model.pt", model, end.best_state, end.best)
    last = training.record(settings.train, end.step, end.history[-1]["miou"])
    models.write_model(out / "last.pt", model, training.cpu_state(model), last)
    write_csv(out / "history.csv", training.HISTORY, end.history)
    write_text(out / "settings.json", settings.model_dump_json(indent=2) + "\n")


def write_run(path: Path, end, device) -> None:
    """What may differ between two runs that give the same model."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True
    ).stdout.strip()
    write_json(
        path,
        {
            "commit": commit or None,
            "device": devices.describe(device.type),
            "versions": devices.versions(),
            "seconds": round(end.seconds, 1),
            "resumes": end.resumes,
        },
    )


if __name__ == "__main__":
    main(run)
